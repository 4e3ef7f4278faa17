//! Tokenizers and text generation.
