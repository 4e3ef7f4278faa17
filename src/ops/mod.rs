//! Threaded steps over whole activations.
pub mod attention;
pub mod linear;
pub mod matrix;
pub mod profile;
pub mod ragged;
pub mod residual;
pub mod rope;
pub mod rows;
pub mod runtime;
pub mod vector;
