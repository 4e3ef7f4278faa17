//! Text from tokens that arrive one at a time.

use super::Tokenizer;
use crate::base::error::Result;
use std::sync::Arc;

/// Turns tokens into text as they are generated. A character may be spread over several tokens;
/// its bytes are held back until it is whole, so that what comes out is always UTF-8.
pub struct StreamDecoder {
    tokenizer: Arc<dyn Tokenizer>,
    skip_special: bool,
    pending: Vec<u8>,
}

impl StreamDecoder {
    /// A decoder at the start of a stream. With `skip_special`, control tokens give no text.
    pub fn new(tokenizer: Arc<dyn Tokenizer>, skip_special: bool) -> StreamDecoder {
        StreamDecoder {
            tokenizer,
            skip_special,
            pending: Vec::new(),
        }
    }

    /// Adds a token; returns the text that became whole, which may be empty. Bytes that cannot
    /// become UTF-8 any more come out as U+FFFD.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let piece = self.tokenizer.piece(id)?;
        if !(self.skip_special && self.tokenizer.is_control(id)) {
            self.pending.extend_from_slice(&piece);
        }
        Ok(self.take_whole())
    }

    /// Ends the stream; returns what was held back, with U+FFFD for an incomplete character.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }

    fn take_whole(&mut self) -> String {
        let mut text = String::new();
        let mut used = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            used += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_end = used + invalid.len() == self.pending.len();
            if invalid.is_empty() || (at_end && is_incomplete(invalid)) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            used += invalid.len();
        }
        self.pending.drain(..used);
        text
    }
}

/// Whether more bytes could complete these bytes, which are the start of no whole character.
fn is_incomplete(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}
