//! tokenizer.json: the ids of the library it runs, and what is done differently here.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod tokenizer_common;

use mantle::text::tokenizer::{
    EncodeOptions, Special, StreamDecoder, Tokenizer, from_metadata, from_tokenizer_json,
};
use serde_json::{Value, json};
use std::sync::Arc;
use tokenizer_common::*;

/// The file of all-MiniLM-L6-v2, with its truncation to 128 tokens and its padding to 128.
fn minilm_file() -> Value {
    let mut file = tokenizer_common::json("tokenizer/minilm-head.json");
    assert_eq!(file["truncation"]["max_length"], 128);
    assert_eq!(file["padding"]["strategy"]["Fixed"], 128);
    let vocabulary = minilm_tokens()
        .into_iter()
        .enumerate()
        .map(|(id, token)| (token, id.into()));
    file["model"]["vocab"] = Value::Object(vocabulary.collect());
    file
}

/// A byte level file like those of gpt2, with dropout, on which the library alone would roll dice.
fn byte_level_file() -> Value {
    let families = tokenizer_common::json("tokenizer/families.json");
    let tokens = families["tokens"].as_array().unwrap();
    let vocabulary: serde_json::Map<String, Value> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.as_str().unwrap().into(), id.into()))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [
            {"id": 1500, "content": "<|im_end|>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
            {"id": 1501, "content": "né", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false},
        ],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": 0.5, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": families["merges"],
        },
    })
}

/// A unigram file like those of XLM-R, from the small model.
fn unigram_file() -> Value {
    let model = tokenizer_common::json("tokenizer/unigram-bytes.json");
    let pieces: Vec<Value> = model["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .zip(model["scores"].as_array().unwrap())
        .map(|(token, score)| json!([token, score]))
        .collect();
    let mark =
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [
            {"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true},
        ],
        "pre_tokenizer": mark,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": pieces},
    })
}

fn load(file: &Value) -> Arc<dyn Tokenizer> {
    from_tokenizer_json(&file.to_string(), None).unwrap()
}

#[test]
fn minilm_gives_the_reference_ids_whole_and_unpadded() {
    let tokenizer = load(&minilm_file());
    assert_lines(&*tokenizer, ADD, &lines("minilm"));
    let long = "word ".repeat(1000);
    assert_eq!(tokenizer.encode(&long, ADD).unwrap().len(), 1002);
    assert_eq!(tokenizer.encode("", ADD).unwrap(), [101, 102]);
}

#[test]
fn minilm_from_a_folder_and_from_gguf_are_the_same_tokenizer() {
    let (file, gguf) = (load(&minilm_file()), from_metadata(&minilm()).unwrap());
    assert_eq!(file.vocabulary_size(), gguf.vocabulary_size());
    for (line, ids) in lines("minilm") {
        for options in [PLAIN, ADD, PARSE] {
            assert_eq!(
                file.encode(&line, options).unwrap(),
                gguf.encode(&line, options).unwrap(),
                "{line:?}"
            );
        }
        for skip_special in [false, true] {
            let decode = |tokenizer: &dyn Tokenizer| {
                String::from_utf8(tokenizer.decode(&ids, skip_special).unwrap()).unwrap()
            };
            assert_eq!(decode(&*file), decode(&*gguf), "{line:?}");
        }
    }
    for which in [
        Special::Cls,
        Special::Sep,
        Special::Unk,
        Special::Pad,
        Special::Mask,
        Special::Eos,
        Special::Bos,
    ] {
        assert_eq!(file.special(which), gguf.special(which), "{which:?}");
    }
    for id in 0..30522 {
        assert_eq!(file.is_control(id), gguf.is_control(id));
        assert_eq!(file.piece(id).unwrap(), gguf.piece(id).unwrap(), "{id}");
    }
}

#[test]
fn roles_come_from_the_config() {
    let file = minilm_file().to_string();
    let load = |config: &str| from_tokenizer_json(&file, Some(config));
    let tokenizer =
        load(r#"{"eos_token": {"content": "[SEP]"}, "bos_token": "[CLS]", "mask_token": null}"#).unwrap();
    assert_eq!(tokenizer.special(Special::Eos), Some(102));
    assert_eq!(tokenizer.special(Special::Bos), Some(101));
    assert_eq!(tokenizer.special(Special::Mask), Some(103));
    assert!(tokenizer.is_end_of_generation(102) && !tokenizer.is_end_of_generation(101));
    let error = load(r#"{"eos_token": "<nothing>"}"#).err().unwrap().to_string();
    assert!(
        error.contains("eos_token") && error.contains("<nothing>"),
        "{error}"
    );
    assert!(
        load("{")
            .err()
            .unwrap()
            .to_string()
            .contains("tokenizer_config.json")
    );
}

#[test]
fn special_tokens_in_text_are_parsed_only_when_asked() {
    let tokenizer = load(&minilm_file());
    let text = "a [MASK] b";
    assert_eq!(tokenizer.encode(text, PARSE).unwrap(), [1037, 103, 1038]);
    let plain = tokenizer.encode(text, PLAIN).unwrap();
    assert!(plain.len() > 4 && !plain.contains(&103));
    // Asking in turns changes nothing.
    assert_eq!(tokenizer.encode(text, PARSE).unwrap(), [1037, 103, 1038]);
    let added = load(&byte_level_file());
    assert!(!added.encode("x<|im_end|>", PLAIN).unwrap().contains(&1500));
    assert!(added.encode("x<|im_end|>", PARSE).unwrap().contains(&1500));
    assert!(added.encode("xné", PLAIN).unwrap().contains(&1501));
}

#[test]
fn dropout_in_the_file_is_switched_off() {
    let tokenizer = load(&byte_level_file());
    let gguf = family_gpt2();
    for (line, _) in lines("smollm2").iter().filter(|(line, _)| !line.contains("né")) {
        assert_eq!(
            tokenizer.encode(line, PLAIN).unwrap(),
            gguf.encode(line, PLAIN).unwrap(),
            "{line:?}"
        );
    }
}

/// The same vocabulary from GGUF metadata.
fn family_gpt2() -> Arc<dyn Tokenizer> {
    let families = tokenizer_common::json("tokenizer/families.json");
    let list = |name: &str| -> Vec<String> { serde_json::from_value(families[name].clone()).unwrap() };
    let metadata = metadata(vec![
        ("model", text("gpt2")),
        ("pre", text("gpt-2")),
        ("tokens", strings(list("tokens"))),
        ("merges", strings(list("merges"))),
    ]);
    from_metadata(&metadata).unwrap()
}

#[test]
fn byte_level_decoding_is_exact() {
    let tokenizer = load(&byte_level_file());
    for (line, _) in lines("smollm2") {
        let ids = tokenizer.encode(&line, PLAIN).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), line.as_bytes());
        let mut decoder = StreamDecoder::new(tokenizer.clone(), true);
        let mut streamed: String = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
        streamed += &decoder.finish();
        assert_eq!(streamed, line);
    }
    assert_eq!(tokenizer.decode(&[1500], true).unwrap(), b"");
    assert_eq!(tokenizer.decode(&[1500], false).unwrap(), b"<|im_end|>");
    assert!(tokenizer.is_end_of_generation(1500));
    let error = tokenizer.decode(&[1502], true).unwrap_err().to_string();
    assert!(error.contains("1502") && error.contains("0 to 1501"), "{error}");
}

#[test]
fn unigram_files_work() {
    let tokenizer = load(&unigram_file());
    let ids = tokenizer.encode("the end, in 你", PLAIN).unwrap();
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "the end, in 你".as_bytes());
    let pieces: Vec<u8> = ids
        .iter()
        .flat_map(|&id| tokenizer.piece(id).unwrap().into_owned())
        .collect();
    assert_eq!(pieces, " the end, in 你".as_bytes());
}

#[test]
fn long_runs_of_spaces_are_right_or_refused() {
    let (file, gguf) = (load(&byte_level_file()), family_gpt2());
    let spaces = |n: usize| " ".repeat(n) + "cat";
    for n in [1000, 499_997] {
        assert_eq!(
            file.encode(&spaces(n), PLAIN).unwrap(),
            gguf.encode(&spaces(n), PLAIN).unwrap()
        );
    }
    let error = file.encode(&spaces(600_000), PLAIN).unwrap_err().to_string();
    assert!(error.contains("600000"), "{error}");
    // Long texts without such runs are no trouble.
    let words = "a word and another\n".repeat(50_000);
    assert_eq!(
        file.encode(&words, PLAIN).unwrap(),
        gguf.encode(&words, PLAIN).unwrap()
    );
}

#[test]
fn broken_files_are_errors() {
    let whole = byte_level_file().to_string();
    for end in (0..whole.len()).step_by(997) {
        if let Some(part) = whole.get(..end) {
            assert!(from_tokenizer_json(part, None).is_err(), "{end}");
        }
    }
    let mut cases = vec![
        json!(null),
        json!([]),
        json!({}),
        json!({"model": {}}),
        json!("text"),
    ];
    let mut change = |file: fn() -> Value, pointer: &str, value: Value| {
        let mut file = file();
        *file.pointer_mut(pointer).unwrap() = value;
        cases.push(file);
    };
    change(byte_level_file, "/model/vocab", json!({}));
    change(byte_level_file, "/model/vocab", json!({"a": 4_294_967_295u32}));
    change(byte_level_file, "/model/vocab/a", json!(4_000_000_000u32));
    change(byte_level_file, "/model/merges/0", json!("nothing known"));
    change(byte_level_file, "/model/type", json!("Unheard"));
    change(
        byte_level_file,
        "/pre_tokenizer",
        json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}),
    );
    change(unigram_file, "/model/unk_id", json!(100_000));
    change(minilm_file, "/post_processor/special_tokens", json!({}));
    for file in cases {
        let shown: String = file.to_string().chars().take(200).collect();
        let error = from_tokenizer_json(&file.to_string(), None).err();
        let error = error.unwrap_or_else(|| panic!("no error: {shown}")).to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }
}

/// Files that load may still not fit together; encoding with them is an error, or it works.
#[test]
fn parts_that_do_not_fit_together_are_errors() {
    let mut file = byte_level_file();
    // A trie that points outside itself, at which the library panics.
    file["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8AAAAA"});
    let error = load(&file).encode("text", PLAIN).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json"), "{error}");
    // A word that is unknown, and no token for that.
    let mut file = minilm_file();
    file["model"]["unk_token"] = json!("[NONE]");
    let tokenizer = load(&file);
    let options = EncodeOptions::default();
    assert!(
        tokenizer
            .encode("你好", options)
            .unwrap_err()
            .to_string()
            .contains("tokenizer.json")
    );
    assert!(tokenizer.encode("hello", options).is_ok());
}
