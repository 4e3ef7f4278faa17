//! A document's embedding is the same bits alone, in any batch, with any number of threads, on any instruction set.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embed_common;
mod gguf_support;

use embed_common::reference::{Kind, Reference};
use embed_common::{data, embed, embedder, runtime};
use mantle::format::dtype::DataType;
use mantle::kernels::Isa;
use mantle::model::embed::{Embedder, EmbedderOptions};
use mantle::model::model::{Model, ModelOptions};
use std::sync::Arc;

fn document(seed: u32, length: usize, vocabulary: u32) -> Vec<u32> {
    (0..length as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(seed * 977)) % vocabulary)
        .collect()
}

/// Lengths around the sizes of panels, tiles and passes, and many short ones.
fn documents(vocabulary: u32) -> Vec<Vec<u32>> {
    let mut lengths = vec![1, 2, 7, 8, 9, 15, 16, 17, 24, 25, 31, 33, 200, 511, 513];
    lengths.extend((0..150).map(|i| 1 + i % 13));
    let numbered = lengths.into_iter().enumerate();
    numbered
        .map(|(seed, length)| document(seed as u32, length, vocabulary))
        .collect()
}

fn check(vocabulary: u32, open: impl Fn(usize, Isa) -> Arc<Model>) {
    let mut alone = embedder(&open(1, Isa::best()));
    let mut documents = documents(vocabulary);
    documents.retain(|document| document.len() <= alone.max_tokens());
    let slices: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
    let expected: Vec<Vec<u32>> = slices
        .iter()
        .map(|document| bits(&embed(&mut alone, &[document]))[0].clone())
        .collect();
    assert!(expected.iter().all(|row| row.iter().any(|&bits| bits != 0)));
    for threads in [1, 2, 3] {
        let mut embedder = embedder(&open(threads, Isa::best()));
        assert!(
            bits(&embed(&mut embedder, &slices)) == expected,
            "{threads} threads"
        );
        let reversed: Vec<&[u32]> = slices.iter().rev().copied().collect();
        let rows: Vec<Vec<u32>> = bits(&embed(&mut embedder, &reversed)).into_iter().rev().collect();
        assert!(rows == expected, "{threads} threads, in reverse");
    }
    for isa in Isa::ALL.iter().copied().filter(|isa| isa.is_available()) {
        // The plain instruction set is slow: the short documents will do.
        let count = if isa == Isa::Scalar { 12 } else { slices.len() };
        let mut embedder = embedder(&open(2, isa));
        assert!(
            bits(&embed(&mut embedder, &slices[..count])) == expected[..count],
            "{}",
            isa.name()
        );
    }
}

fn bits(rows: &[Vec<f32>]) -> Vec<Vec<u32>> {
    rows.iter()
        .map(|row| row.iter().map(|value| value.to_bits()).collect())
        .collect()
}

#[test]
fn gemma_with_floats() {
    check(512, |threads, isa| {
        embed_common::open(
            &runtime(threads, Some(isa)),
            &data("tiny-gemma-embedding-F32.gguf"),
        )
    });
}

#[test]
fn gemma_with_codes() {
    check(512, |threads, isa| {
        embed_common::open(
            &runtime(threads, Some(isa)),
            &data("tiny-gemma-embedding-Q8_0.gguf"),
        )
    });
}

#[test]
fn bert_and_nomic_bert_with_every_form_of_weights() {
    for kind in [Kind::Bert, Kind::Nomic] {
        let file = Reference::new(kind).gguf();
        for weights in [None, Some(DataType::BF16), Some(DataType::Q8_0)] {
            check(90, |threads, isa| {
                let options = ModelOptions {
                    weights,
                    ..ModelOptions::default()
                };
                Model::open_memory(&runtime(threads, Some(isa)), &file, options).unwrap()
            });
        }
    }
}

#[test]
fn decoders_that_embed() {
    for (name, vocabulary) in [("tiny-qwen3-Q8_0.gguf", 512), ("decoders/gemma3.gguf", 60)] {
        check(vocabulary, |threads, isa| {
            embed_common::open(&runtime(threads, Some(isa)), &data(name))
        });
    }
}

#[test]
fn the_size_of_the_memory_does_not_matter() {
    let model = embed_common::open(&runtime(2, None), &data("tiny-gemma-embedding-F32.gguf"));
    let documents = [document(1, 64, 512), document(2, 3, 512)];
    let slices: Vec<&[u32]> = documents.iter().map(Vec::as_slice).collect();
    let expected = bits(&embed(&mut embedder(&model), &slices));
    let options = EmbedderOptions {
        max_tokens: 64,
        ..EmbedderOptions::default()
    };
    let bytes = Embedder::bytes(&model, &options).unwrap() as usize;
    let arena = model.runtime().allocator().buffer(bytes + 64).unwrap();
    let mut small = Embedder::new(&model, &options, Some(arena)).unwrap();
    assert!(bits(&embed(&mut small, &slices)) == expected);
    let arena = model.runtime().allocator().buffer(bytes - 1).unwrap();
    let error = Embedder::new(&model, &options, Some(arena)).err().unwrap();
    assert!(error.message().contains(&bytes.to_string()), "{error}");
}
