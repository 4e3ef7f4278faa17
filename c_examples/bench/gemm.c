/* mantle-bench gemm: products of floats, both sides as they are (mantle_matmul_f32), or one side packed before (matrices). */
#include "bench.h"

/* rows x depth times (columns x depth) transposed. */
struct plain {
    mantle_runtime *runtime;
    size_t rows, columns, depth;
    void *a, *b;
    float *c;
    mantle_gemm_options options;
};

static void run_plain(void *state, size_t count)
{
    struct plain *p = state;
    for (size_t i = 0; i < count; i++) {
        CHECK(mantle_matmul_f32(p->runtime, p->a, p->depth, p->b, p->depth, p->rows, p->columns, p->depth, &p->options, p->c,
                                p->columns, &error));
    }
}

/* Random numbers of a type. */
static void *make_floats(mantle_runtime *runtime, mantle_dtype dtype, size_t rows, size_t columns, size_t *size)
{
    float *values = random_values(rows * columns);
    CHECK(mantle_row_bytes(dtype, columns, size, &error));
    *size *= rows;
    void *data = allocate(*size, 1);
    CHECK(mantle_quantize_rows(runtime, dtype, values, rows, columns, columns, data, *size, &error));
    free(values);
    return data;
}

static void bench_plain(struct results *results, mantle_runtime *runtime, mantle_dtype dtype, struct shape shape, size_t rows)
{
    struct plain plain = {.runtime = runtime, .rows = rows, .columns = shape.rows, .depth = shape.columns};
    size_t a_bytes = 0, b_bytes = 0;
    CHECK(mantle_gemm_options_init(&plain.options, sizeof plain.options, &error));
    plain.options.a_type = plain.options.b_type = dtype;
    plain.a = make_floats(runtime, dtype, rows, plain.depth, &a_bytes);
    plain.b = make_floats(runtime, dtype, plain.columns, plain.depth, &b_bytes);
    plain.c = allocate(rows * plain.columns, sizeof *plain.c);
    results_add(results, (struct figure){
        .bench = "gemm",
        .op = "matmul_f32",
        .where = "cache",
        .dtype = dtype,
        .rows = shape.rows,
        .columns = shape.columns,
        .tokens = rows,
        .seconds = best_time(run_plain, &plain),
        .operations = 2.0 * (double)rows * (double)plain.columns * (double)plain.depth,
        .bytes = (double)b_bytes,
        .kind = OF_FMA,
    });
    free(plain.a);
    free(plain.b);
    free(plain.c);
}

static void bench_packed(struct results *results, mantle_runtime *runtime, mantle_dtype dtype, struct shape shape, size_t rows)
{
    struct job job;
    if (open_job(&job, runtime, dtype, shape, rows, false)) {
        struct figure figure = job_figure("gemm", &job, false, best_time(run_job, &job));
        figure.op = "matrix";
        results_add(results, figure);
        close_job(&job);
    }
}

void bench_gemm(mantle_runtime *runtime, uint32_t threads)
{
    static const mantle_dtype dtypes[] = {MANTLE_DTYPE_F32, MANTLE_DTYPE_F16, MANTLE_DTYPE_BF16};
    struct shape shapes[MAX_SHAPES];
    size_t n_shapes = read_shapes("256x256,1024x1024,3072x768,4096x4096", shapes);
    struct results results;
    results_begin(&results, threads);
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        for (size_t s = 0; s < n_shapes; s++) {
            /* As many rows of the other side as this one has, which makes the first two cubes. */
            const struct list rows = tokens_or((struct list){{(long)(shapes[s].rows < 1024 ? shapes[s].rows : 1024)}, 1});
            for (size_t t = 0; t < rows.count; t++) {
                bench_plain(&results, runtime, dtypes[i], shapes[s], (size_t)rows.values[t]);
                bench_packed(&results, runtime, dtypes[i], shapes[s], (size_t)rows.values[t]);
            }
        }
        results_flush(&results);
    }
    results_end(&results);
}
