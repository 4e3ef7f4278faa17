//! Decoders that embed texts: their vectors are those from which the logits are made, so the golden logits tell.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embed_common;
mod gguf_support;

use embed_common::{cosine, data, embed, embedder, runtime, says, try_embed};
use mantle::base::error::Status;
use mantle::format::container::{Container, LoadMode};
use mantle::format::metadata::Value;
use mantle::model::embed::EmbedOptions;
use mantle::model::model::{Model, ModelOptions};
use mantle::model::pooling::Pooling;
use mantle::model::session::{Entries, Session, SessionOptions, Want};
use mantle::quant::scalar::dequantize_row;

/// The output head of a file, as rows of f32, and the cap of its logits.
fn head(path: &str) -> (Vec<Vec<f32>>, f64) {
    let container = Container::open(&data(path), LoadMode::Map).unwrap();
    let tensor = container
        .tensor("output.weight")
        .or(container.tensor("token_embd.weight"))
        .unwrap();
    let rows = (0..tensor.rows()).map(|row| {
        let (mut scratch, mut values) = (Vec::new(), vec![0.0; tensor.columns()]);
        let bytes = container.rows(tensor, row, 1, &mut scratch).unwrap();
        dequantize_row(tensor.dtype, bytes, &mut values).unwrap();
        values
    });
    let architecture = container.metadata().required_str("general.architecture").unwrap();
    let key = format!("{architecture}.final_logit_softcapping");
    let cap = match container.metadata().get(&key) {
        Some(Value::F32(cap)) => f64::from(*cap),
        _ => 0.0,
    };
    (rows.collect(), cap)
}

fn check(file: &str, head_of: &str, cases: &serde_json::Value, most: f64) {
    let model = Model::open(&runtime(2, None), &data(file), ModelOptions::default()).unwrap();
    let (head, cap) = head(head_of);
    let mut embedder = embedder(&model);
    let options = EmbedOptions {
        pooling: Some(Pooling::Last),
        normalize: Some(false),
        ..EmbedOptions::default()
    };
    for case in cases.as_array().unwrap() {
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        let expected: Vec<f64> = serde_json::from_value(case["logits_last"].clone()).unwrap();
        let row = try_embed(&mut embedder, &[&ids], &options).unwrap().remove(0);
        for (weights, expected) in head.iter().zip(&expected) {
            let products = weights
                .iter()
                .zip(&row)
                .map(|(w, x)| f64::from(*w) * f64::from(*x));
            let mut logit: f64 = products.sum();
            if cap > 0.0 {
                logit = cap * (logit / cap).tanh();
            }
            assert!((logit - expected).abs() < most, "{file}: {logit} for {expected}");
        }
    }
}

fn golden(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(data(name)).unwrap()).unwrap()
}

#[test]
fn last_vectors_of_every_family_are_those_behind_the_golden_logits() {
    let answers = golden("decoders/logits.json");
    for (name, cases) in answers.as_object().unwrap() {
        let gguf = format!("decoders/{name}.gguf");
        check(&gguf, &gguf, cases, 1e-3);
        check(&format!("decoders/{name}"), &gguf, cases, 1e-3);
    }
    let qwen3 = golden("tiny-qwen3-F32.json");
    check(
        "tiny-qwen3-F32.gguf",
        "tiny-qwen3-F32.gguf",
        &qwen3["cases"],
        1e-3,
    );
}

fn document(seed: u32, length: u32) -> Vec<u32> {
    (0..length).map(|i| (i * 37 + seed * 11) % 60).collect()
}

#[test]
fn the_last_token_is_pooled_unless_another_way_is_asked_for() {
    let model = Model::open(
        &runtime(1, None),
        &data("decoders/llama3.gguf"),
        ModelOptions::default(),
    )
    .unwrap();
    let info = model.embedding().unwrap();
    assert_eq!(
        (info.pooling, info.normalize, info.dense_layers),
        (Pooling::Last, true, 0)
    );
    let mut embedder = embedder(&model);
    let tokens = document(1, 21);
    let mut with = |pooling| {
        let options = EmbedOptions {
            pooling,
            normalize: Some(false),
            ..EmbedOptions::default()
        };
        try_embed(&mut embedder, &[&tokens], &options).unwrap()
    };
    let rows = with(Some(Pooling::None));
    assert_eq!(with(None), [rows[20].clone()]);
    let mean = with(Some(Pooling::Mean)).remove(0);
    let expected: Vec<f64> = (0..mean.len())
        .map(|i| rows.iter().map(|row| f64::from(row[i])).sum::<f64>() / 21.0)
        .collect();
    assert!(cosine(&mean, &expected) > 0.999_999_9);
    // Causal: what follows a token changes nothing about it.
    let alone = EmbedOptions {
        normalize: Some(false),
        ..EmbedOptions::default()
    };
    let begin = try_embed(&mut embedder, &[&tokens[..8]], &alone).unwrap();
    assert_eq!(begin, [rows[7].clone()]);
}

/// The same model generates and embeds, in any order.
#[test]
fn a_decoder_serves_both() {
    let model = Model::open(
        &runtime(2, None),
        &data("decoders/qwen2.gguf"),
        ModelOptions::default(),
    )
    .unwrap();
    let tokens = document(3, 12);
    let mut session = Session::new(&model, &SessionOptions::default(), None).unwrap();
    let mut logits = || {
        session.truncate(0, 0).unwrap();
        let entries = Entries {
            sequences: &[0],
            tokens: &tokens,
            offsets: &[0, 12],
        };
        session.forward(&entries, Want::Last, None).unwrap();
        session.logits(0).unwrap().to_vec()
    };
    let before = logits();
    let row = embed(&mut embedder(&model), &[&tokens]);
    assert_eq!(logits(), before);
    assert_eq!(embed(&mut embedder(&model), &[&tokens]), row);
}

/// A file whose embeddings are not supported still generates text.
#[test]
fn a_pooling_that_is_not_known_does_not_keep_a_decoder_from_generating() {
    let mut file = std::fs::read(data("decoders/qwen2.gguf")).unwrap();
    // One more entry behind the count of entries: pooling_type 4, the score of a re-ranker.
    let count = u64::from_le_bytes(file[16..24].try_into().unwrap());
    file[16..24].copy_from_slice(&(count + 1).to_le_bytes());
    let key = b"qwen2.pooling_type";
    let mut entry = (key.len() as u64).to_le_bytes().to_vec();
    entry.extend(key);
    entry.extend(4u32.to_le_bytes());
    entry.extend(4u32.to_le_bytes());
    // A multiple of the alignment, so that the tensors' data stays where it was.
    let note = b"note";
    let mut filler = (note.len() as u64).to_le_bytes().to_vec();
    filler.extend(note);
    filler.extend(8u32.to_le_bytes());
    let text = 64 - (entry.len() + filler.len() + 8) % 32;
    filler.extend((text as u64).to_le_bytes());
    filler.extend(vec![b'.'; text]);
    file[16..24].copy_from_slice(&(count + 2).to_le_bytes());
    file.splice(24..24, entry.into_iter().chain(filler));
    let model = Model::open_memory(&runtime(1, None), &file, ModelOptions::default()).unwrap();
    assert!(Session::new(&model, &SessionOptions::default(), None).is_ok());
    says(
        &model.embedding().err().unwrap(),
        Status::Unsupported,
        &["qwen2", "embeddings"],
    );
}
