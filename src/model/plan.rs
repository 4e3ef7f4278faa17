//! The plan: every buffer of a forward pass, sized and carved by the same code, so that the two cannot disagree.

use super::config::Config;
use crate::base::error::{Error, Result};
use crate::base::memory::{ALIGNMENT, Plain, cast_mut};
use crate::format::dtype::DataType;
use crate::kernels::attention::{MAX_ROWS, scratch_length, value_dim};
use crate::kernels::simd::LANES;
use crate::ops::linear::GATED_SCRATCH;
use crate::ops::profile::Recorder;
use crate::quant::activations::{ActivationMemory, Form};
use crate::quant::packed::BLOCK;

/// How large a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Positions of a sequence.
    pub context: usize,
    /// Tokens that go through the layers at once.
    pub tokens: usize,
    /// Sequences that are kept.
    pub sequences: usize,
    /// Rows of logits of one call.
    pub rows: usize,
    /// Type of cached keys: F32 or F16.
    pub key_type: DataType,
    /// Type of cached values: F32 or F16.
    pub value_type: DataType,
    /// Threads of the runtime.
    pub threads: usize,
}

/// Every buffer of a forward pass.
pub struct Buffers<'a> {
    /// Keys: `[layer][head][sequence]`, each [`Buffers::key_bytes`] of panels `[panel][dim][16]`.
    pub keys: &'a mut [u8],
    /// Values: `[layer][head][sequence]`, each `context` rows of padded heads.
    pub values: &'a mut [u8],
    /// `[position][dims / 2]` of each rope.
    pub cosine: [&'a mut [f32]; 2],
    /// As `cosine`.
    pub sine: [&'a mut [f32]; 2],
    /// Residual stream `[token][embedding]`.
    pub x: &'a mut [f32],
    /// Queries, keys and values `[token][(heads + 2 kv_heads) * head_dim]`.
    pub qkv: &'a mut [f32],
    /// Output of attention `[token][heads * head_dim]`, then of a matrix product that is normalized before it is added.
    pub attended: &'a mut [f32],
    /// Inputs of a matmul.
    pub activations: ActivationMemory<'a>,
    /// Hidden values of the feed-forward network, as inputs of its last matmul.
    pub hidden: ActivationMemory<'a>,
    /// One piece for each thread.
    pub scratch: &'a mut [f32],
    /// `[row][2][vocabulary]`: the logits, and memory used on the way to them.
    pub logits: &'a mut [f32],
    /// Notes where the time goes.
    pub recorder: Recorder<'a>,
}

/// Cuts buffers off a block of memory, or only counts what they would take.
pub struct Carver<'a> {
    memory: Option<&'a mut [u8]>,
    used: usize,
}

impl<'a> Carver<'a> {
    /// Counts.
    pub fn counting() -> Carver<'a> {
        Carver {
            memory: None,
            used: 0,
        }
    }

    /// Cuts `memory`, which must be aligned to 64.
    pub fn cutting(memory: &'a mut [u8]) -> Carver<'a> {
        Carver {
            memory: Some(memory),
            used: 0,
        }
    }

    /// Bytes taken so far.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The next buffer, of the product of `dimensions` values; empty when only counting.
    pub(super) fn take<T: Plain>(&mut self, dimensions: &[usize]) -> Result<&'a mut [T]> {
        let overflow = || Error::no_memory("a session of this size needs more bytes than can be addressed");
        let count = dimensions
            .iter()
            .try_fold(1usize, |product, &n| product.checked_mul(n));
        let bytes = count
            .and_then(|count| count.checked_mul(size_of::<T>()))
            .ok_or_else(overflow)?;
        let padded = bytes.checked_next_multiple_of(ALIGNMENT).ok_or_else(overflow)?;
        self.used = self
            .used
            .checked_add(padded)
            .filter(|&used| isize::try_from(used).is_ok())
            .ok_or_else(overflow)?;
        let Some(memory) = self.memory.take() else {
            return Ok(&mut []);
        };
        if memory.len() < padded {
            return Err(Error::no_memory(format!(
                "the arena is too small: {} bytes more are needed",
                padded - memory.len()
            )));
        }
        let (part, rest) = memory.split_at_mut(padded);
        self.memory = Some(rest);
        cast_mut(&mut part[..bytes])
            .ok_or_else(|| Error::invalid(format!("the arena is not aligned to {ALIGNMENT} bytes")))
    }

    pub(super) fn activations(
        &mut self,
        tokens: usize,
        columns: usize,
        widest: Form,
    ) -> Result<ActivationMemory<'a>> {
        // Too many are refused by `take`.
        let row = widest.row_bytes(columns.div_ceil(BLOCK)).unwrap_or(usize::MAX);
        Ok(ActivationMemory {
            data: self.take(&[tokens, row])?,
        })
    }
}

fn value_bytes(dtype: DataType) -> usize {
    if dtype == DataType::F32 { 4 } else { 2 }
}

impl Limits {
    /// Bytes of one head's keys of one sequence: whole panels.
    pub fn key_bytes(&self, config: &Config) -> usize {
        self.context.next_multiple_of(LANES) * config.head_dim * value_bytes(self.key_type)
    }

    /// Bytes of one head's values of one sequence.
    pub fn value_bytes(&self, config: &Config) -> usize {
        self.context.next_multiple_of(LANES) * value_dim(config.head_dim) * value_bytes(self.value_type)
    }
}

/// Carves the buffers of a decoder. `form` is the form of activations that needs the most memory.
pub fn carve<'a>(
    carver: &mut Carver<'a>,
    config: &Config,
    limits: &Limits,
    form: Form,
) -> Result<Buffers<'a>> {
    let Limits { tokens, .. } = *limits;
    let padded = limits.context.next_multiple_of(LANES);
    let heads = [config.layers, config.kv_heads, limits.sequences, padded];
    let key = [config.head_dim, value_bytes(limits.key_type)];
    let value = [value_dim(config.head_dim), value_bytes(limits.value_type)];
    let queries = config.heads * config.head_dim;
    let widest = config.embedding.max(queries);
    let scratch = scratch_length(MAX_ROWS.max(config.group()), config.head_dim)
        .max(GATED_SCRATCH)
        .max(2 * widest);
    let half = |index: usize| config.ropes.get(index).map_or(0, |rope| rope.dims / 2);
    let tables = |carver: &mut Carver<'a>| -> Result<[&'a mut [f32]; 2]> {
        Ok([
            carver.take(&[limits.context, half(0)])?,
            carver.take(&[limits.context, half(1)])?,
        ])
    };
    Ok(Buffers {
        keys: carver.take(&[heads[0], heads[1], heads[2], heads[3], key[0], key[1]])?,
        values: carver.take(&[heads[0], heads[1], heads[2], heads[3], value[0], value[1]])?,
        cosine: tables(carver)?,
        sine: tables(carver)?,
        x: carver.take(&[tokens, config.embedding])?,
        qkv: carver.take(&[tokens, queries + 2 * config.kv_heads * config.head_dim])?,
        attended: carver.take(&[tokens, widest])?,
        // The output head takes every row twice.
        activations: carver.activations(tokens.max(2 * limits.rows.min(tokens)), widest, form)?,
        hidden: carver.activations(tokens, config.feed_forward, form)?,
        scratch: carver.take(&[limits.threads, scratch.next_multiple_of(LANES)])?,
        logits: carver.take(&[limits.rows, 2, config.vocabulary])?,
        recorder: Recorder::default(),
    })
}
