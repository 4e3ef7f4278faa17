//! Model architectures and the plan that sizes and carves their buffers.
