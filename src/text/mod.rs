//! Tokenizers and text generation.
pub mod embed;
pub mod generate;
pub mod tokenizer;
