//! What every tokenizer of a GGUF file has: tokens, their types and scores, special tokens, and
//! the cutting of text at special tokens.
//!
//! Keys: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer>.

use super::roles::{self, Roles};
use super::token_table::TokenTable;
use super::{EncodeOptions, Special};
use crate::base::error::{Error, Result};
use crate::format::metadata::{Array, Metadata};
use crate::format::strings::Strings;
use aho_corasick::{AhoCorasick, MatchKind};

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
pub(super) const SCORES: &str = "tokenizer.ggml.scores";

/// `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenType {
    Normal,
    /// What stands for text that has no token.
    Unknown,
    /// Steers the model; text becomes one only when asked.
    Control,
    /// Added by the user: text always becomes one.
    UserDefined,
    /// Keeps an id occupied.
    Unused,
    /// One byte, written `<0xNN>`.
    Byte,
}

/// The keys of special tokens; the second spelling of a key is the one that stands in files.
const SPECIAL_KEYS: &[(Special, &str)] = &[
    (Special::Bos, "tokenizer.ggml.bos_token_id"),
    (Special::Eos, "tokenizer.ggml.eos_token_id"),
    (Special::Eot, "tokenizer.ggml.eot_token_id"),
    (Special::Eom, "tokenizer.ggml.eom_token_id"),
    (Special::Unk, "tokenizer.ggml.unknown_token_id"),
    (Special::Sep, "tokenizer.ggml.separator_token_id"),
    (Special::Sep, "tokenizer.ggml.seperator_token_id"),
    (Special::Pad, "tokenizer.ggml.padding_token_id"),
    (Special::Cls, "tokenizer.ggml.cls_token_id"),
    (Special::Mask, "tokenizer.ggml.mask_token_id"),
];

/// A part of a text.
pub(super) enum Segment<'t> {
    Text(&'t str),
    Token(u32),
}

/// Finds the tokens of some types in text.
struct TokenFinder {
    finder: AhoCorasick,
    ids: Vec<u32>,
}

/// Tokens, types, scores and special tokens.
pub(super) struct Vocabulary {
    table: TokenTable,
    types: Vec<TokenType>,
    /// Empty when the file has none.
    scores: Vec<f32>,
    specials: Roles,
    end_of_generation: Vec<u32>,
    /// Finds what text is always cut at, and what it is cut at when control tokens are parsed.
    always: Option<TokenFinder>,
    when_asked: Option<TokenFinder>,
    /// Ids put before and after a text when special tokens are added.
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Vocabulary {
    /// Reads and checks tokens, types, scores and special token ids.
    pub fn from_metadata(metadata: &Metadata) -> Result<Vocabulary> {
        let tokens = required_strings(metadata, TOKENS)?;
        let table = TokenTable::new(TOKENS, tokens.iter())?;
        let types = read_types(metadata, table.len())?;
        let scores = read_scores(metadata, table.len())?;
        let mut vocabulary = Vocabulary {
            specials: read_specials(metadata, table.len())?,
            table,
            types,
            scores,
            end_of_generation: Vec::new(),
            always: None,
            when_asked: None,
            before: Vec::new(),
            after: Vec::new(),
        };
        let table = &vocabulary.table;
        vocabulary.end_of_generation =
            roles::complete(&mut vocabulary.specials, |text| table.id(text.as_bytes()));
        Ok(vocabulary)
    }

    /// Says at which types of token text is cut: always, and also when control tokens are parsed.
    pub fn cut_at(&mut self, always: &[TokenType], when_asked: &[TokenType]) -> Result<()> {
        self.always = self.finder(|kind| always.contains(&kind))?;
        self.when_asked = self.finder(|kind| always.contains(&kind) || when_asked.contains(&kind))?;
        Ok(())
    }

    /// Sets the special token `which` when the file does not name it and `text` is a token.
    pub fn default_special(&mut self, which: Special, text: &str) {
        if self.special(which).is_none() {
            self.specials[which as usize] = self.table.id(text.as_bytes());
        }
    }

    /// Sets a special token.
    pub fn set_special(&mut self, which: Special, id: Option<u32>) {
        self.specials[which as usize] = id;
    }

    /// Says which special tokens surround a text; the defaults hold where the file says nothing.
    pub fn surround(
        &mut self,
        metadata: &Metadata,
        first: (Special, bool),
        last: (Special, bool),
    ) -> Result<()> {
        let read = |key: &str, (which, default): (Special, bool)| {
            let asked = metadata.bool(key)?;
            match (asked.unwrap_or(default), self.special(which)) {
                (false, _) => Ok(Vec::new()),
                (true, Some(id)) => Ok(vec![id]),
                (true, None) if asked.is_none() => Ok(Vec::new()),
                (true, None) => Err(Error::format(format!(
                    "{key} is true, but the file names no {which:?} token"
                ))),
            }
        };
        let before = read("tokenizer.ggml.add_bos_token", first)?;
        let after = read("tokenizer.ggml.add_eos_token", last)?;
        (self.before, self.after) = (before, after);
        Ok(())
    }

    fn finder(&self, wanted: impl Fn(TokenType) -> bool) -> Result<Option<TokenFinder>> {
        let ids: Vec<u32> = self
            .table
            .iter()
            .filter(|(id, text)| !text.is_empty() && wanted(self.types[*id as usize]))
            .map(|(id, _)| id)
            .collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let texts = ids.iter().filter_map(|id| self.table.text(*id));
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(texts)
            .map_err(|error| Error::unsupported(format!("{TOKENS}: too many special tokens: {error}")))?;
        Ok(Some(TokenFinder { finder, ids }))
    }

    /// Encodes `text`: cuts it at special tokens, leaves what lies between to `encode`, and adds
    /// the tokens that surround a text. `encode` is told whether its part stands at the start or
    /// right after a special token.
    pub fn encode(
        &self,
        text: &str,
        options: EncodeOptions,
        mut encode: impl FnMut(&str, bool, &mut Vec<u32>) -> Result<()>,
    ) -> Result<Vec<u32>> {
        // Offsets inside the tokenizers are 32 bits wide; normalization can make text longer.
        if text.len() > u32::MAX as usize / 32 {
            return Err(Error::invalid(format!(
                "a text of {} bytes is too long, at most {} can be encoded at once",
                text.len(),
                u32::MAX / 32
            )));
        }
        let mut ids = Vec::new();
        if options.add_special {
            ids.extend_from_slice(&self.before);
        }
        let mut after_special = true;
        self.segments(text, options.parse_special, |segment| {
            match segment {
                Segment::Token(id) => {
                    ids.push(id);
                    after_special = true;
                }
                Segment::Text(part) => {
                    encode(part, after_special, &mut ids)?;
                    after_special = false;
                }
            }
            Ok(())
        })?;
        if options.add_special {
            ids.extend_from_slice(&self.after);
        }
        Ok(ids)
    }

    /// Cuts `text` as [`Vocabulary::cut_at`] said: at the leftmost token, and of those the longest.
    fn segments<'t>(
        &self,
        text: &'t str,
        parse_special: bool,
        mut visit: impl FnMut(Segment<'t>) -> Result<()>,
    ) -> Result<()> {
        let finder = if parse_special {
            &self.when_asked
        } else {
            &self.always
        };
        let mut done = 0;
        for found in finder.iter().flat_map(|f| f.finder.find_iter(text)) {
            if found.start() > done {
                visit(Segment::Text(&text[done..found.start()]))?;
            }
            let id = finder.as_ref().map_or(0, |f| f.ids[found.pattern().as_usize()]);
            visit(Segment::Token(id))?;
            done = found.end();
        }
        if done < text.len() {
            visit(Segment::Text(&text[done..]))?;
        }
        Ok(())
    }

    /// The text of a token, or an error that names the id and how many tokens there are.
    pub fn require(&self, id: u32) -> Result<(&str, TokenType)> {
        match (self.table.text(id), self.types.get(id as usize)) {
            (Some(text), Some(&kind)) => Ok((text, kind)),
            _ => Err(out_of_range(id, self.table.len())),
        }
    }

    pub fn table(&self) -> &TokenTable {
        &self.table
    }

    pub fn token_type(&self, id: u32) -> Option<TokenType> {
        self.types.get(id as usize).copied()
    }

    pub fn scores(&self) -> &[f32] {
        &self.scores
    }

    /// The score of a token; 0 where the file has no scores.
    pub fn score(&self, id: u32) -> f32 {
        self.scores.get(id as usize).copied().unwrap_or(0.0)
    }

    pub fn special(&self, which: Special) -> Option<u32> {
        self.specials[which as usize]
    }

    pub fn is_control(&self, id: u32) -> bool {
        matches!(self.token_type(id), Some(TokenType::Control | TokenType::Unknown))
    }

    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.end_of_generation.binary_search(&id).is_ok()
    }
}

/// The error for an id that no token has.
pub(super) fn out_of_range(id: u32, size: usize) -> Error {
    Error::invalid(format!(
        "token id {id} is out of range, the vocabulary has {size} tokens (0 to {})",
        size.saturating_sub(1)
    ))
}

/// An array of strings, or an error that names the key.
pub(super) fn strings<'m>(metadata: &'m Metadata, key: &str) -> Result<Option<&'m Strings>> {
    match metadata.array(key)? {
        None => Ok(None),
        Some(Array::String(strings)) => Ok(Some(strings)),
        Some(_) => Err(Error::format(format!(
            "metadata key {key}: expected an array of strings, found an array of another type"
        ))),
    }
}

fn required_strings<'m>(metadata: &'m Metadata, key: &str) -> Result<&'m Strings> {
    strings(metadata, key)?.ok_or_else(|| Error::format(format!("required metadata key {key} is missing")))
}

fn read_types(metadata: &Metadata, count: usize) -> Result<Vec<TokenType>> {
    let numbers: Vec<i64> = match metadata.array(TOKEN_TYPE)? {
        None => return Ok(vec![TokenType::Normal; count]),
        Some(Array::I32(v)) => v.iter().map(|&n| n.into()).collect(),
        Some(Array::U32(v)) => v.iter().map(|&n| n.into()).collect(),
        Some(_) => {
            return Err(Error::format(format!(
                "metadata key {TOKEN_TYPE}: expected an array of i32"
            )));
        }
    };
    check_length(TOKEN_TYPE, numbers.len(), count)?;
    let convert = |(id, number): (usize, &i64)| match number {
        1 => Ok(TokenType::Normal),
        2 => Ok(TokenType::Unknown),
        3 => Ok(TokenType::Control),
        4 => Ok(TokenType::UserDefined),
        0 | 5 => Ok(TokenType::Unused),
        6 => Ok(TokenType::Byte),
        other => Err(Error::format(format!(
            "{TOKEN_TYPE}[{id}] is {other}, expected 0 to 6"
        ))),
    };
    numbers.iter().enumerate().map(convert).collect()
}

fn read_scores(metadata: &Metadata, count: usize) -> Result<Vec<f32>> {
    let scores = match metadata.array(SCORES)? {
        None => return Ok(Vec::new()),
        Some(Array::F32(v)) => v.clone(),
        Some(_) => {
            return Err(Error::format(format!(
                "metadata key {SCORES}: expected an array of f32"
            )));
        }
    };
    check_length(SCORES, scores.len(), count)?;
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(scores),
        Some(id) => Err(Error::format(format!(
            "{SCORES}[{id}] is {}, expected a finite number",
            scores[id]
        ))),
    }
}

fn check_length(key: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::format(format!(
        "{key} holds {found} values, but {TOKENS} holds {expected}"
    )))
}

fn read_specials(metadata: &Metadata, count: usize) -> Result<Roles> {
    let mut specials = [None; Special::COUNT];
    for &(which, key) in SPECIAL_KEYS {
        let Some(id) = metadata.u64(key)? else {
            continue;
        };
        if id >= count as u64 {
            return Err(Error::format(format!(
                "{key} is {id}, but {TOKENS} holds {count} tokens"
            )));
        }
        specials[which as usize] = Some(id as u32);
    }
    Ok(specials)
}
