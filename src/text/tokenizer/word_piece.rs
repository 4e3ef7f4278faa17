//! WordPiece (`tokenizer.ggml.model` = `bert`).
//!
//! Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding" (2018):
//! text is cleaned, lowercased, stripped of accents and cut at spaces and punctuation; a word is the longest
//! token that it begins with, then the longest that goes on, and so forth. GGUF files mark the tokens that
//! begin a word with U+2581 in place of marking those that go on with `##`.

use super::space_marks::MARK;
use super::vocabulary::{TOKENS, TokenType, Vocabulary};
use super::{EncodeOptions, Model, Special};
use crate::base::error::{Error, Result};
use crate::format::metadata::Metadata;
use std::borrow::Cow;
use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::UnicodeNormalization;

/// A word of more characters is unknown (`max_input_chars_per_word` of the reference).
const LONGEST_WORD: usize = 100;

/// What no space is written before when tokens are joined to text, as the reference does.
const NO_SPACE_BEFORE: &[&str] = &[".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"];

pub(super) struct WordPiece {
    vocabulary: Vocabulary,
    unknown: u32,
    lowercase: bool,
    strip_accents: bool,
}

impl WordPiece {
    pub fn from_metadata(metadata: &Metadata) -> Result<WordPiece> {
        let mut vocabulary = Vocabulary::from_metadata(metadata)?;
        let cased = is_cased(&vocabulary)?;
        let lowercase = metadata
            .bool("tokenizer.ggml.normalizer.lowercase")?
            .unwrap_or(!cased);
        let strip_accents = metadata
            .bool("tokenizer.ggml.normalizer.strip_accents")?
            .unwrap_or(lowercase);
        for (which, text) in [
            (Special::Cls, "[CLS]"),
            (Special::Sep, "[SEP]"),
            (Special::Unk, "[UNK]"),
            (Special::Pad, "[PAD]"),
            (Special::Mask, "[MASK]"),
        ] {
            vocabulary.default_special(which, text);
        }
        // Some files name the first token of a text BOS; the token that ends it is always SEP.
        let first = vocabulary
            .special(Special::Cls)
            .or(vocabulary.special(Special::Bos));
        vocabulary.set_special(Special::Cls, first);
        vocabulary.surround(metadata, (Special::Cls, true), (Special::Sep, true))?;
        let unknown = vocabulary.special(Special::Unk).ok_or_else(|| {
            Error::format(format!(
                "{TOKENS} has no token [UNK], and no key names one for unknown text"
            ))
        })?;
        vocabulary.cut_at(
            &[TokenType::UserDefined],
            &[TokenType::Control, TokenType::Unknown],
        )?;
        Ok(WordPiece {
            vocabulary,
            unknown,
            lowercase,
            strip_accents,
        })
    }

    /// Cleans `text` and adds the tokens of its words.
    fn encode_text(&self, text: &str, word: &mut Word, ids: &mut Vec<u32>) {
        let clean = text.chars().filter(|&c| is_kept(c));
        // Text in ASCII has no accents.
        if text.is_ascii() || !self.strip_accents {
            self.encode_characters(clean, word, ids);
        } else {
            let decomposed = clean.nfd().map(|(c, _)| c).filter(|c| !c.is_mark_nonspacing());
            self.encode_characters(decomposed, word, ids);
        }
    }

    fn encode_characters(&self, characters: impl Iterator<Item = char>, word: &mut Word, ids: &mut Vec<u32>) {
        word.clear();
        for character in characters {
            if self.lowercase && !character.is_ascii() {
                character
                    .to_lowercase()
                    .for_each(|lower| self.encode_character(lower, word, ids));
            } else if self.lowercase {
                self.encode_character(character.to_ascii_lowercase(), word, ids);
            } else {
                self.encode_character(character, word, ids);
            }
        }
        self.end_word(word, ids);
    }

    fn encode_character(&self, character: char, word: &mut Word, ids: &mut Vec<u32>) {
        if character.is_whitespace() {
            self.end_word(word, ids);
        } else if is_punctuation(character) || is_chinese(character) {
            self.end_word(word, ids);
            word.push(character);
            self.end_word(word, ids);
        } else {
            word.push(character);
        }
    }

    fn end_word(&self, word: &mut Word, ids: &mut Vec<u32>) {
        if word.characters > 0 {
            self.encode_word(word, ids);
            word.clear();
        }
    }

    fn encode_word(&self, word: &Word, ids: &mut Vec<u32>) {
        let before = ids.len();
        let text = word.text.as_str();
        let mut start = 0;
        while start < text.len() && word.characters <= LONGEST_WORD {
            let Some((id, end)) = self.longest(text, start) else {
                break;
            };
            ids.push(id);
            start = end;
        }
        if start < text.len() {
            ids.truncate(before);
            ids.push(self.unknown);
        }
    }

    /// The longest token that stands in `text` at `start`, and where it ends.
    fn longest(&self, text: &str, start: usize) -> Option<(u32, usize)> {
        // The first piece is looked up with the mark before it, and is more than the mark; no other piece
        // may begin with a mark, which would make it the beginning of a word.
        let shortest = if start == 0 { MARK.len_utf8() } else { start };
        if start > 0 && text[start..].starts_with(MARK) {
            return None;
        }
        let table = self.vocabulary.table();
        let mut end = character_boundary(text, start.saturating_add(table.longest()));
        while end > shortest {
            let found = table.id(&text.as_bytes()[start..end]);
            if let Some(id) = found.filter(|id| self.vocabulary.token_type(*id) == Some(TokenType::Normal)) {
                return Some((id, end));
            }
            end = character_boundary(text, end - 1);
        }
        None
    }
}

/// Whether words have capital letters, so that the vocabulary was not made from lowercased text. A vocabulary
/// that marks no word at all is an error.
fn is_cased(vocabulary: &Vocabulary) -> Result<bool> {
    let tokens = vocabulary.table().iter().map(|(_, text)| text);
    let mut words = tokens.filter_map(|text| text.strip_prefix(MARK)).peekable();
    if words.peek().is_none() {
        return Err(Error::format(format!(
            "{TOKENS} has no token that begins a word with U+2581, as WordPiece tokens of GGUF files do"
        )));
    }
    // Names in brackets, such as [CLS], are no words.
    Ok(words.any(|word| !word.starts_with('[') && word.bytes().any(|byte| byte.is_ascii_uppercase())))
}

/// The last boundary of characters that is not after `index`.
fn character_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// A word with U+2581 in front.
struct Word {
    text: String,
    characters: usize,
}

impl Word {
    fn clear(&mut self) {
        self.text.truncate(MARK.len_utf8());
        self.characters = 0;
    }

    fn push(&mut self, character: char) {
        // A word that is too long is unknown whatever its end is.
        if self.characters <= LONGEST_WORD {
            self.text.push(character);
        }
        self.characters += 1;
    }
}

/// Whether cleaning leaves a character: control characters that are no spaces go, as do NUL and U+FFFD.
fn is_kept(character: char) -> bool {
    match character {
        '\t' | '\n' | '\r' => true,
        '\0' | '\u{FFFD}' => false,
        _ if character.is_ascii() => !character.is_ascii_control(),
        _ => !character.is_other(),
    }
}

fn is_punctuation(character: char) -> bool {
    character.is_ascii_punctuation() || (!character.is_ascii() && character.is_punctuation())
}

/// The blocks that the reference takes for Chinese characters; each becomes a word. The block at U+2B820 is
/// written U+2B920 there, and so it is here.
fn is_chinese(character: char) -> bool {
    matches!(u32::from(character),
        0x4E00..=0x9FFF | 0x3400..=0x4DBF | 0x20000..=0x2A6DF | 0x2A700..=0x2B73F | 0x2B740..=0x2B81F
        | 0x2B920..=0x2CEAF | 0xF900..=0xFAFF | 0x2F800..=0x2FA1F)
}

/// Whether no space is written before a word.
pub(super) fn begins_without_space(word: &str) -> bool {
    NO_SPACE_BEFORE.iter().any(|start| word.starts_with(start))
}

impl Model for WordPiece {
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let mut word = Word {
            text: MARK.to_string(),
            characters: 0,
        };
        self.vocabulary.encode(text, options, |part, _, ids| {
            self.encode_text(part, &mut word, ids);
            Ok(())
        })
    }

    fn piece<'t>(&self, text: &'t str, token_type: TokenType) -> Cow<'t, [u8]> {
        let begins = token_type != TokenType::Normal || text.starts_with(MARK);
        let text = match token_type {
            TokenType::Normal => text.strip_prefix(MARK).unwrap_or(text),
            _ => text,
        };
        if begins && !begins_without_space(text) {
            Cow::Owned(format!(" {text}").into_bytes())
        } else {
            Cow::Borrowed(text.as_bytes())
        }
    }

    fn finish(&self, bytes: &mut Vec<u8>) {
        if bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
    }
}
