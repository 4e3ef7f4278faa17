//! Tokenizers and text generation.
pub mod generate;
pub mod tokenizer;
