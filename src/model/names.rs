//! Models from Hugging Face folders: their configuration as GGUF keys, their tensors by GGUF names.
//!
//! So that an architecture reads one set of names, whatever the file it comes from.

use super::bert::ACTIVATION_KEY;
use crate::base::error::{Error, Result, Within};
use crate::format::container::{Container, Format};
use crate::format::metadata::{Metadata, Value};
use std::borrow::Cow;

/// How a file names its tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// As GGUF does.
    Gguf,
    /// As `transformers` names the tensors of a BERT, behind a prefix that may be empty.
    Bert(String),
}

/// GGUF name, name in `transformers`.
const BERT: &[(&str, &str)] = &[
    ("token_embd", "embeddings.word_embeddings"),
    ("position_embd", "embeddings.position_embeddings"),
    ("token_types", "embeddings.token_type_embeddings"),
    ("token_embd_norm", "embeddings.LayerNorm"),
];

/// The same below `blk.N` and `encoder.layer.N`.
const BERT_LAYER: &[(&str, &str)] = &[
    ("attn_q", "attention.self.query"),
    ("attn_k", "attention.self.key"),
    ("attn_v", "attention.self.value"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
];

impl Names {
    /// The file's name for the tensor that GGUF calls `name`.
    pub fn of<'n>(&self, name: &'n str) -> Cow<'n, str> {
        let Names::Bert(prefix) = self else {
            return Cow::Borrowed(name);
        };
        let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
        let find = |table: &[(&str, &'static str)], stem: &str| {
            table
                .iter()
                .find(|(gguf, _)| *gguf == stem)
                .map(|(_, theirs)| *theirs)
        };
        let layer = stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
        let theirs = match layer {
            Some((layer, part)) => {
                find(BERT_LAYER, part).map(|theirs| format!("encoder.layer.{layer}.{theirs}"))
            }
            None => find(BERT, stem).map(str::to_owned),
        };
        // A name that a BERT does not have leads to no tensor, as it should.
        match theirs {
            Some(theirs) => Cow::Owned(format!("{prefix}{theirs}.{suffix}")),
            None => Cow::Borrowed(name),
        }
    }
}

/// The names of the container's tensors, and its metadata with GGUF keys: `None` where it has them itself.
pub fn describe(container: &Container<'_>) -> Result<(Names, Option<Metadata>)> {
    match container.format() {
        Format::Gguf => Ok((Names::Gguf, None)),
        Format::Safetensors => {
            let metadata = read_config(container).within(|| "config.json")?;
            let prefix = ["", "bert."].into_iter().find(|prefix| {
                let name = format!("{prefix}embeddings.word_embeddings.weight");
                container.tensor(&name).is_some()
            });
            let prefix = prefix.ok_or_else(|| {
                Error::format(
                    "required tensor embeddings.word_embeddings.weight is missing, with and without the prefix bert.",
                )
            })?;
            Ok((Names::Bert(prefix.to_owned()), Some(metadata)))
        }
    }
}

/// The keys of `config.json`, as GGUF keys.
fn read_config(container: &Container<'_>) -> Result<Metadata> {
    let config = container.required_sidecar_json("config.json")?;
    let field = |name: &str| config.get(name).filter(|value| !value.is_null());
    let text = |name: &str| field(name).and_then(|value| value.as_str());
    let model_type = text("model_type").unwrap_or("");
    if model_type != "bert" {
        return Err(Error::unsupported(format!(
            "model_type is \"{model_type}\"; of the models in folders of safetensors, bert is supported"
        )));
    }
    if text("position_embedding_type").is_some_and(|kind| kind != "absolute") {
        return Err(Error::unsupported(
            "position_embedding_type is not \"absolute\", the only one that is supported",
        ));
    }
    let activation = match text("hidden_act") {
        None | Some("gelu") => "gelu",
        Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh") => "gelu_tanh",
        Some(other) => {
            return Err(Error::unsupported(format!(
                "hidden_act is \"{other}\"; gelu, gelu_new, gelu_fast and gelu_pytorch_tanh are supported"
            )));
        }
    };
    let mut metadata = Metadata::default();
    let mut insert = |key: &str, value: Value| {
        metadata.insert(key.to_owned(), value);
    };
    insert("general.architecture", Value::String("bert".to_owned()));
    let name = text("_name_or_path").unwrap_or("");
    insert("general.name", Value::String(name.to_owned()));
    insert(ACTIVATION_KEY, Value::String(activation.to_owned()));
    for (key, theirs) in [
        ("bert.block_count", "num_hidden_layers"),
        ("bert.embedding_length", "hidden_size"),
        ("bert.attention.head_count", "num_attention_heads"),
        ("bert.feed_forward_length", "intermediate_size"),
        ("bert.context_length", "max_position_embeddings"),
    ] {
        let number = field(theirs).and_then(serde_json::Value::as_u64);
        let number = number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|&number| number > 0);
        let number = number.ok_or_else(|| {
            let found = field(theirs).map_or("nothing".to_owned(), ToString::to_string);
            Error::format(format!("{theirs}: found {found}, expected a number above 0"))
        })?;
        insert(key, Value::U32(number));
    }
    let epsilon = match field("layer_norm_eps") {
        None => 1e-12,
        Some(value) => value
            .as_f64()
            .ok_or_else(|| Error::format(format!("layer_norm_eps: found {value}, expected a number")))?,
    };
    insert("bert.attention.layer_norm_epsilon", Value::F32(epsilon as f32));
    Ok(metadata)
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
}
