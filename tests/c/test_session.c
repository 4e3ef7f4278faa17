/* A whole life through the C interface: probe, open, describe, tokenize, forward, generate, arenas, cancel. */
#include "check.h"
#include "tiny_model.h"

#include <math.h>

static mantle_runtime *runtime;
static mantle_model *model;
static const mantle_tokenizer *tokenizer;

static mantle_session *session_of(uint32_t max_context, uint32_t max_batch_tokens, uint32_t max_sequences)
{
    mantle_session *session = NULL;
    mantle_session_options options;
    SUCCEEDS(mantle_session_options_init(&options, sizeof options, error));
    options.max_context = max_context;
    options.max_batch_tokens = max_batch_tokens;
    options.max_sequences = max_sequences;
    options.max_logits = 40;
    SUCCEEDS(mantle_session_new(model, &options, NULL, &session, error));
    return session;
}

static void forward(mantle_session *session, int32_t sequence, const mantle_token *ids, size_t count, int32_t logits)
{
    size_t offsets[2] = {0, 0};
    offsets[1] = count;
    SUCCEEDS(mantle_forward(session, &sequence, ids, offsets, 1, logits, NULL, error));
}

static const float *logits_of(mantle_session *session, size_t row)
{
    const float *logits = NULL;
    size_t size = 0;
    SUCCEEDS(mantle_logits(session, row, &logits, &size, error));
    REQUIRE(size == TINY_VOCABULARY);
    return logits;
}

static mantle_token greedy(const float *logits)
{
    mantle_token best = 0;
    for (mantle_token id = 1; id < TINY_VOCABULARY; id++) {
        if (logits[id] > logits[best]) {
            best = id;
        }
    }
    return best;
}

static uint32_t length_of(const mantle_session *session, int32_t sequence)
{
    uint32_t length = 0;
    SUCCEEDS(mantle_sequence_length(session, sequence, &length, error));
    return length;
}

/* Both ways of opening tell and compute the same. */
static void test_opening(const struct tiny_model *file)
{
    const char *path = "tiny-llama-test.gguf";
    const mantle_token ids[3] = {10, 20, 30};
    FILE *out = fopen(path, "wb");
    mantle_model_info probed, opened;
    mantle_memory need, held;
    mantle_model_options options;
    float expected[TINY_VOCABULARY];
    REQUIRE(out && fwrite(file->data, 1, file->size, out) == file->size && fclose(out) == 0);
    memset(&probed, 0, sizeof probed);
    memset(&opened, 0, sizeof opened);
    memset(&need, 0, sizeof need);
    memset(&held, 0, sizeof held);
    probed.struct_size = opened.struct_size = sizeof probed;
    need.struct_size = held.struct_size = sizeof need;
    SUCCEEDS(mantle_model_probe(runtime, path, strlen(path), NULL, &probed, &need, error));
    SUCCEEDS(mantle_model_get_info(model, &opened, error));
    SUCCEEDS(mantle_model_memory(model, &held, error));
    CHECK(memcmp(&probed, &opened, sizeof opened) == 0);
    CHECK(need.weights == held.weights && held.weights > 0 && held.total >= held.weights);
    CHECK(need.cache == 0 && need.scratch == 0 && need.total == need.weights + need.other);
    CHECK(opened.packed_bytes == held.weights && opened.bytes_per_token > 0);
    CHECK(strcmp(opened.architecture, "llama") == 0 && strcmp(opened.name, "tiny") == 0);
    CHECK(opened.capabilities == (MANTLE_CAPABILITY_GENERATION | MANTLE_CAPABILITY_EMBEDDING));
    CHECK(opened.layers == TINY_LAYERS && opened.embedding == TINY_EMBEDDING && opened.heads == TINY_HEADS);
    CHECK(opened.kv_heads == TINY_KV_HEADS && opened.head_size == TINY_EMBEDDING / TINY_HEADS);
    CHECK(opened.feed_forward == TINY_FEED_FORWARD && opened.vocabulary == TINY_VOCABULARY);
    CHECK(opened.context == TINY_CONTEXT && opened.file_bytes == file->size);

    /* With options for a session, the probe tells the memory of both, and not too little. */
    mantle_session_options session_options;
    mantle_memory with_session, of_session;
    with_session.struct_size = of_session.struct_size = sizeof with_session;
    SUCCEEDS(mantle_session_options_init(&session_options, sizeof session_options, error));
    session_options.max_context = 100;
    SUCCEEDS(mantle_model_probe(runtime, path, strlen(path), &session_options, NULL, &with_session, error));
    SUCCEEDS(mantle_session_bytes(model, &session_options, &of_session, error));
    CHECK(with_session.weights == need.weights && with_session.cache == of_session.cache);
    CHECK(with_session.scratch >= of_session.scratch && with_session.total >= need.total + of_session.total);
    session_options.max_context = TINY_CONTEXT + 1;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "129",
          mantle_model_probe(runtime, path, strlen(path), &session_options, NULL, &with_session, error));

    mantle_session *session = session_of(0, 0, 0);
    forward(session, 0, ids, 3, MANTLE_LOGITS_LAST);
    memcpy(expected, logits_of(session, 0), sizeof expected);
    mantle_session_free(session);
    SUCCEEDS(mantle_model_options_init(&options, sizeof options, error));
    for (int32_t mode = MANTLE_LOAD_MAP; mode <= MANTLE_LOAD_READ; mode++) {
        mantle_model *in_memory = model;
        options.load_mode = mode;
        SUCCEEDS(mantle_model_open(runtime, path, strlen(path), &options, &model, error));
        session = session_of(0, 0, 0);
        forward(session, 0, ids, 3, MANTLE_LOGITS_LAST);
        CHECK(memcmp(expected, logits_of(session, 0), sizeof expected) == 0);
        mantle_session_free(session);
        mantle_model_free(model);
        model = in_memory;
    }
    remove(path);
}

static void test_description(void)
{
    size_t count = 0, length = 0, index = 0;
    const char *key = NULL;
    char json[16384];
    mantle_tensor_info tensor;
    SUCCEEDS(mantle_model_metadata_count(model, &count, error));
    REQUIRE(count > 10);
    for (size_t i = 0; i < count; i++) {
        SUCCEEDS(mantle_model_metadata_key(model, i, &key, &length, error));
        SUCCEEDS(mantle_model_metadata_value(model, key, length, json, sizeof json, &index, error));
        CHECK(index > 0 && index <= sizeof json);
    }
    SUCCEEDS(mantle_model_metadata_value(model, "general.name", 12, json, sizeof json, &length, error));
    CHECK(length == 6 && memcmp(json, "\"tiny\"", 6) == 0);
    SUCCEEDS(mantle_model_metadata_value(model, "tokenizer.ggml.merges", 21, json, sizeof json, &length, error));
    CHECK(length == 7 && memcmp(json, "[\"a b\"]", 7) == 0);
    length = 0;
    memset(json, '#', sizeof json);
    GIVES(MANTLE_ERROR_BUFFER_TOO_SMALL, "6",
          mantle_model_metadata_value(model, "general.name", 12, json, 5, &length, error));
    CHECK(length == 6 && json[0] == '#');

    SUCCEEDS(mantle_model_tensor_count(model, &count, error));
    CHECK(count == TINY_TENSORS);
    tensor.struct_size = sizeof tensor;
    SUCCEEDS(mantle_model_tensor_find(model, "blk.1.ffn_down.weight", 21, &index, error));
    SUCCEEDS(mantle_model_tensor_info(model, index, &tensor, error));
    CHECK(tensor.name_length == 21 && memcmp(tensor.name, "blk.1.ffn_down.weight", 21) == 0);
    CHECK(tensor.dtype == MANTLE_DTYPE_F32 && tensor.dimensions == 2);
    CHECK(tensor.shape[0] == TINY_FEED_FORWARD && tensor.shape[1] == TINY_EMBEDDING && tensor.shape[2] == 1);
    CHECK(tensor.bytes == 4u * TINY_FEED_FORWARD * TINY_EMBEDDING && tensor.offset % 32 == 0);
}

static void test_tokenizer(void)
{
    static const char text[] = "ab\xc3\xa4 <|end|>";
    mantle_token ids[32], id = 0;
    char back[32];
    size_t size = 0, count = 0;
    bool is_end = true;
    SUCCEEDS(mantle_tokenizer_vocabulary_size(tokenizer, &size, error));
    CHECK(size == TINY_VOCABULARY);
    SUCCEEDS(mantle_tokenizer_special(tokenizer, MANTLE_SPECIAL_BOS, &id, error));
    CHECK(id == TINY_BEGIN);
    SUCCEEDS(mantle_tokenizer_special(tokenizer, MANTLE_SPECIAL_MASK, &id, error));
    CHECK(id == MANTLE_TOKEN_NONE);
    SUCCEEDS(mantle_tokenizer_is_end(tokenizer, TINY_END, &is_end, error));
    CHECK(is_end);
    SUCCEEDS(mantle_tokenizer_is_end(tokenizer, 65, &is_end, error));
    CHECK(!is_end);

    GIVES(MANTLE_ERROR_BUFFER_TOO_SMALL, NULL,
          mantle_tokenize(tokenizer, text, sizeof text - 1, 0, NULL, 0, &count, error));
    CHECK(count == 11); /* ab, two bytes, space, seven bytes */
    SUCCEEDS(mantle_tokenize(tokenizer, text, sizeof text - 1, 0, ids, count, &count, error));
    CHECK(count == 11 && ids[0] == TINY_MERGED && ids[1] == 0xc3 && ids[2] == 0xa4 && ids[3] == ' ');
    SUCCEEDS(mantle_detokenize(tokenizer, ids, count, 0, back, sizeof back, &size, error));
    CHECK(size == sizeof text - 1 && memcmp(back, text, size) == 0);
    SUCCEEDS(mantle_tokenize(tokenizer, text, sizeof text - 1, MANTLE_TOKENIZE_PARSE_SPECIAL, ids, 32, &count, error));
    CHECK(count == 5 && ids[4] == TINY_END);
    SUCCEEDS(mantle_detokenize(tokenizer, ids, count, MANTLE_DETOKENIZE_SKIP_SPECIAL, back, sizeof back, &size, error));
    CHECK(size == 5 && memcmp(back, text, 5) == 0);
    SUCCEEDS(mantle_tokenize(tokenizer, NULL, 0, 0, NULL, 0, &count, error));
    CHECK(count == 0);
    SUCCEEDS(mantle_detokenize(tokenizer, NULL, 0, 0, NULL, 0, &size, error));
    CHECK(size == 0);
}

/* The same tokens in one call, in several, beside other sequences, and in small batches: the same bits. */
static void test_forward(void)
{
    enum { COUNT = 40 };
    mantle_token ids[2 * COUNT];
    static float expected[COUNT][TINY_VOCABULARY];
    size_t rows = 0;
    for (int i = 0; i < 2 * COUNT; i++) {
        ids[i] = (i * 37 + 11) % TINY_VOCABULARY;
    }
    mantle_session *session = session_of(0, 0, 0);
    forward(session, 0, ids, COUNT, MANTLE_LOGITS_ALL);
    SUCCEEDS(mantle_logits_rows(session, &rows, error));
    REQUIRE(rows == COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        memcpy(expected[i], logits_of(session, i), sizeof expected[i]);
        CHECK(isfinite(expected[i][0]));
    }
    CHECK(length_of(session, 0) == COUNT);

    /* Token by token after a cut. */
    SUCCEEDS(mantle_sequence_truncate(session, 0, 7, error));
    CHECK(length_of(session, 0) == 7);
    for (size_t i = 7; i < 12; i++) {
        forward(session, 0, ids + i, 1, MANTLE_LOGITS_LAST);
        CHECK(memcmp(expected[i], logits_of(session, 0), sizeof expected[i]) == 0);
    }
    forward(session, 0, ids + 12, 3, MANTLE_LOGITS_NONE);
    SUCCEEDS(mantle_logits_rows(session, &rows, error));
    CHECK(rows == 0);
    mantle_session_free(session);

    /* In small batches, beside a second sequence. */
    session = session_of(COUNT, 16, 2);
    const int32_t sequences[2] = {1, 0};
    size_t offsets[3] = {0, COUNT - 1, 2 * COUNT - 1};
    mantle_token both[2 * COUNT];
    memcpy(both, ids + COUNT, (COUNT - 1) * sizeof *both);
    memcpy(both + COUNT - 1, ids, COUNT * sizeof *both);
    SUCCEEDS(mantle_forward(session, sequences, both, offsets, 2, MANTLE_LOGITS_LAST, NULL, error));
    CHECK(memcmp(expected[COUNT - 1], logits_of(session, 1), sizeof expected[0]) == 0);
    CHECK(length_of(session, 0) == COUNT && length_of(session, 1) == COUNT - 1);

    /* More logits than the session has room for. */
    SUCCEEDS(mantle_sequence_truncate(session, 1, 0, error));
    SUCCEEDS(mantle_sequence_truncate(session, 0, 0, error));
    offsets[1] = 1;
    offsets[2] = 41;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "max_logits",
          mantle_forward(session, sequences, both, offsets, 2, MANTLE_LOGITS_ALL, NULL, error));
    CHECK(length_of(session, 0) == 0 && length_of(session, 1) == 0);
    forward(session, 0, ids, COUNT, MANTLE_LOGITS_NONE);

    /* One token too many: refused, and nothing has changed. */
    offsets[1] = 1;
    GIVES(MANTLE_ERROR_CONTEXT_FULL, "40",
          mantle_forward(session, sequences + 1, ids, offsets, 1, MANTLE_LOGITS_LAST, NULL, error));
    CHECK(length_of(session, 0) == COUNT);
    mantle_session_free(session);
}

struct collected {
    mantle_token ids[TINY_CONTEXT];
    size_t count, limit;
    char text[8 * TINY_CONTEXT];
    size_t length;
};

static bool collect(void *user_data, mantle_token token, const char *text, size_t length)
{
    struct collected *collected = (struct collected *)user_data;
    if (token != MANTLE_TOKEN_NONE) {
        collected->ids[collected->count++] = token;
    }
    memcpy(collected->text + collected->length, text, length);
    collected->length += length;
    return collected->count < collected->limit;
}

/* Generation is forward and the highest logit, over and over. */
static void test_generate(void)
{
    const mantle_token prompt[5] = {TINY_BEGIN, 72, 101, 108, 108};
    static struct collected collected;
    mantle_generate_options options;
    mantle_generation result;
    mantle_session *session = session_of(32, 3, 0);
    SUCCEEDS(mantle_generate_options_init(&options, sizeof options, error));
    options.max_tokens = 12;
    options.flags = MANTLE_GENERATE_IGNORE_END;
    result.struct_size = sizeof result;
    collected.limit = TINY_CONTEXT;
    SUCCEEDS(mantle_generate(session, tokenizer, 0, prompt, 5, &options, collect, &collected, NULL, &result, error));
    CHECK(result.stop == MANTLE_STOP_MAX_TOKENS && result.tokens == 12 && result.passes == 11);
    CHECK(result.prompt_tokens == 5 && result.prompt_nanoseconds > 0 && result.generation_nanoseconds > 0);
    CHECK(collected.count == 12 && length_of(session, 0) == 5 + 11);

    SUCCEEDS(mantle_sequence_truncate(session, 0, 0, error));
    forward(session, 0, prompt, 5, MANTLE_LOGITS_LAST);
    for (size_t i = 0; i < 12; i++) {
        mantle_token next = greedy(logits_of(session, 0));
        CHECK(next == collected.ids[i]);
        forward(session, 0, &next, 1, MANTLE_LOGITS_LAST);
    }

    /* It stops where the context ends, and when the callback says so. */
    SUCCEEDS(mantle_sequence_truncate(session, 0, 0, error));
    options.max_tokens = 0;
    collected.count = collected.length = 0;
    SUCCEEDS(mantle_generate(session, tokenizer, 0, prompt, 5, &options, collect, &collected, NULL, &result, error));
    CHECK(result.stop == MANTLE_STOP_CONTEXT_FULL && result.tokens == 32 - 5 + 1 && length_of(session, 0) == 32);
    GIVES(MANTLE_ERROR_CONTEXT_FULL, "32",
          mantle_generate(session, tokenizer, 0, prompt, 5, &options, collect, &collected, NULL, &result, error));
    SUCCEEDS(mantle_sequence_truncate(session, 0, 0, error));
    collected.count = collected.length = 0;
    collected.limit = 4;
    SUCCEEDS(mantle_generate(session, tokenizer, 0, prompt, 5, &options, collect, &collected, NULL, &result, error));
    CHECK(result.stop == MANTLE_STOP_CALLBACK && result.tokens == 4 && length_of(session, 0) == 5 + 3);
    mantle_session_free(session);
}

struct firing {
    mantle_cancel *cancel;
    int calls;
};

static bool fire(void *user_data, mantle_token token, const char *text, size_t length)
{
    struct firing *firing = (struct firing *)user_data;
    (void)token, (void)text, (void)length;
    if (++firing->calls == 3) {
        mantle_cancel_fire(firing->cancel);
    }
    return true;
}

static void test_cancel(void)
{
    const mantle_token prompt[5] = {1, 2, 3, 4, 5};
    const int32_t sequence = 0;
    const size_t offsets[2] = {0, 5};
    mantle_generate_options options;
    mantle_session *session = session_of(0, 0, 0);
    struct firing firing = {NULL, 0};
    SUCCEEDS(mantle_generate_options_init(&options, sizeof options, error));
    options.flags = MANTLE_GENERATE_IGNORE_END;
    SUCCEEDS(mantle_cancel_new(&firing.cancel, error));
    mantle_cancel_fire(firing.cancel);
    GIVES(MANTLE_ERROR_CANCELLED, NULL,
          mantle_forward(session, &sequence, prompt, offsets, 1, MANTLE_LOGITS_LAST, firing.cancel, error));
    GIVES(MANTLE_ERROR_CANCELLED, NULL,
          mantle_generate(session, tokenizer, 0, prompt, 5, &options, NULL, NULL, firing.cancel, NULL, error));
    CHECK(length_of(session, 0) == 0);
    mantle_cancel_reset(firing.cancel);
    {
        mantle_error *object = NULL;
        mantle_status status = mantle_generate(session, tokenizer, 0, prompt, 5, &options, fire, &firing,
                                               firing.cancel, NULL, &object);
        CHECK(status == MANTLE_ERROR_CANCELLED && firing.calls == 3 && length_of(session, 0) == 5 + 2);
        mantle_error_free(object);
    }
    mantle_cancel_reset(firing.cancel);
    SUCCEEDS(mantle_sequence_truncate(session, 0, 0, error));
    SUCCEEDS(mantle_forward(session, &sequence, prompt, offsets, 1, MANTLE_LOGITS_LAST, firing.cancel, error));
    mantle_cancel_free(firing.cancel);
    mantle_session_free(session);
}

/* What mantle_session_bytes tells is enough, and one byte less is not. */
static void test_arena(void)
{
    const mantle_token ids[4] = {1, 2, 3, 4};
    mantle_memory need, used;
    mantle_arena *arena = NULL, *small = NULL;
    mantle_arena_info info;
    mantle_session *session = NULL, *second = NULL;
    float expected[TINY_VOCABULARY];
    need.struct_size = used.struct_size = sizeof need;
    info.struct_size = sizeof info;
    session = session_of(0, 0, 0);
    forward(session, 0, ids, 4, MANTLE_LOGITS_LAST);
    memcpy(expected, logits_of(session, 0), sizeof expected);
    mantle_session_free(session);

    SUCCEEDS(mantle_session_bytes(model, NULL, &need, error));
    CHECK(need.total >= need.cache + need.scratch && need.cache > 0 && need.scratch > 0);
    SUCCEEDS(mantle_arena_new(runtime, (size_t)need.total - 1, &small, error));
    session = (mantle_session *)(void *)&need;
    GIVES(MANTLE_ERROR_NO_MEMORY, NULL, mantle_session_new(model, NULL, small, &session, error));
    CHECK(session == NULL);
    SUCCEEDS(mantle_arena_new(runtime, (size_t)need.total, &arena, error));
    for (int round = 0; round < 2; round++) {
        SUCCEEDS(mantle_session_new(model, NULL, arena, &session, error));
        SUCCEEDS(mantle_session_memory(session, &used, error));
        CHECK(used.total == need.total);
        SUCCEEDS(mantle_arena_get_info(arena, &info, error));
        CHECK(info.used == need.total && info.peak == need.total);
        GIVES(MANTLE_ERROR_BUSY, "another session", mantle_session_new(model, NULL, arena, &second, error));
        forward(session, 0, ids, 4, MANTLE_LOGITS_LAST);
        CHECK(memcmp(expected, logits_of(session, 0), sizeof expected) == 0);
        if (round == 0) {
            mantle_session_free(session);
            SUCCEEDS(mantle_arena_get_info(arena, &info, error));
            CHECK(info.used == 0 && info.peak == need.total);
        }
    }
    /* The session outlives its arena. */
    mantle_arena_free(arena);
    forward(session, 0, ids, 4, MANTLE_LOGITS_LAST);
    mantle_session_free(session);
    mantle_arena_free(small);

    /* In the caller's own memory, which is not touched beyond its end. */
    char *block = (char *)malloc((size_t)need.total + 128);
    REQUIRE(block);
    char *aligned = block + (64 - (size_t)(uintptr_t)block % 64) % 64;
    memset(aligned + need.total, 0x5a, 64);
    SUCCEEDS(mantle_arena_wrap(aligned, (size_t)need.total, &arena, error));
    SUCCEEDS(mantle_session_new(model, NULL, arena, &session, error));
    forward(session, 0, ids, 4, MANTLE_LOGITS_LAST);
    CHECK(memcmp(expected, logits_of(session, 0), sizeof expected) == 0);
    mantle_session_free(session);
    mantle_arena_free(arena);
    for (int i = 0; i < 64; i++) {
        CHECK(aligned[need.total + (size_t)i] == 0x5a);
    }
    free(block);

    /* A limit below the need. */
    mantle_session_options options;
    SUCCEEDS(mantle_session_options_init(&options, sizeof options, error));
    options.memory_limit = need.total - 1;
    GIVES(MANTLE_ERROR_NO_MEMORY, NULL, mantle_session_new(model, &options, NULL, &session, error));
}

int main(void)
{
    struct tiny_model file = tiny_make(NULL);
    SUCCEEDS(mantle_runtime_new(NULL, &runtime, error));
    SUCCEEDS(mantle_model_open_memory(runtime, file.data, file.size, NULL, &model, error));
    SUCCEEDS(mantle_model_tokenizer(model, &tokenizer, error));
    test_opening(&file);
    tiny_free(&file);
    test_description();
    test_tokenizer();
    test_forward();
    test_generate();
    test_cancel();
    test_arena();
    mantle_model_free(model);
    mantle_runtime_free(runtime);
    return check_result();
}
