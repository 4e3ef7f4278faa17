//! Byte pair encoding from GGUF metadata against the reference.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod tokenizer_common;

use mantle::format::metadata::Value;
use mantle::text::tokenizer::{Special, StreamDecoder, Tokenizer, from_metadata};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokenizer_common::*;

/// SmolLM2's tokenizer, made once.
fn smollm2_tokenizer() -> Arc<dyn Tokenizer> {
    static TOKENIZER: OnceLock<Arc<dyn Tokenizer>> = OnceLock::new();
    TOKENIZER
        .get_or_init(|| from_metadata(&smollm2()).unwrap())
        .clone()
}

#[test]
fn smollm2_gives_the_golden_ids() {
    let golden = json("smollm2.json");
    let cases = golden["tokens"].as_array().unwrap();
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
    assert_lines(&*smollm2_tokenizer(), PLAIN, &lines);
}

#[test]
fn smollm2_gives_the_reference_ids_of_hard_lines() {
    assert_lines(&*smollm2_tokenizer(), PLAIN, &lines("smollm2"));
}

#[test]
#[ignore = "needs MANTLE_REFERENCE_PYTHON and MANTLE_SMOLLM2"]
fn smollm2_gives_the_reference_ids_of_ten_thousand_lines() {
    assert_lines(
        &*smollm2_tokenizer(),
        PLAIN,
        &reference_lines("smollm2", 10_000, 2),
    );
}

#[test]
fn decoding_gives_the_text_back() {
    let tokenizer = smollm2_tokenizer();
    // Some bytes have no token in this vocabulary; those the reference drops, and so do we.
    let has_token = |text: &str| {
        let alphabet = byte_alphabet();
        let known = |b: u8| {
            let id = alphabet[usize::from(b)].to_string();
            (0..300).any(|i| tokenizer.token_text(i) == Some(id.as_bytes()))
        };
        text.bytes().all(known)
    };
    let mut checked = 0;
    for (line, ids) in lines("smollm2") {
        if has_token(&line) {
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), line.as_bytes(), "{line:?}");
            checked += 1;
        }
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn streamed_text_is_whole_characters_and_adds_up() {
    let tokenizer = smollm2_tokenizer();
    for text in [
        "Hello 👋🏽 family 👨\u{200d}👩\u{200d}👧 naïve 你好世界",
        "plain",
        "",
    ] {
        let mut decoder = StreamDecoder::new(tokenizer.clone(), true);
        let mut streamed = String::new();
        for id in tokenizer.encode(text, PLAIN).unwrap() {
            streamed += &decoder.push(id).unwrap();
        }
        assert_eq!(decoder.finish(), "");
        assert_eq!(streamed, text);
    }
    // A character that is never finished comes out as a replacement, not as nothing.
    let emoji = tokenizer.encode("👋", PLAIN).unwrap();
    assert!(emoji.len() > 1);
    let mut decoder = StreamDecoder::new(tokenizer.clone(), true);
    assert_eq!(decoder.push(emoji[0]).unwrap(), "");
    assert_eq!(decoder.finish(), "\u{fffd}");
    // Bytes that cannot become a character do not hold back what follows.
    assert_eq!(decoder.push(emoji[0]).unwrap(), "");
    let hello = tokenizer.encode("Hello", PLAIN).unwrap();
    assert_eq!(decoder.push(hello[0]).unwrap(), "\u{fffd}Hello");
    // Control tokens are text only when asked.
    assert_eq!(decoder.push(2).unwrap(), "");
    let mut shown = StreamDecoder::new(tokenizer, false);
    assert_eq!(shown.push(2).unwrap(), "<|im_end|>");
}

#[test]
fn control_tokens_in_text_are_parsed_only_when_asked() {
    let tokenizer = smollm2_tokenizer();
    let text = "<|im_start|>user\nHi<|im_end|>";
    let parsed = tokenizer.encode(text, PARSE).unwrap();
    assert_eq!((parsed[0], parsed.last()), (1, Some(&2)));
    let plain = tokenizer.encode(text, PLAIN).unwrap();
    assert!(!plain.contains(&1) && !plain.contains(&2));
    assert_eq!(tokenizer.decode(&plain, true).unwrap(), text.as_bytes());
    assert_eq!(tokenizer.decode(&parsed, false).unwrap(), text.as_bytes());
    assert_eq!(tokenizer.decode(&parsed, true).unwrap(), b"user\nHi");
}

#[test]
fn roles_of_tokens() {
    let tokenizer = smollm2_tokenizer();
    assert_eq!(tokenizer.vocabulary_size(), 49152);
    assert_eq!(tokenizer.special(Special::Bos), Some(1));
    assert_eq!(tokenizer.special(Special::Eos), Some(2));
    assert_eq!(tokenizer.special(Special::Eot), Some(2));
    assert_eq!(tokenizer.special(Special::Nl), Some(198));
    assert_eq!(tokenizer.special(Special::Mask), None);
    assert!(tokenizer.is_end_of_generation(0) && tokenizer.is_end_of_generation(2));
    assert!(!tokenizer.is_end_of_generation(1));
    assert!(tokenizer.is_control(16) && !tokenizer.is_control(17));
    assert_eq!(tokenizer.token_text(0), Some(&b"<|endoftext|>"[..]));
    assert_eq!(tokenizer.token_text(49152), None);
    let error = tokenizer.decode(&[3, 49152], true).unwrap_err().to_string();
    assert!(
        error.contains("49152") && error.contains("out of range"),
        "{error}"
    );
    assert!(tokenizer.piece(u32::MAX).is_err());
    assert!(!tokenizer.is_control(u32::MAX) && !tokenizer.is_end_of_generation(u32::MAX));
}

#[test]
fn making_the_tokenizer_is_fast() {
    let metadata = smollm2();
    let best = time(|| from_metadata(&metadata).unwrap());
    println!("49,152 tokens: {best:?}");
    assert!(best < Duration::from_millis(150), "{best:?}");
}

#[test]
fn long_runs_take_linear_time_and_are_cut_right() {
    let tokenizer = smollm2_tokenizer();
    for unit in [" ", "a", "\n", "1", "é", "世", " a", "!", "\u{301}", "'s"] {
        assert_linear(&*tokenizer, unit);
        let long = unit.repeat(1_000_000 / unit.len());
        let ids = tokenizer.encode(&long, PLAIN).unwrap();
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), long.as_bytes());
    }
    // However long the run of spaces, its last one belongs to the word.
    let spaces = |n: usize| tokenizer.encode(&(" ".repeat(n) + "cat"), PLAIN).unwrap();
    let cat = tokenizer.encode(" cat", PLAIN).unwrap();
    assert_eq!(cat.len(), 1);
    for n in [2, 3, 1000, 3_000_000] {
        assert_eq!(spaces(n).last(), cat.last(), "{n} spaces");
    }
}

/// FNV-1a of the ids as 32-bit little-endian numbers.
fn hash_ids(ids: &[u32]) -> u32 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0x811C_9DC5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// The small vocabulary whose tokens reach over words, with the splitting pattern `pre`.
fn family_tokenizer(families: &serde_json::Value, pre: &str) -> Arc<dyn Tokenizer> {
    let list = |name: &str| -> Vec<String> { serde_json::from_value(families[name].clone()).unwrap() };
    let metadata = metadata(vec![
        ("model", text("gpt2")),
        ("pre", text(pre)),
        ("tokens", strings(list("tokens"))),
        ("merges", strings(list("merges"))),
    ]);
    from_metadata(&metadata).unwrap()
}

#[test]
fn every_splitting_pattern_cuts_as_the_reference_does() {
    let families = json("tokenizer/families.json");
    let hashes = families["hashes"].as_object().unwrap();
    let lines: Vec<String> = serde_json::from_value(json("tokenizer/lines.json")).unwrap();
    let mut seen = std::collections::HashSet::new();
    let mut failures = Vec::new();
    for (name, expected) in hashes {
        let expected: Vec<u32> = serde_json::from_value(expected.clone()).unwrap();
        assert!(expected.len() >= 400);
        let tokenizer = family_tokenizer(&families, name);
        for (line, hash) in lines.iter().zip(&expected) {
            let ids = tokenizer.encode(line, PLAIN).unwrap();
            if hash_ids(&ids) != *hash {
                failures.push(format!("{name}: {line:?} {ids:?}"));
            }
        }
        seen.insert(expected);
    }
    assert!(
        failures.is_empty(),
        "{} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
    // Each pattern is told apart from the others by some line; llama-bpe and dbrx share one.
    assert_eq!(seen.len(), hashes.len() - 1);
}

#[test]
fn whole_words_are_tokens_where_the_family_says_so() {
    // No merge makes "cat", but it is a token.
    let encode = |pre: &str| {
        let metadata = metadata(vec![
            ("model", text("gpt2")),
            ("pre", text(pre)),
            ("tokens", strings(["c", "a", "t", "ca", "cat", "<s>"])),
            ("merges", strings(["c a"])),
            ("bos_token_id", Value::U32(5)),
        ]);
        from_metadata(&metadata).unwrap().encode("cat", ADD).unwrap()
    };
    assert_eq!(encode("llama-bpe"), [5, 4]);
    assert_eq!(encode("dbrx"), [3, 2]);
}

#[test]
#[ignore = "needs MANTLE_REFERENCE_PYTHON"]
fn every_splitting_pattern_cuts_ten_thousand_lines_as_the_reference_does() {
    let families = json("tokenizer/families.json");
    for name in families["hashes"].as_object().unwrap().keys() {
        println!("{name}");
        let lines = reference_lines(&format!("family-{name}"), 10_000, 3);
        assert_lines(&*family_tokenizer(&families, name), PLAIN, &lines);
    }
}

#[test]
#[ignore = "needs MANTLE_REFERENCE_PYTHON"]
fn every_splitting_pattern_cuts_at_every_code_point_as_the_reference_does() {
    // Digits new in Unicode 17, which the reference knows by the tables of its Rust and this library not yet by
    // those of its regular expressions.
    let new = |code: &u32| matches!(code, 0x11DE0..=0x11DE9 | 0x16FF4..=0x16FF6);
    for name in json("tokenizer/families.json")["hashes"]
        .as_object()
        .unwrap()
        .keys()
    {
        let make = |vocabulary: &serde_json::Value| family_tokenizer(vocabulary, name);
        let differences = sweep(&format!("family-{name}"), make, PLAIN);
        println!("{name}: {} differ", differences.len());
        assert!(differences.iter().all(new), "{name}: {differences:X?}");
    }
}
