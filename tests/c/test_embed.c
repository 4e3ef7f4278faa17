/*
 * Embeddings through the C ABI: what is refused says which document, which offset, which length; what is right stays
 * right after a mistake. The model is tests/data/tiny-gemma-embedding-F32.gguf: 64 values, 512 tokens, 2048 positions.
 */
#include "check.h"
#include "tiny_model.h"

#include <math.h>
#include <stdbool.h>

enum { WIDTH = 64, CONTEXT = 2048, VOCABULARY = 512 };

static mantle_runtime *runtime;
static mantle_model *model;
static mantle_embedder *embedder;

static const mantle_status BAD = MANTLE_ERROR_INVALID_ARGUMENT;

static mantle_model *open_data(const char *folder, const char *name)
{
    char path[4096];
    mantle_model *opened = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    SUCCEEDS(mantle_model_open(runtime, path, strlen(path), NULL, &opened, error));
    return opened;
}

static mantle_embed_options defaults(void)
{
    mantle_embed_options options;
    SUCCEEDS(mantle_embed_options_init(&options, sizeof options, error));
    return options;
}

static double length_of(const float *row, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        sum += (double)row[i] * row[i];
    }
    return sqrt(sum);
}

static void embed_tokens(const mantle_token *tokens, const size_t *offsets, size_t count, float *rows)
{
    SUCCEEDS(mantle_embed_tokens(embedder, tokens, offsets, count, NULL, rows, 0, NULL, error));
}

static void texts(void)
{
    const char *text = "one\xff"
                       "two";
    float rows[3 * WIDTH], again[3 * WIDTH];
    const size_t offsets[] = {0, 3, 3, 3};
    /* An empty text has an embedding: that of the tokens around a text. */
    SUCCEEDS(mantle_embed_texts(embedder, text, offsets, 3, NULL, rows, 0, NULL, error));
    CHECK(fabs(length_of(rows, WIDTH) - 1) < 1e-6);
    CHECK(fabs(length_of(rows + WIDTH, WIDTH) - 1) < 1e-6);
    CHECK(memcmp(rows + WIDTH, rows + 2 * (size_t)WIDTH, WIDTH * sizeof *rows) == 0);
    CHECK(memcmp(rows, rows + WIDTH, WIDTH * sizeof *rows) != 0);
    /* No texts: nothing is written, and no memory is needed. */
    const size_t none[] = {0};
    SUCCEEDS(mantle_embed_texts(embedder, NULL, none, 0, NULL, NULL, 0, NULL, error));
    /* Invalid UTF-8 names the text and the byte in it. */
    const size_t broken[] = {0, 3, 7};
    memcpy(again, rows, sizeof rows);
    GIVES(BAD, "text 1", mantle_embed_texts(embedder, text, broken, 2, NULL, again, 0, NULL, error));
    GIVES(BAD, "byte 0", mantle_embed_texts(embedder, text, broken, 2, NULL, again, 0, NULL, error));
    CHECK(memcmp(again, rows, sizeof rows) == 0); /* Outputs are written only on success. */
    const size_t backwards[] = {0, 3, 2, 3};
    GIVES(BAD, "offsets", mantle_embed_texts(embedder, text, backwards, 3, NULL, rows, 0, NULL, error));
    const size_t late[] = {1, 3};
    GIVES(BAD, "offsets", mantle_embed_texts(embedder, text, late, 1, NULL, rows, 0, NULL, error));
    GIVES(BAD, "offsets", mantle_embed_texts(embedder, text, NULL, 1, NULL, rows, 0, NULL, error));
    GIVES(BAD, "texts", mantle_embed_texts(embedder, NULL, offsets, 3, NULL, rows, 0, NULL, error));
    GIVES(BAD, "embeddings", mantle_embed_texts(embedder, text, offsets, 3, NULL, NULL, 0, NULL, error));
    GIVES(BAD, "stride", mantle_embed_texts(embedder, text, offsets, 3, NULL, rows, WIDTH - 1, NULL, error));
    /* Each row alone has the same bits. */
    const size_t alone[] = {0, 3};
    SUCCEEDS(mantle_embed_texts(embedder, text, alone, 1, NULL, again, 0, NULL, error));
    CHECK(memcmp(again, rows, WIDTH * sizeof *rows) == 0);
}

/* `count` times "7 " as text. */
static char *long_text(size_t count)
{
    char *text = malloc(2 * count);
    REQUIRE(text);
    for (size_t i = 0; i < count; i++) {
        memcpy(text + 2 * i, "7 ", 2);
    }
    return text;
}

static void lengths(void)
{
    enum { LONG = CONTEXT + 1 };
    float rows[2 * WIDTH], cut[WIDTH];
    mantle_token *tokens = malloc((LONG + 1) * sizeof *tokens);
    REQUIRE(tokens);
    for (size_t i = 0; i <= LONG; i++) {
        tokens[i] = (mantle_token)(5 + i % 400);
    }
    const size_t offsets[] = {0, 1, 1 + LONG};
    mantle_embed_options options = defaults();
    GIVES(BAD, "it has 2049 tokens", mantle_embed_tokens(embedder, tokens, offsets, 2, &options, rows, 0, NULL, error));
    GIVES(BAD, "document 1", mantle_embed_tokens(embedder, tokens, offsets, 2, &options, rows, 0, NULL, error));
    GIVES(BAD, "2048", mantle_embed_tokens(embedder, tokens, offsets, 2, &options, rows, 0, NULL, error));
    options.flags = MANTLE_EMBED_TRUNCATE;
    SUCCEEDS(mantle_embed_tokens(embedder, tokens, offsets, 2, &options, rows, 0, NULL, error));
    const size_t whole[] = {0, CONTEXT};
    embed_tokens(tokens + 1, whole, 1, cut);
    CHECK(memcmp(rows + WIDTH, cut, sizeof cut) == 0);
    free(tokens);

    char *text = long_text(2 * CONTEXT);
    const size_t long_offsets[] = {0, 0, 4 * (size_t)CONTEXT};
    options.flags = 0;
    GIVES(BAD, "text 1", mantle_embed_texts(embedder, text, long_offsets, 2, &options, rows, 0, NULL, error));
    GIVES(BAD, "2048", mantle_embed_texts(embedder, text, long_offsets, 2, &options, rows, 0, NULL, error));
    options.flags = MANTLE_EMBED_TRUNCATE;
    SUCCEEDS(mantle_embed_texts(embedder, text, long_offsets, 2, &options, rows, 0, NULL, error));
    options.flags = 1u << 31;
    GIVES(BAD, "flags", mantle_embed_texts(embedder, text, long_offsets, 2, &options, rows, 0, NULL, error));
    free(text);
}

static void tokens(void)
{
    const mantle_token ids[] = {2, 416, 17, 1, VOCABULARY, -1};
    float rows[4 * WIDTH], expected[WIDTH];
    const size_t two[] = {0, 2, 4}, empty[] = {0, 2, 2}, backwards[] = {0, 2, 1}, outside[] = {0, 2, 5};
    const size_t negative[] = {0, 1}, none[] = {0};
    embed_tokens(ids, two, 2, rows);
    memcpy(expected, rows, sizeof expected);
    GIVES(BAD, "it has no tokens", mantle_embed_tokens(embedder, ids, empty, 2, NULL, rows, 0, NULL, error));
    GIVES(BAD, "offsets", mantle_embed_tokens(embedder, ids, backwards, 2, NULL, rows, 0, NULL, error));
    GIVES(BAD, "document 1", mantle_embed_tokens(embedder, ids, outside, 2, NULL, rows, 0, NULL, error));
    GIVES(BAD, "token 2 is 512", mantle_embed_tokens(embedder, ids, outside, 2, NULL, rows, 0, NULL, error));
    GIVES(BAD, "is -1", mantle_embed_tokens(embedder, ids + 5, negative, 1, NULL, rows, 0, NULL, error));
    SUCCEEDS(mantle_embed_tokens(embedder, NULL, none, 0, NULL, NULL, 0, NULL, error));
    /* One row for each token, and the same embedder serves on after every mistake. */
    mantle_embed_options options = defaults();
    options.pooling = MANTLE_POOLING_NONE;
    SUCCEEDS(mantle_embed_tokens(embedder, ids, two, 2, &options, rows, 0, NULL, error));
    embed_tokens(ids, two, 2, rows);
    CHECK(memcmp(rows, expected, sizeof expected) == 0);
    GIVES(BAD, "pooling", mantle_embed_texts(embedder, "a", negative, 1, &options, rows, 0, NULL, error));
    options.pooling = 77;
    GIVES(BAD, "pooling is 77", mantle_embed_tokens(embedder, ids, two, 2, &options, rows, 0, NULL, error));
    options = defaults();
    options.normalize = 9;
    GIVES(BAD, "normalize is 9", mantle_embed_tokens(embedder, ids, two, 2, &options, rows, 0, NULL, error));
}

static void cut_and_prompted(void)
{
    const size_t offsets[] = {0, 3};
    float whole[WIDTH], cut[16], written[WIDTH], asked[WIDTH];
    size_t columns = 0;
    mantle_embed_options options = defaults();
    SUCCEEDS(mantle_embed_texts(embedder, "abc", offsets, 1, &options, whole, 0, NULL, error));
    options.dimensions = 16;
    SUCCEEDS(mantle_embed_dimensions(embedder, &options, &columns, error));
    CHECK(columns == 16);
    SUCCEEDS(mantle_embed_texts(embedder, "abc", offsets, 1, &options, cut, 0, NULL, error));
    double scale = length_of(whole, 16);
    for (int i = 0; i < 16; i++) {
        CHECK(fabs(cut[i] - whole[i] / scale) < 1e-6);
    }
    options.dimensions = WIDTH + 1;
    GIVES(BAD, "65", mantle_embed_dimensions(embedder, &options, &columns, error));
    GIVES(BAD, "65", mantle_embed_texts(embedder, "abc", offsets, 1, &options, whole, 0, NULL, error));
    options = defaults();
    options.prompt = "query";
    options.prompt_length = 5;
    SUCCEEDS(mantle_embed_texts(embedder, "abc", offsets, 1, &options, asked, 0, NULL, error));
    const char *text = "task: search result | query: abc";
    const size_t all[] = {0, strlen(text)};
    SUCCEEDS(mantle_embed_texts(embedder, text, all, 1, NULL, written, 0, NULL, error));
    CHECK(memcmp(asked, written, sizeof asked) == 0);
    options.prompt = "riddle";
    options.prompt_length = 6;
    GIVES(MANTLE_ERROR_NOT_FOUND, "riddle",
          mantle_embed_texts(embedder, "abc", offsets, 1, &options, whole, 0, NULL, error));
    options.prompt = "\xff";
    options.prompt_length = 1;
    GIVES(BAD, "prompt", mantle_embed_texts(embedder, "abc", offsets, 1, &options, whole, 0, NULL, error));
}

/* What a progress function was told; it ends the call when it has been called often enough. */
struct told {
    uint64_t done, total;
    int calls, most;
};

static bool on_progress(void *user_data, uint64_t done, uint64_t total)
{
    struct told *told = user_data;
    CHECK(done > told->done && done <= total);
    told->done = done;
    told->total = total;
    return ++told->calls < told->most;
}

static void progress(void)
{
    enum { COUNT = 300, EACH = 4 };
    static mantle_token ids[COUNT * EACH];
    static size_t offsets[COUNT + 1];
    static float rows[COUNT * WIDTH];
    struct told told = {0, 0, 0, 1000};
    mantle_embed_options options = defaults();
    mantle_cancel *cancel;
    for (size_t i = 0; i < COUNT * EACH; i++) {
        ids[i] = (mantle_token)(i % VOCABULARY);
    }
    for (size_t i = 0; i <= COUNT; i++) {
        offsets[i] = EACH * i;
    }
    options.progress = on_progress;
    options.progress_user_data = &told;
    SUCCEEDS(mantle_embed_tokens(embedder, ids, offsets, COUNT, &options, rows, 0, NULL, error));
    CHECK(told.calls > 1 && told.done == COUNT * EACH && told.total == told.done);
    /* Not by GIVES, which would make the call twice. */
    told = (struct told){0, 0, 0, 1};
    mantle_error *error = NULL;
    CHECK(mantle_embed_tokens(embedder, ids, offsets, COUNT, &options, rows, 0, NULL, &error) ==
          MANTLE_ERROR_CANCELLED);
    CHECK(told.calls == 1);
    mantle_error_free(error);
    SUCCEEDS(mantle_cancel_new(&cancel, error));
    mantle_cancel_fire(cancel);
    const char *text = "abc";
    const size_t one[] = {0, 3};
    GIVES(MANTLE_ERROR_CANCELLED, NULL, mantle_embed_texts(embedder, text, one, 1, NULL, rows, 0, cancel, error));
    mantle_cancel_free(cancel);
}

/* An encoder has no logits. */
static void encoders(void)
{
    mantle_session *session = (mantle_session *)(void *)&check_failures; /* must become NULL */
    GIVES(MANTLE_ERROR_UNSUPPORTED, "encoder", mantle_session_new(model, NULL, NULL, &session, error));
    CHECK(session == NULL);
}

/* A decoder embeds by its last layer: the last token's vector, unless another pooling is asked for. */
static void decoders(void)
{
    struct tiny_model file = tiny_make(NULL);
    mantle_model *decoder;
    mantle_embedder *of_decoder;
    mantle_session *session;
    mantle_embedding_info info = {.struct_size = sizeof info};
    mantle_model_info shape = {.struct_size = sizeof shape};
    mantle_embed_options options = defaults();
    float rows[3 * TINY_EMBEDDING], last[TINY_EMBEDDING];
    const size_t offsets[] = {0, 3};
    SUCCEEDS(mantle_model_open_memory(runtime, file.data, file.size, NULL, &decoder, error));
    SUCCEEDS(mantle_model_get_info(decoder, &shape, error));
    CHECK(shape.capabilities == (MANTLE_CAPABILITY_EMBEDDING | MANTLE_CAPABILITY_GENERATION));
    SUCCEEDS(mantle_model_embedding_info(decoder, &info, error));
    CHECK(info.pooling == MANTLE_POOLING_LAST && info.dimensions == TINY_EMBEDDING);
    SUCCEEDS(mantle_embedder_new(decoder, NULL, NULL, &of_decoder, error));
    options.normalize = MANTLE_NORMALIZE_NO;
    SUCCEEDS(mantle_embed_texts(of_decoder, "abc", offsets, 1, &options, last, 0, NULL, error));
    const mantle_token ids[] = {TINY_MERGED, 'c'};
    const size_t two[] = {0, 2};
    options.pooling = MANTLE_POOLING_NONE;
    SUCCEEDS(mantle_embed_tokens(of_decoder, ids, two, 1, &options, rows, 0, NULL, error));
    CHECK(memcmp(rows + TINY_EMBEDDING, last, sizeof last) == 0);
    /* It still generates, and an empty text has no token to embed. */
    SUCCEEDS(mantle_session_new(decoder, NULL, NULL, &session, error));
    const size_t empty[] = {0, 0};
    GIVES(BAD, "text 0", mantle_embed_texts(of_decoder, "", empty, 1, NULL, rows, 0, NULL, error));
    mantle_session_free(session);
    mantle_embedder_free(of_decoder);
    mantle_model_free(decoder);
    tiny_free(&file);
}

/* A folder that lacks a file names it. */
static void folders(const char *folder)
{
    mantle_model *opened = (mantle_model *)(void *)&check_failures; /* must become NULL */
    GIVES(MANTLE_ERROR_NOT_FOUND, "model.safetensors",
          mantle_model_open(runtime, folder, strlen(folder), NULL, &opened, error));
    CHECK(opened == NULL);
}

int main(int argc, char **argv)
{
    REQUIRE(argc == 2);
    SUCCEEDS(mantle_runtime_new(NULL, &runtime, error));
    model = open_data(argv[1], "tiny-gemma-embedding-F32.gguf");
    SUCCEEDS(mantle_embedder_new(model, NULL, NULL, &embedder, error));
    texts();
    lengths();
    tokens();
    cut_and_prompted();
    progress();
    encoders();
    decoders();
    folders(argv[1]);
    mantle_embedder_free(embedder);
    mantle_model_free(model);
    mantle_runtime_free(runtime);
    return check_result();
}
