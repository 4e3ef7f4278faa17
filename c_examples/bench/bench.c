#include "bench.h"

void *allocate(size_t count, size_t size)
{
    void *memory = count <= (size_t)-1 / size ? malloc(count * size) : NULL;
    if (!memory) {
        exit(fail(&program, "no memory for %zu values of %zu bytes", count, size));
    }
    return memory;
}

float next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

float *random_values(size_t count)
{
    float *values = allocate(count, sizeof *values);
    uint32_t state = 2;
    for (size_t i = 0; i < count; i++) {
        values[i] = next_random(&state);
    }
    return values;
}

/* ---- limits ---- */

/* Short where figures are to be short, too. */
static uint32_t limit_milliseconds(void)
{
    long time = settings.milliseconds;
    return (uint32_t)(time < 20 ? 20 : time > 200 ? 200 : time);
}

double measure(int32_t limit, uint32_t threads, size_t bytes_per_thread)
{
    double rate = 0;
    CHECK(mantle_measure_limit(limit, threads, bytes_per_thread, limit_milliseconds(), &rate, &error));
    return rate;
}

size_t dram_bytes(void)
{
    size_t bytes = 16 * mantle_last_level_cache(), least = (size_t)256 << 20, most = (size_t)1 << 30;
    return bytes < least ? least : bytes > most ? most : bytes;
}

static void improve(double *best, double rate)
{
    *best = rate > *best ? rate : *best;
}

void improve_limits(struct limits *limits)
{
    improve(&limits->vnni, measure(MANTLE_LIMIT_INTEGER_DOT, limits->threads, 0));
    improve(&limits->fma, measure(MANTLE_LIMIT_FUSED_MULTIPLY_ADD, limits->threads, 0));
    improve(&limits->bf16, measure(MANTLE_LIMIT_BF16_DOT, limits->threads, 0));
    improve(&limits->dram, measure(MANTLE_LIMIT_READ, limits->threads, dram_bytes() / limits->threads));
}

struct limits measure_limits(uint32_t threads)
{
    struct limits limits = {.threads = threads};
    improve_limits(&limits);
    return limits;
}

void print_limits(const struct limits *limits)
{
    printf("%" PRIu32 " threads; vnni %.0f, fma %.0f, bf16 %.0f Gop/s; dram %.1f GB/s\n", limits->threads, limits->vnni / 1e9,
           limits->fma / 1e9, limits->bf16 / 1e9, limits->dram / 1e9);
}

/* ---- timing ---- */

static double series(const struct work *work, size_t count)
{
    double start = seconds();
    work->run(work->state, count);
    return (seconds() - start) / (double)count;
}

/* Fills `times` with the best of at least one series, and `counts` with how many runs take a third of a millisecond: then
 * reading the clock costs nothing, and a series often fits between two disturbances. */
static void warm_up(const struct work *works, double *times, size_t *counts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        counts[i] = 1;
        series(&works[i], 1);
        while ((times[i] = series(&works[i], counts[i])) * (double)counts[i] < 3e-4 && counts[i] < 1u << 20) {
            counts[i] *= 2;
        }
    }
}

void best_times(const struct work *works, double *times, size_t n)
{
    enum { MOST = 4 };
    size_t counts[MOST];
    n = n > MOST ? MOST : n;
    double end = seconds() + (double)settings.milliseconds * 1e-3 * (double)n;
    warm_up(works, times, counts, n);
    do {
        for (size_t i = 0; i < n; i++) {
            double once = series(&works[i], counts[i]);
            times[i] = once < times[i] ? once : times[i];
        }
    } while (seconds() < end);
}

double best_time(void (*run)(void *state, size_t count), void *state)
{
    double time;
    best_times(&(struct work){run, state}, &time, 1);
    return time;
}

/* ---- results ---- */

void results_begin(struct results *results, uint32_t threads)
{
    static const char *const headings[] = {"bench", "what", "shape", "tokens", "where", "us", "Gop/s", "GB/s", "reached"};
    results->limits = measure_limits(threads);
    results->table = (struct table){.alignment = "<<>>>>>><"};
    results->n_pending = 0;
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++) {
        table_cell(&results->table, "%s", headings[i]);
    }
}

void results_add(struct results *results, struct figure figure)
{
    if (figure.kind == OF_CACHE) {
        uint32_t threads = results->limits.threads;
        figure.limit = measure(MANTLE_LIMIT_READ, threads, (size_t)figure.bytes / threads + 1);
    }
    results->pending[results->n_pending++] = figure;
    if (results->n_pending == sizeof results->pending / sizeof *results->pending) {
        results_flush(results);
    }
}

/* Percent of its limit that a figure reaches, and the limit's name. */
static double reached(const struct figure *figure, const struct limits *limits, const char **name)
{
    double read = figure->bytes / figure->seconds, computed = figure->operations / figure->seconds;
    switch (figure->kind) {
    case OF_READ:
        *name = "dram";
        return 100 * read / limits->dram;
    case OF_CACHE:
        *name = "cache";
        return 100 * read / figure->limit;
    case OF_VNNI:
        *name = "vnni";
        return 100 * computed / limits->vnni;
    case OF_BF16:
        *name = limits->bf16 > 0 ? "bf16" : "fma";
        return 100 * computed / (limits->bf16 > 0 ? limits->bf16 : limits->fma);
    case OF_TARGET:
        *name = "target";
        return 100 * figure->limit / figure->seconds;
    case OF_FMA:
    default:
        *name = "fma";
        return 100 * computed / limits->fma;
    }
}

static void give_json(const struct figure *figure, const struct limits *limits, const char *limit, double percent)
{
    printf("{\"bench\": \"%s\", \"type\": ", figure->bench);
    printf(figure->dtype >= 0 ? "\"%s\"" : "null", mantle_dtype_name(figure->dtype));
    printf(", \"rows\": %zu, \"cols\": %zu, \"tokens\": %zu, \"threads\": %" PRIu32 ", \"us\": %.3f, \"limit\": \"%s\", "
           "\"percent\": %.2f, \"gops\": %.2f, \"gbps\": %.3f, \"operations\": %.0f, \"bytes\": %.0f",
           figure->rows, figure->columns, figure->tokens, limits->threads, figure->seconds * 1e6, limit, percent,
           figure->operations / figure->seconds / 1e9, figure->bytes / figure->seconds / 1e9, figure->operations, figure->bytes);
    if (figure->op) {
        printf(", \"op\": \"%s\"", figure->op);
    }
    if (figure->where) {
        printf(", \"where\": \"%s\"", figure->where);
    }
    puts("}");
}

static void give_row(struct table *table, const struct figure *figure, const char *limit, double percent)
{
    table_cell(table, "%s", figure->bench);
    const char *type = figure->dtype >= 0 ? mantle_dtype_name(figure->dtype) : "";
    table_cell(table, "%s%s%s", figure->op ? figure->op : "", figure->op && *type ? " " : "", type);
    table_cell(table, "%zux%zu", figure->rows, figure->columns);
    table_cell(table, "%zu", figure->tokens);
    table_cell(table, "%s", figure->where ? figure->where : "");
    table_cell(table, figure->seconds < 1e-5 ? "%.3f" : "%.1f", figure->seconds * 1e6);
    table_cell(table, "%.1f", figure->operations / figure->seconds / 1e9);
    table_cell(table, "%.2f", figure->bytes / figure->seconds / 1e9);
    table_cell(table, "%.1f %% of %s", percent, limit);
}

void results_flush(struct results *results)
{
    if (results->n_pending == 0) {
        return;
    }
    improve_limits(&results->limits);
    for (size_t i = 0; i < results->n_pending; i++) {
        const char *limit;
        double percent = reached(&results->pending[i], &results->limits, &limit);
        if (settings.as_json) {
            give_json(&results->pending[i], &results->limits, limit, percent);
        } else {
            give_row(&results->table, &results->pending[i], limit, percent);
        }
    }
    fflush(stdout);
    results->n_pending = 0;
}

void results_end(struct results *results)
{
    results_flush(results);
    if (!settings.as_json) {
        print_limits(&results->limits);
        table_print(&results->table, stdout, 0);
    }
}

static void give_profile_json(const mantle_profile *profile, const char *title, uint32_t threads)
{
    mantle_profile_info info = {.struct_size = sizeof info};
    CHECK(mantle_profile_get_info(profile, &info, &error));
    double calls = (double)info.calls, wall = (double)info.nanoseconds;
    for (int32_t op = 0; op < (int32_t)info.ops; op++) {
        for (int32_t layer = MANTLE_ALL_LAYERS; layer < (settings.by_layer ? (int32_t)info.layers : 0); layer++) {
            mantle_profile_entry entry = {.struct_size = sizeof entry};
            CHECK(mantle_profile_get_entry(profile, op, layer, &entry, &error));
            double time = (double)entry.nanoseconds;
            if (entry.calls > 0) {
                printf("{\"bench\": \"profile\", \"phase\": \"%s\", \"op\": \"%s\", \"layer\": %" PRId32 ", \"tokens\": %.0f, "
                       "\"threads\": %" PRIu32 ", \"calls\": %" PRIu64 ", \"us\": %.3f, \"percent\": %.3f, \"operations\": %" PRIu64
                       ", \"bytes\": %" PRIu64 "}\n",
                       title, mantle_op_name(op), layer, (double)info.tokens / calls, threads, entry.calls, time / calls / 1e3,
                       100 * time / wall, entry.operations, entry.bytes);
            }
        }
    }
}

void give_profile(const mantle_profile *profile, const char *title, uint32_t threads)
{
    if (settings.as_json) {
        give_profile_json(profile, title, threads);
        return;
    }
    printf("\nprofile: %s\n", title);
    CHECK(print_profile(stdout, profile, settings.by_layer, &error));
}
