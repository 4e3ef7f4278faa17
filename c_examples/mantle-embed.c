/* Texts to embeddings: a filter for the shell. */
#define _POSIX_C_SOURCE 200809L /* isatty, fileno */
#include "common.h"
#include "embedding-output.h"
#include "records.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *model_path, *pooling_name, *prompt_name, *weights_name;
static bool from_ids, null_separated, as_json, as_npy, as_binary, similarity, truncate_long, show_info;
static long threads, dimensions, max_tokens;

static const struct option options[] = {
    {"-m", "--model", OPTION_TEXT, &model_path, "MODEL",
     "model file (GGUF), or folder with model.safetensors,\nconfig.json and tokenizer.json", 0, 0},
    {"-t", "--threads", OPTION_NUMBER, &threads, "N", "threads (default: as many as the process may use)", 1, 1024},
    {NULL, "--ids", OPTION_FLAG, &from_ids, NULL, "records are token ids instead of text", 0, 0},
    {"-0", "--null", OPTION_FLAG, &null_separated, NULL,
     "records end with a NUL byte instead of a newline,\nso that texts may hold newlines", 0, 0},
    {"-p", "--prompt", OPTION_TEXT, &prompt_name, "NAME",
     "put the model's prompt of this name before each text:\nquery, document, ... or none (default)", 0, 0},
    {NULL, "--pooling", OPTION_TEXT, &pooling_name, "KIND",
     "mean, cls, last, or none: a row for each token\n(default: what the model says)", 0, 0},
    {"-d", "--dims", OPTION_NUMBER, &dimensions, "N", "cut embeddings to N values (Matryoshka models)", 1, 1 << 20},
    {NULL, "--max-tokens", OPTION_NUMBER, &max_tokens, "N",
     "most tokens of a text (default: what the model was\ntrained for, at most 8192)", 1, 1 << 24},
    {NULL, "--truncate", OPTION_FLAG, &truncate_long, NULL, "cut texts that are too long instead of refusing them", 0, 0},
    {"-w", "--weights", OPTION_TEXT, &weights_name, "TYPE",
     "keep float weights as f32, bf16 or q8_0: bf16 and\nq8_0 are faster and less exact", 0, 0},
    {NULL, "--json", OPTION_FLAG, &as_json, NULL, "a JSON array per record (the default)", 0, 0},
    {NULL, "--npy", OPTION_FLAG, &as_npy, NULL, "one NumPy array of all rows", 0, 0},
    {NULL, "--bin", OPTION_FLAG, &as_binary, NULL, "rows of 32-bit floats, nothing between them", 0, 0},
    {NULL, "--similarity", OPTION_FLAG, &similarity, NULL, "a table of the cosines of all records instead", 0, 0},
    {NULL, "--info", OPTION_FLAG, &show_info, NULL, "what the model's embeddings are, and its prompts", 0, 0},
};

static const struct program program = {
    .name = "mantle-embed",
    .usage = "-m MODEL [options] [FILE]",
    .about = "Reads texts from FILE or standard input, one a line, and writes an embedding for each, in order.\n"
             "Answers come as soon as the input pauses; memory does not grow with the input.",
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
    const mantle_tokenizer *tokenizer; /* borrowed from the model; for --pooling none */
    const char *prompt;                /* borrowed, too: its text, for --pooling none */
    size_t prompt_length;
    size_t longest;                    /* most tokens of a record */
    mantle_embed_options options;
    mantle_error *error;
    struct records records;
    struct output output;
    size_t *offsets;
    float *rows;
    size_t rows_capacity;
    double start, last_shown;
    bool shows_progress, bar_stands;
};

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
    const struct records *records = &state->records;
    double now = seconds(), passed = now - state->start;
    if (!state->shows_progress || passed < 1 || now - state->last_shown < 0.1) {
        return;
    }
    state->last_shown = now;
    size_t done = records->first + records->count;
    double rate = (double)done / passed;
    if (records->size > 0) {
        double part = records->taken < records->size ? records->taken / records->size : 1;
        char bar[31];
        for (int i = 0; i < 30; i++) {
            bar[i] = i < (int)(part * 30) ? '#' : '.';
        }
        bar[30] = '\0';
        fprintf(stderr, "\r[%s] %3.0f %%  %zu records, %.0f/s, %.0f s left\033[K", bar, part * 100, done, rate,
                part > 0 ? passed * (1 - part) / part : 0.0);
    } else {
        fprintf(stderr, "\r%zu records, %.0f/s\033[K", done, rate);
    }
    fflush(stderr);
    state->bar_stands = true;
}

/* ---- embedding ---- */

/* Room for `count` rows. */
static float *rows_for(struct state *state, size_t count)
{
    if (count > state->rows_capacity) {
        float *grown = realloc(state->rows, count * state->output.columns * sizeof *grown);
        if (!grown) {
            fail(&program, "no memory for %zu embeddings", count);
            return NULL;
        }
        state->rows = grown;
        state->rows_capacity = count;
    }
    return state->rows;
}

static const char *record_start(const struct state *state, size_t index)
{
    const struct records *records = &state->records;
    size_t item = records->are_ids ? sizeof(mantle_token) : 1;
    return records->content.data ? records->content.data + records->offsets[index] * item : "";
}

static size_t record_length(const struct state *state, size_t index)
{
    return state->records.offsets[index + 1] - state->records.offsets[index];
}

/* Embeds `count` records of the block from `first` on. Their offsets count from the first of them. */
static mantle_status embed(struct state *state, size_t first, size_t count, float *rows)
{
    const size_t *given = state->records.offsets + first;
    size_t *offsets = realloc(state->offsets, (count + 1) * sizeof *offsets);
    if (!offsets) {
        return MANTLE_ERROR_NO_MEMORY;
    }
    state->offsets = offsets;
    for (size_t i = 0; i <= count; i++) {
        offsets[i] = given[i] - given[0];
    }
    const char *start = record_start(state, first);
    if (from_ids) {
        return mantle_embed_tokens(state->embedder, (const mantle_token *)(const void *)start, offsets, count,
                                   &state->options, rows, 0, state->cancel, &state->error);
    }
    return mantle_embed_texts(state->embedder, start, offsets, count, &state->options, rows, 0, state->cancel,
                              &state->error);
}

/* A refused record ends the program with its number in the input. */
static int report_record(struct state *state, size_t index, mantle_status status)
{
    clear_bar(state);
    if (status != MANTLE_ERROR_INVALID_ARGUMENT) {
        return report(&program, status, state->error);
    }
    fail(&program, "record %zu: %s", state->records.first + index + 1, mantle_error_message(state->error));
    mantle_error_free(state->error);
    return EXIT_FAILURE;
}

static int write_record(struct state *state, size_t index, const float *rows, size_t count)
{
    return output_record(&program, &state->output, rows, count, from_ids ? NULL : record_start(state, index),
                         record_length(state, index));
}

/* Embeds the block at once; when a record is refused, one by one up to that. */
static int embed_block(struct state *state)
{
    size_t count = state->records.count;
    float *rows = rows_for(state, count);
    if (!rows) {
        return EXIT_FAILURE;
    }
    mantle_status status = embed(state, 0, count, rows);
    bool at_once = status == MANTLE_OK;
    if (!at_once && status != MANTLE_ERROR_INVALID_ARGUMENT) {
        return report_record(state, 0, status);
    }
    int result = EXIT_SUCCESS;
    for (size_t i = 0; i < count && result == EXIT_SUCCESS; i++) {
        if (!at_once) {
            mantle_error_free(state->error);
            state->error = NULL;
            status = embed(state, i, 1, rows + i * state->output.columns);
        }
        result = status == MANTLE_OK ? write_record(state, i, rows + i * state->output.columns, 1)
                                     : report_record(state, i, status);
    }
    return result;
}

/* The ids of a text behind the prompt, in memory that grows. */
static mantle_status make_ids(struct state *state, const char *text, size_t size, mantle_token **ids, size_t *count)
{
    struct buffer whole = {0};
    size_t needed = 0;
    mantle_status status = MANTLE_ERROR_NO_MEMORY;
    if (buffer_add(&whole, state->prompt, state->prompt_length) && buffer_add(&whole, text, size)) {
        const uint32_t flags = MANTLE_TOKENIZE_ADD_SPECIAL;
        /* Asks for the number; what is wrong with the text is told by the second call. */
        mantle_tokenize(state->tokenizer, whole.data, whole.size, flags, NULL, 0, &needed, NULL);
        mantle_token *grown = realloc(*ids, (needed + 1) * sizeof **ids);
        if (grown) {
            *ids = grown;
            status = mantle_tokenize(state->tokenizer, whole.data, whole.size, flags, grown, needed, count,
                                     &state->error);
        }
    }
    buffer_free(&whole);
    return status;
}

/* A text that is cut keeps the token that closes it. */
static mantle_status cut_ids(struct state *state, mantle_token *ids, size_t *count)
{
    static const int32_t closing[] = {MANTLE_SPECIAL_SEP, MANTLE_SPECIAL_EOS};
    mantle_token last = *count > 0 ? ids[*count - 1] : MANTLE_TOKEN_NONE, special;
    mantle_status status = MANTLE_OK;
    if (truncate_long && *count > state->longest) {
        *count = state->longest;
        for (size_t i = 0; i < 2 && status == MANTLE_OK && !from_ids; i++) {
            status = mantle_tokenizer_special(state->tokenizer, closing[i], &special, &state->error);
            if (status == MANTLE_OK && special == last && last != MANTLE_TOKEN_NONE) {
                ids[*count - 1] = last;
            }
        }
    }
    return status;
}

/* A row for each token, record after record: their number is known once there are ids. */
static int embed_each_token(struct state *state)
{
    mantle_token *ids = NULL;
    int result = EXIT_SUCCESS;
    for (size_t i = 0; i < state->records.count && result == EXIT_SUCCESS; i++) {
        size_t count = record_length(state, i);
        mantle_token *tokens = (mantle_token *)(void *)record_start(state, i);
        mantle_status status = MANTLE_OK;
        if (!from_ids) {
            status = make_ids(state, record_start(state, i), count, &ids, &count);
            tokens = ids;
        }
        if (status == MANTLE_OK) {
            status = cut_ids(state, tokens, &count);
        }
        /* What is longer is refused before a row is written. */
        float *rows = status == MANTLE_OK ? rows_for(state, count < state->longest ? count + 1 : state->longest) : NULL;
        if (status == MANTLE_OK && !rows) {
            result = EXIT_FAILURE;
            break;
        }
        if (status == MANTLE_OK) {
            const size_t offsets[] = {0, count};
            status = mantle_embed_tokens(state->embedder, tokens, offsets, 1, &state->options, rows, 0, state->cancel,
                                         &state->error);
        }
        result = status == MANTLE_OK ? write_record(state, i, rows, count) : report_record(state, i, status);
    }
    free(ids);
    return result;
}

static int embed_input(struct state *state)
{
    int result = output_begin(&program, &state->output);
    if (result != EXIT_SUCCESS) {
        return result;
    }
    do {
        /* Those before a broken record are embedded, too. */
        result = records_read(&program, &state->records);
        if (state->records.count > 0) {
            int embedded = state->output.is_nested ? embed_each_token(state) : embed_block(state);
            result = result == EXIT_SUCCESS ? embedded : result;
            fflush(stdout);
            show_bar(state);
        }
    } while (result == EXIT_SUCCESS && state->records.count > 0);
    clear_bar(state);
    int ended = output_end(&program, &state->output, result == EXIT_SUCCESS);
    return result == EXIT_SUCCESS ? ended : result;
}

/* ---- setting up ---- */

/* By their MANTLE_POOLING_* numbers. */
static const char *const poolings[] = {"none", "mean", "cls", "last"};

static int write_info(struct state *state)
{
    mantle_embedding_info info = {.struct_size = sizeof info};
    mantle_status status = mantle_model_embedding_info(state->model, &info, &state->error);
    if (status != MANTLE_OK) {
        return report(&program, status, state->error);
    }
    printf("dimensions    %" PRIu32 "\n", info.dimensions);
    printf("pooling       %s\n", info.pooling >= 0 && info.pooling < 4 ? poolings[info.pooling] : "?");
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
            model_options.weight_type = strcmp(weights_name, "f32") == 0    ? MANTLE_DTYPE_F32
                                        : strcmp(weights_name, "bf16") == 0 ? MANTLE_DTYPE_BF16
                                                                            : MANTLE_DTYPE_Q8_0;
        }
        status = mantle_model_open(state->runtime, model_path, strlen(model_path), &model_options, &state->model, error);
    }
    return status;
}

static mantle_status make_embedder(struct state *state)
{
    mantle_embedder_options embedder_options;
    mantle_model_info info = {.struct_size = sizeof info};
    mantle_error **error = &state->error;
    mantle_status status = mantle_embedder_options_init(&embedder_options, sizeof embedder_options, error);
    if (status == MANTLE_OK) {
        embedder_options.max_tokens = (uint32_t)max_tokens;
        status = mantle_embedder_new(state->model, &embedder_options, NULL, &state->embedder, error);
    }
    if (status == MANTLE_OK) {
        status = mantle_model_get_info(state->model, &info, error);
        /* As mantle_embedder_options has it. */
        state->longest = max_tokens > 0 ? (size_t)max_tokens : info.context < 8192 ? info.context : 8192;
    }
    return status;
}

/* What --pooling none needs to make ids: the tokenizer, and the text of the prompt. */
static mantle_status find_tokenizer(struct state *state)
{
    mantle_embed_options pooled = state->options;
    mantle_status status = MANTLE_OK;
    pooled.pooling = MANTLE_POOLING_MEAN;
    if (!from_ids) {
        /* No texts at all: only the prompt's name is checked. */
        const size_t none = 0;
        status = mantle_embed_texts(state->embedder, NULL, &none, 0, &pooled, NULL, 0, NULL, &state->error);
    }
    if (status == MANTLE_OK && !from_ids) {
        status = mantle_model_tokenizer(state->model, &state->tokenizer, &state->error);
    }
    bool searches = state->options.prompt != NULL;
    for (size_t i = 0; status == MANTLE_OK && searches; i++) {
        const char *name;
        size_t name_length;
        status = mantle_model_prompt(state->model, i, &name, &name_length, &state->prompt, &state->prompt_length,
                                     &state->error);
        searches = status == MANTLE_OK &&
                   (name_length != state->options.prompt_length || memcmp(name, state->options.prompt, name_length) != 0);
    }
    return status;
}

/* Whether a record gives a row for each token. */
static bool is_each_token(const struct state *state)
{
    mantle_embedding_info info = {.struct_size = sizeof info};
    if (state->options.pooling != MANTLE_POOLING_MODEL) {
        return state->options.pooling == MANTLE_POOLING_NONE;
    }
    return mantle_model_embedding_info(state->model, &info, NULL) == MANTLE_OK && info.pooling == MANTLE_POOLING_NONE;
}

static mantle_status read_options(struct state *state)
{
    mantle_status status = mantle_embed_options_init(&state->options, sizeof state->options, &state->error);
    if (status != MANTLE_OK) {
        return status;
    }
    for (int i = 0; pooling_name && i < 4; i++) {
        if (strcmp(pooling_name, poolings[i]) == 0) {
            state->options.pooling = i;
        }
    }
    state->options.dimensions = (uint32_t)dimensions;
    state->options.flags = truncate_long ? MANTLE_EMBED_TRUNCATE : 0;
    if (prompt_name && strcmp(prompt_name, "none") != 0) {
        state->options.prompt = prompt_name;
        state->options.prompt_length = strlen(prompt_name);
    }
    state->output.form = as_npy ? OUTPUT_NPY : as_binary ? OUTPUT_BINARY : similarity ? OUTPUT_SIMILARITY : OUTPUT_JSON;
    state->output.is_nested = is_each_token(state);
    if (state->output.is_nested && similarity) {
        usage_error(&program, "--similarity needs one embedding for each record, not --pooling none");
    }
    status = mantle_embed_dimensions(state->embedder, &state->options, &state->output.columns, &state->error);
    return status == MANTLE_OK && state->output.is_nested ? find_tokenizer(state) : status;
}

static void check_usage(void)
{
    if (!model_path) {
        usage_error(&program, "-m MODEL is missing");
    }
    if (as_json + as_npy + as_binary + similarity > 1) {
        usage_error(&program, "--json, --npy, --bin and --similarity exclude each other");
    }
    bool known = !pooling_name;
    for (size_t i = 0; i < sizeof poolings / sizeof *poolings; i++) {
        known = known || strcmp(pooling_name, poolings[i]) == 0;
    }
    if (!known) {
        usage_error(&program, "--pooling %s: expected mean, cls, last or none", pooling_name);
    }
    if (weights_name && strcmp(weights_name, "f32") != 0 && strcmp(weights_name, "bf16") != 0 &&
        strcmp(weights_name, "q8_0") != 0) {
        usage_error(&program, "--weights %s: expected f32, bf16 or q8_0", weights_name);
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
    struct state state = {.records = {.are_ids = from_ids, .end_with_nul = null_separated}};
    bool reads_terminal = isatty(STDIN_FILENO) && (given == 0 || strcmp(path, "-") == 0);
    /* Rows and bar would share one screen, and so would a text that is being typed. */
    state.shows_progress = isatty(STDERR_FILENO) && !isatty(STDOUT_FILENO) && !reads_terminal;
    int result = show_info ? EXIT_SUCCESS : records_open(&program, &state.records, given > 0 ? path : NULL);
    if (result == EXIT_SUCCESS) {
        mantle_status status = open_model(&state);
        if (status == MANTLE_OK && !show_info) {
            status = make_embedder(&state);
        }
        if (status == MANTLE_OK && !show_info) {
            status = read_options(&state);
        }
        state.start = seconds();
        result = status != MANTLE_OK ? report(&program, status, state.error)
                 : show_info         ? write_info(&state)
                                     : embed_input(&state);
    }
    free(state.rows);
    free(state.offsets);
    records_close(&state.records);
    output_free(&state.output);
    mantle_embedder_free(state.embedder);
    mantle_model_free(state.model);
    mantle_runtime_free(state.runtime);
    mantle_cancel_free(state.cancel);
    return finish(&program, result);
}
