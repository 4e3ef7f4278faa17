//! Tokenizers and text generation.
pub mod tokenizer;
