/* What the C tests share: counting failures, and checking how a call was refused. */
#ifndef CHECK_H
#define CHECK_H

#include <mantle.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failures;

/* Goes on after a failure, so that one run shows all of them. */
#define CHECK(condition)                                                   \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            check_failures++;                                              \
        }                                                                  \
    } while (0)

/* Leaves the test: what follows would make no sense. */
#define REQUIRE(condition)                                                 \
    do {                                                                   \
        if (!(condition)) {                                                \
            printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
            exit(EXIT_FAILURE);                                            \
        }                                                                  \
    } while (0)

/* Whether a call ended with `expected` and a fitting error object, whose message or context holds `part`. */
static inline int check_status(const char *file, int line, const char *call, mantle_status expected,
                               mantle_status found, mantle_error *error, const char *part)
{
    const char *problem = NULL;
    if (found != expected) {
        problem = "another status";
    } else if ((found == MANTLE_OK) != (error == NULL)) {
        problem = "an error object that does not go with the status";
    } else if (mantle_error_status(error) != found) {
        problem = "an error object with another status";
    } else if (error && strlen(mantle_error_message(error)) < 8) {
        problem = "a message that is no sentence";
    } else if (part && !strstr(mantle_error_message(error), part) && !strstr(mantle_error_context(error), part)) {
        problem = "a message without the expected part";
    }
    if (problem) {
        printf("%s:%d: %s\n  gave %s: %s; expected %s%s%s\n", file, line, call, problem, mantle_status_name(found),
               mantle_status_name(expected), part ? " with " : "", part ? part : "");
    }
    if (problem && error) {
        printf("  message: %s: %s\n", mantle_error_context(error), mantle_error_message(error));
    }
    mantle_error_free(error);
    return problem == NULL;
}

/*
 * GIVES(status, part, call): the call, written with `error` as its last argument, ends with that status, once with
 * an error object, whose message or context holds `part` (NULL: any), and once without.
 */
#define GIVES(expected, part, call)                                                                            \
    do {                                                                                                       \
        mantle_error *check_object = (mantle_error *)(void *)&check_failures; /* must be overwritten */        \
        mantle_error **error = &check_object;                                                                  \
        mantle_status check_found = (call);                                                                    \
        if (!check_status(__FILE__, __LINE__, #call, (expected), check_found, check_object, (part))) {         \
            check_failures++;                                                                                  \
        }                                                                                                      \
        error = NULL;                                                                                          \
        if ((call) != check_found) {                                                                           \
            printf("%s:%d: %s\n  gives another status without an error pointer\n", __FILE__, __LINE__, #call); \
            check_failures++;                                                                                  \
        }                                                                                                      \
    } while (0)

/* The call, written with `error` as its last argument, succeeds; otherwise the test ends. Made once. */
#define SUCCEEDS(call)                                                                             \
    do {                                                                                           \
        mantle_error *check_object = NULL;                                                         \
        mantle_error **error = &check_object;                                                      \
        mantle_status check_found = (call);                                                        \
        if (!check_status(__FILE__, __LINE__, #call, MANTLE_OK, check_found, check_object, NULL)) { \
            exit(EXIT_FAILURE);                                                                    \
        }                                                                                          \
    } while (0)

static inline int check_result(void)
{
    if (check_failures > 0) {
        printf("%d checks failed\n", check_failures);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

#endif
