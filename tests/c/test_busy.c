/* One session, two threads: the second gets BUSY and disturbs nothing. And what a callback may do. */
#define _POSIX_C_SOURCE 200809L
#include "check.h"
#include "tiny_model.h"

#include <pthread.h>

static mantle_runtime *runtime;
static mantle_model *model;
static const mantle_tokenizer *tokenizer;

static mantle_session *new_session(void)
{
    mantle_session *session = NULL;
    SUCCEEDS(mantle_session_new(model, NULL, NULL, &session, error));
    return session;
}

/* Every call on a session that is in use. */
static void *every_call(void *argument)
{
    mantle_session *session = (mantle_session *)argument;
    const int32_t sequence = 0;
    const mantle_token id = 1;
    const size_t offsets[2] = {0, 1};
    const float *logits = NULL;
    size_t size = 0;
    uint32_t length = 0;
    mantle_memory memory;
    memory.struct_size = sizeof memory;
    const mantle_status busy = MANTLE_ERROR_BUSY;
    GIVES(busy, "in use", mantle_forward(session, &sequence, &id, offsets, 1, MANTLE_LOGITS_LAST, NULL, error));
    GIVES(busy, "in use", mantle_generate(session, tokenizer, 0, &id, 1, NULL, NULL, NULL, NULL, NULL, error));
    GIVES(busy, "in use", mantle_sequence_truncate(session, 0, 0, error));
    GIVES(busy, "in use", mantle_sequence_length(session, 0, &length, error));
    GIVES(busy, "in use", mantle_logits(session, 0, &logits, &size, error));
    GIVES(busy, "in use", mantle_logits_rows(session, &size, error));
    GIVES(busy, "in use", mantle_session_memory(session, &memory, error));
    return NULL;
}

static bool from_callback(void *user_data, mantle_token token, const char *text, size_t length)
{
    pthread_t thread;
    (void)token, (void)text, (void)length;
    REQUIRE(pthread_create(&thread, NULL, every_call, user_data) == 0);
    REQUIRE(pthread_join(thread, NULL) == 0);
    every_call(user_data);
    return true;
}

/* While one thread is inside mantle_generate, every call of another one, and of the callback itself, is refused. */
static void test_while_generating(void)
{
    const mantle_token prompt[3] = {1, 2, 3};
    mantle_session *session = new_session();
    mantle_generate_options options;
    mantle_generation result;
    SUCCEEDS(mantle_generate_options_init(&options, sizeof options, error));
    options.max_tokens = 2;
    options.flags = MANTLE_GENERATE_IGNORE_END;
    result.struct_size = sizeof result;
    SUCCEEDS(mantle_generate(session, tokenizer, 0, prompt, 3, &options, from_callback, session, NULL, &result, error));
    CHECK(result.tokens == 2);
    mantle_session_free(session);
}

static bool free_session(void *user_data, mantle_token token, const char *text, size_t length)
{
    mantle_session **session = (mantle_session **)user_data;
    (void)token, (void)text, (void)length;
    mantle_session_free(*session);
    *session = NULL;
    return false;
}

/* A session freed by its own callback lives until the call ends; its memory is then given back. */
static void test_free_in_callback(void)
{
    const mantle_token prompt[3] = {1, 2, 3};
    mantle_memory before, after;
    before.struct_size = after.struct_size = sizeof before;
    SUCCEEDS(mantle_runtime_memory(runtime, &before, error));
    mantle_session *session = new_session();
    mantle_generate_options options;
    SUCCEEDS(mantle_generate_options_init(&options, sizeof options, error));
    options.flags = MANTLE_GENERATE_IGNORE_END;
    SUCCEEDS(mantle_generate(session, tokenizer, 0, prompt, 3, &options, free_session, &session, NULL, NULL, error));
    CHECK(session == NULL);
    SUCCEEDS(mantle_runtime_memory(runtime, &after, error));
    CHECK(after.total == before.total);
}

struct worker {
    mantle_session *session;
    uint32_t done, busy;
};

static void *append(void *argument)
{
    struct worker *worker = (struct worker *)argument;
    const int32_t sequence = 0;
    const mantle_token id = 7;
    const size_t offsets[2] = {0, 1};
    for (int i = 0; i < 50; i++) {
        mantle_status status =
            mantle_forward(worker->session, &sequence, &id, offsets, 1, MANTLE_LOGITS_LAST, NULL, NULL);
        worker->done += status == MANTLE_OK;
        worker->busy += status == MANTLE_ERROR_BUSY;
    }
    return NULL;
}

/* Two threads that do not care: each call either worked or was refused, and the sequence counts those that worked. */
static void test_race(void)
{
    mantle_session *session = new_session();
    struct worker workers[2] = {{session, 0, 0}, {session, 0, 0}};
    pthread_t threads[2];
    uint32_t length = 0;
    for (int i = 0; i < 2; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, append, &workers[i]) == 0);
    }
    for (int i = 0; i < 2; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        CHECK(workers[i].done + workers[i].busy == 50);
    }
    SUCCEEDS(mantle_sequence_length(session, 0, &length, error));
    CHECK(length == workers[0].done + workers[1].done && length > 0);
    mantle_session_free(session);
}

static void *fire_soon(void *argument)
{
    const mantle_cancel *cancel = (const mantle_cancel *)argument;
    for (volatile int i = 0; i < 20000; i++) {
    }
    mantle_cancel_fire(cancel);
    return NULL;
}

/* A forward pass of many batches that is cancelled between them takes back what it had appended. */
static void test_cancel_between_batches(void)
{
    enum { COUNT = 120 };
    const int32_t sequence = 0;
    const size_t offsets[2] = {0, COUNT};
    mantle_token ids[COUNT];
    mantle_session_options options;
    mantle_session *session = NULL;
    mantle_cancel *cancel = NULL;
    for (int i = 0; i < COUNT; i++) {
        ids[i] = i;
    }
    SUCCEEDS(mantle_session_options_init(&options, sizeof options, error));
    options.max_batch_tokens = 1;
    SUCCEEDS(mantle_session_new(model, &options, NULL, &session, error));
    SUCCEEDS(mantle_cancel_new(&cancel, error));
    int cancelled = 0;
    for (int attempt = 0; attempt < 100 && cancelled < 5; attempt++) {
        pthread_t thread;
        uint32_t length = 0;
        mantle_cancel_reset(cancel);
        REQUIRE(pthread_create(&thread, NULL, fire_soon, cancel) == 0);
        mantle_status status = mantle_forward(session, &sequence, ids, offsets, 1, MANTLE_LOGITS_LAST, cancel, NULL);
        REQUIRE(pthread_join(thread, NULL) == 0);
        SUCCEEDS(mantle_sequence_length(session, 0, &length, error));
        CHECK(status == MANTLE_OK || status == MANTLE_ERROR_CANCELLED);
        CHECK(length == (status == MANTLE_OK ? COUNT : 0));
        cancelled += status == MANTLE_ERROR_CANCELLED;
        SUCCEEDS(mantle_sequence_truncate(session, 0, 0, error));
    }
    CHECK(cancelled > 0);
    mantle_cancel_free(cancel);
    mantle_session_free(session);
}

struct reader {
    float logits[TINY_VOCABULARY];
};

static void *use_own_session(void *argument)
{
    struct reader *reader = (struct reader *)argument;
    const int32_t sequence = 0;
    const mantle_token ids[6] = {TINY_BEGIN, 1, 2, 3, 4, 5};
    const size_t offsets[2] = {0, 6};
    mantle_token tokens[3];
    const float *logits = NULL;
    size_t size = 0;
    for (int i = 0; i < 20; i++) {
        mantle_session *session = new_session();
        SUCCEEDS(mantle_tokenize(tokenizer, "abc", 3, 0, tokens, 3, &size, error));
        SUCCEEDS(mantle_forward(session, &sequence, ids, offsets, 1, MANTLE_LOGITS_LAST, NULL, error));
        SUCCEEDS(mantle_logits(session, 0, &logits, &size, error));
        memcpy(reader->logits, logits, sizeof reader->logits);
        mantle_session_free(session);
    }
    return NULL;
}

/* Sessions of one model on several threads at once: nobody is refused, all compute the same bits. */
static void test_shared_model(void)
{
    static struct reader readers[3];
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, use_own_session, &readers[i]) == 0);
    }
    for (int i = 0; i < 3; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        CHECK(memcmp(readers[i].logits, readers[0].logits, sizeof readers[i].logits) == 0);
    }
}

int main(void)
{
    struct tiny_model file = tiny_make(NULL);
    SUCCEEDS(mantle_runtime_new(NULL, &runtime, error));
    SUCCEEDS(mantle_model_open_memory(runtime, file.data, file.size, NULL, &model, error));
    tiny_free(&file);
    SUCCEEDS(mantle_model_tokenizer(model, &tokenizer, error));
    test_while_generating();
    test_free_in_callback();
    test_race();
    test_cancel_between_batches();
    test_shared_model();
    mantle_model_free(model);
    mantle_runtime_free(runtime);
    return check_result();
}
