//! Reading GGUF files: those of another writer, those of the writer in `gguf_support`, and what a container does
//! with an open file.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail by a panic, its helpers too.

mod gguf_support;

use gguf_support::{Writer, data, folder};
use mantle::base::error::Status;
use mantle::format::container::{Container, LoadMode};
use mantle::format::dtype::DataType;
use mantle::format::metadata::{Array, Value};
use mantle::format::strings::Strings;
use proptest::prelude::*;
use std::path::Path;

fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(data(name)).unwrap()).unwrap()
}

/// All ways to open a file give the same metadata, tensors and bytes.
fn same_in_every_mode(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let mapped = Container::open(path, LoadMode::Map).unwrap();
    let read = Container::open(path, LoadMode::Read).unwrap();
    let memory = Container::from_memory(&bytes).unwrap();
    for other in [&read, &memory] {
        assert!(
            mapped.metadata().iter().eq(other.metadata().iter()),
            "metadata of {path:?}"
        );
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
fn every_mode_gives_the_same() {
    for name in [
        "tiny-qwen3-F32.gguf",
        "tiny-qwen3-Q8_0.gguf",
        "tiny-gemma-embedding-F32.gguf",
        "tiny-gemma-embedding-Q8_0.gguf",
        "gguf-values.gguf",
        "gguf-v2.gguf",
        "gguf-types.gguf",
        "gguf-types-aligned-256.gguf",
    ] {
        same_in_every_mode(&data(name));
    }
}

#[test]
fn a_tiny_model_has_its_metadata_and_tensors() {
    let container = Container::open(&data("tiny-qwen3-Q8_0.gguf"), LoadMode::Map).unwrap();
    let metadata = container.metadata();
    assert_eq!(metadata.required_str("general.architecture").unwrap(), "qwen3");
    let embedding = container.tensor("token_embd.weight").unwrap();
    assert_eq!(embedding.dtype, DataType::Q8_0);
    assert!(container.tensor("no such tensor").is_none());
    let layers = metadata.required_u32("qwen3.block_count").unwrap() as usize;
    for layer in 0..layers {
        assert!(container.tensor(&format!("blk.{layer}.attn_q.weight")).is_some());
    }
    for tensor in container.tensors() {
        assert_eq!(container.tensor(&tensor.name), Some(tensor));
    }
    assert_eq!(
        metadata.required_u32("no.such.key").unwrap_err().status(),
        Status::Format
    );
}

#[test]
fn all_value_types_read_as_the_python_package_wrote_them() {
    let expected = json("gguf-values.json");
    for name in ["gguf-values.gguf", "gguf-v2.gguf"] {
        let container = Container::open(&data(name), LoadMode::Map).unwrap();
        let expected = expected.as_object().unwrap();
        assert_eq!(container.metadata().len(), expected.len());
        for ((key, value), (expected_key, expected_value)) in container.metadata().iter().zip(expected) {
            assert_eq!(key, expected_key);
            let found: serde_json::Value = serde_json::from_str(&value.to_json()).unwrap();
            assert_eq!(&found, expected_value, "{key}");
            let kind = match key.split('.').collect::<Vec<_>>()[..] {
                ["scalar", kind, _] => kind,
                ["general", _] => "string",
                ["array", _] => "array",
                _ => "float32",
            };
            let short = kind
                .replace("uint", "u")
                .replace("int", "i")
                .replace("float", "f");
            assert_eq!(value.type_name(), short, "{key}");
        }
        // Tokens keep bytes that are not UTF-8.
        let tokens = container.metadata().array("array.tokens").unwrap().unwrap();
        let expected: Strings = [&b"a"[..], b"\xff\xfe", b"b\x80c", b""].iter().collect();
        assert_eq!(tokens.strings().unwrap(), &expected);
    }
}

#[test]
fn all_tensor_types_have_the_sizes_of_the_python_package() {
    let document = json("gguf-types.json");
    let sizes = document["sizes"].as_object().unwrap();
    for (name, size) in sizes {
        let number = size[0].as_i64().unwrap();
        let dtype = DataType::from_number(number).unwrap();
        assert_eq!(dtype.name(), name);
        assert_eq!(DataType::from_name(name), Some(dtype));
        // The package still counts two 32-bit scales in Q8_1; ggml's block has two of 16 bits since 2023.
        let bytes = if name == "Q8_1" {
            36
        } else {
            size[2].as_u64().unwrap()
        };
        assert_eq!(dtype.block_length() as u64, size[1].as_u64().unwrap(), "{name}");
        assert_eq!(dtype.block_bytes() as u64, bytes, "{name}");
    }
    for dtype in DataType::ALL {
        assert_eq!(DataType::from_number(*dtype as i64), Some(*dtype));
        // Q2_0 is younger than the package.
        let known = sizes.contains_key(dtype.name()) || *dtype == DataType::Q2_0 || *dtype as i64 >= 256;
        assert!(known, "{dtype:?}");
    }
}

#[test]
fn all_tensor_types_are_found_where_the_python_package_finds_them() {
    for (name, alignment) in [("gguf-types", 32), ("gguf-types-aligned-256", 256)] {
        let container = Container::open(&data(&format!("{name}.gguf")), LoadMode::Read).unwrap();
        let document = json(&format!("{name}.json"));
        let expected = document["tensors"].as_array().unwrap();
        assert_eq!(container.tensors().len(), expected.len());
        let mut kinds = document["sizes"].as_object().unwrap().keys().enumerate();
        let mut scratch = Vec::new();
        for (tensor, expected) in container.tensors().iter().zip(expected) {
            assert_eq!(tensor.name, expected[0].as_str().unwrap());
            assert_eq!(tensor.dtype as i64, expected[1].as_i64().unwrap());
            assert_eq!(serde_json::json!(tensor.shape), expected[2]);
            assert_eq!(tensor.offset, expected[3].as_u64().unwrap());
            assert_eq!(tensor.offset % alignment, 0);
            assert_eq!(tensor.bytes, expected[4].as_u64().unwrap());
            assert_eq!(tensor.elements(), tensor.shape.iter().product::<u64>());
            assert_eq!(tensor.rows() * tensor.columns(), tensor.elements() as usize);
            // The fixture's pattern: byte `i` of type number `t` in the package's list is (7 i + t) mod 251.
            let index = kinds.find(|(_, kind)| *kind == tensor.dtype.name()).unwrap().0;
            let bytes = container.rows(tensor, 0, tensor.rows(), &mut scratch).unwrap();
            for (i, &byte) in bytes.iter().enumerate() {
                assert_eq!(
                    usize::from(byte),
                    (7 * i + index) % 251,
                    "{} byte {i}",
                    tensor.name
                );
            }
        }
    }
}

#[test]
fn json_of_values_is_exact_where_json_can_be() {
    for (value, expected) in [
        (Value::F32(0.1), "0.1"),
        (Value::F32(f32::NAN), "null"),
        (Value::U64(u64::MAX), "18446744073709551615"),
        (Value::I64(i64::MIN), "-9223372036854775808"),
        (Value::Bool(true), "true"),
        (Value::String("a\"\\\n\u{1}é".to_owned()), r#""a\"\\\n\u0001é""#),
        (Value::Array(Array::U8(vec![])), "[]"),
        (
            Value::Array(Array::Array(vec![
                Array::Bool(vec![true, false]),
                Array::F32(vec![0.5]),
            ])),
            "[[true,false],[0.5]]",
        ),
        (
            Value::Array(Array::String([&b"x"[..], b"\xff"].iter().collect())),
            "[\"x\",\"\u{fffd}\"]",
        ),
    ] {
        assert_eq!(value.to_json(), expected);
    }
    for float in [1e-6_f32, f32::MIN_POSITIVE, f32::MAX, -1.0 / 3.0] {
        assert_eq!(Value::F32(float).to_json().parse(), Ok(float));
        let wide = f64::from(float) / 7.0;
        assert_eq!(Value::F64(wide).to_json().parse(), Ok(wide));
    }
    let long = Value::Array(Array::U32((0..100_000).collect()));
    let back: Vec<u32> = serde_json::from_str(&long.to_json()).unwrap();
    assert!(back.into_iter().eq(0..100_000));
}

#[test]
fn rows_outside_a_tensor_are_refused() {
    let container = Container::open(&data("tiny-qwen3-F32.gguf"), LoadMode::Map).unwrap();
    let tensor = container.tensor("token_embd.weight").unwrap();
    let mut scratch = Vec::new();
    for (first, count) in [
        (tensor.rows(), 1),
        (0, tensor.rows() + 1),
        (usize::MAX, 2),
        (1, usize::MAX),
    ] {
        let error = container.rows(tensor, first, count, &mut scratch).unwrap_err();
        assert_eq!(error.status(), Status::InvalidArgument);
        assert!(error.to_string().contains("token_embd.weight"), "{error}");
    }
    assert_eq!(
        container.rows(tensor, tensor.rows(), 0, &mut scratch).unwrap(),
        b""
    );
    // A tensor of another file is an error or other bytes, never a crash.
    let mut foreign = tensor.clone();
    foreign.offset = u64::MAX - 5;
    assert!(container.rows(&foreign, 3, 1, &mut scratch).is_err());
    container.release(&foreign);
    foreign.file = 9;
    assert!(container.rows(&foreign, 0, 1, &mut scratch).is_err());
}

#[test]
fn several_threads_read_one_container() {
    for mode in [LoadMode::Map, LoadMode::Read] {
        let container = Container::open(&data("tiny-gemma-embedding-Q8_0.gguf"), mode).unwrap();
        let bytes = std::fs::read(data("tiny-gemma-embedding-Q8_0.gguf")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut scratch = Vec::new();
                    for tensor in container.tensors() {
                        for row in 0..tensor.rows() {
                            let found = container.rows(tensor, row, 1, &mut scratch).unwrap();
                            let start = tensor.offset as usize + row * tensor.row_bytes();
                            assert_eq!(found, &bytes[start..][..tensor.row_bytes()]);
                        }
                        container.release(tensor);
                    }
                });
            }
        });
    }
}

/// Pages of the mapped file `path` that this process holds, from the kernel's own account.
#[cfg(target_os = "linux")]
fn resident_bytes(path: &Path) -> usize {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut of_file = false;
    let mut bytes = 0;
    for line in smaps.lines() {
        if line.split(' ').next().is_some_and(|word| word.contains('-')) {
            of_file = line.ends_with(path.to_str().unwrap());
        } else if let (true, Some(rest)) = (of_file, line.strip_prefix("Rss:")) {
            bytes += rest.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024;
        }
    }
    bytes
}

#[cfg(target_os = "linux")]
#[test]
fn release_returns_whole_pages_and_spares_neighbours() {
    const PAGE: u64 = 4096;
    let path = folder("release").join("three.gguf");
    let sizes = [5_000 * 4, 50_000 * 4, 5_000 * 4];
    let mut writer = Writer::new(3, 0);
    let mut offset = 0;
    for (name, size) in ["a", "b", "c"].iter().zip(sizes) {
        writer = writer.tensor(name, &[size / 4], 0, offset);
        offset += size;
    }
    let mut writer = writer.pad(32);
    writer.bytes.extend((0..offset).map(|i| (i % 253) as u8));
    std::fs::write(&path, &writer.bytes).unwrap();

    let container = Container::open(&path, LoadMode::Map).unwrap();
    let mut scratch = Vec::new();
    let sum = |scratch: &mut Vec<u8>| -> u64 {
        let mut sum = 0;
        for tensor in container.tensors() {
            let bytes = container.rows(tensor, 0, 1, scratch).unwrap();
            sum += bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
        }
        sum
    };
    let before = sum(&mut scratch);
    let all = resident_bytes(&path);
    assert!(all as u64 >= offset, "{all}");
    let b = container.tensor("b").unwrap();
    container.release(b);
    let inside = (b.offset + b.bytes) / PAGE - b.offset.div_ceil(PAGE);
    assert!(inside > 40);
    assert_eq!(all - resident_bytes(&path), (inside * PAGE) as usize);
    assert_eq!(sum(&mut scratch), before);
}

#[test]
fn a_file_that_shrinks_is_an_error_with_plain_reads() {
    let path = folder("shrinks").join("model.gguf");
    std::fs::copy(data("tiny-qwen3-F32.gguf"), &path).unwrap();
    let container = Container::open(&path, LoadMode::Read).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(20_000).unwrap();
    let last = container.tensors().last().unwrap();
    let error = container.rows(last, 0, 1, &mut Vec::new()).unwrap_err();
    assert_eq!(error.status(), Status::Io);
    for part in [path.to_str().unwrap(), last.name.as_str()] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn long_strings_and_large_vocabularies_read_with_plain_reads() {
    let tokens: Strings = (0..300_000).map(|i| format!("token {i}")).collect();
    let scores = Array::F32((0..300_000).map(|i| -(i as f32)).collect());
    let template = "x".repeat(1_000_000);
    let bytes = Writer::new(0, 3)
        .entry("tokenizer.chat_template", &Value::String(template.clone()))
        .entry(
            "tokenizer.ggml.tokens",
            &Value::Array(Array::String(tokens.clone())),
        )
        .entry("tokenizer.ggml.scores", &Value::Array(scores.clone()))
        .bytes;
    let path = folder("large").join("vocabulary.gguf");
    std::fs::write(&path, &bytes).unwrap();
    for mode in [LoadMode::Map, LoadMode::Read] {
        let container = Container::open(&path, mode).unwrap();
        let metadata = container.metadata();
        assert_eq!(
            metadata.required_str("tokenizer.chat_template").unwrap(),
            template
        );
        let found = metadata.array("tokenizer.ggml.tokens").unwrap().unwrap();
        assert!(found.strings() == Some(&tokens));
        assert!(metadata.array("tokenizer.ggml.scores").unwrap() == Some(&scores));
    }
    same_in_every_mode(&path);
}

fn array() -> impl Strategy<Value = Array> {
    use prop::collection::vec;
    let flat = prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i8>(), 0..9).prop_map(Array::I8),
        vec(any::<u16>(), 0..9).prop_map(Array::U16),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u32>(), 0..9).prop_map(Array::U32),
        vec(any::<i32>(), 0..9).prop_map(Array::I32),
        vec(any::<f32>(), 0..9).prop_map(Array::F32),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(any::<i64>(), 0..9).prop_map(Array::I64),
        vec(any::<f64>(), 0..9).prop_map(Array::F64),
        vec(vec(any::<u8>(), 0..12), 0..9).prop_map(|list| Array::String(list.into_iter().collect())),
    ];
    flat.prop_recursive(4, 30, 4, |inner| vec(inner, 0..4).prop_map(Array::Array))
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        any::<f32>().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        any::<String>().prop_map(Value::String),
        array().prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        any::<f64>().prop_map(Value::F64),
    ]
}

/// Shape in blocks, type, and bytes left free before the tensor.
fn tensor() -> impl Strategy<Value = (Vec<u64>, DataType, u64)> {
    let stored: Vec<DataType> = DataType::ALL
        .iter()
        .copied()
        .filter(|t| (*t as i32) < 256)
        .collect();
    (
        prop::collection::vec(1_u64..4, 1..5),
        prop::sample::select(stored),
        0_u64..3,
    )
}

/// A whole file and what must be read from it.
#[derive(Clone, Debug)]
struct Model {
    entries: Vec<(String, Value)>,
    tensors: Vec<(Vec<u64>, DataType, u64)>,
    alignment: u64,
}

fn model() -> impl Strategy<Value = Model> {
    let entries = prop::collection::btree_map("[a-z][a-z0-9_.]{0,20}", value(), 0..12);
    let tensors = prop::collection::vec(tensor(), 0..8);
    (entries, tensors, 0_u32..9).prop_map(|(mut entries, tensors, power)| {
        entries.remove("general.alignment");
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.push(("general.alignment".to_owned(), Value::U32(1 << power)));
        Model {
            entries,
            tensors,
            alignment: 1 << power,
        }
    })
}

impl Model {
    /// The file, and for each tensor its place in it.
    fn write(&self) -> (Vec<u8>, Vec<(u64, u64)>) {
        let mut writer = Writer::new(self.tensors.len() as u64, self.entries.len() as u64);
        for (key, value) in &self.entries {
            writer = writer.entry(key, value);
        }
        let mut offset = 0;
        let mut places = Vec::new();
        for (index, (blocks, dtype, gap)) in self.tensors.iter().enumerate() {
            let mut shape = blocks.clone();
            shape[0] *= dtype.block_length() as u64;
            offset += gap * self.alignment;
            let bytes = blocks.iter().product::<u64>() * dtype.block_bytes() as u64;
            places.push((offset, bytes));
            writer = writer.tensor(&format!("tensor {index}"), &shape, *dtype as u32, offset);
            offset = (offset + bytes).next_multiple_of(self.alignment);
        }
        let end = places.last().map_or(0, |(offset, bytes)| offset + bytes);
        let writer = writer.pad(self.alignment as usize);
        let start = writer.bytes.len() as u64;
        for place in &mut places {
            place.0 += start;
        }
        (writer.zeros(end as usize).bytes, places)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(model in model()) {
        let (bytes, places) = model.write();
        let container = Container::from_memory(&bytes).unwrap();
        prop_assert_eq!(container.metadata().len(), model.entries.len());
        for ((key, value), (expected_key, expected)) in container.metadata().iter().zip(&model.entries) {
            prop_assert_eq!(key, expected_key);
            // Compared as text, where NaN equals itself.
            prop_assert_eq!(format!("{value:?}"), format!("{expected:?}"));
            prop_assert!(serde_json::from_str::<serde_json::Value>(&value.to_json()).is_ok());
        }
        prop_assert_eq!(container.tensors().len(), places.len());
        for ((tensor, place), written) in container.tensors().iter().zip(places).zip(&model.tensors) {
            prop_assert_eq!((tensor.offset, tensor.bytes), place);
            prop_assert_eq!(tensor.dtype, written.1);
            prop_assert_eq!(tensor.shape.len(), written.0.len());
        }
    }

    #[test]
    fn damaged_files_never_panic(
        model in model(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..8),
    ) {
        let (mut bytes, _) = model.write();
        for (index, byte, kind) in changes {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 if bytes.len() > 1 => { bytes.remove(at); }
                _ => bytes.truncate(at.max(1)),
            }
        }
        if let Ok(container) = Container::from_memory(&bytes) {
            let mut scratch = Vec::new();
            for tensor in container.tensors() {
                prop_assert!(container.rows(tensor, 0, tensor.rows(), &mut scratch).is_ok());
            }
        }
    }
}
