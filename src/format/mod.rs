//! Model files: readers in which every field and extent is checked before it is used.
pub mod dtype;
pub mod metadata;
