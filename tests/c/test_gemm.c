/*
 * mantle_matmul_f32 against products in double, with every option, and what is refused; quantized activations against
 * the bounds of their forms.
 */
#include "numbers.h"
#include <mantle_experimental.h>

static mantle_runtime *one, *two;

/* Rows of random values as `dtype`; `values` gets what they stand for. */
static void *stored(mantle_dtype dtype, size_t rows, size_t stride, float **values)
{
    size_t row = 0;
    *values = random_numbers(rows * stride, 2);
    SUCCEEDS(mantle_row_bytes(dtype, stride, &row, error));
    void *data = malloc(rows * row + 1);
    REQUIRE(data != NULL);
    SUCCEEDS(mantle_quantize_rows(one, dtype, *values, rows, stride, stride, data, rows * row, error));
    SUCCEEDS(mantle_dequantize_rows(one, dtype, data, rows * row, rows, stride, *values, stride, error));
    return data;
}

static void product(size_t rows, size_t columns, size_t depth)
{
    static const mantle_dtype types[] = {MANTLE_DTYPE_F32, MANTLE_DTYPE_F16, MANTLE_DTYPE_BF16};
    int by_input = (int)random_within(0, 1);
    size_t b_rows = by_input ? depth : columns, b_columns = by_input ? columns : depth;
    size_t a_stride = depth + random_within(0, 4), b_stride = b_columns + random_within(0, 4);
    size_t c_stride = columns + random_within(0, 4);
    mantle_gemm_options options;
    float *a_values, *b_values;
    SUCCEEDS(mantle_gemm_options_init(&options, sizeof options, error));
    options.a_type = types[random_within(0, 2)];
    options.b_type = types[random_within(0, 2)];
    void *a = stored(options.a_type, rows, a_stride, &a_values);
    void *b = stored(options.b_type, b_rows, b_stride, &b_values);
    float *bias = random_numbers(columns, 3), *before = random_numbers(rows * c_stride, 2);
    float *c = random_numbers(rows * c_stride, 0), *d = random_numbers(rows * c_stride, 0);
    options.flags = by_input ? MANTLE_GEMM_B_BY_INPUT : 0;
    options.alpha = random_within(0, 1) ? 1 : -0.75f;
    options.beta = random_within(0, 1) ? 0 : 1.5f;
    options.bias = random_within(0, 1) ? bias : NULL;
    memcpy(c, before, rows * c_stride * sizeof *c);
    memcpy(d, before, rows * c_stride * sizeof *c);
    SUCCEEDS(mantle_matmul_f32(one, a, a_stride, b, b_stride, rows, columns, depth, &options, c, c_stride, error));
    SUCCEEDS(mantle_matmul_f32(two, a, a_stride, b, b_stride, rows, columns, depth, &options, d, c_stride, error));
    CHECK(memcmp(c, d, rows * c_stride * sizeof *c) == 0);
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < columns; j++) {
            double sum = options.beta * before[i * c_stride + j], sizes = fabs(sum);
            sum += options.bias ? bias[j] : 0;
            sizes += fabs(bias[j]);
            for (size_t k = 0; k < depth; k++) {
                double term = options.alpha * a_values[i * a_stride + k];
                term *= b_values[by_input ? k * b_stride + j : j * b_stride + k];
                sum += term;
                sizes += fabs(term);
            }
            CHECK(is_near(c[i * c_stride + j], sum, 0, sizes * 6e-8 * (3 + sqrt((double)depth))));
        }
        for (size_t j = columns; j < c_stride; j++) {
            CHECK(c[i * c_stride + j] == before[i * c_stride + j]);
        }
    }
    free(a);
    free(b);
    free(a_values);
    free(b_values);
    free(bias);
    free(before);
    free(c);
    free(d);
}

/* The defaults, C that holds anything, and weights in the kernels' layout: one chain of bits. */
static void agreement(void)
{
    enum { ROWS = 7, COLUMNS = 37, DEPTH = 93 };
    float *a = random_numbers(ROWS * DEPTH, 1), *b = random_numbers(COLUMNS * DEPTH, 1), c[ROWS * COLUMNS], d[ROWS * COLUMNS];
    mantle_matrix *matrix = NULL;
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        c[i] = NAN;
    }
    SUCCEEDS(mantle_matmul_f32(two, a, DEPTH, b, DEPTH, ROWS, COLUMNS, DEPTH, NULL, c, COLUMNS, error));
    SUCCEEDS(mantle_matrix_new(two, MANTLE_DTYPE_F32, b, COLUMNS * DEPTH * sizeof *b, COLUMNS, DEPTH, &matrix, error));
    SUCCEEDS(mantle_matmul(two, matrix, a, ROWS, DEPTH, d, COLUMNS, error));
    CHECK(memcmp(c, d, sizeof c) == 0);
    /* A NaN reaches its row, an infinity its column; no inputs leave the bias. */
    a[2 * DEPTH] = NAN;
    b[5 * DEPTH] = INFINITY;
    SUCCEEDS(mantle_matmul_f32(two, a, DEPTH, b, DEPTH, ROWS, COLUMNS, DEPTH, NULL, c, COLUMNS, error));
    for (int i = 0; i < ROWS; i++) {
        for (int j = 0; j < COLUMNS; j++) {
            CHECK(i == 2 ? isnan(c[i * COLUMNS + j]) : j == 5 ? isinf(c[i * COLUMNS + j]) : isfinite(c[i * COLUMNS + j]));
        }
    }
    SUCCEEDS(mantle_matmul_f32(two, NULL, 0, NULL, 0, ROWS, COLUMNS, 0, NULL, c, COLUMNS, error));
    CHECK(c[0] == 0 && c[2 * COLUMNS] == 0 && c[ROWS * COLUMNS - 1] == 0);
    /* Denormals are kept. */
    a[0] = 1e-40f;
    b[0] = 1;
    SUCCEEDS(mantle_matmul_f32(two, a, 1, b, 1, 1, 1, 1, NULL, c, 1, error));
    CHECK(c[0] == 1e-40f);
    mantle_matrix_free(matrix);
    free(a);
    free(b);
}

static void refusals(void)
{
    const mantle_status bad = MANTLE_ERROR_INVALID_ARGUMENT;
    const size_t huge = (size_t)-1;
    float a[64] = {0}, b[64] = {0}, c[64] = {0};
    mantle_gemm_options options;
    SUCCEEDS(mantle_gemm_options_init(&options, sizeof options, error));
    SUCCEEDS(mantle_matmul_f32(one, NULL, 0, NULL, 0, 0, 8, 8, NULL, NULL, 0, error));
    SUCCEEDS(mantle_matmul_f32(one, NULL, 0, NULL, 0, 8, 0, 8, NULL, NULL, 0, error));
    GIVES(bad, "a_stride is 7", mantle_matmul_f32(one, a, 7, b, 8, 8, 8, 8, NULL, c, 8, error));
    GIVES(bad, "b_stride is 7", mantle_matmul_f32(one, a, 8, b, 7, 8, 8, 8, NULL, c, 8, error));
    GIVES(bad, "c_stride is 7", mantle_matmul_f32(one, a, 8, b, 8, 8, 8, 8, NULL, c, 7, error));
    GIVES(bad, "a and c overlap", mantle_matmul_f32(one, c, 8, b, 8, 8, 8, 8, NULL, c, 8, error));
    GIVES(bad, "b and c overlap", mantle_matmul_f32(one, a, 8, c + 63, 1, 8, 8, 1, NULL, c, 8, error));
    SUCCEEDS(mantle_matmul_f32(one, a, 8, a, 8, 8, 8, 8, NULL, c, 8, error));
    GIVES(bad, "memory can hold", mantle_matmul_f32(one, a, 8, b, 8, huge, 8, 8, NULL, c, 8, error));
    GIVES(bad, "memory can hold", mantle_matmul_f32(one, a, huge, b, huge, 1, 1, huge, NULL, c, 8, error));
    GIVES(bad, "aligned",
          mantle_matmul_f32(one, (const void *)((char *)a + 2), 8, b, 8, 2, 2, 2, NULL, c, 8, error));
    options.a_type = MANTLE_DTYPE_Q8_0;
    GIVES(bad, "a_type is 8", mantle_matmul_f32(one, a, 8, b, 8, 8, 8, 8, &options, c, 8, error));
    options.a_type = MANTLE_DTYPE_F16;
    GIVES(bad, "aligned",
          mantle_matmul_f32(one, (const void *)((char *)a + 1), 8, b, 8, 2, 2, 2, &options, c, 8, error));
    options.b_type = -3;
    GIVES(bad, "b_type is -3", mantle_matmul_f32(one, a, 8, b, 8, 8, 8, 8, &options, c, 8, error));
    options.b_type = MANTLE_DTYPE_F32;
    options.flags = 2;
    GIVES(bad, "flags", mantle_matmul_f32(one, a, 8, b, 8, 8, 8, 8, &options, c, 8, error));
    options.flags = 0;
    options.bias = c + 3;
    GIVES(bad, "bias and c overlap", mantle_matmul_f32(one, a, 8, b, 8, 8, 8, 8, &options, c, 8, error));
    options.struct_size = 7;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_gemm_options",
          mantle_matmul_f32(one, a, 8, b, 8, 8, 8, 8, &options, c, 8, error));
}

static void activations(size_t rows, size_t columns)
{
    size_t stride = columns + random_within(0, 4);
    float *x = random_numbers(rows * stride, 5), *y = random_numbers(rows * stride, 0);
    for (mantle_activation_form form = MANTLE_ACTIVATIONS_BLOCKS; form <= MANTLE_ACTIVATIONS_INT4; form++) {
        /* The largest step of the form: the range is 10. */
        static const float steps[] = {5 * 1.25f / 126.93f, 5.0f / 127, 10.0f / 254, 10.0f / 14};
        float step = steps[form];
        size_t row = 0;
        SUCCEEDS(mantle_activation_row_bytes(form, columns, &row, error));
        unsigned char *data = malloc(rows * row + 1), *again = malloc(rows * row + 1);
        REQUIRE(data != NULL && again != NULL);
        data[rows * row] = 0xa5;
        SUCCEEDS(mantle_quantize_activations(one, form, x, rows, columns, stride, data, rows * row, error));
        SUCCEEDS(mantle_quantize_activations(two, form, x, rows, columns, stride, again + 1, rows * row, error));
        CHECK(data[rows * row] == 0xa5 && memcmp(data, again + 1, rows * row) == 0);
        SUCCEEDS(mantle_dequantize_activations(two, form, again + 1, rows * row, rows, columns, y, stride, error));
        for (size_t i = 0; i < rows * stride; i++) {
            CHECK(i % stride < columns ? fabsf(y[i] - x[i]) <= step * 0.501f : y[i] == 0);
        }
        /* MCF's numbers, read here as its page says. */
        if (form == MANTLE_ACTIVATIONS_INT8 || form == MANTLE_ACTIVATIONS_INT4) {
            float scale, zero;
            memcpy(&scale, data, 4);
            memcpy(&zero, data + 4, 4);
            for (size_t i = 0; i < columns; i++) {
                int code = form == MANTLE_ACTIVATIONS_INT8 ? (int)data[8 + i] : data[8 + i / 2] >> (4 * (i % 2)) & 15;
                int sign = form == MANTLE_ACTIVATIONS_INT8 ? 128 : 8;
                code = (code ^ sign) - sign;
                CHECK(y[i] == scale * ((float)code - zero) && code > -sign);
            }
        }
        x[columns / 2] = NAN;
        SUCCEEDS(mantle_quantize_activations(two, form, x, 1, columns, stride, data, row, error));
        SUCCEEDS(mantle_dequantize_activations(one, form, data, row, 1, columns, y, stride, error));
        CHECK(isnan(y[columns / 2]) && (form == MANTLE_ACTIVATIONS_BLOCKS || isnan(y[0])));
        x[columns / 2] = 0;
        memset(y, 0, rows * stride * sizeof *y);
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "size is",
              mantle_quantize_activations(one, form, x, 1, columns, stride, data, row - 1, error));
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "stride is",
              mantle_quantize_activations(one, form, x, 1, columns, columns - 1, data, row, error));
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "runtime is NULL",
              mantle_quantize_activations(NULL, form, x, 1, columns, stride, data, row, error));
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "values is NULL",
              mantle_quantize_activations(one, form, NULL, 1, columns, stride, data, row, error));
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "data is NULL",
              mantle_quantize_activations(one, form, x, 1, columns, stride, NULL, row, error));
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "size is",
              mantle_dequantize_activations(one, form, data, row + 1, 1, columns, y, stride, error));
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "data is NULL",
              mantle_dequantize_activations(one, form, NULL, row, 1, columns, y, stride, error));
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "values is NULL",
              mantle_dequantize_activations(one, form, data, row, 1, columns, NULL, stride, error));
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "runtime is NULL",
              mantle_dequantize_activations(NULL, form, data, row, 1, columns, y, stride, error));
        CHECK(mantle_quantize_activations(one, form, x, (size_t)-1, columns, stride, data, row, NULL) < 0);
        CHECK(mantle_dequantize_activations(one, form, data, row, 2, (size_t)-1, y, stride, NULL) < 0);
        free(data);
        free(again);
    }
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "form is 4", mantle_activation_row_bytes(4, columns, &stride, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "bytes is NULL", mantle_activation_row_bytes(0, columns, NULL, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "memory can hold",
          mantle_activation_row_bytes(0, (size_t)-1, &stride, error));
    free(x);
    free(y);
}

int main(void)
{
    one = runtime_of(1);
    two = runtime_of(2);
    for (int i = 0; i < 60; i++) {
        product(random_within(1, 40), random_within(1, 70), random_within(0, 90));
    }
    for (int i = 0; i < 6; i++) {
        product(random_within(1, 33), random_within(1, 300), random_within(900, 2200));
    }
    product(300, 200, 100);
    agreement();
    refusals();
    for (int i = 0; i < 30; i++) {
        activations(random_within(1, 20), random_within(2, 700));
    }
    mantle_runtime_free(one);
    mantle_runtime_free(two);
    return check_result();
}
