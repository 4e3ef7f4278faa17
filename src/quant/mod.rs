//! Weight types: block structures, scalar encode and decode, and the packed layout.

pub mod activations;
pub mod blocks;
pub mod convert;
pub mod packed;
pub mod scalar;
