/*
 * Steps over vectors and rows: against double, in place and apart, with strides, and how overlaps, wrong shapes and
 * values that are not finite are answered.
 */
#include "numbers.h"

static mantle_runtime *runtime;
static double exactly(mantle_function function, double x)
{
    switch (function) {
    case MANTLE_FUNCTION_SILU:
        return x / (1 + exp(-x));
    case MANTLE_FUNCTION_GELU_TANH:
        return x / 2 * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case MANTLE_FUNCTION_GELU_ERF:
        return x / 2 * (1 + erf(x * 0.7071067811865476));
    case MANTLE_FUNCTION_EXP:
        return exp(x);
    case MANTLE_FUNCTION_TANH:
        return tanh(x);
    default:
        return erf(x);
    }
}

static void elements(size_t count)
{
    float *a = random_numbers(count, 8), *b = random_numbers(count, 3), *y = random_numbers(count, 5), *z = random_numbers(count, 5);
    size_t size = count * sizeof *y;
    memcpy(z, y, size);
    SUCCEEDS(mantle_vector_axpy(runtime, 0.3f, a, count, z, error));
    for (size_t i = 0; i < count; i++) {
        CHECK(z[i] == fmaf(0.3f, a[i], y[i]));
    }
    memcpy(z, y, size);
    SUCCEEDS(mantle_vector_axpy(runtime, 2, z, count, z, error));
    for (size_t i = 0; i < count; i++) {
        CHECK(z[i] == fmaf(2, y[i], y[i]));
    }
    SUCCEEDS(mantle_vector_scale(runtime, -0.7f, a, count, z, error));
    for (size_t i = 0; i < count; i++) {
        CHECK(z[i] == -0.7f * a[i]);
    }
    SUCCEEDS(mantle_vector_add(runtime, a, b, count, z, error));
    SUCCEEDS(mantle_vector_mul(runtime, z, a, count, z, error));
    for (size_t i = 0; i < count; i++) {
        float sum = a[i] + b[i];
        CHECK(z[i] == sum * a[i]);
    }
    for (mantle_function function = MANTLE_FUNCTION_SILU; function <= MANTLE_FUNCTION_ERF; function++) {
        memcpy(z, a, size);
        SUCCEEDS(mantle_vector_apply(runtime, function, z, count, z, error));
        SUCCEEDS(mantle_vector_gate(runtime, function, a, b, count, y, error));
        for (size_t i = 0; i < count; i++) {
            CHECK(is_near(z[i], exactly(function, a[i]), 2e-6, 2e-6));
            CHECK(y[i] == z[i] * b[i]);
        }
    }
    free(a);
    free(b);
    free(y);
    free(z);
}

static void rows_of(size_t rows, size_t columns)
{
    size_t x_stride = columns + random_within(0, 5), y_stride = columns + random_within(0, 5);
    float *x = random_numbers(rows * x_stride, 4), *y = random_numbers(rows * y_stride, 1), *in_place = random_numbers(rows * x_stride, 1);
    float *weight = random_numbers(columns, 2), *bias = random_numbers(columns, 2);
    for (int kind = 0; kind < 3; kind++) {
        memcpy(in_place, x, rows * x_stride * sizeof *x);
        for (size_t i = 0; i < rows * y_stride; i++) {
            y[i] = 12345;
        }
        if (kind == 0) {
            SUCCEEDS(mantle_vector_softmax(runtime, x, rows, columns, x_stride, y, y_stride, error));
            SUCCEEDS(mantle_vector_softmax(runtime, in_place, rows, columns, x_stride, in_place, x_stride, error));
        } else if (kind == 1) {
            SUCCEEDS(mantle_vector_rms_norm(runtime, x, rows, columns, x_stride, weight, 1e-5f, y, y_stride, error));
            SUCCEEDS(mantle_vector_rms_norm(runtime, in_place, rows, columns, x_stride, weight, 1e-5f, in_place,
                                            x_stride, error));
        } else {
            SUCCEEDS(mantle_vector_layer_norm(runtime, x, rows, columns, x_stride, weight, bias, 1e-5f, y, y_stride,
                                              error));
            SUCCEEDS(mantle_vector_layer_norm(runtime, in_place, rows, columns, x_stride, weight, bias, 1e-5f, in_place,
                                              x_stride, error));
        }
        for (size_t r = 0; r < rows; r++) {
            const float *row = x + r * x_stride;
            double sum = 0, mean = 0, squares = 0;
            for (size_t c = 0; c < columns; c++) {
                sum += kind == 0 ? exp(row[c]) : 0;
                mean += row[c];
            }
            mean = kind == 2 ? mean / (double)columns : 0;
            for (size_t c = 0; c < columns; c++) {
                squares += (row[c] - mean) * (row[c] - mean);
            }
            double norm = sqrt(squares / (double)columns + 1e-5);
            for (size_t c = 0; c < columns; c++) {
                double expected = kind == 0 ? exp(row[c]) / sum : (row[c] - mean) / norm * weight[c];
                expected += kind == 2 ? bias[c] : 0;
                CHECK(is_near(y[r * y_stride + c], expected, 1e-5, kind == 0 ? 0 : 1e-5));
                CHECK(y[r * y_stride + c] == in_place[r * x_stride + c]);
            }
            for (size_t c = columns; c < x_stride; c++) {
                CHECK(in_place[r * x_stride + c] == x[r * x_stride + c]);
            }
            for (size_t c = columns; c < y_stride; c++) {
                CHECK(y[r * y_stride + c] == 12345);
            }
        }
    }
    free(x);
    free(y);
    free(in_place);
    free(weight);
    free(bias);
}

static void rotation(void)
{
    enum { POSITIONS = 300 };
    for (int i = 0; i < 40; i++) {
        size_t dims = 2 * random_within(1, 40), head = dims + random_within(0, 9), heads = random_within(1, 4), rows = random_within(1, 7);
        size_t stride = heads * head + random_within(0, 6), half = dims / 2;
        float *cosine = random_numbers(POSITIONS * half, 1), *sine = random_numbers(POSITIONS * half, 1);
        float *x = random_numbers(rows * stride, 3), *y = random_numbers(rows * stride, 3);
        uint32_t positions[7];
        SUCCEEDS(mantle_rope_table(POSITIONS, dims, 10000, 2, cosine, sine, error));
        for (size_t t = 0; t < 7; t++) {
            positions[t] = (uint32_t)random_within(0, POSITIONS - 1);
        }
        for (int pairing = MANTLE_ROPE_HALVES; pairing <= MANTLE_ROPE_PAIRS; pairing++) {
            const uint32_t *given = random_within(0, 1) ? positions : NULL;
            memcpy(y, x, rows * stride * sizeof *y);
            SUCCEEDS(mantle_vector_rope(runtime, pairing, cosine, sine, POSITIONS, dims, given, y, rows, heads, head,
                                        stride, error));
            for (size_t t = 0; t < rows; t++) {
                double position = (double)(given ? given[t] : t);
                for (size_t c = 0; c < stride; c++) {
                    size_t at = c % head, pair, other;
                    double expected = x[t * stride + c];
                    if (c < heads * head && at < dims) {
                        int first = pairing == MANTLE_ROPE_PAIRS ? at % 2 == 0 : at < half;
                        pair = pairing == MANTLE_ROPE_PAIRS ? at / 2 : at % half;
                        other = pairing == MANTLE_ROPE_PAIRS ? (first ? c + 1 : c - 1) : (first ? c + half : c - half);
                        double angle = position / 2 * pow(10000, -2.0 * (double)pair / (double)dims);
                        expected = expected * cos(angle) + x[t * stride + other] * sin(angle) * (first ? -1 : 1);
                    }
                    CHECK(is_near(y[t * stride + c], expected, 1e-6, 1e-6));
                }
            }
        }
        /* A position behind the table is refused, and nothing is turned. */
        positions[rows - 1] = POSITIONS;
        memcpy(y, x, rows * stride * sizeof *y);
        GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "position 300",
              mantle_vector_rope(runtime, 0, cosine, sine, POSITIONS, dims, positions, y, rows, heads, head, stride,
                                 error));
        CHECK(memcmp(x, y, rows * stride * sizeof *y) == 0);
        free(cosine);
        free(sine);
        free(x);
        free(y);
    }
}

static void overlaps(void)
{
    enum { COUNT = 64 };
    float v[3 * COUNT] = {0}, w[2 * COUNT] = {0};
    const mantle_status bad = MANTLE_ERROR_INVALID_ARGUMENT;
    GIVES(bad, "x and y overlap", mantle_vector_axpy(runtime, 1, v, COUNT, v + 1, error));
    GIVES(bad, "x and y overlap", mantle_vector_scale(runtime, 1, v + COUNT - 1, COUNT, v, error));
    GIVES(bad, "a and y overlap", mantle_vector_add(runtime, v, w, COUNT, v + COUNT - 1, error));
    GIVES(bad, "b and y overlap", mantle_vector_mul(runtime, w, v + 1, COUNT, v, error));
    GIVES(bad, "x and y overlap", mantle_vector_apply(runtime, 0, v + 3, COUNT, v, error));
    GIVES(bad, "gate and y overlap", mantle_vector_gate(runtime, 0, v + 3, w, COUNT, v, error));
    GIVES(bad, "up and y overlap", mantle_vector_gate(runtime, 0, w, v + 3, COUNT, v, error));
    /* The same start with another stride is no work in place; neighbours are apart, inputs may overlap. */
    GIVES(bad, "x and y overlap", mantle_vector_softmax(runtime, v, 2, 16, 16, v, 20, error));
    GIVES(bad, "weight and y overlap", mantle_vector_rms_norm(runtime, w, 2, 16, 16, v + 20, 0, v, 16, error));
    GIVES(bad, "bias and y overlap",
          mantle_vector_layer_norm(runtime, w, 2, 16, 16, w, v + 31, 0, v, 16, error));
    SUCCEEDS(mantle_vector_softmax(runtime, v, 1, 16, 16, v, 20, error));
    SUCCEEDS(mantle_vector_scale(runtime, 1, v + COUNT, COUNT, v, error));
    SUCCEEDS(mantle_vector_add(runtime, w, w + 3, COUNT, v, error));
    GIVES(bad, "cosine and x overlap", mantle_vector_rope(runtime, 0, v, w, 1, 8, NULL, v, 1, 1, 8, 8, error));
    GIVES(bad, "sine and x overlap", mantle_vector_rope(runtime, 0, w, v + 7, 1, 8, NULL, v, 1, 1, 8, 8, error));
    GIVES(bad, "cosine and sine overlap", mantle_rope_table(4, 8, 1, 1, v, v + 15, error));
}

static void shapes(void)
{
    float v[64] = {0}, w[64] = {0};
    const mantle_status bad = MANTLE_ERROR_INVALID_ARGUMENT;
    const size_t huge = (size_t)-1;
    SUCCEEDS(mantle_vector_axpy(runtime, 1, NULL, 0, NULL, error));
    SUCCEEDS(mantle_vector_apply(runtime, MANTLE_FUNCTION_EXP, NULL, 0, NULL, error));
    SUCCEEDS(mantle_vector_softmax(runtime, NULL, 0, 16, 16, NULL, 16, error));
    SUCCEEDS(mantle_vector_layer_norm(runtime, NULL, 3, 0, 0, NULL, NULL, 0, NULL, 0, error));
    SUCCEEDS(mantle_vector_rope(runtime, 0, NULL, NULL, 0, 2, NULL, NULL, 0, 1, 2, 2, error));
    SUCCEEDS(mantle_rope_table(0, 2, 1, 1, NULL, NULL, error));
    GIVES(bad, "memory can hold", mantle_vector_add(runtime, v, v, huge, w, error));
    GIVES(bad, "memory can hold", mantle_vector_softmax(runtime, v, huge, 8, 8, w, 8, error));
    GIVES(bad, "y_stride is 7", mantle_vector_softmax(runtime, v, 2, 8, 8, w, 7, error));
    GIVES(bad, "x_stride is 7", mantle_vector_rms_norm(runtime, v, 2, 8, 7, w, 0, w + 8, 8, error));
    GIVES(bad, "epsilon is -1", mantle_vector_rms_norm(runtime, v, 1, 8, 8, w, -1, w + 8, 8, error));
    GIVES(bad, "epsilon is NaN", mantle_vector_layer_norm(runtime, v, 1, 8, 8, v, v, nanf(""), w, 8, error));
    GIVES(bad, "aligned", mantle_vector_scale(runtime, 1, (const float *)(const void *)((char *)v + 1), 4, w, error));
    GIVES(bad, "function is 6", mantle_vector_apply(runtime, 6, v, 4, w, error));
    GIVES(bad, "function is -1", mantle_vector_gate(runtime, -1, v, v, 4, w, error));
    GIVES(bad, "pairing is 2", mantle_vector_rope(runtime, 2, v, v, 1, 8, NULL, w, 1, 1, 8, 8, error));
    GIVES(bad, "dims is 7", mantle_vector_rope(runtime, 0, v, v, 1, 7, NULL, w, 1, 1, 8, 8, error));
    GIVES(bad, "dims is 0", mantle_rope_table(1, 0, 1, 1, v, w, error));
    GIVES(bad, "more than head_dim", mantle_vector_rope(runtime, 0, v, v, 1, 10, NULL, w, 1, 1, 8, 8, error));
    GIVES(bad, "stride is 15", mantle_vector_rope(runtime, 0, v, v, 1, 8, NULL, w, 2, 2, 8, 15, error));
    GIVES(bad, "memory can hold", mantle_vector_rope(runtime, 0, v, v, 1, 8, NULL, w, 1, huge, 8, 8, error));
    GIVES(bad, "memory can hold", mantle_vector_rope(runtime, 0, v, v, huge, 8, NULL, w, 1, 1, 8, 8, error));
    GIVES(bad, "base is 0", mantle_rope_table(1, 8, 0, 1, v, w, error));
    GIVES(bad, "scale is inf", mantle_rope_table(1, 8, 1, INFINITY, v, w, error));
    GIVES(bad, "memory can hold", mantle_rope_table(huge, 8, 1, 1, v, w, error));
}

/* What is not finite, and denormals. */
static void specials(void)
{
    float x[20], y[20], weight[20];
    for (int i = 0; i < 20; i++) {
        x[i] = (float)i;
        weight[i] = 1;
    }
    x[18] = NAN;
    SUCCEEDS(mantle_vector_softmax(runtime, x, 1, 20, 20, y, 20, error));
    CHECK(isnan(y[0]) && isnan(y[17]) && isnan(y[19]));
    SUCCEEDS(mantle_vector_rms_norm(runtime, x, 1, 20, 20, weight, 1e-6f, y, 20, error));
    CHECK(isnan(y[0]) && isnan(y[19]));
    SUCCEEDS(mantle_vector_apply(runtime, MANTLE_FUNCTION_GELU_ERF, x, 20, y, error));
    CHECK(!isnan(y[17]) && isnan(y[18]));
    x[18] = -INFINITY;
    SUCCEEDS(mantle_vector_softmax(runtime, x, 1, 20, 20, y, 20, error));
    CHECK(y[18] == 0 && y[19] > 0.5f);
    x[18] = INFINITY;
    SUCCEEDS(mantle_vector_softmax(runtime, x, 1, 20, 20, y, 20, error));
    CHECK(isnan(y[18]) && isnan(y[0]));
    SUCCEEDS(mantle_vector_apply(runtime, MANTLE_FUNCTION_TANH, x, 20, y, error));
    CHECK(y[18] == 1 && y[0] == 0);
    for (int i = 0; i < 20; i++) {
        x[i] = -INFINITY;
    }
    SUCCEEDS(mantle_vector_softmax(runtime, x, 1, 20, 20, y, 20, error));
    CHECK(isnan(y[0]) && isnan(y[19]));
    for (int i = 0; i < 20; i++) {
        x[i] = 1e-40f;
    }
    SUCCEEDS(mantle_vector_add(runtime, x, x, 20, y, error));
    CHECK(y[0] == x[0] + x[0] && y[19] > 0);
    SUCCEEDS(mantle_vector_apply(runtime, MANTLE_FUNCTION_ERF, x, 20, y, error));
    CHECK(is_near(y[19], 1.1283791670955126e-40, 1e-4, 0));
}

int main(void)
{
    for (uint32_t threads = 1; threads <= 3; threads += 2) {
        runtime = runtime_of(threads);
        for (size_t count = 0; count <= 70; count++) {
            elements(count);
        }
        elements(50000);
        for (int i = 0; i < 60; i++) {
            rows_of(random_within(1, 20), random_within(1, i < 30 ? 40 : 700));
        }
        rows_of(400, 700);
        rotation();
        overlaps();
        shapes();
        specials();
        mantle_runtime_free(runtime);
    }
    return check_result();
}
