/* Texts to embeddings: a filter for the shell. */
#define _POSIX_C_SOURCE 200809L /* isatty, fileno */
#include "common.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Records that are read before they are embedded: enough to fill passes, few enough to see answers soon. */
enum { BLOCK = 256 };

static const char *model_path, *pooling_name, *prompt_name, *weights_name;
static bool from_ids, null_separated, as_json, as_npy, as_binary, similarity, truncate_long, show_info;
static long threads, dimensions;

static const struct option options[] = {
    {"-m", "--model", OPTION_TEXT, &model_path, "MODEL",
     "model file (GGUF), or folder with model.safetensors,\nconfig.json and tokenizer.json", 0, 0},
    {"-t", "--threads", OPTION_NUMBER, &threads, "N", "threads (default: as many as the process may use)", 1, 1024},
    {NULL, "--ids", OPTION_FLAG, &from_ids, NULL, "records are token ids instead of text", 0, 0},
    {"-0", "--null", OPTION_FLAG, &null_separated, NULL,
     "records end with a NUL byte instead of a newline,\nso that texts may hold newlines", 0, 0},
    {"-p", "--prompt", OPTION_TEXT, &prompt_name, "NAME",
     "put the model's prompt of this name before each text:\nquery, document, ... or none (default)", 0, 0},
    {NULL, "--pooling", OPTION_TEXT, &pooling_name, "KIND", "mean, cls or last (default: what the model says)", 0, 0},
    {"-d", "--dims", OPTION_NUMBER, &dimensions, "N", "cut embeddings to N values (Matryoshka models)", 1, 1 << 20},
    {NULL, "--truncate", OPTION_FLAG, &truncate_long, NULL, "cut texts that are too long instead of refusing them", 0, 0},
    {"-w", "--weights", OPTION_TEXT, &weights_name, "TYPE",
     "keep float weights as bf16 or q8_0: faster, less exact", 0, 0},
    {NULL, "--json", OPTION_FLAG, &as_json, NULL, "a JSON array per record (the default)", 0, 0},
    {NULL, "--npy", OPTION_FLAG, &as_npy, NULL, "one NumPy array of all rows", 0, 0},
    {NULL, "--bin", OPTION_FLAG, &as_binary, NULL, "rows of 32-bit floats, nothing between them", 0, 0},
    {NULL, "--similarity", OPTION_FLAG, &similarity, NULL, "a table of the cosines of all records instead", 0, 0},
    {NULL, "--info", OPTION_FLAG, &show_info, NULL, "what the model's embeddings are, and its prompts", 0, 0},
};

static const struct program program = {
    .name = "mantle-embed",
    .usage = "-m MODEL [options] [FILE]",
    .about = "Reads texts from FILE or standard input, one a line, and writes an embedding for each, in order.",
    .examples = "  echo 'Hello world' | mantle-embed -m model.gguf\n"
                "  mantle-embed -m model/ --npy documents.txt > documents.npy\n"
                "  printf 'a cat\\na kitten\\na bridge\\n' | mantle-embed -m model/ --similarity",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .max_arguments = 1,
};

/* Everything that main gives back. */
struct state {
    mantle_runtime *runtime;
    mantle_model *model;
    mantle_embedder *embedder;
    mantle_cancel *cancel;
    mantle_embed_options options;
    mantle_error *error;
    size_t columns;
    FILE *input;
    const char *input_name;
    double input_size;    /* bytes, 0 when it is not known */
    double done_size;     /* bytes of records that were embedded */
    size_t done;          /* records that were embedded */
    struct buffer text;   /* the block's records, one behind the other: bytes, or token ids */
    size_t *offsets;      /* count + 1 of them, in bytes or tokens */
    size_t count, capacity;
    float *rows;
    size_t rows_capacity; /* in rows */
    double start, last_shown;
    bool interactive, bar_stands;
};

/* ---- records ---- */

/* Room for one more record and the offset behind it. */
static bool grow_offsets(struct state *state)
{
    if (state->count + 2 <= state->capacity) {
        return true;
    }
    size_t capacity = state->capacity > 0 ? 2 * state->capacity : BLOCK + 1;
    size_t *grown = realloc(state->offsets, capacity * sizeof *grown);
    if (grown) {
        state->offsets = grown;
        state->capacity = capacity;
    }
    return grown != NULL;
}

/* Turns the ids written in `record` into numbers behind those of the block. */
static int add_ids(struct state *state, const struct buffer *record, size_t number)
{
    if (strlen(record->data) != record->size) {
        return fail(&program, "record %zu holds a NUL byte", number);
    }
    size_t count;
    const char *problem;
    mantle_token *ids = parse_ids(record->data, &count, &problem);
    if (!ids) {
        return problem ? fail(&program, "record %zu: '%.20s' is no token id", number, problem)
                       : fail(&program, "no memory for the ids of record %zu", number);
    }
    bool added = buffer_add(&state->text, ids, count * sizeof *ids);
    free(ids);
    state->offsets[state->count + 1] = state->offsets[state->count] + count;
    return added ? EXIT_SUCCESS : fail(&program, "no memory for record %zu", number);
}

/* Reads up to `most` records into the block; at the end of the input there are none. */
static int read_block(struct state *state, size_t most)
{
    int end = null_separated ? '\0' : '\n', c = 0, result = EXIT_SUCCESS;
    struct buffer record = {0};
    state->text.size = 0;
    state->count = 0;
    while (result == EXIT_SUCCESS && state->count < most && c != EOF) {
        size_t number = state->done + state->count + 1;
        struct buffer *to = from_ids ? &record : &state->text;
        if (!grow_offsets(state)) {
            result = fail(&program, "no memory for %zu records", number);
            break;
        }
        if (state->count == 0) {
            state->offsets[0] = 0;
        }
        record.size = 0;
        size_t before = to->size;
        while ((c = getc(state->input)) != EOF && c != end) {
            char byte = (char)c;
            if (!buffer_add(to, &byte, 1)) {
                buffer_free(&record);
                return fail(&program, "no memory for record %zu", number);
            }
        }
        if (c == EOF && to->size == before) {
            break; /* The last record ended as it should. */
        }
        if (from_ids) {
            /* Closes the record with a NUL, also when it is empty. */
            result = buffer_add(&record, "", 0) ? add_ids(state, &record, number)
                                                : fail(&program, "no memory for record %zu", number);
        } else {
            state->offsets[state->count + 1] = to->size;
        }
        state->done_size += (double)(to->size - before + 1);
        state->count += result == EXIT_SUCCESS;
    }
    buffer_free(&record);
    if (result == EXIT_SUCCESS && ferror(state->input)) {
        return fail(&program, "%s: %s", state->input_name, strerror(errno));
    }
    return result;
}

/* ---- progress ---- */

static void clear_bar(struct state *state)
{
    if (state->bar_stands) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
        state->bar_stands = false;
    }
}

/* A line on the terminal that rewrites itself, from the second second on. */
static void show_bar(struct state *state)
{
    double now = seconds();
    if (!state->interactive || now - state->start < 1 || now - state->last_shown < 0.1) {
        return;
    }
    state->last_shown = now;
    double rate = (double)state->done / (now - state->start);
    if (state->input_size > 0) {
        double part = state->done_size / state->input_size;
        part = part < 1 ? part : 1;
        char bar[31];
        for (int i = 0; i < 30; i++) {
            bar[i] = i < (int)(part * 30) ? '#' : '.';
        }
        bar[30] = '\0';
        fprintf(stderr, "\r[%s] %3.0f %%  %zu records, %.0f/s, %.0f s left\033[K", bar, part * 100, state->done, rate,
                part > 0 ? (now - state->start) * (1 - part) / part : 0.0);
    } else {
        fprintf(stderr, "\r%zu records, %.0f/s\033[K", state->done, rate);
    }
    fflush(stderr);
    state->bar_stands = true;
}

/* ---- embedding ---- */

static mantle_status embed(struct state *state, size_t first, size_t count, float *rows)
{
    const size_t *offsets = state->offsets + first;
    size_t size = from_ids ? sizeof(mantle_token) : 1;
    const char *start = state->text.data ? state->text.data + offsets[0] * size : NULL;
    /* Offsets count from the first record that is embedded. */
    size_t *own = malloc((count + 1) * sizeof *own);
    if (!own) {
        fail(&program, "no memory for %zu records", count);
        return MANTLE_ERROR_NO_MEMORY;
    }
    for (size_t i = 0; i <= count; i++) {
        own[i] = offsets[i] - offsets[0];
    }
    mantle_status status =
        from_ids ? mantle_embed_tokens(state->embedder, (const mantle_token *)(const void *)start, own, count,
                                       &state->options, rows, 0, state->cancel, &state->error)
                 : mantle_embed_texts(state->embedder, start, own, count, &state->options, rows, 0, state->cancel,
                                      &state->error);
    free(own);
    return status;
}

static void write_rows(const struct state *state, const float *rows, size_t count)
{
    if (as_npy || as_binary) {
        fwrite(rows, sizeof *rows * state->columns, count, stdout);
        return;
    }
    for (size_t row = 0; row < count; row++) {
        for (size_t i = 0; i < state->columns; i++) {
            /* Nine digits give every 32-bit float back. */
            float value = rows[row * state->columns + i];
            putchar(i ? ',' : '[');
            if (isfinite(value)) {
                printf("%.9g", (double)value);
            } else {
                fputs("null", stdout);
            }
        }
        fputs("]\n", stdout);
    }
}

/*
 * Embeds the block into `rows`. When a record is refused, those before it are embedded and written one by one, and
 * the message tells its number.
 */
static int embed_block(struct state *state, float *rows)
{
    mantle_status status = embed(state, 0, state->count, rows);
    if (status == MANTLE_OK) {
        return EXIT_SUCCESS;
    }
    clear_bar(state);
    if (status != MANTLE_ERROR_INVALID_ARGUMENT) {
        return state->error ? report(&program, status, state->error) : EXIT_FAILURE;
    }
    for (size_t i = 0; i < state->count; i++) {
        mantle_error_free(state->error);
        state->error = NULL;
        status = embed(state, i, 1, rows);
        if (status != MANTLE_OK) {
            int result = fail(&program, "record %zu: %s", state->done + i + 1, mantle_error_message(state->error));
            mantle_error_free(state->error);
            return result;
        }
        if (!as_npy && !similarity) {
            write_rows(state, rows, 1);
        }
    }
    return fail(&program, "the records from %zu on cannot be embedded together", state->done + 1);
}

/* https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html */
static void write_npy_header(const struct state *state)
{
    char header[118];
    int size = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }",
                        state->count, state->columns);
    memset(header + size, ' ', sizeof header - (size_t)size);
    header[sizeof header - 1] = '\n';
    fwrite("\x93NUMPY\x01\x00\x76\x00", 1, 10, stdout);
    fwrite(header, 1, sizeof header, stdout);
}

/* The cosines of all rows, with the beginning of each text. */
static void write_similarity(const struct state *state, const float *rows)
{
    struct table table = {.alignment = "><"};
    char alignment[16] = "><";
    size_t count = state->count, shown = count < 12 ? count : 12;
    for (size_t i = 0; i < shown; i++) {
        alignment[2 + i] = '>';
    }
    alignment[2 + shown] = '\0';
    table.alignment = alignment;
    table_cell(&table, "%s", "");
    table_cell(&table, "%s", "");
    for (size_t column = 0; column < shown; column++) {
        table_cell(&table, "%zu", column + 1);
    }
    for (size_t row = 0; row < count; row++) {
        const float *a = rows + row * state->columns;
        size_t begin = state->offsets[row], size = state->offsets[row + 1] - begin;
        int length = size < 40 ? (int)size : 40;
        /* Not in the middle of a character. */
        while (length > 0 && size > 40 && ((unsigned char)state->text.data[begin + (size_t)length] & 0xC0) == 0x80) {
            length--;
        }
        table_cell(&table, "%zu", row + 1);
        table_cell(&table, "%.*s", from_ids ? 0 : length, from_ids || !size ? "" : state->text.data + begin);
        for (size_t column = 0; column < shown; column++) {
            const float *b = rows + column * state->columns;
            double ab = 0, aa = 0, bb = 0;
            for (size_t i = 0; i < state->columns; i++) {
                ab += (double)a[i] * b[i];
                aa += (double)a[i] * a[i];
                bb += (double)b[i] * b[i];
            }
            table_cell(&table, "%.3f", aa > 0 && bb > 0 ? ab / sqrt(aa * bb) : 0.0);
        }
    }
    table_print(&table, stdout, 0);
    if (shown < count) {
        printf("(columns for the first %zu of %zu records)\n", shown, count);
    }
}

static bool grow_rows(struct state *state, size_t count)
{
    if (count > state->rows_capacity) {
        float *grown = realloc(state->rows, count * state->columns * sizeof *grown);
        if (!grown) {
            return false;
        }
        state->rows = grown;
        state->rows_capacity = count;
    }
    return true;
}

/* All records at once, because the answer depends on their number. */
static int embed_all(struct state *state)
{
    int result = read_block(state, SIZE_MAX);
    size_t total = state->count, *offsets = state->offsets;
    if (result == EXIT_SUCCESS && similarity && !grow_rows(state, total + 1)) {
        return fail(&program, "no memory for %zu embeddings", total);
    }
    if (result == EXIT_SUCCESS && !grow_rows(state, BLOCK)) {
        return fail(&program, "no memory for %d embeddings", BLOCK);
    }
    if (result == EXIT_SUCCESS && as_npy) {
        write_npy_header(state);
    }
    double size = state->done_size;
    state->input_size = size;
    for (size_t first = 0; result == EXIT_SUCCESS && first < total; first += BLOCK) {
        state->offsets = offsets + first;
        state->count = total - first < BLOCK ? total - first : BLOCK;
        float *rows = similarity ? state->rows + first * state->columns : state->rows;
        result = embed_block(state, rows);
        if (result == EXIT_SUCCESS && !similarity) {
            write_rows(state, rows, state->count);
        }
        state->done += state->count;
        state->done_size = total > 0 ? size * (double)state->done / (double)total : 0;
        show_bar(state);
    }
    clear_bar(state);
    state->offsets = offsets;
    state->count = total;
    if (result == EXIT_SUCCESS && similarity) {
        write_similarity(state, state->rows);
    }
    return result;
}

static int embed_stream(struct state *state)
{
    int result = EXIT_SUCCESS;
    if (!grow_rows(state, BLOCK)) {
        return fail(&program, "no memory for %d embeddings", BLOCK);
    }
    while ((result = read_block(state, BLOCK)) == EXIT_SUCCESS && state->count > 0) {
        result = embed_block(state, state->rows);
        if (result != EXIT_SUCCESS) {
            break;
        }
        write_rows(state, state->rows, state->count);
        fflush(stdout);
        state->done += state->count;
        show_bar(state);
    }
    clear_bar(state);
    return result;
}

/* ---- setting up ---- */

static int write_info(struct state *state)
{
    static const char *const names[] = {"none", "mean", "cls", "last"};
    mantle_embedding_info info = {.struct_size = sizeof info};
    mantle_status status = mantle_model_embedding_info(state->model, &info, &state->error);
    if (status != MANTLE_OK) {
        return report(&program, status, state->error);
    }
    printf("dimensions    %" PRIu32 "\n", info.dimensions);
    printf("pooling       %s\n", info.pooling >= 0 && info.pooling < 4 ? names[info.pooling] : "?");
    printf("normalized    %s\n", info.normalize == MANTLE_NORMALIZE_YES ? "yes" : "no");
    printf("dense layers  %" PRIu32 "\n", info.dense_layers);
    for (uint32_t i = 0; i < info.prompts; i++) {
        const char *name, *text;
        size_t name_length, text_length;
        status = mantle_model_prompt(state->model, i, &name, &name_length, &text, &text_length, &state->error);
        if (status != MANTLE_OK) {
            return report(&program, status, state->error);
        }
        printf("prompt        %.*s: \"%.*s\"\n", (int)name_length, name, (int)text_length, text);
    }
    return EXIT_SUCCESS;
}

static mantle_status open_model(struct state *state)
{
    mantle_runtime_options runtime_options;
    mantle_model_options model_options;
    mantle_error **error = &state->error;
    mantle_status status = mantle_cancel_new(&state->cancel, error);
    if (status == MANTLE_OK) {
        cancel_on_interrupt(state->cancel);
        status = mantle_runtime_options_init(&runtime_options, sizeof runtime_options, error);
    }
    if (status == MANTLE_OK) {
        if (threads > 0) {
            runtime_options.threads = (uint32_t)threads;
        }
        status = mantle_runtime_new(&runtime_options, &state->runtime, error);
    }
    if (status == MANTLE_OK) {
        status = mantle_model_options_init(&model_options, sizeof model_options, error);
    }
    if (status == MANTLE_OK) {
        model_options.cancel = state->cancel;
        if (weights_name) {
            model_options.weight_type = strcmp(weights_name, "bf16") == 0 ? MANTLE_DTYPE_BF16 : MANTLE_DTYPE_Q8_0;
        }
        status = mantle_model_open(state->runtime, model_path, strlen(model_path), &model_options, &state->model, error);
    }
    if (status == MANTLE_OK && !show_info) {
        status = mantle_embedder_new(state->model, NULL, NULL, &state->embedder, error);
    }
    return status;
}

static mantle_status read_options(struct state *state)
{
    mantle_status status = mantle_embed_options_init(&state->options, sizeof state->options, &state->error);
    if (status != MANTLE_OK) {
        return status;
    }
    static const char *const names[] = {"mean", "cls", "last"};
    for (int i = 0; pooling_name && i < 3; i++) {
        if (strcmp(pooling_name, names[i]) == 0) {
            state->options.pooling = MANTLE_POOLING_MEAN + i;
        }
    }
    state->options.dimensions = (uint32_t)dimensions;
    state->options.flags = truncate_long ? MANTLE_EMBED_TRUNCATE : 0;
    if (prompt_name && strcmp(prompt_name, "none") != 0) {
        state->options.prompt = prompt_name;
        state->options.prompt_length = strlen(prompt_name);
    }
    return mantle_embed_dimensions(state->embedder, &state->options, &state->columns, &state->error);
}

static int open_input(struct state *state, const char *path)
{
    state->input_name = path ? path : "standard input";
    state->input = path && strcmp(path, "-") != 0 ? fopen(path, "rb") : stdin;
    if (!state->input) {
        return fail(&program, "%s: %s", path, strerror(errno));
    }
    if (state->input != stdin && fseek(state->input, 0, SEEK_END) == 0) {
        long size = ftell(state->input);
        state->input_size = size > 0 ? (double)size : 0;
        rewind(state->input);
    }
    return EXIT_SUCCESS;
}

static void check_usage(void)
{
    if (!model_path) {
        usage_error(&program, "-m MODEL is missing");
    }
    if (as_json + as_npy + as_binary + similarity > 1) {
        usage_error(&program, "--json, --npy, --bin and --similarity exclude each other");
    }
    if (pooling_name && strcmp(pooling_name, "mean") != 0 && strcmp(pooling_name, "cls") != 0 &&
        strcmp(pooling_name, "last") != 0) {
        usage_error(&program, "--pooling %s: expected mean, cls or last", pooling_name);
    }
    if (weights_name && strcmp(weights_name, "bf16") != 0 && strcmp(weights_name, "q8_0") != 0) {
        usage_error(&program, "--weights %s: expected bf16 or q8_0", weights_name);
    }
    if (from_ids && prompt_name && strcmp(prompt_name, "none") != 0) {
        usage_error(&program, "--prompt is text: it cannot go before --ids");
    }
}

int main(int argc, char **argv)
{
    const char *path = NULL;
    size_t given = parse_options(&program, argc, argv, &path);
    check_usage();
    struct state state = {.interactive = isatty(fileno(stderr)) != 0, .start = seconds()};
    int result = open_input(&state, given > 0 ? path : NULL);
    if (result == EXIT_SUCCESS) {
        mantle_status status = open_model(&state);
        if (status == MANTLE_OK && !show_info) {
            status = read_options(&state);
        }
        if (status != MANTLE_OK) {
            result = report(&program, status, state.error);
        } else if (show_info) {
            result = write_info(&state);
        } else {
            state.start = seconds();
            result = as_npy || similarity ? embed_all(&state) : embed_stream(&state);
        }
    }
    free(state.rows);
    free(state.offsets);
    buffer_free(&state.text);
    if (state.input && state.input != stdin) {
        fclose(state.input);
    }
    mantle_embedder_free(state.embedder);
    mantle_model_free(state.model);
    mantle_runtime_free(state.runtime);
    mantle_cancel_free(state.cancel);
    return finish(&program, result);
}
