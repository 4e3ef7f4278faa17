//! The numbers of an architecture, read from the file and checked against each other.

use crate::base::error::{Error, Result};
use crate::format::metadata::Metadata;

/// Numbers of a decoder of the llama family.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
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
    /// Added to the mean square in RMS norms.
    pub epsilon: f32,
    /// Rotary embedding.
    pub rope: Rope,
}

/// Rotary position embedding: angle(position, i) = position / scale * base^(-2 i / dims).
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Values of a head that are rotated.
    pub dims: usize,
    /// Base of the frequencies.
    pub base: f32,
    /// Positions are divided by this (linear scaling; 1 for none).
    pub scale: f32,
}

/// Above these, a file is broken or hostile; real models stay far below. They keep every later size computation small.
pub(super) const MOST_LAYERS: usize = 4096;
pub(super) const MOST_WIDTH: usize = 1 << 20;

impl Config {
    /// Reads the keys of architecture `architecture` (a prefix such as `llama`). `vocabulary` is the rows of the
    /// token embedding.
    pub fn read(metadata: &Metadata, architecture: &str, vocabulary: usize) -> Result<Config> {
        let key = |name: &str| format!("{architecture}.{name}");
        let number = |name: &str, most: usize| {
            let value = metadata.required_u32(&key(name))? as usize;
            bounded(&key(name), value, most)
        };
        let optional = |name: &str, default: usize, most: usize| match metadata.u32(&key(name))? {
            Some(value) => bounded(&key(name), value as usize, most),
            None => Ok(default),
        };
        let embedding = number("embedding_length", MOST_WIDTH)?;
        let heads = number("attention.head_count", MOST_WIDTH)?;
        let kv_heads = optional("attention.head_count_kv", heads, MOST_WIDTH)?;
        let head_dim = optional("attention.key_length", embedding / heads, MOST_WIDTH)?;
        let value_dim = optional("attention.value_length", head_dim, MOST_WIDTH)?;
        if heads % kv_heads != 0 {
            return Err(Error::format(format!(
                "metadata key {}: {heads} query heads cannot share {kv_heads} key heads evenly",
                key("attention.head_count_kv")
            )));
        }
        if head_dim == 0 || value_dim != head_dim {
            return Err(Error::unsupported(format!(
                "keys of {head_dim} and values of {value_dim} per head; expected the same number, above 0"
            )));
        }
        let config = Config {
            layers: number("block_count", MOST_LAYERS)?,
            embedding,
            heads,
            kv_heads,
            head_dim,
            feed_forward: number("feed_forward_length", MOST_WIDTH)?,
            vocabulary,
            context: number("context_length", u32::MAX as usize)?,
            epsilon: positive(&key("attention.layer_norm_rms_epsilon"), metadata, None)?,
            rope: read_rope(metadata, architecture, head_dim)?,
        };
        for (name, width) in [
            ("heads x head size", config.heads * config.head_dim),
            ("vocabulary", vocabulary),
        ] {
            bounded(name, width, 1 << 28)?;
        }
        Ok(config)
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

pub(super) fn read_rope(metadata: &Metadata, architecture: &str, head_dim: usize) -> Result<Rope> {
    let key = |name: &str| format!("{architecture}.rope.{name}");
    let dims = metadata
        .u32(&key("dimension_count"))?
        .map_or(head_dim, |dims| dims as usize);
    if dims == 0 || dims % 2 != 0 || dims > head_dim {
        return Err(Error::format(format!(
            "metadata key {}: found {dims}, expected an even number up to the head size {head_dim}",
            key("dimension_count")
        )));
    }
    let scale = match metadata.str(&key("scaling.type"))? {
        None | Some("none") => 1.0,
        Some("linear") => positive(&key("scaling.factor"), metadata, None)?,
        Some(other) => {
            return Err(Error::unsupported(format!(
                "metadata key {}: rope scaling \"{other}\" is not supported; none and linear are",
                key("scaling.type")
            )));
        }
    };
    Ok(Rope {
        dims,
        base: positive(&key("freq_base"), metadata, Some(10_000.0))?,
        scale,
    })
}

pub(super) fn bounded(name: &str, value: usize, most: usize) -> Result<usize> {
    if value == 0 || value > most {
        return Err(Error::format(format!(
            "metadata key {name}: found {value}, expected 1 to {most}"
        )));
    }
    Ok(value)
}

pub(super) fn positive(key: &str, metadata: &Metadata, default: Option<f32>) -> Result<f32> {
    let value = metadata.f32(key)?.or(default);
    let value = value.ok_or_else(|| Error::format(format!("required metadata key {key} is missing")))?;
    if !(value.is_finite() && value > 0.0) {
        return Err(Error::format(format!(
            "metadata key {key}: found {value}, expected a positive number"
        )));
    }
    Ok(value)
}
