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

/*
 * ------------------------------------------------------------------------------------------------
 * Measuring: steps and strategies by themselves
 * ------------------------------------------------------------------------------------------------
 *
 * For benchmarks: what is inside of other calls, and what the library chooses by itself.
 */

// Weights are decoded in whichever of the ways below is faster for the type and the number of tokens.
#define MANTLE_STRATEGY_FASTEST 0
// Weights are decoded in registers, for every few tokens anew.
#define MANTLE_STRATEGY_IN_REGISTERS 1
// Weights are decoded to the first-level cache, once for many tokens.
#define MANTLE_STRATEGY_IN_CACHE 2
// Weights are floats: there is nothing to decode.
#define MANTLE_STRATEGY_NONE 3
// Handing an empty piece of work to every thread of the runtime, and waiting for all of them.
#define MANTLE_STEP_FORK_JOIN 0
// Quantization of `rows` rows of `columns` activations to 8 bits per 32 values.
#define MANTLE_STEP_QUANTIZE 1
// Attention of a document of `rows` tokens to itself, as in encoders: keys and values are F32.
#define MANTLE_STEP_ATTENTION 2
// Causal attention of the last `rows` of `columns` tokens of a sequence, over a cache of F16.
#define MANTLE_STEP_CACHED_ATTENTION 3

// How large a step is. What is not named with the step is not looked at.
typedef struct mantle_step_shape {
  // sizeof(mantle_step_shape).
  size_t struct_size;
  // Rows or tokens.
  uint32_t rows;
  // Columns or keys.
  uint32_t columns;
  // Attention: query heads, a multiple of kv_heads.
  uint32_t heads;
  // Attention: key and value heads.
  uint32_t kv_heads;
  // Attention: values of a head.
  uint32_t head_dim;
  // 0.
  uint32_t reserved;
  // Cached attention: use as many caches in turn as take so many bytes together; 0 for one.
  uint64_t working_set;
} mantle_step_shape;

// What a step took.
typedef struct mantle_step_result {
  // sizeof(mantle_step_result), set by the caller.
  size_t struct_size;
  // The best time of many.
  double seconds;
  // As in mantle_profile_entry.
  uint64_t operations;
  // As in mantle_profile_entry.
  uint64_t bytes;
} mantle_step_result;

// Runs a step, MANTLE_STEP_*, again and again with made-up data for about `milliseconds` (1 to 60000). Any thread.
// Errors: INVALID_ARGUMENT (an unknown step, a shape with 0 or too large), NO_MEMORY.
MANTLE_MUST_USE
mantle_status mantle_measure_step(const mantle_runtime *runtime,
                                  int32_t step,
                                  const struct mantle_step_shape *shape,
                                  uint32_t milliseconds,
                                  struct mantle_step_result *result,
                                  mantle_error **error);

// Chooses how the weights of a matrix are decoded, MANTLE_STRATEGY_*; the results are the same. One thread per
// matrix.
// Errors: INVALID_ARGUMENT (an unknown strategy), BUSY.
mantle_status mantle_matrix_set_strategy(mantle_matrix *matrix,
                                         int32_t strategy,
                                         mantle_error **error);

// Tells how the weights of a matrix are decoded when `count` vectors are multiplied: MANTLE_STRATEGY_IN_REGISTERS,
// _IN_CACHE or _NONE. Any thread.
mantle_status mantle_matrix_strategy(const mantle_runtime *runtime,
                                     const mantle_matrix *matrix,
                                     size_t count,
                                     int32_t *strategy,
                                     mantle_error **error);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* MANTLE_EXPERIMENTAL_H */
