//! Real models from the cache, and how to get them.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use mantle::kernels::Isa;
use mantle::model::model::{Model, ModelOptions};
use mantle::ops::runtime::{Runtime, RuntimeOptions};
use std::path::PathBuf;
use std::sync::Arc;

/// The path of a cached model file. A test without its model fails and says how to get it.
pub fn cached(path: &str) -> PathBuf {
    let home = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = home("MANTLE_CACHE")
        .or_else(|| home("XDG_CACHE_HOME").map(|cache| cache.join("libmantle")))
        .or_else(|| home("HOME").map(|home| home.join(".cache/libmantle")))
        .expect("HOME is not set");
    let found = cache.join(path);
    assert!(
        found.exists(),
        "{} is missing: run `make models`",
        found.display()
    );
    found
}

/// SmolLM2-135M-Instruct, Q4_1.
pub fn smollm2() -> PathBuf {
    cached("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// A runtime of `threads` threads with instructions up to `cap`.
pub fn runtime(threads: usize, cap: Isa) -> Arc<Runtime> {
    Runtime::new(RuntimeOptions {
        threads,
        isa: Some(cap),
        ..RuntimeOptions::default()
    })
    .unwrap()
}

/// Opens SmolLM2.
pub fn open_smollm2(runtime: &Arc<Runtime>) -> Arc<Model> {
    Model::open(runtime, &smollm2(), ModelOptions::default()).unwrap()
}

/// The answers in `tests/data/<name>`.
pub fn golden(name: &str) -> serde_json::Value {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data", name].iter().collect();
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A list of token ids.
pub fn ids(value: &serde_json::Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}
