//! The numbers of an architecture, read from the file and checked against each other.

use super::rope::{Rope, Scaling, read_rope, sliding_layers};
use crate::base::error::{Error, Result};
use crate::format::metadata::Metadata;
use crate::ops::attention::Heads;

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
    /// Rotary embeddings: of layers that see everything, and of those that see a window only, where there are such.
    pub ropes: Vec<Rope>,
    /// What the architecture does differently.
    pub family: Family,
    /// Which layers see a window only; one per layer.
    pub sliding: Vec<bool>,
    /// Their window: a token sees the keys less than this behind it, its own included. 0 without such layers.
    pub window: usize,
    /// Factor of the scores of attention.
    pub score_scale: f32,
    /// Scores s become cap * tanh(s / cap); 0 for no cap.
    pub score_cap: f32,
    /// The same for logits.
    pub logit_cap: f32,
}

/// What the architectures of the llama family do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// llama, mistral.
    Llama,
    /// Biases of queries, keys and values.
    Qwen2,
    /// Queries and keys are normalized per head.
    Qwen3,
    /// As Qwen3; norms behind both halves of a block, too, GELU instead of SiLU, scaled embeddings.
    Gemma3,
}

impl Family {
    /// The family of an architecture that is a decoder.
    pub fn of(architecture: &str) -> Option<Family> {
        match architecture {
            "llama" | "mistral" => Some(Family::Llama),
            "qwen2" => Some(Family::Qwen2),
            "qwen3" => Some(Family::Qwen3),
            "gemma3" => Some(Family::Gemma3),
            _ => None,
        }
    }

    /// Whether queries and keys are normalized per head.
    pub fn normalizes_heads(self) -> bool {
        matches!(self, Family::Qwen3 | Family::Gemma3)
    }
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
        let family = Family::of(architecture)
            .ok_or_else(|| Error::unsupported(format!("{architecture} is not of the llama family")))?;
        let layers = number("block_count", MOST_LAYERS)?;
        let (sliding, window) = read_window(metadata, architecture, family, layers)?;
        let cap = |name: &str| match metadata.get(&key(name)) {
            Some(_) => positive(&key(name), metadata, None),
            None => Ok(0.0),
        };
        let config = Config {
            layers,
            embedding,
            heads,
            kv_heads,
            head_dim,
            feed_forward: number("feed_forward_length", MOST_WIDTH)?,
            vocabulary,
            context: number("context_length", u32::MAX as usize)?,
            epsilon: positive(&key("attention.layer_norm_rms_epsilon"), metadata, None)?,
            ropes: read_ropes(metadata, architecture, family, head_dim)?,
            family,
            sliding,
            window,
            score_scale: match metadata.get(&key("attention.scale")) {
                Some(_) => positive(&key("attention.scale"), metadata, None)?,
                // Gemma 3 27B, known by its 62 layers: files do not say it (llama.cpp's rule, too).
                None if family == Family::Gemma3 && layers == 62 => {
                    1.0 / (embedding as f32 / heads as f32).sqrt()
                }
                None => 1.0 / (head_dim as f32).sqrt(),
            },
            score_cap: cap("attn_logit_softcapping")?,
            logit_cap: cap("final_logit_softcapping")?,
        };
        for (name, width) in [
            ("heads x head size", config.heads * config.head_dim),
            ("vocabulary", vocabulary),
        ] {
            bounded(name, width, 1 << 28)?;
        }
        Ok(config)
    }

    /// How queries, keys and values stand.
    pub fn heads(&self) -> Heads {
        Heads {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }

    /// Which of [`Config::ropes`] a layer uses.
    pub fn rope_of(&self, layer: usize) -> usize {
        usize::from(self.sliding[layer]).min(self.ropes.len() - 1)
    }

    /// The window of a layer; 0 for none.
    pub fn window_of(&self, layer: usize) -> usize {
        if self.sliding[layer] { self.window } else { 0 }
    }

    /// Query heads that share a key head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }
}

/// Which layers see a window only, and how wide it is.
fn read_window(
    metadata: &Metadata,
    architecture: &str,
    family: Family,
    layers: usize,
) -> Result<(Vec<bool>, usize)> {
    let key = format!("{architecture}.attention.sliding_window");
    let window = metadata.u32(&key)?.unwrap_or(0) as usize;
    // Files of Qwen carry windows that their models do not use.
    let sliding = match (family, architecture) {
        _ if window == 0 => vec![false; layers],
        (Family::Gemma3, _) => sliding_layers(metadata, architecture, layers, Some(6))?,
        (_, "mistral") => vec![true; layers],
        _ => sliding_layers(metadata, architecture, layers, None)?,
    };
    let window = if sliding.contains(&true) { window } else { 0 };
    Ok((sliding, window))
}

fn read_ropes(metadata: &Metadata, architecture: &str, family: Family, head_dim: usize) -> Result<Vec<Rope>> {
    let global = read_rope(metadata, architecture, head_dim)?;
    if family != Family::Gemma3 {
        return Ok(vec![global]);
    }
    // Scaling stretches the positions of the global layers only.
    let key = format!("{architecture}.rope.freq_base_swa");
    let local = Rope {
        base: positive(&key, metadata, Some(10_000.0))?,
        scale: 1.0,
        scaling: Scaling::None,
        ..global.clone()
    };
    Ok(vec![global, local])
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
