//! WordPiece from GGUF metadata against the reference.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod tokenizer_common;

use mantle::format::metadata::Value;
use mantle::text::tokenizer::{Special, Tokenizer, from_metadata};
use std::sync::{Arc, OnceLock};
use tokenizer_common::*;

/// The tokenizer of all-MiniLM-L6-v2, made once.
fn minilm_tokenizer() -> Arc<dyn Tokenizer> {
    static TOKENIZER: OnceLock<Arc<dyn Tokenizer>> = OnceLock::new();
    TOKENIZER
        .get_or_init(|| from_metadata(&minilm()).unwrap())
        .clone()
}

#[test]
fn minilm_gives_the_golden_ids() {
    let golden = json("minilm.json");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 20);
    let lines: Vec<(String, Vec<u32>)> = cases
        .iter()
        .map(|case| {
            (
                case["text"].as_str().unwrap().into(),
                serde_json::from_value(case["ids"].clone()).unwrap(),
            )
        })
        .collect();
    assert_lines(&*minilm_tokenizer(), ADD, &lines);
}

#[test]
fn minilm_gives_the_reference_ids_of_hard_lines() {
    assert_lines(&*minilm_tokenizer(), ADD, &lines("minilm"));
}

#[test]
#[ignore = "needs MANTLE_REFERENCE_PYTHON and MANTLE_MINILM"]
fn minilm_gives_the_reference_ids_of_ten_thousand_lines() {
    assert_lines(&*minilm_tokenizer(), ADD, &reference_lines("minilm", 10_000, 4));
}

#[test]
#[ignore = "needs MANTLE_REFERENCE_PYTHON and MANTLE_MINILM"]
fn minilm_treats_every_code_point_as_the_reference_does() {
    assert_eq!(sweep("minilm", |_| minilm_tokenizer(), ADD), [0; 0]);
}

#[test]
fn a_word_may_have_a_hundred_characters() {
    let tokenizer = minilm_tokenizer();
    let unknown = tokenizer.special(Special::Unk).unwrap();
    let encode = |text: &str| tokenizer.encode(text, PLAIN).unwrap();
    assert!(encode(&"a".repeat(100)).len() > 1);
    assert_eq!(encode(&"a".repeat(101)), [unknown]);
    assert_eq!(encode(&"\u{e9}".repeat(100)), encode(&"e".repeat(100)));
    assert_eq!(encode(&"\u{e9}".repeat(101)), [unknown]);
}

#[test]
fn special_tokens() {
    let tokenizer = minilm_tokenizer();
    assert_eq!(tokenizer.special(Special::Cls), Some(101));
    assert_eq!(tokenizer.special(Special::Sep), Some(102));
    assert_eq!(tokenizer.special(Special::Mask), Some(103));
    assert_eq!(tokenizer.special(Special::Eos), None);
    assert_eq!(tokenizer.encode("", ADD).unwrap(), [101, 102]);
    assert_eq!(tokenizer.encode("", PLAIN).unwrap(), [0; 0]);
    assert_eq!(tokenizer.encode("[MASK]", PARSE).unwrap(), [103]);
    assert!(!tokenizer.encode("[MASK]", PLAIN).unwrap().contains(&103));
}

#[test]
fn decoding_joins_words() {
    let tokenizer = minilm_tokenizer();
    let decode = |text: &str, skip: bool| {
        let ids = tokenizer.encode(text, ADD).unwrap();
        String::from_utf8(tokenizer.decode(&ids, skip).unwrap()).unwrap()
    };
    assert_eq!(
        decode("Hello, unbelievable World!", true),
        "hello, unbelievable world!"
    );
    assert_eq!(decode("Hello", false), "[CLS] hello [SEP]");
    assert_eq!(decode("", true), "");
}

#[test]
fn a_vocabulary_with_capitals_keeps_them() {
    let tokens = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "\u{2581}Hello",
        "\u{2581}hello",
        "\u{2581}é",
        "\u{2581}e",
    ];
    let with = |more: Vec<(&str, Value)>| {
        let mut entries = vec![("model", text("bert")), ("tokens", strings(tokens))];
        entries.extend(more);
        from_metadata(&metadata(entries)).unwrap()
    };
    let encode = |tokenizer: &Arc<dyn Tokenizer>| tokenizer.encode("Hello é", PLAIN).unwrap();
    assert_eq!(encode(&with(vec![])), [3, 5]);
    assert_eq!(
        encode(&with(vec![("normalizer.lowercase", Value::Bool(true))])),
        [4, 6]
    );
    let accents = vec![
        ("normalizer.lowercase", Value::Bool(true)),
        ("normalizer.strip_accents", Value::Bool(false)),
    ];
    assert_eq!(encode(&with(accents)), [4, 5]);
    // Without the keys, the texts of the tokens tell their roles.
    assert_eq!(with(vec![]).encode("Hello", ADD).unwrap(), [1, 3, 2]);
    let no_sep = vec![("add_eos_token", Value::Bool(false))];
    assert_eq!(with(no_sep).encode("Hello", ADD).unwrap(), [1, 3]);
}

#[test]
fn long_texts_take_linear_time() {
    let tokenizer = minilm_tokenizer();
    for unit in ["a", "a ", "\u{301}", "世", ".", " ", "e\u{301}"] {
        assert_linear(&*tokenizer, unit);
    }
}
