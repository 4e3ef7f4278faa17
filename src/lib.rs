//! libmantle runs transformer models on CPUs behind a C ABI.
//!
//! # The map
//!
//! The crate is a house of floors. A file imports only from floors below its own
//! (`tests/layering.rs` checks it):
//!
//! | floor | holds |
//! | --- | --- |
//! | [`ffi`] | `extern "C"` functions, handles, status numbers: the only way in from C |
//! | [`text`] | tokenizers, generation |
//! | [`model`] | architectures: each file reads like the paper, top to bottom |
//! | [`ops`] | threaded steps over whole activations: linear, attention, norms |
//! | [`kernels`] | the instruction sets: one body per algorithm over a small `Simd` trait |
//! | [`quant`] | weight types: blocks, scalar encode and decode, the packed layout |
//! | [`format`] | model files: GGUF and safetensors, every field checked |
//! | [`base`] | errors, aligned fallible memory, threads, matrix views |
//!
//! `unsafe` is allowed in `ffi`, `kernels` and `base` only.

#![warn(clippy::unwrap_used, clippy::expect_used)]

pub mod base;
pub mod ffi;
pub mod format;
pub mod kernels;
pub mod model;
pub mod ops;
pub mod quant;
pub mod text;
