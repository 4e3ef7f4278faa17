//! What the tokenizer tests share: metadata built from the small files in tests/data/tokenizer.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use mantle::format::metadata::{Array, Metadata, Value};
use mantle::text::tokenizer::{EncodeOptions, Tokenizer};
use std::path::PathBuf;

/// Encoding without anything special.
pub const PLAIN: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: false,
};

/// Encoding with the tokens around a text.
pub const ADD: EncodeOptions = EncodeOptions {
    add_special: true,
    parse_special: false,
};

/// Encoding that sees control tokens in text.
pub const PARSE: EncodeOptions = EncodeOptions {
    add_special: false,
    parse_special: true,
};

pub fn read(name: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data", name].iter().collect();
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&read(name)).unwrap()
}

/// Lines with the ids that the reference gives.
pub fn lines(name: &str) -> Vec<(String, Vec<u32>)> {
    serde_json::from_slice(&read(name)).unwrap()
}

pub fn strings<S: AsRef<[u8]>>(texts: impl IntoIterator<Item = S>) -> Value {
    Value::Array(Array::String(
        texts.into_iter().map(|text| text.as_ref().to_vec()).collect(),
    ))
}

/// Metadata with the keys given, each after `tokenizer.ggml.`.
pub fn metadata(entries: Vec<(&str, Value)>) -> Metadata {
    let mut metadata = Metadata::default();
    for (key, value) in entries {
        assert!(metadata.insert(format!("tokenizer.ggml.{key}"), value));
    }
    metadata
}

pub fn text(value: &str) -> Value {
    Value::String(value.to_string())
}

/// The printable characters that stand for bytes, in byte order: gpt2's table, written anew.
pub fn byte_alphabet() -> Vec<char> {
    let printable = |b: u32| matches!(b, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 0x100..;
    (0..256)
        .map(|b| if printable(b) { b } else { next.next().unwrap() })
        .map(|code| char::from_u32(code).unwrap())
        .collect()
}

/// SmolLM2's vocabulary, from the control tokens, the bytes and the merges.
pub fn smollm2() -> Metadata {
    let head = json("tokenizer/smollm2-head.json");
    let list = |name: &str| -> Vec<String> { serde_json::from_value(head[name].clone()).unwrap() };
    let control = list("control");
    let mut types = vec![3; control.len()];
    let mut tokens = control;
    tokens.extend(list("bytes"));
    let mut merges = Vec::new();
    for pair in read("tokenizer/smollm2-merges.bin").chunks_exact(4) {
        let token = |i: usize| tokens[usize::from(u16::from_le_bytes([pair[i], pair[i + 1]]))].clone();
        let (left, right) = (token(0), token(2));
        merges.push(format!("{left} {right}"));
        tokens.push(left + &right);
    }
    assert_eq!((tokens.len(), merges.len()), (49152, 48900));
    types.resize(tokens.len(), 1);
    metadata(vec![
        ("model", text("gpt2")),
        ("pre", text("smollm")),
        ("tokens", strings(&tokens)),
        ("token_type", Value::Array(Array::I32(types))),
        ("merges", strings(&merges)),
        ("bos_token_id", Value::U32(1)),
        ("eos_token_id", Value::U32(2)),
        ("unknown_token_id", Value::U32(0)),
        ("padding_token_id", Value::U32(2)),
        ("add_space_prefix", Value::Bool(false)),
        ("add_bos_token", Value::Bool(false)),
    ])
}

/// Asserts the ids of all lines, and tells how many differ and the first few that do.
pub fn assert_lines(tokenizer: &dyn Tokenizer, options: EncodeOptions, lines: &[(String, Vec<u32>)]) {
    assert!(!lines.is_empty());
    let differences: Vec<String> = lines
        .iter()
        .filter_map(|(line, expected)| {
            let found = tokenizer.encode(line, options).unwrap();
            let message = || format!("{line:?}\n  expected {expected:?}\n  found    {found:?}");
            (found != *expected).then(message)
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{} of {} lines differ:\n{}",
        differences.len(),
        lines.len(),
        differences[..differences.len().min(5)].join("\n")
    );
}

/// Runs tests/tools/tokenizer_reference.py for random lines. MANTLE_REFERENCE_PYTHON names a
/// Python that has the packages the script asks for.
pub fn reference_lines(kind: &str, count: u32, seed: u32) -> Vec<(String, Vec<u32>)> {
    let python = std::env::var("MANTLE_REFERENCE_PYTHON").expect("MANTLE_REFERENCE_PYTHON is not set");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/tokenizer_reference.py");
    let output = std::process::Command::new(python)
        .args([script, "lines", kind, &count.to_string(), &seed.to_string()])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines: Vec<_> = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), count as usize);
    lines
}
