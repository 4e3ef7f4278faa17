/*
 * mantle-bench crossover: weights decoded in registers for every few tokens, or once in the cache for many. Both are timed,
 * in turns, on the same matrix; the library should take the faster.
 */
#include "bench.h"

enum { REGISTERS, CACHE, WAYS };

/* A multiplication by one of the strategies. */
struct way {
    struct job *job;
    int32_t strategy;
};

static void run_way(void *state, size_t count)
{
    struct way *way = state;
    CHECK(mantle_matrix_set_strategy(way->job->copies[0], way->strategy, &error));
    run_job(way->job, count);
}

/* How often the library took the faster way, or one within three percent, which is noise. */
struct score {
    size_t right, all;
    double worst; /* the most time that the wrong way cost, as a ratio */
};

static void give(struct table *table, const struct job *job, uint32_t threads, const double times[WAYS], int taken)
{
    static const char *const names[WAYS] = {"registers", "cache"};
    int faster = times[CACHE] < times[REGISTERS] ? CACHE : REGISTERS;
    double percent = 100 * times[faster] / times[taken];
    if (settings.as_json) {
        printf("{\"bench\": \"crossover\", \"type\": \"%s\", \"rows\": %zu, \"cols\": %zu, \"tokens\": %zu, "
               "\"threads\": %" PRIu32 ", \"us\": %.3f, \"limit\": \"faster\", \"percent\": %.2f, \"us_registers\": %.3f, "
               "\"us_cache\": %.3f, \"taken\": \"%s\", \"faster\": \"%s\"}\n",
               mantle_dtype_name(job->dtype), job->shape.rows, job->shape.columns, job->tokens, threads, times[taken] * 1e6,
               percent, times[REGISTERS] * 1e6, times[CACHE] * 1e6, names[taken], names[faster]);
        fflush(stdout);
        return;
    }
    table_cell(table, "%s", mantle_dtype_name(job->dtype));
    table_cell(table, "%zux%zu", job->shape.rows, job->shape.columns);
    table_cell(table, "%zu", job->tokens);
    table_cell(table, "%.2f", times[REGISTERS] * 1e6);
    table_cell(table, "%.2f", times[CACHE] * 1e6);
    table_cell(table, "%s", names[taken]);
    table_cell(table, "%.1f %% of faster", percent);
}

static void compare(struct table *table, mantle_runtime *runtime, uint32_t threads, mantle_dtype dtype, struct shape shape,
                    size_t tokens, struct score *score)
{
    struct job job;
    int32_t strategy = MANTLE_STRATEGY_NONE;
    if (!open_job(&job, runtime, dtype, shape, tokens, false)) {
        return;
    }
    CHECK(mantle_matrix_strategy(runtime, job.copies[0], tokens, &strategy, &error));
    if (strategy != MANTLE_STRATEGY_NONE) {
        struct way ways[WAYS] = {{&job, MANTLE_STRATEGY_IN_REGISTERS}, {&job, MANTLE_STRATEGY_IN_CACHE}};
        const struct work works[WAYS] = {{run_way, &ways[0]}, {run_way, &ways[1]}};
        double times[WAYS];
        int taken = strategy == MANTLE_STRATEGY_IN_CACHE ? CACHE : REGISTERS;
        best_times(works, times, WAYS);
        double ratio = times[taken] / times[!taken];
        score->all++;
        score->right += ratio <= 1.03;
        score->worst = ratio > score->worst ? ratio : score->worst;
        give(table, &job, threads, times, taken);
    } else if (types_are_named()) {
        fprintf(stderr, "%s: %s has nothing to decode\n", program.name, mantle_dtype_name(dtype));
    }
    close_job(&job);
}

void bench_crossover(mantle_runtime *runtime, uint32_t threads)
{
    static const char *const headings[] = {"type", "shape", "tokens", "us in registers", "us in cache", "taken", "reached"};
    const struct list range = tokens_or((struct list){{1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96}, 12});
    struct shape shapes[MAX_SHAPES];
    size_t n_shapes = read_shapes("768x768", shapes);
    struct table table = {.alignment = "<<>>><<"};
    struct score score = {0};
    for (size_t i = 0; i < sizeof headings / sizeof *headings; i++) {
        table_cell(&table, "%s", headings[i]);
    }
    for (mantle_dtype dtype = next_type(-1); dtype >= 0; dtype = next_type(dtype)) {
        for (size_t s = 0; s < n_shapes; s++) {
            for (size_t t = 0; t < range.count; t++) {
                compare(&table, runtime, threads, dtype, shapes[s], (size_t)range.values[t], &score);
            }
        }
        if (!settings.shape_names && settings.tokens.count == 0) {
            /* Types in blocks of 256 do not fit the first of these. */
            struct shape square = {128, 128};
            size_t row = 0;
            if (mantle_row_bytes(dtype, square.columns, &row, NULL) == MANTLE_OK) {
                compare(&table, runtime, threads, dtype, square, 128, &score);
            }
            compare(&table, runtime, threads, dtype, (struct shape){2048, 2048}, 1, &score);
        }
    }
    if (!settings.as_json) {
        table_print(&table, stdout, 0);
        printf("the library takes the faster way, or one within 3 %%, in %zu of %zu cases; at worst it takes %.2f times as "
               "long as the other\n", score.right, score.all, score.worst);
    }
}
