//! How models from Hugging Face folders name their tensors.
//!
//! So that an architecture reads one set of names, whatever the file it comes from.

use super::config_json::{self, Kind};
use crate::base::error::{Error, Result, Within};
use crate::format::container::{Container, Format};
use crate::format::metadata::Metadata;
use std::borrow::Cow;

/// How a file names its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// As GGUF does.
    Gguf,
    /// As `transformers` names the tensors of a BERT, behind a prefix that may be empty.
    Bert(String),
    /// As `transformers` names the tensors of a decoder.
    Decoder {
        /// In front of `layers.0`, such as `model.`.
        prefix: String,
        /// Norms stand behind both halves of a block, too, and their weights lack a 1 (Gemma 3).
        is_gemma: bool,
        /// The embedding serves as the output head, whatever the file has.
        is_tied: bool,
    },
}

/// GGUF name, name in `transformers`.
type Table = [(&'static str, &'static str)];

const BERT: &Table = &[
    ("token_embd", "embeddings.word_embeddings"),
    ("position_embd", "embeddings.position_embeddings"),
    ("token_types", "embeddings.token_type_embeddings"),
    ("token_embd_norm", "embeddings.LayerNorm"),
];

/// The same below `blk.N` and `encoder.layer.N`.
const BERT_LAYER: &Table = &[
    ("attn_q", "attention.self.query"),
    ("attn_k", "attention.self.key"),
    ("attn_v", "attention.self.value"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
];

const DECODER: &Table = &[("token_embd", "embed_tokens"), ("output_norm", "norm")];

/// The same below `blk.N` and `layers.N`.
const DECODER_LAYER: &Table = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Norms of a block, whose names mean something else with Gemma.
const LLAMA_NORMS: &Table = &[("ffn_norm", "post_attention_layernorm")];
const GEMMA_NORMS: &Table = &[
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

fn find(table: &Table, stem: &str) -> Option<&'static str> {
    let found = table.iter().find(|(gguf, _)| *gguf == stem);
    found.map(|(_, theirs)| *theirs)
}

impl Names {
    /// The file's name for the tensor that GGUF calls `name`.
    pub fn of<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
        let layer = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let theirs = match (self, layer) {
            (Names::Gguf, _) => None,
            (Names::Bert(prefix), Some((layer, part))) => {
                find(BERT_LAYER, part).map(|theirs| format!("{prefix}encoder.layer.{layer}.{theirs}"))
            }
            (Names::Bert(prefix), None) => find(BERT, stem).map(|theirs| format!("{prefix}{theirs}")),
            (Names::Decoder { prefix, is_gemma, .. }, Some((layer, part))) => {
                let norms = if *is_gemma { GEMMA_NORMS } else { LLAMA_NORMS };
                let theirs = find(DECODER_LAYER, part).or_else(|| find(norms, part));
                theirs.map(|theirs| format!("{prefix}layers.{layer}.{theirs}"))
            }
            (Names::Decoder { is_tied: false, .. }, None) if stem == "output" => Some("lm_head".to_owned()),
            (Names::Decoder { prefix, .. }, None) => {
                find(DECODER, stem).map(|theirs| format!("{prefix}{theirs}"))
            }
        };
        // A name that an architecture does not have leads to no tensor, as it should.
        match theirs {
            Some(theirs) => Cow::Owned(format!("{theirs}.{suffix}")),
            None => Cow::Borrowed(name),
        }
    }

    /// What is added to the weights of norms: GGUF files hold Gemma's with the 1 that it adds to them.
    pub fn norm_offset(&self) -> f32 {
        match self {
            Names::Decoder { is_gemma: true, .. } => 1.0,
            _ => 0.0,
        }
    }
}

/// The names of the container's tensors, and its metadata with GGUF keys: `None` where it has them itself.
pub fn describe(container: &Container<'_>) -> Result<(Names, Option<Metadata>)> {
    if container.format() == Format::Gguf {
        return Ok((Names::Gguf, None));
    }
    let config = container.required_sidecar_json("config.json")?;
    let (kind, metadata) = config_json::read(&config).within(|| "config.json")?;
    let prefix_before = |prefixes: &[&str], tensor: &str| {
        let found = prefixes
            .iter()
            .find(|prefix| container.tensor(&format!("{prefix}{tensor}")).is_some());
        found.map(|prefix| (*prefix).to_owned()).ok_or_else(|| {
            Error::format(format!(
                "required tensor {tensor} is missing, also behind the prefixes {}",
                prefixes[1..].join(", ")
            ))
        })
    };
    let names = match kind {
        Kind::Bert => Names::Bert(prefix_before(
            &["", "bert."],
            "embeddings.word_embeddings.weight",
        )?),
        Kind::Decoder { is_gemma, is_tied } => Names::Decoder {
            prefix: prefix_before(
                &["", "model.", "language_model.model.", "model.language_model."],
                "embed_tokens.weight",
            )?,
            is_gemma,
            is_tied,
        },
    };
    Ok((names, Some(metadata)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bert_is_read_by_its_own_names() {
        let names = Names::Bert("bert.".to_owned());
        assert_eq!(
            names.of("token_embd.weight"),
            "bert.embeddings.word_embeddings.weight"
        );
        assert_eq!(
            names.of("blk.11.attn_q.bias"),
            "bert.encoder.layer.11.attention.self.query.bias"
        );
        assert_eq!(names.of("blk.0.attn_qkv.weight"), "blk.0.attn_qkv.weight");
        assert_eq!(Names::Gguf.of("blk.0.attn_q.bias"), "blk.0.attn_q.bias");
    }

    #[test]
    fn a_decoder_is_read_by_its_own_names() {
        let names = |is_gemma, is_tied| Names::Decoder {
            prefix: "model.".to_owned(),
            is_gemma,
            is_tied,
        };
        let llama = names(false, false);
        assert_eq!(llama.of("token_embd.weight"), "model.embed_tokens.weight");
        assert_eq!(llama.of("output.weight"), "lm_head.weight");
        assert_eq!(
            llama.of("blk.3.attn_q.bias"),
            "model.layers.3.self_attn.q_proj.bias"
        );
        assert_eq!(
            llama.of("blk.3.ffn_norm.weight"),
            "model.layers.3.post_attention_layernorm.weight"
        );
        let gemma = names(true, true);
        assert_eq!(gemma.of("output.weight"), "output.weight");
        assert_eq!(
            gemma.of("blk.3.ffn_norm.weight"),
            "model.layers.3.pre_feedforward_layernorm.weight"
        );
        assert_eq!((llama.norm_offset(), gemma.norm_offset()), (0.0, 1.0));
    }
}
