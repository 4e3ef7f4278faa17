//! SentencePiece BPE (`tokenizer.ggml.model` = `llama`) and unigram (`t5`).
//!
//! Kudo and Richardson, "SentencePiece: A simple and language independent subword tokenizer and detokenizer
//! for Neural Text Processing" (2018). Results equal those of the SentencePiece library, including its
//! single precision sums.

use super::merge::{Merger, Symbol};
use super::prefix_search::PrefixSearch;
use super::space_marks::{MARK, SpaceMarks};
use super::vocabulary::{SCORES, TOKENS, TokenType, Vocabulary};
use super::{EncodeOptions, Model, Special};
use crate::base::error::{Error, Result};
use crate::format::metadata::Metadata;
use std::borrow::Cow;
use std::collections::HashMap;

/// A symbol that is no token (yet).
const NO_TOKEN: u32 = u32::MAX;
/// Marks the id of a symbol that must not merge.
const FROZEN: u32 = 1 << 31;
/// An unknown character scores this much below the worst token.
const UNKNOWN_PENALTY: f32 = 10.0;

/// How the tokens of a text are found.
enum Algorithm {
    /// Merge the neighbours whose token scores highest.
    BytePair,
    /// The tokens whose scores add up to the most.
    Unigram {
        search: PrefixSearch,
        unknown_score: f32,
        /// The highest score, but never below the smallest positive number.
        highest_score: f32,
    },
}

pub(super) struct SentencePiece {
    vocabulary: Vocabulary,
    marks: SpaceMarks,
    algorithm: Algorithm,
    /// The tokens of all bytes, if the vocabulary has them.
    byte_ids: Option<Box<[u32; 256]>>,
    unknown: Option<u32>,
}

impl SentencePiece {
    /// SentencePiece BPE: begins a text with a BOS token unless the file says otherwise.
    pub fn byte_pair(metadata: &Metadata) -> Result<SentencePiece> {
        let mut vocabulary = Vocabulary::from_metadata(metadata)?;
        vocabulary.default_special(Special::Bos, "<s>");
        vocabulary.default_special(Special::Eos, "</s>");
        vocabulary.surround(metadata, (Special::Bos, true), (Special::Eos, false))?;
        SentencePiece::new(metadata, vocabulary, false, |_| Algorithm::BytePair)
    }

    /// SentencePiece unigram: ends a text with an EOS token unless the file says otherwise.
    pub fn unigram(metadata: &Metadata) -> Result<SentencePiece> {
        let mut vocabulary = Vocabulary::from_metadata(metadata)?;
        vocabulary.default_special(Special::Eos, "</s>");
        vocabulary.default_special(Special::Pad, "<pad>");
        vocabulary.surround(metadata, (Special::Bos, false), (Special::Eos, true))?;
        SentencePiece::new(metadata, vocabulary, true, |vocabulary| {
            let normal = |id: &u32| vocabulary.token_type(*id) == Some(TokenType::Normal);
            let scores = || {
                (0..)
                    .take(vocabulary.table().len())
                    .filter(normal)
                    .map(|id| vocabulary.score(id))
            };
            Algorithm::Unigram {
                search: PrefixSearch::new(vocabulary, |kind| {
                    matches!(kind, TokenType::Normal | TokenType::UserDefined)
                }),
                unknown_score: scores().fold(f32::MAX, f32::min) - UNKNOWN_PENALTY,
                highest_score: scores().fold(f32::MIN_POSITIVE, f32::max),
            }
        })
    }

    fn new(
        metadata: &Metadata,
        mut vocabulary: Vocabulary,
        remove_extra: bool,
        algorithm: impl FnOnce(&Vocabulary) -> Algorithm,
    ) -> Result<SentencePiece> {
        if vocabulary.scores().is_empty() {
            return Err(Error::format(format!(
                "required metadata key {SCORES} is missing"
            )));
        }
        vocabulary.default_special(Special::Unk, "<unk>");
        // User-defined tokens are found in normalized text, so only control tokens cut it before.
        vocabulary.cut_at(&[], &[TokenType::Control, TokenType::Unknown])?;
        let byte_ids = read_byte_ids(&vocabulary)?;
        let unknown = vocabulary.special(Special::Unk);
        if byte_ids.is_none() && unknown.is_none() {
            return Err(Error::format(format!(
                "{TOKENS} has neither a token for each byte (<0x00> to <0xFF>) nor one for unknown text"
            )));
        }
        let newline = byte_ids.as_ref().map(|ids| ids[usize::from(b'\n')]);
        let newline = vocabulary.table().id(b"\n").or(newline);
        vocabulary.set_special(Special::Nl, newline);
        let marks = SpaceMarks::from_metadata(metadata, &vocabulary, remove_extra)?;
        Ok(SentencePiece {
            algorithm: algorithm(&vocabulary),
            vocabulary,
            marks,
            byte_ids,
            unknown,
        })
    }

    /// Adds the token of `piece`, or what stands for unknown text; an unused token counts as unknown. `after_unknown` tells whether the piece
    /// before was unknown: such a run is one unknown token.
    fn push_piece(&self, piece: &str, id: Option<u32>, after_unknown: &mut bool, ids: &mut Vec<u32>) {
        let is_known = |id: &u32| {
            Some(*id) != self.unknown && self.vocabulary.token_type(*id) != Some(TokenType::Unused)
        };
        let known = id.filter(is_known);
        match (known, &self.byte_ids) {
            (Some(id), _) => ids.push(id),
            (None, Some(byte_ids)) => ids.extend(piece.bytes().map(|byte| byte_ids[usize::from(byte)])),
            (None, None) if *after_unknown => {}
            (None, None) => ids.extend(self.unknown),
        }
        *after_unknown = known.is_none();
    }

    fn encode_byte_pair(&self, text: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        merger.clear();
        let mut start = 0;
        self.marks.cut(text, |part, user_defined| {
            if let Some(id) = user_defined {
                merger.push(start, part.len() as u32, id | FROZEN);
                start += part.len() as u32;
                return;
            }
            for character in part.chars() {
                merger.push(start, character.len_utf8() as u32, NO_TOKEN);
                start += character.len_utf8() as u32;
            }
        });
        let slice = |symbol: &Symbol, length: u32| {
            let start = symbol.start as usize;
            &text[start..start + length as usize]
        };
        // Tokens that are unused may be merged, but then fall apart into what they were merged from.
        let mut halves: HashMap<u32, u32> = HashMap::new();
        merger.run(|left, right| {
            let frozen = |symbol: &Symbol| symbol.id != NO_TOKEN && symbol.id & FROZEN != 0;
            if frozen(left) || frozen(right) {
                return None;
            }
            let id = self.text_token(slice(left, left.length + right.length))?;
            if self.vocabulary.token_type(id) == Some(TokenType::Unused) {
                halves.insert(id, left.length);
            }
            Some((rank(self.vocabulary.score(id)), id))
        });
        let mut after_unknown = false;
        for symbol in merger.symbols() {
            let piece = slice(symbol, symbol.length);
            let id = match symbol.id {
                NO_TOKEN => self.text_token(piece),
                id => Some(id & !FROZEN),
            };
            self.push_apart(piece, id, &halves, &mut after_unknown, ids);
        }
    }

    /// Adds a piece, taken apart as long as it is unused.
    fn push_apart(
        &self,
        piece: &str,
        id: Option<u32>,
        halves: &HashMap<u32, u32>,
        after_unknown: &mut bool,
        ids: &mut Vec<u32>,
    ) {
        let mut left_over = vec![(piece, id)];
        while let Some((piece, id)) = left_over.pop() {
            let half = id
                .and_then(|id| halves.get(&id))
                .map(|&half| piece.split_at(half as usize));
            match half {
                Some((left, right)) => {
                    for part in [right, left] {
                        left_over.push((part, self.text_token(part)));
                    }
                }
                None => self.push_piece(piece, id, after_unknown, ids),
            }
        }
    }

    /// The token that `text` is, if text may become it.
    fn text_token(&self, text: &str) -> Option<u32> {
        let id = self.vocabulary.table().id(text.as_bytes())?;
        match self.vocabulary.token_type(id)? {
            TokenType::Normal | TokenType::UserDefined | TokenType::Unused => Some(id),
            TokenType::Unknown | TokenType::Control | TokenType::Byte => None,
        }
    }

    /// The best path over all positions of `text` (Viterbi); ties go to the token that starts first.
    fn encode_unigram(&self, text: &str, ids: &mut Vec<u32>) {
        let Algorithm::Unigram {
            search,
            unknown_score,
            highest_score,
        } = &self.algorithm
        else {
            return;
        };
        let mut best = vec![Step::UNREACHED; text.len() + 1];
        best[0].score = 0.0;
        for (start, character) in text.char_indices() {
            let so_far = best[start].score;
            let mut covered = false;
            search.visit(&self.vocabulary, &text[start..], |id, length| {
                covered |= length == character.len_utf8();
                let score = match self.vocabulary.token_type(id) {
                    Some(TokenType::UserDefined) => length as f32 * highest_score - 0.1,
                    _ => self.vocabulary.score(id),
                };
                best[start + length].improve(so_far + score, start, id);
            });
            if !covered {
                let score = unknown_score + so_far;
                best[start + character.len_utf8()].improve(score, start, NO_TOKEN);
            }
        }
        let mut path = Vec::new();
        let mut end = text.len();
        while end > 0 {
            let step = best[end];
            path.push((&text[step.start as usize..end], step.id));
            end = step.start as usize;
        }
        let mut after_unknown = false;
        for (piece, id) in path.into_iter().rev() {
            let id = (id != NO_TOKEN).then_some(id);
            self.push_piece(piece, id, &mut after_unknown, ids);
        }
    }
}

/// The best way to a position: its score, and the last token on it.
#[derive(Clone, Copy)]
struct Step {
    score: f32,
    start: u32,
    id: u32,
    reached: bool,
}

impl Step {
    const UNREACHED: Step = Step {
        score: 0.0,
        start: 0,
        id: NO_TOKEN,
        reached: false,
    };

    fn improve(&mut self, score: f32, start: usize, id: u32) {
        if !self.reached || score > self.score {
            *self = Step {
                score,
                start: start as u32,
                id,
                reached: true,
            };
        }
    }
}

/// A number that is lower the higher the score is, and equal for equal scores.
fn rank(score: f32) -> u32 {
    // Adding zero makes the negative zero positive.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

/// The tokens of all 256 bytes, or none if not all are there.
fn read_byte_ids(vocabulary: &Vocabulary) -> Result<Option<Box<[u32; 256]>>> {
    let mut ids = Box::new([NO_TOKEN; 256]);
    for (id, text) in vocabulary.table().iter() {
        if vocabulary.token_type(id) != Some(TokenType::Byte) {
            continue;
        }
        let byte = byte_of(text).ok_or_else(|| {
            Error::format(format!(
                "{TOKENS}[{id}] is {text:?}, expected a byte such as \"<0x0A>\""
            ))
        })?;
        ids[usize::from(byte)] = id;
    }
    Ok((!ids.contains(&NO_TOKEN)).then_some(ids))
}

/// The byte that a token such as `<0x0A>` stands for.
pub(super) fn byte_of(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    let hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    hexadecimal.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

impl Model for SentencePiece {
    fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let mut merger = Merger::default();
        self.vocabulary.encode(text, options, |part, at_start, ids| {
            let marked = self.marks.apply(part, at_start)?;
            match self.algorithm {
                Algorithm::BytePair => self.encode_byte_pair(&marked, &mut merger, ids),
                Algorithm::Unigram { .. } => self.encode_unigram(&marked, ids),
            }
            Ok(())
        })
    }

    fn piece<'t>(&self, text: &'t str, token_type: TokenType) -> Cow<'t, [u8]> {
        match token_type {
            TokenType::Byte => byte_of(text).map_or(Cow::Borrowed(text.as_bytes()), |byte| vec![byte].into()),
            TokenType::Normal | TokenType::UserDefined if text.contains(MARK) => {
                Cow::Owned(text.replace(MARK, " ").into_bytes())
            }
            _ => Cow::Borrowed(text.as_bytes()),
        }
    }

    fn finish(&self, bytes: &mut Vec<u8>) {
        if self.marks.adds_prefix() && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_order_scores() {
        let scores = [f32::MAX, 3.5, 1e-30, 0.0, -1e-30, -2.0, -2.5, f32::MIN];
        assert!(scores.windows(2).all(|pair| rank(pair[0]) < rank(pair[1])));
        assert_eq!(rank(0.0), rank(-0.0));
    }

    #[test]
    fn bytes_are_read_strictly() {
        assert_eq!(byte_of("<0x0A>"), Some(10));
        for text in ["<0xA>", "<0x+1>", "<0x0A", "0x0A>", "<0x0AB>", "<0xÄ>", ""] {
            assert_eq!(byte_of(text), None, "{text}");
        }
    }
}
