//! SentencePiece's precompiled normalization rules.
//!
//! The blob (`tokenizer.ggml.precompiled_charsmap`) is a 32-bit length, a double-array trie of that many
//! bytes, and NUL-terminated replacements. A key in the trie is a run of input bytes, its value the offset
//! of the replacement. See `normalizer.cc` in <https://github.com/google/sentencepiece> and, for the trie's
//! units, <https://github.com/s-yata/darts-clone>.

use crate::base::error::{Error, Result};

/// Longest key that is looked for; real ones are below 20 bytes. A damaged trie may be a cycle.
const LONGEST_KEY: usize = 256;
/// Longest replacement allowed; the longest in Unicode (of U+FDFA) is 33 bytes.
const LONGEST_REPLACEMENT: usize = 256;

/// Normalization rules.
pub(super) struct Charsmap {
    units: Vec<u32>,
    replacements: String,
}

impl Charsmap {
    /// Checks and takes apart the blob of metadata key `key`; an empty one has no rules.
    pub fn new(key: &str, blob: &[u8]) -> Result<Option<Charsmap>> {
        if blob.is_empty() {
            return Ok(None);
        }
        let broken = |what: &str| Error::format(format!("{key} ({} bytes): {what}", blob.len()));
        let (length, rest) = blob
            .split_first_chunk::<4>()
            .ok_or_else(|| broken("too short for the length of the trie"))?;
        let length = u32::from_le_bytes(*length) as usize;
        let (trie, replacements) = rest
            .split_at_checked(length)
            .ok_or_else(|| broken(&format!("the trie takes {length} bytes")))?;
        let (units, odd) = trie.as_chunks::<4>();
        if !odd.is_empty() || units.is_empty() {
            return Err(broken(&format!(
                "the trie takes {length} bytes, expected a multiple of 4 above 0"
            )));
        }
        let replacements = std::str::from_utf8(replacements)
            .map_err(|error| broken(&format!("the replacements are not UTF-8: {error}")))?;
        if replacements
            .split('\0')
            .any(|text| text.len() > LONGEST_REPLACEMENT)
        {
            return Err(broken(&format!(
                "a replacement is longer than {LONGEST_REPLACEMENT} bytes"
            )));
        }
        Ok(Some(Charsmap {
            units: units.iter().map(|unit| u32::from_le_bytes(*unit)).collect(),
            replacements: replacements.to_string(),
        }))
    }

    /// The replacement of the longest key that `text` begins with, and the length of the key.
    pub fn longest_match(&self, text: &str) -> Option<(&str, usize)> {
        let mut found = None;
        let mut position = offset(*self.units.first()?);
        for (index, &byte) in text.as_bytes().iter().take(LONGEST_KEY).enumerate() {
            position ^= usize::from(byte);
            let unit = match self.units.get(position) {
                Some(&unit) if byte != 0 && label(unit) == u32::from(byte) => unit,
                _ => break,
            };
            position ^= offset(unit);
            if has_leaf(unit) {
                let value = self.units.get(position).copied().map(value)?;
                found = Some((value, index + 1));
            }
        }
        let (value, length) = found?;
        // A key never ends inside a character, but a damaged trie may say so.
        let whole = text.is_char_boundary(length);
        let tail = self.replacements.get(value..).filter(|_| whole)?;
        Some((tail.split('\0').next().unwrap_or_default(), length))
    }
}

fn has_leaf(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn value(unit: u32) -> usize {
    (unit & 0x7FFF_FFFF) as usize
}

fn label(unit: u32) -> u32 {
    unit & 0x8000_00FF
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & 1 << 9) >> 6)
}
