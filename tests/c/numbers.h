/* Pseudo-random numbers and comparisons for the tests of the kernels. */
#ifndef NUMBERS_H
#define NUMBERS_H

#include "check.h"
#include <math.h>

static uint64_t number_state = 42;

/* xorshift64 (Marsaglia 2003). */
static inline uint64_t random_bits(void)
{
    number_state ^= number_state << 13;
    number_state ^= number_state >> 7;
    return number_state ^= number_state << 17;
}

static inline size_t random_within(size_t low, size_t high)
{
    return low + (size_t)(random_bits() >> 16) % (high - low + 1);
}

/* Uniform in -size..size. */
static inline float random_number(float size)
{
    return ((float)(random_bits() >> 40) / 8388608.0f - 1.0f) * size;
}

/* `count` random numbers, to be freed. */
static inline float *random_numbers(size_t count, float size)
{
    float *values = malloc((count + 1) * sizeof *values);
    REQUIRE(values != NULL);
    for (size_t i = 0; i < count; i++) {
        values[i] = random_number(size);
    }
    return values;
}

static inline int is_near(double found, double expected, double relative, double absolute)
{
    return fabs(found - expected) <= fabs(expected) * relative + absolute;
}

static inline mantle_runtime *runtime_of(uint32_t threads)
{
    mantle_runtime_options options;
    mantle_runtime *runtime = NULL;
    SUCCEEDS(mantle_runtime_options_init(&options, sizeof options, error));
    options.threads = threads;
    SUCCEEDS(mantle_runtime_new(&options, &runtime, error));
    return runtime;
}

#endif
