//! The tokens of a vocabulary in one buffer, with a hash index from text to id.
//!
//! A vocabulary of 262,144 tokens takes about 6 MB this way, a third of what a map of owned
//! strings takes; the tokenizer lives as long as the model, so the difference stays.

use crate::base::error::{Error, Result};
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// A slot of the index that holds no token.
const EMPTY: u32 = u32::MAX;

/// Tokens by id, and ids by token.
pub(super) struct TokenTable {
    text: String,
    /// Token `i` is `text[ends[i - 1]..ends[i]]`.
    ends: Vec<u32>,
    /// Open addressing with linear probing; a power of two, at most half full.
    slots: Vec<u32>,
    /// Seeded per process, so that a file cannot choose tokens that collide.
    hasher: RandomState,
    longest: usize,
}

impl TokenTable {
    /// Takes the tokens of metadata key `key`, in the order of their ids. Empty tokens keep
    /// their id but are never found. A token that is not UTF-8 or stands twice is an error.
    pub fn new<'a>(key: &str, tokens: impl ExactSizeIterator<Item = &'a [u8]>) -> Result<TokenTable> {
        let count = tokens.len();
        if count == 0 || count >= EMPTY as usize / 4 {
            return Err(Error::format(format!(
                "{key} holds {count} tokens, expected 1 to {}",
                EMPTY / 4
            )));
        }
        let mut table = TokenTable {
            text: String::new(),
            ends: Vec::with_capacity(count),
            slots: vec![EMPTY; (count * 2).next_power_of_two()],
            hasher: RandomState::new(),
            longest: 0,
        };
        for (id, token) in tokens.enumerate() {
            let token = std::str::from_utf8(token)
                .map_err(|error| Error::format(format!("{key}[{id}] is not UTF-8: {error}")))?;
            table.push(key, token)?;
        }
        table.text.shrink_to_fit();
        Ok(table)
    }

    fn push(&mut self, key: &str, token: &str) -> Result<()> {
        let id = self.ends.len() as u32;
        if !token.is_empty() {
            let (slot, found) = self.probe(token.as_bytes());
            if let Some(first) = found {
                return Err(Error::format(format!(
                    "{key}[{id}] repeats {key}[{first}], expected each token once: {token:?}"
                )));
            }
            self.slots[slot] = id;
        }
        self.text.push_str(token);
        let end = u32::try_from(self.text.len())
            .map_err(|_| Error::format(format!("{key} holds more than {} bytes of text", u32::MAX)))?;
        self.ends.push(end);
        self.longest = self.longest.max(token.len());
        Ok(())
    }

    /// The slot where `token` stands or would stand, and its id when it stands there.
    fn probe(&self, token: &[u8]) -> (usize, Option<u32>) {
        let mask = self.slots.len() - 1;
        let mut slot = self.hasher.hash_one(token) as usize & mask;
        loop {
            match self.slots[slot] {
                EMPTY => return (slot, None),
                id if self.text(id).is_some_and(|text| text.as_bytes() == token) => {
                    return (slot, Some(id));
                }
                _ => slot = (slot + 1) & mask,
            }
        }
    }

    /// The id of `token`.
    pub fn id(&self, token: &[u8]) -> Option<u32> {
        if token.len() > self.longest || token.is_empty() {
            return None;
        }
        self.probe(token).1
    }

    /// The token of `id`.
    pub fn text(&self, id: u32) -> Option<&str> {
        let id = id as usize;
        let end = *self.ends.get(id)? as usize;
        let start = id.checked_sub(1).map_or(0, |i| self.ends[i] as usize);
        self.text.get(start..end)
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// The length of the longest token in bytes.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// All tokens, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &str)> + Clone {
        (0..self.ends.len() as u32).map(|id| (id, self.text(id).unwrap_or_default()))
    }
}
