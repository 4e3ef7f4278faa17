//! GGUF files made to do harm, and things that are no model: each gives an error that names the place, none a
//! panic, a hang or a large allocation.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A test may fail by a panic, its helpers too.

mod counting;
mod gguf_support;

use gguf_support::{Writer, data, folder};
use mantle::base::error::{Error, Status};
use mantle::format::container::{Container, LoadMode};
use mantle::format::metadata::{Array, Value};

/// Opens `bytes`, checks that this took at most twice their size, and that what opened can be read.
fn open(bytes: &[u8]) -> Result<(), Error> {
    open_with(bytes, 8192)
}

/// Like [`open`], with `allowance` bytes more.
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

#[test]
fn truncated_files_are_refused_everywhere() {
    let folder = folder("truncated");
    for name in [
        "tiny-qwen3-Q8_0.gguf",
        "tiny-gemma-embedding-Q8_0.gguf",
        "gguf-types.gguf",
    ] {
        let bytes = std::fs::read(data(name)).unwrap();
        let path = folder.join(name);
        for length in (0..bytes.len().min(65_536)).step_by(64) {
            let error = open(&bytes[..length]).expect_err("a part of a file");
            assert_eq!(error.status(), Status::Format, "{error}");
            assert!(error.to_string().contains("byte"), "{error}");
            // The other ways in, less often: they share everything but the source of bytes.
            if length % 1024 == 0 {
                std::fs::write(&path, &bytes[..length]).unwrap();
                for mode in [LoadMode::Map, LoadMode::Read] {
                    let error = Container::open(&path, mode).err().expect("a part of a file");
                    assert_eq!(error.status(), Status::Format, "{error}");
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                }
            }
        }
    }
}

#[test]
fn flipped_bytes_are_errors_or_harmless() {
    for name in ["tiny-qwen3-Q8_0.gguf", "gguf-types.gguf", "gguf-values.gguf"] {
        let bytes = std::fs::read(data(name)).unwrap();
        let data = Container::from_memory(&bytes)
            .unwrap()
            .tensors()
            .iter()
            .map(|tensor| tensor.offset as usize)
            .min()
            .unwrap_or(bytes.len());
        let mut damaged = bytes.clone();
        let mut refused = 0;
        for at in 0..data {
            for flip in [0x01, 0x80, 0xFF] {
                damaged[at] ^= flip;
                if let Err(error) = open(&damaged) {
                    assert!(!error.message().is_empty());
                    refused += 1;
                }
                damaged[at] = bytes[at];
            }
        }
        assert!(refused > 100, "{name}: {refused} of {data} bytes matter");
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// A file that is right but for `record`, which stands where its only tensor record belongs, with `count` bytes
/// of data behind it.
fn with_tensor(record: Writer, count: usize) -> Vec<u8> {
    let head = Writer::new(1, 1).entry("general.name", &text("x"));
    head.raw(&record.bytes).pad(32).zeros(count).bytes
}

/// A file that is right but for `entry`, which stands where its only metadata entry belongs.
fn with_entry(entry: Writer) -> Vec<u8> {
    Writer::new(0, 1).raw(&entry.bytes).zeros(64).bytes
}

fn refused(bytes: &[u8], status: Status, parts: &[&str]) {
    let error = open(bytes).expect_err(&format!("a file that should name {parts:?}"));
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert_eq!(error.status(), status, "{message}");
    assert!(message.starts_with("model in memory: "), "{message}");
}

#[test]
fn wrong_headers() {
    let header = |version: u32, tensors: u64, keys: u64| {
        let writer = Writer::default().raw(b"GGUF").u32(version);
        writer.u64(tensors).u64(keys).zeros(1000).bytes
    };
    let format = Status::Format;
    refused(b"", format, &["byte 0", "expected GGUF or safetensors"]);
    refused(b"GGU", format, &["byte 0", "GGUF"]);
    refused(
        b"GGUF",
        format,
        &["version at byte 4", "needs 4 bytes", "ends after 0"],
    );
    refused(
        b"GGUF\x03\0\0\0\x01",
        format,
        &["tensor count at byte 8", "needs 8 bytes"],
    );
    refused(b"Once upon a time", format, &["magic at byte 0", "Once upon"]);
    refused(
        b"version https://git-lfs.github.com/spec/v1",
        format,
        &["Git LFS pointer"],
    );
    refused(b"PK\x03\x04rest", format, &["ZIP archive"]);
    refused(b"tjgg\x03\0\0\0", format, &["GGJT", "convert"]);
    let unsupported = Status::Unsupported;
    refused(
        &header(1, 0, 0),
        unsupported,
        &["byte 4", "GGUF version 1", "expected 2 or 3"],
    );
    refused(
        &header(0, 0, 0),
        unsupported,
        &["byte 4", "GGUF version 0", "expected 2 or 3"],
    );
    refused(
        &header(4, 0, 0),
        unsupported,
        &["byte 4", "GGUF version 4", "expected 2 or 3"],
    );
    refused(&header(3 << 24, 0, 0), unsupported, &["byte 4", "big-endian"]);
    refused(
        &std::fs::read(data("gguf-big-endian.gguf")).unwrap(),
        unsupported,
        &["big-endian"],
    );
    refused(
        &header(3, u64::MAX, 0),
        format,
        &["tensor count at byte 8", "18446744073709551615", "at most"],
    );
    refused(
        &header(3, 1 << 40, 0),
        format,
        &["tensor count at byte 8", "1099511627776", "at most"],
    );
    refused(
        &header(3, 0, u64::MAX),
        format,
        &["metadata count at byte 16", "18446744073709551615"],
    );
    refused(
        &header(3, 0, 72),
        format,
        &["metadata count at byte 16", "found 72", "at most 71"],
    );
}

#[test]
fn too_many_keys_and_tensors() {
    let mut keys = Writer::new(0, 20_000);
    let mut tensors = Writer::new(300_000, 1).entry("general.alignment", &Value::U32(1));
    for index in 0..20_000 {
        keys = keys.entry(&format!("{index}"), &Value::U8(0));
    }
    for index in 0..300_000 {
        tensors = tensors.tensor(&format!("{index}"), &[1], 24, index);
    }
    refused(
        &keys.bytes,
        Status::Format,
        &["metadata count at byte 16", "found 20000", "at most 16384"],
    );
    let tensors = tensors.zeros(300_000).bytes;
    refused(
        &tensors,
        Status::Format,
        &["tensor count at byte 8", "found 300000", "at most 262144"],
    );
}

#[test]
fn wrong_metadata() {
    let format = Status::Format;
    let key = || Writer::default().string("some.key");
    let entry = |writer: Writer, parts: &[&str]| refused(&with_entry(writer), format, parts);
    let named = |writer: Writer, parts: &[&str]| {
        let parts: Vec<&str> = std::iter::once("metadata key \"some.key\"")
            .chain(parts.iter().copied())
            .collect();
        refused(&with_entry(writer), format, &parts);
    };
    entry(
        Writer::default().u64(u64::MAX),
        &["metadata entry 0: key at byte 24", "found 18446744073709551615"],
    );
    entry(
        Writer::default().u64(65),
        &["metadata entry 0: key at byte 24", "found 65", "at most 64"],
    );
    entry(
        Writer::default().string(""),
        &["metadata entry 0: key at byte 24", "no characters"],
    );
    entry(
        Writer::default().string(b"a\xff"),
        &["metadata entry 0: key at byte 24", "not UTF-8"],
    );
    entry(
        Writer::default().string(vec![b'k'; 65_536]).u32(0),
        &[
            "metadata entry 0: key at byte 24",
            "found 65536 bytes",
            "at most 65535",
        ],
    );
    named(
        key().u32(13),
        &["value type at byte 40", "found 13", "expected 0 to 12"],
    );
    named(
        key().u32(u32::MAX),
        &["value type at byte 40", "found 4294967295"],
    );
    named(
        key().u32(7).raw(&[2]),
        &["boolean at byte 44", "found 2", "expected 0 or 1"],
    );
    named(
        key().u32(8).u64(1 << 63),
        &["string value at byte 44", "found 9223372036854775808"],
    );
    let array = |kind: u32, count: u64| key().u32(9).u32(kind).u64(count);
    named(
        array(13, 1),
        &["array element type at byte 44", "found 13", "expected 0 to 12"],
    );
    for kind in 0..13 {
        for count in [
            u64::MAX,
            u64::MAX / 8 + 2,
            u64::MAX / 12 + 2,
            1 << 61,
            1 << 32,
            65,
        ] {
            named(
                array(kind, count),
                &["array length at byte 48", &format!("found {count},"), "at most"],
            );
        }
    }
    named(array(7, 3).raw(&[0, 1, 9]), &["boolean at byte 58", "found 9"]);
    named(
        array(8, 2).string("ok").u64(1 << 50),
        &["string 1 of 2", "length at byte 66", "found 1125899906842624"],
    );
    let value = Value::U8(0);
    let twice = Writer::new(0, 2).entry("k", &value).entry("k", &value).bytes;
    refused(&twice, format, &["metadata key \"k\" at byte 38", "twice"]);
    // The last value of the file is cut.
    let mut cut = Writer::new(0, 1).entry("some.key", &Value::U64(1)).bytes;
    cut.pop();
    refused(
        &cut,
        format,
        &[
            "metadata key \"some.key\"",
            "value at byte 44",
            "needs 8 bytes",
            "ends after 7",
        ],
    );
}

#[test]
fn nested_arrays() {
    // Within the limits they are read.
    let mut deep = Array::U8(vec![1]);
    for _ in 0..7 {
        deep = Array::Array(vec![deep]);
    }
    let file = |array: &Array| {
        Writer::new(0, 1)
            .entry("deep", &Value::Array(array.clone()))
            .bytes
    };
    open(&file(&deep)).unwrap();
    let deeper = Array::Array(vec![deep]);
    refused(
        &file(&deeper),
        Status::Format,
        &["metadata key \"deep\"", "nested deeper than 8"],
    );
    // A tower of a million arrays would overflow the stack of a reader without a limit.
    let mut tower = Writer::new(0, 1).string("tower").u32(9);
    for _ in 0..1_000_000 {
        tower = tower.u32(9).u64(1);
    }
    refused(
        &tower.bytes,
        Status::Format,
        &["metadata key \"tower\"", "nested deeper than 8"],
    );
    // An empty array takes 12 bytes in the file, but more in memory.
    let wide = Array::Array(vec![Array::U8(vec![]); 5_000]);
    refused(
        &file(&wide),
        Status::Format,
        &["metadata key \"deep\"", "5000 arrays", "at most 4096"],
    );
    // Each level claims all that could follow.
    let mut claims = Writer::new(0, 1).string("claims").u32(9);
    for _ in 0..7 {
        claims = claims.u32(9).u64(4_000);
    }
    let claims = claims.u32(0).u64(0).zeros(400_000).bytes;
    refused(
        &claims,
        Status::Format,
        &["metadata key \"claims\"", "arrays inside arrays"],
    );
}

#[test]
fn wrong_alignment() {
    for (value, found) in [
        (Value::U32(0), "found 0"),
        (Value::U32(3), "found 3"),
        (Value::U32(48), "found 48"),
        (Value::U64(1 << 32), "found 4294967296"),
        (Value::I32(-8), "expected an unsigned integer, found i32"),
        (text("32"), "expected an unsigned integer, found string"),
    ] {
        let bytes = Writer::new(0, 1).entry("general.alignment", &value).bytes;
        refused(&bytes, Status::Format, &["general.alignment", found]);
    }
    // The largest alignment puts the data far beyond the end.
    let bytes = Writer::new(1, 1)
        .entry("general.alignment", &Value::U32(1 << 31))
        .tensor("t", &[1], 0, 0)
        .zeros(100)
        .bytes;
    refused(
        &bytes,
        Status::Format,
        &["tensor \"t\"", "at byte 2147483648", "beyond the end"],
    );
}

#[test]
fn wrong_tensor_records() {
    let new = Writer::default;
    let wrong = |record: Writer, status: Status, parts: &[&str]| {
        refused(&with_tensor(record, 4096), status, parts);
    };
    let format = |record: Writer, parts: &[&str]| wrong(record, Status::Format, parts);
    let unsupported = |record: Writer, parts: &[&str]| wrong(record, Status::Unsupported, parts);
    // The record begins at byte 24 + 8 + 12 + 4 + 8 + 1 = 57; the name takes 9 bytes, the dimension count 4.
    format(
        new().u64(u64::MAX),
        &["tensor 0: name at byte 57", "found 18446744073709551615"],
    );
    format(
        new().string("").zeros(40),
        &["tensor 0: name at byte 57", "no characters"],
    );
    format(
        new().string([0xC0]).zeros(40),
        &["tensor 0: name at byte 57", "not UTF-8"],
    );
    let named = "tensor \"t\"";
    format(
        new().tensor("t", &[], 0, 0),
        &[named, "dimension count at byte 66", "found 0", "1 to 4"],
    );
    format(
        new().tensor("t", &[1; 5], 0, 0),
        &[named, "dimension count at byte 66", "found 5", "1 to 4"],
    );
    format(
        new().string("t").u32(u32::MAX),
        &[named, "dimension count at byte 66", "found 4294967295"],
    );
    format(
        new().tensor("t", &[4, 0], 0, 0),
        &[named, "shape at byte 70", "[4, 0]", "zero"],
    );
    for shape in [
        vec![u64::MAX],
        vec![1 << 62, 2],
        vec![1 << 32, 1 << 32],
        vec![1 << 21; 4],
        vec![32, u64::MAX, u64::MAX],
        vec![1 << 63],
    ] {
        let parts = [named, "shape at byte 70", &format!("{shape:?}"), "more values"];
        format(new().tensor("t", &shape, 0, 0), &parts);
    }
    // The element count fits in 64 bits, the byte count does not.
    format(
        new().tensor("t", &[1 << 61, 2], 28, 0),
        &[named, "shape at byte 70"],
    );
    format(
        new().tensor("t", &[33, 2], 8, 0),
        &[named, "shape at byte 70", "33 values", "Q8_0", "blocks of 32"],
    );
    format(
        new().tensor("t", &[128], 12, 0),
        &[named, "128 values", "Q4_K", "blocks of 256"],
    );
    unsupported(
        new().tensor("t", &[32], 99, 0),
        &[named, "element type at byte 78", "found 99"],
    );
    unsupported(
        new().tensor("t", &[32], u32::MAX, 0),
        &[named, "element type at byte 78", "found 4294967295"],
    );
    // Numbers above 255 are this library's own, not GGUF's.
    unsupported(
        new().tensor("t", &[32], 256, 0),
        &[named, "element type at byte 78", "found 256"],
    );
    for (number, name) in [
        (4, "Q4_2"),
        (5, "Q4_3"),
        (31, "Q4_0_4_4"),
        (32, "Q4_0_4_8"),
        (33, "Q4_0_8_8"),
        (36, "IQ4_NL_4_4"),
        (37, "IQ4_NL_4_8"),
        (38, "IQ4_NL_8_8"),
    ] {
        let parts = [named, "byte 78", &format!("found {number} ({name})"), "removed"];
        unsupported(new().tensor("t", &[32], number, 0), &parts);
    }
    format(
        new().tensor("t", &[32], 0, 31),
        &[named, "data offset at byte 82", "found 31", "alignment 32"],
    );
}

#[test]
fn wrong_extents() {
    let format = |bytes: &[u8], parts: &[&str]| refused(bytes, Status::Format, parts);
    let one = |shape: u64, offset: u64, data: usize| {
        with_tensor(Writer::default().tensor("t", &[shape], 24, offset), data)
    };
    open(&one(100, 0, 100)).unwrap();
    format(
        &one(100, 0, 99),
        &[
            "tensor \"t\"",
            "100 bytes at byte 96",
            "end of the file at byte 195",
        ],
    );
    format(
        &one(100, 32, 100),
        &["tensor \"t\"", "at byte 128", "beyond the end"],
    );
    format(
        &one(100, 1 << 40, 100),
        &["tensor \"t\"", "at byte 1099511627872", "beyond the end"],
    );
    let far = u64::MAX - 31;
    format(
        &one(100, far, 100),
        &[
            "tensor \"t\"",
            &format!("offset {far}"),
            "data's start at byte 96",
        ],
    );
    let near = u64::MAX - 127;
    format(&one(100, near, 100), &["tensor \"t\"", "beyond the end"]);

    let two = |first: &str, second: &str, offset: u64| {
        let writer = Writer::new(2, 0).tensor(first, &[40], 24, 0);
        writer.tensor(second, &[40], 24, offset).pad(32).zeros(104).bytes
    };
    open(&two("a", "b", 64)).unwrap();
    format(
        &two("a", "b", 32),
        &["tensor \"b\"", "128..168", "overlaps tensor \"a\"", "96..136"],
    );
    format(&two("a", "b", 0), &["overlaps", "\"a\"", "\"b\""]);
    format(
        &two("a", "a", 64),
        &["tensor \"a\"", "twice", "byte 96", "byte 160"],
    );
}

#[test]
fn long_and_strange_names_stay_readable_in_errors() {
    let name = format!("line\n\u{1b}[31m{}", "x".repeat(60_000));
    let bytes = with_tensor(Writer::default().tensor(&name, &[32], 99, 0), 128);
    let message = open(&bytes).unwrap_err().to_string();
    assert!(message.len() < 500, "{}", message.len());
    assert!(message.contains(r"line\n\u{1b}[31mxxx"), "{message}");
}

#[test]
fn memory_stays_within_twice_the_file() {
    let strings = |length: usize, count: usize| {
        let text = vec![b'x'; length];
        let list = Array::String(std::iter::repeat_n(text, count).collect());
        Writer::new(0, 1).entry("list", &Value::Array(list)).bytes
    };
    for (length, count) in [(0, 200_000), (1, 200_000), (7, 100_000), (500_000, 2)] {
        open(&strings(length, count)).unwrap();
    }
    let numbers = Array::F64(vec![1.0; 100_000]);
    open(&Writer::new(0, 1).entry("list", &Value::Array(numbers)).bytes).unwrap();
    let flags = Array::Bool(vec![true; 500_000]);
    open(&Writer::new(0, 1).entry("list", &Value::Array(flags)).bytes).unwrap();
    // Small keys, tensors and inner arrays take more memory than file, so their numbers are limited.
    let nested = Array::Array(vec![Array::U8(vec![]); 4096]);
    open_with(
        &Writer::new(0, 1).entry("list", &Value::Array(nested)).bytes,
        200 << 10,
    )
    .unwrap();
    let mut keys = Writer::new(0, 16_384);
    for index in 0..16_384 {
        keys = keys.entry(&format!("{index}"), &Value::U8(0));
    }
    open_with(&keys.bytes, 6 << 20).unwrap();
    let mut tensors = Writer::new(262_144, 1).entry("general.alignment", &Value::U32(1));
    for index in 0..262_144 {
        tensors = tensors.tensor(&format!("{index}"), &[1], 24, index);
    }
    open_with(&tensors.zeros(262_144).bytes, 40 << 20).unwrap();
}

#[test]
fn things_that_are_no_files() {
    let folder = folder("no-files");
    let check = |path: &std::path::Path, status: Status, part: &str| {
        for mode in [LoadMode::Map, LoadMode::Read] {
            // In another thread, so that a hang fails the test.
            let (sender, receiver) = std::sync::mpsc::channel();
            let owned = path.to_owned();
            std::thread::spawn(move || sender.send(Container::open(&owned, mode).err()));
            let wait = std::time::Duration::from_secs(20);
            let error = receiver.recv_timeout(wait).expect("no answer").expect("no error");
            let message = error.to_string();
            assert_eq!(error.status(), status, "{message}");
            assert!(message.contains(part), "{part:?} is not in {message:?}");
            assert!(message.contains(path.to_str().unwrap()), "{message}");
        }
    };
    check(
        &folder.join("missing.gguf"),
        Status::NotFound,
        "cannot open the file",
    );
    std::fs::write(folder.join("empty.gguf"), b"").unwrap();
    check(&folder.join("empty.gguf"), Status::Format, "the file is empty");
    std::fs::write(folder.join("text.gguf"), b"# A readme\n").unwrap();
    check(&folder.join("text.gguf"), Status::Format, "not a model file");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        check(
            std::path::Path::new("/dev/zero"),
            Status::InvalidArgument,
            "device",
        );
        let pipe = folder.join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        check(&pipe, Status::InvalidArgument, "pipe");
        let secret = folder.join("secret.gguf");
        std::fs::write(&secret, b"GGUF").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o000)).unwrap();
        // Permissions do not bind the superuser, who sees a file cut short.
        match std::fs::File::open(&secret) {
            Err(_) => check(&secret, Status::Io, "cannot open the file"),
            Ok(_) => check(&secret, Status::Format, "version at byte 4"),
        }
    }
}
