//! Kernels: one body per algorithm over the `Simd` trait, one thin file per instruction set.
pub mod limits;
mod limits_loops;
