/* The host's allocator: every byte comes back, and when call N fails the library says so and goes on. */
#include "check.h"
#include "tiny_model.h"

struct counting {
    long calls, fail_at; /* the call with number fail_at (from 0) gets NULL; -1: none */
    size_t held, blocks;
    int wrong, misaligned;
};

/* malloc with a header that remembers where the block began and how large it is. */
struct header {
    void *start;
    size_t size, alignment;
};

static void *allocate(void *user_data, size_t size, size_t alignment)
{
    struct counting *counting = (struct counting *)user_data;
    counting->wrong += alignment == 0 || (alignment & (alignment - 1)) != 0 || size == 0;
    if (counting->calls++ == counting->fail_at) {
        return NULL;
    }
    if (counting->misaligned) {
        static char block[64];
        counting->held++;
        return block + (33 - (size_t)(uintptr_t)block % 32); /* one byte too far */
    }
    char *start = (char *)malloc(size + alignment + sizeof(struct header));
    if (!start) {
        return NULL;
    }
    uintptr_t address = (uintptr_t)(start + sizeof(struct header) + alignment - 1);
    char *block = start + sizeof(struct header) + alignment - 1 - address % alignment;
    struct header header = {start, size, alignment};
    memcpy(block - sizeof header, &header, sizeof header);
    memset(block, 0xcc, size); /* the library must not count on zeros */
    counting->held += size;
    counting->blocks++;
    return block;
}

static void release(void *user_data, void *memory, size_t size, size_t alignment)
{
    struct counting *counting = (struct counting *)user_data;
    struct header header;
    if (counting->misaligned) {
        counting->held--;
        return;
    }
    memcpy(&header, (char *)memory - sizeof header, sizeof header);
    counting->wrong += header.size != size || header.alignment != alignment;
    counting->held -= size;
    counting->blocks--;
    free(header.start);
}

static mantle_runtime *new_runtime(struct counting *counting)
{
    mantle_runtime *runtime = NULL;
    mantle_runtime_options options;
    SUCCEEDS(mantle_runtime_options_init(&options, sizeof options, error));
    options.threads = 1;
    options.allocate = allocate;
    options.release = release;
    options.allocator_user_data = counting;
    SUCCEEDS(mantle_runtime_new(&options, &runtime, error));
    return runtime;
}

static mantle_status note(mantle_status status, mantle_error *error)
{
    if (status == MANTLE_ERROR_NO_MEMORY) {
        CHECK(error && strstr(mantle_error_message(error), "bytes"));
    } else if (status != MANTLE_OK) {
        printf("unexpected: %s: %s\n", mantle_status_name(status), mantle_error_message(error));
        check_failures++;
    }
    mantle_error_free(error);
    return status;
}

/* Open, make a session in an arena and one without, compute, multiply; the status of the first failure. */
static mantle_status work(mantle_runtime *runtime, const struct tiny_model *file, float *logits)
{
    const int32_t sequence = 0;
    const mantle_token ids[3] = {1, 2, 3};
    const size_t offsets[2] = {0, 3};
    const float *found = NULL;
    float values[64] = {1}, result[1] = {0};
    size_t size = 0;
    mantle_model *model = NULL;
    mantle_arena *arena = NULL;
    mantle_session *session = NULL, *own = NULL;
    mantle_matrix *matrix = NULL;
    mantle_memory need;
    mantle_error *error = NULL;
    need.struct_size = sizeof need;
    mantle_status status = mantle_model_open_memory(runtime, file->data, file->size, NULL, &model, &error);
    if (status == MANTLE_OK) {
        status = mantle_session_bytes(model, NULL, &need, &error);
    }
    if (status == MANTLE_OK) {
        status = mantle_arena_new(runtime, (size_t)need.total, &arena, &error);
    }
    if (status == MANTLE_OK) {
        status = mantle_session_new(model, NULL, arena, &session, &error);
    }
    if (status == MANTLE_OK) {
        status = mantle_session_new(model, NULL, NULL, &own, &error);
    }
    if (status == MANTLE_OK) {
        status = mantle_forward(own, &sequence, ids, offsets, 1, MANTLE_LOGITS_LAST, NULL, &error);
    }
    if (status == MANTLE_OK) {
        status = mantle_forward(session, &sequence, ids, offsets, 1, MANTLE_LOGITS_LAST, NULL, &error);
    }
    if (status == MANTLE_OK) {
        status = mantle_logits(session, 0, &found, &size, &error);
    }
    if (status == MANTLE_OK) {
        CHECK(size == TINY_VOCABULARY);
        memcpy(logits, found, TINY_VOCABULARY * sizeof *logits);
        status = mantle_matrix_new(runtime, MANTLE_DTYPE_F32, values, sizeof values, 1, 64, &matrix, &error);
    }
    if (status == MANTLE_OK) {
        status = mantle_matmul(runtime, matrix, values, 1, 64, result, 1, &error);
    }
    CHECK((status == MANTLE_OK) == (result[0] == 1.0f));
    mantle_matrix_free(matrix);
    mantle_session_free(session);
    mantle_session_free(own);
    mantle_arena_free(arena);
    mantle_model_free(model);
    return note(status, error);
}

int main(void)
{
    static float expected[TINY_VOCABULARY], logits[TINY_VOCABULARY];
    struct counting counting = {0, -1, 0, 0, 0, 0};
    struct tiny_model file = tiny_make(NULL);
    mantle_runtime *runtime = new_runtime(&counting);
    mantle_memory memory;
    memory.struct_size = sizeof memory;
    REQUIRE(work(runtime, &file, expected) == MANTLE_OK);
    const long calls = counting.calls;
    CHECK(calls >= 4);
    CHECK(counting.held == 0 && counting.blocks == 0);
    SUCCEEDS(mantle_runtime_memory(runtime, &memory, error));
    CHECK(memory.total == 0 && memory.peak > 0);

    /* Let each call fail in turn; the runtime stays usable throughout. */
    long failures = 0;
    for (long n = 0; n < calls; n++) {
        counting.calls = 0;
        counting.fail_at = n;
        failures += work(runtime, &file, logits) == MANTLE_ERROR_NO_MEMORY;
        CHECK(counting.held == 0 && counting.blocks == 0);
    }
    CHECK(failures == calls);
    counting.fail_at = -1;
    REQUIRE(work(runtime, &file, logits) == MANTLE_OK);
    CHECK(memcmp(logits, expected, sizeof logits) == 0);
    SUCCEEDS(mantle_runtime_memory(runtime, &memory, error));
    CHECK(memory.total == 0);

    /* An allocator that does not align is told so, and gets its block back. */
    mantle_arena *arena = NULL;
    counting.misaligned = 1;
    GIVES(MANTLE_ERROR_INVALID_ARGUMENT, "aligned", mantle_arena_new(runtime, 32, &arena, error));
    counting.misaligned = 0;
    CHECK(arena == NULL);
    mantle_runtime_free(runtime);
    CHECK(counting.held == 0 && counting.wrong == 0);

    /* The same bits with the system's allocator. */
    SUCCEEDS(mantle_runtime_new(NULL, &runtime, error));
    REQUIRE(work(runtime, &file, logits) == MANTLE_OK);
    CHECK(memcmp(logits, expected, sizeof logits) == 0);
    mantle_runtime_free(runtime);
    tiny_free(&file);
    return check_result();
}
