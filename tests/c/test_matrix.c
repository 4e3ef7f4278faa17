/*
 * mantle_matrix_new and mantle_matmul for every type of weights at odd shapes, against products in double of what
 * mantle_dequantize_rows says the weights are; and what is refused.
 */
#include "numbers.h"
#include <mantle_experimental.h>

enum { MOST_BLOCK = 256, TYPES = 64 };

static mantle_runtime *one, *two;

/* Values of a block of `dtype`: the shortest row that it can have; 0 for a number that is no type. */
static size_t block_length(mantle_dtype dtype)
{
    for (size_t length = 1; length <= MOST_BLOCK; length++) {
        size_t bytes = 0;
        if (mantle_row_bytes(dtype, length, &bytes, NULL) == MANTLE_OK) {
            return length;
        }
    }
    return 0;
}

/* `blocks` blocks of weights of ordinary size: encoded numbers, or random bytes where there is no encoder. */
static void fill_weights(mantle_dtype dtype, unsigned char *data, size_t blocks, size_t length)
{
    float values[MOST_BLOCK];
    size_t bytes = 0;
    SUCCEEDS(mantle_row_bytes(dtype, length, &bytes, error));
    for (size_t block = 0; block < blocks; block++, data += bytes) {
        for (size_t i = 0; i < length; i++) {
            values[i] = random_number(3);
        }
        mantle_status status = mantle_quantize_rows(one, dtype, values, 1, length, length, data, bytes, NULL);
        REQUIRE(status == MANTLE_OK || status == MANTLE_ERROR_UNSUPPORTED);
        for (float largest = INFINITY; status != MANTLE_OK && !(largest <= 100);) {
            for (size_t i = 0; i < bytes; i++) {
                data[i] = (unsigned char)(random_bits() >> 20);
            }
            SUCCEEDS(mantle_dequantize_rows(one, dtype, data, bytes, 1, length, values, length, error));
            largest = 0;
            for (size_t i = 0; i < length; i++) {
                largest = fabsf(values[i]) <= largest ? largest : fabsf(values[i]);
            }
        }
    }
}

/* The inputs as a product with `dtype` takes them. */
static float *rounded_inputs(mantle_dtype dtype, const float *x, size_t count, size_t columns, size_t stride)
{
    float *rounded = random_numbers(count * columns, 0);
    size_t row = 0;
    if (dtype == MANTLE_DTYPE_F32 || dtype == MANTLE_DTYPE_F16) {
        for (size_t t = 0; t < count; t++) {
            memcpy(rounded + t * columns, x + t * stride, columns * sizeof *x);
        }
        return rounded;
    }
    if (dtype == MANTLE_DTYPE_BF16) {
        SUCCEEDS(mantle_row_bytes(dtype, columns, &row, error));
    } else {
        SUCCEEDS(mantle_activation_row_bytes(MANTLE_ACTIVATIONS_BLOCKS, columns, &row, error));
    }
    void *data = malloc(count * row);
    REQUIRE(data != NULL);
    if (dtype == MANTLE_DTYPE_BF16) {
        SUCCEEDS(mantle_quantize_rows(one, dtype, x, count, columns, stride, data, count * row, error));
        SUCCEEDS(mantle_dequantize_rows(one, dtype, data, count * row, count, columns, rounded, columns, error));
    } else {
        SUCCEEDS(mantle_quantize_activations(one, MANTLE_ACTIVATIONS_BLOCKS, x, count, columns, stride, data,
                                             count * row, error));
        SUCCEEDS(mantle_dequantize_activations(one, MANTLE_ACTIVATIONS_BLOCKS, data, count * row, count, columns,
                                               rounded, columns, error));
    }
    free(data);
    return rounded;
}

static void product(mantle_dtype dtype, size_t rows, size_t columns, size_t count)
{
    size_t length = block_length(dtype), row = 0;
    size_t x_stride = columns + random_within(0, 5), y_stride = rows + random_within(0, 5);
    float *x = random_numbers(count * x_stride, 2), *w = random_numbers(rows * columns, 0);
    float *y = random_numbers(count * y_stride, 1), *z = random_numbers(count * y_stride, 1);
    mantle_matrix *matrix = NULL;
    SUCCEEDS(mantle_row_bytes(dtype, columns, &row, error));
    unsigned char *data = malloc(rows * row + 1);
    REQUIRE(data != NULL);
    fill_weights(dtype, data + 1, rows * columns / length, length); /* not aligned */
    SUCCEEDS(mantle_dequantize_rows(one, dtype, data + 1, rows * row, rows, columns, w, columns, error));
    SUCCEEDS(mantle_matrix_new(two, dtype, data + 1, rows * row, rows, columns, &matrix, error));
    free(data);
    memcpy(z, y, count * y_stride * sizeof *y);
    SUCCEEDS(mantle_matmul(one, matrix, x, count, x_stride, y, y_stride, error));
    float *rounded = rounded_inputs(dtype, x, count, columns, x_stride);
    int wrong = 0;
    for (size_t t = 0; t < count; t++) {
        for (size_t r = 0; r < rows; r++) {
            double sum = 0, sizes = 0, weight = 0;
            for (size_t c = 0; c < columns; c++) {
                double input = rounded[t * columns + c], w_rc = w[r * columns + c];
                sum += input * w_rc;
                sizes += fabs(input);
                weight = fabs(w_rc) > weight ? fabs(w_rc) : weight;
            }
            wrong += !is_near(y[t * y_stride + r], sum, 0, sizes * weight * 1e-5);
        }
        for (size_t r = rows; r < y_stride; r++) {
            CHECK(y[t * y_stride + r] == z[t * y_stride + r]);
        }
    }
    if (wrong > 0) {
        printf("%s, %zu x %zu, %zu tokens: %d values are off\n", mantle_dtype_name(dtype), rows, columns, count, wrong);
        check_failures++;
    }
    /* The same bits from two threads, and when each token comes alone. */
    SUCCEEDS(mantle_matmul(two, matrix, x, count, x_stride, z, y_stride, error));
    CHECK(memcmp(y, z, count * y_stride * sizeof *y) == 0);
    for (size_t t = 0; t < count; t += 1 + count / 3) {
        SUCCEEDS(mantle_matmul(two, matrix, x + t * x_stride, 1, x_stride, z, y_stride, error));
        CHECK(memcmp(y + t * y_stride, z, rows * sizeof *y) == 0);
    }
    mantle_matrix_free(matrix);
    free(rounded);
    free(x);
    free(w);
    free(y);
    free(z);
}

/* NaN, infinity and denormals in one token do what the manual says, and nothing to the others. */
static void specials(mantle_dtype dtype)
{
    enum { ROWS = 5, COLUMNS = 256, TOKENS = 3 };
    static const float special[] = {NAN, INFINITY, 1e-40f};
    size_t length = block_length(dtype), row = 0;
    float *x = random_numbers(TOKENS * COLUMNS, 2), y[TOKENS * ROWS], clean[TOKENS * ROWS];
    mantle_matrix *matrix = NULL;
    SUCCEEDS(mantle_row_bytes(dtype, COLUMNS, &row, error));
    unsigned char *data = malloc(ROWS * row);
    REQUIRE(data != NULL);
    fill_weights(dtype, data, ROWS * COLUMNS / length, length);
    SUCCEEDS(mantle_matrix_new(one, dtype, data, ROWS * row, ROWS, COLUMNS, &matrix, error));
    SUCCEEDS(mantle_matmul(one, matrix, x, TOKENS, COLUMNS, clean, ROWS, error));
    for (int i = 0; i < 3; i++) {
        x[COLUMNS + 100] = special[i];
        SUCCEEDS(mantle_matmul(one, matrix, x, TOKENS, COLUMNS, y, ROWS, error));
        CHECK(memcmp(y, clean, ROWS * sizeof *y) == 0);
        CHECK(memcmp(y + 2 * ROWS, clean + 2 * ROWS, ROWS * sizeof *y) == 0);
        for (int r = 0; r < ROWS; r++) {
            int floats = dtype == MANTLE_DTYPE_F32 || dtype == MANTLE_DTYPE_F16 || dtype == MANTLE_DTYPE_BF16;
            CHECK(i < 2 ? floats && i == 1 ? !isfinite(y[ROWS + r]) : isnan(y[ROWS + r]) : isfinite(y[ROWS + r]));
        }
    }
    for (int c = 0; c < COLUMNS; c++) {
        x[c] = 1e-41f;
    }
    SUCCEEDS(mantle_matmul(one, matrix, x, 1, COLUMNS, y, ROWS, error));
    for (int r = 0; r < ROWS; r++) {
        CHECK(fabsf(y[r]) < 1e-35f);
    }
    mantle_matrix_free(matrix);
    free(data);
    free(x);
}

static void refusals(void)
{
    enum { COUNT = 64 };
    const mantle_status bad = MANTLE_ERROR_INVALID_ARGUMENT;
    const size_t huge = (size_t)-1;
    float v[3 * COUNT] = {0};
    mantle_matrix *matrix = NULL;
    GIVES(bad, "0 rows", mantle_matrix_new(one, MANTLE_DTYPE_F32, v, 0, 0, 32, &matrix, error));
    GIVES(bad, "0 columns", mantle_matrix_new(one, MANTLE_DTYPE_F32, v, 0, 2, 0, &matrix, error));
    GIVES(bad, "size is 255", mantle_matrix_new(one, MANTLE_DTYPE_F32, v, 255, 2, 32, &matrix, error));
    GIVES(bad, "size is 257", mantle_matrix_new(one, MANTLE_DTYPE_F32, v, 257, 2, 32, &matrix, error));
    GIVES(bad, "memory can hold", mantle_matrix_new(one, MANTLE_DTYPE_F32, v, 256, huge / 4, 32, &matrix, error));
    CHECK(mantle_matrix_new(one, MANTLE_DTYPE_F32, v, 256, huge, huge, &matrix, NULL) < 0);
    GIVES(bad, "Q8_0", mantle_matrix_new(one, MANTLE_DTYPE_Q8_0, v, 34, 1, 31, &matrix, error));
    GIVES(bad, "Q4_K", mantle_matrix_new(one, MANTLE_DTYPE_Q4_K, v, 144, 1, 128, &matrix, error));
    GIVES(MANTLE_ERROR_UNSUPPORTED, "I32", mantle_matrix_new(one, MANTLE_DTYPE_I32, v, 128, 1, 32, &matrix, error));
    CHECK(matrix == NULL);
    SUCCEEDS(mantle_matrix_new(one, MANTLE_DTYPE_F32, v, 256, 2, 32, &matrix, error));
    SUCCEEDS(mantle_matmul(one, matrix, NULL, 0, 0, NULL, 0, error));
    GIVES(bad, "x_stride is 31", mantle_matmul(one, matrix, v, 2, 31, v + COUNT, 2, error));
    GIVES(bad, "y_stride is 1", mantle_matmul(one, matrix, v, 2, 32, v + COUNT, 1, error));
    GIVES(bad, "overlap", mantle_matmul(one, matrix, v, 2, 32, v + COUNT - 1, 2, error));
    GIVES(bad, "overlap", mantle_matmul(one, matrix, v, 2, 32, v, 2, error));
    GIVES(bad, "memory can hold", mantle_matmul(one, matrix, v, huge, 32, v + COUNT, 2, error));
    GIVES(bad, "memory can hold", mantle_matmul(one, matrix, v, 3, huge / 2, v + COUNT, 2, error));
    GIVES(bad, "aligned",
          mantle_matmul(one, matrix, (const float *)(const void *)((char *)v + 2), 1, 32, v + COUNT, 2, error));
    mantle_matrix_free(matrix);
}

int main(void)
{
    size_t types = 0;
    one = runtime_of(1);
    two = runtime_of(2);
    for (mantle_dtype dtype = 0; dtype < TYPES; dtype++) {
        static const float zeros[MOST_BLOCK];
        size_t length = block_length(dtype), row = 0;
        mantle_matrix *matrix = NULL;
        if (length == 0) {
            continue;
        }
        SUCCEEDS(mantle_row_bytes(dtype, length, &row, error));
        if (mantle_matrix_new(one, dtype, zeros, row, 1, length, &matrix, NULL) != MANTLE_OK) {
            continue;
        }
        mantle_matrix_free(matrix);
        types++;
        for (int i = 0; i < 12; i++) {
            size_t columns = (random_within(1, 700) + length - 1) / length * length;
            product(dtype, random_within(1, 40), columns, random_within(1, i % 2 ? 33 : 4));
        }
        specials(dtype);
    }
    CHECK(types >= 28);
    refusals();
    mantle_runtime_free(one);
    mantle_runtime_free(two);
    return check_result();
}
