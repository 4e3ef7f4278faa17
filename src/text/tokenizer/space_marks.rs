//! How SentencePiece models see text: normalized, with U+2581 for spaces, and with tokens that the user
//! defined kept as they are.
//!
//! After `Normalizer::Normalize` in `normalizer.cc` of <https://github.com/google/sentencepiece>.

use super::charsmap::Charsmap;
use super::vocabulary::{TOKENS, TokenType, Vocabulary};
use crate::base::error::{Error, Result};
use crate::format::metadata::{Array, Metadata};
use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};

/// What stands for a space in tokens.
pub(super) const MARK: char = '\u{2581}';
const CHARSMAP: &str = "tokenizer.ggml.precompiled_charsmap";

/// Brings text into the form that the tokens have.
pub(super) struct SpaceMarks {
    add_prefix: bool,
    /// Runs of spaces become one, and the ends have none.
    remove_extra: bool,
    charsmap: Option<Charsmap>,
    user_defined: Option<UserDefined>,
}

/// Finds tokens that the user defined: they are taken before anything else.
struct UserDefined {
    finder: AhoCorasick,
    ids: Vec<u32>,
}

impl SpaceMarks {
    /// Reads the keys of normalization; `remove_extra` holds when the file does not say.
    pub fn from_metadata(
        metadata: &Metadata,
        vocabulary: &Vocabulary,
        remove_extra: bool,
    ) -> Result<SpaceMarks> {
        let flag = |key: &str, default: bool| Ok::<bool, Error>(metadata.bool(key)?.unwrap_or(default));
        let charsmap = match metadata.array(CHARSMAP)? {
            None => None,
            Some(Array::U8(blob)) => Charsmap::new(CHARSMAP, blob)?,
            Some(Array::I8(blob)) => {
                let blob: Vec<u8> = blob.iter().map(|&byte| byte as u8).collect();
                Charsmap::new(CHARSMAP, &blob)?
            }
            Some(_) => {
                return Err(Error::format(format!(
                    "metadata key {CHARSMAP}: expected an array of u8 or i8"
                )));
            }
        };
        Ok(SpaceMarks {
            add_prefix: flag("tokenizer.ggml.add_space_prefix", true)?,
            remove_extra: flag("tokenizer.ggml.remove_extra_whitespaces", remove_extra)?,
            charsmap,
            user_defined: UserDefined::new(vocabulary)?,
        })
    }

    /// Whether a text gets a space in front.
    pub fn adds_prefix(&self) -> bool {
        self.add_prefix
    }

    /// `text` with marks for spaces, and one in front when `at_start` and the model asks for it.
    pub fn apply(&self, text: &str, at_start: bool) -> Result<String> {
        let prefix = self.add_prefix && at_start;
        let mut out = String::with_capacity(text.len() + text.len() / 4 + MARK.len_utf8());
        if self.charsmap.is_none() && !self.remove_extra {
            out.extend(prefix.then_some(MARK));
            out.extend(text.chars().map(mark));
        } else {
            self.normalize(text, prefix, &mut out);
        }
        if out.len() > u32::MAX as usize / 2 {
            return Err(Error::invalid(format!(
                "a text of {} bytes has {} bytes after normalization, at most {} can be encoded at once",
                text.len(),
                out.len(),
                u32::MAX / 2
            )));
        }
        Ok(out)
    }

    fn normalize(&self, text: &str, prefix: bool, out: &mut String) {
        let mut rest = text;
        while self.remove_extra && !rest.is_empty() {
            let (part, used) = self.next_part(rest);
            if part != " " {
                break;
            }
            rest = &rest[used..];
        }
        if rest.is_empty() {
            return;
        }
        out.extend(prefix.then_some(MARK));
        let mut after_space = self.remove_extra;
        while !rest.is_empty() {
            let (mut part, used) = self.next_part(rest);
            if after_space {
                part = part.trim_start_matches(' ');
            }
            if let Some(last) = part.chars().next_back() {
                out.extend(part.chars().map(mark));
                after_space = self.remove_extra && last == ' ';
            }
            rest = &rest[used..];
        }
        if self.remove_extra {
            out.truncate(out.trim_end_matches(MARK).len());
        }
    }

    /// What the first bytes of `text`, which is not empty, normalize to, and how many bytes those are.
    fn next_part<'s>(&'s self, text: &'s str) -> (&'s str, usize) {
        if let Some(length) = self.user_defined.as_ref().and_then(|user| user.prefix(text)) {
            return (&text[..length], length);
        }
        if let Some(found) = self.charsmap.as_ref().and_then(|map| map.longest_match(text)) {
            return found;
        }
        let length = text.chars().next().map_or(text.len(), char::len_utf8);
        (&text[..length], length)
    }

    /// Cuts normalized text at tokens that the user defined: `visit` gets parts, with the id of those.
    pub fn cut(&self, text: &str, mut visit: impl FnMut(&str, Option<u32>)) {
        let mut done = 0;
        if let Some(user) = &self.user_defined {
            for found in user.finder.find_iter(text) {
                if found.start() > done {
                    visit(&text[done..found.start()], None);
                }
                visit(&text[found.range()], Some(user.ids[found.pattern().as_usize()]));
                done = found.end();
            }
        }
        if done < text.len() {
            visit(&text[done..], None);
        }
    }
}

impl UserDefined {
    fn new(vocabulary: &Vocabulary) -> Result<Option<UserDefined>> {
        let (ids, texts): (Vec<u32>, Vec<String>) = vocabulary
            .table()
            .iter()
            .filter(|(id, text)| {
                !text.is_empty() && vocabulary.token_type(*id) == Some(TokenType::UserDefined)
            })
            // Converters write such tokens with spaces, SentencePiece itself with marks.
            .map(|(id, text)| (id, text.chars().map(mark).collect::<String>()))
            .unzip();
        if ids.is_empty() {
            return Ok(None);
        }
        let finder = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .start_kind(StartKind::Both)
            .build(texts)
            .map_err(|error| {
                Error::unsupported(format!("{TOKENS}: too many user-defined tokens: {error}"))
            })?;
        Ok(Some(UserDefined { finder, ids }))
    }

    /// The length of the longest token that `text` begins with.
    fn prefix(&self, text: &str) -> Option<usize> {
        let found = self.finder.find(Input::new(text).anchored(Anchored::Yes))?;
        Some(found.end())
    }
}

fn mark(character: char) -> char {
    if character == ' ' { MARK } else { character }
}
