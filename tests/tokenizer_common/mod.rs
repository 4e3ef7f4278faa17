//! What the tokenizer tests share: metadata built from the small files in tests/data/tokenizer.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use mantle::format::metadata::{Array, Metadata, Value};
use mantle::text::tokenizer::{EncodeOptions, Tokenizer};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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

/// The random lines, as many as KIND has ids, with those ids.
pub fn lines(kind: &str) -> Vec<(String, Vec<u32>)> {
    let lines: Vec<String> = serde_json::from_slice(&read("tokenizer/lines.json")).unwrap();
    let ids: Vec<Vec<u32>> = serde_json::from_slice(&read(&format!("tokenizer/{kind}-ids.json"))).unwrap();
    assert!(ids.len() >= 100 && ids.len() <= lines.len());
    lines.into_iter().zip(ids).collect()
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

/// A small SentencePiece model from its JSON.
pub fn sentence_piece(model: &serde_json::Value) -> Metadata {
    let list = |key: &str| model[key].as_array().unwrap().iter();
    let charsmap = model["charsmap"].as_str().unwrap();
    let charsmap = (0..charsmap.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&charsmap[i..i + 2], 16).unwrap());
    let flag = |key: &str| Value::Bool(model[key].as_bool().unwrap());
    metadata(vec![
        ("model", text(model["model"].as_str().unwrap())),
        (
            "tokens",
            strings(list("tokens").map(|token| token.as_str().unwrap())),
        ),
        (
            "scores",
            Value::Array(Array::F32(
                list("scores")
                    .map(|score| score.as_f64().unwrap() as f32)
                    .collect(),
            )),
        ),
        (
            "token_type",
            Value::Array(Array::I32(
                list("types").map(|kind| kind.as_i64().unwrap() as i32).collect(),
            )),
        ),
        (
            "precompiled_charsmap",
            Value::Array(Array::U8(charsmap.collect())),
        ),
        ("add_space_prefix", flag("add_space_prefix")),
        ("remove_extra_whitespaces", flag("remove_extra_whitespaces")),
        ("bos_token_id", Value::U32(1)),
        ("eos_token_id", Value::U32(2)),
        ("unknown_token_id", Value::U32(0)),
    ])
}

/// The tokens of all-MiniLM-L6-v2, as vocab.txt writes them.
pub fn minilm_tokens() -> Vec<String> {
    let tokens = String::from_utf8(read("tokenizer/minilm-vocabulary.txt")).unwrap();
    let tokens: Vec<String> = tokens
        .strip_suffix('\n')
        .unwrap()
        .split('\n')
        .map(String::from)
        .collect();
    assert_eq!(tokens.len(), 30522);
    tokens
}

/// The vocabulary of all-MiniLM-L6-v2 as GGUF files hold it.
pub fn minilm() -> Metadata {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let tokens = minilm_tokens();
    let types = tokens
        .iter()
        .map(|token| if special.contains(&token.as_str()) { 3 } else { 1 })
        .collect();
    let write = |token: &String| match token.strip_prefix("##") {
        _ if special.contains(&token.as_str()) => token.clone(),
        Some(rest) => rest.to_string(),
        None => format!("\u{2581}{token}"),
    };
    metadata(vec![
        ("model", text("bert")),
        ("tokens", strings(tokens.iter().map(write))),
        ("token_type", Value::Array(Array::I32(types))),
        ("unknown_token_id", Value::U32(100)),
        ("seperator_token_id", Value::U32(102)),
        ("padding_token_id", Value::U32(0)),
        ("cls_token_id", Value::U32(101)),
        ("mask_token_id", Value::U32(103)),
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

/// What the calling thread has computed so far. Unlike the time of day, it does not count other work.
fn computed() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The shortest computing time of a few runs.
pub fn time<T>(mut run: impl FnMut() -> T) -> Duration {
    let once = |_| {
        let start = computed();
        run();
        computed() - start
    };
    (0..3).map(once).min().unwrap()
}

/// Asserts that encoding a megabyte of `unit` takes about eight times as long as an eighth of it. Quadratic
/// time would be 64 times as long, and minutes.
pub fn assert_linear(tokenizer: &dyn Tokenizer, unit: &str) {
    let encode = |bytes: usize| {
        let text = unit.repeat(bytes / unit.len());
        time(|| tokenizer.encode(&text, PLAIN).unwrap())
    };
    let (short, long) = (encode(125_000), encode(1_000_000));
    println!("{unit:?}: {short:?}, eight times as long: {long:?}");
    assert!(
        long < short * 40 + Duration::from_millis(50),
        "{unit:?}: {short:?}, then {long:?}"
    );
    assert!(long < Duration::from_secs(10), "{unit:?}: {long:?}");
}

/// Runs tests/tools/tokenizer_reference.py. MANTLE_REFERENCE_PYTHON names a Python that has the packages the
/// script asks for.
fn reference(arguments: &[&str]) -> Vec<u8> {
    let python = std::env::var("MANTLE_REFERENCE_PYTHON").expect("MANTLE_REFERENCE_PYTHON is not set");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tools/tokenizer_reference.py");
    let output = std::process::Command::new(python)
        .arg(script)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Random lines with the ids that the reference gives now.
pub fn reference_lines(kind: &str, count: u32, seed: u32) -> Vec<(String, Vec<u32>)> {
    let output = reference(&["lines", kind, &count.to_string(), &seed.to_string()]);
    let lines: Vec<_> = json_lines(&output).collect();
    assert_eq!(lines.len(), count as usize);
    lines
}

fn json_lines(output: &[u8]) -> impl Iterator<Item = (String, Vec<u32>)> {
    let lines = output
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap())
}

/// The code points whose line encodes otherwise than by the reference; `make` makes the tokenizer, from a
/// vocabulary if the reference gives one.
pub fn sweep(
    kind: &str,
    make: impl Fn(&serde_json::Value) -> Arc<dyn Tokenizer>,
    options: EncodeOptions,
) -> Vec<u32> {
    let output = reference(&["sweep", kind]);
    let (first, rest) = output.split_at(output.iter().position(|&byte| byte == b'\n').unwrap());
    let (vocabulary, lines) = match first[0] {
        b'{' => (serde_json::from_slice(first).unwrap(), rest),
        _ => (serde_json::Value::Null, output.as_slice()),
    };
    let tokenizer = make(&vocabulary);
    let mut count = 0;
    let differs = |(line, ids): (String, Vec<u32>)| {
        count += 1;
        let character = line.chars().nth(1).unwrap();
        (tokenizer.encode(&line, options).unwrap() != ids).then_some(u32::from(character))
    };
    let differences = json_lines(lines).filter_map(differs).collect();
    assert!(count > 200_000);
    differences
}

/// A small SentencePiece model that the reference trains now.
pub fn reference_sentence_piece(kind: &str) -> Metadata {
    sentence_piece(&serde_json::from_slice(&reference(&["vocabulary", kind])).unwrap())
}
