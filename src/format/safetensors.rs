//! Safetensors (<https://github.com/huggingface/safetensors#format>): one file, or several with an index.
//!
//! A file is the length of a header (u64), the header as JSON, and the tensors' data without gaps. Shapes are
//! written outermost dimension first and turned round here.

use super::container::{MOST_TENSORS, Parsed, Tensor, check_extents};
use super::cursor::{Cursor, quoted};
use super::dtype::DataType;
use super::json::Json;
use super::metadata::{Metadata, Value};
use super::source::{LoadMode, Source};
use crate::base::error::{Error, Result, Status, Within};
use std::collections::{HashMap, HashSet};
use std::path::{Component, Path};

/// The name of the file in a folder that holds the whole model.
pub(super) const SINGLE: &str = "model.safetensors";
/// The name of the file in a folder that tells which file holds which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The limit of the reference reader.
const LONGEST_HEADER: u64 = 100_000_000;
/// Indexes take about 100 bytes per tensor.
const LONGEST_INDEX: u64 = 100_000_000;
/// The largest models have fewer than 200; each is a map or an open file.
const MOST_SHARDS: usize = 1024;
/// Convolutions in space and time have 5.
const MOST_DIMENSIONS: usize = 8;

/// The types by the format's names. Sub-byte types are told apart below.
const TYPES: &[DataType] = &[
    DataType::BOOL,
    DataType::U8,
    DataType::I8,
    DataType::F8_E5M2,
    DataType::F8_E4M3,
    DataType::F8_E8M0,
    DataType::F8_E4M3FNUZ,
    DataType::F8_E5M2FNUZ,
    DataType::I16,
    DataType::U16,
    DataType::F16,
    DataType::BF16,
    DataType::I32,
    DataType::U32,
    DataType::F32,
    DataType::C64,
    DataType::F64,
    DataType::I64,
    DataType::U64,
];
/// Types of the format whose values do not fill bytes.
const SUB_BYTE_TYPES: &[&str] = &["F4", "F6_E2M3", "F6_E3M2"];

/// Whether the first bytes look like a header's length and the header.
pub(super) fn detect(start: &[u8]) -> bool {
    // Lengths of 4 GiB and more are absurd; below that, four of the eight bytes are zero.
    start.len() > 8 && start[4..8] == [0; 4] && start[8] == b'{'
}

/// Reads the header of one file.
pub(super) fn read(source: &Source) -> Result<Parsed> {
    let mut cursor = Cursor::new(source);
    let length = cursor.number::<u64>("header length")?;
    if length > LONGEST_HEADER {
        return Err(Error::format(format!(
            "header length at byte 0: found {length}, expected at most {LONGEST_HEADER}"
        )));
    }
    if length > cursor.remaining() {
        return Err(Error::format(format!(
            "header length at byte 0: found {length}, but the file ends after {} more bytes",
            cursor.remaining()
        )));
    }
    let header_start = cursor.position();
    let header = cursor.take(length as usize, "header")?;
    let mut parsed = Parsed {
        metadata: Metadata::default(),
        tensors: Vec::new(),
    };
    let data = header_start + length;
    let mut json = Json::new(header, header_start);
    json.object(|json, name, at| {
        if name == "__metadata__" {
            return metadata(json, &mut parsed.metadata).within(|| "__metadata__");
        }
        let tensor = tensor(json, &name, data).within(|| format!("tensor {} at byte {at}", quoted(&name)))?;
        parsed.push(tensor)
    })?;
    json.end()?;
    without_gaps(&parsed.tensors, data, source.size())?;
    Ok(parsed)
}

fn metadata(json: &mut Json, metadata: &mut Metadata) -> Result<()> {
    if json.null() {
        return Ok(());
    }
    json.object(|json, key, at| {
        let value = Value::String(json.string()?);
        let place = quoted(&key);
        metadata
            .add(key, value)
            .within(|| format!("key {place} at byte {at}"))
    })
}

/// One entry of the header: `{"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}`.
fn tensor(json: &mut Json, name: &str, data: u64) -> Result<Tensor> {
    let mut dtype = None;
    let mut shape: Option<Vec<u64>> = None;
    let mut offsets: Option<Vec<u64>> = None;
    let numbers = |json: &mut Json, most: usize| -> Result<Vec<u64>> {
        let mut list = Vec::new();
        let at = json.offset();
        json.array(|json| {
            if list.len() == most {
                return Err(Error::format(format!(
                    "at byte {at}: expected at most {most} numbers"
                )));
            }
            list.push(json.integer()?);
            Ok(())
        })?;
        Ok(list)
    };
    json.object(|json, field, at| {
        let twice = match field.as_str() {
            "dtype" => {
                let at = json.offset();
                dtype.replace(element_type(&json.string()?, at)?).is_some()
            }
            "shape" => shape
                .replace(numbers(json, MOST_DIMENSIONS).within(|| "shape")?)
                .is_some(),
            "data_offsets" => offsets
                .replace(numbers(json, 2).within(|| "data_offsets")?)
                .is_some(),
            _ => {
                json.skip()?;
                false
            }
        };
        if twice {
            return Err(Error::format(format!(
                "field {} at byte {at}: it appears twice",
                quoted(&field)
            )));
        }
        Ok(())
    })?;
    let missing = |field: &str| Error::format(format!("the field \"{field}\" is missing"));
    let dtype = dtype.ok_or_else(|| missing("dtype"))?;
    let mut shape = shape.ok_or_else(|| missing("shape"))?;
    let offsets = offsets.ok_or_else(|| missing("data_offsets"))?;
    let &[begin, end] = offsets.as_slice() else {
        return Err(Error::format(format!(
            "data_offsets: found {offsets:?}, expected two numbers"
        )));
    };
    if begin > end {
        return Err(Error::format(format!(
            "data_offsets: found {offsets:?}, which go backwards"
        )));
    }
    shape.reverse();
    let offset = data
        .checked_add(begin)
        .ok_or_else(|| Error::format(format!("data_offsets: found {offsets:?}, beyond any file")))?;
    let tensor =
        Tensor::new(name.to_owned(), dtype, shape, offset).within(|| "shape, innermost dimension first")?;
    if tensor.bytes != end - begin {
        return Err(Error::format(format!(
            "data_offsets: found {offsets:?}, {} bytes, but dtype and shape need {}",
            end - begin,
            tensor.bytes
        )));
    }
    Ok(tensor)
}

fn element_type(name: &str, at: u64) -> Result<DataType> {
    if let Some(dtype) = TYPES.iter().find(|dtype| dtype.name() == name) {
        return Ok(*dtype);
    }
    let found = format!("dtype at byte {at}: found {}", quoted(name));
    if SUB_BYTE_TYPES.contains(&name) {
        return Err(Error::unsupported(format!(
            "{found}, whose values do not fill bytes; it is not read"
        )));
    }
    Err(Error::unsupported(format!(
        "{found}, which is no type that this library knows"
    )))
}

/// The format forbids bytes that belong to no tensor, so that nothing hides in a file. (Overlaps are checked
/// for all formats together.)
fn without_gaps(tensors: &[Tensor], data: u64, size: u64) -> Result<()> {
    let mut extents: Vec<(u64, u64)> = tensors
        .iter()
        .map(|t| (t.offset, t.offset.saturating_add(t.bytes)))
        .collect();
    extents.sort_unstable();
    let mut end = data;
    for (begin, next) in extents {
        if begin > end {
            return Err(Error::format(format!(
                "the bytes {end}..{begin} belong to no tensor"
            )));
        }
        end = end.max(next);
    }
    if end < size {
        return Err(Error::format(format!(
            "the data ends at byte {end}, but the file at byte {size}: the bytes between belong to no tensor"
        )));
    }
    Ok(())
}

/// Opens the files that the index `path` names and keeps the tensors that it assigns to each.
pub(super) fn read_shards(path: &Path, mode: LoadMode) -> Result<(Vec<Source<'static>>, Parsed)> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let text =
        super::sidecar::text(path, LONGEST_INDEX)?.ok_or_else(|| Error::not_found("the index is missing"))?;
    let (names, owner) = weight_map(&text).within(|| path.display().to_string())?;
    drop(text);
    let mut files = Vec::new();
    let mut all = Parsed {
        metadata: Metadata::default(),
        tensors: Vec::new(),
    };
    for (number, name) in names.iter().enumerate() {
        let shard = folder.join(name);
        let place = || shard.display().to_string();
        let source = Source::open(&shard, mode).map_err(|error| match error.status() {
            Status::NotFound => Error::not_found(format!("the file is missing, but {INDEX} names it")),
            _ => error,
        });
        let source = source.within(place)?;
        let parsed = read(&source).within(place)?;
        check_extents(&parsed.tensors, source.size()).within(place)?;
        for (key, value) in parsed.metadata.iter() {
            // Every shard repeats the same few strings; the first one speaks.
            if all.metadata.get(key).is_none() {
                all.metadata.add(key.to_owned(), value.clone()).within(place)?;
            }
        }
        for mut tensor in parsed.tensors {
            if owner.get(&tensor.name) == Some(&number) {
                tensor.file = number;
                all.push(tensor).within(place)?;
            }
        }
        files.push(source);
    }
    all_there(&owner, &all.tensors, &names).within(|| path.display().to_string())?;
    Ok((files, all))
}

/// The files in the order of their first mention, and for each tensor the number of its file.
fn weight_map(text: &str) -> Result<(Vec<String>, HashMap<String, usize>)> {
    let mut names: Vec<String> = Vec::new();
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut owner = HashMap::new();
    let mut json = Json::new(text.as_bytes(), 0);
    let mut found = false;
    json.object(|json, key, _| {
        if key != "weight_map" {
            return json.skip();
        }
        found = true;
        json.object(|json, tensor, at| {
            let file = json.string()?;
            let number = match numbers.get(&file) {
                Some(&number) => number,
                None => {
                    check_shard_name(&file, at, names.len())?;
                    names.push(file.clone());
                    numbers.insert(file, names.len() - 1);
                    names.len() - 1
                }
            };
            let place = quoted(&tensor);
            if owner.len() == MOST_TENSORS {
                return Err(Error::format(format!(
                    "at byte {at}: expected at most {MOST_TENSORS} tensors"
                )));
            }
            match owner.insert(tensor, number) {
                None => Ok(()),
                Some(_) => Err(Error::format(format!(
                    "tensor {place} at byte {at}: the name appears twice"
                ))),
            }
        })
    })?;
    json.end()?;
    if !found {
        return Err(Error::format("the object \"weight_map\" is missing"));
    }
    Ok((names, owner))
}

/// A shard lies beside the index: a name with folders in it could lead anywhere.
fn check_shard_name(name: &str, at: u64, before: usize) -> Result<()> {
    let mut parts = Path::new(name).components();
    let plain =
        matches!(parts.next(), Some(Component::Normal(part)) if part == name) && parts.next().is_none();
    if !plain {
        return Err(Error::format(format!(
            "weight_map at byte {at}: found the file {}, expected a name without folders",
            quoted(name)
        )));
    }
    if before == MOST_SHARDS {
        return Err(Error::format(format!(
            "weight_map at byte {at}: expected at most {MOST_SHARDS} files"
        )));
    }
    Ok(())
}

/// Every tensor of the index is in the file that the index names.
fn all_there(owner: &HashMap<String, usize>, tensors: &[Tensor], names: &[String]) -> Result<()> {
    let held: HashSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    match owner
        .iter()
        .filter(|(name, _)| !held.contains(name.as_str()))
        .min()
    {
        None => Ok(()),
        Some((tensor, &file)) => Err(Error::format(format!(
            "tensor {}: the index says that {} holds it, but it does not",
            quoted(tensor),
            quoted(&names[file])
        ))),
    }
}
