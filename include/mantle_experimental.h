/* Generated from src/ffi by build.rs (cbindgen); do not edit: change src/ffi, then `make header`. */
#ifndef MANTLE_EXPERIMENTAL_H
#define MANTLE_EXPERIMENTAL_H

/*
 * mantle_experimental.h - what may still change.
 *
 * The conventions of mantle.h hold here too, except that a function may change or go with any version:
 * the soname does not move for it. What proves itself moves to mantle.h.
 */

#include "mantle.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ------------------------------------------------------------------------------------------------
 * Limits: what this machine can do
 * ------------------------------------------------------------------------------------------------
 *
 * The other side of a benchmark's percentage. Measure them in the same run as what is compared with them:
 * a machine that others use too is not the same a minute later.
 */

// Multiply-adds of 8-bit integers into 32 bits, as VNNI does: operations per second, two per multiply-add.
#define MANTLE_LIMIT_INTEGER_DOT 0
// Fused multiply-adds of f32: operations per second, two per multiply-add.
#define MANTLE_LIMIT_FUSED_MULTIPLY_ADD 1
// Multiply-adds of bfloat16 into f32: operations per second, two per multiply-add. 0 where the processor has
// no instruction for it.
#define MANTLE_LIMIT_BF16_DOT 2
// Reading memory: bytes per second of all threads together.
#define MANTLE_LIMIT_READ 3

// Measures a limit of this machine, MANTLE_LIMIT_*, with the best instruction set it has, and writes what all
// threads together reach to `rate`. `threads` (1 to 1024) are started and pinned for it and end with the call.
// It works for about `milliseconds` (1 to 60000) in slices of two milliseconds; the best slice counts, so
// that other programs disturb the result as little as can be. For MANTLE_LIMIT_READ each thread reads a buffer
// of its own of `bytes_per_thread` over and over; the other limits ignore it. Any thread.
// Errors: INVALID_ARGUMENT (an unknown limit, a number out of range), NO_MEMORY, IO (a thread could not be
// started).
MANTLE_MUST_USE
mantle_status mantle_measure_limit(int32_t limit,
                                   uint32_t threads,
                                   size_t bytes_per_thread,
                                   uint32_t milliseconds,
                                   double *rate,
                                   mantle_error **error);

// Bytes of the processor's last-level cache; 32 MiB where the system does not tell. Any thread.
size_t mantle_last_level_cache(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* MANTLE_EXPERIMENTAL_H */
