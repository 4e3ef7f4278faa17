//! Model architectures and the plan that sizes and carves their buffers.
pub mod bert;
pub mod config;
pub mod config_json;
pub mod dense;
pub mod embed;
pub mod encoder;
pub mod gemma;
pub mod llama;
pub mod llama_embed;
#[allow(clippy::module_inception)]
pub mod model;
pub mod names;
pub mod plan;
pub mod pooling;
pub mod rope;
pub mod session;
pub mod table;
pub mod weights;
