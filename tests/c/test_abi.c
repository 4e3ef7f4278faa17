/* Versions, names, structures of other versions, cancellation, arenas, matrices: what needs no model. */
#include "check.h"

#include <math.h>

static void test_versions(void)
{
    uint32_t expected = MANTLE_VERSION_MAJOR * 1000000 + MANTLE_VERSION_MINOR * 1000 + MANTLE_VERSION_PATCH;
    char text[64];
    snprintf(text, sizeof text, "libmantle %d.%d.%d ", MANTLE_VERSION_MAJOR, MANTLE_VERSION_MINOR,
             MANTLE_VERSION_PATCH);
    CHECK(mantle_version() == expected);
    CHECK(mantle_abi_version() == MANTLE_ABI_VERSION);
    CHECK(strncmp(mantle_build_info(), text, strlen(text)) == 0);
#if defined(__AVX2__) && defined(__FMA__)
    CHECK(mantle_cpu_features() & MANTLE_CPU_AVX2);
#endif
}

static void test_names(void)
{
    CHECK(strcmp(mantle_status_name(MANTLE_OK), "OK") == 0);
    CHECK(strcmp(mantle_status_name(MANTLE_ERROR_BUFFER_TOO_SMALL), "BUFFER_TOO_SMALL") == 0);
    CHECK(strcmp(mantle_status_name(12345), "UNKNOWN") == 0);
    CHECK(strcmp(mantle_dtype_name(MANTLE_DTYPE_Q4_1), "Q4_1") == 0);
    CHECK(strcmp(mantle_dtype_name(-1), "UNKNOWN") == 0);
    CHECK(strcmp(mantle_isa_name(MANTLE_ISA_AVX512), "avx512") == 0);
    CHECK(strcmp(mantle_isa_name(MANTLE_ISA_NEON_I8MM), "neon-i8mm") == 0);
    CHECK(strcmp(mantle_isa_name(99), "unknown") == 0);
}

/* What no error object is, is also an answer. */
static void test_null_error(void)
{
    CHECK(mantle_error_status(NULL) == MANTLE_OK);
    CHECK(strcmp(mantle_error_message(NULL), "") == 0);
    CHECK(strcmp(mantle_error_context(NULL), "") == 0);
    mantle_error_free(NULL);
}

static void test_every_free_accepts_null(void)
{
    mantle_runtime_free(NULL);
    mantle_cancel_free(NULL);
    mantle_arena_free(NULL);
    mantle_model_free(NULL);
    mantle_session_free(NULL);
    mantle_matrix_free(NULL);
}

static void test_cancel(void)
{
    mantle_cancel *cancel = NULL;
    SUCCEEDS(mantle_cancel_new(&cancel, error));
    CHECK(!mantle_cancel_is_fired(cancel));
    mantle_cancel_fire(cancel);
    CHECK(mantle_cancel_is_fired(cancel));
    mantle_cancel_reset(cancel);
    CHECK(!mantle_cancel_is_fired(cancel));
    mantle_cancel_free(cancel);
    mantle_cancel_fire(NULL);
    mantle_cancel_reset(NULL);
    CHECK(!mantle_cancel_is_fired(NULL));
}

/* A structure of a later header: the fields that this library knows, then others. */
struct later_options {
    mantle_runtime_options known;
    uint64_t unknown[4];
};

static void test_structures(void)
{
    struct later_options options;
    mantle_runtime *runtime = NULL;
    const size_t ours = sizeof(mantle_runtime_options);

    memset(&options, 0xee, sizeof options);
    SUCCEEDS(mantle_runtime_options_init(&options.known, ours, error));
    CHECK(options.known.struct_size == ours);
    CHECK(options.known.threads == MANTLE_THREADS_AUTO);
    CHECK(options.known.allocate == NULL && options.known.log == NULL);
    CHECK(options.unknown[0] == UINT64_C(0xeeeeeeeeeeeeeeee));

    /* Known sizes pass, a larger one when its unknown part is zero. */
    options.known.threads = 1;
    SUCCEEDS(mantle_runtime_new(&options.known, &runtime, error));
    mantle_runtime_free(runtime);
    SUCCEEDS(mantle_runtime_options_init(&options.known, sizeof options, error));
    CHECK(options.known.struct_size == sizeof options);
    CHECK(options.unknown[0] == 0 && options.unknown[3] == 0);
    options.known.threads = 1;
    SUCCEEDS(mantle_runtime_new(&options.known, &runtime, error));
    mantle_runtime_free(runtime);
    options.unknown[2] = 1;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "is not zero", mantle_runtime_new(&options.known, &runtime, error));
    CHECK(runtime == NULL);

    /* Others are refused, and the message names the structure. */
    static const size_t wrong[] = {0, 1, sizeof(size_t), sizeof(mantle_runtime_options) - 8, 100000, (size_t)-1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        options.known.struct_size = wrong[i];
        GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_runtime_options", mantle_runtime_new(&options.known, &runtime, error));
        GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_runtime_options",
              mantle_runtime_options_init(&options.known, wrong[i], error));
    }
}

static void test_results_respect_the_size(mantle_runtime *runtime)
{
    struct {
        mantle_runtime_info known;
        uint64_t unknown;
    } later;
    later.known.struct_size = sizeof later;
    later.unknown = 7;
    SUCCEEDS(mantle_runtime_get_info(runtime, &later.known, error));
    CHECK(later.known.threads >= 1 && later.known.threads <= 1024);
    CHECK(strcmp(mantle_isa_name(later.known.isa), "unknown") != 0);
    CHECK(later.unknown == 0);
    later.known.struct_size = 3;
    later.known.threads = 77;
    GIVES(MANTLE_ERROR_ABI_MISMATCH, "mantle_runtime_info", mantle_runtime_get_info(runtime, &later.known, error));
    CHECK(later.known.threads == 77);
}

static void test_runtime_options(void)
{
    mantle_runtime_options options;
    mantle_runtime *runtime = NULL;
    SUCCEEDS(mantle_runtime_options_init(&options, sizeof options, error));
    options.threads = 0;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "threads is 0", mantle_runtime_new(&options, &runtime, error));
    options.threads = 5000;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "5000", mantle_runtime_new(&options, &runtime, error));
    options.threads = 2;
    options.isa = 77;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "isa is 77", mantle_runtime_new(&options, &runtime, error));
    options.isa = MANTLE_ISA_SCALAR;
    options.log_level = -1;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "log_level", mantle_runtime_new(&options, &runtime, error));
    options.log_level = MANTLE_LOG_DEBUG;
    options.prefetch = 2;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "prefetch is 2", mantle_runtime_new(&options, &runtime, error));
    options.prefetch = 0;
    options.huge_pages = -1;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "huge_pages is -1", mantle_runtime_new(&options, &runtime, error));
    options.huge_pages = 0;
    options.second_cache_bytes = 1u << 30;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "1073741824", mantle_runtime_new(&options, &runtime, error));
    options.first_cache_bytes = 40000;
    options.second_cache_bytes = 400000;
    options.allocate = (mantle_allocate_fn)1;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "release", mantle_runtime_new(&options, &runtime, error));
    CHECK(runtime == NULL);
    options.allocate = NULL;
    SUCCEEDS(mantle_runtime_new(&options, &runtime, error));
    mantle_runtime_info info;
    info.struct_size = sizeof info;
    SUCCEEDS(mantle_runtime_get_info(runtime, &info, error));
    CHECK(info.threads == 2);
    CHECK(info.isa == MANTLE_ISA_SCALAR || getenv("MANTLE_ISA"));
    CHECK(info.first_cache_bytes == 40000 && info.second_cache_bytes == 400000);
    mantle_runtime_free(runtime);
}

struct log_record {
    int count;
    int32_t level;
};

static void on_log(void *user_data, int32_t level, const char *target, size_t target_length, const char *message,
                   size_t message_length)
{
    struct log_record *record = (struct log_record *)user_data;
    record->count += target && target_length > 0 && message && message_length > 0;
    record->level = level;
}

static void test_log(void)
{
    struct log_record record = {0, 0};
    mantle_runtime_options options;
    mantle_runtime *runtime = NULL;
    SUCCEEDS(mantle_runtime_options_init(&options, sizeof options, error));
    options.threads = 1;
    options.log = on_log;
    options.log_user_data = &record;
    options.log_level = MANTLE_LOG_INFO;
    SUCCEEDS(mantle_runtime_new(&options, &runtime, error));
    CHECK(record.count > 0 && record.level == MANTLE_LOG_INFO);
    mantle_runtime_free(runtime);
    record.count = 0;
    options.log_level = MANTLE_LOG_OFF;
    SUCCEEDS(mantle_runtime_new(&options, &runtime, error));
    CHECK(record.count == 0);
    mantle_runtime_free(runtime);
}

static void test_arena(mantle_runtime *runtime)
{
    mantle_arena *arena = NULL;
    mantle_arena_info info;
    mantle_memory before, held;
    before.struct_size = held.struct_size = sizeof held;
    info.struct_size = sizeof info;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "bytes is 0", mantle_arena_new(runtime, 0, &arena, error));
    GIVES(MANTLE_ERROR_NO_MEMORY, NULL, mantle_arena_new(runtime, (size_t)-1, &arena, error));
    GIVES(MANTLE_ERROR_NO_MEMORY, NULL, mantle_arena_new(runtime, (size_t)-1 / 2 - 4096, &arena, error));
    CHECK(arena == NULL);
    SUCCEEDS(mantle_runtime_memory(runtime, &before, error));
    SUCCEEDS(mantle_arena_new(runtime, 100000, &arena, error));
    SUCCEEDS(mantle_runtime_memory(runtime, &held, error));
    CHECK(held.total == before.total + 100000 && held.peak >= held.total);
    SUCCEEDS(mantle_arena_get_info(arena, &info, error));
    CHECK(info.bytes == 100000 && info.used == 0 && info.peak == 0);
    mantle_arena_free(arena);
    SUCCEEDS(mantle_runtime_memory(runtime, &held, error));
    CHECK(held.total == before.total);

    static char block[1024 + 64];
    char *aligned = block + (64 - (size_t)(uintptr_t)block % 64) % 64;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "aligned", mantle_arena_wrap(aligned + 1, 1000, &arena, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "bytes is 0", mantle_arena_wrap(aligned, 0, &arena, error));
    CHECK(arena == NULL);
    SUCCEEDS(mantle_arena_wrap(aligned, 1000, &arena, error));
    SUCCEEDS(mantle_arena_get_info(arena, &info, error));
    CHECK(info.bytes == 1000);
    mantle_arena_free(arena);
}

/* Encodes, decodes, packs and multiplies small matrices at odd shapes against plain sums. */
static void test_matrix_of(mantle_runtime *runtime, mantle_dtype dtype, size_t columns, double tolerance)
{
    enum { ROWS = 37, COUNT = 5, STRIDE = 530, OUT = 41 };
    static float weights[ROWS * STRIDE], decoded[ROWS * STRIDE], x[COUNT * STRIDE], y[COUNT * OUT];
    static unsigned char data[ROWS * STRIDE * 4];
    size_t row_bytes = 0;
    mantle_matrix *matrix = NULL;
    mantle_matrix_info info;
    for (size_t i = 0; i < ROWS * STRIDE; i++) {
        weights[i] = (float)((int)(i * 7919 % 201) - 100) / 64.0f;
    }
    for (size_t i = 0; i < COUNT * STRIDE; i++) {
        x[i] = (float)((int)(i * 104729 % 255) - 127) / 127.0f;
    }
    for (size_t i = 0; i < COUNT * OUT; i++) {
        y[i] = -999.0f;
    }
    SUCCEEDS(mantle_row_bytes(dtype, columns, &row_bytes, error));
    SUCCEEDS(mantle_quantize_rows(runtime, dtype, weights, ROWS, columns, STRIDE, data, ROWS * row_bytes, error));
    SUCCEEDS(mantle_dequantize_rows(runtime, dtype, data, ROWS * row_bytes, ROWS, columns, decoded, STRIDE, error));
    SUCCEEDS(mantle_matrix_new(runtime, dtype, data, ROWS * row_bytes, ROWS, columns, &matrix, error));
    info.struct_size = sizeof info;
    SUCCEEDS(mantle_matrix_get_info(matrix, &info, error));
    CHECK(info.rows == ROWS && info.columns == columns && info.dtype == dtype && info.packed_bytes > 0);
    SUCCEEDS(mantle_matmul(runtime, matrix, x, COUNT, STRIDE, y, OUT, error));
    int bad = 0;
    for (size_t t = 0; t < COUNT; t++) {
        for (size_t r = 0; r < ROWS; r++) {
            double sum = 0, magnitude = 0;
            for (size_t c = 0; c < columns; c++) {
                double product = (double)decoded[r * STRIDE + c] * x[t * STRIDE + c];
                sum += product;
                magnitude += fabs(product);
            }
            bad += !(fabs(y[t * OUT + r] - sum) <= tolerance * (magnitude + 1e-3));
        }
        for (size_t r = ROWS; r < OUT; r++) {
            bad += y[t * OUT + r] != -999.0f; /* between the rows nothing is written */
        }
    }
    if (bad) {
        printf("%s x %d columns: %d of %d values are wrong\n", mantle_dtype_name(dtype), (int)columns, bad,
               COUNT * OUT);
    }
    CHECK(bad == 0);

    /* One vector gives the same bits as many. */
    static float alone[ROWS];
    SUCCEEDS(mantle_matmul(runtime, matrix, x + 3 * STRIDE, 1, columns, alone, ROWS, error));
    CHECK(memcmp(alone, y + 3 * OUT, sizeof alone) == 0);

    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "x_stride", mantle_matmul(runtime, matrix, x, COUNT, columns - 1, y, OUT, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "y_stride", mantle_matmul(runtime, matrix, x, COUNT, STRIDE, y, ROWS - 1, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "overlap", mantle_matmul(runtime, matrix, x, COUNT, STRIDE, x + 1, OUT, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, NULL, mantle_matmul(runtime, matrix, x, (size_t)-1, STRIDE, y, OUT, error));
    GIVES(MANTLE_OK, NULL, mantle_matmul(runtime, matrix, NULL, 0, STRIDE, NULL, OUT, error));
    mantle_matrix_free(matrix);
}

/* Every quantized type that can be both encoded and multiplied; returns how many there are. */
static int test_block_types(mantle_runtime *runtime)
{
    static float values[512];
    static unsigned char data[512 * 4];
    int tested = 0;
    for (mantle_dtype dtype = 2; dtype < 256; dtype++) {
        size_t columns = 160, bytes = 0;
        mantle_matrix *matrix = NULL;
        if (mantle_row_bytes(dtype, columns, &bytes, NULL) != MANTLE_OK) {
            columns = 512;
        }
        if (mantle_row_bytes(dtype, columns, &bytes, NULL) != MANTLE_OK || bytes > columns * 3 / 2 ||
            mantle_quantize_rows(runtime, dtype, values, 1, columns, columns, data, bytes, NULL) != MANTLE_OK) {
            continue; /* no type, not quantized, or only decoded */
        }
        mantle_status status = mantle_matrix_new(runtime, dtype, data, bytes, 1, columns, &matrix, NULL);
        mantle_matrix_free(matrix);
        if (status == MANTLE_OK) {
            test_matrix_of(runtime, dtype, columns, 1e-2);
            tested++;
        } else {
            CHECK(status == MANTLE_ERROR_UNSUPPORTED);
        }
    }
    return tested;
}

static void test_matrices(mantle_runtime *runtime)
{
    mantle_matrix *matrix = NULL;
    float values[64] = {0};
    size_t bytes = 4711;
    test_matrix_of(runtime, MANTLE_DTYPE_F32, 133, 1e-5);
    test_matrix_of(runtime, MANTLE_DTYPE_F16, 133, 1e-5);
    test_matrix_of(runtime, MANTLE_DTYPE_BF16, 133, 1e-2);
    CHECK(test_block_types(runtime) >= 3);

    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "whole", mantle_row_bytes(MANTLE_DTYPE_Q4_0, 33, &bytes, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "dtype is 4", mantle_row_bytes(4, 32, &bytes, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, NULL, mantle_row_bytes(MANTLE_DTYPE_F32, (size_t)-1, &bytes, error));
    CHECK(bytes == 4711);
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "expected 256",
          mantle_matrix_new(runtime, MANTLE_DTYPE_F32, values, 255, 1, 64, &matrix, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "0 rows",
          mantle_matrix_new(runtime, MANTLE_DTYPE_F32, values, 0, 0, 64, &matrix, error));
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, NULL,
          mantle_matrix_new(runtime, MANTLE_DTYPE_F32, values, 16, (size_t)1 << 62, 4, &matrix, error));
    GIVES(MANTLE_ERROR_UNSUPPORTED, "I8", mantle_matrix_new(runtime, MANTLE_DTYPE_I8, values, 64, 1, 64, &matrix, error));
    CHECK(matrix == NULL);
    GIVES(MANTLE_ERROR_UNSUPPORTED, "I8",
          mantle_quantize_rows(runtime, MANTLE_DTYPE_I8, values, 1, 64, 64, values, 64, error));
}

int main(void)
{
    mantle_runtime *runtime = NULL;
    test_versions();
    test_names();
    test_null_error();
    test_every_free_accepts_null();
    test_cancel();
    test_structures();
    test_runtime_options();
    test_log();
    SUCCEEDS(mantle_runtime_new(NULL, &runtime, error));
    test_results_respect_the_size(runtime);
    test_arena(runtime);
    test_matrices(runtime);
    mantle_runtime_free(runtime);
    return check_result();
}
