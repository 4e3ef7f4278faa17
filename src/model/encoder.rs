//! What all encoders share: their numbers, their buffers, and the trait that an architecture fills in.

use super::config::{Config, MOST_LAYERS, MOST_WIDTH, bounded, positive};
use super::plan::Carver;
use super::rope::Rope;
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Status};
use crate::base::matrix::{MatrixMut, Pieces};
use crate::format::metadata::Metadata;
use crate::kernels::attention::{MAX_ROWS, scratch_length, value_dim};
use crate::kernels::simd::LANES;
use crate::ops::attention::Heads;
use crate::ops::linear::{GATED_SCRATCH, Linear, rows_per_chunk};
use crate::ops::profile::Recorder;
use crate::ops::ragged::{Ragged, Store};
use crate::ops::runtime::Runtime;
use crate::quant::activations::{ActivationMemory, Form};
use crate::quant::packed::PackedMatrix;

/// Numbers of an encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Transformer blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub embedding: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Width of the feed-forward network.
    pub feed_forward: usize,
    /// Tokens of the vocabulary.
    pub vocabulary: usize,
    /// Positions that the model was trained for.
    pub context: usize,
    /// Added to the mean square or the variance in norms.
    pub epsilon: f32,
    /// Rotary embeddings that the layers use; none for tables of positions.
    pub ropes: Vec<Rope>,
}

impl EncoderConfig {
    /// Reads the keys of `architecture`; `epsilon` names its last key. The ropes are left to the architecture.
    pub fn read(
        metadata: &Metadata,
        architecture: &str,
        vocabulary: usize,
        epsilon: &str,
    ) -> Result<EncoderConfig> {
        let key = |name: &str| format!("{architecture}.{name}");
        let number = |name: &str, most: usize| {
            let value = metadata.required_u32(&key(name))? as usize;
            bounded(&key(name), value, most)
        };
        let optional = |name: &str, default: usize| match metadata.u32(&key(name))? {
            Some(value) => bounded(&key(name), value as usize, MOST_WIDTH),
            None => Ok(default),
        };
        let embedding = number("embedding_length", MOST_WIDTH)?;
        let heads = number("attention.head_count", MOST_WIDTH)?;
        let kv_heads = optional("attention.head_count_kv", heads)?;
        let head_dim = optional("attention.key_length", embedding / heads)?;
        let value_dim = optional("attention.value_length", head_dim)?;
        if heads % kv_heads != 0 || heads / kv_heads > MAX_ROWS {
            return Err(Error::format(format!(
                "metadata key {}: {heads} query heads cannot share {kv_heads} key heads, evenly and at most {MAX_ROWS} each",
                key("attention.head_count_kv")
            )));
        }
        if head_dim == 0 || value_dim != head_dim {
            return Err(Error::unsupported(format!(
                "keys of {head_dim} and values of {value_dim} per head; expected the same number, above 0"
            )));
        }
        let config = EncoderConfig {
            layers: number("block_count", MOST_LAYERS)?,
            embedding,
            heads,
            kv_heads,
            head_dim,
            feed_forward: number("feed_forward_length", MOST_WIDTH)?,
            vocabulary,
            context: number("context_length", 1 << 24)?,
            epsilon: positive(&key(epsilon), metadata, None)?,
            ropes: Vec::new(),
        };
        bounded("heads x head size", heads * head_dim, 1 << 28)?;
        Ok(config)
    }

    /// The numbers of a decoder that embeds texts.
    pub fn of_decoder(config: &Config) -> EncoderConfig {
        EncoderConfig {
            layers: config.layers,
            embedding: config.embedding,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            feed_forward: config.feed_forward,
            vocabulary: config.vocabulary,
            context: config.context,
            epsilon: config.epsilon,
            ropes: config.ropes.clone(),
        }
    }

    /// How queries, keys and values stand.
    pub fn heads(&self) -> Heads {
        Heads {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// An architecture of encoders: one file each.
pub trait Encoder: Send + Sync {
    /// The numbers.
    fn config(&self) -> &EncoderConfig;

    /// The matrices that multiply activations.
    fn matrices(&self) -> Vec<&PackedMatrix>;

    /// Bytes of all packed weights that a token meets.
    fn bytes_per_token(&self) -> u64 {
        self.matrices()
            .iter()
            .map(|matrix| matrix.bytes().len() as u64)
            .sum()
    }

    /// Runs the tokens of the documents of `batch` through all layers. Their vectors end in `buffers.x`.
    /// The tokens are below the vocabulary, the documents no longer than the context.
    fn forward(
        &self,
        runtime: &Runtime,
        tokens: &[u32],
        batch: &Ragged,
        buffers: &mut EncoderBuffers<'_>,
        cancel: Option<&Cancel>,
    ) -> Result<()>;
}

/// An error when the caller has had enough.
pub fn check_cancel(cancel: Option<&Cancel>) -> Result<()> {
    if cancel.is_some_and(Cancel::is_fired) {
        return Err(cancelled());
    }
    Ok(())
}

/// The error of a call that the caller ended.
pub fn cancelled() -> Error {
    Error::new(Status::Cancelled, "embedding was cancelled")
}

/// The form of activations of a layer's matrices; an error when they need different ones.
pub fn one_form(linear: &Linear, place: &str) -> Result<Form> {
    linear.form().ok_or_else(|| {
        let types: Vec<&str> = linear
            .parts()
            .iter()
            .map(|part| part.layout().dtype.name())
            .collect();
        Error::unsupported(format!(
            "{place}: the matrices are {}; they must all be quantized, or all be floats of one kind",
            types.join(", ")
        ))
    })
}

/// The only matrix of a [`Linear`] of one.
pub fn single(matrix: PackedMatrix, bias: Option<Vec<f32>>) -> Result<Linear> {
    Linear::new(vec![matrix], bias)
}

/// `x[row] = fill(row)`, on all threads.
pub fn fill_rows(runtime: &Runtime, x: &mut [f32], width: usize, fill: impl Fn(usize, &mut [f32]) + Sync) {
    let rows = x.len() / width;
    let per_chunk = rows_per_chunk(rows, width);
    let pieces = Pieces::new(x, per_chunk * width);
    runtime
        .pool()
        .divide(rows.div_ceil(per_chunk), pieces, |chunk, part| {
            for (index, row) in part.chunks_exact_mut(width).enumerate() {
                fill(chunk * per_chunk + index, row);
            }
        });
}

/// A dense view of the first `rows` rows of a buffer.
pub fn matrix(values: &mut [f32], rows: usize, columns: usize) -> MatrixMut<'_, f32> {
    match MatrixMut::new(values, rows, columns, columns) {
        Some(matrix) => matrix,
        None => unreachable!("the plan carved {rows} x {columns}"),
    }
}

/// How large the memory of an embedder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderLimits {
    /// Most tokens of a document.
    pub context: usize,
    /// Most tokens of a pass.
    pub tokens: usize,
    /// Most panels of 16 keys of a pass.
    pub panels: usize,
    /// Most documents of a pass.
    pub documents: usize,
    /// Threads of the runtime.
    pub threads: usize,
    /// The form of activations that needs the most memory.
    pub form: Form,
    /// Widest of the dense layers behind the encoder; 0 for none.
    pub dense: usize,
    /// As `form`, of the dense layers.
    pub dense_form: Form,
}

/// Panels that passes of `tokens` tokens have room for: full ones, and some that short documents leave unfilled.
pub fn panels(tokens: usize) -> usize {
    tokens.div_ceil(LANES) + (tokens / LANES).min(96)
}

/// Every buffer of a pass.
pub struct EncoderBuffers<'a> {
    /// `[position][dims / 2]` of each rope.
    pub cosine: [&'a mut [f32]; 2],
    /// As `cosine`.
    pub sine: [&'a mut [f32]; 2],
    /// Residual stream `[token][embedding]`.
    pub x: &'a mut [f32],
    /// Queries, keys and values `[token][(heads + 2 kv_heads) * head_dim]`.
    pub qkv: &'a mut [f32],
    /// Output of attention, then of a matrix product that is normalized before it is added.
    pub side: &'a mut [f32],
    /// Keys and values in the layout of the attention kernel.
    pub store: Store<'a>,
    /// Inputs of a matmul.
    pub activations: ActivationMemory<'a>,
    /// Hidden values of the feed-forward network, as inputs of its last matmul.
    pub hidden: ActivationMemory<'a>,
    /// One piece for each thread.
    pub scratch: &'a mut [f32],
    /// `[document][embedding]`, or the widest of the dense layers.
    pub pooled: [&'a mut [f32]; 2],
    /// Inputs of the dense layers.
    pub dense_inputs: ActivationMemory<'a>,
    /// Notes where the time goes.
    pub recorder: Recorder<'a>,
}

/// Carves the buffers.
pub fn carve<'a>(
    carver: &mut Carver<'a>,
    config: &EncoderConfig,
    limits: &EncoderLimits,
) -> Result<EncoderBuffers<'a>> {
    let heads = config.heads();
    let queries = config.heads * config.head_dim;
    let widest = config.embedding.max(queries);
    let scratch = scratch_length(MAX_ROWS, config.head_dim)
        .max(GATED_SCRATCH)
        .max(widest)
        .max(limits.dense);
    let slots = [config.kv_heads, limits.panels, LANES];
    let tables = |carver: &mut Carver<'a>| -> Result<[&'a mut [f32]; 2]> {
        let half = |index: usize| config.ropes.get(index).map_or(0, |rope| rope.dims / 2);
        Ok([
            carver.take(&[limits.context, half(0)])?,
            carver.take(&[limits.context, half(1)])?,
        ])
    };
    let pooled = config.embedding.max(limits.dense);
    Ok(EncoderBuffers {
        cosine: tables(carver)?,
        sine: tables(carver)?,
        x: carver.take(&[limits.tokens, config.embedding])?,
        qkv: carver.take(&[limits.tokens, heads.stride()])?,
        side: carver.take(&[limits.tokens, widest])?,
        store: Store {
            keys: carver.take(&[slots[0], slots[1], slots[2], 4, config.head_dim])?,
            values: carver.take(&[slots[0], slots[1], slots[2], 4, value_dim(config.head_dim)])?,
        },
        activations: carver.activations(limits.tokens, widest, limits.form)?,
        hidden: carver.activations(limits.tokens, config.feed_forward, limits.form)?,
        scratch: carver.take(&[limits.threads, scratch.next_multiple_of(LANES)])?,
        pooled: [
            carver.take(&[limits.documents, pooled])?,
            carver.take(&[limits.documents, limits.dense])?,
        ],
        dense_inputs: match limits.dense {
            0 => carver.activations(0, 0, limits.dense_form)?,
            _ => carver.activations(limits.documents, pooled, limits.dense_form)?,
        },
        recorder: Recorder::default(),
    })
}
