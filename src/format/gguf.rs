//! GGUF, versions 2 and 3 (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>).
//!
//! A file is a header (magic, version, counts), metadata, one record per tensor, padding, and the tensors' data.
//! Version 1 counted in 32 bits; version 3 is version 2 with big-endian files allowed.

use super::container::{MOST_TENSORS, Parsed, Tensor};
use super::cursor::{Cursor, quoted};
use super::dtype::DataType;
use super::metadata::{Array, MOST_KEYS, Metadata, Value};
use super::source::{Source, reserve};
use super::strings::Strings;
use crate::base::error::{Error, Result, Within};

/// The first bytes of every GGUF file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";

/// Alignment of the data when `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u64 = 32;
/// The format page allows keys of 2^16 - 1 bytes.
const LONGEST_NAME: usize = (1 << 16) - 1;
/// `GGML_MAX_DIMS`.
const MOST_DIMENSIONS: u32 = 4;
/// Arrays inside arrays: no known file has even one, so the limits may be tight.
const DEEPEST_ARRAY: usize = 8;
const MOST_INNER_ARRAYS: usize = 1 << 12;

/// Reads all but the tensors' data.
pub(super) fn read(source: &Source) -> Result<Parsed> {
    let mut reader = Reader {
        cursor: Cursor::new(source),
        inner_arrays: 0,
    };
    let (tensor_count, key_count) = reader.header()?;
    let mut metadata = Metadata::default();
    for index in 0..key_count {
        reader.entry(index, &mut metadata)?;
    }
    let alignment = alignment(&metadata)?;
    let mut tensors = Vec::new();
    reserve(&mut tensors, tensor_count as usize)?;
    for index in 0..tensor_count {
        tensors.push(reader.tensor(index, alignment)?);
    }
    let end = reader.cursor.position();
    place(&mut tensors, end, alignment)?;
    Ok(Parsed { metadata, tensors })
}

/// Turns offsets relative to the data section, which begins at the first aligned byte after the records,
/// into offsets in the file.
fn place(tensors: &mut [Tensor], records_end: u64, alignment: u64) -> Result<()> {
    let overflow = || Error::format(format!("the tensor data cannot begin after byte {records_end}"));
    let data = records_end
        .checked_next_multiple_of(alignment)
        .ok_or_else(overflow)?;
    for tensor in tensors {
        let relative = tensor.offset;
        tensor.offset = data.checked_add(relative).ok_or_else(|| {
            Error::format(format!(
                "tensor {}: its offset {relative} does not fit after the data's start at byte {data}",
                quoted(&tensor.name)
            ))
        })?;
    }
    Ok(())
}

fn alignment(metadata: &Metadata) -> Result<u64> {
    let alignment = metadata.u64("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
    if alignment.is_power_of_two() && alignment <= u64::from(u32::MAX) {
        return Ok(alignment);
    }
    Err(Error::format(format!(
        "metadata key \"general.alignment\": found {alignment}, expected a power of two below 2^32"
    )))
}

/// Bytes of the smallest element of a value type; `None` for a number that is no type.
fn smallest_element(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        8 => 8,
        9 => 12,
        _ => return None,
    })
}

struct Reader<'s> {
    cursor: Cursor<'s>,
    inner_arrays: usize,
}

impl Reader<'_> {
    /// Counts of tensors and of metadata keys.
    fn header(&mut self) -> Result<(u64, u64)> {
        self.cursor.take(MAGIC.len(), "magic")?;
        let version = self.cursor.number::<u32>("version")?;
        match version {
            2 | 3 => {}
            1 => {
                return Err(Error::unsupported(
                    "version at byte 4: found GGUF version 1, expected 2 or 3; convert the model again with a current tool",
                ));
            }
            // The low half of a small big-endian number is zero.
            _ if version & 0xFFFF == 0 && version != 0 => {
                return Err(Error::unsupported(format!(
                    "version at byte 4: found {}, big-endian; only little-endian GGUF files are read",
                    version.swap_bytes()
                )));
            }
            _ => {
                return Err(Error::unsupported(format!(
                    "version at byte 4: found GGUF version {version}, expected 2 or 3"
                )));
            }
        }
        // The smallest record: name length, a name of one byte, dimension count, a dimension, type, offset.
        let tensors = self.cursor.count(8 + 1 + 4 + 8 + 4 + 8, "tensor count")? as u64;
        // The smallest entry: key length, a key of one byte, type, a value of one byte.
        let keys = self.cursor.count(8 + 1 + 4 + 1, "metadata count")? as u64;
        for (what, at, found, most) in [
            ("tensor count", 8, tensors, MOST_TENSORS as u64),
            ("metadata count", 16, keys, MOST_KEYS as u64),
        ] {
            if found > most {
                return Err(Error::format(format!(
                    "{what} at byte {at}: found {found}, expected at most {most}"
                )));
            }
        }
        Ok((tensors, keys))
    }

    fn name(&mut self, what: &str) -> Result<String> {
        let at = self.cursor.position();
        let bytes = self.cursor.string(LONGEST_NAME, what)?;
        match String::from_utf8(bytes) {
            Ok(name) if name.is_empty() => Err(Error::format(format!(
                "{what} at byte {at}: found no characters, expected a name"
            ))),
            Ok(name) => Ok(name),
            Err(error) => Err(Error::format(format!(
                "{what} at byte {at}: found bytes that are not UTF-8 ({})",
                quoted(&String::from_utf8_lossy(error.as_bytes()))
            ))),
        }
    }

    fn entry(&mut self, index: u64, metadata: &mut Metadata) -> Result<()> {
        let at = self.cursor.position();
        let key = self.name("key").within(|| format!("metadata entry {index}"))?;
        let value = self.value().within(|| format!("metadata key {}", quoted(&key)))?;
        let place = quoted(&key);
        metadata
            .add(key, value)
            .within(|| format!("metadata key {place} at byte {at}"))
    }

    fn value(&mut self) -> Result<Value> {
        let at = self.cursor.position();
        let kind = self.cursor.number::<u32>("value type")?;
        let cursor = &mut self.cursor;
        Ok(match kind {
            0 => Value::U8(cursor.number("value")?),
            1 => Value::I8(cursor.number("value")?),
            2 => Value::U16(cursor.number("value")?),
            3 => Value::I16(cursor.number("value")?),
            4 => Value::U32(cursor.number("value")?),
            5 => Value::I32(cursor.number("value")?),
            6 => Value::F32(cursor.number("value")?),
            7 => Value::Bool(self.bools(1)?[0]),
            // Texts for people may be damaged without harm; tokens are in arrays, which keep every byte.
            8 => Value::String(
                match String::from_utf8(cursor.string(usize::MAX, "string value")?) {
                    Ok(text) => text,
                    Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                },
            ),
            9 => Value::Array(self.array(1)?),
            10 => Value::U64(cursor.number("value")?),
            11 => Value::I64(cursor.number("value")?),
            12 => Value::F64(cursor.number("value")?),
            _ => return Err(unknown_type("value type", at, kind)),
        })
    }

    fn array(&mut self, depth: usize) -> Result<Array> {
        let at = self.cursor.position();
        let kind = self.cursor.number::<u32>("array element type")?;
        let smallest = smallest_element(kind).ok_or_else(|| unknown_type("array element type", at, kind))?;
        let count = self.cursor.count(smallest, "array length")?;
        let cursor = &mut self.cursor;
        let what = "array elements";
        Ok(match kind {
            0 => Array::U8(cursor.numbers(count, what)?),
            1 => Array::I8(cursor.numbers(count, what)?),
            2 => Array::U16(cursor.numbers(count, what)?),
            3 => Array::I16(cursor.numbers(count, what)?),
            4 => Array::U32(cursor.numbers(count, what)?),
            5 => Array::I32(cursor.numbers(count, what)?),
            6 => Array::F32(cursor.numbers(count, what)?),
            7 => Array::Bool(self.bools(count)?),
            8 => Array::String(self.strings(count)?),
            9 => Array::Array(self.arrays(count, depth, at)?),
            10 => Array::U64(cursor.numbers(count, what)?),
            11 => Array::I64(cursor.numbers(count, what)?),
            _ => Array::F64(cursor.numbers(count, what)?),
        })
    }

    fn bools(&mut self, count: usize) -> Result<Vec<bool>> {
        let at = self.cursor.position();
        let bytes = self.cursor.numbers::<u8>(count, "boolean")?;
        if let Some(index) = bytes.iter().position(|&byte| byte > 1) {
            return Err(Error::format(format!(
                "boolean at byte {}: found {}, expected 0 or 1",
                at + index as u64,
                bytes[index]
            )));
        }
        Ok(bytes.into_iter().map(|byte| byte == 1).collect())
    }

    fn strings(&mut self, count: usize) -> Result<Strings> {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        reserve(&mut ends, count)?;
        for index in 0..count {
            let length = self
                .cursor
                .count(1, "length")
                .within(|| format!("string {index} of {count}"))?;
            self.cursor
                .append(length, &mut bytes, "bytes")
                .within(|| format!("string {index} of {count}"))?;
            ends.push(bytes.len());
        }
        bytes.shrink_to_fit();
        Strings::from_parts(bytes, ends).ok_or_else(|| Error::format("the strings' ends are out of order"))
    }

    fn arrays(&mut self, count: usize, depth: usize, at: u64) -> Result<Vec<Array>> {
        if depth == DEEPEST_ARRAY {
            return Err(Error::format(format!(
                "array at byte {at}: found arrays nested deeper than {DEEPEST_ARRAY}"
            )));
        }
        self.inner_arrays += count;
        if self.inner_arrays > MOST_INNER_ARRAYS {
            return Err(Error::format(format!(
                "array at byte {at}: found {} arrays inside arrays, expected at most {MOST_INNER_ARRAYS} in a file",
                self.inner_arrays
            )));
        }
        let mut arrays = Vec::new();
        reserve(&mut arrays, count)?;
        for index in 0..count {
            arrays.push(
                self.array(depth + 1)
                    .within(|| format!("array {index} of {count}"))?,
            );
        }
        Ok(arrays)
    }

    /// A tensor's record; its offset stays relative to the data section.
    fn tensor(&mut self, index: u64, alignment: u64) -> Result<Tensor> {
        let name = self.name("name").within(|| format!("tensor {index}"))?;
        let place = format!("tensor {}", quoted(&name));
        self.described(name, alignment).within(|| place)
    }

    fn described(&mut self, name: String, alignment: u64) -> Result<Tensor> {
        let at = self.cursor.position();
        let dimensions = self.cursor.number::<u32>("dimension count")?;
        if dimensions == 0 || dimensions > MOST_DIMENSIONS {
            return Err(Error::format(format!(
                "dimension count at byte {at}: found {dimensions}, expected 1 to {MOST_DIMENSIONS}"
            )));
        }
        let at = self.cursor.position();
        let shape = self.cursor.numbers::<u64>(dimensions as usize, "shape")?;
        if shape.contains(&0) {
            return Err(Error::format(format!(
                "shape at byte {at}: found {shape:?}, expected no dimension of zero"
            )));
        }
        let type_at = self.cursor.position();
        let number = self.cursor.number::<u32>("element type")?;
        let dtype = element_type(number, type_at)?;
        let offset_at = self.cursor.position();
        let offset = self.cursor.number::<u64>("data offset")?;
        if !offset.is_multiple_of(alignment) {
            return Err(Error::format(format!(
                "data offset at byte {offset_at}: found {offset}, expected a multiple of the alignment {alignment}"
            )));
        }
        Tensor::new(name, dtype, shape, offset).within(|| format!("shape at byte {at}"))
    }
}

fn element_type(number: u32, at: u64) -> Result<DataType> {
    // GGUF owns the numbers below 256 only.
    if let Some(dtype) = DataType::from_number(number.into()).filter(|_| number < 256) {
        return Ok(dtype);
    }
    Err(Error::unsupported(match DataType::removed_name(number.into()) {
        Some(name) => format!(
            "element type at byte {at}: found {number} ({name}), which was removed from GGUF; quantize the model again"
        ),
        None => {
            format!("element type at byte {at}: found {number}, which is no type that this library knows")
        }
    }))
}

fn unknown_type(what: &str, at: u64, found: u32) -> Error {
    Error::format(format!("{what} at byte {at}: found {found}, expected 0 to 12"))
}
