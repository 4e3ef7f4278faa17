//! Wrong arguments and wrong files are errors that say what was found.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod embed_common;
mod gguf_support;

use embed_common::reference::{Kind, Reference, write_gguf};
use embed_common::{data, embed, embedder, runtime, says, try_embed};
use mantle::base::cancel::Cancel;
use mantle::base::error::{Error, Status};
use mantle::base::matrix::MatrixMut;
use mantle::format::dtype::DataType;
use mantle::format::metadata::Value;
use mantle::model::embed::{Documents, EmbedOptions, Embedder, EmbedderOptions, Watch};
use mantle::model::model::{Model, ModelOptions};
use mantle::model::pooling::Pooling;
use mantle::model::session::{Session, SessionOptions};
use mantle::text::embed::{Limit, Texts, embed_texts, tokenize};
use mantle::text::tokenizer::{Tokenizer, of_model};
use std::sync::Arc;

fn gemma() -> Arc<Model> {
    embed_common::open(&runtime(2, None), &data("tiny-gemma-embedding-F32.gguf"))
}

/// Embeds with these offsets into as many rows.
fn with_offsets(tokens: &[u32], offsets: &[usize], rows: usize) -> Error {
    let mut embedder = embedder(&gemma());
    let mut out = vec![0.0; rows * 64];
    let documents = Documents { tokens, offsets };
    let out = MatrixMut::new(&mut out, rows, 64, 64).unwrap();
    embedder
        .embed(&documents, &EmbedOptions::default(), out, &mut Watch::default())
        .unwrap_err()
}

#[test]
fn documents() {
    let mut embedder = embedder(&gemma());
    assert!(embed(&mut embedder, &[]).is_empty());
    let plain = EmbedOptions::default();
    let error = try_embed(&mut embedder, &[&[1, 2], &[]], &plain).unwrap_err();
    says(&error, Status::InvalidArgument, &["document 1", "no tokens"]);
    let error = try_embed(&mut embedder, &[&[1, 2], &[3, 512]], &plain).unwrap_err();
    says(&error, Status::InvalidArgument, &["document 1", "512"]);
    let long = vec![7; 2049];
    let error = try_embed(&mut embedder, &[&[1], &[2], &long], &plain).unwrap_err();
    says(&error, Status::InvalidArgument, &["document 2", "2049", "2048"]);
    let truncate = EmbedOptions {
        truncate: true,
        ..EmbedOptions::default()
    };
    let cut = try_embed(&mut embedder, &[&long], &truncate).unwrap();
    assert_eq!(cut, embed(&mut embedder, &[&long[..2048]]));
    let each = EmbedOptions {
        pooling: Some(Pooling::None),
        ..truncate
    };
    assert_eq!(
        try_embed(&mut embedder, &[&[5, 6], &long], &each).unwrap().len(),
        2050
    );
    let wide = EmbedOptions {
        dimensions: 65,
        ..EmbedOptions::default()
    };
    let error = try_embed(&mut embedder, &[&[1]], &wide).unwrap_err();
    says(&error, Status::InvalidArgument, &["65", "64"]);
    // After every error the embedder works as before.
    assert_eq!(embed(&mut embedder, &[&[2, 416, 1]]).len(), 1);
}

#[test]
fn offsets_and_outputs() {
    says(
        &with_offsets(&[1], &[], 0),
        Status::InvalidArgument,
        &["begin with 0"],
    );
    says(
        &with_offsets(&[1], &[1, 1], 1),
        Status::InvalidArgument,
        &["begin with 0"],
    );
    says(
        &with_offsets(&[1, 2], &[0, 2, 1], 2),
        Status::InvalidArgument,
        &["document 1", "from 2 to 1"],
    );
    says(
        &with_offsets(&[1, 2], &[0, 3], 1),
        Status::InvalidArgument,
        &["document 0", "to 3", "2 tokens"],
    );
    says(
        &with_offsets(&[1, 2], &[0, 1], 1),
        Status::InvalidArgument,
        &["last offset is 1", "2 tokens"],
    );
    says(
        &with_offsets(&[1], &[0, 1], 2),
        Status::InvalidArgument,
        &["2 x 64", "1 x 64"],
    );
}

#[test]
fn sizes_of_embedders() {
    let model = gemma();
    let new = |max_tokens, memory_limit| {
        let options = EmbedderOptions {
            max_tokens,
            memory_limit,
        };
        Embedder::new(&model, &options, None)
    };
    says(
        &new(2049, 0).err().unwrap(),
        Status::InvalidArgument,
        &["2049", "2048"],
    );
    says(&new(0, 1000).err().unwrap(), Status::NoMemory, &["1000"]);
    assert_eq!(new(100, 0).unwrap().max_tokens(), 100);
}

#[test]
fn a_cancelled_call_says_so() {
    let model = gemma();
    let mut embedder = embedder(&model);
    let cancel = Cancel::new();
    cancel.fire();
    let mut watch = Watch {
        cancel: Some(&cancel),
        progress: None,
    };
    let mut out = [0.0; 64];
    let documents = Documents {
        tokens: &[1, 2],
        offsets: &[0, 2],
    };
    let rows = MatrixMut::new(&mut out, 1, 64, 64).unwrap();
    let error = embedder
        .embed(&documents, &EmbedOptions::default(), rows, &mut watch)
        .unwrap_err();
    assert_eq!(error.status(), Status::Cancelled);
    // Also while texts become ids.
    let texts = Texts {
        bytes: b"abc",
        offsets: &[0, 3],
    };
    let limit = Limit {
        tokens: 100,
        truncate: false,
    };
    let tokenizer = of_model(&model).unwrap();
    let error = tokenize(model.runtime(), &*tokenizer, &texts, "", limit, Some(&cancel)).unwrap_err();
    assert_eq!(error.status(), Status::Cancelled);
}

#[test]
fn progress_is_told_and_may_end_the_call() {
    let mut embedder = embedder(&gemma());
    let tokens = vec![7; 300 * 5];
    let offsets: Vec<usize> = (0..=300).map(|i| 5 * i).collect();
    let documents = Documents {
        tokens: &tokens,
        offsets: &offsets,
    };
    let mut run = |most: usize| {
        let mut told = Vec::new();
        let mut report = |done: u64, total: u64| {
            told.push((done, total));
            told.len() < most
        };
        let mut watch = Watch {
            cancel: None,
            progress: Some(&mut report),
        };
        let mut out = vec![0.0; 300 * 64];
        let rows = MatrixMut::new(&mut out, 300, 64, 64).unwrap();
        let result = embedder.embed(&documents, &EmbedOptions::default(), rows, &mut watch);
        (told, result)
    };
    let (told, result) = run(usize::MAX);
    assert_eq!(result, Ok(()));
    assert!(told.len() > 2 && told.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert_eq!(told.last(), Some(&(1500, 1500)));
    let (told, result) = run(2);
    assert_eq!((told.len(), result.unwrap_err().status()), (2, Status::Cancelled));
}

#[test]
fn encoders_have_no_logits() {
    let error = Session::new(&gemma(), &SessionOptions::default(), None)
        .err()
        .unwrap();
    says(&error, Status::Unsupported, &["gemma-embedding", "encoder"]);
}

fn text(
    embedder: &mut Embedder,
    tokenizer: &dyn Tokenizer,
    bytes: &[u8],
    offsets: &[usize],
    prompt: Option<&str>,
    options: &EmbedOptions,
) -> Result<Vec<Vec<f32>>, Error> {
    let count = offsets.len() - 1;
    let mut rows = vec![0.0; count * 64];
    let texts = Texts { bytes, offsets };
    let out = MatrixMut::new(&mut rows, count, 64, 64).unwrap();
    embed_texts(
        embedder,
        tokenizer,
        &texts,
        prompt,
        options,
        out,
        &mut Watch::default(),
    )?;
    Ok(rows.chunks_exact(64).map(<[f32]>::to_vec).collect())
}

#[test]
fn texts() {
    let model = gemma();
    let (mut embedder, tokenizer) = (embedder(&model), of_model(&model).unwrap());
    let plain = EmbedOptions::default();
    let mut run = |bytes: &[u8], offsets: &[usize], prompt, options: &EmbedOptions| {
        text(&mut embedder, &*tokenizer, bytes, offsets, prompt, options)
    };
    // An empty text is the tokens around a text.
    let empty = run(b"", &[0, 0], None, &plain).unwrap();
    let error = run(b"good\xffbad", &[0, 4, 8], None, &plain).unwrap_err();
    says(&error, Status::InvalidArgument, &["text 1", "byte 0", "UTF-8"]);
    let error = run(b"ab", &[0, 1, 3], None, &plain).unwrap_err();
    says(&error, Status::InvalidArgument, &["text 1", "2 bytes"]);
    let error = run(b"ab", &[0, 2], Some("riddle"), &plain).unwrap_err();
    says(&error, Status::NotFound, &["riddle", "query"]);
    let none = EmbedOptions {
        pooling: Some(Pooling::None),
        ..EmbedOptions::default()
    };
    says(
        &run(b"ab", &[0, 2], None, &none).unwrap_err(),
        Status::InvalidArgument,
        &["pooling"],
    );
    let long = "abc ".repeat(3000).into_bytes();
    let error = run(&long, &[0, 0, long.len()], None, &plain).unwrap_err();
    says(&error, Status::InvalidArgument, &["text 1", "2048"]);
    let truncate = EmbedOptions {
        truncate: true,
        ..EmbedOptions::default()
    };
    run(&long, &[0, long.len()], None, &truncate).unwrap();
    // The prompt stands before the text.
    let asked = run(b"abc", &[0, 3], Some("query"), &plain).unwrap();
    let whole = b"task: search result | query: abc";
    assert_eq!(asked, run(whole, &[0, whole.len()], None, &plain).unwrap());
    assert_ne!(asked, empty);
    assert!(run(b"", &[0], None, &plain).unwrap().is_empty());
}

fn open(file: &[u8]) -> Error {
    let options = ModelOptions::default();
    Model::open_memory(&runtime(1, None), file, options)
        .err()
        .unwrap()
}

#[test]
fn files_that_lack_something_name_it() {
    let reference = Reference::new(Kind::Bert);
    let keys = |change: &dyn Fn(&str, Value) -> Option<Value>| {
        let all = [
            ("general.architecture", Value::String("bert".to_owned())),
            ("bert.context_length", Value::U32(600)),
            ("bert.embedding_length", Value::U32(64)),
            ("bert.block_count", Value::U32(3)),
            ("bert.feed_forward_length", Value::U32(160)),
            ("bert.attention.head_count", Value::U32(4)),
            ("bert.attention.layer_norm_epsilon", Value::F32(1e-12)),
            ("bert.pooling_type", Value::U32(1)),
        ];
        let kept = all
            .into_iter()
            .filter_map(|(key, value)| change(key, value).map(|value| (key.to_owned(), value)));
        kept.collect::<Vec<_>>()
    };
    let same = |_: &str, value: Value| Some(value);
    for missing in [
        "bert.context_length",
        "bert.embedding_length",
        "bert.block_count",
        "bert.feed_forward_length",
        "bert.attention.head_count",
        "bert.attention.layer_norm_epsilon",
    ] {
        let keys = keys(&|key, value| (key != missing).then_some(value));
        says(
            &open(&write_gguf(&keys, &reference.tensors)),
            Status::Format,
            &[missing],
        );
        let keys = self::keys_with(&keys, missing, Value::U32(0));
        says(
            &open(&write_gguf(&keys, &reference.tensors)),
            Status::Format,
            &[missing],
        );
    }
    for name in reference.tensors.keys() {
        let optional = name.ends_with(".bias") || name == "token_types.weight";
        let mut tensors = reference.tensors.clone();
        tensors.remove(name);
        let file = write_gguf(&keys(&same), &tensors);
        if !optional {
            says(&open(&file), Status::Format, &[name]);
        }
        let (rows, columns, _) = reference.tensors[name];
        let grown = vec![0.0; (rows + 1) * columns];
        tensors.insert(name.clone(), (rows + 1, columns, grown));
        // More positions, types or tokens than are needed do no harm.
        let table =
            ["token_embd.weight", "position_embd.weight", "token_types.weight"].contains(&name.as_str());
        if !table {
            says(
                &open(&write_gguf(&keys(&same), &tensors)),
                Status::Format,
                &[name],
            );
        }
    }
    let rank = keys_with(&keys(&same), "bert.pooling_type", Value::U32(4));
    says(
        &open(&write_gguf(&rank, &reference.tensors)),
        Status::Unsupported,
        &["bert.pooling_type", "4"],
    );
    let odd = keys_with(&keys(&same), "bert.attention.head_count", Value::U32(7));
    assert_eq!(
        open(&write_gguf(&odd, &reference.tensors)).status(),
        Status::Unsupported
    );
}

fn keys_with(keys: &[(String, Value)], key: &str, value: Value) -> Vec<(String, Value)> {
    let mut keys: Vec<_> = keys.iter().filter(|(known, _)| known != key).cloned().collect();
    keys.push((key.to_owned(), value));
    keys
}

#[test]
fn weights_that_cannot_be_made_are_refused() {
    let open = |dtype| {
        let options = ModelOptions {
            weights: Some(dtype),
            ..ModelOptions::default()
        };
        Model::open(&runtime(1, None), &data("tiny-gemma-embedding-F32.gguf"), options)
    };
    // Only the rows of dense_3 fill blocks of 256; it is quantized, the others stay.
    assert!(open(DataType::Q6_K).is_ok());
    let error = open(DataType::IQ1_S).err().unwrap();
    says(&error, Status::Unsupported, &["dense_3.weight", "IQ1_S"]);
    assert!(open(DataType::I32).is_err());
}
