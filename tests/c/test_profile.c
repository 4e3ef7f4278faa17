/* The profile of a session or an embedder: its numbers agree with each other, with the model, and with the time that calls take. */
#define _POSIX_C_SOURCE 199309L
#include "check.h"
#include "tiny_model.h"

#include <time.h>

enum { TOKENS = 40, CALLS = 3 };

static mantle_session *session;

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static mantle_profile *take(void)
{
    mantle_profile *profile = NULL;
    SUCCEEDS(mantle_session_profile(session, &profile, error));
    return profile;
}

static mantle_profile_entry entry_of(const mantle_profile *profile, int32_t op, int32_t layer)
{
    mantle_profile_entry entry;
    entry.struct_size = sizeof entry;
    SUCCEEDS(mantle_profile_get_entry(profile, op, layer, &entry, error));
    return entry;
}

static mantle_profile_info info_of(const mantle_profile *profile)
{
    mantle_profile_info info;
    info.struct_size = sizeof info;
    SUCCEEDS(mantle_profile_get_info(profile, &info, error));
    return info;
}

static void forward(void)
{
    static const size_t offsets[2] = {0, TOKENS};
    const int32_t sequence = 0;
    mantle_token ids[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        ids[i] = i + 1;
    }
    SUCCEEDS(mantle_sequence_truncate(session, 0, 0, error));
    SUCCEEDS(mantle_forward(session, &sequence, ids, offsets, 1, MANTLE_LOGITS_LAST, NULL, error));
}

/* Every op's layers add up to the op, and the ops to nearly all of the time. */
static void test_sums(const mantle_profile *profile, uint64_t elapsed)
{
    mantle_profile_info info = info_of(profile);
    uint64_t sum = 0;
    CHECK(info.calls == CALLS && info.tokens == CALLS * TOKENS && info.layers == TINY_LAYERS);
    CHECK(info.nanoseconds <= elapsed && info.nanoseconds > 0);
    for (int32_t op = 0; op < (int32_t)info.ops; op++) {
        mantle_profile_entry all = entry_of(profile, op, MANTLE_ALL_LAYERS), layers = {0};
        CHECK(strcmp(mantle_op_name(op), "unknown") != 0);
        for (int32_t layer = 0; layer < (int32_t)info.layers; layer++) {
            mantle_profile_entry one = entry_of(profile, op, layer);
            layers.calls += one.calls;
            layers.nanoseconds += one.nanoseconds;
            layers.operations += one.operations;
            layers.bytes += one.bytes;
        }
        if (layers.calls > 0) {
            CHECK(layers.calls == all.calls && layers.nanoseconds == all.nanoseconds);
            CHECK(layers.operations == all.operations && layers.bytes == all.bytes);
        }
        sum += all.nanoseconds;
    }
    CHECK(sum <= info.nanoseconds);
    CHECK(sum >= info.nanoseconds / 100 * 80); /* A tiny model: the rest is checking arguments. */
}

/* What the shapes of the model say. */
static void test_work(const mantle_profile *profile)
{
    const uint64_t head = TINY_EMBEDDING / TINY_HEADS, kv = TINY_KV_HEADS * head;
    const uint64_t rows[][2] = {
        {MANTLE_OP_QKV, (TINY_EMBEDDING + 2 * kv) * TINY_EMBEDDING},
        {MANTLE_OP_ATTENTION_OUTPUT, TINY_EMBEDDING * TINY_EMBEDDING},
        {MANTLE_OP_GATE_UP, 2 * TINY_FEED_FORWARD * TINY_EMBEDDING},
        {MANTLE_OP_DOWN, TINY_FEED_FORWARD * TINY_EMBEDDING},
        /* Causal: token t sees t + 1 keys, in scores and in sums of values. */
        {MANTLE_OP_ATTENTION, (TOKENS + 1) * TINY_EMBEDDING},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mantle_profile_entry all = entry_of(profile, (int32_t)rows[i][0], MANTLE_ALL_LAYERS);
        CHECK(all.calls == CALLS * TINY_LAYERS);
        CHECK(all.operations == 2 * CALLS * TINY_LAYERS * TOKENS * rows[i][1]);
        CHECK(all.bytes > 0);
    }
    mantle_profile_entry logits = entry_of(profile, MANTLE_OP_HEAD, MANTLE_ALL_LAYERS);
    CHECK(logits.calls == CALLS);
    CHECK(logits.operations == 2u * CALLS * TINY_VOCABULARY * TINY_EMBEDDING);
    CHECK(entry_of(profile, MANTLE_OP_POOLING, MANTLE_ALL_LAYERS).calls == 0);
}

static void test_table(const mantle_profile *profile)
{
    size_t size = 0, longer = 0;
    char text[16384];
    GIVES(MANTLE_ERROR_BUFFER_TOO_SMALL, "needed", mantle_profile_table(profile, false, NULL, 0, &size, error));
    SUCCEEDS(mantle_profile_table(profile, false, text, size, &size, error));
    text[size] = '\0';
    CHECK(strstr(text, "attention_output") && strstr(text, "gate_up") && strstr(text, "GB/s"));
    CHECK(!strstr(text, "pooling"));
    SUCCEEDS(mantle_profile_table(profile, true, text, sizeof text, &longer, error));
    CHECK(longer > size);
}

/* An encoder: the time of texts to embeddings, with the tokenizer's. */
static void test_embedder(mantle_runtime *runtime, const char *folder)
{
    static const char texts[] = "a lighthouse keepera message in a bottle";
    static const size_t offsets[] = {0, 19, sizeof texts - 1};
    static const int32_t ops[] = {
        MANTLE_OP_TOKENIZATION, MANTLE_OP_EMBEDDING,        MANTLE_OP_ATTENTION_NORM,    MANTLE_OP_QKV,     MANTLE_OP_ROPE,
        MANTLE_OP_ATTENTION,    MANTLE_OP_ATTENTION_OUTPUT, MANTLE_OP_FEED_FORWARD_NORM, MANTLE_OP_GATE_UP, MANTLE_OP_DOWN,
        MANTLE_OP_OUTPUT_NORM,  MANTLE_OP_POOLING,          MANTLE_OP_NORMALIZE,
    };
    mantle_model *model = NULL;
    mantle_embedder *embedder = NULL;
    mantle_profile *profile = NULL;
    char path[4096];
    float rows[2 * 1024];
    size_t dimensions = 0;
    snprintf(path, sizeof path, "%s/tiny-gemma-embedding-F32.gguf", folder);
    SUCCEEDS(mantle_model_open(runtime, path, strlen(path), NULL, &model, error));
    SUCCEEDS(mantle_embedder_new(model, NULL, NULL, &embedder, error));
    SUCCEEDS(mantle_embed_dimensions(embedder, NULL, &dimensions, error));
    REQUIRE(2 * dimensions <= sizeof rows / sizeof *rows);
    GIVES(MANTLE_ERROR_NOT_FOUND, "off", mantle_embedder_profile(embedder, &profile, error));
    SUCCEEDS(mantle_embedder_set_profiling(embedder, true, error));
    SUCCEEDS(mantle_embed_texts(embedder, texts, offsets, 2, NULL, rows, 0, NULL, error));
    SUCCEEDS(mantle_embedder_profile(embedder, &profile, error));
    mantle_profile_info info = info_of(profile);
    CHECK(info.calls == 1 && info.tokens >= 4 && info.layers > 0);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        CHECK(entry_of(profile, ops[i], MANTLE_ALL_LAYERS).calls > 0);
    }
    CHECK(entry_of(profile, MANTLE_OP_QKV, 0).operations == entry_of(profile, MANTLE_OP_QKV, 1).operations);
    mantle_profile_free(profile);
    SUCCEEDS(mantle_embedder_set_profiling(embedder, false, error));
    mantle_embedder_free(embedder);
    mantle_model_free(model);
}

int main(int argc, char **argv)
{
    REQUIRE(argc == 2);
    mantle_runtime_options options;
    mantle_runtime *runtime = NULL;
    mantle_model *model = NULL;
    struct tiny_model file = tiny_make(NULL);
    SUCCEEDS(mantle_runtime_options_init(&options, sizeof options, error));
    options.threads = 1;
    SUCCEEDS(mantle_runtime_new(&options, &runtime, error));
    SUCCEEDS(mantle_model_open_memory(runtime, file.data, file.size, NULL, &model, error));
    SUCCEEDS(mantle_session_new(model, NULL, NULL, &session, error));
    tiny_free(&file);

    forward(); /* Before profiling is on: not counted. */
    SUCCEEDS(mantle_session_set_profiling(session, true, error));
    uint64_t start = now();
    for (int call = 0; call < CALLS; call++) {
        forward();
    }
    uint64_t elapsed = now() - start;
    mantle_profile *profile = take();
    forward(); /* A profile is a copy. */
    test_sums(profile, elapsed);
    test_work(profile);
    test_table(profile);
    mantle_profile *later = take();
    CHECK(info_of(later).calls == CALLS + 1);
    mantle_profile_free(later);

    SUCCEEDS(mantle_session_set_profiling(session, true, error)); /* from zero */
    later = take();
    CHECK(info_of(later).calls == 0 && entry_of(later, MANTLE_OP_QKV, 0).calls == 0);
    mantle_profile_free(later);
    SUCCEEDS(mantle_session_set_profiling(session, false, error));
    GIVES(MANTLE_ERROR_NOT_FOUND, "off", mantle_session_profile(session, &later, error));
    forward();

    mantle_session_free(session);
    CHECK(info_of(profile).calls == CALLS); /* outlives its session */
    mantle_profile_free(profile);
    mantle_model_free(model);
    test_embedder(runtime, argv[1]);
    mantle_runtime_free(runtime);
    return check_result();
}
