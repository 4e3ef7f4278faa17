/*
 * What the commands of mantle-bench share: settings, limits, timing, rows of results.
 *
 * Every figure stands beside a limit of the machine that is measured before and after it in the same run (the better of
 * the two counts), and is itself the best of many: other programs disturb as little as can be.
 */
#ifndef BENCH_H
#define BENCH_H

#include "../common.h"

#include <inttypes.h>
#include <mantle_experimental.h>
#include <stdlib.h>
#include <string.h>

extern const struct program program;

/* The command line. */
struct settings {
    const char *model_path, *type_names, *shape_names, *where;
    struct list threads, tokens, prompts;
    long milliseconds, generated;
    bool as_json, profile, by_layer;
};
extern struct settings settings;

/* Leaves the program when a call (written with `&error` last) fails: a benchmark has nothing to save. */
#define CHECK(call)                                   \
    do {                                              \
        mantle_error *error = NULL;                   \
        mantle_status status = (call);                \
        if (status != MANTLE_OK) {                    \
            exit(report(&program, status, error));    \
        }                                             \
    } while (0)

void *allocate(size_t count, size_t size);

/* Evenly spread numbers from -1 to 1, the same in every run. */
float next_random(uint32_t *state);
/* An array of them. */
float *random_values(size_t count);

/* ---- limits ---- */

/* The peaks for one number of threads: operations and bytes per second. */
struct limits {
    uint32_t threads;
    double vnni, fma, bf16, dram;
};

/* One limit, MANTLE_LIMIT_*. */
double measure(int32_t limit, uint32_t threads, size_t bytes_per_thread);
/* Sixteen times the last-level cache, 256 MiB to 1 GiB: next to nothing of a walk over it stays in the cache. */
size_t dram_bytes(void);
/* Measures all of them, and keeps what is better than in `limits`. */
void improve_limits(struct limits *limits);
struct limits measure_limits(uint32_t threads);
/* "2 threads; vnni 2026, ... Gop/s; dram 43.0 GB/s" */
void print_limits(const struct limits *limits);

/* ---- timing ---- */

/* Something to time: `run` does it `count` times in a row. */
struct work {
    void (*run)(void *state, size_t count);
    void *state;
};

/* Seconds of one run of each: the best of many short series, in turns, for the time that the user sets. */
void best_times(const struct work *works, double *times, size_t count);
double best_time(void (*run)(void *state, size_t count), void *state);

/* ---- results ---- */

enum kind { OF_READ, OF_CACHE, OF_VNNI, OF_FMA, OF_BF16, OF_TARGET };

/* One measured figure. */
struct figure {
    const char *bench, *op, *where; /* op and where may be NULL */
    mantle_dtype dtype;             /* below 0 for none */
    size_t rows, columns, tokens;
    double seconds, operations, bytes; /* of one run */
    enum kind kind;                    /* what limits it */
    double limit;                      /* OF_CACHE: bytes per second; OF_TARGET: seconds */
};

/* Rows of results of one command. */
struct results {
    struct limits limits;
    struct table table;
    struct figure pending[256];
    size_t n_pending;
};

void results_begin(struct results *results, uint32_t threads);
/* Adds a figure; for OF_CACHE, the reading of `bytes` from the cache is measured. */
void results_add(struct results *results, struct figure figure);
/* Measures the limits again and gives out what was added since; between the types of a long run. */
void results_flush(struct results *results);
void results_end(struct results *results);

/* The figures of a profile: the library's table, or JSON. `title` says what was profiled. */
void give_profile(const mantle_profile *profile, const char *title, uint32_t threads);

/* ---- types, shapes, matrices ---- */

struct shape {
    size_t rows, columns;
};
enum { MAX_SHAPES = 64 };

/* Reads --types; a mistake ends the program. */
void check_types(void);
/* The types that the user asks for, or all, in turn: the next one after `previous` (begin with -1), or below 0. */
mantle_dtype next_type(mantle_dtype previous);
/* Whether the user named types: then a type that cannot be multiplied is an error, otherwise it is left out. */
bool types_are_named(void);
/* The shapes that the user named, or those in `text`. */
size_t read_shapes(const char *text, struct shape shapes[MAX_SHAPES]);
/* The tokens that the user named, or those of the command. */
struct list tokens_or(struct list list);

/* Copies of one matrix, used in turn so that none is in the cache when its turn comes; and a multiplication. */
struct job {
    mantle_runtime *runtime;
    mantle_dtype dtype;
    mantle_matrix **copies;
    size_t n_copies, next, bytes;
    struct shape shape;
    size_t tokens;
    float *x, *y;
};

/* Makes the matrices; false for a type or a shape that the library does not multiply, when the user named no types. */
bool open_job(struct job *job, mantle_runtime *runtime, mantle_dtype dtype, struct shape shape, size_t tokens, bool in_dram);
void close_job(struct job *job);
/* For struct work. */
void run_job(void *job, size_t count);
/* Its figure, with what limits products of this type. */
struct figure job_figure(const char *bench, const struct job *job, bool in_dram, double seconds);

/* ---- commands ---- */

void bench_limits(uint32_t threads);
void bench_matvec(mantle_runtime *runtime, uint32_t threads);
void bench_matmul(mantle_runtime *runtime, uint32_t threads);
void bench_gemm(mantle_runtime *runtime, uint32_t threads);
void bench_crossover(mantle_runtime *runtime, uint32_t threads);
void bench_ops(mantle_runtime *runtime, uint32_t threads);
/* Its part for functions of vectors. */
void add_vectors(struct results *results, mantle_runtime *runtime);
void bench_model(mantle_runtime *runtime, uint32_t threads);
void bench_embed(mantle_runtime *runtime, uint32_t threads);

#endif
