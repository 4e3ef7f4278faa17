//! Byte pair encoding of the gpt2 family (`tokenizer.ggml.model` = `gpt2`).
//!
//! Text is cut into words by the family's pattern; a word starts as its bytes, and neighbouring
//! symbols merge by the rank of their pair in `tokenizer.ggml.merges`. The tokens in the file are
//! written with a printable character for every byte (Radford et al., "Language Models are
//! Unsupervised Multitask Learners", `encoder.py`).

use super::merge::Merger;
use super::split::{self, PreTokenizer, Splitter};
use super::token_table::TokenTable;
use super::vocabulary::{self, TOKENS, TokenType, Vocabulary};
use super::{EncodeOptions, Model, Special};
use crate::base::error::{Error, Result};
use crate::format::metadata::Metadata;
use std::borrow::Cow;
use std::collections::HashMap;
use unicode_normalization_alignments::UnicodeNormalization;

const PRE: &str = "tokenizer.ggml.pre";
const MERGES: &str = "tokenizer.ggml.merges";

pub(super) struct BytePair {
    vocabulary: Vocabulary,
    family: &'static PreTokenizer,
    splitter: Splitter,
    /// The token of each byte. A byte without one is dropped, as the reference does.
    byte_ids: [Option<u32>; 256],
    /// Pairs of ids, with the rank and the id of what they merge to.
    merges: HashMap<(u32, u32), (u32, u32)>,
    add_space_prefix: bool,
}

impl BytePair {
    pub fn from_metadata(metadata: &Metadata) -> Result<BytePair> {
        let pre = metadata.str(PRE)?.ok_or_else(|| {
            Error::format(format!(
                "required metadata key {PRE} is missing: without the name of the splitting \
                 pattern the token ids would be a guess; known names are {}",
                split::known_names()
            ))
        })?;
        let family = split::known(PRE, pre)?;
        let mut vocabulary = Vocabulary::from_metadata(metadata)?;
        let bos = (Special::Bos, family.add_bos);
        vocabulary.surround(metadata, bos, (Special::Eos, false))?;
        vocabulary.cut_at(
            &[TokenType::UserDefined],
            &[TokenType::Control, TokenType::Unknown],
        )?;
        let byte_ids = std::array::from_fn(|byte| {
            let mut buffer = [0; 4];
            let character = byte_character(byte as u8).encode_utf8(&mut buffer);
            vocabulary.table().id(character.as_bytes())
        });
        let mut tokenizer = BytePair {
            merges: read_merges(metadata, vocabulary.table())?,
            splitter: Splitter::new(family)?,
            add_space_prefix: metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(false),
            vocabulary,
            family,
            byte_ids,
        };
        let newline = tokenizer.byte_ids[usize::from(b'\n')];
        tokenizer.vocabulary.set_special(Special::Nl, newline);
        Ok(tokenizer)
    }

    fn encode_text(&self, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        let mut text = Cow::Borrowed(text);
        if self.family.compose && !text.is_ascii() {
            text = text
                .nfc()
                .map(|(character, _)| character)
                .collect::<String>()
                .into();
        }
        if self.add_space_prefix && !text.starts_with(char::is_whitespace) {
            text.to_mut().insert(0, ' ');
        }
        self.splitter.split(&text, &mut |word| {
            self.encode_word(word.as_bytes(), merger, ids);
        });
    }

    fn encode_word(&self, word: &[u8], merger: &mut Merger, ids: &mut Vec<u32>) {
        if self.family.whole_words {
            let written: String = word.iter().map(|&byte| byte_character(byte)).collect();
            if let Some(id) = self.vocabulary.table().id(written.as_bytes()) {
                ids.push(id);
                return;
            }
        }
        merger.clear();
        for (start, &byte) in word.iter().enumerate() {
            if let Some(id) = self.byte_ids[usize::from(byte)] {
                merger.push(start as u32, 1, id);
            }
        }
        merger.run(|left, right| self.merges.get(&(left.id, right.id)).copied());
        ids.extend(merger.symbols().map(|symbol| symbol.id));
    }
}

impl Model for BytePair {
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let mut merger = Merger::default();
        self.vocabulary.encode(text, options, |part, _, ids| {
            self.encode_text(part, &mut merger, ids);
            Ok(())
        })
    }

    fn piece<'t>(&self, text: &'t str, token_type: TokenType) -> Cow<'t, [u8]> {
        if token_type != TokenType::Normal {
            return Cow::Borrowed(text.as_bytes());
        }
        // A token with a character that stands for no byte can only be text as it is.
        match text.chars().map(character_byte).collect::<Option<Vec<u8>>>() {
            Some(bytes) => Cow::Owned(bytes),
            None => Cow::Borrowed(text.as_bytes()),
        }
    }

    fn finish(&self, bytes: &mut Vec<u8>) {
        if self.add_space_prefix && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
    }
}

/// Reads "left right" lines; every part and every result must be a token.
fn read_merges(metadata: &Metadata, table: &TokenTable) -> Result<HashMap<(u32, u32), (u32, u32)>> {
    let lines = vocabulary::strings(metadata, MERGES)?
        .ok_or_else(|| Error::format(format!("required metadata key {MERGES} is missing")))?;
    if lines.len() >= u32::MAX as usize {
        return Err(Error::format(format!("{MERGES} holds {} lines", lines.len())));
    }
    let mut merges = HashMap::with_capacity(lines.len());
    let mut joined = Vec::new();
    for (rank, line) in lines.iter().enumerate() {
        let place = || format!("{MERGES}[{rank}] is {:?}", String::from_utf8_lossy(line));
        // A token may be a space, so the separator is the first space after the first byte.
        let space = line
            .iter()
            .skip(1)
            .position(|&byte| byte == b' ')
            .ok_or_else(|| Error::format(format!("{}, expected two tokens and a space between", place())))?
            + 1;
        let (left, right) = (&line[..space], &line[space + 1..]);
        joined.clear();
        joined.extend_from_slice(left);
        joined.extend_from_slice(right);
        let id = |token: &[u8]| {
            table.id(token).ok_or_else(|| {
                Error::format(format!(
                    "{}, but {:?} is not in {TOKENS}",
                    place(),
                    String::from_utf8_lossy(token)
                ))
            })
        };
        let pair = (id(left)?, id(right)?);
        // Of a pair that stands twice, the first rank counts.
        merges.entry(pair).or_insert((rank as u32, id(&joined)?));
    }
    Ok(merges)
}

/// The printable character that stands for a byte: itself if it is printable in Latin-1, else
/// the next unused one from U+0100 on.
pub(super) fn byte_character(byte: u8) -> char {
    let shifted = match byte {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => return byte as char,
        0x00..=0x20 => u32::from(byte),
        0x7F..=0xA0 => u32::from(byte) - 0x7F + 0x21,
        0xAD => 0x43,
    };
    char::from_u32(0x100 + shifted).unwrap_or(byte as char)
}

/// The byte that a character stands for.
pub(super) fn character_byte(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_characters_are_a_bijection() {
        let all: std::collections::HashSet<char> = (0..=255).map(byte_character).collect();
        assert_eq!(all.len(), 256);
        assert!((0..=255).all(|byte| character_byte(byte_character(byte)) == Some(byte)));
        assert_eq!(byte_character(b' '), 'Ġ');
        assert_eq!(byte_character(b'\n'), 'Ċ');
        assert_eq!(character_byte('世'), None);
    }
}
