/* The functions for benchmarks: bad arguments, every step, and both strategies of every type. */
#include "check.h"

#include <mantle_experimental.h>

enum { UNTOUCHED = 4711, BAD = MANTLE_ERROR_INVALID_ARGUMENT };

static mantle_runtime *runtime;

static void bad_arguments(void)
{
    const float values[32] = {0};
    mantle_matrix *matrix = NULL;
    mantle_step_shape shape;
    mantle_step_result result;
    double rate = UNTOUCHED;
    int32_t strategy = UNTOUCHED;
    memset(&shape, 0, sizeof shape);
    shape.struct_size = sizeof shape;
    result.struct_size = sizeof result;
    result.seconds = UNTOUCHED;
    GIVES(BAD, "rate is NULL", mantle_measure_limit(0, 1, 64, 1, NULL, error));
    GIVES(BAD, "9", mantle_measure_limit(9, 1, 64, 1, &rate, error));
    GIVES(BAD, "0 threads", mantle_measure_limit(0, 0, 64, 1, &rate, error));
    GIVES(BAD, "0 milliseconds", mantle_measure_limit(0, 1, 64, 0, &rate, error));
    CHECK(rate == UNTOUCHED);
    CHECK(mantle_last_level_cache() > 0);
    GIVES(BAD, "runtime is NULL", mantle_measure_step(NULL, 0, &shape, 1, &result, error));
    GIVES(BAD, "NULL", mantle_measure_step(runtime, 0, &shape, 1, NULL, error));
    GIVES(BAD, "step is 99", mantle_measure_step(runtime, 99, &shape, 1, &result, error));
    GIVES(BAD, "0 milliseconds", mantle_measure_step(runtime, 0, &shape, 0, &result, error));
    GIVES(BAD, "60001", mantle_measure_step(runtime, 0, &shape, 60001, &result, error));
    GIVES(BAD, "rows is 0", mantle_measure_step(runtime, MANTLE_STEP_QUANTIZE, &shape, 1, &result, error));
    shape.rows = 3;
    GIVES(BAD, "columns is 0", mantle_measure_step(runtime, MANTLE_STEP_QUANTIZE, &shape, 1, &result, error));
    GIVES(BAD, "heads is 0", mantle_measure_step(runtime, MANTLE_STEP_ATTENTION, &shape, 1, &result, error));
    shape.heads = 3;
    shape.kv_heads = 2;
    shape.head_dim = 4;
    GIVES(BAD, "3 heads", mantle_measure_step(runtime, MANTLE_STEP_CACHED_ATTENTION, &shape, 1, &result, error));
    CHECK(result.seconds == UNTOUCHED);
    SUCCEEDS(mantle_measure_step(runtime, MANTLE_STEP_FORK_JOIN, NULL, 1, &result, error));
    CHECK(result.seconds > 0);
    SUCCEEDS(mantle_matrix_new(runtime, MANTLE_DTYPE_F32, values, sizeof values, 1, 32, &matrix, error));
    GIVES(BAD, "matrix is NULL", mantle_matrix_set_strategy(NULL, 0, error));
    GIVES(BAD, "strategy is 3", mantle_matrix_set_strategy(matrix, MANTLE_STRATEGY_NONE, error));
    GIVES(BAD, "runtime is NULL", mantle_matrix_strategy(NULL, matrix, 1, &strategy, error));
    GIVES(BAD, "matrix is NULL", mantle_matrix_strategy(runtime, NULL, 1, &strategy, error));
    GIVES(BAD, "strategy is NULL", mantle_matrix_strategy(runtime, matrix, 1, NULL, error));
    CHECK(strategy == UNTOUCHED);
    SUCCEEDS(mantle_matrix_strategy(runtime, matrix, 1, &strategy, error));
    CHECK(strategy == MANTLE_STRATEGY_NONE);
    mantle_matrix_free(matrix);
}

static void steps(void)
{
    mantle_step_shape shape;
    mantle_step_result result;
    memset(&shape, 0, sizeof shape);
    shape.struct_size = sizeof shape;
    result.struct_size = sizeof result;
    shape.rows = 3;
    shape.columns = 70;
    shape.heads = 4;
    shape.kv_heads = 2;
    shape.head_dim = 20;
    shape.working_set = 100000;
    for (int32_t step = MANTLE_STEP_FORK_JOIN; step <= MANTLE_STEP_CACHED_ATTENTION; step++) {
        result.seconds = 0;
        SUCCEEDS(mantle_measure_step(runtime, step, &shape, 2, &result, error));
        CHECK(result.seconds > 0);
        CHECK((result.operations > 0) == (step != MANTLE_STEP_FORK_JOIN));
    }
    CHECK(result.operations == 4u * (68 + 69 + 70) * 4 * 20);
}

/* The way that is set is the way that is told, and the results do not change. */
static void strategies(void)
{
    enum { ROWS = 24, COLUMNS = 64, TOKENS = 5 };
    static const int32_t ways[] = {MANTLE_STRATEGY_IN_REGISTERS, MANTLE_STRATEGY_IN_CACHE, MANTLE_STRATEGY_FASTEST};
    float values[ROWS * COLUMNS], x[TOKENS * COLUMNS], first[TOKENS * ROWS], y[TOKENS * ROWS];
    unsigned char data[ROWS * COLUMNS];
    size_t bytes = 0;
    mantle_matrix *matrix = NULL;
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        values[i] = (float)(i * 37 % 101 - 50) / 50.0f;
    }
    for (int i = 0; i < TOKENS * COLUMNS; i++) {
        x[i] = (float)(i * 53 % 97 - 48) / 48.0f;
    }
    SUCCEEDS(mantle_row_bytes(MANTLE_DTYPE_Q4_0, COLUMNS, &bytes, error));
    SUCCEEDS(mantle_quantize_rows(runtime, MANTLE_DTYPE_Q4_0, values, ROWS, COLUMNS, COLUMNS, data, ROWS * bytes, error));
    SUCCEEDS(mantle_matrix_new(runtime, MANTLE_DTYPE_Q4_0, data, ROWS * bytes, ROWS, COLUMNS, &matrix, error));
    SUCCEEDS(mantle_matmul(runtime, matrix, x, TOKENS, COLUMNS, first, ROWS, error));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        int32_t told = UNTOUCHED;
        SUCCEEDS(mantle_matrix_set_strategy(matrix, ways[i], error));
        SUCCEEDS(mantle_matrix_strategy(runtime, matrix, TOKENS, &told, error));
        CHECK(ways[i] == MANTLE_STRATEGY_FASTEST ? told == MANTLE_STRATEGY_IN_REGISTERS || told == MANTLE_STRATEGY_IN_CACHE
                                                 : told == ways[i]);
        memset(y, 0, sizeof y);
        SUCCEEDS(mantle_matmul(runtime, matrix, x, TOKENS, COLUMNS, y, ROWS, error));
        CHECK(memcmp(first, y, sizeof y) == 0);
    }
    mantle_matrix_free(matrix);
}

int main(void)
{
    mantle_runtime_options options;
    SUCCEEDS(mantle_runtime_options_init(&options, sizeof options, error));
    options.threads = 2;
    SUCCEEDS(mantle_runtime_new(&options, &runtime, error));
    bad_arguments();
    steps();
    strategies();
    mantle_runtime_free(runtime);
    return check_result();
}
