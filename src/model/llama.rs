//! The llama family: llama, mistral (Touvron et al. 2023; Jiang et al. 2023), qwen2, qwen3 (Yang et al. 2024, 2025) and
//! gemma3 (Gemma Team 2025).

use super::config::{Config, Family};
use super::encoder::EncoderConfig;
use super::plan::{Buffers, Limits};
use super::rope::Scaling;
use super::weights::{Loader, RowOrder};
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Status, Within};
use crate::base::matrix::{MatrixMut, Pieces};
use crate::kernels::activation::Activation;
use crate::kernels::attention::MAX_ROWS;
use crate::ops::attention::{self, Attention, Layer, Rotation, Span, Tile};
use crate::ops::linear::{Hidden, Input, Linear, rows_per_chunk};
use crate::ops::profile::{Op, Work};
use crate::ops::residual::{Norm, Residual, add_normed};
use crate::ops::runtime::Runtime;
use crate::quant::activations::Form;
use crate::quant::packed::PackedMatrix;

/// One transformer block.
pub(super) struct Block {
    attention_norm: Vec<f32>,
    pub(super) qkv: Linear,
    /// Norms of queries and of keys, per head.
    pub(super) head_norms: Option<(Vec<f32>, Vec<f32>)>,
    pub(super) output: Linear,
    feed_forward_norm: Vec<f32>,
    pub(super) gate: PackedMatrix,
    pub(super) up: PackedMatrix,
    pub(super) down: Linear,
    /// Norms of what the two halves of the block add to the residual stream.
    pub(super) post_norms: Option<(Vec<f32>, Vec<f32>)>,
}

/// The weights of a llama.
pub struct Llama {
    config: Config,
    /// The same numbers, for embeddings.
    pub(super) as_encoder: EncoderConfig,
    embedding: Linear,
    pub(super) blocks: Vec<Block>,
    pub(super) output_norm: Vec<f32>,
    /// `None`: the embedding serves as the output head too.
    head: Option<Linear>,
}

/// Tokens on their way through the layers.
pub struct Batch<'a> {
    /// The tokens.
    pub tokens: &'a [u32],
    /// Their positions.
    pub positions: &'a [u32],
    /// Where their sequences stand.
    pub spans: &'a [Span],
    /// The spans, cut for attention.
    pub tiles: &'a [Tile],
    /// First rows of the tiles.
    pub starts: &'a [usize],
    /// Rows whose logits are wanted.
    pub wanted: &'a [u32],
    /// First row of the logits to write.
    pub logits: usize,
}

impl Llama {
    /// Reads the weights by their GGUF names.
    pub fn load(mut config: Config, loader: &mut Loader<'_, '_, '_>) -> Result<Llama> {
        let (width, vocabulary) = (config.embedding, config.vocabulary);
        if config.group() > MAX_ROWS {
            return Err(Error::unsupported(format!(
                "{} query heads share a key head; at most {MAX_ROWS} are supported",
                config.group()
            )));
        }
        let matrix = loader.matrix("token_embd.weight", vocabulary, width, RowOrder::Stored)?;
        let embedding = Linear::new(vec![matrix], None)?;
        let blocks = (0..config.layers)
            .map(|layer| Block::load(&config, layer, loader))
            .collect::<Result<Vec<Block>>>()?;
        let head = if loader.has("output.weight") {
            let matrix = loader.matrix("output.weight", vocabulary, width, RowOrder::Stored)?;
            Some(Linear::new(vec![matrix], None)?)
        } else {
            None
        };
        let output_norm = loader.norm("output_norm.weight", width)?;
        let pairs = config.ropes[0].dims / 2;
        if let Some(factors) = loader.optional_vector("rope_freqs.weight", pairs)? {
            config.ropes[0].scaling = Scaling::Factors(factors);
        }
        Ok(Llama {
            as_encoder: EncoderConfig::of_decoder(&config),
            config,
            embedding,
            blocks,
            output_norm,
            head,
        })
    }

    /// The numbers of the architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The form of activations that needs the most memory.
    pub fn widest_form(&self) -> Form {
        let blocks = self.blocks.iter().flat_map(|block| {
            let parts = [&block.qkv, &block.output, &block.down]
                .into_iter()
                .flat_map(|linear| linear.parts());
            parts.chain([&block.gate, &block.up])
        });
        let all = blocks.chain(self.head().parts());
        all.map(|matrix| Form::of(matrix.layout().dtype))
            .max()
            .unwrap_or(Form::F32)
    }

    /// The output head: the embedding where the file has no other.
    fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes of weights that are read for every token.
    pub fn bytes_per_token(&self) -> u64 {
        let blocks = self.blocks.iter().map(|block| {
            let linear = block.qkv.bytes() + block.output.bytes() + block.down.bytes();
            linear + block.gate.bytes().len() + block.up.bytes().len()
        });
        (blocks.sum::<usize>() + self.head().bytes()) as u64
    }

    /// Runs the tokens of `batch` through all layers, and writes the logits of the wanted rows.
    pub fn forward(
        &self,
        runtime: &Runtime,
        batch: &Batch<'_>,
        limits: &Limits,
        buffers: &mut Buffers<'_>,
        cancel: Option<&Cancel>,
    ) -> Result<()> {
        let width = self.config.embedding;
        let tokens = batch.tokens.len();
        self.embed(runtime, batch.tokens, &mut buffers.x[..tokens * width]);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::Embedding, || Work::values(tokens * width, 0, 8));
        // The norm of what the block before adds, which stands in `attended` until it is added.
        let mut behind = None;
        for (layer, block) in self.blocks.iter().enumerate() {
            if cancel.is_some_and(Cancel::is_fired) {
                return Err(Error::new(Status::Cancelled, "the forward pass was cancelled"));
            }
            buffers.recorder.layer(layer);
            self.attend(runtime, block, behind, layer, batch, limits, buffers);
            self.feed_forward(runtime, block, tokens, buffers);
            behind = block.post_norms.as_ref().map(|(_, norm)| norm.as_slice());
        }
        if let Some(norm) = behind {
            let (x, y) = (&mut buffers.x[..tokens * width], &*buffers.attended);
            add_normed(runtime, x, width, (y, norm, self.config.epsilon));
            let recorder = &mut buffers.recorder;
            recorder.mark(Op::OutputNorm, || Work::values(tokens * width, 6, 12));
        }
        self.write_logits(runtime, batch, buffers);
        Ok(())
    }

    /// x = E[token], times sqrt(d) for gemma3
    pub(super) fn embed(&self, runtime: &Runtime, tokens: &[u32], x: &mut [f32]) {
        let width = self.config.embedding;
        let scale = (self.config.family == Family::Gemma3).then_some((width as f32).sqrt());
        let per_chunk = rows_per_chunk(tokens.len(), width);
        let pieces = Pieces::new(x, per_chunk * width);
        runtime
            .pool()
            .divide(tokens.len().div_ceil(per_chunk), pieces, |chunk, rows| {
                for (row, &token) in rows.chunks_exact_mut(width).zip(&tokens[chunk * per_chunk..]) {
                    let Ok(()) = self.embedding.parts()[0].row(token as usize, row) else {
                        unreachable!("the session checked the tokens")
                    };
                    if let Some(scale) = scale {
                        row.iter_mut().for_each(|value| *value *= scale);
                    }
                }
            });
    }

    /// a = rms(x); where the block before left something, x += rms(that) first.
    pub(super) fn residual<'a>(
        &self,
        behind: Option<&'a [f32]>,
        before: &'a [f32],
        side: &'a [f32],
    ) -> Residual<'a> {
        let epsilon = self.config.epsilon;
        Residual {
            add: behind.map(|weight| (side, weight, epsilon)),
            norm: Norm::Rms {
                weight: before,
                epsilon,
            },
            in_place: false,
        }
    }

    /// x += Wo attention(rope(Wq a), rope(Wk a), Wv a), a = rms(x); with norms behind, the sum is left in `attended`.
    #[allow(clippy::too_many_arguments)]
    fn attend(
        &self,
        runtime: &Runtime,
        block: &Block,
        behind: Option<&[f32]>,
        layer: usize,
        batch: &Batch<'_>,
        limits: &Limits,
        buffers: &mut Buffers<'_>,
    ) {
        let config = &self.config;
        let heads = config.heads();
        let tokens = batch.tokens.len();
        self.project(runtime, block, behind, tokens, buffers);
        let qkv = &mut buffers.qkv[..tokens * heads.stride()];
        let rope = config.rope_of(layer);
        let norms = block.head_norms.as_ref();
        let rotation = Rotation {
            norms: norms.map(|(queries, keys)| (&queries[..], &keys[..], config.epsilon)),
            cosine: buffers.cosine[rope],
            sine: buffers.sine[rope],
            half: config.ropes[rope].dims / 2,
        };
        rotation.apply(runtime, heads, batch.positions, qkv);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::Rope, || Work::values(tokens * heads.rotated(), 3, 8));
        let mut cache = cache_layer(config, limits, layer, buffers.keys, buffers.values);
        attention::store(runtime, heads, batch.spans, qkv, &mut cache);
        let stored = 2 * tokens * heads.kv_heads * heads.head_dim;
        recorder.mark(Op::CacheStore, || Work::values(stored, 0, 6));
        let attention = Attention {
            heads,
            tiles: batch.tiles,
            starts: batch.starts,
            window: config.window_of(layer),
            scale: config.score_scale,
            cap: config.score_cap,
        };
        let queries = config.heads * config.head_dim;
        attention.apply(
            runtime,
            qkv,
            &cache,
            buffers.scratch,
            matrix(buffers.attended, tokens, queries),
        );
        recorder.mark(Op::Attention, || attention.work(batch.spans, &cache));
        self.project_attended(runtime, block, tokens, buffers);
    }

    /// x += Wo attended; with norms behind, the sum is left in `attended`.
    pub(super) fn project_attended(
        &self,
        runtime: &Runtime,
        block: &Block,
        tokens: usize,
        buffers: &mut Buffers<'_>,
    ) {
        let (width, queries) = (self.config.embedding, self.config.heads * self.config.head_dim);
        let input = Input {
            values: buffers.attended,
            stride: queries,
            columns: queries,
            tokens,
            rows: None,
            norm: None,
        };
        let form = Form::of(block.output.parts()[0].layout().dtype);
        let attended = input.activate(runtime, form, &mut buffers.activations, buffers.scratch);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::Quantize, || Work::values(tokens * queries, 2, 5));
        let (sum, add) = match block.post_norms {
            None => (matrix(buffers.x, tokens, width), true),
            Some(_) => (matrix(buffers.attended, tokens, width), false),
        };
        block.output.apply_to(runtime, &attended.view(), sum, add);
        recorder.mark(Op::AttentionOutput, || {
            Work::product(block.output.parts(), tokens, 8)
        });
    }

    /// qkv = (Wq a, Wk a, Wv a), a = rms(x)
    pub(super) fn project(
        &self,
        runtime: &Runtime,
        block: &Block,
        behind: Option<&[f32]>,
        tokens: usize,
        buffers: &mut Buffers<'_>,
    ) {
        let (width, stride) = (self.config.embedding, self.config.heads().stride());
        let (memory, recorder) = (&mut buffers.activations, &mut buffers.recorder);
        for (index, form) in block.qkv.forms().enumerate() {
            let x = &mut buffers.x[..tokens * width];
            let behind = behind.filter(|_| index == 0);
            let residual = self.residual(behind, &block.attention_norm, buffers.attended);
            let a = residual.activate(runtime, x, width, form, memory, buffers.scratch);
            recorder.mark(Op::AttentionNorm, || Work::values(tokens * width, 6, 5));
            let qkv = matrix(buffers.qkv, tokens, stride);
            block.qkv.apply_to(runtime, &a.view(), qkv, false);
            recorder.mark(Op::Qkv, || Work::product(block.qkv.parts_of(form), tokens, 4));
        }
    }

    /// x += down(activation(gate f) * up f), f = rms(x); with norms behind, the sum is left in `attended`.
    pub(super) fn feed_forward(
        &self,
        runtime: &Runtime,
        block: &Block,
        tokens: usize,
        buffers: &mut Buffers<'_>,
    ) {
        let width = self.config.embedding;
        let form = Form::of(block.gate.layout().dtype);
        let behind = block.post_norms.as_ref().map(|(norm, _)| norm.as_slice());
        let residual = self.residual(behind, &block.feed_forward_norm, buffers.attended);
        let x = &mut buffers.x[..tokens * width];
        let memory = &mut buffers.activations;
        let f = residual.activate(runtime, x, width, form, memory, buffers.scratch);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::FeedForwardNorm, || Work::values(tokens * width, 6, 5));
        let form = Form::of(block.down.parts()[0].layout().dtype);
        let hidden = Hidden {
            gate: Some(&block.gate),
            gate_bias: None,
            up: &block.up,
            up_bias: None,
            activation: match self.config.family {
                Family::Gemma3 => Activation::GeluTanh,
                _ => Activation::Silu,
            },
        };
        let hidden = hidden.apply(runtime, &f.view(), form, &mut buffers.hidden, buffers.scratch);
        recorder.mark(Op::GateUp, || Work::product([&block.gate, &block.up], tokens, 1));
        let (sum, add) = match block.post_norms {
            None => (matrix(buffers.x, tokens, width), true),
            Some(_) => (matrix(buffers.attended, tokens, width), false),
        };
        block.down.apply_to(runtime, &hidden.view(), sum, add);
        recorder.mark(Op::Down, || Work::product(block.down.parts(), tokens, 8));
    }

    /// logits = Wout rms(x), for the wanted rows
    fn write_logits(&self, runtime: &Runtime, batch: &Batch<'_>, buffers: &mut Buffers<'_>) {
        let (width, vocabulary) = (self.config.embedding, self.config.vocabulary);
        let rows = batch.wanted.len();
        if rows == 0 {
            return;
        }
        let input = Input {
            values: buffers.x,
            stride: width,
            columns: width,
            tokens: rows,
            rows: Some(batch.wanted),
            norm: Some((&self.output_norm, self.config.epsilon)),
        };
        let logits = &mut buffers.logits[batch.logits * 2 * vocabulary..][..rows * 2 * vocabulary];
        // Rounding errors of other inputs are damped by the layers behind them; those of the head stand in the logits.
        self.head()
            .apply_precisely(runtime, &input, &mut buffers.activations, buffers.scratch, logits);
        let cap = self.config.logit_cap;
        if cap > 0.0 {
            for row in logits.chunks_exact_mut(2 * vocabulary) {
                // By a library whose results do not depend on the system.
                row[..vocabulary]
                    .iter_mut()
                    .for_each(|logit| *logit = cap * libm::tanhf(*logit / cap));
            }
        }
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::Head, || Work::product(self.head().parts(), rows, 4));
    }
}

impl Block {
    fn load(config: &Config, layer: usize, loader: &mut Loader<'_, '_, '_>) -> Result<Block> {
        let Config {
            embedding: width,
            heads,
            kv_heads,
            head_dim,
            feed_forward,
            family,
            ..
        } = *config;
        // llama.cpp's converter stores the rotated pairs of this family next to each other; `transformers` does not.
        let rotated = match family {
            Family::Llama if loader.stores_pairs() => RowOrder::PairsToHalves {
                head_dim,
                rotated: config.ropes[0].dims,
            },
            _ => RowOrder::Stored,
        };
        let stored = RowOrder::Stored;
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let (queries, keys) = (heads * head_dim, kv_heads * head_dim);
        let mut bias = Vec::new();
        let mut qkv = Vec::new();
        for (part, rows, order) in [
            ("attn_q", queries, rotated),
            ("attn_k", keys, rotated),
            ("attn_v", keys, stored),
        ] {
            qkv.push(loader.matrix(&name(part), rows, width, order)?);
            let name = format!("blk.{layer}.{part}.bias");
            if family == Family::Qwen2 || loader.has(&name) {
                bias.extend(loader.vector_in(&name, rows, order)?);
            }
        }
        let bias = Some(bias).filter(|bias| !bias.is_empty());
        let qkv = Linear::new(qkv, bias).within(|| format!("blk.{layer}: attn_q, attn_k and attn_v"))?;
        let mut single = |part: &str, rows, columns| {
            Linear::new(vec![loader.matrix(&name(part), rows, columns, stored)?], None)
        };
        let output = single("attn_output", width, queries)?;
        let down = single("ffn_down", width, feed_forward)?;
        let gate = loader.matrix(&name("ffn_gate"), feed_forward, width, stored)?;
        let up = loader.matrix(&name("ffn_up"), feed_forward, width, stored)?;
        if Form::of(gate.layout().dtype) != Form::of(up.layout().dtype) {
            return Err(Error::unsupported(format!(
                "blk.{layer}: gate is {} and up is {}; they must both be quantized, or both be floats of one kind",
                gate.layout().dtype.name(),
                up.layout().dtype.name()
            )));
        }
        let mut norms = |first: &str, second: &str, length| -> Result<Option<(Vec<f32>, Vec<f32>)>> {
            Ok(Some((
                loader.norm(&name(first), length)?,
                loader.norm(&name(second), length)?,
            )))
        };
        let head_norms = match family.normalizes_heads() {
            true => norms("attn_q_norm", "attn_k_norm", head_dim)?,
            false => None,
        };
        let post_norms = match family {
            Family::Gemma3 => norms("post_attention_norm", "post_ffw_norm", width)?,
            _ => None,
        };
        Ok(Block {
            attention_norm: loader.norm(&name("attn_norm"), width)?,
            qkv,
            head_norms,
            output,
            feed_forward_norm: loader.norm(&name("ffn_norm"), width)?,
            gate,
            up,
            down,
            post_norms,
        })
    }
}

fn matrix(values: &mut [f32], rows: usize, columns: usize) -> MatrixMut<'_, f32> {
    match MatrixMut::new(values, rows, columns, columns) {
        Some(matrix) => matrix,
        None => unreachable!("the plan carved {rows} x {columns}"),
    }
}

fn cache_layer<'a>(
    config: &Config,
    limits: &Limits,
    layer: usize,
    keys: &'a mut [u8],
    values: &'a mut [u8],
) -> Layer<'a> {
    let (key_bytes, value_bytes) = (limits.key_bytes(config), limits.value_bytes(config));
    let slabs = config.kv_heads * limits.sequences;
    Layer {
        keys: &mut keys[layer * slabs * key_bytes..][..slabs * key_bytes],
        values: &mut values[layer * slabs * value_bytes..][..slabs * value_bytes],
        key_bytes,
        value_bytes,
        key_type: limits.key_type,
        value_type: limits.value_type,
    }
}
