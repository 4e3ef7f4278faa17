/* Measures the library against the machine it runs on: every time comes with a percentage of a limit. */
#include "common.h"

#include <ctype.h>
#include <inttypes.h>
#include <mantle_experimental.h>
#include <stdlib.h>
#include <string.h>

enum { LIMIT_MILLISECONDS = 200, MAX_SHAPES = 32 };

static const char *model_path, *type_names, *shape_names, *where;
static struct list threads_list, tokens_list = {{32, 128, 512}, 3}, prompts = {{12, 512}, 2};
static long milliseconds = 300, generated = 64;
static bool as_json;

static const struct option options[] = {
    {"-t", "--threads", OPTION_LIST, &threads_list, "T[,T..]", "threads (default: all processors)", 1, 1024},
    {NULL, "--types", OPTION_TEXT, &type_names, "TYPES", "weight types, such as q8_0,q4_1 (default: all that are multiplied)", 0,
     0},
    {NULL, "--shapes", OPTION_TEXT, &shape_names, "SHAPES", "ROWSxCOLUMNS[,..] of the matrices", 0, 0},
    {NULL, "--tokens", OPTION_LIST, &tokens_list, "N[,N..]", "matmul: tokens at once (default 32,128,512)", 1, 1 << 16},
    {NULL, "--where", OPTION_TEXT, &where, "WHERE",
     "weights in 'cache', in main memory ('dram'), or 'both'\n(default: both for matvec, cache for matmul)", 0, 0},
    {"-m", "--model", OPTION_TEXT, &model_path, "FILE", "model: the model file (GGUF)", 0, 0},
    {"-p", "--prompts", OPTION_LIST, &prompts, "N[,N..]", "model: prompt lengths (default 12,512)", 1, 1 << 20},
    {"-n", "--count", OPTION_NUMBER, &generated, "N", "model: tokens to generate, 0 for none (default 64)", 0, 1 << 20},
    {NULL, "--milliseconds", OPTION_NUMBER, &milliseconds, "MS", "time for each figure; the best counts (default 300)", 1, 60000},
    {NULL, "--json", OPTION_FLAG, &as_json, NULL, "print one JSON object per line", 0, 0},
};

static const struct program program = {
    .name = "mantle-bench",
    .usage = "limits|matvec|matmul|model [options]",
    .about = "limits  this machine's peaks: arithmetic, and reading memory by size\n"
             "matvec  one token times a matrix: as fast as the weights can be read?\n"
             "matmul  many tokens times a matrix: as fast as the arithmetic allows?\n"
             "model   tokens/s of a model, for prompts and for generation\n\n"
             "Limits are measured in the same run. Other programs disturb: the best of several counts.",
    .examples = "  mantle-bench limits -t 1,2\n"
                "  mantle-bench matvec --types q4_1 --shapes 2048x2048 -t 2\n"
                "  mantle-bench matmul --types q8_0,bf16 --tokens 1,4,16,64,256 --json\n"
                "  mantle-bench model -m model.gguf -p 12,512 -n 64 -t 2",
    .options = options,
    .n_options = sizeof options / sizeof *options,
    .max_arguments = 1,
};

/* Leaves the program when a call (written with `&error` last) fails: a benchmark has nothing to save. */
#define CHECK(call)                                   \
    do {                                              \
        mantle_error *error = NULL;                   \
        mantle_status status = (call);                \
        if (status != MANTLE_OK) {                    \
            exit(report(&program, status, error));    \
        }                                             \
    } while (0)

static void *allocate(size_t count, size_t size)
{
    void *memory = count <= (size_t)-1 / size ? malloc(count * size) : NULL;
    if (!memory) {
        exit(fail(&program, "no memory for %zu values of %zu bytes", count, size));
    }
    return memory;
}

/* ---- limits ---- */

/* The peaks for one number of threads: operations and bytes per second. */
struct limits {
    uint32_t threads;
    double vnni, fma, bf16, dram;
};

static double measure(int32_t limit, uint32_t threads, size_t bytes_per_thread)
{
    double rate = 0;
    CHECK(mantle_measure_limit(limit, threads, bytes_per_thread, LIMIT_MILLISECONDS, &rate, &error));
    return rate;
}

/* Sixteen times the last-level cache, 256 MiB to 1 GiB: next to nothing of a walk over it stays in the cache. */
static size_t dram_bytes(void)
{
    size_t bytes = 16 * mantle_last_level_cache(), least = (size_t)256 << 20, most = (size_t)1 << 30;
    return bytes < least ? least : bytes > most ? most : bytes;
}

static struct limits measure_limits(uint32_t threads)
{
    return (struct limits){
        .threads = threads,
        .vnni = measure(MANTLE_LIMIT_INTEGER_DOT, threads, 0),
        .fma = measure(MANTLE_LIMIT_FUSED_MULTIPLY_ADD, threads, 0),
        .bf16 = measure(MANTLE_LIMIT_BF16_DOT, threads, 0),
        .dram = measure(MANTLE_LIMIT_READ, threads, dram_bytes() / threads),
    };
}

static void print_limit(struct table *table, const char *limit, uint32_t threads, size_t bytes, double rate)
{
    char size[32];
    if (as_json) {
        printf("{\"bench\": \"limits\", \"type\": null, \"rows\": null, \"cols\": null, \"tokens\": null, "
               "\"threads\": %" PRIu32 ", \"us\": null, \"limit\": \"%s\", \"percent\": 100, ", threads, limit);
        if (bytes) {
            printf("\"bytes_per_thread\": %zu, \"gbps\": %.2f}\n", bytes, rate / 1e9);
        } else {
            printf("\"gops\": %.2f}\n", rate / 1e9);
        }
        return;
    }
    table_cell(table, "%s", limit);
    table_cell(table, "%s", bytes ? format_bytes(size, (double)bytes) : "");
    table_cell(table, "%" PRIu32, threads);
    table_cell(table, "%.1f", rate / 1e9);
    table_cell(table, "%s", bytes ? "GB/s" : "Gop/s");
}

static void bench_limits(uint32_t threads)
{
    static const size_t sizes[] = {32 << 10, 128 << 10, 256 << 10, 512 << 10, 768 << 10, 2 << 20, 8 << 20, 64 << 20};
    struct table table = {.alignment = "<>>><"};
    table_cell(&table, "limit");
    table_cell(&table, "per thread");
    table_cell(&table, "threads");
    table_cell(&table, "peak");
    table_cell(&table, "");
    struct limits limits = measure_limits(threads);
    print_limit(&table, "vnni", threads, 0, limits.vnni);
    print_limit(&table, "fma", threads, 0, limits.fma);
    if (limits.bf16 > 0) {
        print_limit(&table, "bf16", threads, 0, limits.bf16);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i] < dram_bytes() / threads) {
            print_limit(&table, "cache", threads, sizes[i], measure(MANTLE_LIMIT_READ, threads, sizes[i]));
        }
    }
    print_limit(&table, "dram", threads, dram_bytes() / threads, limits.dram);
    if (!as_json) {
        table_print(&table, stdout, 0);
    }
}

/* ---- matrices ---- */

/* The types that are tried when the user names none, in this order; the library refuses those it does not multiply. */
static const mantle_dtype types[] = {
    MANTLE_DTYPE_F32,    MANTLE_DTYPE_F16,    MANTLE_DTYPE_BF16,   MANTLE_DTYPE_Q8_0,    MANTLE_DTYPE_Q4_0,
    MANTLE_DTYPE_Q4_1,   MANTLE_DTYPE_Q5_0,   MANTLE_DTYPE_Q5_1,   MANTLE_DTYPE_Q2_K,    MANTLE_DTYPE_Q3_K,
    MANTLE_DTYPE_Q4_K,   MANTLE_DTYPE_Q5_K,   MANTLE_DTYPE_Q6_K,   MANTLE_DTYPE_IQ4_NL,  MANTLE_DTYPE_IQ4_XS,
    MANTLE_DTYPE_IQ1_S,  MANTLE_DTYPE_IQ1_M,  MANTLE_DTYPE_IQ2_XXS, MANTLE_DTYPE_IQ2_XS, MANTLE_DTYPE_IQ2_S,
    MANTLE_DTYPE_IQ3_XXS, MANTLE_DTYPE_IQ3_S, MANTLE_DTYPE_TQ1_0,  MANTLE_DTYPE_TQ2_0,   MANTLE_DTYPE_MXFP4,
    MANTLE_DTYPE_NVFP4,  MANTLE_DTYPE_Q1_0,   MANTLE_DTYPE_Q2_0,
};
enum { TYPES = sizeof types / sizeof *types };

struct shape {
    size_t rows, columns;
};

/* Copies of one matrix, used in turn so that none is in the cache when its turn comes; and a multiplication. */
struct job {
    mantle_runtime *runtime;
    mantle_matrix **copies;
    size_t n_copies, next;
    struct shape shape;
    size_t tokens;
    float *x, *y;
};

/* Evenly spread numbers from -1 to 1, the same in every run. */
static float next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

static size_t matrix_bytes(mantle_dtype dtype, struct shape shape)
{
    size_t bytes = 0;
    CHECK(mantle_row_bytes(dtype, shape.columns, &bytes, &error));
    return bytes * shape.rows;
}

/* Weights as a file holds them. A few rows are made and repeated: the speed does not depend on the values. */
static void *make_weights(mantle_runtime *runtime, mantle_dtype dtype, struct shape shape)
{
    enum { DISTINCT = 16 };
    size_t rows = shape.rows < DISTINCT ? shape.rows : DISTINCT, row = matrix_bytes(dtype, shape) / shape.rows;
    float *values = allocate(rows * shape.columns, sizeof *values);
    unsigned char *data = allocate(shape.rows, row);
    uint32_t random = 1;
    mantle_error *error = NULL;
    for (size_t i = 0; i < rows * shape.columns; i++) {
        values[i] = next_random(&random);
    }
    mantle_status status = mantle_quantize_rows(runtime, dtype, values, rows, shape.columns, shape.columns, data,
                                                rows * row, &error);
    if (status == MANTLE_ERROR_UNSUPPORTED) {
        /* No encoder: any codes, with the bits clear that would make a scale infinite, negative or no number. */
        for (size_t i = 0; i < rows * row; i++) {
            next_random(&random);
            data[i] = random >> 24 & 0x3b;
        }
        mantle_error_free(error);
    } else if (status != MANTLE_OK) {
        exit(report(&program, status, error));
    }
    free(values);
    for (size_t i = rows; i < shape.rows; i++) {
        memcpy(data + i * row, data + i % rows * row, row);
    }
    return data;
}

/* Makes the matrices; false when the library does not multiply the type (and `optional` allows that). */
static bool open_job(struct job *job, mantle_runtime *runtime, mantle_dtype dtype, struct shape shape, size_t tokens,
                     bool in_dram, bool optional)
{
    /* Four times the last-level cache at least. */
    size_t bytes = matrix_bytes(dtype, shape), wanted = dram_bytes() / 4;
    wanted = wanted < ((size_t)256 << 20) ? (size_t)256 << 20 : wanted;
    *job = (struct job){.runtime = runtime, .shape = shape, .tokens = tokens};
    size_t copies = in_dram ? (wanted + bytes - 1) / bytes : 1;
    void *weights = make_weights(runtime, dtype, shape);
    job->copies = allocate(copies, sizeof *job->copies);
    for (; job->n_copies < copies; job->n_copies++) {
        mantle_error *error = NULL;
        mantle_status status = mantle_matrix_new(runtime, dtype, weights, bytes, shape.rows, shape.columns,
                                                 &job->copies[job->n_copies], &error);
        if (status == MANTLE_ERROR_UNSUPPORTED && optional) {
            mantle_error_free(error);
            free(weights);
            free(job->copies);
            return false;
        }
        if (status != MANTLE_OK) {
            exit(report(&program, status, error));
        }
    }
    free(weights);
    uint32_t random = 2;
    job->x = allocate(tokens * shape.columns, sizeof *job->x);
    job->y = allocate(tokens * shape.rows, sizeof *job->y);
    for (size_t i = 0; i < tokens * shape.columns; i++) {
        job->x[i] = next_random(&random);
    }
    return true;
}

static void close_job(struct job *job)
{
    for (size_t i = 0; i < job->n_copies; i++) {
        mantle_matrix_free(job->copies[i]);
    }
    free(job->copies);
    free(job->x);
    free(job->y);
}

/* Seconds of `count` multiplications in a row. */
static double time_of(struct job *job, size_t count)
{
    double start = seconds();
    for (size_t i = 0; i < count; i++) {
        CHECK(mantle_matmul(job->runtime, job->copies[job->next], job->x, job->tokens, job->shape.columns, job->y,
                            job->shape.rows, &error));
        job->next = (job->next + 1) % job->n_copies;
    }
    return seconds() - start;
}

/* Seconds of one multiplication: the best of many short series. */
static double best_time(struct job *job)
{
    size_t count = 1;
    double end = seconds() + (double)milliseconds * 1e-3, best;
    time_of(job, job->n_copies > 4 ? 4 : 1);
    /* A series takes at least half a millisecond, so that reading the clock costs nothing. */
    while ((best = time_of(job, count) / (double)count) * (double)count < 5e-4 && count < 1u << 20) {
        count *= 2;
    }
    do {
        double once = time_of(job, count) / (double)count;
        best = once < best ? once : best;
    } while (seconds() < end);
    return best;
}

/* What holds a multiplication back, at best. */
static double limit_of(mantle_dtype dtype, const struct limits *limits, bool matvec, bool in_dram, size_t bytes,
                       const char **name)
{
    if (matvec) {
        *name = in_dram ? "dram" : "cache";
        return in_dram ? limits->dram : measure(MANTLE_LIMIT_READ, limits->threads, bytes / limits->threads + 1);
    }
    bool floats = dtype == MANTLE_DTYPE_F32 || dtype == MANTLE_DTYPE_F16;
    if (dtype == MANTLE_DTYPE_BF16 && limits->bf16 > 0) {
        *name = "bf16";
        return limits->bf16;
    }
    *name = floats || dtype == MANTLE_DTYPE_BF16 ? "fma" : "vnni";
    return floats || dtype == MANTLE_DTYPE_BF16 ? limits->fma : limits->vnni;
}

static void bench_one(struct table *table, mantle_runtime *runtime, mantle_dtype dtype, struct shape shape,
                      size_t tokens, const struct limits *limits, bool matvec, bool in_dram)
{
    struct job job;
    const char *limit;
    if (!open_job(&job, runtime, dtype, shape, tokens, in_dram, type_names == NULL)) {
        return;
    }
    double time = best_time(&job);
    close_job(&job);
    size_t bytes = matrix_bytes(dtype, shape);
    double operations = 2.0 * (double)shape.rows * (double)shape.columns * (double)tokens / time;
    double read = (double)bytes / time;
    double percent = 100 * (matvec ? read : operations) / limit_of(dtype, limits, matvec, in_dram, bytes, &limit);
    const char *bench = matvec ? "matvec" : "matmul";
    if (as_json) {
        printf("{\"bench\": \"%s\", \"type\": \"%s\", \"rows\": %zu, \"cols\": %zu, \"tokens\": %zu, "
               "\"threads\": %" PRIu32 ", \"us\": %.3f, \"limit\": \"%s\", \"percent\": %.2f, \"where\": \"%s\", "
               "\"gops\": %.2f, \"gbps\": %.3f}\n",
               bench, mantle_dtype_name(dtype), shape.rows, shape.columns, tokens, limits->threads, time * 1e6, limit, percent,
               in_dram ? "dram" : "cache", operations / 1e9, read / 1e9);
        fflush(stdout);
        return;
    }
    table_cell(table, "%s", bench);
    table_cell(table, "%s", mantle_dtype_name(dtype));
    table_cell(table, "%zux%zu", shape.rows, shape.columns);
    table_cell(table, "%zu", tokens);
    table_cell(table, "%s", in_dram ? "dram" : "cache");
    table_cell(table, "%.1f", time * 1e6);
    table_cell(table, "%.1f", operations / 1e9);
    table_cell(table, "%.2f", read / 1e9);
    table_cell(table, "%.1f %% of %s", percent, limit);
}

/* The shapes that the user named, or our own. */
static size_t read_shapes(struct shape shapes[MAX_SHAPES])
{
    const char *text = shape_names ? shape_names : "768x768,1536x576,2048x2048,4096x4096";
    size_t count = 0;
    for (;;) {
        unsigned long rows, columns;
        int used = 0;
        if (sscanf(text, "%7lux%7lu%n", &rows, &columns, &used) != 2 || rows == 0 || columns == 0 ||
            (text[used] && text[used] != ',')) {
            usage_error(&program, "--shapes takes ROWSxCOLUMNS separated by commas, not '%s'", text);
        }
        if (count == MAX_SHAPES) {
            usage_error(&program, "--shapes takes at most %d shapes", MAX_SHAPES);
        }
        shapes[count++] = (struct shape){rows, columns};
        if (text[used] == '\0') {
            return count;
        }
        text += used + 1;
    }
}

/* Whether a word of a list separated by commas is the name of a type, in capitals or not. */
static bool is_name(const char *word, mantle_dtype dtype)
{
    const char *name = mantle_dtype_name(dtype);
    while (*name && tolower((unsigned char)*word) == tolower((unsigned char)*name)) {
        word++;
        name++;
    }
    return *name == '\0' && (*word == '\0' || *word == ',');
}

/* The word behind a word of a list separated by commas, or NULL. */
static const char *next_word(const char *word)
{
    word = strchr(word, ',');
    return word ? word + 1 : NULL;
}

/* Whether the user asks for a type: each is named, or none is. */
static bool wants_type(mantle_dtype dtype)
{
    for (const char *word = type_names; word; word = next_word(word)) {
        if (is_name(word, dtype)) {
            return true;
        }
    }
    return type_names == NULL;
}

static void check_types(void)
{
    for (const char *word = type_names; word; word = next_word(word)) {
        bool known = false;
        for (size_t i = 0; i < TYPES; i++) {
            known = known || is_name(word, types[i]);
        }
        if (!known) {
            usage_error(&program, "--types: '%.*s' is no weight type (known are f32, f16, bf16, q8_0, q4_0, q4_k, ...)",
                        (int)strcspn(word, ","), word);
        }
    }
}

static void bench_matrices(mantle_runtime *runtime, uint32_t threads, bool matvec)
{
    struct shape shapes[MAX_SHAPES];
    size_t n_shapes = read_shapes(shapes);
    struct table table = {.alignment = "<<>>>>>><"};
    static const char *const headings[] = {"bench", "type", "shape", "tokens", "weights", "us", "Gop/s", "GB/s", "reached"};
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++) {
        table_cell(&table, "%s", headings[i]);
    }
    bool in_cache = where ? strcmp(where, "dram") != 0 : true;
    bool in_dram = where ? strcmp(where, "cache") != 0 : matvec;
    struct limits limits = measure_limits(threads);
    for (size_t i = 0; i < TYPES; i++) {
        for (size_t s = 0; s < n_shapes && wants_type(types[i]); s++) {
            for (size_t t = 0; t < (matvec ? 1 : tokens_list.count); t++) {
                size_t tokens = matvec ? 1 : (size_t)tokens_list.values[t];
                for (int dram = !in_cache; dram <= in_dram; dram++) {
                    bench_one(&table, runtime, types[i], shapes[s], tokens, &limits, matvec, dram);
                }
            }
        }
    }
    if (!as_json) {
        printf("%" PRIu32 " threads; vnni %.0f, fma %.0f, bf16 %.0f Gop/s; dram %.1f GB/s\n", threads, limits.vnni / 1e9,
               limits.fma / 1e9, limits.bf16 / 1e9, limits.dram / 1e9);
        table_print(&table, stdout, 0);
    }
}

/* ---- model ---- */

static void print_model(struct table *table, const char *phase, size_t tokens, uint32_t threads, double seconds_per_token,
                        const char *limit, double percent)
{
    if (as_json) {
        printf("{\"bench\": \"model\", \"type\": null, \"rows\": null, \"cols\": null, \"tokens\": %zu, "
               "\"threads\": %" PRIu32 ", \"us\": %.3f, \"limit\": \"%s\", \"percent\": %.2f, \"phase\": \"%s\", "
               "\"tokens_per_second\": %.2f}\n",
               tokens, threads, seconds_per_token * (double)tokens * 1e6, limit, percent, phase, 1 / seconds_per_token);
        fflush(stdout);
        return;
    }
    table_cell(table, "%s", phase);
    table_cell(table, "%zu", tokens);
    table_cell(table, "%.1f", 1 / seconds_per_token);
    table_cell(table, "%.2f", seconds_per_token * (double)tokens * 1e3);
    table_cell(table, "%.1f %% of %s", percent, limit);
}

/* Seconds per token of a prompt: the best of at least three passes. */
static double best_prompt(mantle_session *session, const mantle_token *ids, size_t tokens)
{
    const int32_t sequence = 0;
    const size_t offsets[2] = {0, tokens};
    double best = 0, end = seconds() + (double)milliseconds * 1e-3;
    for (int pass = 0; pass < 4 || seconds() < end; pass++) {
        CHECK(mantle_sequence_truncate(session, sequence, 0, &error));
        double start = seconds();
        CHECK(mantle_forward(session, &sequence, ids, offsets, 1, MANTLE_LOGITS_LAST, NULL, &error));
        double took = seconds() - start;
        /* The first pass warms up. */
        best = pass == 1 || (pass > 1 && took < best) ? took : best;
    }
    return best / (double)tokens;
}

/* Seconds per generated token after a short prompt: the best of at least three answers. */
static double best_generation(mantle_session *session, const mantle_tokenizer *tokenizer, const mantle_token *ids)
{
    enum { PROMPT = 12 };
    mantle_generate_options generate_options;
    CHECK(mantle_generate_options_init(&generate_options, sizeof generate_options, &error));
    generate_options.max_tokens = (uint32_t)generated;
    generate_options.flags = MANTLE_GENERATE_IGNORE_END;
    double best = 0, end = seconds() + (double)milliseconds * 1e-3;
    for (int answer = 0; answer < 3 || seconds() < end; answer++) {
        mantle_generation result = {.struct_size = sizeof result};
        CHECK(mantle_sequence_truncate(session, 0, 0, &error));
        CHECK(mantle_generate(session, tokenizer, 0, ids, PROMPT, &generate_options, NULL, NULL, NULL, &result, &error));
        double took = result.passes ? (double)result.generation_nanoseconds * 1e-9 / (double)result.passes : 0;
        best = answer == 0 || took < best ? took : best;
    }
    return best;
}

static void bench_model(mantle_runtime *runtime, uint32_t threads)
{
    mantle_model *model = NULL;
    mantle_session *session = NULL;
    const mantle_tokenizer *tokenizer = NULL;
    mantle_model_info info = {.struct_size = sizeof info};
    mantle_session_options session_options;
    struct model_work work;
    CHECK(mantle_model_open(runtime, model_path, strlen(model_path), NULL, &model, &error));
    CHECK(mantle_model_get_info(model, &info, &error));
    CHECK(mantle_model_tokenizer(model, &tokenizer, &error));
    CHECK(model_work(model, &work, &error));
    long longest = 12 + generated;
    for (size_t i = 0; i < prompts.count; i++) {
        longest = prompts.values[i] > longest ? prompts.values[i] : longest;
    }
    CHECK(mantle_session_options_init(&session_options, sizeof session_options, &error));
    session_options.max_context = (uint32_t)longest;
    CHECK(mantle_session_new(model, &session_options, NULL, &session, &error));
    mantle_token *ids = allocate((size_t)longest, sizeof *ids);
    for (long i = 0; i < longest; i++) {
        ids[i] = (mantle_token)((uint32_t)i * 7919u % info.vocabulary);
    }
    struct limits limits = measure_limits(threads);
    struct table table = {.alignment = "<>>><"};
    table_cell(&table, "");
    table_cell(&table, "tokens");
    table_cell(&table, "tokens/s");
    table_cell(&table, "ms");
    table_cell(&table, "reached");
    for (size_t i = 0; i < prompts.count; i++) {
        double time = best_prompt(session, ids, (size_t)prompts.values[i]);
        double percent = 100 * 2 * work.multiply_adds / time / limits.vnni;
        print_model(&table, "prompt", (size_t)prompts.values[i], threads, time, "vnni", percent);
    }
    if (generated > 1) {
        double time = best_generation(session, tokenizer, ids);
        print_model(&table, "generation", (size_t)generated, threads, time, "dram", 100 * work.bytes / time / limits.dram);
    }
    if (!as_json) {
        printf("%s, %" PRIu32 " threads; vnni %.0f Gop/s; dram %.1f GB/s; %.1f MB of weights and %.1f million "
               "multiply-adds per token\n", model_path, threads, limits.vnni / 1e9, limits.dram / 1e9, work.bytes / 1e6,
               work.multiply_adds / 1e6);
        table_print(&table, stdout, 0);
    }
    free(ids);
    mantle_session_free(session);
    mantle_model_free(model);
}

/* ---- */

/* Runs a command once, with `wanted` threads (0: as many as the library chooses). */
static void run(const char *command, long wanted)
{
    mantle_runtime *runtime = NULL;
    mantle_runtime_options runtime_options;
    mantle_runtime_info info = {.struct_size = sizeof info};
    CHECK(mantle_runtime_options_init(&runtime_options, sizeof runtime_options, &error));
    if (wanted > 0) {
        runtime_options.threads = (uint32_t)wanted;
    }
    CHECK(mantle_runtime_new(&runtime_options, &runtime, &error));
    CHECK(mantle_runtime_get_info(runtime, &info, &error));
    if (strcmp(command, "limits") == 0) {
        bench_limits(info.threads);
    } else if (strcmp(command, "model") == 0) {
        bench_model(runtime, info.threads);
    } else {
        bench_matrices(runtime, info.threads, strcmp(command, "matvec") == 0);
    }
    mantle_runtime_free(runtime);
}

int main(int argc, char **argv)
{
    static const char *const commands[] = {"limits", "matvec", "matmul", "model"};
    const char *command = NULL;
    bool known = false;
    if (parse_options(&program, argc, argv, &command) == 0) {
        usage_error(&program, "the command is missing: limits, matvec, matmul or model");
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        known = known || strcmp(command, commands[i]) == 0;
    }
    if (!known) {
        usage_error(&program, "'%s' is no command: expected limits, matvec, matmul or model", command);
    }
    if (strcmp(command, "model") == 0 && !model_path) {
        usage_error(&program, "model needs -m FILE");
    }
    if (where && strcmp(where, "cache") != 0 && strcmp(where, "dram") != 0 && strcmp(where, "both") != 0) {
        usage_error(&program, "--where takes cache, dram or both, not '%s'", where);
    }
    check_types();
    if (threads_list.count == 0) {
        run(command, 0);
    }
    for (size_t i = 0; i < threads_list.count; i++) {
        run(command, threads_list.values[i]);
    }
    return finish(&program, EXIT_SUCCESS);
}
