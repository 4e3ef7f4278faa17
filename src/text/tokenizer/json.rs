//! `tokenizer.json`, run by the `tokenizers` crate.

use super::byte_pair::character_byte;
use super::roles::{self, Roles};
use super::sentence_piece::byte_of;
use super::space_marks::MARK;
use super::vocabulary::out_of_range;
use super::word_piece::begins_without_space;
use super::{EncodeOptions, Special, Tokenizer};
use crate::base::error::{Error, Result};
use crate::format::strings::Strings;
use aho_corasick::AhoCorasick;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use tokenizers::models::ModelWrapper;
use tokenizers::tokenizer::Tokenizer as Library;

/// The backtracking engine of the crate gives up on runs of about a million spaces, and the crate then takes
/// the rest of the text for one word. Runs of this many characters are refused instead.
const LONGEST_SPACES: usize = 500_000;

/// The names of roles in `tokenizer_config.json`, and the usual tokens where it does not name one.
const ROLES: &[(Special, &str, &[&str])] = &[
    (Special::Bos, "bos_token", &["<s>", "<bos>", "<|begin_of_text|>"]),
    (Special::Eos, "eos_token", &["</s>", "<eos>", "<|end_of_text|>"]),
    (Special::Unk, "unk_token", &["[UNK]", "<unk>"]),
    (Special::Sep, "sep_token", &["[SEP]"]),
    (Special::Pad, "pad_token", &["[PAD]", "<pad>"]),
    (Special::Cls, "cls_token", &["[CLS]"]),
    (Special::Mask, "mask_token", &["[MASK]", "<mask>"]),
];

/// How the text of one token follows from how it is written.
enum Pieces {
    /// A printable character for every byte.
    Bytes,
    /// U+2581 for spaces, and maybe `<0xNN>` for bytes.
    Marks { byte_fallback: bool },
    /// A prefix for tokens that go on with a word.
    WordPiece { prefix: String, cleanup: bool },
    /// As it is written.
    Text,
}

pub(super) struct JsonTokenizer {
    /// Sees special tokens in text.
    library: Library,
    /// Does not; made when a text holds one, so that most never need it.
    plain: OnceLock<Library>,
    special_finder: Option<AhoCorasick>,
    special: HashSet<u32>,
    added: HashSet<u32>,
    tokens: Strings,
    roles: Roles,
    end_of_generation: Vec<u32>,
    pieces: Pieces,
}

impl JsonTokenizer {
    pub fn new(json: &str, config: Option<&str>) -> Result<JsonTokenizer> {
        let mut library: Library = guard(|| json.parse::<Library>().map_err(|error| failed(&*error)))?;
        library.with_padding(None);
        library.with_truncation(None).map_err(|error| failed(&*error))?;
        if let ModelWrapper::BPE(model) = library.get_model()
            && model.dropout.is_some()
        {
            let mut model = model.clone();
            model.dropout = None;
            library.with_model(model);
        }
        // A post-processor that names what is not there shows now, not at the first text.
        guard(|| {
            library
                .encode_fast("", true)
                .map(drop)
                .map_err(|error| failed(&*error))
        })?;
        let tokens = read_tokens(&library)?;
        let added = library.get_added_tokens_decoder();
        let special: HashSet<u32> = added
            .iter()
            .filter(|(_, token)| token.special)
            .map(|(&id, _)| id)
            .collect();
        let mut roles = read_roles(&library, &special, config)?;
        let end_of_generation = roles::complete(&mut roles, |text| library.token_to_id(text));
        let texts: Vec<&str> = added
            .values()
            .filter(|token| token.special && !token.content.is_empty())
            .map(|token| token.content.as_str())
            .collect();
        let special_finder = match texts.is_empty() {
            true => None,
            false => Some(AhoCorasick::new(&texts).map_err(|error| failed(&error))?),
        };
        let pieces = read_pieces(&library);
        let added = added.keys().copied().collect();
        let tokenizer = JsonTokenizer {
            pieces,
            library,
            plain: OnceLock::new(),
            special_finder,
            special,
            added,
            tokens,
            roles,
            end_of_generation,
        };
        Ok(tokenizer.with_newline())
    }

    fn with_newline(mut self) -> JsonTokenizer {
        let options = EncodeOptions::default();
        if let Ok(&[id]) = self.encode("\n", options).as_deref()
            && Some(id) != self.special(Special::Unk)
        {
            self.roles[Special::Nl as usize] = Some(id);
        }
        self
    }

    /// The library that treats special tokens in `text` as asked.
    fn library(&self, text: &str, parse_special: bool) -> &Library {
        let holds_special = || {
            self.special_finder
                .as_ref()
                .is_some_and(|finder| finder.is_match(text))
        };
        if parse_special || !holds_special() {
            return &self.library;
        }
        self.plain.get_or_init(|| {
            let mut plain = self.library.clone();
            plain.set_encode_special_tokens(true);
            plain
        })
    }

    fn check(&self, id: u32) -> Result<usize> {
        let index = id as usize;
        if index < self.tokens.len() {
            return Ok(index);
        }
        Err(out_of_range(id, self.tokens.len()))
    }
}

impl Tokenizer for JsonTokenizer {
    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        let spaces = longest_spaces(text);
        if spaces > LONGEST_SPACES {
            return Err(Error::unsupported(format!(
                "the text holds {spaces} white space characters in a row; a tokenizer.json takes at most \
                 {LONGEST_SPACES}"
            )));
        }
        let library = self.library(text, options.parse_special);
        let encoding = guard(|| {
            library
                .encode_fast(text, options.add_special)
                .map_err(|error| failed(&*error))
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<Vec<u8>> {
        for &id in ids {
            self.check(id)?;
        }
        // The crate decodes to whole characters; bytes are exact.
        if matches!(self.pieces, Pieces::Bytes) {
            let mut bytes = Vec::new();
            for &id in ids {
                if !(skip_special && self.is_control(id)) {
                    bytes.extend_from_slice(&self.piece(id)?);
                }
            }
            return Ok(bytes);
        }
        let text = guard(|| {
            self.library
                .decode(ids, skip_special)
                .map_err(|error| failed(&*error))
        })?;
        Ok(text.into_bytes())
    }

    fn piece(&self, id: u32) -> Result<Cow<'_, [u8]>> {
        let bytes = self.tokens.get(self.check(id)?).unwrap_or_default();
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let piece = match &self.pieces {
            Pieces::Bytes if !self.added.contains(&id) => {
                text.chars().map(character_byte).collect::<Option<Vec<u8>>>()
            }
            Pieces::Marks { byte_fallback } if !self.special.contains(&id) => match byte_of(text) {
                Some(byte) if *byte_fallback => Some(vec![byte]),
                _ => Some(text.replace(MARK, " ").into_bytes()),
            },
            Pieces::WordPiece { prefix, cleanup } => Some(match text.strip_prefix(prefix.as_str()) {
                Some(rest) => rest.as_bytes().to_vec(),
                None if *cleanup && begins_without_space(text) => bytes.to_vec(),
                None => format!(" {text}").into_bytes(),
            }),
            _ => None,
        };
        Ok(piece.map_or(Cow::Borrowed(bytes), Cow::Owned))
    }

    fn vocabulary_size(&self) -> usize {
        self.tokens.len()
    }

    fn token_text(&self, id: u32) -> Option<&[u8]> {
        self.tokens.get(id as usize)
    }

    fn special(&self, which: Special) -> Option<u32> {
        self.roles[which as usize]
    }

    fn is_control(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    fn is_end_of_generation(&self, id: u32) -> bool {
        self.end_of_generation.binary_search(&id).is_ok()
    }
}

/// Runs the crate, which panics on some files that do not fit together.
fn guard<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        Err(Error::format(
            "tokenizer.json: the parts of the file do not fit together",
        ))
    })
}

fn failed(error: &(impl std::fmt::Display + ?Sized)) -> Error {
    Error::format(format!("tokenizer.json: {error}"))
}

/// The tokens by id; an id that no token has is empty.
fn read_tokens(library: &Library) -> Result<Strings> {
    let vocabulary = library.get_vocab(true);
    let mut by_id: Vec<(u32, &str)> = vocabulary.iter().map(|(text, &id)| (id, text.as_str())).collect();
    by_id.sort_unstable();
    let size = by_id.last().map_or(0, |&(id, _)| id as usize + 1);
    if size == 0 || size > by_id.len() * 2 + 65_536 {
        return Err(Error::format(format!(
            "tokenizer.json: {} tokens have ids up to {}, expected at least one, and ids without wide gaps",
            by_id.len(),
            size.saturating_sub(1)
        )));
    }
    let mut tokens = Strings::default();
    for (id, text) in by_id {
        while tokens.len() < id as usize {
            tokens.push(b"");
        }
        // Of two tokens with one id, the first in the order of texts stands.
        if tokens.len() == id as usize {
            tokens.push(text.as_bytes());
        }
    }
    Ok(tokens)
}

fn read_roles(library: &Library, special: &HashSet<u32>, config: Option<&str>) -> Result<Roles> {
    let config: Value = match config {
        None => Value::Null,
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Error::format(format!("tokenizer_config.json: {error}")))?,
    };
    let mut roles = [None; Special::COUNT];
    for (which, key, usual) in ROLES {
        let named = &config[*key];
        let named = named.as_str().or_else(|| named["content"].as_str());
        let usual = || {
            usual
                .iter()
                .filter_map(|text| library.token_to_id(text))
                .find(|id| special.contains(id))
        };
        roles[*which as usize] = match named {
            Some(text) => Some(library.token_to_id(text).ok_or_else(|| {
                Error::format(format!(
                    "tokenizer_config.json: {key} is {text:?}, which is no token of tokenizer.json"
                ))
            })?),
            None => usual(),
        };
    }
    Ok(roles)
}

/// Reads from the file's decoder how tokens are written.
fn read_pieces(library: &Library) -> Pieces {
    let decoder = library.get_decoder().map(serde_json::to_value);
    let Some(Ok(decoder)) = decoder else {
        return Pieces::Text;
    };
    let parts = match decoder["decoders"].as_array() {
        Some(parts) => parts.clone(),
        None => vec![decoder],
    };
    let find = |name: &str| parts.iter().find(|part| part["type"] == name);
    let is_mark = |part: &Value| part["pattern"]["String"] == MARK.to_string().as_str();
    let byte_fallback = find("ByteFallback").is_some();
    if find("ByteLevel").is_some() {
        Pieces::Bytes
    } else if let Some(part) = find("WordPiece") {
        Pieces::WordPiece {
            prefix: part["prefix"].as_str().unwrap_or("##").to_string(),
            cleanup: part["cleanup"].as_bool().unwrap_or(true),
        }
    } else if find("Metaspace").is_some() || byte_fallback || parts.iter().any(is_mark) {
        Pieces::Marks { byte_fallback }
    } else {
        Pieces::Text
    }
}

/// The length of the longest run of white space, in characters.
fn longest_spaces(text: &str) -> usize {
    // A run cannot be longer than the text, and most texts are short.
    if text.len() <= LONGEST_SPACES {
        return 0;
    }
    let runs = text.split(|character: char| !character.is_whitespace());
    runs.map(|run| run.chars().count()).max().unwrap_or(0)
}
