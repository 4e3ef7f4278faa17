//! The llama family (llama, mistral, SmolLM2, TinyLlama): Touvron et al. 2023.

use super::config::Config;
use super::plan::{Buffers, Limits};
use super::weights::{Loader, RowOrder};
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Status};
use crate::base::matrix::{MatrixMut, Pieces};
use crate::kernels::activation::Activation;
use crate::kernels::attention::MAX_ROWS;
use crate::ops::attention::{self, Attention, Heads, Layer, Span, Tile};
use crate::ops::linear::{Hidden, Input, Linear, rows_per_chunk};
use crate::ops::profile::{Op, Work};
use crate::ops::runtime::Runtime;
use crate::quant::activations::Form;
use crate::quant::packed::PackedMatrix;

/// One transformer block.
struct Block {
    attention_norm: Vec<f32>,
    qkv: Linear,
    output: Linear,
    feed_forward_norm: Vec<f32>,
    gate: PackedMatrix,
    up: PackedMatrix,
    down: Linear,
}

/// The weights of a llama.
pub struct Llama {
    config: Config,
    embedding: Linear,
    blocks: Vec<Block>,
    output_norm: Vec<f32>,
    /// `None`: the embedding serves as the output head too.
    head: Option<Linear>,
    /// Divides the frequencies of RoPE, one per pair.
    rope_factors: Option<Vec<f32>>,
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
    pub fn load(config: Config, loader: &mut Loader<'_, '_, '_>) -> Result<Llama> {
        let Config {
            embedding: width,
            heads,
            kv_heads,
            head_dim,
            feed_forward,
            vocabulary,
            ..
        } = config;
        if config.group() > MAX_ROWS {
            return Err(Error::unsupported(format!(
                "{} query heads share a key head; at most {MAX_ROWS} are supported",
                config.group()
            )));
        }
        // llama.cpp's converter stores the rotated pairs next to each other.
        let rotated = RowOrder::PairsToHalves {
            head_dim,
            rotated: config.rope.dims,
        };
        let stored = RowOrder::Stored;
        let mut blocks = Vec::new();
        let embedding = Linear::new(
            vec![loader.matrix("token_embd.weight", vocabulary, width, stored)?],
            None,
        )?;
        for layer in 0..config.layers {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let block = Block {
                attention_norm: loader.vector(&name("attn_norm"), width)?,
                qkv: Linear::new(
                    vec![
                        loader.matrix(&name("attn_q"), heads * head_dim, width, rotated)?,
                        loader.matrix(&name("attn_k"), kv_heads * head_dim, width, rotated)?,
                        loader.matrix(&name("attn_v"), kv_heads * head_dim, width, stored)?,
                    ],
                    None,
                )?,
                output: Linear::new(
                    vec![loader.matrix(&name("attn_output"), width, heads * head_dim, stored)?],
                    None,
                )?,
                feed_forward_norm: loader.vector(&name("ffn_norm"), width)?,
                gate: loader.matrix(&name("ffn_gate"), feed_forward, width, stored)?,
                up: loader.matrix(&name("ffn_up"), feed_forward, width, stored)?,
                down: Linear::new(
                    vec![loader.matrix(&name("ffn_down"), width, feed_forward, stored)?],
                    None,
                )?,
            };
            if Form::of(block.gate.layout().dtype) != Form::of(block.up.layout().dtype) {
                return Err(Error::unsupported(format!(
                    "blk.{layer}: gate is {} and up is {}; they must both be quantized, or both be floats of one kind",
                    block.gate.layout().dtype.name(),
                    block.up.layout().dtype.name()
                )));
            }
            blocks.push(block);
        }
        let head = if loader.has("output.weight") {
            Some(Linear::new(
                vec![loader.matrix("output.weight", vocabulary, width, stored)?],
                None,
            )?)
        } else {
            None
        };
        let output_norm = loader.vector("output_norm.weight", width)?;
        let rope_factors = loader.optional_vector("rope_freqs.weight", config.rope.dims / 2)?;
        Ok(Llama {
            config,
            embedding,
            blocks,
            output_norm,
            head,
            rope_factors,
        })
    }

    /// The numbers of the architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Factors that divide the frequencies of RoPE, one per pair.
    pub fn rope_factors(&self) -> Option<&[f32]> {
        self.rope_factors.as_deref()
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
        self.embed(runtime, batch, &mut buffers.x[..tokens * width]);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::Embedding, || Work::values(tokens * width, 0, 8));
        for (layer, block) in self.blocks.iter().enumerate() {
            if cancel.is_some_and(Cancel::is_fired) {
                return Err(Error::new(Status::Cancelled, "the forward pass was cancelled"));
            }
            buffers.recorder.layer(layer);
            self.attend(runtime, block, layer, batch, limits, buffers);
            self.feed_forward(runtime, block, tokens, buffers);
        }
        self.write_logits(runtime, batch, buffers);
        Ok(())
    }

    /// x = E[token]
    fn embed(&self, runtime: &Runtime, batch: &Batch<'_>, x: &mut [f32]) {
        let width = self.config.embedding;
        let per_chunk = rows_per_chunk(batch.tokens.len(), width);
        let pieces = Pieces::new(x, per_chunk * width);
        runtime
            .pool()
            .divide(batch.tokens.len().div_ceil(per_chunk), pieces, |chunk, rows| {
                for (row, &token) in rows
                    .chunks_exact_mut(width)
                    .zip(&batch.tokens[chunk * per_chunk..])
                {
                    let Ok(()) = self.embedding.parts()[0].row(token as usize, row) else {
                        unreachable!("the session checked the tokens")
                    };
                }
            });
    }

    /// x += Wo attention(rope(Wq a), rope(Wk a), Wv a), a = rms(x)
    fn attend(
        &self,
        runtime: &Runtime,
        block: &Block,
        layer: usize,
        batch: &Batch<'_>,
        limits: &Limits,
        buffers: &mut Buffers<'_>,
    ) {
        let config = &self.config;
        let heads = Heads {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
        };
        let (width, tokens) = (config.embedding, batch.tokens.len());
        let input = Input {
            values: buffers.x,
            stride: width,
            columns: width,
            tokens,
            rows: None,
            norm: Some((&block.attention_norm, config.epsilon)),
        };
        let recorder = &mut buffers.recorder;
        for form in block.qkv.forms() {
            let a = input.activate(runtime, form, &mut buffers.activations, buffers.scratch);
            recorder.mark(Op::AttentionNorm, || Work::values(tokens * width, 6, 5));
            let qkv = matrix(buffers.qkv, tokens, heads.stride());
            block.qkv.apply_to(runtime, &a.view(), qkv, false);
            recorder.mark(Op::Qkv, || Work::product(block.qkv.parts_of(form), tokens, 4));
        }

        let qkv = &mut buffers.qkv[..tokens * heads.stride()];
        attention::rotate(
            runtime,
            heads,
            batch.positions,
            buffers.cosine,
            buffers.sine,
            config.rope.dims / 2,
            qkv,
        );
        recorder.mark(Op::Rope, || Work::values(tokens * heads.rotated(), 3, 8));
        let mut cache = cache_layer(config, limits, layer, buffers.keys, buffers.values);
        attention::store(runtime, heads, batch.spans, qkv, &mut cache);
        let stored = 2 * tokens * heads.kv_heads * heads.head_dim;
        recorder.mark(Op::CacheStore, || Work::values(stored, 0, 6));
        let attention = Attention {
            heads,
            tiles: batch.tiles,
            starts: batch.starts,
            window: 0,
            scale: 1.0 / (config.head_dim as f32).sqrt(),
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

        let input = Input {
            values: buffers.attended,
            stride: queries,
            columns: queries,
            tokens,
            rows: None,
            norm: None,
        };
        for form in block.output.forms() {
            let a = input.activate(runtime, form, &mut buffers.activations, buffers.scratch);
            recorder.mark(Op::Quantize, || Work::values(tokens * queries, 2, 5));
            let x = matrix(buffers.x, tokens, width);
            block.output.apply_to(runtime, &a.view(), x, true);
            recorder.mark(Op::AttentionOutput, || {
                Work::product(block.output.parts_of(form), tokens, 8)
            });
        }
    }

    /// x += down(silu(gate f) * up f), f = rms(x)
    fn feed_forward(&self, runtime: &Runtime, block: &Block, tokens: usize, buffers: &mut Buffers<'_>) {
        let width = self.config.embedding;
        let input = Input {
            values: buffers.x,
            stride: width,
            columns: width,
            tokens,
            rows: None,
            norm: Some((&block.feed_forward_norm, self.config.epsilon)),
        };
        let form = Form::of(block.gate.layout().dtype);
        let x = input.activate(runtime, form, &mut buffers.activations, buffers.scratch);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::FeedForwardNorm, || Work::values(tokens * width, 6, 5));
        let form = Form::of(block.down.parts()[0].layout().dtype);
        let hidden = Hidden {
            gate: Some(&block.gate),
            gate_bias: None,
            up: &block.up,
            up_bias: None,
            activation: Activation::Silu,
        };
        let hidden = hidden.apply(runtime, &x.view(), form, &mut buffers.hidden, buffers.scratch);
        recorder.mark(Op::GateUp, || Work::product([&block.gate, &block.up], tokens, 1));
        block
            .down
            .apply_to(runtime, &hidden.view(), matrix(buffers.x, tokens, width), true);
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
        buffers
            .recorder
            .mark(Op::Head, || Work::product(self.head().parts(), rows, 4));
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
