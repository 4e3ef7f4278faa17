//! Threaded steps over whole activations.
pub mod activation_rows;
pub mod attention;
pub mod gemm;
pub mod linear;
pub mod matrix;
pub mod measure;
pub mod profile;
pub mod ragged;
pub mod residual;
pub mod rope;
pub mod rows;
pub mod runtime;
pub mod vector;
