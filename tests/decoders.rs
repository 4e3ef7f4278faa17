//! Tiny random decoders of every family against float64, from GGUF and from folders of safetensors.
//!
//! `tests/tools/decoder_reference.py` and the project's golden files have the answers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod models;

use mantle::format::dtype::DataType;
use mantle::kernels::Isa;
use mantle::model::model::{Model, ModelOptions};
use mantle::model::session::{Entries, Session, SessionOptions, Want};
use models::{golden, ids, runtime};
use std::path::PathBuf;
use std::sync::Arc;

fn open(name: &str, isa: Isa) -> Arc<Model> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data", name].iter().collect();
    Model::open(&runtime(2, isa), &path, ModelOptions::default()).unwrap()
}

/// Logits behind the tokens, which go in `chunk` at a time.
fn logits(model: &Arc<Model>, tokens: &[u32], chunk: usize, cache: DataType) -> Vec<f32> {
    let options = SessionOptions {
        key_type: cache,
        value_type: cache,
        max_context: 128,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, &options, None).unwrap();
    for part in tokens.chunks(chunk) {
        let entries = Entries {
            sequences: &[0],
            tokens: part,
            offsets: &[0, part.len()],
        };
        session.forward(&entries, Want::Last, None).unwrap();
    }
    session.logits(0).unwrap().to_vec()
}

fn numbers(value: &serde_json::Value) -> Vec<f64> {
    let values = value.as_array().unwrap().iter();
    values.map(|value| value.as_f64().unwrap()).collect()
}

fn cosine(found: &[f32], expected: &[f64]) -> f64 {
    let dot = |a: &mut dyn Iterator<Item = (f64, f64)>| a.map(|(a, b)| a * b).sum::<f64>();
    let found: Vec<f64> = found.iter().map(|&value| value.into()).collect();
    let of = |a: &[f64], b: &[f64]| dot(&mut a.iter().copied().zip(b.iter().copied()));
    of(&found, expected) / (of(&found, &found) * of(expected, expected)).sqrt()
}

#[test]
fn tiny_qwen3_is_that_of_float64() {
    for (name, quantized) in [("tiny-qwen3-F32", false), ("tiny-qwen3-Q8_0", true)] {
        let model = open(&format!("{name}.gguf"), Isa::best());
        let (mut least, mut most) = (1f64, 0f64);
        for case in golden(&format!("{name}.json"))["cases"].as_array().unwrap() {
            let expected = numbers(&case["logits_last"]);
            let found = logits(&model, &ids(&case["ids"]), usize::MAX, DataType::F16);
            least = least.min(cosine(&found, &expected));
            let found = logits(&model, &ids(&case["ids"]), usize::MAX, DataType::F32);
            assert_eq!(found.len(), expected.len());
            least = least.min(cosine(&found, &expected));
            for (&found, expected) in found.iter().zip(expected) {
                most = most.max((f64::from(found) - expected).abs());
            }
        }
        println!("{name}: cosine at least {least}, logits differ by at most {most}");
        assert!(least >= 0.9995, "{name}: {least}");
        assert!(quantized || most <= 1e-3, "{name}: {most}");
    }
}

#[test]
fn every_family_is_that_of_float64_from_gguf_and_from_folders() {
    let answers = golden("decoders/logits.json");
    for (name, cases) in answers.as_object().unwrap() {
        for file in [format!("decoders/{name}.gguf"), format!("decoders/{name}")] {
            let model = open(&file, Isa::best());
            for case in cases.as_array().unwrap() {
                let tokens = ids(&case["ids"]);
                let found = logits(&model, &tokens, usize::MAX, DataType::F32);
                for (id, (&found, expected)) in found.iter().zip(numbers(&case["logits_last"])).enumerate() {
                    assert!(
                        (f64::from(found) - expected).abs() < 1e-3,
                        "{file}, {} tokens: logit {id} is {found}, expected {expected}",
                        tokens.len()
                    );
                }
            }
        }
    }
}

/// The same bits from both formats, with every instruction set, and however the tokens are cut into calls.
#[test]
fn every_family_has_the_same_bits_everywhere() {
    let bits = |logits: Vec<f32>| -> Vec<u32> { logits.into_iter().map(f32::to_bits).collect() };
    let answers = golden("decoders/logits.json");
    for (name, cases) in answers.as_object().unwrap() {
        let tokens = ids(&cases.as_array().unwrap().last().unwrap()["ids"]);
        let model = open(&format!("decoders/{name}.gguf"), Isa::best());
        let expected = bits(logits(&model, &tokens, usize::MAX, DataType::F16));
        for chunk in [1, 7] {
            assert!(
                bits(logits(&model, &tokens, chunk, DataType::F16)) == expected,
                "{name}, {chunk}"
            );
        }
        for isa in Isa::ALL.iter().copied().filter(|isa| isa.is_available()) {
            let model = open(&format!("decoders/{name}.gguf"), isa);
            let found = bits(logits(&model, &tokens, usize::MAX, DataType::F16));
            assert!(found == expected, "{name}, {}", isa.name());
        }
    }
}
