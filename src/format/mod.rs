//! Model files: readers in which every field and extent is checked before it is used.
pub mod container;
mod cursor;
pub mod dtype;
mod gguf;
pub mod metadata;
mod source;
pub mod strings;
