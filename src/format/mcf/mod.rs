//! MCF, the Mantle container format, version 1.

pub mod regions;
