/*
 * Every export with every pointer NULL, and with numbers out of range, in the wrong order and after failures: an
 * error status with a sentence, outputs untouched, objects usable afterwards. tests/abi_symbols.rs checks that
 * no export is missing here.
 */
#include "check.h"
#include "tiny_model.h"

enum { UNTOUCHED = 4711 };

static const mantle_status BAD = MANTLE_ERROR_INVALID_ARGUMENT;
static mantle_runtime *runtime;
static mantle_model *model;
static mantle_session *session;
static const mantle_tokenizer *tokenizer;

static void versions_and_names(void)
{
    CHECK(mantle_version() > 0 && mantle_abi_version() == MANTLE_ABI_VERSION);
    CHECK(*mantle_build_info() && (mantle_cpu_features() | 1));
    CHECK(*mantle_status_name(1) && *mantle_dtype_name(1 << 30) && *mantle_isa_name(-7));
    CHECK(mantle_error_status(NULL) == MANTLE_OK && !*mantle_error_message(NULL) && !*mantle_error_context(NULL));
    mantle_error_free(NULL);
}

static void runtime_and_cancel(void)
{
    mantle_runtime_info info;
    mantle_memory memory;
    mantle_cancel *cancel = NULL;
    info.struct_size = sizeof info;
    memory.struct_size = sizeof memory;
    GIVES(BAD, "NULL", mantle_runtime_options_init(NULL, sizeof(mantle_runtime_options), error));
    GIVES(BAD, "out is NULL", mantle_runtime_new(NULL, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_runtime_get_info(NULL, &info, error));
    GIVES(BAD, "NULL", mantle_runtime_get_info(runtime, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_runtime_memory(NULL, &memory, error));
    GIVES(BAD, "NULL", mantle_runtime_memory(runtime, NULL, error));
    GIVES(BAD, "out is NULL", mantle_cancel_new(NULL, error));
    SUCCEEDS(mantle_cancel_new(&cancel, error));
    mantle_cancel_fire(NULL);
    mantle_cancel_reset(NULL);
    CHECK(!mantle_cancel_is_fired(NULL));
    mantle_cancel_free(NULL);
    mantle_cancel_free(cancel);
    mantle_runtime_free(NULL);
}

static void arenas(void)
{
    static char memory[64];
    mantle_arena *arena = (mantle_arena *)memory; /* must become NULL */
    mantle_arena_info info;
    info.struct_size = sizeof info;
    GIVES(BAD, "runtime is NULL", mantle_arena_new(NULL, 64, &arena, error));
    CHECK(arena == NULL);
    GIVES(BAD, "out is NULL", mantle_arena_new(runtime, 64, NULL, error));
    arena = (mantle_arena *)memory;
    GIVES(BAD, "memory is NULL", mantle_arena_wrap(NULL, 64, &arena, error));
    CHECK(arena == NULL);
    GIVES(BAD, "out is NULL", mantle_arena_wrap(memory, 64, NULL, error));
    GIVES(BAD, "arena is NULL", mantle_arena_get_info(NULL, &info, error));
    SUCCEEDS(mantle_arena_new(runtime, 64, &arena, error));
    GIVES(BAD, "NULL", mantle_arena_get_info(arena, NULL, error));
    mantle_arena_free(arena);
    mantle_arena_free(NULL);
}

static void opening(const struct tiny_model *file)
{
    mantle_model *out = (mantle_model *)(void *)&check_failures;
    mantle_model_options options;
    mantle_model_info info;
    mantle_memory memory;
    info.struct_size = sizeof info;
    memory.struct_size = sizeof memory;
    GIVES(BAD, "NULL", mantle_model_options_init(NULL, sizeof options, error));
    SUCCEEDS(mantle_model_options_init(&options, sizeof options, error));
    GIVES(BAD, "runtime is NULL", mantle_model_open(NULL, "x", 1, NULL, &out, error));
    CHECK(out == NULL);
    GIVES(BAD, "path is NULL", mantle_model_open(runtime, NULL, 1, NULL, &out, error));
    GIVES(BAD, "path is empty", mantle_model_open(runtime, "x", 0, NULL, &out, error));
    GIVES(BAD, "NUL at byte 1", mantle_model_open(runtime, "x", 2, NULL, &out, error));
    GIVES(BAD, "out is NULL", mantle_model_open(runtime, "x", 1, NULL, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_model_open_memory(NULL, file->data, file->size, NULL, &out, error));
    GIVES(BAD, "data is NULL", mantle_model_open_memory(runtime, NULL, file->size, NULL, &out, error));
    GIVES(MANTLE_ERROR_FORMAT, NULL, mantle_model_open_memory(runtime, NULL, 0, NULL, &out, error));
    GIVES(BAD, "memory can hold", mantle_model_open_memory(runtime, file->data, (size_t)-1, NULL, &out, error));
    GIVES(BAD, "out is NULL", mantle_model_open_memory(runtime, file->data, file->size, NULL, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_model_probe(NULL, "x", 1, NULL, &info, &memory, error));
    GIVES(BAD, "path is NULL", mantle_model_probe(runtime, NULL, 1, NULL, &info, &memory, error));
    GIVES(MANTLE_ERROR_NOT_FOUND, "no such model",
          mantle_model_probe(runtime, "no such model", 13, NULL, NULL, NULL, error));
    options.load_mode = 9;
    GIVES(BAD, "load_mode is 9", mantle_model_open_memory(runtime, file->data, file->size, &options, &out, error));
    options.load_mode = MANTLE_LOAD_READ;
    options.flags = 2;
    GIVES(BAD, "flags", mantle_model_open_memory(runtime, file->data, file->size, &options, &out, error));
    options.struct_size = 5;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_model_options",
          mantle_model_open_memory(runtime, file->data, file->size, &options, &out, error));
    CHECK(out == NULL);
    mantle_model_free(NULL);
}

static void describing(void)
{
    mantle_model_info info;
    mantle_tensor_info tensor;
    mantle_memory memory;
    size_t count = UNTOUCHED, index = UNTOUCHED;
    const char *key = NULL;
    char json[8];
    info.struct_size = sizeof info;
    tensor.struct_size = sizeof tensor;
    memory.struct_size = sizeof memory;
    GIVES(BAD, "model is NULL", mantle_model_get_info(NULL, &info, error));
    GIVES(BAD, "NULL", mantle_model_get_info(model, NULL, error));
    GIVES(BAD, "model is NULL", mantle_model_memory(NULL, &memory, error));
    GIVES(BAD, "NULL", mantle_model_memory(model, NULL, error));
    GIVES(BAD, "model is NULL", mantle_model_metadata_count(NULL, &count, error));
    GIVES(BAD, "count is NULL", mantle_model_metadata_count(model, NULL, error));
    GIVES(BAD, "model is NULL", mantle_model_metadata_key(NULL, 0, &key, &count, error));
    GIVES(BAD, "key is NULL", mantle_model_metadata_key(model, 0, NULL, &count, error));
    GIVES(BAD, "length is NULL", mantle_model_metadata_key(model, 0, &key, NULL, error));
    GIVES(MANTLE_ERROR_NOT_FOUND, "4711", mantle_model_metadata_key(model, UNTOUCHED, &key, &count, error));
    GIVES(BAD, "model is NULL", mantle_model_metadata_value(NULL, "a", 1, json, 8, &count, error));
    GIVES(BAD, "key is NULL", mantle_model_metadata_value(model, NULL, 1, json, 8, &count, error));
    GIVES(BAD, "index 1", mantle_model_metadata_value(model, "a\xff", 2, json, 8, &count, error));
    GIVES(BAD, "json is NULL", mantle_model_metadata_value(model, "general.name", 12, NULL, 8, &count, error));
    GIVES(BAD, "size is NULL", mantle_model_metadata_value(model, "general.name", 12, json, 8, NULL, error));
    GIVES(MANTLE_ERROR_NOT_FOUND, "nothing", mantle_model_metadata_value(model, "nothing", 7, json, 8, &count, error));
    GIVES(BAD, "model is NULL", mantle_model_tensor_count(NULL, &count, error));
    GIVES(BAD, "count is NULL", mantle_model_tensor_count(model, NULL, error));
    GIVES(BAD, "model is NULL", mantle_model_tensor_info(NULL, 0, &tensor, error));
    GIVES(BAD, "NULL", mantle_model_tensor_info(model, 0, NULL, error));
    GIVES(MANTLE_ERROR_NOT_FOUND, "4711", mantle_model_tensor_info(model, UNTOUCHED, &tensor, error));
    GIVES(BAD, "model is NULL", mantle_model_tensor_find(NULL, "a", 1, &index, error));
    GIVES(BAD, "name is NULL", mantle_model_tensor_find(model, NULL, 1, &index, error));
    GIVES(BAD, "index is NULL", mantle_model_tensor_find(model, "a", 1, NULL, error));
    GIVES(MANTLE_ERROR_NOT_FOUND, "\"a\"", mantle_model_tensor_find(model, "a", 1, &index, error));
    CHECK(count == UNTOUCHED && index == UNTOUCHED && key == NULL);
    tensor.struct_size = info.struct_size = memory.struct_size = 12;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_tensor_info", mantle_model_tensor_info(model, 0, &tensor, error));
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_model_info", mantle_model_get_info(model, &info, error));
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_memory", mantle_model_memory(model, &memory, error));
}

static void tokenizing(void)
{
    const mantle_tokenizer *out = NULL;
    mantle_token ids[8] = {UNTOUCHED}, wrong[2] = {5, -3}, high[1] = {TINY_VOCABULARY}, id = UNTOUCHED;
    char text[8] = "unchgd";
    size_t size = UNTOUCHED;
    bool is_end = false;
    GIVES(BAD, "model is NULL", mantle_model_tokenizer(NULL, &out, error));
    GIVES(BAD, "out is NULL", mantle_model_tokenizer(model, NULL, error));
    GIVES(BAD, "tokenizer is NULL", mantle_tokenize(NULL, "a", 1, 0, ids, 8, &size, error));
    GIVES(BAD, "text is NULL", mantle_tokenize(tokenizer, NULL, 1, 0, ids, 8, &size, error));
    GIVES(BAD, "tokens is NULL", mantle_tokenize(tokenizer, "a", 1, 0, NULL, 8, &size, error));
    GIVES(BAD, "size is NULL", mantle_tokenize(tokenizer, "a", 1, 0, ids, 8, NULL, error));
    GIVES(BAD, "flags", mantle_tokenize(tokenizer, "a", 1, 1u << 31, ids, 8, &size, error));
    GIVES(BAD, "0xff at index 2", mantle_tokenize(tokenizer, "ab\xff", 3, 0, ids, 8, &size, error));
    GIVES(BAD, "inside a character", mantle_tokenize(tokenizer, "\xc3", 1, 0, ids, 8, &size, error));
    GIVES(BAD, "memory can hold", mantle_tokenize(tokenizer, "a", 1, 0, ids, (size_t)-1, &size, error));
    CHECK(size == UNTOUCHED && ids[0] == UNTOUCHED);
    GIVES(BAD, "tokenizer is NULL", mantle_detokenize(NULL, ids, 1, 0, text, 8, &size, error));
    GIVES(BAD, "tokens is NULL", mantle_detokenize(tokenizer, NULL, 1, 0, text, 8, &size, error));
    GIVES(BAD, "tokens[1] is -3", mantle_detokenize(tokenizer, wrong, 2, 0, text, 8, &size, error));
    GIVES(BAD, "259", mantle_detokenize(tokenizer, high, 1, 0, text, 8, &size, error));
    ids[0] = 65;
    GIVES(BAD, "text is NULL", mantle_detokenize(tokenizer, ids, 1, 0, NULL, 8, &size, error));
    GIVES(BAD, "size is NULL", mantle_detokenize(tokenizer, ids, 1, 0, text, 8, NULL, error));
    GIVES(BAD, "flags", mantle_detokenize(tokenizer, ids, 1, 2, text, 8, &size, error));
    CHECK(size == UNTOUCHED && strcmp(text, "unchgd") == 0);
    GIVES(BAD, "tokenizer is NULL", mantle_tokenizer_vocabulary_size(NULL, &size, error));
    GIVES(BAD, "size is NULL", mantle_tokenizer_vocabulary_size(tokenizer, NULL, error));
    GIVES(BAD, "tokenizer is NULL", mantle_tokenizer_special(NULL, MANTLE_SPECIAL_BOS, &id, error));
    GIVES(BAD, "token is NULL", mantle_tokenizer_special(tokenizer, MANTLE_SPECIAL_BOS, NULL, error));
    GIVES(BAD, "which is 99", mantle_tokenizer_special(tokenizer, 99, &id, error));
    GIVES(BAD, "tokenizer is NULL", mantle_tokenizer_is_end(NULL, 1, &is_end, error));
    GIVES(BAD, "is_end is NULL", mantle_tokenizer_is_end(tokenizer, 1, NULL, error));
    GIVES(BAD, "259", mantle_tokenizer_is_end(tokenizer, TINY_VOCABULARY, &is_end, error));
    GIVES(BAD, "-1", mantle_tokenizer_is_end(tokenizer, -1, &is_end, error));
    CHECK(id == UNTOUCHED);
}

static void making_sessions(void)
{
    mantle_session_options options;
    mantle_session *out = (mantle_session *)(void *)&check_failures;
    mantle_memory memory;
    memory.struct_size = sizeof memory;
    GIVES(BAD, "NULL", mantle_session_options_init(NULL, sizeof options, error));
    SUCCEEDS(mantle_session_options_init(&options, sizeof options, error));
    GIVES(BAD, "model is NULL", mantle_session_bytes(NULL, &options, &memory, error));
    GIVES(BAD, "NULL", mantle_session_bytes(model, &options, NULL, error));
    GIVES(BAD, "model is NULL", mantle_session_new(NULL, &options, NULL, &out, error));
    CHECK(out == NULL);
    GIVES(BAD, "out is NULL", mantle_session_new(model, &options, NULL, NULL, error));
    options.key_type = 4;
    GIVES(BAD, "key_type is 4", mantle_session_new(model, &options, NULL, &out, error));
    options.key_type = MANTLE_DTYPE_I64;
    CHECK(mantle_session_new(model, &options, NULL, &out, NULL) < 0);
    options.key_type = MANTLE_DTYPE_F16;
    options.flags = 1;
    GIVES(BAD, "flags", mantle_session_new(model, &options, NULL, &out, error));
    options.flags = 0;
    options.max_context = options.max_batch_tokens = options.max_sequences = (uint32_t)-1;
    CHECK(mantle_session_bytes(model, &options, &memory, NULL) < 0 || memory.total > UINT32_MAX);
    CHECK(mantle_session_new(model, &options, NULL, &out, NULL) < 0);
    options.struct_size = 0;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_session_options", mantle_session_new(model, &options, NULL, &out, error));
    CHECK(out == NULL);
    GIVES(BAD, "session is NULL", mantle_session_memory(NULL, &memory, error));
    GIVES(BAD, "NULL", mantle_session_memory(session, NULL, error));
    mantle_session_free(NULL);
}

static void forward(void)
{
    const int32_t sequences[2] = {0, 1}, twice[2] = {0, 0}, unknown[1] = {7}, negative[1] = {-1};
    const mantle_token ids[4] = {1, 2, 3, 4}, high[2] = {1, TINY_VOCABULARY}, below[2] = {1, -1};
    const size_t good[3] = {0, 2, 4}, late[2] = {1, 2}, falling[3] = {0, 3, 2}, far[2] = {0, (size_t)-1};
    const float *logits = NULL;
    size_t size = UNTOUCHED;
    uint32_t length = UNTOUCHED;
    const int32_t last = MANTLE_LOGITS_LAST;
    GIVES(BAD, "session is NULL", mantle_forward(NULL, sequences, ids, good, 2, last, NULL, error));
    GIVES(BAD, "sequences is NULL", mantle_forward(session, NULL, ids, good, 2, last, NULL, error));
    GIVES(BAD, "tokens is NULL", mantle_forward(session, sequences, NULL, good, 2, last, NULL, error));
    GIVES(BAD, "offsets is NULL", mantle_forward(session, sequences, ids, NULL, 2, last, NULL, error));
    GIVES(BAD, "count is 0", mantle_forward(session, sequences, ids, good, 0, last, NULL, error));
    GIVES(BAD, NULL, mantle_forward(session, sequences, ids, good, (size_t)-1, last, NULL, error));
    GIVES(BAD, "offsets[0] is 1", mantle_forward(session, sequences, ids, late, 1, last, NULL, error));
    GIVES(BAD, "offsets[2] is 2", mantle_forward(session, sequences, ids, falling, 2, last, NULL, error));
    GIVES(BAD, "memory can hold", mantle_forward(session, sequences, ids, far, 1, last, NULL, error));
    GIVES(BAD, "logits is 9", mantle_forward(session, sequences, ids, good, 2, 9, NULL, error));
    GIVES(BAD, "259", mantle_forward(session, sequences, high, good, 1, last, NULL, error));
    GIVES(BAD, "tokens[1] is -1", mantle_forward(session, sequences, below, good, 1, last, NULL, error));
    CHECK(mantle_forward(session, twice, ids, good, 2, last, NULL, NULL) == BAD);
    CHECK(mantle_forward(session, unknown, ids, good, 1, last, NULL, NULL) < 0);
    CHECK(mantle_forward(session, negative, ids, good, 1, last, NULL, NULL) < 0);

    /* Nothing of this reached the session, and there are no logits before the first forward pass. */
    SUCCEEDS(mantle_sequence_length(session, 0, &length, error));
    CHECK(length == 0);
    GIVES(BAD, NULL, mantle_logits(session, 0, &logits, &size, error));
    CHECK(logits == NULL && size == UNTOUCHED);
    SUCCEEDS(mantle_logits_rows(session, &size, error));
    CHECK(size == 0);

    /* And it works as if nothing had been. */
    SUCCEEDS(mantle_forward(session, sequences, ids, good, 2, last, NULL, error));
    SUCCEEDS(mantle_logits_rows(session, &size, error));
    CHECK(size == 2);
    GIVES(BAD, "session is NULL", mantle_logits_rows(NULL, &size, error));
    GIVES(BAD, "rows is NULL", mantle_logits_rows(session, NULL, error));
    GIVES(BAD, "session is NULL", mantle_logits(NULL, 0, &logits, &size, error));
    GIVES(BAD, "logits is NULL", mantle_logits(session, 0, NULL, &size, error));
    GIVES(BAD, "size is NULL", mantle_logits(session, 0, &logits, NULL, error));
    GIVES(BAD, NULL, mantle_logits(session, 2, &logits, &size, error));
    SUCCEEDS(mantle_logits(session, 1, &logits, &size, error));
    CHECK(size == TINY_VOCABULARY && logits != NULL);
}

static void sequences(void)
{
    uint32_t length = UNTOUCHED;
    GIVES(BAD, "session is NULL", mantle_sequence_length(NULL, 0, &length, error));
    GIVES(BAD, "length is NULL", mantle_sequence_length(session, 0, NULL, error));
    CHECK(mantle_sequence_length(session, -1, &length, NULL) < 0);
    CHECK(mantle_sequence_length(session, 7, &length, NULL) < 0);
    CHECK(length == UNTOUCHED);
    GIVES(BAD, "session is NULL", mantle_sequence_truncate(NULL, 0, 0, error));
    CHECK(mantle_sequence_truncate(session, 7, 0, NULL) < 0);
    CHECK(mantle_sequence_truncate(session, 0, 100, NULL) < 0);
    SUCCEEDS(mantle_sequence_truncate(session, 0, 0, error));
    SUCCEEDS(mantle_sequence_length(session, 0, &length, error));
    CHECK(length == 0);
}

static void generation(void)
{
    const mantle_token ids[2] = {1, 2}, below[1] = {-1}, high[1] = {TINY_VOCABULARY};
    mantle_generate_options options;
    mantle_generation result;
    uint32_t length = UNTOUCHED;
    result.struct_size = sizeof result;
    result.tokens = UNTOUCHED;
    GIVES(BAD, "NULL", mantle_generate_options_init(NULL, sizeof options, error));
    SUCCEEDS(mantle_generate_options_init(&options, sizeof options, error));
    options.max_tokens = 3;
#define GENERATE(session, tokenizer, sequence, prompt, count) \
    mantle_generate(session, tokenizer, sequence, prompt, count, &options, NULL, NULL, NULL, &result, error)
    GIVES(BAD, "session is NULL", GENERATE(NULL, tokenizer, 0, ids, 2));
    GIVES(BAD, "tokenizer is NULL", GENERATE(session, NULL, 0, ids, 2));
    GIVES(BAD, "prompt is NULL", GENERATE(session, tokenizer, 0, NULL, 2));
    GIVES(BAD, "count is 0", GENERATE(session, tokenizer, 0, ids, 0));
    GIVES(BAD, "prompt[0] is -1", GENERATE(session, tokenizer, 0, below, 1));
    GIVES(BAD, "259", GENERATE(session, tokenizer, 0, high, 1));
    CHECK(mantle_generate(session, tokenizer, 9, ids, 2, NULL, NULL, NULL, NULL, NULL, NULL) < 0);
    options.flags = 64;
    GIVES(BAD, "flags", GENERATE(session, tokenizer, 0, ids, 2));
    options.flags = 0;
    options.struct_size--;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_generate_options", GENERATE(session, tokenizer, 0, ids, 2));
    options.struct_size++;
    result.struct_size = 3;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_generation", GENERATE(session, tokenizer, 0, ids, 2));
    CHECK(result.tokens == UNTOUCHED);
    SUCCEEDS(mantle_sequence_length(session, 0, &length, error));
    CHECK(length == 0);
    result.struct_size = sizeof result;
    SUCCEEDS(GENERATE(session, tokenizer, 0, ids, 2));
    CHECK(result.tokens <= 3 && result.prompt_tokens == 2);
#undef GENERATE
}

static void profiles(void)
{
    mantle_profile *profile = (mantle_profile *)(void *)&runtime; /* must become NULL */
    mantle_profile_info info;
    mantle_profile_entry entry;
    char text[8] = "";
    size_t size = 0;
    info.struct_size = sizeof info;
    entry.struct_size = sizeof entry;
    entry.calls = UNTOUCHED;
    CHECK(strcmp(mantle_op_name(MANTLE_OP_ATTENTION), "attention") == 0);
    CHECK(strcmp(mantle_op_name(-1), "unknown") == 0 && strcmp(mantle_op_name(99999), "unknown") == 0);
    GIVES(BAD, "session is NULL", mantle_session_set_profiling(NULL, true, error));
    GIVES(BAD, "embedder is NULL", mantle_embedder_set_profiling(NULL, true, error));
    GIVES(BAD, "embedder is NULL", mantle_embedder_profile(NULL, &profile, error));
    CHECK(profile == NULL);
    GIVES(BAD, "session is NULL", mantle_session_profile(NULL, &profile, error));
    GIVES(BAD, "out is NULL", mantle_session_profile(session, NULL, error));
    GIVES(MANTLE_ERROR_NOT_FOUND, "off", mantle_session_profile(session, &profile, error));
    SUCCEEDS(mantle_session_set_profiling(session, true, error));
    SUCCEEDS(mantle_session_profile(session, &profile, error));
    GIVES(BAD, "profile is NULL", mantle_profile_get_info(NULL, &info, error));
    GIVES(BAD, "NULL", mantle_profile_get_info(profile, NULL, error));
    info.struct_size = 1;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_profile_info", mantle_profile_get_info(profile, &info, error));
    GIVES(BAD, "profile is NULL", mantle_profile_get_entry(NULL, 0, 0, &entry, error));
    GIVES(BAD, "NULL", mantle_profile_get_entry(profile, 0, 0, NULL, error));
    GIVES(BAD, "op is -1", mantle_profile_get_entry(profile, -1, 0, &entry, error));
    GIVES(BAD, "op is 1000", mantle_profile_get_entry(profile, 1000, 0, &entry, error));
    GIVES(BAD, "layer is -2", mantle_profile_get_entry(profile, 0, -2, &entry, error));
    GIVES(BAD, "layer is 2", mantle_profile_get_entry(profile, 0, TINY_LAYERS, &entry, error));
    CHECK(entry.calls == UNTOUCHED);
    entry.struct_size = 2;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_profile_entry", mantle_profile_get_entry(profile, 0, 0, &entry, error));
    GIVES(BAD, "profile is NULL", mantle_profile_table(NULL, false, text, sizeof text, &size, error));
    GIVES(BAD, "text is NULL", mantle_profile_table(profile, false, NULL, sizeof text, &size, error));
    GIVES(BAD, "size is NULL", mantle_profile_table(profile, false, text, sizeof text, NULL, error));
    GIVES(MANTLE_ERROR_BUFFER_TOO_SMALL, "needed", mantle_profile_table(profile, false, text, 1, &size, error));
    CHECK(size > 1 && text[0] == 0);
    mantle_profile_free(profile);
    mantle_profile_free(NULL);
    SUCCEEDS(mantle_session_set_profiling(session, false, error));
}

static void matrices(void)
{
    float values[32] = {0}, out[32] = {0};
    mantle_matrix *matrix = (mantle_matrix *)(void *)values;
    mantle_matrix_info info;
    size_t bytes = UNTOUCHED;
    const mantle_dtype f32 = MANTLE_DTYPE_F32;
    info.struct_size = sizeof info;
    GIVES(BAD, "bytes is NULL", mantle_row_bytes(f32, 32, NULL, error));
    GIVES(BAD, "dtype is -1", mantle_row_bytes(-1, 32, &bytes, error));
    CHECK(bytes == UNTOUCHED);
    GIVES(BAD, "runtime is NULL", mantle_matrix_new(NULL, f32, values, 128, 1, 32, &matrix, error));
    CHECK(matrix == NULL);
    GIVES(BAD, "data is NULL", mantle_matrix_new(runtime, f32, NULL, 128, 1, 32, &matrix, error));
    GIVES(BAD, "out is NULL", mantle_matrix_new(runtime, f32, values, 128, 1, 32, NULL, error));
    GIVES(BAD, "dtype is 4", mantle_matrix_new(runtime, 4, values, 128, 1, 32, &matrix, error));
    SUCCEEDS(mantle_matrix_new(runtime, f32, values, 128, 1, 32, &matrix, error));
    GIVES(BAD, "matrix is NULL", mantle_matrix_get_info(NULL, &info, error));
    GIVES(BAD, "NULL", mantle_matrix_get_info(matrix, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_matmul(NULL, matrix, values, 1, 32, out, 1, error));
    GIVES(BAD, "matrix is NULL", mantle_matmul(runtime, NULL, values, 1, 32, out, 1, error));
    GIVES(BAD, "x is NULL", mantle_matmul(runtime, matrix, NULL, 1, 32, out, 1, error));
    GIVES(BAD, "y is NULL", mantle_matmul(runtime, matrix, values, 1, 32, NULL, 1, error));
    mantle_matrix_free(matrix);
    mantle_matrix_free(NULL);
    GIVES(BAD, "runtime is NULL", mantle_quantize_rows(NULL, f32, values, 1, 32, 32, out, 128, error));
    GIVES(BAD, "values is NULL", mantle_quantize_rows(runtime, f32, NULL, 1, 32, 32, out, 128, error));
    GIVES(BAD, "data is NULL", mantle_quantize_rows(runtime, f32, values, 1, 32, 32, NULL, 128, error));
    GIVES(BAD, "stride is 31", mantle_quantize_rows(runtime, f32, values, 1, 32, 31, out, 128, error));
    GIVES(BAD, "size is 127", mantle_quantize_rows(runtime, f32, values, 1, 32, 32, out, 127, error));
    GIVES(BAD, "runtime is NULL", mantle_dequantize_rows(NULL, f32, values, 128, 1, 32, out, 32, error));
    GIVES(BAD, "data is NULL", mantle_dequantize_rows(runtime, f32, NULL, 128, 1, 32, out, 32, error));
    GIVES(BAD, "values is NULL", mantle_dequantize_rows(runtime, f32, values, 128, 1, 32, NULL, 32, error));
    GIVES(BAD, "stride is 31", mantle_dequantize_rows(runtime, f32, values, 128, 1, 32, out, 31, error));
    GIVES(BAD, "size is 1", mantle_dequantize_rows(runtime, f32, values, 1, 1, 32, out, 32, error));
}

static void plain_products(void)
{
    float a[32] = {0}, b[32] = {0}, c[32] = {0};
    mantle_gemm_options options;
    GIVES(BAD, "NULL", mantle_gemm_options_init(NULL, sizeof options, error));
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_gemm_options", mantle_gemm_options_init(&options, 3, error));
    SUCCEEDS(mantle_gemm_options_init(&options, sizeof options, error));
    GIVES(BAD, "runtime is NULL", mantle_matmul_f32(NULL, a, 4, b, 4, 4, 4, 4, NULL, c, 4, error));
    GIVES(BAD, "a is NULL", mantle_matmul_f32(runtime, NULL, 4, b, 4, 4, 4, 4, NULL, c, 4, error));
    GIVES(BAD, "b is NULL", mantle_matmul_f32(runtime, a, 4, NULL, 4, 4, 4, 4, NULL, c, 4, error));
    GIVES(BAD, "c is NULL", mantle_matmul_f32(runtime, a, 4, b, 4, 4, 4, 4, NULL, NULL, 4, error));
    options.reserved = 1;
    GIVES(BAD, "reserved is 1", mantle_matmul_f32(runtime, a, 4, b, 4, 4, 4, 4, &options, c, 4, error));
}

static void vectors(void)
{
    float a[32] = {0}, b[32] = {0}, y[32] = {0};
    const uint32_t high[1] = {4};
    GIVES(BAD, "runtime is NULL", mantle_vector_axpy(NULL, 1, a, 32, y, error));
    GIVES(BAD, "x is NULL", mantle_vector_axpy(runtime, 1, NULL, 32, y, error));
    GIVES(BAD, "y is NULL", mantle_vector_axpy(runtime, 1, a, 32, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_vector_scale(NULL, 1, a, 32, y, error));
    GIVES(BAD, "x is NULL", mantle_vector_scale(runtime, 1, NULL, 32, y, error));
    GIVES(BAD, "y is NULL", mantle_vector_scale(runtime, 1, a, 32, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_vector_add(NULL, a, b, 32, y, error));
    GIVES(BAD, "a is NULL", mantle_vector_add(runtime, NULL, b, 32, y, error));
    GIVES(BAD, "b is NULL", mantle_vector_add(runtime, a, NULL, 32, y, error));
    GIVES(BAD, "y is NULL", mantle_vector_add(runtime, a, b, 32, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_vector_mul(NULL, a, b, 32, y, error));
    GIVES(BAD, "a is NULL", mantle_vector_mul(runtime, NULL, b, 32, y, error));
    GIVES(BAD, "b is NULL", mantle_vector_mul(runtime, a, NULL, 32, y, error));
    GIVES(BAD, "y is NULL", mantle_vector_mul(runtime, a, b, 32, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_vector_apply(NULL, 0, a, 32, y, error));
    GIVES(BAD, "function is 99", mantle_vector_apply(runtime, 99, a, 32, y, error));
    GIVES(BAD, "x is NULL", mantle_vector_apply(runtime, 0, NULL, 32, y, error));
    GIVES(BAD, "y is NULL", mantle_vector_apply(runtime, 0, a, 32, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_vector_gate(NULL, 0, a, b, 32, y, error));
    GIVES(BAD, "gate is NULL", mantle_vector_gate(runtime, 0, NULL, b, 32, y, error));
    GIVES(BAD, "up is NULL", mantle_vector_gate(runtime, 0, a, NULL, 32, y, error));
    GIVES(BAD, "y is NULL", mantle_vector_gate(runtime, 0, a, b, 32, NULL, error));
    GIVES(BAD, "runtime is NULL", mantle_vector_softmax(NULL, a, 1, 32, 32, y, 32, error));
    GIVES(BAD, "x is NULL", mantle_vector_softmax(runtime, NULL, 1, 32, 32, y, 32, error));
    GIVES(BAD, "y is NULL", mantle_vector_softmax(runtime, a, 1, 32, 32, NULL, 32, error));
    GIVES(BAD, "runtime is NULL", mantle_vector_rms_norm(NULL, a, 1, 32, 32, b, 0, y, 32, error));
    GIVES(BAD, "x is NULL", mantle_vector_rms_norm(runtime, NULL, 1, 32, 32, b, 0, y, 32, error));
    GIVES(BAD, "weight is NULL", mantle_vector_rms_norm(runtime, a, 1, 32, 32, NULL, 0, y, 32, error));
    GIVES(BAD, "y is NULL", mantle_vector_rms_norm(runtime, a, 1, 32, 32, b, 0, NULL, 32, error));
    GIVES(BAD, "runtime is NULL", mantle_vector_layer_norm(NULL, a, 1, 32, 32, b, b, 0, y, 32, error));
    GIVES(BAD, "x is NULL", mantle_vector_layer_norm(runtime, NULL, 1, 32, 32, b, b, 0, y, 32, error));
    GIVES(BAD, "weight is NULL", mantle_vector_layer_norm(runtime, a, 1, 32, 32, NULL, b, 0, y, 32, error));
    GIVES(BAD, "bias is NULL", mantle_vector_layer_norm(runtime, a, 1, 32, 32, b, NULL, 0, y, 32, error));
    GIVES(BAD, "y is NULL", mantle_vector_layer_norm(runtime, a, 1, 32, 32, b, b, 0, NULL, 32, error));
    GIVES(BAD, "cosine is NULL", mantle_rope_table(2, 8, 10000, 1, NULL, b, error));
    GIVES(BAD, "sine is NULL", mantle_rope_table(2, 8, 10000, 1, a, NULL, error));
    GIVES(BAD, "dims is 3", mantle_rope_table(2, 3, 10000, 1, a, b, error));
    GIVES(BAD, "runtime is NULL", mantle_vector_rope(NULL, 0, a, b, 4, 8, NULL, y, 1, 1, 8, 8, error));
    GIVES(BAD, "cosine is NULL", mantle_vector_rope(runtime, 0, NULL, b, 4, 8, NULL, y, 1, 1, 8, 8, error));
    GIVES(BAD, "sine is NULL", mantle_vector_rope(runtime, 0, a, NULL, 4, 8, NULL, y, 1, 1, 8, 8, error));
    GIVES(BAD, "x is NULL", mantle_vector_rope(runtime, 0, a, b, 4, 8, NULL, NULL, 1, 1, 8, 8, error));
    GIVES(BAD, "position 4", mantle_vector_rope(runtime, 0, a, b, 4, 8, high, y, 1, 1, 8, 8, error));
}

static void embeddings(void)
{
    static const size_t offsets[2] = {0, 1};
    const mantle_token id = 3;
    mantle_embedding_info info;
    mantle_embedder_options embedder_options;
    mantle_embed_options options;
    mantle_embedder *embedder = (mantle_embedder *)&info; /* must become NULL */
    mantle_memory memory;
    const char *text = NULL;
    size_t length = 0;
    float row[4] = {0};
    info.struct_size = sizeof info;
    memory.struct_size = sizeof memory;
    GIVES(BAD, "NULL", mantle_embedder_options_init(NULL, sizeof embedder_options, error));
    GIVES(BAD, "NULL", mantle_embed_options_init(NULL, sizeof options, error));
    SUCCEEDS(mantle_embedder_options_init(&embedder_options, sizeof embedder_options, error));
    SUCCEEDS(mantle_embed_options_init(&options, sizeof options, error));
    GIVES(BAD, "NULL", mantle_model_embedding_info(NULL, &info, error));
    GIVES(BAD, "NULL", mantle_model_prompt(NULL, 0, &text, &length, &text, &length, error));
    GIVES(BAD, "NULL", mantle_embedder_bytes(NULL, &embedder_options, &memory, error));
    GIVES(BAD, "NULL", mantle_embedder_new(NULL, &embedder_options, NULL, &embedder, error));
    CHECK(embedder == NULL);
    GIVES(BAD, "NULL", mantle_embedder_memory(NULL, &memory, error));
    GIVES(BAD, "NULL", mantle_embed_dimensions(NULL, &options, &length, error));
    GIVES(BAD, "NULL", mantle_embed_texts(NULL, "x", offsets, 1, &options, row, 0, NULL, error));
    GIVES(BAD, "NULL", mantle_embed_tokens(NULL, &id, offsets, 1, &options, row, 0, NULL, error));
    /* A decoder has embeddings, too. */
    SUCCEEDS(mantle_model_embedding_info(model, &info, error));
    GIVES(MANTLE_ERROR_NOT_FOUND, "prompt 0", mantle_model_prompt(model, 0, &text, &length, &text, &length, error));
    embedder_options.max_tokens = TINY_CONTEXT + 1;
    GIVES(BAD, "max_tokens", mantle_embedder_bytes(model, &embedder_options, &memory, error));
    GIVES(BAD, "max_tokens", mantle_embedder_new(model, &embedder_options, NULL, &embedder, error));
    CHECK(embedder == NULL);
    mantle_embedder_free(NULL);
}

int main(void)
{
    mantle_runtime_options options;
    mantle_session_options session_options;
    struct tiny_model file = tiny_make(NULL);
    SUCCEEDS(mantle_runtime_options_init(&options, sizeof options, error));
    options.threads = 2;
    SUCCEEDS(mantle_runtime_new(&options, &runtime, error));
    versions_and_names();
    runtime_and_cancel();
    arenas();
    opening(&file);
    SUCCEEDS(mantle_model_open_memory(runtime, file.data, file.size, NULL, &model, error));
    tiny_free(&file);
    SUCCEEDS(mantle_model_tokenizer(model, &tokenizer, error));
    SUCCEEDS(mantle_session_options_init(&session_options, sizeof session_options, error));
    session_options.max_sequences = 2;
    SUCCEEDS(mantle_session_new(model, &session_options, NULL, &session, error));
    describing();
    tokenizing();
    making_sessions();
    forward();
    sequences();
    generation();
    profiles();
    matrices();
    plain_products();
    vectors();
    embeddings();
    /* In the order that no one expects: each object holds what it needs. */
    mantle_runtime_free(runtime);
    mantle_model_free(model);
    {
        const int32_t sequence = 1;
        const mantle_token id = 3;
        const size_t offsets[2] = {0, 1};
        SUCCEEDS(mantle_forward(session, &sequence, &id, offsets, 1, MANTLE_LOGITS_LAST, NULL, error));
    }
    mantle_session_free(session);
    return check_result();
}
