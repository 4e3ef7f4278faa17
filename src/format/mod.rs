//! Model files: readers in which every field and extent is checked before it is used.
pub mod container;
mod cursor;
pub mod dtype;
mod gguf;
mod json;
pub mod mcf;
pub mod metadata;
mod safetensors;
mod sidecar;
mod source;
pub mod strings;
