//! Where the bytes of a model come from: a map of a file, plain reads of a file, or the caller's memory.

use crate::base::error::{Error, Result};
use crate::base::map::Map;
use std::fs::File;
use std::io;
use std::path::Path;

/// How the bytes of a file are reached. Both ways give the same model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LoadMode {
    /// Map the file into memory. Fastest; but if another program truncates the file meanwhile, the process is
    /// killed by `SIGBUS`. Use [`LoadMode::Read`] for files that may change.
    #[default]
    Map,
    /// Read the file with positioned reads; a file that shrinks meanwhile is an error, not a signal.
    Read,
}

/// The bytes of one file.
pub(super) struct Source<'a> {
    name: String,
    bytes: Bytes<'a>,
    size: u64,
}

enum Bytes<'a> {
    Memory(&'a [u8]),
    Map(Map),
    File(File),
}

impl Source<'static> {
    /// Opens a regular file. The caller adds the path to errors.
    pub fn open(path: &Path, mode: LoadMode) -> Result<Source<'static>> {
        let found = std::fs::metadata(path).map_err(|error| Error::io("cannot open the file", &error))?;
        regular(&found)?;
        let file = open_without_waiting(path).map_err(|error| Error::io("cannot open the file", &error))?;
        // The path may name something else by now; what counts is what was opened.
        let found = file
            .metadata()
            .map_err(|error| Error::io("cannot examine the file", &error))?;
        regular(&found)?;
        let size = found.len();
        if size == 0 {
            return Err(Error::format("the file is empty"));
        }
        let bytes = match mode {
            LoadMode::Map => {
                Bytes::Map(Map::open(&file).map_err(|error| Error::io("cannot map the file", &error))?)
            }
            LoadMode::Read => Bytes::File(file),
        };
        let size = match &bytes {
            Bytes::Map(map) => map.bytes().len() as u64,
            _ => size,
        };
        Ok(Source {
            name: path.display().to_string(),
            bytes,
            size,
        })
    }
}

impl<'a> Source<'a> {
    /// A model in the caller's memory.
    pub fn memory(bytes: &'a [u8]) -> Source<'a> {
        Source {
            name: "model in memory".to_owned(),
            bytes: Bytes::Memory(bytes),
            size: bytes.len() as u64,
        }
    }

    /// The path, or what stands for it in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes in the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// All bytes, where they are in memory already.
    pub fn whole(&self) -> Option<&[u8]> {
        match &self.bytes {
            Bytes::Memory(bytes) => Some(bytes),
            Bytes::Map(map) => Some(map.bytes()),
            Bytes::File(_) => None,
        }
    }

    /// `count` bytes from `start`: in place, or read into `scratch`, which grows as needed.
    pub fn read<'s>(&'s self, start: u64, count: usize, scratch: &'s mut Vec<u8>) -> Result<&'s [u8]> {
        let end = start.checked_add(count as u64).filter(|&end| end <= self.size);
        if end.is_none() {
            return Err(Error::format(format!(
                "{count} bytes at byte {start} reach beyond the end of the file at byte {}",
                self.size
            )));
        }
        match &self.bytes {
            Bytes::Memory(bytes) => Ok(&bytes[start as usize..][..count]),
            Bytes::Map(map) => Ok(&map.bytes()[start as usize..][..count]),
            Bytes::File(file) => {
                grow(scratch, count)?;
                let target = &mut scratch[..count];
                read_at(file, target, start).map_err(|error| {
                    Error::io(&format!("cannot read {count} bytes at byte {start}"), &error)
                })?;
                Ok(target)
            }
        }
    }

    /// See [`Map::release`]; nothing for sources that are not mapped.
    pub fn release(&self, start: u64, count: u64) {
        if let (Bytes::Map(map), Ok(start), Ok(count)) = (&self.bytes, start.try_into(), count.try_into()) {
            map.release(start, count);
        }
    }
}

/// Makes `buffer` at least `size` long; what it held stays.
pub(super) fn grow(buffer: &mut Vec<u8>, size: usize) -> Result<()> {
    if buffer.len() < size {
        reserve(buffer, size - buffer.len())?;
        buffer.resize(size, 0);
    }
    Ok(())
}

/// Room for exactly `more` elements, or an error.
pub(super) fn reserve<T>(list: &mut Vec<T>, more: usize) -> Result<()> {
    list.try_reserve_exact(more).map_err(|_| {
        Error::no_memory(format!(
            "cannot allocate {} bytes",
            more.saturating_mul(size_of::<T>())
        ))
    })
}

fn regular(found: &std::fs::Metadata) -> Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let kind = if found.is_dir() {
        "a directory"
    } else {
        "a pipe, socket or device"
    };
    Err(Error::invalid(format!("this is {kind}, expected a file")))
}

#[cfg(unix)]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // Opening a pipe waits for a writer unless told otherwise; regular files ignore the flag.
    File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

#[cfg(not(unix))]
fn open_without_waiting(path: &Path) -> io::Result<File> {
    File::open(path)
}

#[cfg(unix)]
fn read_at(file: &File, target: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, target, start)
}

#[cfg(windows)]
fn read_at(file: &File, mut target: &mut [u8], mut start: u64) -> io::Result<()> {
    while !target.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_read(file, target, start)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        target = &mut target[count..];
        start += count as u64;
    }
    Ok(())
}
