//! From token vectors to one embedding: pooling, dense layers, cutting and normalizing.

use super::dense::DenseModule;
use crate::base::error::{Error, Result, Within};
use crate::format::container::{Container, Format};
use crate::format::metadata::Metadata;

/// How the vectors of a document's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Pooling {
    /// They do not: one row for each token, without dense layers.
    None = 0,
    /// Their mean.
    Mean = 1,
    /// The first, of the token `[CLS]`.
    Cls = 2,
    /// The last.
    Last = 3,
}

impl Pooling {
    /// All of them.
    pub const ALL: &[Pooling] = &[Pooling::None, Pooling::Mean, Pooling::Cls, Pooling::Last];

    /// The name.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::None => "none",
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
            Pooling::Last => "last",
        }
    }

    /// The pooling of a number: that of the C ABI and of `pooling_type` in GGUF.
    pub fn from_number(number: i64) -> Option<Pooling> {
        Pooling::ALL
            .iter()
            .copied()
            .find(|&pooling| pooling as i64 == number)
    }
}

/// What a model's files say about its embeddings.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingInfo {
    /// Values of an embedding, before it is cut.
    pub dimensions: u32,
    /// How token vectors become one.
    pub pooling: Pooling,
    /// Whether embeddings have length 1.
    pub normalize: bool,
    /// Dense layers behind the pooling. An EmbeddingGemma without its two gives other embeddings than the original
    /// model; many converted files lack them.
    pub dense_layers: u32,
    /// Text that the model was trained to see before a text of a kind: (name of the kind, text).
    pub prompts: Vec<(String, String)>,
    /// Dense layers that a folder's `modules.json` lists.
    pub modules: Vec<DenseModule>,
}

/// From the model card of EmbeddingGemma.
const GEMMA_PROMPTS: &[(&str, &str)] = &[
    ("query", "task: search result | query: "),
    ("document", "title: none | text: "),
    ("question-answering", "task: question answering | query: "),
    ("fact-checking", "task: fact checking | query: "),
    ("classification", "task: classification | query: "),
    ("clustering", "task: clustering | query: "),
    ("similarity", "task: sentence similarity | query: "),
    ("code-retrieval", "task: code retrieval | query: "),
];

/// From the model card of nomic-embed-text.
const NOMIC_PROMPTS: &[(&str, &str)] = &[
    ("query", "search_query: "),
    ("document", "search_document: "),
    ("classification", "classification: "),
    ("clustering", "clustering: "),
];

impl EmbeddingInfo {
    /// Reads it from metadata, and from the files beside the weights in a folder. `pooling` is taken where they do not
    /// say it.
    pub fn read(
        container: &Container<'_>,
        metadata: &Metadata,
        architecture: &str,
        dimensions: usize,
        pooling: Pooling,
    ) -> Result<EmbeddingInfo> {
        let known: &[(&str, &str)] = match architecture {
            "gemma-embedding" => GEMMA_PROMPTS,
            "nomic-bert" => NOMIC_PROMPTS,
            _ => &[],
        };
        let mut info = EmbeddingInfo {
            dimensions: dimensions as u32,
            pooling,
            normalize: true,
            dense_layers: 0,
            prompts: known
                .iter()
                .map(|&(name, text)| (name.to_owned(), text.to_owned()))
                .collect(),
            modules: Vec::new(),
        };
        if container.format() == Format::Safetensors {
            info.read_modules(container)?;
            info.read_prompts(container)?;
            return Ok(info);
        }
        let key = format!("{architecture}.pooling_type");
        if let Some(number) = metadata.u32(&key)? {
            info.pooling = Pooling::from_number(number.into()).ok_or_else(|| {
                Error::unsupported(format!(
                    "metadata key {key}: found {number}; 0 (none), 1 (mean), 2 (first) and 3 (last) are supported"
                ))
            })?;
        }
        Ok(info)
    }

    /// The text before texts of the kind `name`; an error that names the kinds there are.
    pub fn prompt(&self, name: &str) -> Result<&str> {
        let found = self.prompts.iter().find(|(known, _)| known == name);
        found.map(|(_, text)| text.as_str()).ok_or_else(|| {
            let names: Vec<&str> = self.prompts.iter().map(|(name, _)| name.as_str()).collect();
            let names = if names.is_empty() {
                "no prompts".to_owned()
            } else {
                format!("the prompts {}", names.join(", "))
            };
            Error::not_found(format!("the model has no prompt \"{name}\"; it has {names}"))
        })
    }

    /// `modules.json` lists the steps of a sentence-transformers model; without it, the mean is taken and normalized.
    fn read_modules(&mut self, container: &Container<'_>) -> Result<()> {
        const FILE: &str = "modules.json";
        let Some(modules) = container.sidecar_json(FILE)? else {
            return Ok(());
        };
        let modules = modules
            .as_array()
            .ok_or_else(|| Error::format(format!("{FILE}: expected an array of modules")))?;
        self.normalize = false;
        let mut is_pooled = false;
        for module in modules {
            let text = |name: &str| module.get(name).and_then(|value| value.as_str()).unwrap_or("");
            let kind = text("type").rsplit('.').next().unwrap_or("");
            if self.normalize || (kind == "Pooling" && is_pooled) || (kind == "Dense" && !is_pooled) {
                return Err(Error::unsupported(format!(
                    "{FILE}: the module \"{}\" is in a place that is not supported; expected Transformer, Pooling, Dense, Normalize in this order",
                    text("type")
                )));
            }
            match kind {
                "Transformer" => {}
                "Normalize" => self.normalize = true,
                "Pooling" => {
                    let file = format!("{}/config.json", text("path"));
                    self.pooling = read_pooling(&container.required_sidecar_json(&file)?).within(|| file)?;
                    is_pooled = true;
                }
                "Dense" => self.add_module(DenseModule::read(container, text("path"))?)?,
                _ => {
                    return Err(Error::unsupported(format!(
                        "{FILE}: the module \"{}\" is not supported; Transformer, Pooling, Dense and Normalize are",
                        text("type")
                    )));
                }
            }
        }
        if !is_pooled {
            return Err(Error::unsupported(format!("{FILE}: there is no module Pooling")));
        }
        Ok(())
    }

    fn add_module(&mut self, module: DenseModule) -> Result<()> {
        if module.inputs != self.dimensions {
            return Err(Error::format(format!(
                "{}/config.json: in_features is {}, but what goes in has {} values",
                module.folder, module.inputs, self.dimensions
            )));
        }
        self.dimensions = module.outputs;
        self.dense_layers += 1;
        self.modules.push(module);
        Ok(())
    }

    fn read_prompts(&mut self, container: &Container<'_>) -> Result<()> {
        let Some(config) = container.sidecar_json("config_sentence_transformers.json")? else {
            return Ok(());
        };
        let prompts = config.get("prompts").and_then(|prompts| prompts.as_object());
        for (name, text) in prompts.into_iter().flatten() {
            if let Some(text) = text.as_str() {
                self.prompts.push((name.clone(), text.to_owned()));
            }
        }
        Ok(())
    }
}

/// The fields of `1_Pooling/config.json`.
fn read_pooling(config: &serde_json::Value) -> Result<Pooling> {
    if config.get("include_prompt").and_then(serde_json::Value::as_bool) == Some(false) {
        return Err(Error::unsupported(
            "include_prompt is false: pooling without the tokens of the prompt is not supported",
        ));
    }
    let chosen: Vec<&str> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| name.starts_with("pooling_mode_") && value.as_bool() == Some(true))
        .map(|(name, _)| name.as_str())
        .collect();
    match chosen[..] {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        ["pooling_mode_lasttoken"] => Ok(Pooling::Last),
        _ => Err(Error::unsupported(format!(
            "found the modes [{}], expected one of pooling_mode_mean_tokens, pooling_mode_cls_token and pooling_mode_lasttoken",
            chosen.join(", ")
        ))),
    }
}

/// One vector from the vectors of a document's tokens, in the order of the tokens.
pub fn pool(pooling: Pooling, tokens: &[f32], out: &mut [f32]) {
    let width = out.len();
    match pooling {
        Pooling::Mean | Pooling::None => {
            out.fill(0.0);
            for token in tokens.chunks_exact(width) {
                out.iter_mut().zip(token).for_each(|(sum, value)| *sum += value);
            }
            let count = (tokens.len() / width) as f32;
            out.iter_mut().for_each(|sum| *sum /= count);
        }
        Pooling::Cls => out.copy_from_slice(&tokens[..width]),
        Pooling::Last => out.copy_from_slice(&tokens[tokens.len() - width..]),
    }
}

/// Gives a vector length 1; a vector of zeros stays.
pub fn normalize(values: &mut [f32]) {
    let squares: f64 = values
        .iter()
        .map(|&value| f64::from(value) * f64::from(value))
        .sum();
    if squares > 0.0 {
        let factor = 1.0 / squares.sqrt();
        values
            .iter_mut()
            .for_each(|value| *value = (f64::from(*value) * factor) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_pooled_and_normalized() {
        let tokens = [1.0, 2.0, 3.0, 6.0];
        let mut out = [0.0; 2];
        pool(Pooling::Mean, &tokens, &mut out);
        assert_eq!(out, [2.0, 4.0]);
        pool(Pooling::Cls, &tokens, &mut out);
        assert_eq!(out, [1.0, 2.0]);
        pool(Pooling::Last, &tokens, &mut out);
        assert_eq!(out, [3.0, 6.0]);
        let mut values = [3.0, 4.0];
        normalize(&mut values);
        assert_eq!(values, [0.6, 0.8]);
        let mut zeros = [0.0; 2];
        normalize(&mut zeros);
        assert_eq!(zeros, [0.0; 2]);
    }

    #[test]
    fn the_mode_of_pooling_must_be_one_that_is_known() {
        let mean = serde_json::json!({"word_embedding_dimension": 384, "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false});
        assert_eq!(read_pooling(&mean), Ok(Pooling::Mean));
        let max = serde_json::json!({"pooling_mode_max_tokens": true});
        assert!(
            read_pooling(&max)
                .unwrap_err()
                .message()
                .contains("pooling_mode_max_tokens")
        );
    }
}
