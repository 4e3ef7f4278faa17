/* Times one product of square f32 matrices, C = A * B^T, by libmantle, OpenBLAS or the Rust crate gemm. */
#define _POSIX_C_SOURCE 199309L
#include <mantle.h>
#include <stdint.h>
#include <time.h>

enum { MANTLE, OPENBLAS, CRATE };

typedef void (*cblas_sgemm_fn)(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t, const float *,
                               int64_t, float, float *, int64_t);
typedef void (*crate_sgemm_fn)(size_t, const float *, const float *, float *, size_t);
typedef mantle_status (*mantle_matmul_fn)(const mantle_runtime *, const void *, size_t, const void *, size_t, size_t,
                                          size_t, size_t, const mantle_gemm_options *, float *, size_t, mantle_error **);

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* For mantle_runtime_options_init. */
size_t options_size(void)
{
    return sizeof(mantle_runtime_options);
}

/* Seconds of the fastest of the products that fit into `budget` seconds. `runtime` is libmantle's. */
double best_time(int engine, void *function, const void *runtime, size_t n, const float *a, const float *b, float *c,
                 size_t threads, double budget)
{
    const int row_major = 101, plain = 111, transposed = 112;
    const int64_t size = (int64_t)n;
    double best = 1e9, end = now() + budget;
    do {
        double start = now();
        if (engine == MANTLE) {
            ((mantle_matmul_fn)function)(runtime, a, n, b, n, n, n, n, 0, c, n, 0);
        } else if (engine == OPENBLAS) {
            ((cblas_sgemm_fn)function)(row_major, plain, transposed, size, size, size, 1, a, size, b, size, 0, c, size);
        } else {
            ((crate_sgemm_fn)function)(n, a, b, c, threads);
        }
        double time = now() - start;
        best = time < best ? time : best;
    } while (now() < end);
    return best;
}
