//! all-MiniLM-L6-v2, the real model, from its folder of safetensors.
//!
//! The folder is what `tests/tools/fetch_models.py minilm` prints, or named by `MANTLE_MINILM`. Where there is none, the
//! tests say so and pass: they need 92 MB that are not in the repository.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embed_common;
mod gguf_support;
use embed_common::{embedder, golden, runtime, smallest_cosine};
use mantle::format::dtype::DataType;
use mantle::model::model::{Model, ModelOptions};
use mantle::text::tokenizer::{EncodeOptions, of_model};
use std::path::PathBuf;
use std::sync::Arc;

fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = variable("MANTLE_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("libmantle")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/libmantle")));
    let folder = variable("MANTLE_MINILM").or_else(|| cache.map(|cache| cache.join("minilm")))?;
    if folder.join("model.safetensors").exists() {
        return Some(folder);
    }
    println!(
        "skipped: {} has no model; fetch it with tests/tools/fetch_models.py minilm",
        folder.display()
    );
    None
}

fn open(weights: Option<DataType>) -> Option<Arc<Model>> {
    let options = ModelOptions {
        weights,
        ..ModelOptions::default()
    };
    Some(Model::open(&runtime(2, None), &folder()?, options).unwrap())
}

fn check(weights: Option<DataType>, least: f64) {
    let Some(model) = open(weights) else { return };
    let cosine = smallest_cosine(&mut embedder(&model), &golden("minilm.json"));
    println!("{weights:?}: smallest cosine {cosine}");
    assert!(
        cosine >= least,
        "{weights:?}: smallest cosine {cosine}, expected {least}"
    );
}

#[test]
fn f32_weights_give_the_reference() {
    check(None, 0.999_999);
}

#[test]
fn bf16_weights_give_almost_the_reference() {
    check(Some(DataType::BF16), 0.9999);
}

#[test]
fn q8_0_weights_give_almost_the_reference() {
    check(Some(DataType::Q8_0), 0.999);
}

#[test]
fn texts_become_the_ids_of_the_reference() {
    let Some(model) = open(None) else { return };
    let tokenizer = of_model(&model).unwrap();
    let options = EncodeOptions {
        add_special: true,
        parse_special: false,
    };
    for case in golden("minilm.json") {
        assert_eq!(
            tokenizer.encode(&case.text, options).unwrap(),
            case.ids,
            "{:?}",
            case.text
        );
    }
    let info = model.info().embeddings.as_ref().unwrap();
    assert!(info.normalize && info.dense_layers == 0 && info.dimensions == 384);
}
