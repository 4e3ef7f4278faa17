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
 * Activations: quantized rows
 * ------------------------------------------------------------------------------------------------
 *
 * What mantle_matmul does with its inputs inside, to look at or to store, and the forms of MCF. Rows follow one
 * another at any alignment; all numbers are little-endian.
 */

// How a row of activations is quantized.
typedef int32_t mantle_activation_form;

// As mantle_matmul does it for quantized weights: 8-bit codes with a scale for each 32 values, of every 256 values
// one group of four apart (docs/activations.md). A row of n values has b = n / 32 (rounded up) blocks and
// s = b / 8 (rounded up) groups: b scales (f32); s times place (u32: a quarter of the index of the group's first
// value among its 256), four codes (i8), scale (f32); then 32 * b codes (i8), 0 behind the end. A value is the
// scale of its block times its code, and for the values of a group plus the group's scale times the code there.
#define MANTLE_ACTIVATIONS_BLOCKS 0
// One scale for the row: scale (f32), n codes (i8, up to 127 in magnitude). A value is scale * code.
#define MANTLE_ACTIVATIONS_ROW 1
// MCF's int8: scale (f32), zero point (f32), n codes (i8, up to 127 in magnitude). A value is scale times
// the difference of code and zero point.
#define MANTLE_ACTIVATIONS_INT8 2
// MCF's int4: scale (f32), zero point (f32), n codes (4 bits in two's complement, up to 7 in magnitude, two a byte,
// the first in the low half, 0 behind the end). A value is scale times the difference of code and zero point.
#define MANTLE_ACTIVATIONS_INT4 3

// Tells how many bytes a quantized row of `columns` values takes. Any thread.
// Errors: INVALID_ARGUMENT (an unknown form).
mantle_status mantle_activation_row_bytes(mantle_activation_form form,
                                          size_t columns,
                                          size_t *bytes,
                                          mantle_error **error);

// Quantizes `rows` rows of `columns` values. Row r begins at values + r * stride (in values, at least `columns`);
// the results follow each other in `data`, which has `size` = rows * mantle_activation_row_bytes bytes. Codes are
// rounded to nearest even. A block or row with NaN or infinity (a block also with 2^111 or more) gets the scale NaN and
// codes of 0, so that all of it becomes NaN; a block, a group or a symmetric row whose largest magnitude is tiny (below
// 1.5e-36, for a row 127 times that) counts as 0; a row with a zero point whose values differ by less than 254
// (int4: 14) times 1.5e-36 as constant. The same bits on every instruction set. Runs on the runtime's threads. Any thread.
// Errors: INVALID_ARGUMENT (an unknown form, a stride too small, a wrong size), NO_MEMORY (scratch).
mantle_status mantle_quantize_activations(const mantle_runtime *runtime,
                                          mantle_activation_form form,
                                          const float *values,
                                          size_t rows,
                                          size_t columns,
                                          size_t stride,
                                          void *data,
                                          size_t size,
                                          mantle_error **error);

// The values that mantle_quantize_activations rounded to: `size` = rows * mantle_activation_row_bytes bytes at
// `data`. Row r goes to values + r * stride (in values, at least `columns`). Runs on the runtime's threads. Any
// thread.
// Errors: INVALID_ARGUMENT (an unknown form, a stride too small, a wrong size).
mantle_status mantle_dequantize_activations(const mantle_runtime *runtime,
                                            mantle_activation_form form,
                                            const void *data,
                                            size_t size,
                                            size_t rows,
                                            size_t columns,
                                            float *values,
                                            size_t stride,
                                            mantle_error **error);

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
