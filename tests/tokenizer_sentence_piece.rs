//! SentencePiece BPE and unigram from GGUF metadata against the SentencePiece library.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod tokenizer_common;

use mantle::format::metadata::{Array, Value};
use mantle::text::tokenizer::{EncodeOptions, Special, Tokenizer, from_metadata};
use std::sync::Arc;
use std::time::Duration;
use tokenizer_common::*;

const COMMITTED: &[&str] = &[
    "spm-bytes",
    "spm-no-prefix",
    "spm-unknown",
    "spm-unused",
    "unigram",
    "unigram-bytes",
];

fn tokenizer(kind: &str) -> Arc<dyn Tokenizer> {
    from_metadata(&sentence_piece(&json(&format!("tokenizer/{kind}.json")))).unwrap()
}

#[test]
fn ids_equal_those_of_the_library() {
    for kind in COMMITTED {
        println!("{kind}");
        assert_lines(&*tokenizer(kind), PLAIN, &lines(kind));
    }
}

#[test]
#[ignore = "needs MANTLE_REFERENCE_PYTHON"]
fn ids_of_ten_thousand_lines_equal_those_of_the_library() {
    for kind in COMMITTED
        .iter()
        .chain(&["unigram-unused", "spm-nfkc", "unigram-nfkc"])
    {
        println!("{kind}");
        let tokenizer = from_metadata(&reference_sentence_piece(kind)).unwrap();
        assert_lines(&*tokenizer, PLAIN, &reference_lines(kind, 10_000, 5));
    }
}

#[test]
fn decoding_gives_the_text_back() {
    for kind in ["spm-bytes", "spm-no-prefix", "spm-unused", "unigram-bytes"] {
        let tokenizer = tokenizer(kind);
        for (line, ids) in lines(kind) {
            // U+2581 is a space to these models.
            let expected = line.replace('\u{2581}', " ");
            assert_eq!(
                tokenizer.decode(&ids, true).unwrap(),
                expected.as_bytes(),
                "{kind}"
            );
        }
    }
}

#[test]
fn special_tokens_surround_as_the_file_says() {
    let model = json("tokenizer/spm-bytes.json");
    let hello = tokenizer("spm-bytes").encode("hello", PLAIN).unwrap();
    for (bos, eos) in [
        (None, None),
        (Some(false), Some(true)),
        (Some(true), Some(true)),
        (Some(false), Some(false)),
    ] {
        let mut metadata = sentence_piece(&model);
        for (key, value) in [("add_bos_token", bos), ("add_eos_token", eos)] {
            if let Some(value) = value {
                metadata.insert(format!("tokenizer.ggml.{key}"), Value::Bool(value));
            }
        }
        let mut expected = hello.clone();
        if bos.unwrap_or(true) {
            expected.insert(0, 1);
        }
        if eos.unwrap_or(false) {
            expected.push(2);
        }
        assert_eq!(
            from_metadata(&metadata).unwrap().encode("hello", ADD).unwrap(),
            expected
        );
    }
    let unigram = tokenizer("unigram").encode("hello", ADD).unwrap();
    assert_eq!(unigram.last(), Some(&2));
}

#[test]
fn control_tokens_in_text_are_parsed_only_when_asked() {
    for kind in ["spm-bytes", "unigram"] {
        let tokenizer = tokenizer(kind);
        let ids = tokenizer.encode("<s>hello</s>", PARSE).unwrap();
        assert_eq!((ids[0], ids.last()), (1, Some(&2)));
        // The text after a control token begins like a text.
        let hello = tokenizer.encode("hello", PLAIN).unwrap();
        assert_eq!(ids[1..ids.len() - 1], hello);
        let plain = tokenizer.encode("<s>hello</s>", PLAIN).unwrap();
        assert!(!plain.contains(&1) && !plain.contains(&2));
        // A token that the user defined is one in any case.
        for parse_special in [false, true] {
            let options = EncodeOptions {
                add_special: false,
                parse_special,
            };
            assert!(tokenizer.encode("a<sep>b", options).unwrap().contains(&3));
        }
    }
}

#[test]
fn roles_and_pieces() {
    let tokenizer = tokenizer("spm-bytes");
    assert_eq!(tokenizer.special(Special::Bos), Some(1));
    assert_eq!(tokenizer.special(Special::Unk), Some(0));
    assert!(tokenizer.is_control(0) && tokenizer.is_control(2) && !tokenizer.is_control(3));
    assert!(tokenizer.is_end_of_generation(2));
    let newline = tokenizer.special(Special::Nl).unwrap();
    assert_eq!(&*tokenizer.piece(newline).unwrap(), b"\n");
    let byte = (0..)
        .find(|&id| tokenizer.token_text(id) == Some(b"<0xE4>"))
        .unwrap();
    assert_eq!(&*tokenizer.piece(byte).unwrap(), b"\xE4");
    assert!(
        tokenizer
            .decode(&[5000], false)
            .unwrap_err()
            .to_string()
            .contains("1200 tokens")
    );
    // The model puts a space in front of a text; in the middle of an answer a piece keeps its space.
    let ids = tokenizer.encode("in the end", PLAIN).unwrap();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), b"in the end");
    assert_eq!(tokenizer.encode("", PLAIN).unwrap(), [0; 0]);
    assert_eq!(tokenizer.encode("", ADD).unwrap(), [1]);
}

/// A vocabulary of 262,144 tokens, as Gemma has: all words of one to four letters out of 22, and bytes.
fn large_vocabulary() -> mantle::format::metadata::Metadata {
    let mut tokens: Vec<String> = ["<pad>", "<eos>", "<bos>", "<unk>"].map(String::from).to_vec();
    let mut types = vec![3, 3, 3, 2];
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    types.resize(tokens.len(), 6);
    let mut words = vec![String::new()];
    let mut next = 0;
    while tokens.len() < 262_144 {
        let word = words[next].clone();
        next += 1;
        for letter in "\u{2581}abcdefghijklmnopqrstu".chars() {
            let longer = format!("{word}{letter}");
            tokens.push(longer.clone());
            words.push(longer);
        }
    }
    tokens.truncate(262_144);
    types.resize(tokens.len(), 1);
    let scores = (0..tokens.len()).map(|id| -(id as f32)).collect();
    metadata(vec![
        ("model", text("llama")),
        ("tokens", strings(&tokens)),
        ("token_type", Value::Array(Array::I32(types))),
        ("scores", Value::Array(Array::F32(scores))),
        ("bos_token_id", Value::U32(2)),
        ("eos_token_id", Value::U32(1)),
        ("unknown_token_id", Value::U32(3)),
        ("add_space_prefix", Value::Bool(false)),
    ])
}

#[test]
fn making_a_large_tokenizer_is_fast_and_long_runs_take_linear_time() {
    let metadata = large_vocabulary();
    let best = time(|| from_metadata(&metadata).unwrap());
    println!("262,144 tokens: {best:?}");
    assert!(best < Duration::from_millis(300), "{best:?}");
    let large = from_metadata(&metadata).unwrap();
    for (name, tokenizer) in [
        ("large", large),
        ("spm-unknown", tokenizer("spm-unknown")),
        ("unigram", tokenizer("unigram")),
    ] {
        for unit in ["a", " ", "ab", "世", " a", "\u{301}", "<sep>"] {
            println!("{name}");
            assert_linear(&*tokenizer, unit);
        }
    }
}
