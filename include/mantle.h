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
 * Threads. A parameter `const T *` may be used by several threads at once. A parameter `T *` is for one
 *   call at a time: while it runs, every other call with the object gets MANTLE_ERROR_BUSY, and nothing
 *   is disturbed. An object must not be freed while another thread may still use it; from inside a
 *   callback it may be: it lives until the running call ends.
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
 * is a whole number of blocks (the types of MCF fill the last one up). Every type below is recognised in files; which ones the library
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
// 8 bits, scale per 32 (MCF). 32 values in 34 bytes; the last block of a row may be filled up with zeros.
#define MANTLE_DTYPE_Q8 544
// 4 bits, scale per 32 (MCF). 32 values in 18 bytes; the last block of a row may be filled up with zeros.
#define MANTLE_DTYPE_Q4 545
// 6 bits, super-blocks of 256 (MCF). 256 values in 202 bytes; the last block of a row may be filled up with zeros.
#define MANTLE_DTYPE_K6 560
// 4 bits, super-blocks of 256 (MCF). 256 values in 138 bytes; the last block of a row may be filled up with zeros.
#define MANTLE_DTYPE_K4 561
// 3 bits, super-blocks of 256 (MCF). 256 values in 106 bytes; the last block of a row may be filled up with zeros.
#define MANTLE_DTYPE_K3 562
// 2 bits, super-blocks of 256 (MCF). 256 values in 74 bytes; the last block of a row may be filled up with zeros.
#define MANTLE_DTYPE_K2 563

// The name of an element type as the field writes it, such as "Q4_K"; "UNKNOWN" for a number this
// library does not know. Closed by NUL, valid for ever. Any thread.
const char *mantle_dtype_name(mantle_dtype dtype);

/*
 * ------------------------------------------------------------------------------------------------
 * Runtime: threads, memory, log, instruction set
 * ------------------------------------------------------------------------------------------------
 */

// As many threads as the process may use: its affinity mask and its cgroup's quota.
#define MANTLE_THREADS_AUTO 4294967295
// Words of mantle_runtime_options.cpus, 64 CPUs each.
#define MANTLE_CPU_WORDS 16
// The best instruction set that the processor has.
#define MANTLE_ISA_BEST 0
// No vector instructions asked for: runs everywhere, slowly.
#define MANTLE_ISA_SCALAR 1
// x86 AVX2 and FMA.
#define MANTLE_ISA_AVX2 2
// x86 AVX2, FMA and AVX-VNNI.
#define MANTLE_ISA_AVXVNNI 3
// x86 AVX-512 (F, BW, DQ, VL), with VNNI and BF16 where the processor has them.
#define MANTLE_ISA_AVX512 4
// Arm NEON, as every aarch64 has it.
#define MANTLE_ISA_NEON 5
// Arm NEON with dot products of signed bytes (Armv8.2 dotprod).
#define MANTLE_ISA_NEON_DOTPROD 6
// Arm NEON with dot products of unsigned and signed bytes (Armv8.6 i8mm).
#define MANTLE_ISA_NEON_I8MM 7
// No messages.
#define MANTLE_LOG_OFF 0
// What failed in a way that no call could report.
#define MANTLE_LOG_ERROR 1
// What works, but probably not as intended.
#define MANTLE_LOG_WARNING 2
// What was chosen and how long it took: a few lines per model.
#define MANTLE_LOG_INFO 3
// Everything.
#define MANTLE_LOG_DEBUG 4

// A pool of threads, the memory and the log that models and sessions share. A program needs one; several
// do not disturb each other. Several threads may use one runtime at once: the pool then serves one of
// them, and the others compute alone meanwhile.
typedef struct mantle_runtime mantle_runtime;

// Gets one message: its MANTLE_LOG_* level, the part of the library it comes from, and the text, both
// UTF-8 and not closed by NUL. May be called from any thread, also from several at once.
typedef void (*mantle_log_fn)(void *user_data,
                              int32_t level,
                              const char *target,
                              size_t target_length,
                              const char *message,
                              size_t message_length);

// Gives `size` bytes aligned to `alignment` (a power of two, at most 2 MiB), or NULL. The contents do not
// matter. May be called from any thread, also from several at once.
typedef void *(*mantle_allocate_fn)(void *user_data, size_t size, size_t alignment);

// Takes back what mantle_allocate_fn gave, with the same size and alignment. From any thread.
typedef void (*mantle_release_fn)(void *user_data, void *memory, size_t size, size_t alignment);

// How to make a runtime. Set the defaults with mantle_runtime_options_init.
typedef struct mantle_runtime_options {
  // sizeof(mantle_runtime_options).
  size_t struct_size;
  // Threads that compute, the calling one counted: 1 to 1024, or MANTLE_THREADS_AUTO (default). With 1 no
  // thread is started.
  uint32_t threads;
  // How long a thread without work spins before it sleeps, in microseconds. More makes short steps
  // faster and costs power.
  uint32_t spin_microseconds;
  // The most capable instruction set to use, MANTLE_ISA_*; default MANTLE_ISA_BEST. When the processor
  // lacks it, the next lower one of the same architecture is used, at last MANTLE_ISA_SCALAR. The
  // environment variable MANTLE_ISA (a name as of mantle_isa_name) goes before it and forces one. The
  // results are the same bits with every one.
  int32_t isa;
  // Messages up to this MANTLE_LOG_* level go to `log`; default MANTLE_LOG_WARNING.
  int32_t log_level;
  // Bytes of a core's first- and second-level data caches, by which the work is cut; 0 (default): what the
  // system says. At most 1 MiB and 64 MiB. They change the speed only.
  uint32_t first_cache_bytes;
  // See `first_cache_bytes`.
  uint32_t second_cache_bytes;
  // 1 (default): weights are fetched into the caches ahead of their use; 0: the hardware does it alone.
  int32_t prefetch;
  // 1 (default): large buffers are advised to the system as huge pages; 0: they are not.
  int32_t huge_pages;
  // CPUs to pin the started threads to: CPU i is bit i % 64 of word i / 64. All zero (default) pins none.
  uint64_t cpus[MANTLE_CPU_WORDS];
  // Gets the messages; NULL (default) for none.
  mantle_log_fn log;
  // Handed to `log`.
  void *log_user_data;
  // Gives the memory of weights, caches and scratch; NULL (default) for the system's. Small objects
  // (handles, names, error texts) always come from the system.
  mantle_allocate_fn allocate;
  // Takes memory back; NULL exactly when `allocate` is NULL.
  mantle_release_fn release;
  // Handed to `allocate` and `release`.
  void *allocator_user_data;
} mantle_runtime_options;

// What a runtime uses.
typedef struct mantle_runtime_info {
  // sizeof(mantle_runtime_info), set by the caller.
  size_t struct_size;
  // Threads that compute, the calling one counted.
  uint32_t threads;
  // The instruction set in use, MANTLE_ISA_*.
  int32_t isa;
  // Bytes of the first- and second-level data caches by which the work is cut.
  uint32_t first_cache_bytes;
  // See `first_cache_bytes`.
  uint32_t second_cache_bytes;
} mantle_runtime_info;

// Memory in bytes: held, or needed. Which fields are set depends on the function; the others are 0.
typedef struct mantle_memory {
  // sizeof(mantle_memory), set by the caller.
  size_t struct_size;
  // The sum of the fields below `peak`, or, of a runtime, everything its allocator gave out.
  uint64_t total;
  // The largest `total` so far.
  uint64_t peak;
  // Weights in the layout of the kernels.
  uint64_t weights;
  // Keys and values of the sequences.
  uint64_t cache;
  // Intermediate results of a forward pass.
  uint64_t scratch;
  // Everything else: tables, metadata, vocabulary.
  uint64_t other;
} mantle_memory;

// Sets `options` to the defaults. `size` is sizeof(mantle_runtime_options). Any thread.
mantle_status mantle_runtime_options_init(struct mantle_runtime_options *options,
                                          size_t size,
                                          mantle_error **error);

// Makes a runtime and starts its threads. `options` may be NULL for the defaults. Free it with
// mantle_runtime_free. Any thread.
// Errors: INVALID_ARGUMENT (0 threads or too many, an unknown number, an `allocate` without `release`),
// UNSUPPORTED (MANTLE_ISA asks for what the processor lacks), IO (a thread could not be started).
MANTLE_MUST_USE
mantle_status mantle_runtime_new(const struct mantle_runtime_options *options,
                                 struct mantle_runtime **out,
                                 mantle_error **error);

// Tells what the runtime uses. Any thread.
mantle_status mantle_runtime_get_info(const struct mantle_runtime *runtime,
                                      struct mantle_runtime_info *info,
                                      mantle_error **error);

// Tells how much memory the runtime's allocator holds for weights, caches, scratch and arenas together:
// `total` now, `peak` at most so far. Any thread.
mantle_status mantle_runtime_memory(const struct mantle_runtime *runtime,
                                    struct mantle_memory *memory,
                                    mantle_error **error);

// Frees the runtime. Models, sessions, arenas and matrices made with it stay usable; the threads end
// with the last of them. NULL is accepted.
void mantle_runtime_free(struct mantle_runtime *runtime);

// The name of an instruction set as MANTLE_ISA takes it, such as "avx512"; "unknown" for a number that
// this library does not know. Closed by NUL, valid for ever. Any thread.
const char *mantle_isa_name(int32_t isa);

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

/*
 * ------------------------------------------------------------------------------------------------
 * Tokenizer
 * ------------------------------------------------------------------------------------------------
 */

// mantle_tokenize: add the tokens that the model expects around a text (begin, end).
#define MANTLE_TOKENIZE_ADD_SPECIAL (1 << 0)
// mantle_tokenize: text that is written like a control token becomes that token. Not for text of users.
#define MANTLE_TOKENIZE_PARSE_SPECIAL (1 << 1)
// mantle_detokenize: leave control tokens out.
#define MANTLE_DETOKENIZE_SKIP_SPECIAL (1 << 0)
// Begins a sequence.
#define MANTLE_SPECIAL_BOS 0
// Ends a sequence.
#define MANTLE_SPECIAL_EOS 1
// Ends a turn of a conversation.
#define MANTLE_SPECIAL_EOT 2
// Ends a message that more messages of the same turn follow.
#define MANTLE_SPECIAL_EOM 3
// Stands for text that has no token.
#define MANTLE_SPECIAL_UNKNOWN 4
// Fills up a batch; this library never needs it.
#define MANTLE_SPECIAL_PAD 5
// Separates or ends texts (BERT).
#define MANTLE_SPECIAL_SEP 6
// Begins a text (BERT).
#define MANTLE_SPECIAL_CLS 7
// Stands for a token to be guessed (BERT).
#define MANTLE_SPECIAL_MASK 8
// A line feed.
#define MANTLE_SPECIAL_NEWLINE 9

// Turns text into token ids and back. Belongs to its model; never changes.
typedef struct mantle_tokenizer mantle_tokenizer;

// The number of a token: 0 up to the size of the vocabulary.
typedef int32_t mantle_token;

// No token: the answer to a question for a token that the model does not have.
#define MANTLE_TOKEN_NONE (-1)

// Turns `text`, `length` bytes of UTF-8, into token ids. `flags` are MANTLE_TOKENIZE_* bits. The ids go to
// `tokens`, which has room for `capacity`; `size` tells how many there are. With capacity 0, `tokens` may be
// NULL, to ask for the size. Any thread.
// Errors: INVALID_ARGUMENT (text that is not UTF-8: the message tells the first wrong byte; unknown flags),
// BUFFER_TOO_SMALL (`size` tells what is needed).
mantle_status mantle_tokenize(const struct mantle_tokenizer *tokenizer,
                              const char *text,
                              size_t length,
                              uint32_t flags,
                              mantle_token *tokens,
                              size_t capacity,
                              size_t *size,
                              mantle_error **error);

// Turns `count` token ids into text. `flags` are MANTLE_DETOKENIZE_* bits. The text goes to `text`, which has
// room for `capacity` bytes and is not closed by NUL; `size` tells its length. It is UTF-8 when the ids came
// from mantle_tokenize; a part of such ids may begin or end inside a character. With capacity 0, `text` may
// be NULL, to ask for the size. Any thread.
// Errors: INVALID_ARGUMENT (an id outside the vocabulary, unknown flags), BUFFER_TOO_SMALL (`size` tells
// what is needed).
mantle_status mantle_detokenize(const struct mantle_tokenizer *tokenizer,
                                const mantle_token *tokens,
                                size_t count,
                                uint32_t flags,
                                char *text,
                                size_t capacity,
                                size_t *size,
                                mantle_error **error);

// Tells how many tokens the vocabulary has; ids are below it. Any thread.
mantle_status mantle_tokenizer_vocabulary_size(const struct mantle_tokenizer *tokenizer,
                                               size_t *size,
                                               mantle_error **error);

// Gives the token with a role, MANTLE_SPECIAL_*; MANTLE_TOKEN_NONE when the model has none. Any thread.
// Errors: INVALID_ARGUMENT (an unknown role).
mantle_status mantle_tokenizer_special(const struct mantle_tokenizer *tokenizer,
                                       int32_t which,
                                       mantle_token *token,
                                       mantle_error **error);

// Tells whether a generated `token` ends the answer. Any thread.
// Errors: INVALID_ARGUMENT (an id outside the vocabulary).
mantle_status mantle_tokenizer_is_end(const struct mantle_tokenizer *tokenizer,
                                      mantle_token token,
                                      bool *is_end,
                                      mantle_error **error);

/*
 * ------------------------------------------------------------------------------------------------
 * Model
 * ------------------------------------------------------------------------------------------------
 */

// Map the file into memory: fastest. If another program shortens the file meanwhile, the system ends the
// process; use MANTLE_LOAD_READ for files that may change.
#define MANTLE_LOAD_MAP 0
// Read the file piece by piece. The same model, bit for bit.
#define MANTLE_LOAD_READ 1

// A model: configuration, weights in the layout of the kernels, tokenizer. Never changes, so any number of
// sessions on any number of threads may share it.
typedef struct mantle_model mantle_model;

// Tells how far a call is: `done` of `total` units (loading: bytes of weights; embedding: tokens). Returns false to
// cancel. Called on the thread of the call.
typedef bool (*mantle_progress_fn)(void *user_data, uint64_t done, uint64_t total);

// How to open a model. Set the defaults with mantle_model_options_init.
typedef struct mantle_model_options {
  // sizeof(mantle_model_options).
  size_t struct_size;
  // MANTLE_LOAD_*; default MANTLE_LOAD_MAP.
  int32_t load_mode;
  // No flags exist yet: 0.
  uint32_t flags;
  // Most bytes that the model may take from the runtime's allocator; 0 (default) for no limit. Checked
  // before any weight is loaded.
  uint64_t memory_limit;
  // Told how far loading is; NULL (default) for none.
  mantle_progress_fn progress;
  // Handed to `progress`.
  void *progress_user_data;
  // Cancels loading when fired; NULL (default) for none.
  const mantle_cancel *cancel;
  // Matrices of floats (F32, F16, BF16) are kept as this type: MANTLE_DTYPE_BF16 takes half of the memory of F32
  // and is faster where the CPU multiplies it, MANTLE_DTYPE_Q8_0 takes a quarter and is faster still; both cost
  // accuracy. MANTLE_WEIGHTS_KEEP (default) for the file's own types. Rows that do not fill the blocks of the
  // type stay as they are.
  mantle_dtype weight_type;
  // 0.
  uint32_t reserved;
} mantle_model_options;

// Weights keep the types that they have in the file.
#define MANTLE_WEIGHTS_KEEP (-1)

// Sets `options` to the defaults. `size` is sizeof(mantle_model_options). Any thread.
mantle_status mantle_model_options_init(struct mantle_model_options *options,
                                        size_t size,
                                        mantle_error **error);

// Opens a model: a GGUF file, or a folder as Hugging Face keeps it (config.json, model.safetensors or its index,
// tokenizer.json). Checks all of it and brings the weights into the layout of the kernels, on all threads of the
// runtime. `path` has `path_length` bytes: a file name as the system takes it. `options` may be NULL for the
// defaults. Free the model with mantle_model_free. Any thread.
// Errors, which name the file, the field or tensor and what was found: NOT_FOUND (also a folder that lacks a
// file), IO, INVALID_ARGUMENT (a device), FORMAT (not a model, or a broken one), UNSUPPORTED (an architecture or
// tensor type that is not computed), NO_MEMORY, CANCELLED.
MANTLE_MUST_USE
mantle_status mantle_model_open(const mantle_runtime *runtime,
                                const char *path,
                                size_t path_length,
                                const struct mantle_model_options *options,
                                struct mantle_model **out,
                                mantle_error **error);

// Like mantle_model_open, from a model file that stands in memory: `size` bytes at `data`, at any
// alignment. They are read during the call only.
MANTLE_MUST_USE
mantle_status mantle_model_open_memory(const mantle_runtime *runtime,
                                       const void *data,
                                       size_t size,
                                       const struct mantle_model_options *options,
                                       struct mantle_model **out,
                                       mantle_error **error);

// Gives the model's tokenizer, borrowed from the model. Made from the file at the first call. Any thread.
// Errors: FORMAT or UNSUPPORTED, when the file has no tokenizer or one that is not known; the model itself
// works without.
mantle_status mantle_model_tokenizer(const struct mantle_model *model,
                                     const mantle_tokenizer **out,
                                     mantle_error **error);

// Frees the model and its tokenizer. Sessions made with it go on. NULL is accepted.
void mantle_model_free(struct mantle_model *model);

/*
 * ------------------------------------------------------------------------------------------------
 * Arena: the memory of one session, taken once
 * ------------------------------------------------------------------------------------------------
 */

// A block of memory that serves one session at a time. mantle_session_bytes tells how much a session
// needs. When its session is freed, the arena may serve another one, so that a program can take all its
// memory at the start.
typedef struct mantle_arena mantle_arena;

// What an arena holds and how much of it is used.
typedef struct mantle_arena_info {
  // sizeof(mantle_arena_info), set by the caller.
  size_t struct_size;
  // Size of the arena in bytes.
  uint64_t bytes;
  // Bytes that the session in it uses; 0 when there is none.
  uint64_t used;
  // The largest `used` so far.
  uint64_t peak;
} mantle_arena_info;

// Makes an arena of `bytes` bytes from the runtime's allocator. Free it with mantle_arena_free. Any thread.
// Errors: INVALID_ARGUMENT (0 bytes), NO_MEMORY.
MANTLE_MUST_USE
mantle_status mantle_arena_new(const mantle_runtime *runtime,
                               size_t bytes,
                               struct mantle_arena **out,
                               mantle_error **error);

// Makes an arena of the caller's memory: `bytes` bytes at `memory`, aligned to 64. The memory must stay
// until the arena and the session in it are freed; nothing else may touch it meanwhile. Free the arena with
// mantle_arena_free, which leaves the memory alone. Any thread.
// Errors: INVALID_ARGUMENT (0 bytes, memory not aligned).
MANTLE_MUST_USE
mantle_status mantle_arena_wrap(void *memory,
                                size_t bytes,
                                struct mantle_arena **out,
                                mantle_error **error);

// Tells size and use of the arena. Any thread.
mantle_status mantle_arena_get_info(const struct mantle_arena *arena,
                                    struct mantle_arena_info *info,
                                    mantle_error **error);

// Frees the arena. A session in it goes on: its memory is released with it. NULL is accepted.
void mantle_arena_free(struct mantle_arena *arena);

/*
 * ------------------------------------------------------------------------------------------------
 * Session: sequences and forward passes
 * ------------------------------------------------------------------------------------------------
 *
 * A session holds up to max_sequences sequences of tokens with their keys and values. mantle_forward
 * appends tokens to sequences and computes their logits: the scores of the token that follows. After the
 * first call it takes no memory any more.
 */

// Compute no logits: faster, when only the sequence matters.
#define MANTLE_LOGITS_NONE 0
// Logits of the last token of each sequence of the call: row i belongs to the i-th sequence.
#define MANTLE_LOGITS_LAST 1
// Logits of every token of the call: row i belongs to tokens[i].
#define MANTLE_LOGITS_ALL 2

// Sequences of one model in one piece of memory. Serves one thread at a time; several sessions of one model
// may be used on several threads.
typedef struct mantle_session mantle_session;

// How large a session is. Set the defaults with mantle_session_options_init.
typedef struct mantle_session_options {
  // sizeof(mantle_session_options).
  size_t struct_size;
  // Most tokens of a sequence, at most what the model was trained for; 0 (default) for that, but not more
  // than 4096.
  uint32_t max_context;
  // Most tokens that one forward pass computes together; 0 (default) for 512. Longer calls are computed in
  // parts, with the same results. More is faster for long prompts and takes more scratch.
  uint32_t max_batch_tokens;
  // Most sequences; 0 (default) for 1. They are numbered from 0.
  uint32_t max_sequences;
  // Most rows of logits that one call gives; 0 (default) for one per sequence. MANTLE_LOGITS_ALL needs one
  // per token of the call.
  uint32_t max_logits;
  // How keys are stored: MANTLE_DTYPE_F16 (default) or MANTLE_DTYPE_F32.
  mantle_dtype key_type;
  // How values are stored: as keys.
  mantle_dtype value_type;
  // No flags exist yet: 0.
  uint32_t flags;
  // 0.
  uint32_t reserved;
  // Most bytes that the session may take; 0 (default) for no limit.
  uint64_t memory_limit;
} mantle_session_options;

// Sets `options` to the defaults. `size` is sizeof(mantle_session_options). Any thread.
mantle_status mantle_session_options_init(struct mantle_session_options *options,
                                          size_t size,
                                          mantle_error **error);

// Tells how much memory a session with these options takes, exactly: `cache`, `scratch` and their `total`,
// which is the size that its arena needs. Nothing is allocated. `options` may be NULL for the defaults.
// Any thread.
// Errors: INVALID_ARGUMENT (an option out of range), UNSUPPORTED (a type that keys and values cannot have).
mantle_status mantle_session_bytes(const mantle_model *model,
                                   const struct mantle_session_options *options,
                                   mantle_memory *memory,
                                   mantle_error **error);

// Makes a session. `options` may be NULL for the defaults. `arena` is the memory that it lives in until it is
// freed; NULL takes as much as is needed from the runtime's allocator. Free it with mantle_session_free. Any
// thread.
// Errors: as mantle_session_bytes; NO_MEMORY (the arena or the memory limit is too small: the message tells
// what is needed), BUSY (the arena holds another session).
MANTLE_MUST_USE
mantle_status mantle_session_new(const mantle_model *model,
                                 const struct mantle_session_options *options,
                                 const mantle_arena *arena,
                                 struct mantle_session **out,
                                 mantle_error **error);

// Tells how much memory the session holds: `cache`, `scratch` and their `total`. Any thread.
mantle_status mantle_session_memory(const struct mantle_session *session,
                                    mantle_memory *memory,
                                    mantle_error **error);

// Frees the session; the arena it lived in is free for another one. NULL is accepted.
void mantle_session_free(struct mantle_session *session);

// Appends tokens to `count` sequences and computes them. Sequence sequences[i] gets the tokens
// tokens[offsets[i]] up to tokens[offsets[i + 1]], at least one; offsets has count + 1 numbers, begins with 0
// and never falls. No sequence may stand twice. `logits` is one of MANTLE_LOGITS_*; read the result with
// mantle_logits. `cancel` may be NULL. One thread per session.
// The logits of a sequence are the same bits whatever else is in the call, however its tokens are divided
// over calls, and with any number of threads.
// Errors: INVALID_ARGUMENT (a sequence, offset or token id out of range, more logits than max_logits), CONTEXT_FULL (a sequence would
// get longer than max_context), CANCELLED, BUSY. The sequences of the call are then as before it, and no
// logits are left.
MANTLE_MUST_USE
mantle_status mantle_forward(struct mantle_session *session,
                             const int32_t *sequences,
                             const mantle_token *tokens,
                             const size_t *offsets,
                             size_t count,
                             int32_t logits,
                             const mantle_cancel *cancel,
                             mantle_error **error);

// Tells how many rows of logits the last mantle_forward left. Any thread.
mantle_status mantle_logits_rows(const struct mantle_session *session, size_t *rows, mantle_error **error);

// Gives a row of logits of the last mantle_forward: `size` numbers at `logits`, one per token of the
// vocabulary, borrowed from the session until the next call that changes it. Any thread.
// Errors: INVALID_ARGUMENT (no such row, or no logits were asked for), BUSY (a call is changing the session).
mantle_status mantle_logits(const struct mantle_session *session,
                            size_t row,
                            const float **logits,
                            size_t *size,
                            mantle_error **error);

// Tells how many tokens a sequence has. Any thread.
// Errors: INVALID_ARGUMENT or NOT_FOUND (no such sequence), BUSY (a call is changing the session).
mantle_status mantle_sequence_length(const struct mantle_session *session,
                                     int32_t sequence,
                                     uint32_t *length,
                                     mantle_error **error);

// Cuts a sequence to its first `length` tokens; 0 empties it. One thread per session.
// Errors: INVALID_ARGUMENT or NOT_FOUND (no such sequence, or it is shorter than `length`), BUSY.
mantle_status mantle_sequence_truncate(struct mantle_session *session,
                                       int32_t sequence,
                                       uint32_t length,
                                       mantle_error **error);

/*
 * ------------------------------------------------------------------------------------------------
 * What a model tells of itself
 * ------------------------------------------------------------------------------------------------
 */

// Bytes of a name in mantle_model_info, the closing NUL counted.
#define MANTLE_NAME_SIZE 64
// Dimensions that a tensor may have.
#define MANTLE_MAX_DIMENSIONS 4
// The model gives embeddings of texts: an encoder, or a decoder by its last layer.
#define MANTLE_CAPABILITY_EMBEDDING (1 << 0)
// The model gives logits of the next token, so that text can be generated (a decoder).
#define MANTLE_CAPABILITY_GENERATION (1 << 1)

// The shape of a model.
typedef struct mantle_model_info {
  // sizeof(mantle_model_info), set by the caller.
  size_t struct_size;
  // The architecture, such as "llama": UTF-8, closed by NUL, cut off when it is longer.
  char architecture[MANTLE_NAME_SIZE];
  // The model's name in the file: as above; "" when it has none.
  char name[MANTLE_NAME_SIZE];
  // MANTLE_CAPABILITY_* bits.
  uint32_t capabilities;
  // Transformer layers.
  uint32_t layers;
  // Values of a token's vector between layers.
  uint32_t embedding;
  // Query heads per layer.
  uint32_t heads;
  // Key and value heads per layer.
  uint32_t kv_heads;
  // Values of a head.
  uint32_t head_size;
  // Values of the feed-forward network's inner vector.
  uint32_t feed_forward;
  // Token ids are below this.
  uint32_t vocabulary;
  // Tokens of a sequence that the model was trained for: the default context of a session.
  uint32_t context;
  // 0.
  uint32_t reserved;
  // Weights, counted singly.
  uint64_t parameters;
  // Bytes of the file.
  uint64_t file_bytes;
  // Bytes of the weights in the layout of the kernels.
  uint64_t packed_bytes;
  // Bytes of weights that are read to compute one token.
  uint64_t bytes_per_token;
} mantle_model_info;

// One tensor of a model's file.
typedef struct mantle_tensor_info {
  // sizeof(mantle_tensor_info), set by the caller.
  size_t struct_size;
  // The tensor's name: `name_length` bytes of UTF-8, borrowed from the model, not closed by NUL.
  const char *name;
  // Bytes of the name.
  size_t name_length;
  // Element type in the file.
  mantle_dtype dtype;
  // Dimensions: how many numbers of `shape` are used.
  uint32_t dimensions;
  // Values in each dimension, innermost (columns of a row) first; 1 beyond `dimensions`.
  uint64_t shape[MANTLE_MAX_DIMENSIONS];
  // First byte of the data in the file.
  uint64_t offset;
  // Bytes of the data in the file.
  uint64_t bytes;
} mantle_tensor_info;

// Reads a model file's header and tells what mantle_model_open would give, and how much memory the model
// and a session with `session_options` would take together (`cache` and `scratch` are an upper bound),
// without loading weights. Missing tensors and wrong shapes show only when the model is opened.
// `session_options` may be NULL for the model alone, `info` and `memory` when they
// are not wanted. Any thread.
// Errors: as mantle_model_open and mantle_session_bytes.
mantle_status mantle_model_probe(const mantle_runtime *runtime,
                                 const char *path,
                                 size_t path_length,
                                 const mantle_session_options *session_options,
                                 struct mantle_model_info *info,
                                 mantle_memory *memory,
                                 mantle_error **error);

// Tells the model's shape. Any thread.
mantle_status mantle_model_get_info(const mantle_model *model,
                                    struct mantle_model_info *info,
                                    mantle_error **error);

// Tells how much memory the model holds: `weights`, `other` and their `total`. Any thread.
mantle_status mantle_model_memory(const mantle_model *model, mantle_memory *memory, mantle_error **error);

// Tells how many metadata entries the model's file has. Any thread.
mantle_status mantle_model_metadata_count(const mantle_model *model, size_t *count, mantle_error **error);

// Gives the key of a metadata entry: `length` bytes of UTF-8 at `key`, borrowed from the model, not closed
// by NUL. `index` is below the count; the order is the file's. Any thread.
// Errors: NOT_FOUND (no such index).
mantle_status mantle_model_metadata_key(const mantle_model *model,
                                        size_t index,
                                        const char **key,
                                        size_t *length,
                                        mantle_error **error);

// Gives the value of a metadata key as JSON text: a number, true or false, a string, or an array. Numbers
// that JSON cannot say (NaN, infinity) are null; bytes that are not UTF-8 are U+FFFD. The text goes to
// `json`, which has room for `capacity` bytes and is not closed by NUL; `size` tells its length. With
// capacity 0, `json` may be NULL, to ask for the size. Any thread.
// Errors: NOT_FOUND (no such key), BUFFER_TOO_SMALL (`size` tells what is needed).
mantle_status mantle_model_metadata_value(const mantle_model *model,
                                          const char *key,
                                          size_t key_length,
                                          char *json,
                                          size_t capacity,
                                          size_t *size,
                                          mantle_error **error);

// Tells how many tensors the model's file has. Any thread.
mantle_status mantle_model_tensor_count(const mantle_model *model, size_t *count, mantle_error **error);

// Describes a tensor of the model's file. `index` is below the count; the order is the file's. Any thread.
// Errors: NOT_FOUND (no such index).
mantle_status mantle_model_tensor_info(const mantle_model *model,
                                       size_t index,
                                       struct mantle_tensor_info *info,
                                       mantle_error **error);

// Finds a tensor by its name: `name_length` bytes. Any thread.
// Errors: NOT_FOUND (no such name).
mantle_status mantle_model_tensor_find(const mantle_model *model,
                                       const char *name,
                                       size_t name_length,
                                       size_t *index,
                                       mantle_error **error);

/*
 * ------------------------------------------------------------------------------------------------
 * Generation
 * ------------------------------------------------------------------------------------------------
 *
 * Greedy: each token is the one with the highest logit, the lowest id among equals. Programs that sample
 * otherwise use mantle_forward and mantle_logits; samplers will come as a field of
 * mantle_generate_options.
 */

// Go on when the model ends its answer (for measurements).
#define MANTLE_GENERATE_IGNORE_END (1 << 0)
// The model ended its answer: a token for which mantle_tokenizer_is_end tells true.
#define MANTLE_STOP_END 1
// max_tokens were generated.
#define MANTLE_STOP_MAX_TOKENS 2
// The sequence has max_context tokens.
#define MANTLE_STOP_CONTEXT_FULL 3
// The callback returned false.
#define MANTLE_STOP_CALLBACK 4

// How to generate. Set the defaults with mantle_generate_options_init.
typedef struct mantle_generate_options {
  // sizeof(mantle_generate_options).
  size_t struct_size;
  // Most tokens to generate; 0 (default) for as many as the context holds.
  uint32_t max_tokens;
  // MANTLE_GENERATE_* bits; default 0.
  uint32_t flags;
} mantle_generate_options;

// Gets one generated token and the text that became whole with it: `length` bytes of UTF-8, maybe none,
// since a character may be spread over several tokens; control tokens give no text. When the end leaves an
// incomplete character, a last call has the token MANTLE_TOKEN_NONE and U+FFFD. Returns false to stop.
// Must not use the session; it is busy.
typedef bool (*mantle_token_fn)(void *user_data, mantle_token token, const char *text, size_t length);

// What a generation did and how long it took.
typedef struct mantle_generation {
  // sizeof(mantle_generation), set by the caller.
  size_t struct_size;
  // Tokens of the prompt that were computed.
  uint64_t prompt_tokens;
  // Tokens generated, an end token not counted.
  uint64_t tokens;
  // Nanoseconds for the prompt.
  uint64_t prompt_nanoseconds;
  // Nanoseconds for the tokens after the first, which the prompt's pass gives: tokens - 1 passes, or
  // `tokens` when an end token was generated.
  uint64_t generation_nanoseconds;
  // Forward passes of one token that generation_nanoseconds is for.
  uint64_t passes;
  // Why it stopped: MANTLE_STOP_*.
  int32_t stop;
  // 0.
  uint32_t reserved;
} mantle_generation;

// Sets `options` to the defaults. `size` is sizeof(mantle_generate_options). Any thread.
mantle_status mantle_generate_options_init(struct mantle_generate_options *options,
                                           size_t size,
                                           mantle_error **error);

// Appends `count` prompt tokens (at least one) to a sequence, then generates tokens and hands each to
// `callback` with its text. `tokenizer` is that of the session's model. `options` (NULL for the defaults),
// `callback`, `cancel` and `result` may be NULL. Afterwards the sequence holds the prompt and the generated
// tokens but the last one, which has not been computed; an end token is not appended. To go on, begin the
// next prompt with what is missing. One thread per session.
// Errors: as mantle_forward. When the prompt fails, the sequence is as before the call; later (CANCELLED),
// it holds what was handed to the callback, but the last token.
MANTLE_MUST_USE
mantle_status mantle_generate(mantle_session *session,
                              const mantle_tokenizer *tokenizer,
                              int32_t sequence,
                              const mantle_token *prompt,
                              size_t count,
                              const struct mantle_generate_options *options,
                              mantle_token_fn callback,
                              void *user_data,
                              const mantle_cancel *cancel,
                              struct mantle_generation *result,
                              mantle_error **error);

/*
 * ------------------------------------------------------------------------------------------------
 * Embeddings: texts to vectors
 * ------------------------------------------------------------------------------------------------
 *
 * An embedder holds the memory in which a model makes embeddings: an encoder, or a decoder, whose last layer
 * gives the vectors of the tokens. One call takes any number of documents of any
 * length, in flat arrays: there is no padding and no batch size to choose. The embedding of a document is the
 * same bits whatever else is in the call, with any number of threads and on any CPU.
 */

// What the model's files say; where they say nothing, the mean for encoders and the last token for decoders.
#define MANTLE_POOLING_MODEL (-1)
// None: one row for each token, without dense layers.
#define MANTLE_POOLING_NONE 0
// The mean of the tokens' vectors.
#define MANTLE_POOLING_MEAN 1
// The vector of the first token.
#define MANTLE_POOLING_CLS 2
// The vector of the last token.
#define MANTLE_POOLING_LAST 3
// As the model's files say; vectors of single tokens are not normalized.
#define MANTLE_NORMALIZE_MODEL (-1)
// Leave embeddings as they are.
#define MANTLE_NORMALIZE_NO 0
// Give embeddings length 1, so that their dot product is their cosine.
#define MANTLE_NORMALIZE_YES 1
// Leave tokens out at the end of documents that are too long, instead of refusing them. A text keeps the token
// that closes it.
#define MANTLE_EMBED_TRUNCATE (1 << 0)

// The memory in which a model makes embeddings. Serves one thread at a time; several embedders of one model
// may be used on several threads.
typedef struct mantle_embedder mantle_embedder;

// What a model's files say about its embeddings.
typedef struct mantle_embedding_info {
  // sizeof(mantle_embedding_info), set by the caller.
  size_t struct_size;
  // Values of an embedding that is not cut.
  uint32_t dimensions;
  // MANTLE_POOLING_*.
  int32_t pooling;
  // MANTLE_NORMALIZE_NO or MANTLE_NORMALIZE_YES.
  int32_t normalize;
  // Dense layers behind the pooling. An EmbeddingGemma has two; many converted files lack them, and their
  // embeddings are not those of the original model.
  uint32_t dense_layers;
  // Prompts that the model was trained with: read them with mantle_model_prompt.
  uint32_t prompts;
  // 0.
  uint32_t reserved;
} mantle_embedding_info;

// How large an embedder is. Set the defaults with mantle_embedder_options_init.
typedef struct mantle_embedder_options {
  // sizeof(mantle_embedder_options).
  size_t struct_size;
  // Most tokens of a document, at most what the model was trained for; 0 (default) for that, but not more
  // than 8192. Memory grows with it.
  uint32_t max_tokens;
  // No flags exist yet: 0.
  uint32_t flags;
  // Most bytes that the embedder may take; 0 (default) for no limit.
  uint64_t memory_limit;
} mantle_embedder_options;

// How embeddings are made. Set the defaults with mantle_embed_options_init.
typedef struct mantle_embed_options {
  // sizeof(mantle_embed_options).
  size_t struct_size;
  // MANTLE_POOLING_*; default MANTLE_POOLING_MODEL.
  int32_t pooling;
  // MANTLE_NORMALIZE_*; default MANTLE_NORMALIZE_MODEL.
  int32_t normalize;
  // Cut embeddings to this many values before they are normalized, for models trained so (Matryoshka); 0
  // (default) for all.
  uint32_t dimensions;
  // MANTLE_EMBED_* bits; default 0.
  uint32_t flags;
  // Name of the model's prompt that is put before each text, such as "query": `prompt_length` bytes of
  // UTF-8. NULL (default) for none. mantle_embed_tokens does not look at it.
  const char *prompt;
  // Bytes of `prompt`.
  size_t prompt_length;
  // Called with the tokens that are done and those of all documents, some hundred tokens at a time, on the calling
  // thread; false cancels. NULL (default) for none.
  mantle_progress_fn progress;
  // Handed to `progress`.
  void *progress_user_data;
} mantle_embed_options;

// Tells what the model's files say about its embeddings. Any thread.
// Errors: UNSUPPORTED (a decoder whose files describe other embeddings than can be made).
mantle_status mantle_model_embedding_info(const mantle_model *model,
                                          struct mantle_embedding_info *info,
                                          mantle_error **error);

// Gives a prompt of the model: its name, and the text that is put before texts of that kind. `index` is below
// `prompts` of mantle_embedding_info. Both are UTF-8 without a closing NUL, borrowed from the model. Any thread.
// Errors: UNSUPPORTED (as mantle_model_embedding_info), NOT_FOUND (no such index).
mantle_status mantle_model_prompt(const mantle_model *model,
                                  size_t index,
                                  const char **name,
                                  size_t *name_length,
                                  const char **text,
                                  size_t *text_length,
                                  mantle_error **error);

// Sets `options` to the defaults. `size` is sizeof(mantle_embedder_options). Any thread.
mantle_status mantle_embedder_options_init(struct mantle_embedder_options *options,
                                           size_t size,
                                           mantle_error **error);

// Sets `options` to the defaults. `size` is sizeof(mantle_embed_options). Any thread.
mantle_status mantle_embed_options_init(struct mantle_embed_options *options,
                                        size_t size,
                                        mantle_error **error);

// Tells how much memory an embedder with these options takes, exactly: `scratch` and `total`, which is the size
// that its arena needs. Nothing is allocated. `options` may be NULL for the defaults. Any thread.
// Errors: INVALID_ARGUMENT (an option out of range), UNSUPPORTED (as mantle_model_embedding_info).
mantle_status mantle_embedder_bytes(const mantle_model *model,
                                    const struct mantle_embedder_options *options,
                                    mantle_memory *memory,
                                    mantle_error **error);

// Makes an embedder. `options` may be NULL for the defaults. `arena` is the memory that it lives in until it is
// freed; NULL takes as much as is needed from the runtime's allocator. Free it with mantle_embedder_free. Any
// thread.
// Errors: as mantle_embedder_bytes; NO_MEMORY (the arena or the memory limit is too small: the message tells
// what is needed), BUSY (the arena holds another session or embedder).
MANTLE_MUST_USE
mantle_status mantle_embedder_new(const mantle_model *model,
                                  const struct mantle_embedder_options *options,
                                  const mantle_arena *arena,
                                  struct mantle_embedder **out,
                                  mantle_error **error);

// Tells how much memory the embedder holds: `scratch` and `total`. Any thread.
mantle_status mantle_embedder_memory(const struct mantle_embedder *embedder,
                                     mantle_memory *memory,
                                     mantle_error **error);

// Frees the embedder; the arena it lived in is free for another one. NULL is accepted.
void mantle_embedder_free(struct mantle_embedder *embedder);

// Tells how many values a row has that these options give. `options` may be NULL for the defaults. Any thread.
// Errors: INVALID_ARGUMENT (an option out of range).
mantle_status mantle_embed_dimensions(const struct mantle_embedder *embedder,
                                      const struct mantle_embed_options *options,
                                      size_t *dimensions,
                                      mantle_error **error);

// Makes the embeddings of `count` texts. Text i is the UTF-8 bytes texts[offsets[i]] up to
// texts[offsets[i + 1]]; offsets has count + 1 numbers, begins with 0 and never falls. An empty text has an
// embedding, too: that of the tokens which the model expects around a text. Row i goes to
// embeddings + i * stride; `stride` counts floats and is at least what mantle_embed_dimensions tells (0 for just
// that). `options` and `cancel` may be NULL. One thread per embedder.
// Errors, before anything is computed: INVALID_ARGUMENT (offsets, invalid UTF-8, a text of more tokens than
// max_tokens without MANTLE_EMBED_TRUNCATE: the message tells the number of the text; MANTLE_POOLING_NONE),
// NOT_FOUND (a prompt that the model does not have; no tokenizer), UNSUPPORTED; during the work CANCELLED: then
// some rows may have been written. BUSY.
MANTLE_MUST_USE
mantle_status mantle_embed_texts(struct mantle_embedder *embedder,
                                 const char *texts,
                                 const size_t *offsets,
                                 size_t count,
                                 const struct mantle_embed_options *options,
                                 float *embeddings,
                                 size_t stride,
                                 const mantle_cancel *cancel,
                                 mantle_error **error);

// Like mantle_embed_texts, from token ids: document i is tokens[offsets[i]] up to tokens[offsets[i + 1]], with the
// tokens that the model expects around a text, at least one. With MANTLE_POOLING_NONE there is a row for each
// token instead of each document.
// Errors: as mantle_embed_texts; INVALID_ARGUMENT (a document without tokens, an id outside the vocabulary).
MANTLE_MUST_USE
mantle_status mantle_embed_tokens(struct mantle_embedder *embedder,
                                  const mantle_token *tokens,
                                  const size_t *offsets,
                                  size_t count,
                                  const struct mantle_embed_options *options,
                                  float *embeddings,
                                  size_t stride,
                                  const mantle_cancel *cancel,
                                  mantle_error **error);

/*
 * ------------------------------------------------------------------------------------------------
 * Profile: where the time goes
 * ------------------------------------------------------------------------------------------------
 *
 * A session or an embedder can note how often each op of its calls runs, how long it takes, how much it computes
 * and how much memory it moves, per layer. Off by default, at the cost of one branch per op; while it is on, the
 * clock is read once per op and nothing is allocated. The times are those of the calling thread, which waits for
 * the others, so the ops add up to the time of the calls but for a few percent. A profile is a copy: the numbers
 * up to the moment it was taken.
 */

// Texts to token ids, in mantle_embed_texts.
#define MANTLE_OP_TOKENIZATION 0
// Rows of the embedding tables.
#define MANTLE_OP_EMBEDDING 1
// The norm before attention (in BERT: behind the layer before), and quantization for the next product.
#define MANTLE_OP_ATTENTION_NORM 2
// Products with the weights of queries, keys and values.
#define MANTLE_OP_QKV 3
// Norms of queries and keys and rotary positions; in encoders also the copy of keys and values.
#define MANTLE_OP_ROPE 4
// Writing keys and values into the cache.
#define MANTLE_OP_CACHE_STORE 5
// Scores, softmax, and the weighted sum of values.
#define MANTLE_OP_ATTENTION 6
// Quantization of what attention gave.
#define MANTLE_OP_QUANTIZE 7
// Product with the output weights of attention.
#define MANTLE_OP_ATTENTION_OUTPUT 8
// The norm before the feed-forward network (in BERT: behind attention), and quantization for the next product.
#define MANTLE_OP_FEED_FORWARD_NORM 9
// Products with the gate and up weights, the activation function, and quantization of the hidden values.
#define MANTLE_OP_GATE_UP 10
// Product with the down weights.
#define MANTLE_OP_DOWN 11
// The norm behind the last layer.
#define MANTLE_OP_OUTPUT_NORM 12
// The output head with its norm, for the tokens whose logits are wanted.
#define MANTLE_OP_HEAD 13
// Token vectors to one vector per document.
#define MANTLE_OP_POOLING 14
// Dense layers behind pooling.
#define MANTLE_OP_DENSE 15
// Embeddings to length 1, and their copy to the caller.
#define MANTLE_OP_NORMALIZE 16
// For `layer`: all layers together, and ops outside of the layers.
#define MANTLE_ALL_LAYERS (-1)

// Where the time of some calls went. Never changes.
typedef struct mantle_profile mantle_profile;

// What a profile covers.
typedef struct mantle_profile_info {
  // sizeof(mantle_profile_info), set by the caller.
  size_t struct_size;
  // Ops that this library knows: their numbers are below.
  uint32_t ops;
  // Layers of the model.
  uint32_t layers;
  // Calls: mantle_forward, one for each pass of mantle_generate, mantle_embed_texts, mantle_embed_tokens.
  uint64_t calls;
  // Tokens of these calls.
  uint64_t tokens;
  // Nanoseconds of these calls from beginning to end.
  uint64_t nanoseconds;
} mantle_profile_info;

// What an op took.
typedef struct mantle_profile_entry {
  // sizeof(mantle_profile_entry), set by the caller.
  size_t struct_size;
  // How often it ran.
  uint64_t calls;
  // Nanoseconds on the calling thread.
  uint64_t nanoseconds;
  // Multiplications and additions that its definition takes, a fused multiply-add counted as two: of 8-bit
  // integers in products with quantized weights, else of floats.
  uint64_t operations;
  // Bytes of its weights, inputs and outputs, each moved once.
  uint64_t bytes;
} mantle_profile_entry;

// The name of an op, such as "attention_output"; "unknown" for a number this library does not know. Closed by
// NUL, valid for ever. Any thread.
const char *mantle_op_name(int32_t op);

// Switches profiling of a session's calls on, from zero, or off, which forgets the numbers. One thread per
// session.
// Errors: NO_MEMORY, BUSY.
mantle_status mantle_session_set_profiling(mantle_session *session, bool on, mantle_error **error);

// As mantle_session_set_profiling, for an embedder.
mantle_status mantle_embedder_set_profiling(mantle_embedder *embedder, bool on, mantle_error **error);

// Takes the profile of a session's calls since profiling was switched on. Free it with mantle_profile_free. Any
// thread.
// Errors: NOT_FOUND (profiling is off), NO_MEMORY, BUSY (a call is running).
MANTLE_MUST_USE
mantle_status mantle_session_profile(const mantle_session *session,
                                     struct mantle_profile **out,
                                     mantle_error **error);

// As mantle_session_profile, for an embedder.
MANTLE_MUST_USE
mantle_status mantle_embedder_profile(const mantle_embedder *embedder,
                                      struct mantle_profile **out,
                                      mantle_error **error);

// Frees the profile. NULL is accepted.
void mantle_profile_free(struct mantle_profile *profile);

// Tells what the profile covers. Any thread.
mantle_status mantle_profile_get_info(const struct mantle_profile *profile,
                                      struct mantle_profile_info *info,
                                      mantle_error **error);

// Tells what `op`, MANTLE_OP_*, took in layer `layer`, or with MANTLE_ALL_LAYERS altogether. An op that did not
// run there (such as the head in a layer) has zeros. Any thread.
// Errors: INVALID_ARGUMENT (an unknown op, a layer that the model does not have).
mantle_status mantle_profile_get_entry(const struct mantle_profile *profile,
                                       int32_t op,
                                       int32_t layer,
                                       struct mantle_profile_entry *entry,
                                       mantle_error **error);

// Writes the profile as a table: a line for each op that ran, their sum, and the calls; with `by_layer` also a
// line for each layer of each op. `text` gets `size` bytes without a closing NUL. Any thread.
// Errors: BUFFER_TOO_SMALL (`size` is then what is needed).
mantle_status mantle_profile_table(const struct mantle_profile *profile,
                                   bool by_layer,
                                   char *text,
                                   size_t capacity,
                                   size_t *size,
                                   mantle_error **error);

/*
 * ------------------------------------------------------------------------------------------------
 * Matrices: the kernels by themselves
 * ------------------------------------------------------------------------------------------------
 */

// A matrix of weights in the layout of the kernels. Never changes.
typedef struct mantle_matrix mantle_matrix;

// What a matrix is and takes.
typedef struct mantle_matrix_info {
  // sizeof(mantle_matrix_info), set by the caller.
  size_t struct_size;
  // Rows: outputs of a multiplication.
  uint64_t rows;
  // Columns: inputs of a multiplication.
  uint64_t columns;
  // Bytes in the layout of the kernels.
  uint64_t packed_bytes;
  // Element type of the weights.
  mantle_dtype dtype;
  // 0.
  uint32_t reserved;
} mantle_matrix_info;

// Brings a matrix of weights into the layout of the kernels. `data` are `rows` rows of `columns` values,
// encoded as `dtype` says, one after the other: `size` = rows * mantle_row_bytes bytes, at any alignment,
// read during the call only. Free the matrix with mantle_matrix_free. Any thread.
// Errors: INVALID_ARGUMENT (a shape with 0, columns that do not fill whole blocks, a wrong size),
// UNSUPPORTED (a type that is not multiplied), NO_MEMORY.
MANTLE_MUST_USE
mantle_status mantle_matrix_new(const mantle_runtime *runtime,
                                mantle_dtype dtype,
                                const void *data,
                                size_t size,
                                size_t rows,
                                size_t columns,
                                struct mantle_matrix **out,
                                mantle_error **error);

// Tells shape, type and size of the matrix. Any thread.
mantle_status mantle_matrix_get_info(const struct mantle_matrix *matrix,
                                     struct mantle_matrix_info *info,
                                     mantle_error **error);

// Frees the matrix. NULL is accepted.
void mantle_matrix_free(struct mantle_matrix *matrix);

// Multiplies: y[t][r] = sum over c of matrix[r][c] * x[t][c], for `count` vectors x[t] (tokens). Row t of x
// begins at x + t * x_stride and has as many values as the matrix has columns; row t of y begins at
// y + t * y_stride and has as many as the matrix has rows. Strides count values and are at least the length
// of a row. x and y must not overlap. Quantized weights are multiplied by x rounded to 8 bits per 32
// values, BF16 weights by x rounded to BF16; F32 and F16 weights by x as it is.
// The bits of y do not depend on `count`, the number of threads or the instruction set. Any thread; several
// may share the matrix.
// The matrix keeps the scratch memory for the rounded x, so that the next call takes none.
// Errors: INVALID_ARGUMENT (a stride too small, overlap), NO_MEMORY (scratch).
mantle_status mantle_matmul(const mantle_runtime *runtime,
                            const struct mantle_matrix *matrix,
                            const float *x,
                            size_t count,
                            size_t x_stride,
                            float *y,
                            size_t y_stride,
                            mantle_error **error);

/*
 * ------------------------------------------------------------------------------------------------
 * Products of plain floats
 * ------------------------------------------------------------------------------------------------
 */

// B holds a row of `columns` values for each input, instead of a row of `depth` values for each column.
#define MANTLE_GEMM_B_BY_INPUT (1 << 0)

// Options of mantle_matmul_f32. Set the defaults with mantle_gemm_options_init.
typedef struct mantle_gemm_options {
  // sizeof(mantle_gemm_options).
  size_t struct_size;
  // How A is stored: MANTLE_DTYPE_F32 (default), MANTLE_DTYPE_F16 or MANTLE_DTYPE_BF16.
  mantle_dtype a_type;
  // How B is stored; as a_type.
  mantle_dtype b_type;
  // Factor of A; default 1. It is multiplied into A, rounded.
  float alpha;
  // Factor of what C holds; default 0: then C is only written, whatever it holds.
  float beta;
  // Added to every row of C: one value for each column. NULL (default) for none.
  const float *bias;
  // MANTLE_GEMM_* bits; default 0.
  uint32_t flags;
  // 0.
  uint32_t reserved;
} mantle_gemm_options;

// Sets `options` to the defaults. `size` is sizeof(mantle_gemm_options). Any thread.
mantle_status mantle_gemm_options_init(struct mantle_gemm_options *options,
                                       size_t size,
                                       mantle_error **error);

// Multiplies plain floats: c[i][j] = alpha * sum over k of a[i][k] * b[j][k] + beta * c[i][j] + bias[j] for `rows`
// rows i, `columns` columns j and `depth` inputs k: B has the shape of weights, one row for each output, or with
// MANTLE_GEMM_B_BY_INPUT that of a row-major matrix, b[k][j]. Row i of A begins at value a + i * a_stride, and so
// on; strides count values and are at least the length of a row. `options` may be NULL for the defaults. For
// weights that are used again and again, mantle_matrix_new and mantle_matmul are faster.
// C must not overlap A, B or the bias; A and B may overlap. With `depth` 0 the sum is 0; no rows or no columns are
// no work. NaN and infinity are handed on as IEEE 754 says, also those of A when alpha is 0; denormals are kept.
// Every c[i][j] is one chain of fused multiply-adds over k in order, which starts from beta * c[i][j] + bias[j]: its
// bits depend neither on the shape beside it nor on the number of threads nor on the instruction set. F16 and
// BF16 are widened, which is exact. Runs on the runtime's threads, and takes scratch memory from its allocator
// (about half a MiB for each thread), which the runtime keeps for the next call. Any thread.
// Errors: INVALID_ARGUMENT (a stride too small, overlap, an unknown type or flag), NO_MEMORY (scratch).
mantle_status mantle_matmul_f32(const mantle_runtime *runtime,
                                const void *a,
                                size_t a_stride,
                                const void *b,
                                size_t b_stride,
                                size_t rows,
                                size_t columns,
                                size_t depth,
                                const struct mantle_gemm_options *options,
                                float *c,
                                size_t c_stride,
                                mantle_error **error);

/*
 * ------------------------------------------------------------------------------------------------
 * Rows: encoding and decoding
 * ------------------------------------------------------------------------------------------------
 */

// Tells how many bytes a row of `columns` values takes as `dtype`. Any thread.
// Errors: INVALID_ARGUMENT (an unknown type, columns that do not fill whole blocks).
mantle_status mantle_row_bytes(mantle_dtype dtype, size_t columns, size_t *bytes, mantle_error **error);

// Encodes `rows` rows of `columns` values as `dtype`. Row r begins at values + r * stride (in values, at
// least `columns`); the encoded rows follow each other in `data`, which has `size` = rows *
// mantle_row_bytes bytes, at any alignment. Runs on the runtime's threads. Any thread.
// Errors: INVALID_ARGUMENT (columns that do not fill whole blocks, a stride too small, a wrong size, values
// that the type cannot hold), UNSUPPORTED (a type that cannot be encoded). `data` may then hold some rows.
mantle_status mantle_quantize_rows(const mantle_runtime *runtime,
                                   mantle_dtype dtype,
                                   const float *values,
                                   size_t rows,
                                   size_t columns,
                                   size_t stride,
                                   void *data,
                                   size_t size,
                                   mantle_error **error);

// Decodes what mantle_quantize_rows encoded, or what stands in a model file: `size` = rows *
// mantle_row_bytes bytes at `data`, at any alignment. Row r goes to values + r * stride (in values, at least
// `columns`). Runs on the runtime's threads. Any thread.
// Errors: INVALID_ARGUMENT (columns that do not fill whole blocks, a stride too small, a wrong size).
mantle_status mantle_dequantize_rows(const mantle_runtime *runtime,
                                     mantle_dtype dtype,
                                     const void *data,
                                     size_t size,
                                     size_t rows,
                                     size_t columns,
                                     float *values,
                                     size_t stride,
                                     mantle_error **error);

/*
 * ------------------------------------------------------------------------------------------------
 * Vectors: the steps between matrix products
 * ------------------------------------------------------------------------------------------------
 *
 * What holds for all of them. Vectors are dense f32. An input may be the very output (the same first value
 *   and, for rows, the same stride): the step then works in place. Any other overlap of an input with the
 *   output is INVALID_ARGUMENT; what lies between the rows counts as part of them. Inputs may overlap each
 *   other. A count of 0 does nothing.
 * The bits of a result depend neither on the number of threads nor on the instruction set. Long vectors and
 *   many rows are divided among the runtime's threads. Any thread. No memory is taken.
 * NaN in a value gives NaN in what is made from it; denormals are kept. Errors are INVALID_ARGUMENT only.
 */

// mantle_vector_rope: turns value i of a head with value i + dims / 2 (GPT-NeoX; most model files).
#define MANTLE_ROPE_HALVES 0
// mantle_vector_rope: turns value 2i of a head with value 2i + 1.
#define MANTLE_ROPE_PAIRS 1

// An element-wise function. docs/accuracy.md tells how exact each is.
typedef int32_t mantle_function;

// x / (1 + e^-x), also called swish; its gate is SwiGLU.
#define MANTLE_FUNCTION_SILU 0
// GELU in its tanh form, x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); its gate is GeGLU.
#define MANTLE_FUNCTION_GELU_TANH 1
// GELU in its exact form, x/2 (1 + erf(x / sqrt(2))); its gate is GeGLU.
#define MANTLE_FUNCTION_GELU_ERF 2
// e^x.
#define MANTLE_FUNCTION_EXP 3
// The hyperbolic tangent.
#define MANTLE_FUNCTION_TANH 4
// The error function.
#define MANTLE_FUNCTION_ERF 5

// y[i] += a * x[i], rounded once, for `count` values.
mantle_status mantle_vector_axpy(const mantle_runtime *runtime,
                                 float a,
                                 const float *x,
                                 size_t count,
                                 float *y,
                                 mantle_error **error);

// y[i] = factor * x[i], for `count` values.
mantle_status mantle_vector_scale(const mantle_runtime *runtime,
                                  float factor,
                                  const float *x,
                                  size_t count,
                                  float *y,
                                  mantle_error **error);

// y[i] = a[i] + b[i], for `count` values.
mantle_status mantle_vector_add(const mantle_runtime *runtime,
                                const float *a,
                                const float *b,
                                size_t count,
                                float *y,
                                mantle_error **error);

// y[i] = a[i] * b[i], for `count` values.
mantle_status mantle_vector_mul(const mantle_runtime *runtime,
                                const float *a,
                                const float *b,
                                size_t count,
                                float *y,
                                mantle_error **error);

// y[i] = function(x[i]), for `count` values. `function` is one of MANTLE_FUNCTION_*.
mantle_status mantle_vector_apply(const mantle_runtime *runtime,
                                  mantle_function function,
                                  const float *x,
                                  size_t count,
                                  float *y,
                                  mantle_error **error);

// y[i] = function(gate[i]) * up[i], for `count` values, in one pass: SwiGLU with MANTLE_FUNCTION_SILU, GeGLU
// with MANTLE_FUNCTION_GELU_TANH or MANTLE_FUNCTION_GELU_ERF.
mantle_status mantle_vector_gate(const mantle_runtime *runtime,
                                 mantle_function function,
                                 const float *gate,
                                 const float *up,
                                 size_t count,
                                 float *y,
                                 mantle_error **error);

// Softmax of each of `rows` rows of `columns` values: y = e^(x - max) / sum of e^(x - max). Row r of x begins
// at x + r * x_stride, row r of y at y + r * y_stride; strides count values and are at least `columns`.
// A value of -infinity gets the weight 0. A row that holds NaN or +infinity, or nothing but -infinity,
// becomes NaN.
mantle_status mantle_vector_softmax(const mantle_runtime *runtime,
                                    const float *x,
                                    size_t rows,
                                    size_t columns,
                                    size_t x_stride,
                                    float *y,
                                    size_t y_stride,
                                    mantle_error **error);

// RMS norm of each of `rows` rows of `columns` values: y = x / sqrt(mean(x^2) + epsilon) * weight, with
// `columns` values of `weight`, apart from y. Strides as for mantle_vector_softmax. `epsilon` is finite and
// not negative. Where the sum of squares leaves the range of f32, finite values become 0.
mantle_status mantle_vector_rms_norm(const mantle_runtime *runtime,
                                     const float *x,
                                     size_t rows,
                                     size_t columns,
                                     size_t x_stride,
                                     const float *weight,
                                     float epsilon,
                                     float *y,
                                     size_t y_stride,
                                     mantle_error **error);

// Layer norm of each of `rows` rows of `columns` values: y = (x - mean(x)) / sqrt(variance(x) + epsilon) *
// weight + bias, with `columns` values of `weight` and of `bias`, apart from y. The variance is the mean
// of (x - mean(x))^2. Strides and `epsilon` as for mantle_vector_rms_norm.
mantle_status mantle_vector_layer_norm(const mantle_runtime *runtime,
                                       const float *x,
                                       size_t rows,
                                       size_t columns,
                                       size_t x_stride,
                                       const float *weight,
                                       const float *bias,
                                       float epsilon,
                                       float *y,
                                       size_t y_stride,
                                       mantle_error **error);

// Fills tables of the angles of rotary position embedding, for mantle_vector_rope: angle(position, i) =
// position / scale * base^(-2i / dims) for positions 0 to `positions` - 1 and i from 0 to dims / 2 - 1. `cosine`
// and `sine` take `positions` rows of dims / 2 values each, one after the other, and must not overlap. `dims` is
// even and at least 2; `base` (10000 in the paper) and `scale` (1, or the factor by which the context is
// stretched) are finite and above 0. Computed in f64; the error of a value is that of rounding it to f32.
// Errors: INVALID_ARGUMENT, NO_MEMORY.
mantle_status mantle_rope_table(size_t positions,
                                size_t dims,
                                float base,
                                float scale,
                                float *cosine,
                                float *sine,
                                mantle_error **error);

// Rotary position embedding (Su et al. 2021), in place. Row t of x, one of `rows`, begins at x + t * stride and
// holds `heads` heads of `head_dim` values each; of every head the first `dims` values (even, at most
// `head_dim`) are turned by the angles of the row's position, the others stay: (a, b) becomes
// (a cos - b sin, b cos + a sin). `pairing`, MANTLE_ROPE_*, says which values are a and b. The position is
// positions[t], or t where `positions` is NULL. `cosine` and `sine` are tables of `table_positions` rows of
// dims / 2 values, as mantle_rope_table makes them, apart from x.
// Errors: INVALID_ARGUMENT, also for a position that the table does not have; then x is as it was.
mantle_status mantle_vector_rope(const mantle_runtime *runtime,
                                 int32_t pairing,
                                 const float *cosine,
                                 const float *sine,
                                 size_t table_positions,
                                 size_t dims,
                                 const uint32_t *positions,
                                 float *x,
                                 size_t rows,
                                 size_t heads,
                                 size_t head_dim,
                                 size_t stride,
                                 mantle_error **error);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* MANTLE_H */
