//! Writes GGUF files for tests, right ones and wrong ones, field by field.
#![allow(dead_code)]

use mantle::format::metadata::{Array, Value};
use std::path::PathBuf;

/// A committed fixture.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// A new folder for the files of one test.
pub fn folder(test: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A file in the making.
#[derive(Clone, Default)]
pub struct Writer {
    pub bytes: Vec<u8>,
}

impl Writer {
    /// A version 3 header.
    pub fn new(tensors: u64, keys: u64) -> Writer {
        Writer::default().raw(b"GGUF").u32(3).u64(tensors).u64(keys)
    }

    pub fn raw(mut self, bytes: &[u8]) -> Writer {
        self.bytes.extend_from_slice(bytes);
        self
    }

    pub fn u32(self, value: u32) -> Writer {
        self.raw(&value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Writer {
        self.raw(&value.to_le_bytes())
    }

    pub fn string(self, text: impl AsRef<[u8]>) -> Writer {
        self.u64(text.as_ref().len() as u64).raw(text.as_ref())
    }

    /// A key with its value.
    pub fn entry(self, key: &str, value: &Value) -> Writer {
        let writer = self.string(key);
        match value {
            Value::U8(v) => writer.u32(0).raw(&v.to_le_bytes()),
            Value::I8(v) => writer.u32(1).raw(&v.to_le_bytes()),
            Value::U16(v) => writer.u32(2).raw(&v.to_le_bytes()),
            Value::I16(v) => writer.u32(3).raw(&v.to_le_bytes()),
            Value::U32(v) => writer.u32(4).raw(&v.to_le_bytes()),
            Value::I32(v) => writer.u32(5).raw(&v.to_le_bytes()),
            Value::F32(v) => writer.u32(6).raw(&v.to_le_bytes()),
            Value::Bool(v) => writer.u32(7).raw(&[u8::from(*v)]),
            Value::String(v) => writer.u32(8).string(v),
            Value::Array(v) => writer.u32(9).array(v),
            Value::U64(v) => writer.u32(10).raw(&v.to_le_bytes()),
            Value::I64(v) => writer.u32(11).raw(&v.to_le_bytes()),
            Value::F64(v) => writer.u32(12).raw(&v.to_le_bytes()),
        }
    }

    /// Element type, length and elements.
    pub fn array(self, array: &Array) -> Writer {
        macro_rules! numbers {
            ($kind:literal, $list:ident) => {{
                let mut writer = self.u32($kind).u64($list.len() as u64);
                for number in $list {
                    writer.bytes.extend_from_slice(&number.to_le_bytes());
                }
                writer
            }};
        }
        match array {
            Array::U8(v) => numbers!(0, v),
            Array::I8(v) => numbers!(1, v),
            Array::U16(v) => numbers!(2, v),
            Array::I16(v) => numbers!(3, v),
            Array::U32(v) => numbers!(4, v),
            Array::I32(v) => numbers!(5, v),
            Array::F32(v) => numbers!(6, v),
            Array::Bool(v) => {
                let bytes: Vec<u8> = v.iter().map(|&b| b.into()).collect();
                self.u32(7).u64(v.len() as u64).raw(&bytes)
            }
            Array::String(v) => v.iter().fold(self.u32(8).u64(v.len() as u64), Writer::string),
            Array::Array(v) => v.iter().fold(self.u32(9).u64(v.len() as u64), Writer::array),
            Array::U64(v) => numbers!(10, v),
            Array::I64(v) => numbers!(11, v),
            Array::F64(v) => numbers!(12, v),
        }
    }

    /// A tensor's record; `offset` counts from the data section.
    pub fn tensor(self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Writer {
        let writer = self.string(name).u32(shape.len() as u32);
        let writer = shape.iter().fold(writer, |writer, &size| writer.u64(size));
        writer.u32(kind).u64(offset)
    }

    /// Zeros up to the next multiple of `alignment`.
    pub fn pad(mut self, alignment: usize) -> Writer {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
        self
    }

    /// `count` zeros.
    pub fn zeros(mut self, count: usize) -> Writer {
        self.bytes.resize(self.bytes.len() + count, 0);
        self
    }
}
