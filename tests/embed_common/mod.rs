//! What the tests of embeddings share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

pub mod reference;

use mantle::base::error::{Error, Result, Status};
use mantle::base::matrix::MatrixMut;
use mantle::kernels::Isa;
use mantle::model::embed::{Documents, EmbedOptions, Embedder, EmbedderOptions, Watch};
use mantle::model::model::{Model, ModelOptions};
use mantle::ops::runtime::{Runtime, RuntimeOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub fn data(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/data", name].iter().collect()
}

pub fn golden(name: &str) -> Vec<Case> {
    let text = std::fs::read(data(name)).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let cases = json["cases"].as_array().unwrap();
    cases
        .iter()
        .map(|case| Case {
            text: case["text"].as_str().unwrap_or("").to_owned(),
            ids: serde_json::from_value(case["ids"].clone()).unwrap(),
            embedding: serde_json::from_value(case["embedding"].clone()).unwrap(),
        })
        .collect()
}

pub struct Case {
    pub text: String,
    pub ids: Vec<u32>,
    pub embedding: Vec<f64>,
}

pub fn runtime(threads: usize, isa: Option<Isa>) -> Arc<Runtime> {
    let options = RuntimeOptions {
        threads,
        isa,
        ..RuntimeOptions::default()
    };
    Runtime::new(options).unwrap()
}

pub fn open(runtime: &Arc<Runtime>, path: &Path) -> Arc<Model> {
    Model::open(runtime, path, ModelOptions::default()).unwrap()
}

pub fn embedder(model: &Arc<Model>) -> Embedder {
    Embedder::new(model, &EmbedderOptions::default(), None).unwrap()
}

/// One row for each of the documents, or for each of their tokens.
pub fn try_embed(
    embedder: &mut Embedder,
    documents: &[&[u32]],
    options: &EmbedOptions,
) -> Result<Vec<Vec<f32>>> {
    let tokens = documents.concat();
    let mut offsets = vec![0];
    documents
        .iter()
        .for_each(|document| offsets.push(offsets[offsets.len() - 1] + document.len()));
    let documents = Documents {
        tokens: &tokens,
        offsets: &offsets,
    };
    let columns = embedder.dimensions(options)?;
    let rows = embedder.rows(&documents, options)?;
    let mut out = vec![0.0; rows * columns];
    let matrix = MatrixMut::new(&mut out, rows, columns, columns).unwrap();
    embedder.embed(&documents, options, matrix, &mut Watch::default())?;
    Ok(out.chunks_exact(columns).map(<[f32]>::to_vec).collect())
}

pub fn embed(embedder: &mut Embedder, documents: &[&[u32]]) -> Vec<Vec<f32>> {
    try_embed(embedder, documents, &EmbedOptions::default()).unwrap()
}

pub fn cosine(a: &[f32], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        let a = f64::from(a);
        ab += a * b;
        aa += a * a;
        bb += b * b;
    }
    ab / (aa * bb).sqrt()
}

/// The smallest cosine of the model's embeddings with the golden ones, all documents in one call.
pub fn smallest_cosine(embedder: &mut Embedder, cases: &[Case]) -> f64 {
    let documents: Vec<&[u32]> = cases.iter().map(|case| case.ids.as_slice()).collect();
    let rows = embed(embedder, &documents);
    let cosines = rows
        .iter()
        .zip(cases)
        .map(|(row, case)| cosine(row, &case.embedding));
    cosines.fold(1.0, f64::min)
}

/// The error has this status, and a text that holds all of the words.
pub fn says(error: &Error, status: Status, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(error.status(), status, "{text}");
    for word in words {
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }
}
