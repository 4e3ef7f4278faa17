//! EmbeddingGemma against a float64 pass over the same files.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embed_common;
mod gguf_support;
use embed_common::{data, embedder, golden, open, runtime, smallest_cosine};

fn check(name: &str, least: f64) {
    let model = open(&runtime(2, None), &data(&format!("{name}.gguf")));
    let cosine = smallest_cosine(&mut embedder(&model), &golden(&format!("{name}.json")));
    println!("{name}: smallest cosine {cosine}");
    assert!(cosine >= least, "smallest cosine {cosine}, expected {least}");
}

#[test]
fn f32_weights_give_the_reference() {
    check("tiny-gemma-embedding-F32", 0.999_999);
}

#[test]
fn q8_0_weights_give_almost_the_reference() {
    check("tiny-gemma-embedding-Q8_0", 0.9995);
}
