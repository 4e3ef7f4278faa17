//! Tokenizers behind one trait: from GGUF metadata and from `tokenizer.json`.
//!
//! | made from | algorithm | file |
//! | --- | --- | --- |
//! | `tokenizer.ggml.model` = `gpt2` | byte pair encoding over bytes | `byte_pair.rs` |
//! | ... `llama` | SentencePiece BPE | `sentence_piece.rs` |
//! | ... `t5` | SentencePiece unigram | `sentence_piece.rs` |
//! | ... `bert` | WordPiece | `word_piece.rs` |
//! | `tokenizer.json` | whatever the file says, by the `tokenizers` crate | `json.rs` |
//!
//! `docs/tokenizers.md` says how each was compared with its reference.

mod byte_pair;
mod charsmap;
mod json;
mod merge;
mod prefix_search;
mod roles;
mod sentence_piece;
mod space_marks;
mod split;
mod stream;
mod token_table;
mod vocabulary;
mod word_piece;

pub use stream::StreamDecoder;

use crate::base::error::{Error, Result};
use crate::format::container::Format;
use crate::format::metadata::Metadata;
use std::borrow::Cow;
use std::sync::Arc;
use vocabulary::{TokenType, Vocabulary};

/// How to encode a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Add the tokens that the model expects around a text, such as a beginning-of-sequence
    /// token. A text that starts with such a token as text gets a second one.
    pub add_special: bool,
    /// Text that is written like a control token becomes that token. Leave this off for text
    /// that comes from users.
    pub parse_special: bool,
}

/// Tokens with a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Begins a sequence.
    Bos,
    /// Ends a sequence.
    Eos,
    /// Ends a turn of a conversation.
    Eot,
    /// Ends a message that more messages of the same turn follow.
    Eom,
    /// Stands for text that has no token.
    Unk,
    /// Fills a batch up; this library never needs it.
    Pad,
    /// Separates or ends parts (BERT).
    Sep,
    /// Begins a text (BERT).
    Cls,
    /// Stands for a token to be guessed (BERT).
    Mask,
    /// A line feed.
    Nl,
}

impl Special {
    const COUNT: usize = Special::Nl as usize + 1;
}

/// Text to token ids and back. A tokenizer never changes, so that any number of threads may use
/// it at once; the same text always gives the same ids.
pub trait Tokenizer: Send + Sync {
    /// The token ids of `text`. An empty text has no ids but those that `add_special` adds.
    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>>;

    /// The text of `ids` as bytes, which are UTF-8 if the ids came from [`Tokenizer::encode`].
    /// `skip_special` leaves control tokens out. An id out of range is an error that names it.
    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<Vec<u8>>;

    /// The bytes that one token adds inside a text; maybe a part of a character. A control token
    /// gives its name. See [`StreamDecoder`].
    fn piece(&self, id: u32) -> Result<Cow<'_, [u8]>>;

    /// How many tokens there are; ids are below it.
    fn vocabulary_size(&self) -> usize;

    /// The token as the model's file writes it.
    fn token_text(&self, id: u32) -> Option<&[u8]>;

    /// The id of the token with a role, if the model has one.
    fn special(&self, which: Special) -> Option<u32>;

    /// Whether a token steers the model and is no text.
    fn is_control(&self, id: u32) -> bool;

    /// Whether a generated token ends the answer.
    fn is_end_of_generation(&self, id: u32) -> bool;
}

/// What the tokenizers of GGUF files have in common; the rest is in [`Vocabulary`].
trait Model: Send + Sync {
    fn vocabulary(&self) -> &Vocabulary;
    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>>;
    /// The bytes of a token inside a text.
    fn piece<'t>(&self, text: &'t str, token_type: TokenType) -> Cow<'t, [u8]>;
    /// Undoes at the ends of a whole text what encoding added there.
    fn finish(&self, bytes: &mut Vec<u8>);
}

impl<M: Model> Tokenizer for M {
    fn encode(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>> {
        Model::encode(self, text, options)
    }

    fn decode(&self, ids: &[u32], skip_special: bool) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for &id in ids {
            let piece = Tokenizer::piece(self, id)?;
            if !(skip_special && self.is_control(id)) {
                bytes.extend_from_slice(&piece);
            }
        }
        self.finish(&mut bytes);
        Ok(bytes)
    }

    fn piece(&self, id: u32) -> Result<Cow<'_, [u8]>> {
        let (text, token_type) = self.vocabulary().require(id)?;
        Ok(Model::piece(self, text, token_type))
    }

    fn vocabulary_size(&self) -> usize {
        self.vocabulary().table().len()
    }

    fn token_text(&self, id: u32) -> Option<&[u8]> {
        self.vocabulary().table().text(id).map(str::as_bytes)
    }

    fn special(&self, which: Special) -> Option<u32> {
        self.vocabulary().special(which)
    }

    fn is_control(&self, id: u32) -> bool {
        self.vocabulary().is_control(id)
    }

    fn is_end_of_generation(&self, id: u32) -> bool {
        self.vocabulary().is_end_of_generation(id)
    }
}

/// The kinds of tokenizer that GGUF files name in `tokenizer.ggml.model`.
const MODELS: &str = "bert, gpt2, llama, t5";

/// The tokenizer that a GGUF file describes. Unknown kinds and splitting patterns, and tables
/// that do not fit together, are errors that name the key.
pub fn from_metadata(metadata: &Metadata) -> Result<Arc<dyn Tokenizer>> {
    const MODEL: &str = "tokenizer.ggml.model";
    match metadata.required_str(MODEL)? {
        "bert" => Ok(Arc::new(word_piece::WordPiece::from_metadata(metadata)?)),
        "gpt2" => Ok(Arc::new(byte_pair::BytePair::from_metadata(metadata)?)),
        "llama" => Ok(Arc::new(sentence_piece::SentencePiece::byte_pair(metadata)?)),
        "t5" => Ok(Arc::new(sentence_piece::SentencePiece::unigram(metadata)?)),
        other => Err(Error::unsupported(format!(
            "{MODEL} is {other:?}, which is not known; known are {MODELS}"
        ))),
    }
}

/// The tokenizer of a model: from its metadata, or from the files in its folder.
pub fn of_model(model: &crate::model::model::Model) -> Result<Arc<dyn Tokenizer>> {
    if model.format() == Format::Gguf {
        return from_metadata(model.metadata());
    }
    let json = model.sidecar("tokenizer.json")?.ok_or_else(|| {
        Error::not_found("the model's folder has no tokenizer.json, which is needed to read text")
    })?;
    let config = model.sidecar("tokenizer_config.json")?;
    from_tokenizer_json(&json, config.as_deref())
}

/// The tokenizer of a `tokenizer.json`; `config` is the `tokenizer_config.json` beside it, which names the
/// tokens with a role. Padding, truncation and dropout in the file are switched off: a text gives all of its
/// ids and nothing else, and always the same ones. Which tokens `add_special` adds is said by the file's
/// post-processor.
pub fn from_tokenizer_json(json: &str, config: Option<&str>) -> Result<Arc<dyn Tokenizer>> {
    Ok(Arc::new(json::JsonTokenizer::new(json, config)?))
}
