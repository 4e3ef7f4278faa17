/* Files that are no models, or models that cannot be used: a status and a sentence that names what is wrong. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "tiny_model.h"

#include <sys/stat.h>

static mantle_runtime *runtime;

static const char *const SCRATCH = "bad-file-test.gguf";

/*
 * Opening the file at `path` (both ways) and probing it end with the status and name `part`, and the file is named.
 * A probe reads the description only: what is wrong with single tensors it may not see (`seen_by_probe` 0).
 */
static void refuses_path(mantle_status expected, const char *part, const char *path, int seen_by_probe)
{
    mantle_model *model = NULL;
    mantle_model_options options;
    mantle_model_info info;
    memset(&info, 0x11, sizeof info);
    info.struct_size = sizeof info;
    SUCCEEDS(mantle_model_options_init(&options, sizeof options, error));
    for (int32_t mode = MANTLE_LOAD_MAP; mode <= MANTLE_LOAD_READ; mode++) {
        options.load_mode = mode;
        GIVES(expected, part, mantle_model_open(runtime, path, strlen(path), &options, &model, error));
        GIVES(expected, path, mantle_model_open(runtime, path, strlen(path), &options, &model, error));
        CHECK(model == NULL);
    }
    if (seen_by_probe) {
        GIVES(expected, part, mantle_model_probe(runtime, path, strlen(path), NULL, &info, NULL, error));
        CHECK(info.layers == 0x11111111);
    }
}

static void refuses(mantle_status expected, const char *part, const void *data, size_t size, int seen_by_probe)
{
    mantle_model *model = NULL;
    FILE *out = fopen(SCRATCH, "wb");
    REQUIRE(out);
    REQUIRE(fwrite(data, 1, size, out) == size);
    REQUIRE(fclose(out) == 0);
    refuses_path(expected, part, SCRATCH, seen_by_probe);
    GIVES(expected, part, mantle_model_open_memory(runtime, data, size, NULL, &model, error));
    CHECK(model == NULL);
    remove(SCRATCH);
}

static void refuses_tiny(mantle_status expected, const char *part, const struct tiny_options *options,
                         int seen_by_probe)
{
    struct tiny_model file = tiny_make(options);
    refuses(expected, part, file.data, file.size, seen_by_probe);
    tiny_free(&file);
}

static void test_no_models(const char *data_folder)
{
    static const char text[] = "This is a text, and no model.\n";
    refuses_path(MANTLE_ERROR_NOT_FOUND, NULL, "no-such-file.gguf", 1);
    refuses_path(MANTLE_ERROR_NOT_FOUND, "folder", data_folder, 1);
    refuses(MANTLE_ERROR_FORMAT, NULL, "", 0, 1);
    refuses(MANTLE_ERROR_FORMAT, "magic", text, sizeof text - 1, 1);
    refuses(MANTLE_ERROR_FORMAT, NULL, "GGUF", 4, 1);
}

static void test_unusable_models(void)
{
    struct tiny_options options = {"marigold", NULL, 0, NULL};
    refuses_tiny(MANTLE_ERROR_UNSUPPORTED, "marigold", &options, 1);
    options.architecture = NULL;
    options.odd_dtype = MANTLE_DTYPE_I8;
    refuses_tiny(MANTLE_ERROR_UNSUPPORTED, "I8", &options, 1);
    options.odd_dtype = MANTLE_DTYPE_F32;
    options.without_tensor = "blk.0.attn_k.weight";
    refuses_tiny(MANTLE_ERROR_FORMAT, "blk.0.attn_k.weight", &options, 0);
}

/* A model whose tokenizer is not known computes; only the tokenizer is refused. */
static void test_unknown_tokenizer(void)
{
    struct tiny_options options = {NULL, "abacus", 0, NULL};
    struct tiny_model file = tiny_make(&options);
    mantle_model *model = NULL;
    const mantle_tokenizer *tokenizer = (const mantle_tokenizer *)(const void *)&options;
    SUCCEEDS(mantle_model_open_memory(runtime, file.data, file.size, NULL, &model, error));
    GIVES(MANTLE_ERROR_UNSUPPORTED, "abacus", mantle_model_tokenizer(model, &tokenizer, error));
    CHECK(tokenizer == NULL);
    mantle_model_free(model);
    tiny_free(&file);
}

/* Cut anywhere in its description, and at the end, the file is refused; so it is with any byte flipped there. */
static void test_damage(void)
{
    struct tiny_model file = tiny_make(NULL);
    mantle_model *model = NULL;
    mantle_error *error = NULL;
    for (size_t size = 0; size < 12000 && size < file.size; size += 61) {
        CHECK(mantle_model_open_memory(runtime, file.data, size, NULL, &model, &error) < 0);
        CHECK(model == NULL && error && *mantle_error_message(error));
        mantle_error_free(error);
    }
    CHECK(mantle_model_open_memory(runtime, file.data, file.size - 1, NULL, &model, NULL) == MANTLE_ERROR_FORMAT);
    for (size_t at = 0; at < 12000 && at < file.size; at += 13) {
        unsigned char before = file.data[at];
        file.data[at] ^= 0xff;
        /* A flipped byte may be harmless (in a name, a token); it must not be fatal. */
        mantle_status status = mantle_model_open_memory(runtime, file.data, file.size, NULL, &model, &error);
        CHECK(status != MANTLE_ERROR_PANIC);
        CHECK((status == MANTLE_OK) == (model != NULL) && (status == MANTLE_OK) == (error == NULL));
        mantle_error_free(error);
        mantle_model_free(model);
        file.data[at] = before;
    }
    tiny_free(&file);
}

struct progress {
    uint64_t last, total;
    int calls, stop_at, backwards;
};

static bool on_progress(void *user_data, uint64_t done, uint64_t total)
{
    struct progress *progress = (struct progress *)user_data;
    progress->backwards += done < progress->last || done > total;
    progress->last = done;
    progress->total = total;
    return ++progress->calls != progress->stop_at;
}

/* Loading tells how far it is; it can be stopped from there, and by a cancellation; a limit is kept. */
static void test_loading_stops(void)
{
    struct tiny_model file = tiny_make(NULL);
    struct progress progress = {0, 0, 0, -1, 0};
    mantle_model_options options;
    mantle_model *model = NULL;
    mantle_cancel *cancel = NULL;
    mantle_memory before, after;
    before.struct_size = after.struct_size = sizeof before;
    SUCCEEDS(mantle_model_options_init(&options, sizeof options, error));
    SUCCEEDS(mantle_runtime_memory(runtime, &before, error));
    options.progress = on_progress;
    options.progress_user_data = &progress;
    SUCCEEDS(mantle_model_open_memory(runtime, file.data, file.size, &options, &model, error));
    mantle_model_free(model);
    CHECK(progress.calls > 0 && progress.last == progress.total && progress.backwards == 0);
    progress.calls = 0;
    progress.last = 0;
    progress.stop_at = 1;
    CHECK(mantle_model_open_memory(runtime, file.data, file.size, &options, &model, NULL) == MANTLE_ERROR_CANCELLED);
    CHECK(progress.calls == 1 && model == NULL);
    options.progress = NULL;
    SUCCEEDS(mantle_cancel_new(&cancel, error));
    mantle_cancel_fire(cancel);
    options.cancel = cancel;
    GIVES(MANTLE_ERROR_CANCELLED, NULL,
          mantle_model_open_memory(runtime, file.data, file.size, &options, &model, error));
    mantle_cancel_free(cancel);
    options.cancel = NULL;
    options.memory_limit = 1000;
    GIVES(MANTLE_ERROR_NO_MEMORY, "1000",
          mantle_model_open_memory(runtime, file.data, file.size, &options, &model, error));
    CHECK(model == NULL);
    SUCCEEDS(mantle_runtime_memory(runtime, &after, error));
    CHECK(after.total == before.total);
    tiny_free(&file);
}

int main(int argc, char **argv)
{
    SUCCEEDS(mantle_runtime_new(NULL, &runtime, error));
    test_no_models(argc > 1 ? argv[1] : ".");
    test_unusable_models();
    test_unknown_tokenizer();
    test_damage();
    test_loading_stops();
    mantle_runtime_free(runtime);
    return check_result();
}
