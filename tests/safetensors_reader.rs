//! Reading safetensors files, single and split, with the crate of the format's authors as second opinion; and
//! files made to do harm.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail by a panic, its helpers too.

mod counting;

use mantle::base::error::{Error, Status};
use mantle::format::container::{Container, Format, LoadMode};
use mantle::format::dtype::DataType;
use proptest::prelude::*;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const MODES: [LoadMode; 2] = [LoadMode::Map, LoadMode::Read];

/// A new folder for the files of one test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("safetensors")
        .join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A file with this header and `count` bytes of data.
fn file(header: &str, count: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend((0..count).map(|i| (i % 251) as u8));
    bytes
}

/// Opens `bytes`; this may take twice their size and `allowance`.
fn open_with(bytes: &[u8], allowance: usize) -> Result<(), Error> {
    let (opened, peak) = counting::peak(|| Container::from_memory(bytes));
    assert!(
        peak <= 2 * bytes.len() + allowance,
        "{peak} bytes to read {}",
        bytes.len()
    );
    let container = opened?;
    let mut scratch = Vec::new();
    for tensor in container.tensors() {
        container.rows(tensor, 0, tensor.rows(), &mut scratch)?;
    }
    Ok(())
}

fn open(bytes: &[u8]) -> Result<(), Error> {
    open_with(bytes, 8192)
}

/// The types of both libraries that fill bytes.
const TYPES: [(Dtype, DataType); 19] = [
    (Dtype::BOOL, DataType::BOOL),
    (Dtype::U8, DataType::U8),
    (Dtype::I8, DataType::I8),
    (Dtype::F8_E5M2, DataType::F8_E5M2),
    (Dtype::F8_E4M3, DataType::F8_E4M3),
    (Dtype::F8_E8M0, DataType::F8_E8M0),
    (Dtype::F8_E4M3FNUZ, DataType::F8_E4M3FNUZ),
    (Dtype::F8_E5M2FNUZ, DataType::F8_E5M2FNUZ),
    (Dtype::I16, DataType::I16),
    (Dtype::U16, DataType::U16),
    (Dtype::F16, DataType::F16),
    (Dtype::BF16, DataType::BF16),
    (Dtype::I32, DataType::I32),
    (Dtype::U32, DataType::U32),
    (Dtype::F32, DataType::F32),
    (Dtype::C64, DataType::C64),
    (Dtype::F64, DataType::F64),
    (Dtype::I64, DataType::I64),
    (Dtype::U64, DataType::U64),
];

/// Name, type and shape of tensors, and the strings of `__metadata__`.
#[derive(Clone, Debug)]
struct Model {
    tensors: Vec<(String, (Dtype, DataType), Vec<usize>)>,
    metadata: HashMap<String, String>,
}

fn model() -> impl Strategy<Value = Model> {
    let shape = prop::collection::vec(0_usize..5, 0..5);
    let kind = prop::sample::select(TYPES.to_vec());
    let tensors = prop::collection::btree_map("\\PC{1,12}", (kind, shape), 0..8);
    let metadata = prop::collection::hash_map(any::<String>(), any::<String>(), 0..4);
    (tensors, metadata).prop_map(|(mut tensors, metadata)| {
        tensors.remove("__metadata__");
        let tensors = tensors
            .into_iter()
            .map(|(name, (kind, shape))| (name, kind, shape))
            .collect();
        Model { tensors, metadata }
    })
}

impl Model {
    fn write(&self) -> Vec<u8> {
        let data: Vec<Vec<u8>> = self
            .tensors
            .iter()
            .enumerate()
            .map(|(index, (_, (dtype, _), shape))| {
                let count = shape.iter().product::<usize>() * dtype.bitsize() / 8;
                (0..count).map(|i| (i * 7 + index) as u8).collect()
            })
            .collect();
        let views = self
            .tensors
            .iter()
            .zip(&data)
            .map(|((name, (dtype, _), shape), data)| {
                (
                    name.as_str(),
                    TensorView::new(*dtype, shape.clone(), data).unwrap(),
                )
            });
        // Without any entry the crate (0.8.0) writes JSON that is not valid.
        let metadata = (!self.metadata.is_empty()).then(|| self.metadata.clone());
        serialize(views, metadata).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_the_crate_writes_is_read(model in model()) {
        let bytes = model.write();
        let container = Container::from_memory(&bytes).unwrap();
        let reference = SafeTensors::deserialize(&bytes).unwrap();
        prop_assert_eq!(container.format(), Format::Safetensors);
        prop_assert_eq!(container.tensors().len(), model.tensors.len());
        prop_assert_eq!(container.metadata().len(), model.metadata.len());
        for (key, value) in &model.metadata {
            prop_assert_eq!(container.metadata().required_str(key).unwrap(), value.as_str());
        }
        let mut scratch = Vec::new();
        for (name, (_, dtype), shape) in &model.tensors {
            let tensor = container.tensor(name).unwrap();
            prop_assert_eq!(tensor.dtype, *dtype);
            let outermost_first: Vec<usize> = tensor.shape.iter().rev().map(|&n| n as usize).collect();
            prop_assert_eq!(&outermost_first, shape);
            let bytes = container.rows(tensor, 0, tensor.rows(), &mut scratch).unwrap();
            prop_assert_eq!(bytes, reference.tensor(name).unwrap().data());
        }
    }

    #[test]
    fn damaged_files_are_read_only_if_the_crate_reads_them(
        model in model(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..5_u8), 1..6),
    ) {
        let mut bytes = model.write();
        for (index, byte, kind) in changes {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                // A digit or sign of the header rather than any byte.
                1 => bytes[at] = b"0123456789{}[],:\" "[usize::from(byte) % 18],
                2 => bytes.insert(at, byte),
                3 if bytes.len() > 1 => { bytes.remove(at); }
                _ => bytes.truncate(at.max(1)),
            }
        }
        let reference = SafeTensors::deserialize(&bytes);
        match Container::from_memory(&bytes) {
            Ok(container) => {
                let reference = reference.unwrap();
                prop_assert_eq!(container.tensors().len(), reference.len());
                let mut scratch = Vec::new();
                for tensor in container.tensors() {
                    let bytes = container.rows(tensor, 0, tensor.rows(), &mut scratch).unwrap();
                    prop_assert_eq!(bytes, reference.tensor(&tensor.name).unwrap().data());
                }
            }
            Err(error) => {
                // What the crate lets pass although the format forbids it.
                let stricter = error.message().contains("twice");
                prop_assert!(stricter || reference.is_err(), "{error}");
            }
        }
    }
}

#[test]
fn every_mode_gives_the_same() {
    let folder = folder("modes");
    let header = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]},
        "a":{"shape":[2],"data_offsets":[0,4],"dtype":"BF16"},
        "empty":{"dtype":"F32","shape":[4,0],"data_offsets":[28,28]},
        "single":{"dtype":"I64","shape":[],"data_offsets":[28,36]}}   "#;
    let bytes = file(header, 36);
    std::fs::write(folder.join("model.safetensors"), &bytes).unwrap();
    for mode in MODES {
        for path in [folder.clone(), folder.join("model.safetensors")] {
            let container = Container::open(&path, mode).unwrap();
            assert_eq!(container.file_size(), bytes.len() as u64);
            assert_eq!(container.metadata().required_str("format").unwrap(), "pt");
            let names: Vec<&str> = container.tensors().iter().map(|t| t.name.as_str()).collect();
            assert_eq!(names, ["b", "a", "empty", "single"]);
            let b = container.tensor("b").unwrap();
            assert_eq!((b.shape.as_slice(), b.columns(), b.rows()), (&[3, 2][..], 3, 2));
            let mut scratch = Vec::new();
            let row = container.rows(b, 1, 1, &mut scratch).unwrap();
            assert_eq!(row, (16..28).collect::<Vec<u8>>());
            container.release(b);
            let empty = container.tensor("empty").unwrap();
            assert_eq!((empty.columns(), empty.rows(), empty.elements()), (0, 4, 0));
            assert_eq!(container.rows(empty, 0, 4, &mut scratch).unwrap(), b"");
            let single = container.tensor("single").unwrap();
            assert_eq!((single.columns(), single.rows(), single.elements()), (1, 1, 1));
        }
    }
}

/// Two files: `a` and `b` in the first, `c` in the second, which also holds a tensor that the index omits.
fn split_model(test: &str, index: &str) -> PathBuf {
    let folder = folder(test);
    let entry = |name: &str, from: usize, to: usize| {
        let count = to - from;
        format!(r#""{name}":{{"dtype":"U8","shape":[{count}],"data_offsets":[{from},{to}]}}"#)
    };
    let meta = r#""__metadata__":{"format":"pt"}"#;
    let first = format!("{{{meta},{},{}}}", entry("a", 0, 3), entry("b", 3, 10));
    let second = format!("{{{meta},{},{}}}", entry("c", 0, 20), entry("a", 20, 24));
    std::fs::write(folder.join("one.safetensors"), file(&first, 10)).unwrap();
    std::fs::write(folder.join("two.safetensors"), file(&second, 24)).unwrap();
    std::fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    folder
}

const INDEX: &str = r#"{"metadata":{"total_size":34.5,"deep":[[{"x":null}]]},
    "weight_map":{"c":"two.safetensors","a":"one.safetensors","b":"one.safetensors"}}"#;

#[test]
fn a_split_model_reads_like_one() {
    let folder = split_model("split", INDEX);
    for mode in MODES {
        for path in [folder.clone(), folder.join("model.safetensors.index.json")] {
            let container = Container::open(&path, mode).unwrap();
            assert_eq!(container.format(), Format::Safetensors);
            assert_eq!(container.tensors().len(), 3);
            let mut scratch = Vec::new();
            for (name, expected) in [("a", 0..3), ("b", 3..10), ("c", 0..20)] {
                let tensor = container.tensor(name).unwrap();
                let row = container.rows(tensor, 0, 1, &mut scratch).unwrap();
                assert_eq!(row, expected.collect::<Vec<u8>>(), "{name}");
            }
            assert_eq!(container.metadata().required_str("format").unwrap(), "pt");
            let sizes = ["one.safetensors", "two.safetensors"].map(|name| {
                let path = folder.join(name);
                std::fs::metadata(path).unwrap().len()
            });
            assert_eq!(container.file_size(), sizes.iter().sum::<u64>());
        }
    }
}

#[test]
fn wrong_indexes() {
    let many: Vec<String> = (0..1025)
        .map(|i| format!(r#""t{i}":"{i}.safetensors""#))
        .collect();
    let many = format!(r#"{{"weight_map":{{{}}}}}"#, many.join(","));
    for (index, status, parts) in [
        ("", Status::Format, &["index.json", "empty"][..]),
        (
            "[]",
            Status::Format,
            &["index.json", "byte 0", "found \"[]\"", "an object"],
        ),
        (
            r#"{"weight_map":{}"#,
            Status::Format,
            &["byte 16", "the end of the text"],
        ),
        (
            r#"{"metadata":{}}"#,
            Status::Format,
            &["index.json", "weight_map", "missing"],
        ),
        (
            r#"{"weight_map":{"a":3}}"#,
            Status::Format,
            &["byte 19", "a string"],
        ),
        (
            r#"{"weight_map":{"a":"../x"}}"#,
            Status::Format,
            &["byte 15", "\"../x\"", "without folders"],
        ),
        (
            r#"{"weight_map":{"a":"/etc/passwd"}}"#,
            Status::Format,
            &["\"/etc/passwd\"", "without folders"],
        ),
        (
            r#"{"weight_map":{"a":".."}}"#,
            Status::Format,
            &["\"..\"", "without folders"],
        ),
        (
            r#"{"weight_map":{"a":""}}"#,
            Status::Format,
            &["\"\"", "without folders"],
        ),
        (
            r#"{"weight_map":{"a":"one.safetensors","a":"two.safetensors"}}"#,
            Status::Format,
            &["tensor \"a\" at byte 37", "twice"],
        ),
        (
            r#"{"weight_map":{"a":"three.safetensors"}}"#,
            Status::NotFound,
            &["three.safetensors", "missing", "index.json names it"],
        ),
        (
            r#"{"weight_map":{"z":"one.safetensors"}}"#,
            Status::Format,
            &["tensor \"z\"", "\"one.safetensors\" holds it, but it does not"],
        ),
        (
            r#"{"weight_map":{"a":"one.safetensors","c":"one.safetensors"}}"#,
            Status::Format,
            &["tensor \"c\"", "\"one.safetensors\" holds it"],
        ),
        (&many, Status::Format, &["index.json", "at most 1024 files"]),
    ] {
        let folder = split_model("wrong-index", index);
        for mode in MODES {
            let error = Container::open(&folder, mode).err().expect(index);
            let message = error.to_string();
            for part in parts.iter().chain([&folder.to_str().unwrap()]) {
                assert!(message.contains(part), "{part:?} is not in {message:?}");
            }
            assert_eq!(error.status(), status, "{message}");
        }
    }
}

#[test]
fn a_broken_shard_is_named() {
    let folder = split_model("broken-shard", INDEX);
    let shard = folder.join("two.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap();
    let message = Container::open(&folder, LoadMode::Map).err().unwrap().to_string();
    for part in [
        shard.to_str().unwrap(),
        "tensor \"a\"",
        "4 bytes",
        "beyond the end",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn folders_without_a_model() {
    let folder = folder("nothing");
    let error = Container::open(&folder, LoadMode::Map).err().unwrap();
    assert_eq!(error.status(), Status::NotFound);
    let message = error.to_string();
    for part in [
        folder.to_str().unwrap(),
        "neither model.safetensors nor model.safetensors.index.json",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    std::fs::create_dir(folder.join("model.safetensors")).unwrap();
    let error = Container::open(&folder, LoadMode::Map).err().unwrap();
    assert_eq!(error.status(), Status::InvalidArgument);
    assert!(error.to_string().contains("a directory"), "{error}");
}

#[test]
fn files_beside_the_weights() {
    let folder = folder("sidecars");
    std::fs::write(folder.join("model.safetensors"), file("{}", 0)).unwrap();
    std::fs::write(
        folder.join("config.json"),
        r#"{"model_type":"bert","layers":[1,2]}"#,
    )
    .unwrap();
    std::fs::create_dir(folder.join("1_Pooling")).unwrap();
    std::fs::write(folder.join("1_Pooling/config.json"), "{}").unwrap();
    std::fs::write(folder.join("latin1.txt"), b"caf\xe9").unwrap();
    std::fs::write(folder.join("broken.json"), "{\"a\": }").unwrap();
    std::fs::write(folder.join("large.json"), format!("[{}1]", "1,".repeat(3 << 20))).unwrap();
    std::fs::write(folder.join("deep.json"), "[".repeat(100_000)).unwrap();
    std::fs::create_dir(folder.join("modules.json")).unwrap();
    let container = Container::open(&folder, LoadMode::Map).unwrap();
    let config = container.required_sidecar_json("config.json").unwrap();
    assert_eq!(config["model_type"], "bert");
    assert_eq!(
        container.sidecar("1_Pooling/config.json").unwrap().as_deref(),
        Some("{}")
    );
    assert_eq!(container.sidecar("tokenizer.json").unwrap(), None);
    assert_eq!(container.sidecar_json("tokenizer.json").unwrap(), None);
    assert!(container.sidecar("large.json").unwrap().is_some());
    let check = |error: Error, status: Status, parts: &[&str]| {
        for part in parts {
            assert!(error.to_string().contains(part), "{part:?} is not in {error}");
        }
        assert_eq!(error.status(), status, "{error}");
    };
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let missing = container.required_sidecar("tokenizer.json").unwrap_err();
    check(missing, Status::NotFound, &[&path("tokenizer.json"), "missing"]);
    let missing = container.required_sidecar_json("a/b.json").unwrap_err();
    check(missing, Status::NotFound, &[&path("a/b.json"), "missing"]);
    let latin = container.sidecar("latin1.txt").unwrap_err();
    check(latin, Status::Format, &[&path("latin1.txt"), "byte 3", "UTF-8"]);
    let broken = container.sidecar_json("broken.json").unwrap_err();
    check(
        broken,
        Status::Format,
        &[&path("broken.json"), "not valid JSON", "column 7"],
    );
    let large = container.sidecar_json("large.json").unwrap_err();
    check(
        large,
        Status::Format,
        &[&path("large.json"), "6291459 bytes", "at most 4194304"],
    );
    let deep = container.sidecar_json("deep.json").unwrap_err();
    check(deep, Status::Format, &[&path("deep.json"), "recursion limit"]);
    let directory = container.sidecar("modules.json").unwrap_err();
    check(
        directory,
        Status::InvalidArgument,
        &[&path("modules.json"), "a directory"],
    );
    for name in ["", "/etc/passwd", "../secret", "a/../../b", "."] {
        let error = container.sidecar(name).unwrap_err();
        check(error, Status::InvalidArgument, &["model's folder"]);
    }
    let bytes = file("{}", 0);
    let memory = Container::from_memory(&bytes).unwrap();
    assert_eq!(memory.sidecar("config.json").unwrap(), None);
    let missing = memory.required_sidecar("config.json").unwrap_err();
    check(missing, Status::NotFound, &["config.json", "in memory"]);
}

fn refused(header: &str, count: usize, status: Status, parts: &[&str]) {
    let bytes = file(header, count);
    let error = open(&bytes).expect_err(header);
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert_eq!(error.status(), status, "{message}");
    assert!(message.starts_with("model in memory: "), "{message}");
}

#[test]
fn wrong_headers() {
    let format = |header: &str, count: usize, parts: &[&str]| refused(header, count, Status::Format, parts);
    format("{", 0, &["JSON at byte 9", "the end of the text", "a string"]);
    format("{}x", 0, &["JSON at byte 10", "found \"x\"", "nothing more"]);
    format(r#"{"a"}"#, 0, &["JSON at byte 12", "expected ':'"]);
    format(
        r#"{"a":{}"#,
        0,
        &["tensor \"a\" at byte 9", "\"dtype\" is missing"],
    );
    format(
        r#"{"a":3}"#,
        0,
        &["tensor \"a\" at byte 9", "JSON at byte 13", "an object"],
    );
    format(r#"{"a":{},}"#, 0, &["tensor \"a\""]);
    format(r#"{"a\u12"#, 0, &["JSON at byte 10", "closing"]);
    format(
        "{\"a\nb\":{}}",
        0,
        &["JSON at byte 9", "not valid", "control character"],
    );
    format(r#"{"\ud800":{}}"#, 0, &["JSON at byte 9", "not valid"]);
    format(
        r#"{"__metadata__":{"a":1}}"#,
        0,
        &["__metadata__", "JSON at byte 29", "a string"],
    );
    format(
        r#"{"__metadata__":{"a":"","a":""}}"#,
        0,
        &["__metadata__", "key \"a\" at byte 32", "twice"],
    );
    let nested = format!(r#"{{"a":{{"x":{}"#, "[".repeat(100_000));
    format(&nested, 0, &["tensor \"a\"", "nested at most 64"]);
    let truncated = file("{}", 0)[..9].to_vec();
    assert!(
        open(&truncated)
            .unwrap_err()
            .to_string()
            .contains("header length at byte 0: found 2")
    );
    let mut long = file("{}", 0);
    long[..8].copy_from_slice(&100_000_001_u64.to_le_bytes());
    assert!(
        open(&long)
            .unwrap_err()
            .to_string()
            .contains("found 100000001, expected at most 100000000")
    );
    open(&file("{}", 0)).unwrap();
    open(&file("{ }  \n", 0)).unwrap();
    open(&file(r#"{"__metadata__":null}"#, 0)).unwrap();
}

#[test]
fn wrong_tensors() {
    let with = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"t":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let format = |header: &str, count: usize, parts: &[&str]| {
        let parts: Vec<&str> = std::iter::once("tensor \"t\"")
            .chain(parts.iter().copied())
            .collect();
        refused(header, count, Status::Format, &parts);
    };
    let (f32s, pair) = ("\"F32\"", "[0,24]");
    open(&file(&with(f32s, "[2,3]", pair), 24)).unwrap();
    format(&with("3", "[2,3]", pair), 24, &["JSON at byte 22", "a string"]);
    for (dtype, part) in [
        ("F4", "do not fill bytes"),
        ("F6_E2M3", "do not fill bytes"),
        ("Q4_0", "no type"),
    ] {
        let header = with(&format!("\"{dtype}\""), "[2,3]", pair);
        refused(
            &header,
            24,
            Status::Unsupported,
            &["tensor \"t\"", "dtype at byte 22", dtype, part],
        );
    }
    for shape in [
        "[-1]",
        "[1.5]",
        "[1e3]",
        "[01]",
        "[+1]",
        "[18446744073709551616]",
        "[\"1\"]",
        "[]]",
        "[1,]",
    ] {
        let header = with(f32s, shape, pair);
        let error = open(&file(&header, 24)).expect_err(shape);
        assert!(error.to_string().contains("JSON at byte 3"), "{error}");
    }
    format(
        &with(f32s, "[1,1,1,1,1,1,1,1,1]", "[0,4]"),
        4,
        &["shape", "at most 8 numbers"],
    );
    format(
        &with(f32s, "[4294967296,4294967296]", pair),
        24,
        &["shape", "more values"],
    );
    format(
        &with(f32s, "[18446744073709551615]", pair),
        24,
        &["shape", "more values"],
    );
    format(
        &with(f32s, "[4611686018427387904]", pair),
        24,
        &["shape", "too large"],
    );
    format(
        &with(f32s, "[2,3]", "[0]"),
        24,
        &["data_offsets", "found [0]", "two numbers"],
    );
    format(
        &with(f32s, "[2,3]", "[0,24,25]"),
        24,
        &["data_offsets", "at most 2 numbers"],
    );
    format(&with(f32s, "[2,3]", "[24,0]"), 24, &["data_offsets", "backwards"]);
    format(
        &with(f32s, "[2,3]", "[0,23]"),
        24,
        &["data_offsets", "23 bytes", "need 24"],
    );
    format(
        &with(f32s, "[2,3]", "[18446744073709551591,18446744073709551615]"),
        24,
        &["beyond any file"],
    );
    format(
        &with(f32s, "[2,3]", pair),
        23,
        &["24 bytes at byte 65", "beyond the end of the file at byte 88"],
    );
    let far = "[1099511627776,1099511627800]";
    refused(
        &with(f32s, "[2,3]", far),
        24,
        Status::Format,
        &["bytes 88..", "belong to no tensor"],
    );
    refused(
        &with(f32s, "[2,3]", "[1,25]"),
        25,
        Status::Format,
        &["bytes 65..66", "belong to no tensor"],
    );
    let parts = ["ends at byte 89", "file at byte 90", "belong to no tensor"];
    refused(&with(f32s, "[2,3]", pair), 25, Status::Format, &parts);
    let twice = r#"{"t":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    format(twice, 1, &["field \"dtype\" at byte 27", "twice"]);
    for field in ["dtype", "shape", "data_offsets"] {
        let header = with("\"U8\"", "[1]", "[0,1]").replace(field, "other");
        format(&header, 1, &[&format!("field \"{field}\" is missing")]);
    }
    let entry = |name: &str, from: usize| {
        format!(
            r#""{name}":{{"dtype":"U8","shape":[4],"data_offsets":[{from},{}]}}"#,
            from + 4
        )
    };
    let pair = format!("{{{},{}}}", entry("a", 0), entry("b", 3));
    refused(
        &pair,
        7,
        Status::Format,
        &["tensor \"b\"", "overlaps tensor \"a\""],
    );
    let pair = format!("{{{},{}}}", entry("a", 0), entry("a", 4));
    refused(&pair, 8, Status::Format, &["tensor \"a\"", "twice"]);
}

#[test]
fn truncated_files_and_flipped_bytes() {
    let header = r#"{"__metadata__":{"format":"pt"},"a\u00e9":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},
        "b":{"dtype":"F32","shape":[2,3],"data_offsets":[4,28]}}"#;
    let bytes = file(header, 28);
    open(&bytes).unwrap();
    for length in 0..bytes.len() {
        let error = open(&bytes[..length]).expect_err("a part of a file");
        assert!(error.to_string().contains("byte"), "{error}");
    }
    let mut damaged = bytes.clone();
    for at in 0..8 + header.len() {
        for flip in 1..=255 {
            damaged[at] ^= flip;
            let opened = open(&damaged);
            if opened.is_ok() {
                assert!(
                    SafeTensors::deserialize(&damaged).is_ok(),
                    "byte {at} flipped by {flip:#x}"
                );
            }
            damaged[at] = bytes[at];
        }
    }
}

#[test]
fn memory_is_bounded() {
    // Neither skipped values nor escapes are kept.
    let numbers = "[".to_owned() + &"0,".repeat(500_000) + "0]";
    let skipped = format!(r#"{{"t":{{"x":{numbers},"dtype":"U8","shape":[0],"data_offsets":[0,0]}}}}"#);
    open(&file(&skipped, 0)).unwrap();
    let long = format!(
        r#"{{"__metadata__":{{"{}":"{}"}}}}"#,
        "\\u0041".repeat(50_000),
        "x".repeat(500_000)
    );
    open(&file(&long, 0)).unwrap();
    // Small entries take more memory than file, so their number is limited.
    let entries = |count: usize| {
        let entry = |i| format!(r#""{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#);
        format!("{{{}}}", (0..count).map(entry).collect::<Vec<_>>().join(","))
    };
    open_with(&file(&entries(10_000), 0), 2 << 20).unwrap();
    let error = open_with(&file(&entries(262_145), 0), 60 << 20).unwrap_err();
    assert!(error.to_string().contains("at most 262144 tensors"), "{error}");
    let keys: Vec<String> = (0..16_385).map(|i| format!(r#""{i}":"""#)).collect();
    let error = open_with(
        &file(&format!(r#"{{"__metadata__":{{{}}}}}"#, keys.join(",")), 0),
        6 << 20,
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("at most 16384 metadata keys"),
        "{error}"
    );
}
