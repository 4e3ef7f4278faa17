//! BERT and nomic-bert from GGUF against float64, by an implementation of its own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embed_common;
mod gguf_support;

use embed_common::reference::{Kind, Reference, WIDTH};
use embed_common::{cosine, embed, embedder, runtime, try_embed};
use mantle::model::embed::EmbedOptions;
use mantle::model::model::{Model, ModelOptions};
use mantle::model::pooling::Pooling;
use std::sync::Arc;

fn model(kind: Kind) -> Arc<Model> {
    let file = Reference::new(kind).gguf();
    Model::open_memory(&runtime(2, None), &file, ModelOptions::default()).unwrap()
}

fn document(length: usize) -> Vec<u32> {
    (0..length as u32)
        .map(|i| (i * 37 + length as u32) % 90)
        .collect()
}

#[test]
fn every_kind_is_that_of_float64() {
    for kind in [Kind::Bert, Kind::FusedBert, Kind::Nomic] {
        let reference = Reference::new(kind);
        let mut embedder = embedder(&model(kind));
        let options = EmbedOptions {
            pooling: Some(Pooling::None),
            ..EmbedOptions::default()
        };
        for length in [1, 2, 15, 16, 17, 70, 300] {
            let tokens = document(length);
            let rows = try_embed(&mut embedder, &[&tokens], &options).unwrap();
            let expected = reference.forward(&tokens);
            assert_eq!(rows.len(), length);
            for (row, expected) in rows.iter().zip(&expected) {
                let cosine = cosine(row, expected);
                assert!(cosine > 0.999_999_9, "{kind:?}, {length} tokens: {cosine}");
                for (value, expected) in row.iter().zip(expected) {
                    assert!(
                        (f64::from(*value) - expected).abs() < 2e-4,
                        "{value} for {expected}"
                    );
                }
            }
        }
    }
}

#[test]
fn one_matrix_or_three_give_the_same_bits() {
    let documents = [document(5), document(40)];
    let documents: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
    let three = embed(&mut embedder(&model(Kind::Bert)), &documents);
    assert_eq!(embed(&mut embedder(&model(Kind::FusedBert)), &documents), three);
}

#[test]
fn pooling_cutting_and_normalizing_follow_the_options() {
    let mut embedder = embedder(&model(Kind::Bert));
    let tokens = document(9);
    let mut with = |pooling, normalize, dimensions| {
        let options = EmbedOptions {
            pooling,
            normalize: Some(normalize),
            dimensions,
            truncate: false,
        };
        try_embed(&mut embedder, &[&tokens], &options).unwrap()
    };
    let rows = with(Some(Pooling::None), false, 0);
    assert_eq!(with(Some(Pooling::Cls), false, 0), [rows[0].clone()]);
    assert_eq!(with(Some(Pooling::Last), false, 0), [rows[8].clone()]);
    // The file says CLS.
    assert_eq!(with(None, false, 0), [rows[0].clone()]);
    let mean = with(Some(Pooling::Mean), false, 0).remove(0);
    for (i, mean) in mean.iter().enumerate() {
        let expected = rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / 9.0;
        assert!((f64::from(*mean) - expected).abs() < 1e-6);
    }
    let cut = with(Some(Pooling::Mean), false, 24).remove(0);
    assert_eq!(cut, mean[..24]);
    let length = cut
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt();
    let normalized = with(Some(Pooling::Mean), true, 24).remove(0);
    for (value, cut) in normalized.iter().zip(&cut) {
        assert!((f64::from(*value) - f64::from(*cut) / length).abs() < 1e-7);
    }
    assert_eq!(with(Some(Pooling::Mean), true, 0)[0].len(), WIDTH);
}

#[test]
fn a_model_tells_what_its_embeddings_are() {
    let model = model(Kind::Nomic);
    let info = model.embedding().unwrap();
    assert_eq!(
        (info.dimensions, info.pooling, info.dense_layers),
        (WIDTH as u32, Pooling::Cls, 0)
    );
    assert_eq!(info.prompt("query"), Ok("search_query: "));
    let error = info.prompt("riddle").unwrap_err();
    assert!(
        error.message().contains("search") || error.message().contains("query, document"),
        "{error}"
    );
    assert!(model.info().is_encoder);
}
