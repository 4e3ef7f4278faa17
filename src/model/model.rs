//! An opened model: its numbers, its metadata and its packed weights. Immutable; share it between threads.

use super::bert::Bert;
use super::config::{Config, Family, bounded};
use super::dense::{Dense, load_dense, load_modules};
use super::encoder::{Encoder, EncoderConfig};
use super::gemma::GemmaEmbedding;
use super::llama::Llama;
use super::names::{Names, describe};
use super::pooling::{EmbeddingInfo, Pooling};
use super::table::RowTable;
use super::weights::{LoadSource, Loader, Progress};
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Status, Within};
use crate::format::container::{Container, Folder, Format, LoadMode, Tensor};
use crate::format::dtype::DataType;
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
    /// Matrices of floats (F32, F16, BF16) are stored as this type where their rows fill its blocks: BF16 halves the
    /// bytes of F32 and doubles the speed where the CPU multiplies it, Q8_0 quarters them. `None` keeps them.
    pub weights: Option<DataType>,
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
    /// What the files say about embeddings; `None` for a decoder that has others than are supported.
    pub embeddings: Option<EmbeddingInfo>,
}

/// Memory of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelMemory {
    /// Packed weights.
    pub packed: u64,
    /// Norms, metadata and the like, about.
    pub other: u64,
}

/// The numbers of an architecture, from which the memory of sessions follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Numbers {
    /// A decoder.
    Decoder(Config),
    /// An encoder.
    Encoder(EncoderConfig),
}

/// The weights.
enum Weights {
    Llama(Box<Llama>),
    Encoder(Box<dyn Encoder>),
}

/// An opened model.
pub struct Model {
    runtime: Arc<Runtime>,
    info: ModelInfo,
    metadata: Metadata,
    tensors: Vec<Tensor>,
    folder: Option<Folder>,
    format: Format,
    weights: Weights,
    /// Layers behind the pooling of embeddings.
    dense: Vec<Dense>,
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
    pub fn probe(path: &Path, load_mode: LoadMode) -> Result<(ModelInfo, ModelMemory, Numbers)> {
        let container = Container::open(path, load_mode)?;
        let probed = || {
            let file = File::read(&container)?;
            let numbers = file.numbers(&container)?;
            let is_encoder = matches!(numbers, Numbers::Encoder(_));
            let mut packed = 0u64;
            for tensor in container.tensors().iter().filter(|tensor| tensor.shape.len() > 1) {
                let (dtype, rows, columns) = (tensor.dtype, tensor.rows(), tensor.columns());
                let bytes = match is_encoder && tensor.name == file.names.of(EMBEDDING) {
                    true => RowTable::bytes_for(dtype, rows, columns),
                    // Tables of positions in whole numbers and the like are not loaded.
                    false if is_encoder => Ok(PackedMatrix::bytes_for(dtype, rows, columns).unwrap_or(0)),
                    false => PackedMatrix::bytes_for(dtype, rows, columns),
                };
                packed += bytes.within(|| format!("tensor {}", tensor.name))? as u64;
            }
            let mut info = file.info(&container, &numbers)?;
            info.packed_bytes = packed;
            // Without an own output head, the embedding is read as the head.
            let tied = !is_encoder && container.tensor(&file.names.of("output.weight")).is_none();
            let embedding = container
                .tensor(&file.names.of(EMBEDDING))
                .map_or(0, |tensor| tensor.bytes);
            info.bytes_per_token = if tied {
                packed
            } else {
                packed.saturating_sub(embedding)
            };
            let memory = ModelMemory {
                packed,
                other: other_bytes(file.metadata(&container), container.tensors()),
            };
            Ok((info, memory, numbers))
        };
        probed().within(|| path.display().to_string())
    }

    fn load(
        runtime: &Arc<Runtime>,
        container: Container<'_>,
        options: ModelOptions<'_>,
    ) -> Result<Arc<Model>> {
        let file = File::read(&container)?;
        let numbers = file.numbers(&container)?;
        let mut info = file.info(&container, &numbers)?;
        let source = LoadSource {
            runtime,
            container: &container,
            names: &file.names,
            weights: options.weights,
            cancel: options.cancel,
            limit: options.memory_limit,
        };
        let mut loader = Loader::new(source, options.progress);
        let modules = info.embeddings.as_ref().map_or(&[][..], |info| &info.modules);
        let weights = file.load(numbers, &container, &mut loader)?;
        let dense = match container.format() {
            Format::Gguf => load_dense(
                file.metadata(&container),
                &file.architecture,
                info.embedding as usize,
                &mut loader,
            )?,
            Format::Safetensors => load_modules(&container, modules, &mut loader)?,
        };
        info.packed_bytes = loader.packed();
        info.bytes_per_token = match &weights {
            Weights::Llama(llama) => llama.bytes_per_token(),
            Weights::Encoder(encoder) => encoder.bytes_per_token(),
        };
        let format = container.format();
        let own = file.own_metadata;
        let (metadata, tensors, folder) = container.into_parts();
        let model = Model {
            runtime: runtime.clone(),
            info,
            metadata: own.unwrap_or(metadata),
            tensors,
            folder,
            format,
            weights,
            dense,
        };
        model.log();
        Ok(Arc::new(model))
    }

    fn log(&self) {
        let info = &self.info;
        self.runtime.log(LogLevel::Info, "model", || {
            format!(
                "{} \"{}\": {} layers, {} bytes packed",
                info.architecture, info.name, info.layers, info.packed_bytes
            )
        });
        let embeddings = info.embeddings.as_ref();
        if info.architecture == "gemma-embedding" && embeddings.is_some_and(|e| e.dense_layers == 0) {
            self.runtime.log(LogLevel::Warning, "model", || {
                "the file lacks dense_2 and dense_3: its embeddings are not those of the original model"
                    .to_owned()
            });
        }
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

    /// The text of a file in the model's folder, such as `tokenizer.json`; `None` for models that are one file with
    /// everything in it (GGUF), or in memory. It is read at each call.
    pub fn sidecar(&self, name: &str) -> Result<Option<String>> {
        match &self.folder {
            Some(folder) if self.format == Format::Safetensors => folder.text(name),
            _ => Ok(None),
        }
    }

    /// The format of the model's files.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The decoder of a session, which was made with [`Model::decoder`].
    pub(super) fn llama(&self) -> &Llama {
        match self.decoder() {
            Ok(llama) => llama,
            Err(_) => unreachable!("sessions are made of decoders only"),
        }
    }

    /// The decoder; an error for other models.
    pub(super) fn decoder(&self) -> Result<&Llama> {
        match &self.weights {
            Weights::Llama(llama) => Ok(llama),
            Weights::Encoder(_) => Err(Error::unsupported(format!(
                "{} is an encoder: it has no logits and keeps no sequences, but gives embeddings",
                self.info.architecture
            ))),
        }
    }

    /// What turns tokens into vectors for embeddings: an encoder, or the layers of a decoder.
    pub(super) fn encoder(&self) -> &dyn Encoder {
        match &self.weights {
            Weights::Encoder(encoder) => &**encoder,
            Weights::Llama(llama) => &**llama,
        }
    }

    /// What the files say about embeddings; an error where they describe some that are not supported.
    pub fn embedding(&self) -> Result<&EmbeddingInfo> {
        let info = self.info.embeddings.as_ref();
        info.ok_or_else(|| {
            Error::unsupported(format!(
                "{} is a decoder whose files describe embeddings in a way that is not supported; it generates text",
                self.info.architecture
            ))
        })
    }

    /// Dense layers behind the pooling.
    pub(super) fn dense(&self) -> &[Dense] {
        &self.dense
    }
}

/// The tensor that every architecture has.
const EMBEDDING: &str = "token_embd.weight";

/// Architectures that are computed.
const ARCHITECTURES: &str = "llama, mistral, qwen2, qwen3, gemma3, gemma-embedding, bert, nomic-bert";

/// What a file says about itself, by the names of GGUF.
struct File {
    architecture: String,
    names: Names,
    /// Made from `config.json`; `None` where the container's is used.
    own_metadata: Option<Metadata>,
}

impl File {
    fn read(container: &Container<'_>) -> Result<File> {
        let (names, own_metadata) = describe(container)?;
        let metadata = own_metadata.as_ref().unwrap_or(container.metadata());
        Ok(File {
            architecture: metadata.required_str("general.architecture")?.to_owned(),
            names,
            own_metadata,
        })
    }

    fn metadata<'m>(&'m self, container: &'m Container<'_>) -> &'m Metadata {
        self.own_metadata.as_ref().unwrap_or(container.metadata())
    }

    fn unknown(&self) -> Error {
        Error::unsupported(format!(
            "metadata key general.architecture: \"{}\" is not supported; {ARCHITECTURES} are",
            self.architecture
        ))
    }

    fn numbers(&self, container: &Container<'_>) -> Result<Numbers> {
        let (metadata, architecture) = (self.metadata(container), self.architecture.as_str());
        let vocabulary = || {
            let name = self.names.of(EMBEDDING);
            let embedding = container
                .tensor(&name)
                .ok_or_else(|| Error::format(format!("required tensor {name} is missing")))?;
            bounded("vocabulary", embedding.rows(), 1 << 28)
        };
        match architecture {
            _ if Family::of(architecture).is_some() => {
                Config::read(metadata, architecture, vocabulary()?).map(Numbers::Decoder)
            }
            "gemma-embedding" => {
                GemmaEmbedding::config(metadata, architecture, vocabulary()?).map(Numbers::Encoder)
            }
            "bert" | "nomic-bert" => {
                Bert::config(metadata, architecture, vocabulary()?).map(Numbers::Encoder)
            }
            _ => Err(self.unknown()),
        }
    }

    fn load(
        &self,
        numbers: Numbers,
        container: &Container<'_>,
        loader: &mut Loader<'_, '_, '_>,
    ) -> Result<Weights> {
        let (metadata, architecture) = (self.metadata(container), self.architecture.as_str());
        let config = match numbers {
            Numbers::Decoder(config) => return Ok(Weights::Llama(Box::new(Llama::load(config, loader)?))),
            Numbers::Encoder(config) => config,
        };
        let encoder: Box<dyn Encoder> = match architecture {
            "gemma-embedding" => Box::new(GemmaEmbedding::load(config, metadata, architecture, loader)?),
            "bert" | "nomic-bert" => Box::new(Bert::load(config, metadata, architecture, loader)?),
            _ => return Err(self.unknown()),
        };
        Ok(Weights::Encoder(encoder))
    }

    fn info(&self, container: &Container<'_>, numbers: &Numbers) -> Result<ModelInfo> {
        let metadata = self.metadata(container);
        let mut info = ModelInfo {
            architecture: self.architecture.clone(),
            name: metadata.str("general.name")?.unwrap_or("").to_owned(),
            layers: 0,
            embedding: 0,
            heads: 0,
            kv_heads: 0,
            head_size: 0,
            feed_forward: 0,
            vocabulary: 0,
            context: 0,
            parameters: container.tensors().iter().map(Tensor::elements).sum(),
            file_bytes: container.file_size(),
            packed_bytes: 0,
            bytes_per_token: 0,
            is_encoder: false,
            embeddings: None,
        };
        macro_rules! copy {
            ($config:ident) => {
                info.layers = $config.layers as u32;
                info.embedding = $config.embedding as u32;
                info.heads = $config.heads as u32;
                info.kv_heads = $config.kv_heads as u32;
                info.head_size = $config.head_dim as u32;
                info.feed_forward = $config.feed_forward as u32;
                info.vocabulary = $config.vocabulary as u32;
                info.context = $config.context as u32;
            };
        }
        match numbers {
            Numbers::Decoder(config) => {
                copy!(config);
                // What it says about embeddings must not keep a decoder from generating text.
                info.embeddings = match self.embeddings(container, config.embedding, Pooling::Last) {
                    Err(error) if error.status() == Status::Unsupported => None,
                    read => Some(read?),
                };
            }
            Numbers::Encoder(config) => {
                copy!(config);
                info.is_encoder = true;
                info.embeddings = Some(self.embeddings(container, config.embedding, Pooling::Mean)?);
            }
        }
        Ok(info)
    }

    /// What the files say about embeddings; `pooling` where they do not say how tokens are pooled.
    fn embeddings(&self, container: &Container<'_>, width: usize, pooling: Pooling) -> Result<EmbeddingInfo> {
        let metadata = self.metadata(container);
        let mut info = EmbeddingInfo::read(container, metadata, &self.architecture, width, pooling)?;
        if let (Format::Gguf, Some(dense)) = (container.format(), container.tensor("dense_3.weight")) {
            info.dimensions = dense.rows() as u32;
            info.dense_layers = 2;
        }
        Ok(info)
    }
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
