//! One view of a model, whatever the format of its files: metadata, and tensors whose rows can be read.

use super::cursor::quoted;
use super::dtype::DataType;
use super::gguf;
use super::metadata::Metadata;
use super::safetensors;
pub use super::sidecar::Folder;
pub use super::source::LoadMode;
use super::source::{Source, reserve};
use crate::base::error::{Error, Result, Within};
use std::path::Path;

/// Five times the largest real models, low enough that tiny tensors cannot fill the memory.
pub(super) const MOST_TENSORS: usize = 1 << 18;

/// The name, type, shape and place of a stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Unique in the container.
    pub name: String,
    /// Type of the elements.
    pub dtype: DataType,
    /// Innermost dimension (columns) first, as in GGUF. Empty for a single value.
    pub shape: Vec<u64>,
    /// Which of the container's files holds the data; 0 unless the model is split over several.
    pub file: usize,
    /// First byte of the data, from the beginning of that file.
    pub offset: u64,
    /// Bytes of the data.
    pub bytes: u64,
}

impl Tensor {
    /// A tensor in file 0, its size computed from type and shape. An error when rows do not fill whole blocks
    /// or a size overflows.
    pub fn new(name: String, dtype: DataType, shape: Vec<u64>, offset: u64) -> Result<Tensor> {
        let too_large = || Error::format(format!("found {shape:?}, more values than can be addressed"));
        let columns = usize::try_from(shape.first().copied().unwrap_or(1)).map_err(|_| too_large())?;
        let rows = product(shape.get(1..).unwrap_or(&[])).ok_or_else(too_large)?;
        // Signed, because programs in other languages will count in such numbers.
        let elements = rows.checked_mul(columns as u64).filter(|&n| n <= i64::MAX as u64);
        elements.ok_or_else(too_large)?;
        let row_bytes = dtype.row_bytes(columns)?;
        let bytes = rows.checked_mul(row_bytes as u64).ok_or_else(too_large)?;
        if usize::try_from(bytes).is_err() || usize::try_from(rows).is_err() {
            return Err(too_large());
        }
        Ok(Tensor {
            name,
            dtype,
            shape,
            file: 0,
            offset,
            bytes,
        })
    }

    /// Values in a row: the innermost dimension.
    pub fn columns(&self) -> usize {
        self.shape.first().map_or(1, |&columns| columns as usize)
    }

    /// Rows: the product of all dimensions but the innermost.
    pub fn rows(&self) -> usize {
        product(self.shape.get(1..).unwrap_or(&[])).map_or(usize::MAX, |rows| rows as usize)
    }

    /// Values in all.
    pub fn elements(&self) -> u64 {
        product(&self.shape).unwrap_or(u64::MAX)
    }

    /// Bytes of a row; 0 for a tensor without rows.
    pub fn row_bytes(&self) -> usize {
        (self.bytes as usize).checked_div(self.rows()).unwrap_or(0)
    }
}

/// Zero wins over overflow, so that the order of the dimensions does not matter.
fn product(dimensions: &[u64]) -> Option<u64> {
    if dimensions.contains(&0) {
        return Some(0);
    }
    dimensions
        .iter()
        .try_fold(1_u64, |product, &size| product.checked_mul(size))
}

/// The format of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// GGUF, version 2 or 3.
    Gguf,
    /// Safetensors: one file, or several with an index.
    Safetensors,
}

impl Format {
    /// The format's name.
    pub fn name(self) -> &'static str {
        match self {
            Format::Gguf => "GGUF",
            Format::Safetensors => "safetensors",
        }
    }
}

/// What a reader of one format gives.
pub(super) struct Parsed {
    pub metadata: Metadata,
    pub tensors: Vec<Tensor>,
}

impl Parsed {
    /// Adds a tensor; refused when they are too many.
    pub fn push(&mut self, tensor: Tensor) -> Result<()> {
        if self.tensors.len() == MOST_TENSORS {
            return Err(Error::format(format!("expected at most {MOST_TENSORS} tensors")));
        }
        self.tensors
            .try_reserve(1)
            .map_err(|_| Error::no_memory("cannot allocate the list of tensors"))?;
        self.tensors.push(tensor);
        Ok(())
    }
}

/// An open model. All methods may be called from several threads at once.
pub struct Container<'a> {
    format: Format,
    files: Vec<Source<'a>>,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    /// Numbers of the tensors, sorted by name.
    by_name: Vec<u32>,
    /// Where configuration and tokenizer lie; none for a model in memory.
    folder: Option<Folder>,
}

impl Container<'static> {
    /// Opens a model and checks everything but the tensors' values. `path` is a GGUF or safetensors file (told
    /// from its first bytes, not from its name), the index of a safetensors model in several files
    /// (`*.safetensors.index.json`), or a folder with `model.safetensors` or `model.safetensors.index.json`.
    ///
    /// Errors name the file, the field and its offset: [`Status::NotFound`](crate::base::error::Status) for
    /// a missing file, `Io` for one that cannot be read, `InvalidArgument` for a pipe or device,
    /// `Format` for a broken file, `Unsupported` for a format, version or type that is not read.
    pub fn open(path: &Path, mode: LoadMode) -> Result<Container<'static>> {
        if !path.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            return match name.ends_with(".safetensors.index.json") {
                true => Container::open_shards(path, mode),
                false => Container::open_file(path, mode),
            };
        }
        let (single, index) = (path.join(safetensors::SINGLE), path.join(safetensors::INDEX));
        if single.exists() {
            Container::open_file(&single, mode)
        } else if index.exists() {
            Container::open_shards(&index, mode)
        } else {
            Err(Error::not_found(format!(
                "{}: the folder has neither {} nor {}; for GGUF, name the file",
                path.display(),
                safetensors::SINGLE,
                safetensors::INDEX
            )))
        }
    }

    fn open_file(path: &Path, mode: LoadMode) -> Result<Container<'static>> {
        let source = Source::open(path, mode).within(|| path.display().to_string())?;
        let mut container = Container::from_source(source)?;
        container.folder = path.parent().map(Folder::new);
        Ok(container)
    }

    fn open_shards(index: &Path, mode: LoadMode) -> Result<Container<'static>> {
        little_endian_host()?;
        let (files, parsed) = safetensors::read_shards(index, mode)?;
        let opened = Container::assemble(Format::Safetensors, files, parsed);
        let mut container = opened.within(|| index.display().to_string())?;
        container.folder = index.parent().map(Folder::new);
        Ok(container)
    }
}

impl<'a> Container<'a> {
    /// A model file that is in memory already, at any alignment. Nothing is copied.
    pub fn from_memory(bytes: &'a [u8]) -> Result<Container<'a>> {
        Container::from_source(Source::memory(bytes))
    }

    fn from_source(source: Source<'a>) -> Result<Container<'a>> {
        let name = source.name().to_owned();
        let opened = || {
            little_endian_host()?;
            let format = detect(&source)?;
            let parsed = match format {
                Format::Gguf => gguf::read(&source)?,
                Format::Safetensors => safetensors::read(&source)?,
            };
            check_extents(&parsed.tensors, source.size())?;
            Container::assemble(format, vec![source], parsed)
        };
        opened().within(|| name)
    }

    /// Indexes the tensors, which must lie within their files.
    fn assemble(format: Format, files: Vec<Source<'a>>, parsed: Parsed) -> Result<Container<'a>> {
        let Parsed { metadata, tensors } = parsed;
        let by_name = sorted_by_name(&tensors)?;
        Ok(Container {
            format,
            files,
            metadata,
            tensors,
            by_name,
            folder: None,
        })
    }

    /// The file's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The key-value metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, in the file's order.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The tensor called `name`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let found = self
            .by_name
            .binary_search_by(|&index| self.tensors[index as usize].name.as_str().cmp(name))
            .ok()?;
        Some(&self.tensors[self.by_name[found] as usize])
    }

    /// Bytes of all files of the model.
    pub fn file_size(&self) -> u64 {
        self.files.iter().map(Source::size).sum()
    }

    /// Closes the files and keeps what was read from them.
    pub fn into_parts(self) -> (Metadata, Vec<Tensor>, Option<Folder>) {
        (self.metadata, self.tensors, self.folder)
    }

    /// The stored bytes of `count` rows of `tensor` from row `first_row`, encoded as the tensor's type says.
    ///
    /// Where the file is in memory the result lies there, at any alignment, and `scratch` is not touched;
    /// otherwise the rows are read into `scratch`, which grows as needed and may be used again.
    pub fn rows<'s>(
        &'s self,
        tensor: &Tensor,
        first_row: usize,
        count: usize,
        scratch: &'s mut Vec<u8>,
    ) -> Result<&'s [u8]> {
        let place = || format!("tensor {}", quoted(&tensor.name));
        let end = first_row.checked_add(count).filter(|&end| end <= tensor.rows());
        if end.is_none() {
            return Err(Error::invalid(format!(
                "asked for {count} rows from row {first_row} of {}",
                tensor.rows()
            ))
            .within(place()));
        }
        let row_bytes = tensor.row_bytes();
        // Both products stay within `tensor.bytes`, because the rows do.
        let start = tensor.offset.saturating_add(first_row as u64 * row_bytes as u64);
        let file = self.file(tensor)?;
        file.read(start, count * row_bytes, scratch)
            .within(place)
            .within(|| file.name())
    }

    /// The text of a file beside the weights, such as `config.json`, `tokenizer.json` or `1_Pooling/config.json`;
    /// `None` when there is none, and for a model in memory. It is read from disk at each call.
    ///
    /// An error for a name that leads out of the model's folder, and for a file above 128 MiB or not in UTF-8.
    pub fn sidecar(&self, name: &str) -> Result<Option<String>> {
        self.folder.as_ref().map_or(Ok(None), |folder| folder.text(name))
    }

    /// Like [`Container::sidecar`], but absence is an error that names the file.
    pub fn required_sidecar(&self, name: &str) -> Result<String> {
        self.sidecar(name)?.ok_or_else(|| self.missing_sidecar(name))
    }

    /// A file of JSON beside the weights as a tree, such as `config.json`; `None` when there is none. Files above
    /// 4 MiB are refused: use [`Container::sidecar`] for a tokenizer.
    pub fn sidecar_json(&self, name: &str) -> Result<Option<serde_json::Value>> {
        self.folder.as_ref().map_or(Ok(None), |folder| folder.json(name))
    }

    /// Like [`Container::sidecar_json`], but absence is an error that names the file.
    pub fn required_sidecar_json(&self, name: &str) -> Result<serde_json::Value> {
        self.sidecar_json(name)?.ok_or_else(|| self.missing_sidecar(name))
    }

    /// Opens a further model file in the model's folder, such as `2_Dense/model.safetensors`; its absence is an error
    /// that names it.
    pub fn open_beside(&self, name: &str) -> Result<Container<'static>> {
        let folder = self.folder.as_ref().ok_or_else(|| self.missing_sidecar(name))?;
        Container::open_file(&folder.below(name)?, LoadMode::Read)
    }

    fn missing_sidecar(&self, name: &str) -> Error {
        match &self.folder {
            Some(folder) => Error::not_found(format!(
                "{}: the file is missing, but the model needs it",
                folder.path().join(name).display()
            )),
            None => Error::not_found(format!(
                "the model needs {name}, which a model in memory does not have"
            )),
        }
    }

    /// Returns the memory of a mapped tensor to the system: the pages that hold nothing but this tensor. It can
    /// be read again, from the file. Does nothing for files that are not mapped.
    pub fn release(&self, tensor: &Tensor) {
        if let Ok(file) = self.file(tensor) {
            file.release(tensor.offset, tensor.bytes);
        }
    }

    fn file(&self, tensor: &Tensor) -> Result<&Source<'a>> {
        self.files
            .get(tensor.file)
            .ok_or_else(|| Error::invalid(format!("tensor {} is of another model", quoted(&tensor.name))))
    }
}

fn little_endian_host() -> Result<()> {
    if cfg!(target_endian = "little") {
        return Ok(());
    }
    Err(Error::unsupported(
        "this computer is big-endian; model files are read on little-endian ones only",
    ))
}

/// Tells the format from the first bytes.
fn detect(source: &Source) -> Result<Format> {
    let mut scratch = Vec::new();
    let count = source.size().min(16) as usize;
    let start = source.read(0, count, &mut scratch)?;
    if start.starts_with(gguf::MAGIC) {
        return Ok(Format::Gguf);
    }
    if safetensors::detect(start) {
        return Ok(Format::Safetensors);
    }
    let known: &[(&[u8], &str)] = &[
        (
            b"version https:",
            "a Git LFS pointer: the model itself was not downloaded",
        ),
        (
            b"<!",
            "an HTML page: the download gave a web page instead of the model",
        ),
        (
            b"<html",
            "an HTML page: the download gave a web page instead of the model",
        ),
        (b"PK\x03\x04", "a ZIP archive (a PyTorch checkpoint is one)"),
        (b"\x80\x02", "a Python pickle"),
        (b"\x1f\x8b", "a gzip archive: unpack it first"),
        (
            b"FUGG",
            "a big-endian GGUF file; only little-endian ones are read",
        ),
        (b"lmgg", "a GGML file from before GGUF: convert the model again"),
        (b"fmgg", "a GGMF file from before GGUF: convert the model again"),
        (b"tjgg", "a GGJT file from before GGUF: convert the model again"),
    ];
    let found = match known.iter().find(|(magic, _)| start.starts_with(magic)) {
        Some((_, name)) => (*name).to_owned(),
        None => format!(
            "the bytes {start:02x?} ({})",
            quoted(&String::from_utf8_lossy(start))
        ),
    };
    Err(Error::format(format!(
        "magic at byte 0: this is not a model file; found {found}, expected GGUF or safetensors"
    )))
}

fn sorted_by_name(tensors: &[Tensor]) -> Result<Vec<u32>> {
    let mut by_name = Vec::new();
    reserve(&mut by_name, tensors.len())?;
    by_name.extend((0..tensors.len()).map(|index| index as u32));
    by_name.sort_unstable_by(|&a, &b| tensors[a as usize].name.cmp(&tensors[b as usize].name));
    for pair in by_name.windows(2) {
        let (a, b) = (&tensors[pair[0] as usize], &tensors[pair[1] as usize]);
        if a.name == b.name {
            return Err(Error::format(format!(
                "tensor {}: the name appears twice, with data at byte {} and at byte {}",
                quoted(&a.name),
                a.offset.min(b.offset),
                a.offset.max(b.offset)
            )));
        }
    }
    Ok(by_name)
}

/// Every tensor lies within its file of `size` bytes, and no two share a byte.
pub(super) fn check_extents(tensors: &[Tensor], size: u64) -> Result<()> {
    for tensor in tensors {
        let end = tensor.offset.checked_add(tensor.bytes);
        if end.is_none_or(|end| end > size) {
            return Err(Error::format(format!(
                "tensor {}: its data of {} bytes at byte {} reaches beyond the end of the file at byte {size}",
                quoted(&tensor.name),
                tensor.bytes,
                tensor.offset
            )));
        }
    }
    let mut by_place: Vec<u32> = Vec::new();
    reserve(&mut by_place, tensors.len())?;
    by_place.extend((0..tensors.len()).map(|index| index as u32));
    by_place.retain(|&index| tensors[index as usize].bytes > 0);
    by_place.sort_unstable_by_key(|&index| tensors[index as usize].offset);
    for pair in by_place.windows(2) {
        let (a, b) = (&tensors[pair[0] as usize], &tensors[pair[1] as usize]);
        if a.offset + a.bytes > b.offset {
            return Err(Error::format(format!(
                "tensor {}: its data at bytes {}..{} overlaps tensor {} at bytes {}..{}",
                quoted(&b.name),
                b.offset,
                b.offset + b.bytes,
                quoted(&a.name),
                a.offset,
                a.offset + a.bytes
            )));
        }
    }
    Ok(())
}
