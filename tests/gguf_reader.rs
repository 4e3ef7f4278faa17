//! Reading GGUF files that other programs wrote.

use mantle::format::container::{Container, LoadMode};
use mantle::format::dtype::DataType;
use mantle::format::metadata::{Array, Value};
use std::path::PathBuf;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// All ways to open a file give the same metadata, tensors and bytes.
fn same_in_every_mode(name: &str) {
    let bytes = std::fs::read(data(name)).unwrap();
    let mapped = Container::open(&data(name), LoadMode::Map).unwrap();
    let read = Container::open(&data(name), LoadMode::Read).unwrap();
    let memory = Container::from_memory(&bytes).unwrap();
    for other in [&read, &memory] {
        assert_eq!(mapped.metadata(), other.metadata());
        assert_eq!(mapped.tensors(), other.tensors());
        assert_eq!(mapped.file_size(), other.file_size());
    }
    for tensor in mapped.tensors() {
        let expected = &bytes[tensor.offset as usize..][..tensor.bytes as usize];
        for container in [&mapped, &read, &memory] {
            let mut scratch = Vec::new();
            let all = container.rows(tensor, 0, tensor.rows(), &mut scratch).unwrap();
            assert_eq!(all, expected, "{}", tensor.name);
            let last = tensor.rows() - 1;
            let row = container.rows(tensor, last, 1, &mut scratch).unwrap();
            assert_eq!(row, &expected[last * tensor.row_bytes()..], "{}", tensor.name);
        }
    }
}

#[test]
fn tiny_models_read_the_same_in_every_mode() {
    for name in [
        "tiny-qwen3-F32.gguf",
        "tiny-qwen3-Q8_0.gguf",
        "tiny-gemma-embedding-F32.gguf",
        "tiny-gemma-embedding-Q8_0.gguf",
    ] {
        same_in_every_mode(name);
    }
}

#[test]
fn a_tiny_model_has_its_metadata_and_tensors() {
    let container = Container::open(&data("tiny-qwen3-Q8_0.gguf"), LoadMode::Map).unwrap();
    assert_eq!(
        container.metadata().required_str("general.architecture").unwrap(),
        "qwen3"
    );
    let embedding = container.tensor("token_embd.weight").unwrap();
    assert_eq!(embedding.dtype, DataType::Q8_0);
    assert!(container.tensor("no such tensor").is_none());
    let layers = container.metadata().required_u32("qwen3.block_count").unwrap() as usize;
    assert!(
        container
            .tensor(&format!("blk.{}.attn_q.weight", layers - 1))
            .is_some()
    );
    let vocabulary = match container.metadata().get("tokenizer.ggml.tokens") {
        Some(Value::Array(Array::String(tokens))) => Some(tokens.len()),
        _ => None,
    };
    assert!(vocabulary.is_none_or(|n| n == embedding.rows()));
}
