//! Texts to embeddings: prompts, token ids, and documents that are too long.

use super::tokenizer::{EncodeOptions, Tokenizer};
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Status, Within};
use crate::base::matrix::{MatrixMut, Pieces};
use crate::model::embed::{Documents, EmbedOptions, Embedder, Watch};
use crate::model::encoder::check_cancel;
use crate::model::pooling::Pooling;
use crate::ops::profile::Op;
use crate::ops::runtime::Runtime;

/// Texts: text i is `bytes[offsets[i]..offsets[i + 1]]`, UTF-8.
#[derive(Clone, Copy, Debug)]
pub struct Texts<'a> {
    /// All texts, one after another.
    pub bytes: &'a [u8],
    /// One more than there are texts, from 0 on, never falling.
    pub offsets: &'a [usize],
}

/// Token ids of texts, laid out as [`Documents`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokenized {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// One more than there are texts.
    pub offsets: Vec<usize>,
}

impl Tokenized {
    /// The documents.
    pub fn documents(&self) -> Documents<'_> {
        Documents {
            tokens: &self.tokens,
            offsets: &self.offsets,
        }
    }
}

/// How many tokens a text may have.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// Most tokens.
    pub tokens: usize,
    /// Cut what is longer, instead of refusing it.
    pub truncate: bool,
}

/// Texts of a chunk of work.
const CHUNK: usize = 8;

/// The ids of every text behind `prompt`, with the tokens that the model expects around a text, on all threads.
///
/// A text that is cut keeps the token that closes it. An empty text has the tokens around it only. Errors name the number
/// of the text.
pub fn tokenize(
    runtime: &Runtime,
    tokenizer: &dyn Tokenizer,
    texts: &Texts<'_>,
    prompt: &str,
    limit: Limit,
    cancel: Option<&Cancel>,
) -> Result<Tokenized> {
    let count = texts.offsets.len().saturating_sub(1);
    let mut results: Vec<Result<Vec<u32>>> = Vec::new();
    reserve(&mut results, count)?;
    results.resize(count, Ok(Vec::new()));
    let pieces = Pieces::new(&mut results, CHUNK);
    runtime
        .pool()
        .divide(count.div_ceil(CHUNK), pieces, |chunk, results| {
            for (index, result) in results.iter_mut().enumerate() {
                let index = chunk * CHUNK + index;
                *result = check_cancel(cancel).and_then(|()| {
                    ids(tokenizer, texts, index, prompt, limit).within(|| format!("text {index}"))
                });
            }
        });
    let mut tokenized = Tokenized {
        tokens: Vec::new(),
        offsets: Vec::new(),
    };
    reserve(&mut tokenized.offsets, count + 1)?;
    tokenized.offsets.push(0);
    for result in results {
        let ids = result?;
        reserve(&mut tokenized.tokens, ids.len())?;
        tokenized.tokens.extend(ids);
        tokenized.offsets.push(tokenized.tokens.len());
    }
    Ok(tokenized)
}

fn reserve<T>(list: &mut Vec<T>, count: usize) -> Result<()> {
    list.try_reserve(count)
        .map_err(|_| Error::no_memory(format!("cannot allocate a list of {count}")))
}

fn ids(
    tokenizer: &dyn Tokenizer,
    texts: &Texts<'_>,
    index: usize,
    prompt: &str,
    limit: Limit,
) -> Result<Vec<u32>> {
    let (start, end) = (texts.offsets[index], texts.offsets[index + 1]);
    let bytes = texts.bytes.get(start..end).ok_or_else(|| {
        Error::invalid(format!(
            "it goes from byte {start} to {end}; offsets must not fall, nor exceed the {} bytes",
            texts.bytes.len()
        ))
    })?;
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::invalid(format!("byte {} is not UTF-8", error.valid_up_to())))?;
    let options = EncodeOptions {
        add_special: true,
        parse_special: false,
    };
    let mut ids = if prompt.is_empty() {
        tokenizer.encode(text, options)?
    } else {
        tokenizer.encode(&[prompt, text].concat(), options)?
    };
    if ids.is_empty() {
        return Err(Error::invalid(
            "it has no tokens, and the model puts none around a text",
        ));
    }
    if ids.len() > limit.tokens {
        if !limit.truncate {
            return Err(Error::invalid(format!(
                "it has {} tokens; at most {} are possible unless texts are truncated",
                ids.len(),
                limit.tokens
            )));
        }
        let closing = ids.last().copied().filter(|&id| tokenizer.is_control(id));
        ids.truncate(limit.tokens);
        if let (Some(closing), Some(last)) = (closing, ids.last_mut()) {
            *last = closing;
        }
    }
    Ok(ids)
}

/// Writes the embeddings of texts, each behind the model's prompt of the name `prompt` where one is asked for, into the
/// rows of `out`. See [`Embedder::embed`].
pub fn embed_texts(
    embedder: &mut Embedder,
    tokenizer: &dyn Tokenizer,
    texts: &Texts<'_>,
    prompt: Option<&str>,
    options: &EmbedOptions,
    out: MatrixMut<'_, f32>,
    watch: &mut Watch<'_>,
) -> Result<()> {
    if embedder.pooling(options)? == Pooling::None {
        return Err(Error::new(
            Status::InvalidArgument,
            "without pooling there is a row for each token: make the token ids first and embed them",
        ));
    }
    let model = embedder.model().clone();
    let prompt = match prompt {
        Some(name) => model.embedding()?.prompt(name)?,
        None => "",
    };
    let begun = embedder.profiler().begin();
    let tokenized = tokenize(
        model.runtime(),
        tokenizer,
        texts,
        prompt,
        Limit {
            tokens: embedder.max_tokens(),
            truncate: options.truncate,
        },
        watch.cancel,
    )?;
    embedder.profiler().step(begun, Op::Tokenization);
    embedder.embed(&tokenized.documents(), options, out, watch)
}
