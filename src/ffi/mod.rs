//! mantle.h - transformer models on CPUs.
//!
//! A program makes a runtime (threads, memory, log), opens a model, asks how much memory a session
//! needs, makes the session, and runs forward passes in it. This header is the manual.
//!
//! What holds for every function
//!
//! Results. A function that can fail returns a mantle_status: MANTLE_OK (0), or a negative number.
//!   Its last parameter, `mantle_error **error`, may be NULL; otherwise *error is always written:
//!   NULL on success, on failure an object that says what was found and what was expected. The
//!   caller frees it with mantle_error_free. Nothing is printed, and no error is kept per thread.
//! Outputs. Output parameters stand last before `error` and are written only on success, with two
//!   exceptions: a pointer to a new object is set to NULL on failure, and the `size` of an output
//!   buffer is also written with MANTLE_ERROR_BUFFER_TOO_SMALL (then it is the size needed).
//! NULL. A parameter may be NULL only where its function says so; elsewhere NULL is
//!   MANTLE_ERROR_INVALID_ARGUMENT. A pointer with a count of 0 may always be NULL.
//! Pointers. A pointer that is not NULL points to what its type and count say, aligned for its type;
//!   an object is one that this library gave and that has not been freed. This is the caller's duty:
//!   the library cannot check it.
//! Strings. Text goes in and out as UTF-8 with a length in bytes, without a closing NUL. The few
//!   `const char *` results without a length are closed by NUL.
//! Structures. Each starts with `struct_size`, which the caller sets to sizeof of the structure (the
//!   init functions do it). A program built against an older header keeps working: the fields it
//!   does not know take their defaults. One built against a newer header works as long as the
//!   fields that this library does not know are zero; otherwise MANTLE_ERROR_ABI_MISMATCH.
//! Ownership. What a function named *_new or *_open gives is freed by the *_free of its type; each
//!   *_free accepts NULL. Objects hold what they need: a runtime may be freed before its models, a
//!   model before its sessions. "Borrowed" results belong to the object they came from.
//! Threads. A parameter `const T *` may be used by several threads at once. A parameter `T *` is for one
//!   call at a time: while it runs, every other call with the object gets MANTLE_ERROR_BUSY, and nothing
//!   is disturbed. An object must not be freed while another thread may still use it; from inside a
//!   callback it may be: it lives until the running call ends.
//! Callbacks. Run on the calling thread unless their type says otherwise. They must return: no longjmp
//!   and no C++ exception may pass through the library.
//! Failures. A failed call leaves its objects usable. The exception is MANTLE_ERROR_PANIC, a defect of
//!   the library that was caught: the object concerned refuses further calls and can only be freed.
//! Numbers. Constants are pinned: never renumbered, never reused. New ones may appear.

#![allow(
    non_camel_case_types,
    reason = "the types carry their C names, so that the header and this code read alike"
)]
#![allow(
    clippy::missing_safety_doc,
    reason = "the contract is each function's text and the conventions above: it is the C header's manual"
)]

pub mod activations;
pub mod arena;
pub mod boundary;
pub mod cancel;
pub mod dtype;
pub mod embed;
mod experimental;
pub mod gemm;
pub mod generate;
pub mod handle;
pub mod limits;
pub mod matrix;
pub mod measure;
pub mod model;
pub mod model_info;
pub mod profile;
pub mod rows;
pub mod runtime;
pub mod session;
pub mod status;
pub mod structure;
pub mod tokenizer;
pub mod vector;
pub mod version;
