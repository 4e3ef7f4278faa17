//! Metadata that does not fit together: an error that names the key, never a panic, never a wrong id.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod tokenizer_common;

use mantle::base::error::Status;
use mantle::format::metadata::{Array, Metadata, Value};
use mantle::text::tokenizer::{EncodeOptions, from_metadata};
use proptest::prelude::*;
use tokenizer_common::*;

/// `base` with some keys replaced, added, or (`None`) removed; keys are after `tokenizer.ggml.`.
fn changed(base: &Metadata, changes: &[(&str, Option<Value>)]) -> Metadata {
    let changes: Vec<(String, &Option<Value>)> = changes
        .iter()
        .map(|(key, value)| (format!("tokenizer.ggml.{key}"), value))
        .collect();
    let mut metadata = Metadata::default();
    for (key, value) in base.iter() {
        if !changes.iter().any(|(changed, _)| changed == key) {
            metadata.insert(key.to_string(), value.clone());
        }
    }
    for (key, value) in changes {
        if let Some(value) = value {
            metadata.insert(key, value.clone());
        }
    }
    metadata
}

fn small_gpt2() -> Metadata {
    metadata(vec![
        ("model", text("gpt2")),
        ("pre", text("gpt-2")),
        ("tokens", strings(["a", "b", "ab", "Ġ", "Ġa", "<s>"])),
        ("token_type", Value::Array(Array::I32(vec![1, 1, 1, 1, 1, 3]))),
        ("merges", strings(["a b", "Ġ a"])),
        ("bos_token_id", Value::U32(5)),
    ])
}

fn small_llama() -> Metadata {
    sentence_piece(&json("tokenizer/spm-unknown.json"))
}

fn small_t5() -> Metadata {
    sentence_piece(&json("tokenizer/unigram.json"))
}

fn small_bert() -> Metadata {
    metadata(vec![
        ("model", text("bert")),
        (
            "tokens",
            strings(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u{2581}a", "b"]),
        ),
        ("token_type", Value::Array(Array::I32(vec![3, 3, 3, 3, 1, 1]))),
    ])
}

/// Asserts that `metadata` is refused, with all of `words` in the message.
fn refused(metadata: &Metadata, words: &[&str]) {
    let error = from_metadata(metadata).err().expect("an error");
    let message = error.to_string();
    assert!(
        matches!(error.status(), Status::Format | Status::Unsupported),
        "{message}"
    );
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

#[test]
fn unknown_names_are_refused_with_the_known_ones() {
    refused(&Metadata::default(), &["tokenizer.ggml.model", "missing"]);
    let model = changed(&small_gpt2(), &[("model", Some(text("rwkv")))]);
    refused(
        &model,
        &["tokenizer.ggml.model", "\"rwkv\"", "bert, gpt2, llama, t5"],
    );
    let pre = changed(&small_gpt2(), &[("pre", Some(text("gpt-7")))]);
    refused(
        &pre,
        &["tokenizer.ggml.pre", "\"gpt-7\"", "smollm", "qwen2", "llama-bpe"],
    );
    refused(
        &changed(&small_gpt2(), &[("pre", None)]),
        &["tokenizer.ggml.pre", "missing", "smollm"],
    );
}

#[test]
fn tables_that_do_not_fit_are_refused() {
    let i32s = |v: Vec<i32>| Some(Value::Array(Array::I32(v)));
    let cases: &[(&str, Option<Value>, &[&str])] = &[
        ("tokens", None, &["tokens", "missing"]),
        ("tokens", Some(strings::<&str>([])), &["tokens", "0 tokens"]),
        ("tokens", Some(Value::U32(1)), &["tokens", "array"]),
        ("tokens", i32s(vec![1]), &["tokens", "strings"]),
        (
            "tokens",
            Some(strings(["a", "b", "ab", "a", "x", "y"])),
            &["tokens[3] repeats", "[0]", "\"a\""],
        ),
        (
            "tokens",
            Some(strings([&b"a"[..], b"b", b"\xff"])),
            &["tokens[2]", "UTF-8"],
        ),
        ("token_type", i32s(vec![1; 5]), &["token_type holds 5", "6"]),
        ("token_type", i32s(vec![1; 7]), &["token_type holds 7", "6"]),
        (
            "token_type",
            i32s(vec![1, 1, 1, 1, 1, 9]),
            &["token_type[5] is 9"],
        ),
        (
            "token_type",
            i32s(vec![1, -1, 1, 1, 1, 1]),
            &["token_type[1] is -1"],
        ),
        ("token_type", Some(text("no")), &["token_type", "array"]),
        (
            "scores",
            Some(Value::Array(Array::F32(vec![0.0; 2]))),
            &["scores holds 2", "6"],
        ),
        (
            "scores",
            Some(Value::Array(Array::F32(vec![0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0]))),
            &["scores[2] is NaN"],
        ),
        ("merges", None, &["merges", "missing"]),
        ("merges", Some(strings(["ab"])), &["merges[0] is \"ab\""]),
        ("merges", Some(strings(["a b", "a "])), &["merges[1]"]),
        ("merges", Some(strings([" a"])), &["merges[0]"]),
        ("merges", Some(strings([""])), &["merges[0]"]),
        (
            "merges",
            Some(strings(["a b", "a z"])),
            &["merges[1]", "\"z\"", "tokenizer.ggml.tokens"],
        ),
        ("merges", Some(strings(["b a"])), &["merges[0]", "\"ba\""]),
        ("merges", Some(strings([&b"\xff \xfe"[..]])), &["merges[0]"]),
        (
            "bos_token_id",
            Some(Value::U32(6)),
            &["bos_token_id is 6", "6 tokens"],
        ),
        (
            "eos_token_id",
            Some(Value::U32(u32::MAX)),
            &["eos_token_id is 4294967295"],
        ),
        ("eos_token_id", Some(Value::I32(-1)), &["eos_token_id"]),
        (
            "padding_token_id",
            Some(Value::U64(u64::MAX)),
            &["padding_token_id"],
        ),
        (
            "add_bos_token",
            Some(Value::U32(1)),
            &["add_bos_token", "boolean"],
        ),
        (
            "add_eos_token",
            Some(Value::Bool(true)),
            &["add_eos_token is true", "Eos"],
        ),
    ];
    assert!(from_metadata(&small_gpt2()).is_ok());
    for (key, value, words) in cases {
        refused(&changed(&small_gpt2(), &[(key, value.clone())]), words);
    }
}

#[test]
fn tables_of_other_models_that_do_not_fit_are_refused() {
    refused(
        &changed(&small_llama(), &[("scores", None)]),
        &["scores", "missing"],
    );
    let byte = changed(
        &small_llama(),
        &[
            ("tokens", Some(strings(["<unk>", "<0xZZ>"]))),
            ("scores", Some(Value::Array(Array::F32(vec![0.0; 2])))),
            ("token_type", Some(Value::Array(Array::I32(vec![2, 6])))),
            ("bos_token_id", None),
            ("eos_token_id", None),
        ],
    );
    refused(&byte, &["tokens[1]", "<0xZZ>"]);
    let no_unknown = changed(
        &byte,
        &[
            ("tokens", Some(strings(["a", "<0x00>"]))),
            ("unknown_token_id", None),
        ],
    );
    refused(&no_unknown, &["tokens", "unknown"]);
    refused(
        &changed(
            &small_bert(),
            &[("tokens", Some(strings(["[UNK]", "a"]))), ("token_type", None)],
        ),
        &["U+2581"],
    );
    refused(
        &changed(
            &small_bert(),
            &[("tokens", Some(strings(["\u{2581}a"]))), ("token_type", None)],
        ),
        &["[UNK]"],
    );
}

#[test]
fn broken_normalization_rules_are_refused() {
    let blobs: &[(&[u8], &str)] = &[
        (b"\x01", "too short"),
        (b"\xff\xff\xff\xff", "4294967295"),
        (b"\x08\0\0\0abcd", "8 bytes"),
        (b"\0\0\0\0x", "multiple of 4"),
        (b"\x03\0\0\0abc", "multiple of 4"),
        (b"\x04\0\0\0abcd\xff\xfe", "UTF-8"),
    ];
    for (blob, word) in blobs {
        let blob = Value::Array(Array::U8(blob.to_vec()));
        refused(
            &changed(&small_t5(), &[("precompiled_charsmap", Some(blob))]),
            &["precompiled_charsmap", word],
        );
    }
    let long = [&b"\x04\0\0\0abcd"[..], &[b'x'; 300], b"\0"].concat();
    let long = Value::Array(Array::U8(long));
    refused(
        &changed(&small_t5(), &[("precompiled_charsmap", Some(long))]),
        &["precompiled_charsmap", "longer"],
    );
    refused(
        &changed(&small_t5(), &[("precompiled_charsmap", Some(text("x")))]),
        &["precompiled_charsmap"],
    );
}

/// A trie that is one cycle: every byte leads on, every node has a replacement.
#[test]
fn a_cyclic_trie_ends() {
    let units: Vec<u8> = (0..256u32)
        .flat_map(|label| (label | 1 << 8).to_le_bytes())
        .collect();
    let blob = [&(units.len() as u32).to_le_bytes()[..], &units, b"replacement\0"].concat();
    let metadata = changed(
        &small_t5(),
        &[("precompiled_charsmap", Some(Value::Array(Array::U8(blob))))],
    );
    let tokenizer = from_metadata(&metadata).unwrap();
    let text = "abc ".repeat(50_000);
    let ids = tokenizer.encode(&text, PLAIN).unwrap();
    assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocabulary_size()));
}

/// Whatever the tables hold: an error, or a tokenizer whose ids are in range and decode.
fn survives(metadata: &Metadata, text: &str) -> std::result::Result<(), TestCaseError> {
    let Ok(tokenizer) = from_metadata(metadata) else {
        return Ok(());
    };
    for (add_special, parse_special) in [(false, false), (true, true)] {
        let options = EncodeOptions {
            add_special,
            parse_special,
        };
        let ids = tokenizer.encode(text, options).unwrap();
        prop_assert_eq!(&ids, &tokenizer.encode(text, options).unwrap());
        prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocabulary_size()));
        tokenizer.decode(&ids, false).unwrap();
        tokenizer.decode(&ids, true).unwrap();
    }
    Ok(())
}

fn token() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[abĠ\u{2581}é<>]{0,4}",
        1 => "<0x[0-9A-F]{2}>",
        1 => Just("<s>".to_string()),
        1 => Just("[UNK]".to_string()),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_tables_never_panic(
        model in prop_oneof![Just("gpt2"), Just("llama"), Just("t5"), Just("bert")],
        tokens in prop::collection::hash_set(token(), 0..40),
        types in prop::collection::vec(0i32..7, 40),
        scores in prop::collection::vec(-20.0f32..20.0, 40),
        merges in prop::collection::vec((0usize..40, 0usize..40), 0..20),
        charsmap in prop::collection::vec(any::<u32>(), 0..40),
        flags in any::<[bool; 4]>(),
        special in 0u32..45,
        text in "[abĠ\u{2581}é<> s0x1\\[\\]UNK\u{301}你]{0,60}",
    ) {
        let tokens: Vec<String> = tokens.into_iter().collect();
        let size = tokens.len();
        let merge = |&(a, b): &(usize, usize)| Some(format!("{} {}", tokens.get(a)?, tokens.get(b)?));
        let units: Vec<u8> = charsmap.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let blob = [&(units.len() as u32).to_le_bytes()[..], &units, b" x\0\0abc\0"].concat();
        let metadata = metadata(vec![
            ("model", tokenizer_common::text(model)),
            ("pre", tokenizer_common::text("llama-bpe")),
            ("merges", strings(merges.iter().filter_map(merge))),
            ("token_type", Value::Array(Array::I32(types[..size.min(40)].to_vec()))),
            ("scores", Value::Array(Array::F32(scores[..size.min(40)].to_vec()))),
            ("tokens", strings(&tokens)),
            ("precompiled_charsmap", Value::Array(Array::U8(if flags[0] { blob } else { Vec::new() }))),
            ("add_space_prefix", Value::Bool(flags[1])),
            ("remove_extra_whitespaces", Value::Bool(flags[2])),
            ("add_bos_token", Value::Bool(flags[3])),
            ("bos_token_id", Value::U32(special % 40)),
            ("unknown_token_id", Value::U32(special)),
        ]);
        survives(&metadata, &text)?;
    }

    #[test]
    fn random_text_never_panics(text in any::<String>()) {
        for metadata in [small_gpt2(), small_llama(), small_t5(), small_bert()] {
            survives(&metadata, &text)?;
        }
    }
}
