//! A list of byte strings in one block of memory.

use std::ops::Index;

/// Byte strings one after another, such as the tokens of a vocabulary.
///
/// A vocabulary has up to 262,144 entries of a few bytes: kept apart, each would cost an allocation several
/// times its size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`; it begins where the one before ends.
    ends: Vec<usize>,
}

impl Strings {
    /// Takes over `bytes`, cut at `ends`; `None` when the ends go backwards or beyond the bytes.
    pub(super) fn from_parts(bytes: Vec<u8>, ends: Vec<usize>) -> Option<Strings> {
        let sorted = ends.is_sorted() && ends.last().copied().unwrap_or(0) == bytes.len();
        sorted.then_some(Strings { bytes, ends })
    }

    /// How many strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all strings together.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// String number `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1],
        };
        self.bytes.get(start..end)
    }

    /// All strings, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.ends.len()).map(|index| &self[index])
    }

    /// Adds a string at the end.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }
}

impl Index<usize> for Strings {
    type Output = [u8];

    /// Panics when `index` is not below [`Strings::len`], like a slice.
    fn index(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Strings {
        let mut list = Strings::default();
        for string in strings {
            list.push(string.as_ref());
        }
        list
    }
}
