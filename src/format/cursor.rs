//! A reader of little-endian fields that checks every step and knows its offset.

use super::source::{Source, grow, reserve};
use crate::base::error::{Error, Result};

/// How much a cursor reads ahead from a file that is not mapped.
const WINDOW: usize = 256 << 10;

/// Reads fields one after another. Errors say which field, at which byte, and what was there.
pub(super) struct Cursor<'s> {
    source: &'s Source<'s>,
    /// The whole file, where it is in memory.
    whole: Option<&'s [u8]>,
    position: u64,
    window: Vec<u8>,
    window_start: u64,
    window_count: usize,
}

/// A number with a fixed little-endian form.
pub(super) trait Number: Sized {
    const SIZE: usize;
    /// From exactly `SIZE` bytes.
    fn from_bytes(bytes: &[u8]) -> Self;
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {
        $(impl Number for $type {
            const SIZE: usize = size_of::<$type>();
            fn from_bytes(bytes: &[u8]) -> $type {
                let mut exact = [0; size_of::<$type>()];
                exact.copy_from_slice(bytes);
                <$type>::from_le_bytes(exact)
            }
        })*
    };
}
numbers!(u8: u8, i8: i8, u16: u16, i16: i16, u32: u32, i32: i32, u64: u64, i64: i64, f32: f32, f64: f64);

impl<'s> Cursor<'s> {
    /// Starts at the beginning of `source`.
    pub fn new(source: &'s Source<'s>) -> Cursor<'s> {
        Cursor {
            source,
            whole: source.whole(),
            position: 0,
            window: Vec::new(),
            window_start: 0,
            window_count: 0,
        }
    }

    /// The offset of the next field.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes from here to the end of the file.
    pub fn remaining(&self) -> u64 {
        self.source.size() - self.position
    }

    /// The next `count` bytes, which are `what`.
    pub fn take(&mut self, count: usize, what: &str) -> Result<&[u8]> {
        if count as u64 > self.remaining() {
            return Err(self.ends_early(count as u64, what));
        }
        let start = self.position;
        self.position += count as u64;
        match self.whole {
            Some(whole) => Ok(&whole[start as usize..][..count]),
            None => self.buffered(start, count),
        }
    }

    /// The next number, which is `what`.
    pub fn number<T: Number>(&mut self, what: &str) -> Result<T> {
        self.take(T::SIZE, what).map(T::from_bytes)
    }

    /// The next `count` numbers. `count` must come from [`Cursor::count`], which bounds it by the file.
    pub fn numbers<T: Number>(&mut self, count: usize, what: &str) -> Result<Vec<T>> {
        let mut list = Vec::new();
        reserve(&mut list, count)?;
        while list.len() < count {
            let step = (count - list.len()).min(WINDOW / T::SIZE);
            let bytes = self.take(step * T::SIZE, what)?;
            list.extend(bytes.chunks_exact(T::SIZE).map(T::from_bytes));
        }
        Ok(list)
    }

    /// Adds the next `count` bytes to `target`.
    pub fn append(&mut self, count: usize, target: &mut Vec<u8>, what: &str) -> Result<()> {
        if count as u64 > self.remaining() {
            return Err(self.ends_early(count as u64, what));
        }
        target
            .try_reserve(count)
            .map_err(|_| Error::no_memory(format!("{what}: cannot allocate {count} bytes")))?;
        let mut left = count;
        while left > 0 {
            let step = left.min(WINDOW);
            target.extend_from_slice(self.take(step, what)?);
            left -= step;
        }
        Ok(())
    }

    /// A count of elements, each of at least `smallest` bytes: refused when the rest of the file cannot hold
    /// them, before anything is allocated for them.
    pub fn count(&mut self, smallest: usize, what: &str) -> Result<usize> {
        let at = self.position;
        let count = self.number::<u64>(what)?;
        let most = self.remaining() / smallest.max(1) as u64;
        match usize::try_from(count) {
            Ok(fits) if count <= most => Ok(fits),
            _ => Err(Error::format(format!(
                "{what} at byte {at}: found {count}, but the {} bytes that follow hold at most {most}",
                self.remaining()
            ))),
        }
    }

    /// A string of at most `longest` bytes: its length as u64, then its bytes.
    pub fn string(&mut self, longest: usize, what: &str) -> Result<Vec<u8>> {
        let at = self.position;
        let length = self.count(1, what)?;
        if length > longest {
            return Err(Error::format(format!(
                "{what} at byte {at}: found {length} bytes, expected at most {longest}"
            )));
        }
        let mut bytes = Vec::new();
        self.append(length, &mut bytes, what)?;
        Ok(bytes)
    }

    fn buffered(&mut self, start: u64, count: usize) -> Result<&[u8]> {
        let end = start + count as u64;
        if start < self.window_start || end > self.window_start + self.window_count as u64 {
            // `take` has checked that `count` bytes are there, so the sum below does not leave the file.
            let ahead = (self.source.size() - start).min(WINDOW.max(count) as u64) as usize;
            self.window_count = 0;
            grow(&mut self.window, ahead)?;
            self.source.read(start, ahead, &mut self.window)?;
            self.window_start = start;
            self.window_count = ahead;
        }
        Ok(&self.window[(start - self.window_start) as usize..][..count])
    }

    fn ends_early(&self, count: u64, what: &str) -> Error {
        Error::format(format!(
            "{what} at byte {}: needs {count} bytes, but the file ends after {} (at byte {})",
            self.position,
            self.remaining(),
            self.source.size()
        ))
    }
}

/// A name from a file as errors show it: quoted, control characters escaped, cut when very long.
pub(super) fn quoted(name: &str) -> String {
    const LONGEST: usize = 120;
    match name.char_indices().nth(LONGEST) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}...", &name[..end]),
    }
}
