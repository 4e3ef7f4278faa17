//! Model architectures and the plan that sizes and carves their buffers.
pub mod config;
pub mod llama;
#[allow(clippy::module_inception)]
pub mod model;
pub mod plan;
pub mod session;
pub mod weights;
