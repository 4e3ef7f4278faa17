/*
 * After the first call, a forward pass takes no memory: neither from the runtime's allocator nor from malloc, on any
 * thread, whether threads spin or sleep, with profiling or without, and also when a new thread takes the session over. The C library's
 * functions are replaced here and counted. Under a sanitizer, which replaces them itself, only the runtime's
 * allocator is watched.
 */
#define _GNU_SOURCE
#include "check.h"
#include "tiny_model.h"

#include <pthread.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || !defined(__GLIBC__)
#define WATCHES_MALLOC 0
#else
#define WATCHES_MALLOC 1
#endif

static volatile int watching;
static int taken;

#if WATCHES_MALLOC
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

static void note(void)
{
    if (watching) {
        __atomic_add_fetch(&taken, 1, __ATOMIC_RELAXED);
    }
}

void *malloc(size_t size)
{
    note();
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    note();
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size)
{
    note();
    return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    note();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
    note();
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : 12; /* ENOMEM */
}
#endif

static void step(mantle_session *session, const mantle_token *ids, size_t count, int32_t logits)
{
    const int32_t sequences[2] = {0, 1};
    size_t offsets[3] = {0, 0, 0};
    const float *found = NULL;
    size_t size = 0;
    offsets[1] = count;
    offsets[2] = count + 1;
    mantle_status status = mantle_forward(session, sequences, ids, offsets, 2, logits, NULL, NULL);
    if (status == MANTLE_OK && logits != MANTLE_LOGITS_NONE) {
        status = mantle_logits(session, 1, &found, &size, NULL);
    }
    if (status == MANTLE_OK) {
        status = mantle_sequence_truncate(session, 0, 0, NULL);
    }
    CHECK(status == MANTLE_OK);
}

/* Forward passes of many sizes, watched from the first one on. */
static void *steps(void *argument)
{
    mantle_session *session = (mantle_session *)argument;
    mantle_token ids[41];
    for (int i = 0; i < 41; i++) {
        ids[i] = i + 1;
    }
    watching = 1;
    for (size_t count = 1; count <= 40; count += 3) {
        step(session, ids, count, MANTLE_LOGITS_LAST);
        step(session, ids, count, MANTLE_LOGITS_NONE);
        step(session, ids, count, MANTLE_LOGITS_ALL);
    }
    CHECK(mantle_sequence_truncate(session, 0, 0, NULL) == MANTLE_OK);
    CHECK(mantle_sequence_truncate(session, 1, 0, NULL) == MANTLE_OK);
    watching = 0;
    return NULL;
}

static void test_steps(uint32_t spin_microseconds, bool profiling, const struct tiny_model *file)
{
    mantle_runtime_options options;
    mantle_session_options session_options;
    mantle_runtime *runtime = NULL;
    mantle_model *model = NULL;
    mantle_session *session = NULL;
    mantle_memory before, after;
    pthread_t thread;
    const mantle_token ids[11] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    before.struct_size = after.struct_size = sizeof before;
    SUCCEEDS(mantle_runtime_options_init(&options, sizeof options, error));
    options.threads = 2;
    options.spin_microseconds = spin_microseconds;
    SUCCEEDS(mantle_runtime_new(&options, &runtime, error));
    SUCCEEDS(mantle_model_open_memory(runtime, file->data, file->size, NULL, &model, error));
    SUCCEEDS(mantle_session_options_init(&session_options, sizeof session_options, error));
    session_options.max_sequences = 2;
    session_options.max_logits = 64;
    SUCCEEDS(mantle_session_new(model, &session_options, NULL, &session, error));
    SUCCEEDS(mantle_session_set_profiling(session, profiling, error));

    /* The first call; and time for the runtime's thread to start, which takes memory for its own. */
    const struct timespec start = {0, 300000000};
    step(session, ids, 10, MANTLE_LOGITS_LAST);
    nanosleep(&start, NULL);
    SUCCEEDS(mantle_runtime_memory(runtime, &before, error));
    steps(session);
    REQUIRE(pthread_create(&thread, NULL, steps, session) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    SUCCEEDS(mantle_runtime_memory(runtime, &after, error));
    CHECK(after.total == before.total && after.peak == before.peak);
    if (taken) {
        printf("%d allocations in forward passes after the first\n", taken);
    }
    CHECK(taken == 0);
    taken = 0;

#if WATCHES_MALLOC
    /* The watch itself works: making a session takes memory. */
    mantle_session *second = NULL;
    watching = 1;
    SUCCEEDS(mantle_session_new(model, NULL, NULL, &second, error));
    watching = 0;
    CHECK(taken > 0);
    taken = 0;
    mantle_session_free(second);
#endif
    mantle_session_free(session);
    mantle_model_free(model);
    mantle_runtime_free(runtime);
}

int main(void)
{
    struct tiny_model file = tiny_make(NULL);
    test_steps(0, false, &file);
    test_steps(200, false, &file);
    test_steps(200, true, &file);
    tiny_free(&file);
    return check_result();
}
