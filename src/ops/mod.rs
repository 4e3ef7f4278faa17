//! Threaded steps over whole activations.
pub mod attention;
pub mod linear;
pub mod matrix;
pub mod rows;
pub mod runtime;
