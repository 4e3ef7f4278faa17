/* Generated from src/ffi by build.rs (cbindgen); do not edit: change src/ffi, then `make header`. */
#ifndef MANTLE_H
#define MANTLE_H

/*
 * mantle.h - transformer models on CPUs.
 *
 * A program makes a runtime (threads, memory, log), opens a model, asks how much memory a session
 * needs, makes the session, and runs forward passes in it. This header is the manual.
 *
 * What holds for every function
 *
 * Results. A function that can fail returns a mantle_status: MANTLE_OK (0), or a negative number.
 *   Its last parameter, `mantle_error **error`, may be NULL; otherwise *error is always written:
 *   NULL on success, on failure an object that says what was found and what was expected. The
 *   caller frees it with mantle_error_free. Nothing is printed, and no error is kept per thread.
 * Outputs. Output parameters stand last before `error` and are written only on success, with two
 *   exceptions: a pointer to a new object is set to NULL on failure, and the `size` of an output
 *   buffer is also written with MANTLE_ERROR_BUFFER_TOO_SMALL (then it is the size needed).
 * NULL. A parameter may be NULL only where its function says so; elsewhere NULL is
 *   MANTLE_ERROR_INVALID_ARGUMENT. A pointer with a count of 0 may always be NULL.
 * Pointers. A pointer that is not NULL points to what its type and count say, aligned for its type;
 *   an object is one that this library gave and that has not been freed. This is the caller's duty:
 *   the library cannot check it.
 * Strings. Text goes in and out as UTF-8 with a length in bytes, without a closing NUL. The few
 *   `const char *` results without a length are closed by NUL.
 * Structures. Each starts with `struct_size`, which the caller sets to sizeof of the structure (the
 *   init functions do it). A program built against an older header keeps working: the fields it
 *   does not know take their defaults. One built against a newer header works as long as the
 *   fields that this library does not know are zero; otherwise MANTLE_ERROR_ABI_MISMATCH.
 * Ownership. What a function named *_new or *_open gives is freed by the *_free of its type; each
 *   *_free accepts NULL. Objects hold what they need: a runtime may be freed before its models, a
 *   model before its sessions. "Borrowed" results belong to the object they came from.
 * Threads. A parameter `const T *` may be used by several threads at once. Any other handle serves
 *   one thread at a time: a second one gets MANTLE_ERROR_BUSY, and nothing is disturbed. An object
 *   must not be freed while another thread may still use it; from inside a callback it may be: it
 *   lives until the running call ends.
 * Callbacks. Run on the calling thread unless their type says otherwise. They must return: no longjmp
 *   and no C++ exception may pass through the library.
 * Failures. A failed call leaves its objects usable. The exception is MANTLE_ERROR_PANIC, a defect of
 *   the library that was caught: the object concerned refuses further calls and can only be freed.
 * Numbers. Constants are pinned: never renumbered, never reused. New ones may appear.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define MANTLE_MUST_USE __attribute__((warn_unused_result))
#else
#define MANTLE_MUST_USE
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * ------------------------------------------------------------------------------------------------
 * Version, build, processor
 * ------------------------------------------------------------------------------------------------
 */

// Version of this header. The library's own is mantle_version().
#define MANTLE_VERSION_MAJOR 0
// See MANTLE_VERSION_MAJOR.
#define MANTLE_VERSION_MINOR 1
// See MANTLE_VERSION_MAJOR.
#define MANTLE_VERSION_PATCH 0
// Generation of the binary interface: the number in the shared library's soname, libmantle.so.0.
// Within one generation a program never has to be rebuilt.
#define MANTLE_ABI_VERSION 0
// x86: SSE with fused multiply-add on 256-bit vectors (AVX2, FMA, F16C).
#define MANTLE_CPU_AVX2 (1 << 0)
// x86: 8-bit dot products on 256-bit vectors (AVX-VNNI).
#define MANTLE_CPU_AVXVNNI (1 << 1)
// x86: 512-bit vectors (AVX-512 F, BW, DQ, VL).
#define MANTLE_CPU_AVX512 (1 << 2)
// x86: 8-bit dot products on 512-bit vectors (AVX-512 VNNI).
#define MANTLE_CPU_AVX512VNNI (1 << 3)
// x86: bfloat16 dot products on 512-bit vectors (AVX-512 BF16).
#define MANTLE_CPU_AVX512BF16 (1 << 4)
// x86: tiles of 8-bit integers (AMX-INT8).
#define MANTLE_CPU_AMX_INT8 (1 << 5)
// Arm: 128-bit vectors (Advanced SIMD).
#define MANTLE_CPU_NEON (1 << 16)
// Arm: 8-bit dot products (FEAT_DotProd).
#define MANTLE_CPU_NEON_DOTPROD (1 << 17)
// Arm: 8-bit matrix products (FEAT_I8MM).
#define MANTLE_CPU_NEON_I8MM (1 << 18)
// Arm: bfloat16 products (FEAT_BF16).
#define MANTLE_CPU_NEON_BF16 (1 << 19)

// The library's version: major * 1000000 + minor * 1000 + patch. Any thread.
uint32_t mantle_version(void);

// The library's MANTLE_ABI_VERSION. Any thread.
uint32_t mantle_abi_version(void);

// Version, target, profile and compiler of the library in one line, such as "libmantle 0.1.0
// x86_64-unknown-linux-gnu release rustc 1.95.0". For people; closed by NUL, valid for ever. Any thread.
const char *mantle_build_info(void);

// What this processor and operating system offer: MANTLE_CPU_* bits. The instruction set that a
// runtime really uses is in mantle_runtime_info. Any thread.
uint64_t mantle_cpu_features(void);

/*
 * ------------------------------------------------------------------------------------------------
 * Status and errors
 * ------------------------------------------------------------------------------------------------
 */

// What went wrong in one call. Immutable; made by the call, freed by the caller.
typedef struct mantle_error mantle_error;

// How a call ended: MANTLE_OK, or the class of the error. A number that a program does not know is
// an error of a class that came later.
typedef int32_t mantle_status;

// Success.
#define MANTLE_OK 0
// An argument is NULL, of a wrong size or out of range.
#define MANTLE_ERROR_INVALID_ARGUMENT (-1)
// A file, key, tensor or sequence does not exist.
#define MANTLE_ERROR_NOT_FOUND (-2)
// The operating system refused to read or write.
#define MANTLE_ERROR_IO (-3)
// A file breaks the rules of its format.
#define MANTLE_ERROR_FORMAT (-4)
// The file or request is valid, but asks for something this library does not do.
#define MANTLE_ERROR_UNSUPPORTED (-5)
// Memory could not be had, or a memory limit would be exceeded.
#define MANTLE_ERROR_NO_MEMORY (-6)
// An output buffer is too small; the size needed was written.
#define MANTLE_ERROR_BUFFER_TOO_SMALL (-7)
// A sequence does not fit into the session's context.
#define MANTLE_ERROR_CONTEXT_FULL (-8)
// The caller cancelled the call.
#define MANTLE_ERROR_CANCELLED (-9)
// The object is in use by another call.
#define MANTLE_ERROR_BUSY (-10)
// A defect inside the library was caught; the object concerned refuses further calls.
#define MANTLE_ERROR_PANIC (-11)
// Header and library do not match: a struct_size that this library cannot serve.
#define MANTLE_ERROR_ABI_MISMATCH (-12)

// The name of a status, such as "INVALID_ARGUMENT"; "UNKNOWN" for a number this library does not
// know. Closed by NUL, valid for ever. Any thread.
const char *mantle_status_name(mantle_status status);

// The class of an error; the same number that the call returned. MANTLE_OK for NULL.
mantle_status mantle_error_status(const struct mantle_error *error);

// What was found and what was expected: one sentence in English, closed by NUL, borrowed from the
// error. "" for NULL.
const char *mantle_error_message(const struct mantle_error *error);

// Where it went wrong: file, tensor or field, outermost first, joined by ": "; often "". Closed by
// NUL, borrowed from the error. A message for people is context, ": ", message. "" for NULL.
const char *mantle_error_context(const struct mantle_error *error);

// Frees an error object and its texts. NULL is accepted.
void mantle_error_free(struct mantle_error *error);

/*
 * ------------------------------------------------------------------------------------------------
 * Element types
 * ------------------------------------------------------------------------------------------------
 *
 * Quantized types store blocks: so many values share scales and take so many bytes. A row of a tensor
 * is a whole number of blocks. Every type below is recognised in files; which ones the library
 * multiplies is told by mantle_matrix_new and mantle_model_open, which refuse the others by name.
 */

// Element type of tensors. Numbers up to 255 are those of GGUF (ggml_type).
typedef int32_t mantle_dtype;

// 32-bit float.
#define MANTLE_DTYPE_F32 0
// 16-bit float (IEEE half).
#define MANTLE_DTYPE_F16 1
// 4 bits, scale per 32. 32 values in 18 bytes.
#define MANTLE_DTYPE_Q4_0 2
// 4 bits, scale and minimum per 32. 32 values in 20 bytes.
#define MANTLE_DTYPE_Q4_1 3
// 5 bits, scale per 32. 32 values in 22 bytes.
#define MANTLE_DTYPE_Q5_0 6
// 5 bits, scale and minimum per 32. 32 values in 24 bytes.
#define MANTLE_DTYPE_Q5_1 7
// 8 bits, scale per 32. 32 values in 34 bytes.
#define MANTLE_DTYPE_Q8_0 8
// 8 bits, scale and sum per 32 (activations only). 32 values in 36 bytes.
#define MANTLE_DTYPE_Q8_1 9
// 2 bits, super-blocks of 256. 256 values in 84 bytes.
#define MANTLE_DTYPE_Q2_K 10
// 3 bits, super-blocks of 256. 256 values in 110 bytes.
#define MANTLE_DTYPE_Q3_K 11
// 4 bits, super-blocks of 256. 256 values in 144 bytes.
#define MANTLE_DTYPE_Q4_K 12
// 5 bits, super-blocks of 256. 256 values in 176 bytes.
#define MANTLE_DTYPE_Q5_K 13
// 6 bits, super-blocks of 256. 256 values in 210 bytes.
#define MANTLE_DTYPE_Q6_K 14
// 8 bits, super-blocks of 256 (activations only). 256 values in 292 bytes.
#define MANTLE_DTYPE_Q8_K 15
// 2.06 bits, lattice. 256 values in 66 bytes.
#define MANTLE_DTYPE_IQ2_XXS 16
// 2.31 bits, lattice. 256 values in 74 bytes.
#define MANTLE_DTYPE_IQ2_XS 17
// 3.06 bits, lattice. 256 values in 98 bytes.
#define MANTLE_DTYPE_IQ3_XXS 18
// 1.56 bits, lattice. 256 values in 50 bytes.
#define MANTLE_DTYPE_IQ1_S 19
// 4 bits, non-linear code book, scale per 32. 32 values in 18 bytes.
#define MANTLE_DTYPE_IQ4_NL 20
// 3.44 bits, lattice. 256 values in 110 bytes.
#define MANTLE_DTYPE_IQ3_S 21
// 2.56 bits, lattice. 256 values in 82 bytes.
#define MANTLE_DTYPE_IQ2_S 22
// 4.25 bits, non-linear code book, super-blocks of 256. 256 values in 136 bytes.
#define MANTLE_DTYPE_IQ4_XS 23
// 8-bit integer.
#define MANTLE_DTYPE_I8 24
// 16-bit integer.
#define MANTLE_DTYPE_I16 25
// 32-bit integer.
#define MANTLE_DTYPE_I32 26
// 64-bit integer.
#define MANTLE_DTYPE_I64 27
// 64-bit float.
#define MANTLE_DTYPE_F64 28
// 1.75 bits, lattice. 256 values in 56 bytes.
#define MANTLE_DTYPE_IQ1_M 29
// 16-bit float with the exponent of F32.
#define MANTLE_DTYPE_BF16 30
// 1.69 bits, ternary. 256 values in 54 bytes.
#define MANTLE_DTYPE_TQ1_0 34
// 2.06 bits, ternary. 256 values in 66 bytes.
#define MANTLE_DTYPE_TQ2_0 35
// 4-bit float, shared exponent per 32. 32 values in 17 bytes.
#define MANTLE_DTYPE_MXFP4 39
// 4-bit float, FP8 scale per 16. 64 values in 36 bytes.
#define MANTLE_DTYPE_NVFP4 40
// 1 bit, scale per 128. 128 values in 18 bytes.
#define MANTLE_DTYPE_Q1_0 41
// 2 bits, scale per 64. 64 values in 18 bytes.
#define MANTLE_DTYPE_Q2_0 42
// 8-bit unsigned integer (safetensors; GGUF has no number for it).
#define MANTLE_DTYPE_U8 256
// 16-bit unsigned integer (safetensors).
#define MANTLE_DTYPE_U16 257
// 32-bit unsigned integer (safetensors).
#define MANTLE_DTYPE_U32 258
// 64-bit unsigned integer (safetensors).
#define MANTLE_DTYPE_U64 259
// Truth value in a byte (safetensors).
#define MANTLE_DTYPE_BOOL 260
// 8-bit float, 4 exponent and 3 mantissa bits (safetensors).
#define MANTLE_DTYPE_F8_E4M3 261
// 8-bit float, 5 exponent and 2 mantissa bits (safetensors).
#define MANTLE_DTYPE_F8_E5M2 262
// 8-bit power of two (safetensors; scales of MX formats).
#define MANTLE_DTYPE_F8_E8M0 263
// 8-bit float E4M3 without negative zero (safetensors).
#define MANTLE_DTYPE_F8_E4M3FNUZ 264
// 8-bit float E5M2 without negative zero (safetensors).
#define MANTLE_DTYPE_F8_E5M2FNUZ 265
// Complex number of two 32-bit floats (safetensors).
#define MANTLE_DTYPE_C64 266

// The name of an element type as the field writes it, such as "Q4_K"; "UNKNOWN" for a number this
// library does not know. Closed by NUL, valid for ever. Any thread.
const char *mantle_dtype_name(mantle_dtype dtype);

/*
 * ------------------------------------------------------------------------------------------------
 * Cancellation
 * ------------------------------------------------------------------------------------------------
 */

// A request to stop, which may be handed to any call that can take long. Such a call looks at it at
// least once per layer, chunk of a prompt or tensor, then ends with MANTLE_ERROR_CANCELLED; its objects
// stay usable. The object may serve many calls, also at once.
typedef struct mantle_cancel mantle_cancel;

// Makes a request that has not been fired. Free it with mantle_cancel_free. Any thread.
MANTLE_MUST_USE mantle_status mantle_cancel_new(struct mantle_cancel **out, mantle_error **error);

// Asks the calls that hold `cancel` to stop. Any thread; also in a signal handler. NULL is ignored.
void mantle_cancel_fire(const struct mantle_cancel *cancel);

// Takes the request back, so that the object may serve again. Any thread. NULL is ignored.
void mantle_cancel_reset(const struct mantle_cancel *cancel);

// Whether the request has been fired and not taken back; false for NULL. Any thread.
bool mantle_cancel_is_fired(const struct mantle_cancel *cancel);

// Frees the object; calls that hold it go on and can no longer be stopped. NULL is accepted.
void mantle_cancel_free(struct mantle_cancel *cancel);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* MANTLE_H */
