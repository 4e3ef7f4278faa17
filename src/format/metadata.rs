//! Key-value metadata of a model file.

use super::strings::Strings;
use crate::base::error::{Error, Result};

/// Far above any real file (about 60 keys), low enough that keys of a few bytes cannot fill the memory.
pub(super) const MOST_KEYS: usize = 1 << 14;

/// One metadata value; the variants are GGUF's.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// An array of one element type. Strings keep their bytes: a token need not be UTF-8.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Strings),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
    /// Arrays of arrays.
    Array(Vec<Array>),
}

/// The metadata of one file, in the file's order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: std::collections::HashMap<String, usize>,
}

impl Metadata {
    /// Adds an entry; false when the key stands already.
    pub fn insert(&mut self, key: String, value: Value) -> bool {
        if self.index.contains_key(&key) {
            return false;
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        true
    }

    /// Adds an entry of a file: refused when the key stands already or the keys are too many.
    pub(super) fn add(&mut self, key: String, value: Value) -> Result<()> {
        if self.len() == MOST_KEYS {
            return Err(Error::format(format!(
                "expected at most {MOST_KEYS} metadata keys"
            )));
        }
        if self.insert(key, value) {
            return Ok(());
        }
        Err(Error::format("the key appears twice"))
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.entries[i].1)
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// An unsigned number of any width, or a non-negative signed one; absent is `None`.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.get(key)
            .map(|value| {
                value
                    .as_u64()
                    .ok_or_else(|| wrong_type(key, value, "an unsigned integer"))
            })
            .transpose()
    }

    /// Like [`Metadata::u64`], at most `u32::MAX`.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        let narrow = |wide: u64| {
            u32::try_from(wide).map_err(|_| {
                Error::format(format!(
                    "metadata key {key}: {wide} is out of range, expected at most {}",
                    u32::MAX
                ))
            })
        };
        self.u64(key)?.map(narrow).transpose()
    }

    /// Like [`Metadata::u32`], but absence is an error.
    pub fn required_u32(&self, key: &str) -> Result<u32> {
        self.u32(key)?.ok_or_else(|| missing(key))
    }

    /// A float (F32 or F64); absent is `None`.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(v)) => Ok(Some(*v)),
            Some(Value::F64(v)) => Ok(Some(*v as f32)),
            Some(value) => Err(wrong_type(key, value, "a float")),
        }
    }

    /// A boolean; absent is `None`.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(*v)),
            Some(value) => Err(wrong_type(key, value, "a boolean")),
        }
    }

    /// A string; absent is `None`.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(v)) => Ok(Some(v)),
            Some(value) => Err(wrong_type(key, value, "a string")),
        }
    }

    /// Like [`Metadata::str`], but absence is an error.
    pub fn required_str(&self, key: &str) -> Result<&str> {
        self.str(key)?.ok_or_else(|| missing(key))
    }

    /// An array; absent is `None`.
    pub fn array(&self, key: &str) -> Result<Option<&Array>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(v)) => Ok(Some(v)),
            Some(value) => Err(wrong_type(key, value, "an array")),
        }
    }
}

fn missing(key: &str) -> Error {
    Error::format(format!("required metadata key {key} is missing"))
}

fn wrong_type(key: &str, found: &Value, expected: &str) -> Error {
    Error::format(format!(
        "metadata key {key}: expected {expected}, found {}",
        found.type_name()
    ))
}

impl Value {
    /// The value as an unsigned number when it is an integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// The name of the value's type, as error messages say it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::U8(_) => "u8",
            Value::I8(_) => "i8",
            Value::U16(_) => "u16",
            Value::I16(_) => "i16",
            Value::U32(_) => "u32",
            Value::I32(_) => "i32",
            Value::F32(_) => "f32",
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::U64(_) => "u64",
            Value::I64(_) => "i64",
            Value::F64(_) => "f64",
        }
    }
}

impl Array {
    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            Array::U8(v) => v.len(),
            Array::I8(v) => v.len(),
            Array::U16(v) => v.len(),
            Array::I16(v) => v.len(),
            Array::U32(v) => v.len(),
            Array::I32(v) => v.len(),
            Array::F32(v) => v.len(),
            Array::Bool(v) => v.len(),
            Array::String(v) => v.len(),
            Array::U64(v) => v.len(),
            Array::I64(v) => v.len(),
            Array::F64(v) => v.len(),
            Array::Array(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of the elements' type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Array::U8(_) => "u8",
            Array::I8(_) => "i8",
            Array::U16(_) => "u16",
            Array::I16(_) => "i16",
            Array::U32(_) => "u32",
            Array::I32(_) => "i32",
            Array::F32(_) => "f32",
            Array::Bool(_) => "bool",
            Array::String(_) => "string",
            Array::U64(_) => "u64",
            Array::I64(_) => "i64",
            Array::F64(_) => "f64",
            Array::Array(_) => "array",
        }
    }

    /// The strings of an array of strings.
    pub fn strings(&self) -> Option<&Strings> {
        match self {
            Array::String(strings) => Some(strings),
            _ => None,
        }
    }

    /// Element `index` as an unsigned number: an integer that is not negative, or a boolean as 0 or 1.
    pub fn u64(&self, index: usize) -> Option<u64> {
        match self {
            Array::U8(v) => v.get(index).map(|&v| v.into()),
            Array::U16(v) => v.get(index).map(|&v| v.into()),
            Array::U32(v) => v.get(index).map(|&v| v.into()),
            Array::U64(v) => v.get(index).copied(),
            Array::I8(v) => v.get(index).and_then(|&v| v.try_into().ok()),
            Array::I16(v) => v.get(index).and_then(|&v| v.try_into().ok()),
            Array::I32(v) => v.get(index).and_then(|&v| v.try_into().ok()),
            Array::I64(v) => v.get(index).and_then(|&v| v.try_into().ok()),
            Array::Bool(v) => v.get(index).map(|&v| v.into()),
            Array::F32(_) | Array::F64(_) | Array::String(_) | Array::Array(_) => None,
        }
    }

    /// Element `index` of an array of floats.
    pub fn f32(&self, index: usize) -> Option<f32> {
        match self {
            Array::F32(v) => v.get(index).copied(),
            Array::F64(v) => v.get(index).map(|&v| v as f32),
            _ => None,
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Array::U8(v) => json_list(v, out, number),
            Array::I8(v) => json_list(v, out, number),
            Array::U16(v) => json_list(v, out, number),
            Array::I16(v) => json_list(v, out, number),
            Array::U32(v) => json_list(v, out, number),
            Array::I32(v) => json_list(v, out, number),
            Array::U64(v) => json_list(v, out, number),
            Array::I64(v) => json_list(v, out, number),
            Array::Bool(v) => json_list(v, out, number),
            Array::F32(v) => json_list(v, out, |v, out| json_float(serde_json::to_vec(v), out)),
            Array::F64(v) => json_list(v, out, |v, out| json_float(serde_json::to_vec(v), out)),
            Array::String(v) => json_list(v.iter(), out, json_string),
            Array::Array(v) => json_list(v, out, |array, out| array.write_json(out)),
        }
    }
}

impl Value {
    /// The value as JSON text, with every element of an array. What JSON cannot say is bent: bytes that are
    /// not UTF-8 become U+FFFD, infinite floats and NaN become `null`.
    pub fn to_json(&self) -> String {
        let mut out = Vec::new();
        match self {
            Value::U8(v) => number(v, &mut out),
            Value::I8(v) => number(v, &mut out),
            Value::U16(v) => number(v, &mut out),
            Value::I16(v) => number(v, &mut out),
            Value::U32(v) => number(v, &mut out),
            Value::I32(v) => number(v, &mut out),
            Value::U64(v) => number(v, &mut out),
            Value::I64(v) => number(v, &mut out),
            Value::Bool(v) => number(v, &mut out),
            Value::F32(v) => json_float(serde_json::to_vec(v), &mut out),
            Value::F64(v) => json_float(serde_json::to_vec(v), &mut out),
            Value::String(v) => json_string(v.as_bytes(), &mut out),
            Value::Array(v) => v.write_json(&mut out),
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

fn json_list<T>(
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

/// Integers and booleans read the same in Rust and in JSON.
fn number(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    out.extend_from_slice(value.to_string().as_bytes());
}

/// The shortest digits that give the same float back, from `serde_json`.
fn json_float(digits: serde_json::Result<Vec<u8>>, out: &mut Vec<u8>) {
    match digits {
        Ok(digits) => out.extend_from_slice(&digits),
        Err(_) => out.extend_from_slice(b"null"),
    }
}

fn json_string(bytes: &[u8], out: &mut Vec<u8>) {
    let text = String::from_utf8_lossy(bytes);
    match serde_json::to_vec(text.as_ref()) {
        Ok(quoted) => out.extend_from_slice(&quoted),
        Err(_) => out.extend_from_slice(b"null"),
    }
}
