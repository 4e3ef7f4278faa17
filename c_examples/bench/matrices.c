/* mantle-bench matvec and matmul: products with matrices of weights of every type. */
#include "bench.h"

#include <ctype.h>

/* No number of a type lies beyond. */
enum { TYPE_NUMBERS = 4096 };

static bool is_type(mantle_dtype dtype)
{
    return strcmp(mantle_dtype_name(dtype), "UNKNOWN") != 0;
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

bool types_are_named(void)
{
    return settings.type_names != NULL;
}

/* Whether the user asks for a type: each is named, or none is. */
static bool wants_type(mantle_dtype dtype)
{
    for (const char *word = settings.type_names; word; word = next_word(word)) {
        if (is_name(word, dtype)) {
            return true;
        }
    }
    return !types_are_named();
}

mantle_dtype next_type(mantle_dtype previous)
{
    for (mantle_dtype dtype = previous + 1; dtype < TYPE_NUMBERS; dtype++) {
        if (is_type(dtype) && wants_type(dtype)) {
            return dtype;
        }
    }
    return -1;
}

void check_types(void)
{
    for (const char *word = settings.type_names; word; word = next_word(word)) {
        bool known = false;
        for (mantle_dtype dtype = 0; dtype < TYPE_NUMBERS; dtype++) {
            known = known || (is_type(dtype) && is_name(word, dtype));
        }
        if (!known) {
            usage_error(&program, "--types: '%.*s' is no weight type (known are f32, f16, bf16, q8_0, q4_0, q4_k, ...)",
                        (int)strcspn(word, ","), word);
        }
    }
}

size_t read_shapes(const char *text, struct shape shapes[MAX_SHAPES])
{
    size_t count = 0;
    text = settings.shape_names ? settings.shape_names : text;
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

struct list tokens_or(struct list list)
{
    return settings.tokens.count > 0 ? settings.tokens : list;
}

/* Weights as a file holds them. A few rows are made and repeated: the speed does not depend on the values. */
static void *make_weights(mantle_runtime *runtime, mantle_dtype dtype, struct shape shape, size_t row)
{
    enum { DISTINCT = 16 };
    size_t rows = shape.rows < DISTINCT ? shape.rows : DISTINCT;
    float *values = random_values(rows * shape.columns);
    unsigned char *data = allocate(shape.rows, row);
    mantle_error *error = NULL;
    mantle_status status = mantle_quantize_rows(runtime, dtype, values, rows, shape.columns, shape.columns, data,
                                                rows * row, &error);
    if (status == MANTLE_ERROR_UNSUPPORTED) {
        /* No encoder: any codes, with the bits clear that would make a scale infinite, negative or no number. */
        uint32_t random = 1;
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

bool open_job(struct job *job, mantle_runtime *runtime, mantle_dtype dtype, struct shape shape, size_t tokens, bool in_dram)
{
    size_t row = 0;
    mantle_error *error = NULL;
    mantle_status status = mantle_row_bytes(dtype, shape.columns, &row, &error);
    if (status != MANTLE_OK) {
        if (types_are_named()) {
            exit(report(&program, status, error));
        }
        mantle_error_free(error);
        return false;
    }
    /* Four times the last-level cache at least. */
    size_t bytes = row * shape.rows, wanted = dram_bytes() / 4;
    wanted = wanted < ((size_t)256 << 20) ? (size_t)256 << 20 : wanted;
    *job = (struct job){.runtime = runtime, .dtype = dtype, .bytes = bytes, .shape = shape, .tokens = tokens};
    size_t copies = in_dram ? (wanted + bytes - 1) / bytes : 1;
    void *weights = make_weights(runtime, dtype, shape, row);
    job->copies = allocate(copies, sizeof *job->copies);
    for (; job->n_copies < copies; job->n_copies++) {
        status = mantle_matrix_new(runtime, dtype, weights, bytes, shape.rows, shape.columns, &job->copies[job->n_copies], &error);
        if (status == MANTLE_ERROR_UNSUPPORTED && !types_are_named()) {
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
    job->x = random_values(tokens * shape.columns);
    job->y = allocate(tokens * shape.rows, sizeof *job->y);
    return true;
}

void close_job(struct job *job)
{
    for (size_t i = 0; i < job->n_copies; i++) {
        mantle_matrix_free(job->copies[i]);
    }
    free(job->copies);
    free(job->x);
    free(job->y);
}

void run_job(void *state, size_t count)
{
    struct job *job = state;
    for (size_t i = 0; i < count; i++) {
        CHECK(mantle_matmul(job->runtime, job->copies[job->next], job->x, job->tokens, job->shape.columns, job->y,
                            job->shape.rows, &error));
        job->next = (job->next + 1) % job->n_copies;
    }
}

struct figure job_figure(const char *bench, const struct job *job, bool in_dram, double seconds)
{
    enum kind kind = OF_VNNI;
    if (job->tokens == 1 && strcmp(bench, "matvec") == 0) {
        kind = in_dram ? OF_READ : OF_CACHE;
    } else if (job->dtype == MANTLE_DTYPE_BF16) {
        kind = OF_BF16;
    } else if (job->dtype == MANTLE_DTYPE_F32 || job->dtype == MANTLE_DTYPE_F16) {
        kind = OF_FMA;
    }
    return (struct figure){
        .bench = bench,
        .where = in_dram ? "dram" : "cache",
        .dtype = job->dtype,
        .rows = job->shape.rows,
        .columns = job->shape.columns,
        .tokens = job->tokens,
        .seconds = seconds,
        .operations = 2.0 * (double)job->shape.rows * (double)job->shape.columns * (double)job->tokens,
        .bytes = (double)job->bytes,
        .kind = kind,
    };
}

static void bench_products(mantle_runtime *runtime, uint32_t threads, const char *bench, struct list tokens, bool in_cache,
                           bool in_dram)
{
    struct shape shapes[MAX_SHAPES];
    size_t n_shapes = read_shapes("768x768,1536x576,2048x2048,4096x4096", shapes);
    struct results results;
    results_begin(&results, threads);
    for (mantle_dtype dtype = next_type(-1); dtype >= 0; dtype = next_type(dtype)) {
        for (size_t s = 0; s < n_shapes; s++) {
            for (size_t t = 0; t < tokens.count; t++) {
                for (int dram = !in_cache; dram <= in_dram; dram++) {
                    struct job job;
                    if (open_job(&job, runtime, dtype, shapes[s], (size_t)tokens.values[t], dram)) {
                        results_add(&results, job_figure(bench, &job, dram, best_time(run_job, &job)));
                        close_job(&job);
                    }
                }
            }
        }
        results_flush(&results);
    }
    results_end(&results);
}

static bool wants(const char *where, bool otherwise)
{
    return settings.where ? strcmp(settings.where, "both") == 0 || strcmp(settings.where, where) == 0 : otherwise;
}

void bench_matvec(mantle_runtime *runtime, uint32_t threads)
{
    bench_products(runtime, threads, "matvec", (struct list){{1}, 1}, wants("cache", true), wants("dram", true));
}

void bench_matmul(mantle_runtime *runtime, uint32_t threads)
{
    bench_products(runtime, threads, "matmul", tokens_or((struct list){{6, 32, 256}, 3}), wants("cache", true),
                   wants("dram", false));
}
