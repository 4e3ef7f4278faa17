//! An embedder: the memory in which documents become embeddings. One thread at a time.

use super::dense::Dense;
use super::encoder::{EncoderBuffers, EncoderConfig, EncoderLimits, cancelled, carve, matrix};
use super::model::Model;
use super::plan::Carver;
use super::pooling::{Pooling, normalize, pool};
use super::weights::Progress;
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result};
use crate::base::matrix::MatrixMut;
use crate::base::memory::Buffer;
use crate::ops::linear::Input;
use crate::ops::profile::{Op, Profile, Profiler, Work};
use crate::ops::ragged::Ragged;
use crate::ops::rope;
use crate::ops::runtime::Runtime;
use crate::quant::activations::Form;
use crate::quant::packed::PackedMatrix;
use std::sync::Arc;

/// How large an embedder is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedderOptions {
    /// Most tokens of a document; 0 for as many as the model was trained for, at most 8192.
    pub max_tokens: u32,
    /// The most bytes that the embedder may take; 0 for no limit.
    pub memory_limit: u64,
}

/// How embeddings are made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbedOptions {
    /// How token vectors become one; `None` for what the model's file says.
    pub pooling: Option<Pooling>,
    /// Whether embeddings get length 1; `None` for what the model's files say (token vectors: no).
    pub normalize: Option<bool>,
    /// Cut embeddings to this many values (before they are normalized), for models trained so (Kusupati et al. 2022);
    /// 0 for all.
    pub dimensions: u32,
    /// Leave tokens out at the end of documents that are too long, instead of refusing them.
    pub truncate: bool,
}

/// Watches a call, and may end it with [`Status::Cancelled`](crate::base::error::Status).
#[derive(Default)]
pub struct Watch<'a> {
    /// Ends it when fired.
    pub cancel: Option<&'a Cancel>,
    /// Called with the tokens done and in all, after every pass; false ends it.
    pub progress: Option<Progress<'a>>,
}

impl Watch<'_> {
    /// An error when the caller has had enough.
    fn report(&mut self, done: usize, total: usize) -> Result<()> {
        let go_on = match &mut self.progress {
            Some(progress) => progress(done as u64, total as u64),
            None => true,
        };
        if go_on { Ok(()) } else { Err(cancelled()) }
    }
}

/// Documents: the tokens of document i are `tokens[offsets[i]..offsets[i + 1]]`, with the tokens that the model expects
/// around a text.
#[derive(Clone, Copy, Debug)]
pub struct Documents<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// One more than there are documents, from 0 up to the number of tokens.
    pub offsets: &'a [usize],
}

/// Tokens of a pass, unless a document is longer: activations of so many stay in the caches, and more gain nothing.
const PASS_TOKENS: usize = 512;

/// Documents of a pass.
const PASS_DOCUMENTS: usize = 128;

/// Largest default for the tokens of a document: memory grows with it.
const DEFAULT_TOKENS: usize = 8192;

/// An embedder of a model.
pub struct Embedder {
    model: Arc<Model>,
    limits: EncoderLimits,
    arena: Buffer,
    bytes: u64,
    tokens: Vec<u32>,
    batch: Ragged,
    profiler: Profiler,
}

impl Embedder {
    /// The bytes that an embedder needs, computed before anything is allocated.
    pub fn bytes(model: &Model, options: &EmbedderOptions) -> Result<u64> {
        model.embedding()?;
        let limits = read_options(model, options)?;
        measure(model.encoder().config(), &limits)
    }

    /// An embedder in `arena`, or in memory of its own.
    pub fn new(model: &Arc<Model>, options: &EmbedderOptions, arena: Option<Buffer>) -> Result<Embedder> {
        let limits = read_options(model, options)?;
        let bytes = Embedder::bytes(model, options)?;
        if options.memory_limit > 0 && bytes > options.memory_limit {
            return Err(Error::no_memory(format!(
                "the embedder needs {bytes} bytes, more than its memory limit of {}",
                options.memory_limit
            )));
        }
        let needed = usize::try_from(bytes).map_err(|_| Error::no_memory("the embedder is too large"))?;
        let mut arena = match arena {
            Some(arena) if arena.bytes().len() < needed => {
                return Err(Error::no_memory(format!(
                    "the arena has {} bytes; the embedder needs {needed}",
                    arena.bytes().len()
                )));
            }
            Some(arena) => arena,
            None => model.runtime().allocator().buffer(needed)?,
        };
        let config = model.encoder().config();
        let buffers = carve(&mut Carver::cutting(arena.bytes_mut()), config, &limits)?;
        let tables = buffers.cosine.into_iter().zip(buffers.sine);
        for (rope, (cosine, sine)) in config.ropes.iter().zip(tables) {
            let (mut frequencies, magnitude) = rope.frequencies();
            frequencies
                .iter_mut()
                .for_each(|frequency| *frequency /= f64::from(rope.scale));
            rope::fill_tables_of(&frequencies, magnitude, cosine, sine)?;
        }
        let mut tokens = Vec::new();
        tokens
            .try_reserve_exact(limits.tokens)
            .map_err(|_| Error::no_memory("cannot allocate the tokens of a pass"))?;
        Ok(Embedder {
            model: model.clone(),
            limits,
            arena,
            bytes,
            tokens,
            batch: Ragged::with_room(limits.tokens)?,
            profiler: Profiler::default(),
        })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Most tokens of a document.
    pub fn max_tokens(&self) -> usize {
        self.limits.context
    }

    /// The bytes that the embedder holds.
    pub fn memory(&self) -> u64 {
        self.bytes
    }

    /// Values of a row that these options give.
    pub fn dimensions(&self, options: &EmbedOptions) -> Result<usize> {
        let full = match options.pooling {
            Some(Pooling::None) => self.model.encoder().config().embedding,
            _ => self.model.embedding()?.dimensions as usize,
        };
        match options.dimensions as usize {
            0 => Ok(full),
            asked if asked <= full => Ok(asked),
            asked => Err(Error::invalid(format!(
                "dimensions is {asked}; the model's embeddings have {full}"
            ))),
        }
    }

    /// The pooling that these options give.
    pub fn pooling(&self, options: &EmbedOptions) -> Result<Pooling> {
        Ok(options.pooling.unwrap_or(self.model.embedding()?.pooling))
    }

    /// Rows that these documents give: one for each, or with [`Pooling::None`] one for each token.
    pub fn rows(&self, documents: &Documents<'_>, options: &EmbedOptions) -> Result<usize> {
        let count = self.check(documents, options)?;
        if self.pooling(options)? != Pooling::None {
            return Ok(count);
        }
        let lengths = documents.offsets.windows(2).map(|pair| pair[1] - pair[0]);
        Ok(lengths.map(|length| length.min(self.limits.context)).sum())
    }

    /// Writes the embeddings of the documents, in their order, into the rows of `out`.
    ///
    /// An embedding is the same bits whatever other documents are in the call, with any number of threads and on any
    /// instruction set. Everything is checked before any work; after [`Status::Cancelled`](crate::base::error::Status)
    /// some rows may have been written. Nothing is allocated.
    pub fn embed(
        &mut self,
        documents: &Documents<'_>,
        options: &EmbedOptions,
        out: MatrixMut<'_, f32>,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let begun = self.profiler.begin();
        let result = self.run(documents, options, out, watch);
        self.profiler.end(begun, documents.tokens.len());
        result
    }

    /// Profiles the calls from now on, from zero; or stops, and forgets the profile.
    pub fn set_profiling(&mut self, on: bool) -> Result<()> {
        if on {
            return self.profiler.switch_on(self.model.encoder().config().layers);
        }
        self.profiler.switch_off();
        Ok(())
    }

    /// Where the time of the calls went; `None` when profiling is off.
    pub fn profile(&self) -> Option<&Profile> {
        self.profiler.profile()
    }

    /// Takes the time of what happens before [`Embedder::embed`].
    pub fn profiler(&mut self) -> &mut Profiler {
        &mut self.profiler
    }

    fn run(
        &mut self,
        documents: &Documents<'_>,
        options: &EmbedOptions,
        mut out: MatrixMut<'_, f32>,
        watch: &mut Watch<'_>,
    ) -> Result<()> {
        let rows = self.rows(documents, options)?;
        let dimensions = self.dimensions(options)?;
        if out.rows() != rows || out.columns() != dimensions {
            return Err(Error::invalid(format!(
                "the output is {} x {}; the embeddings are {rows} x {dimensions}",
                out.rows(),
                out.columns()
            )));
        }
        let count = documents.offsets.len().saturating_sub(1);
        let (mut document, mut row) = (0, 0);
        while document < count {
            document = self.fill_batch(documents, document)?;
            row += self.pass(options, row, &mut out, watch.cancel)?;
            watch.report(documents.offsets[document], documents.tokens.len())?;
        }
        Ok(())
    }

    /// Takes as many documents as go through the layers at once, from `first` on; returns the one to go on with.
    fn fill_batch(&mut self, documents: &Documents<'_>, first: usize) -> Result<usize> {
        let group = self.model.encoder().config().group();
        self.tokens.clear();
        self.batch.clear();
        let mut next = first;
        for pair in documents.offsets[first..].windows(2).take(self.limits.documents) {
            let length = (pair[1] - pair[0]).min(self.limits.context);
            let full = self.tokens.len() + length > PASS_TOKENS.min(self.limits.tokens)
                || !self.batch.has_room(length, self.limits.panels);
            if full && next > first {
                break;
            }
            self.tokens
                .extend_from_slice(&documents.tokens[pair[0]..pair[0] + length]);
            self.batch.push(length, group);
            next += 1;
        }
        Ok(next)
    }

    /// Runs the batch and writes its rows from `first` on; returns how many.
    fn pass(
        &mut self,
        options: &EmbedOptions,
        first: usize,
        out: &mut MatrixMut<'_, f32>,
        cancel: Option<&Cancel>,
    ) -> Result<usize> {
        let (pooling, dimensions) = (self.pooling(options)?, self.dimensions(options)?);
        let encoder = self.model.encoder();
        let info = self.model.embedding()?;
        let width = encoder.config().embedding;
        let arena = &mut Carver::cutting(self.arena.bytes_mut());
        let mut buffers = carve(arena, encoder.config(), &self.limits)?;
        buffers.recorder = self.profiler.recorder();
        let runtime = self.model.runtime();
        encoder.forward(runtime, &self.tokens, &self.batch, &mut buffers, cancel)?;
        let mut recorder = std::mem::take(&mut buffers.recorder);
        let is_pooled = pooling != Pooling::None;
        let (rows, count) = if is_pooled {
            let documents = self.batch.documents();
            for (document, to) in documents.iter().zip(buffers.pooled[0].chunks_exact_mut(width)) {
                let tokens = &buffers.x[document.row * width..][..document.tokens * width];
                pool(pooling, tokens, to);
            }
            recorder.mark(Op::Pooling, || Work::values(self.tokens.len() * width, 1, 4));
            let layers = self.model.dense();
            let rows = apply_dense(runtime, layers, documents.len(), width, &mut buffers);
            if !layers.is_empty() {
                let parts = layers.iter().flat_map(|layer| layer.linear.parts());
                recorder.mark(Op::Dense, || Work::product(parts, documents.len(), 4));
            }
            (rows, documents.len())
        } else {
            (&*buffers.x, self.tokens.len())
        };
        let full = match is_pooled {
            true => info.dimensions as usize,
            false => width,
        };
        for (index, row) in rows.chunks_exact(full).take(count).enumerate() {
            let to = out.row(first + index);
            to.copy_from_slice(&row[..dimensions]);
            if options.normalize.unwrap_or(is_pooled && info.normalize) {
                normalize(to);
            }
        }
        recorder.mark(Op::Normalize, || Work::values(count * dimensions, 3, 16));
        Ok(count)
    }

    /// Checks the documents; returns how many there are.
    fn check(&self, documents: &Documents<'_>, options: &EmbedOptions) -> Result<usize> {
        let Documents { tokens, offsets } = *documents;
        let Some((&0, rest)) = offsets.split_first() else {
            return Err(Error::invalid(
                "the offsets must begin with 0, also where there are no documents",
            ));
        };
        let mut start = 0;
        for (index, &end) in rest.iter().enumerate() {
            let problem = if end < start || end > tokens.len() {
                format!(
                    "its tokens go from {start} to {end}; offsets must not fall, nor exceed the {} tokens",
                    tokens.len()
                )
            } else if end == start {
                "it has no tokens".to_owned()
            } else if end - start > self.limits.context && !options.truncate {
                format!(
                    "it has {} tokens; at most {} are possible unless documents are truncated",
                    end - start,
                    self.limits.context
                )
            } else {
                start = end;
                continue;
            };
            return Err(Error::invalid(problem).within(format!("document {index}")));
        }
        if start != tokens.len() {
            return Err(Error::invalid(format!(
                "the last offset is {start}, but there are {} tokens",
                tokens.len()
            )));
        }
        let vocabulary = self.model.encoder().config().vocabulary;
        if let Some(index) = tokens.iter().position(|&token| token as usize >= vocabulary) {
            let document = rest.partition_point(|&end| end <= index);
            let problem = format!(
                "token {} is {}, outside of the vocabulary of {vocabulary}",
                index - offsets[document],
                tokens[index] as i32
            );
            return Err(Error::invalid(problem).within(format!("document {document}")));
        }
        Ok(rest.len())
    }
}

/// Runs the pooled rows through the dense layers; returns the rows that came out.
fn apply_dense<'b>(
    runtime: &Runtime,
    layers: &[Dense],
    count: usize,
    width: usize,
    buffers: &'b mut EncoderBuffers<'_>,
) -> &'b [f32] {
    let [first, second] = &mut buffers.pooled;
    let (mut from, mut to): (&mut [f32], &mut [f32]) = (first, second);
    let mut columns = width;
    for layer in layers {
        let input = Input {
            values: from,
            stride: columns,
            columns,
            tokens: count,
            rows: None,
            norm: None,
        };
        let rows = layer.linear.rows();
        layer.linear.apply(
            runtime,
            &input,
            &mut buffers.dense_inputs,
            buffers.scratch,
            matrix(to, count, rows),
            false,
        );
        layer.activation.apply(&mut to[..count * rows]);
        columns = rows;
        std::mem::swap(&mut from, &mut to);
    }
    from
}

fn read_options(model: &Model, options: &EmbedderOptions) -> Result<EncoderLimits> {
    let encoder = model.encoder();
    let config = encoder.config();
    let context = match options.max_tokens as usize {
        0 => config.context.min(DEFAULT_TOKENS),
        asked if asked <= config.context => asked,
        asked => {
            return Err(Error::invalid(format!(
                "max_tokens is {asked}; the model was trained for {} positions",
                config.context
            )));
        }
    };
    let tokens = context.max(PASS_TOKENS);
    let forms = |matrices: &[&PackedMatrix]| {
        let forms = matrices.iter().map(|matrix| Form::of(matrix.layout().dtype));
        forms.max().unwrap_or(Form::F32)
    };
    let layers = model.dense().iter();
    let dense: Vec<&PackedMatrix> = layers.flat_map(|layer| layer.linear.parts()).collect();
    Ok(EncoderLimits {
        context,
        tokens,
        panels: super::encoder::panels(tokens),
        documents: PASS_DOCUMENTS,
        threads: model.runtime().threads(),
        form: forms(&encoder.matrices()),
        dense: dense.iter().map(|matrix| matrix.rows()).max().unwrap_or(0),
        dense_form: forms(&dense),
    })
}

fn measure(config: &EncoderConfig, limits: &EncoderLimits) -> Result<u64> {
    let mut carver = Carver::counting();
    carve(&mut carver, config, limits)?;
    Ok(carver.used() as u64)
}
