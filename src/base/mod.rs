//! Errors, memory, threads and matrix views: what every other floor stands on.
pub mod caches;
pub mod cancel;
pub mod error;
pub mod map;
pub mod matrix;
pub mod memory;
pub mod threads;
