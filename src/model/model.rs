//! An opened model: its numbers, its metadata and its packed weights. Immutable; share it between threads.

use super::config::Config;
use super::llama::Llama;
use super::weights::{Loader, Progress};
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Within};
use crate::format::container::{Container, LoadMode, Tensor};
use crate::format::metadata::{Metadata, Value};
use crate::ops::runtime::{LogLevel, Runtime};
use crate::quant::packed::PackedMatrix;
use std::path::Path;
use std::sync::Arc;

/// How a model is opened.
#[derive(Default)]
pub struct ModelOptions<'a> {
    /// Map the file, or read it.
    pub load_mode: LoadMode,
    /// The most bytes that the packed weights may take; 0 for no limit.
    pub memory_limit: u64,
    /// Called with the bytes done and in all, after every tensor; false cancels.
    pub progress: Option<Progress<'a>>,
    /// Stops the loading.
    pub cancel: Option<&'a Cancel>,
}

/// The numbers of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// Architecture, as the file says it.
    pub architecture: String,
    /// Name, as the file says it; may be empty.
    pub name: String,
    /// Transformer blocks.
    pub layers: u32,
    /// Width of the residual stream.
    pub embedding: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Values of a head.
    pub head_size: u32,
    /// Width of the feed-forward network.
    pub feed_forward: u32,
    /// Tokens of the vocabulary.
    pub vocabulary: u32,
    /// Positions that the model was trained for.
    pub context: u32,
    /// Values of all tensors.
    pub parameters: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the packed weights.
    pub packed_bytes: u64,
    /// Bytes of weights read for each generated token.
    pub bytes_per_token: u64,
    /// Whether the model embeds texts and has no logits.
    pub is_encoder: bool,
}

/// Memory of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelMemory {
    /// Packed weights.
    pub packed: u64,
    /// Norms, metadata and the like, about.
    pub other: u64,
}

/// An opened model.
pub struct Model {
    runtime: Arc<Runtime>,
    info: ModelInfo,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    llama: Llama,
}

impl Model {
    /// Opens the model file at `path`.
    pub fn open(runtime: &Arc<Runtime>, path: &Path, options: ModelOptions<'_>) -> Result<Arc<Model>> {
        let container = Container::open(path, options.load_mode)?;
        Model::load(runtime, container, options).within(|| path.display().to_string())
    }

    /// Opens a model file that is in memory. The bytes are used during the call only.
    pub fn open_memory(
        runtime: &Arc<Runtime>,
        bytes: &[u8],
        options: ModelOptions<'_>,
    ) -> Result<Arc<Model>> {
        Model::load(runtime, Container::from_memory(bytes)?, options).within(|| "model in memory")
    }

    /// The numbers of the model at `path`, and the memory that it would take, without loading its weights.
    pub fn probe(path: &Path, load_mode: LoadMode) -> Result<(ModelInfo, ModelMemory, Config)> {
        let container = Container::open(path, load_mode)?;
        let probed = || {
            let config = read_config(&container)?;
            let mut packed = 0u64;
            for tensor in container.tensors().iter().filter(|tensor| tensor.shape.len() > 1) {
                let bytes = PackedMatrix::bytes_for(tensor.dtype, tensor.rows(), tensor.columns());
                packed += bytes.within(|| format!("tensor {}", tensor.name))? as u64;
            }
            let mut info = describe(&container, &config)?;
            info.packed_bytes = packed;
            // Without an own output head, the embedding is read as the head.
            let tied = container.tensor("output.weight").is_none();
            let embedding = container.tensor("token_embd.weight").map_or(Ok(0), |tensor| {
                PackedMatrix::bytes_for(tensor.dtype, tensor.rows(), tensor.columns())
            })?;
            info.bytes_per_token = if tied { packed } else { packed - embedding as u64 };
            let memory = ModelMemory {
                packed,
                other: other_bytes(container.metadata(), container.tensors()),
            };
            Ok((info, memory, config))
        };
        probed().within(|| path.display().to_string())
    }

    fn load(
        runtime: &Arc<Runtime>,
        container: Container<'_>,
        options: ModelOptions<'_>,
    ) -> Result<Arc<Model>> {
        let config = read_config(&container)?;
        let mut info = describe(&container, &config)?;
        let mut loader = Loader::new(
            runtime,
            &container,
            options.progress,
            options.cancel,
            options.memory_limit,
        );
        let llama = Llama::load(config, &mut loader)?;
        info.packed_bytes = loader.packed();
        info.bytes_per_token = llama.bytes_per_token();
        let (metadata, tensors) = container.into_parts();
        runtime.log(LogLevel::Info, "model", || {
            format!(
                "{} \"{}\": {} layers, {} bytes packed",
                info.architecture, info.name, info.layers, info.packed_bytes
            )
        });
        Ok(Arc::new(Model {
            runtime: runtime.clone(),
            info,
            metadata,
            tensors,
            llama,
        }))
    }

    /// The runtime that the model was opened with.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// The numbers.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The file's metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The file's tensors.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The memory that the model holds.
    pub fn memory(&self) -> ModelMemory {
        ModelMemory {
            packed: self.info.packed_bytes,
            other: other_bytes(&self.metadata, &self.tensors),
        }
    }

    pub(super) fn llama(&self) -> &Llama {
        &self.llama
    }
}

fn read_config(container: &Container<'_>) -> Result<Config> {
    let metadata = container.metadata();
    let architecture = metadata.required_str("general.architecture")?;
    if architecture != "llama" {
        return Err(Error::unsupported(format!(
            "metadata key general.architecture: \"{architecture}\" is not supported; llama is"
        )));
    }
    let embedding = container
        .tensor("token_embd.weight")
        .ok_or_else(|| Error::format("required tensor token_embd.weight is missing"))?;
    Config::read(metadata, architecture, embedding.rows())
}

fn describe(container: &Container<'_>, config: &Config) -> Result<ModelInfo> {
    let metadata = container.metadata();
    Ok(ModelInfo {
        architecture: metadata.required_str("general.architecture")?.to_owned(),
        name: metadata.str("general.name")?.unwrap_or("").to_owned(),
        layers: config.layers as u32,
        embedding: config.embedding as u32,
        heads: config.heads as u32,
        kv_heads: config.kv_heads as u32,
        head_size: config.head_dim as u32,
        feed_forward: config.feed_forward as u32,
        vocabulary: config.vocabulary as u32,
        context: config.context as u32,
        parameters: container.tensors().iter().map(Tensor::elements).sum(),
        file_bytes: container.file_size(),
        packed_bytes: 0,
        bytes_per_token: 0,
        is_encoder: false,
    })
}

/// Vectors as f32, and the metadata as it is kept: an estimate, for the user's account of memory.
fn other_bytes(metadata: &Metadata, tensors: &[Tensor]) -> u64 {
    let vectors: u64 = tensors
        .iter()
        .filter(|tensor| tensor.shape.len() <= 1)
        .map(|tensor| 4 * tensor.elements())
        .sum();
    vectors
        + metadata
            .iter()
            .map(|(key, value)| (key.len() + value_bytes(value)) as u64)
            .sum::<u64>()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(array) => array.strings().map_or(8 * array.len(), |strings| {
            strings.total_bytes() + 8 * strings.len()
        }),
        _ => 8,
    }
}
