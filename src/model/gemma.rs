//! EmbeddingGemma (Vera et al. 2025): Gemma 3's block without the causal mask, then mean pooling.

use super::config::positive;
use super::encoder::{
    Encoder, EncoderBuffers, EncoderConfig, check_cancel, fill_rows, matrix, one_form, single,
};
use super::rope::{read_rope, sliding_layers};
use super::table::RowTable;
use super::weights::{Loader, RowOrder};
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result};
use crate::format::metadata::Metadata;
use crate::kernels::activation::Activation;
use crate::ops::linear::{Hidden, Input, Linear};
use crate::ops::profile::{Op, Work};
use crate::ops::ragged::{self, Preparation, Ragged, Scores};
use crate::ops::residual::{Norm, Residual};
use crate::ops::runtime::Runtime;
use crate::quant::activations::Form;
use crate::quant::packed::PackedMatrix;

/// One transformer block. Norms stand before and behind both of its halves.
struct Block {
    attention_norm: Vec<f32>,
    qkv: Linear,
    qkv_form: Form,
    query_norm: Vec<f32>,
    key_norm: Vec<f32>,
    output: Linear,
    post_attention_norm: Vec<f32>,
    feed_forward_norm: Vec<f32>,
    gate: Linear,
    up: Linear,
    down: Linear,
    post_feed_forward_norm: Vec<f32>,
    /// Tokens see at most half as many positions to each side; 0 for all.
    window: usize,
}

/// The weights of an EmbeddingGemma.
pub struct GemmaEmbedding {
    config: EncoderConfig,
    embedding: RowTable,
    blocks: Vec<Block>,
    output_norm: Vec<f32>,
}

impl GemmaEmbedding {
    /// Reads the numbers.
    pub fn config(metadata: &Metadata, architecture: &str, vocabulary: usize) -> Result<EncoderConfig> {
        let mut config = EncoderConfig::read(
            metadata,
            architecture,
            vocabulary,
            "attention.layer_norm_rms_epsilon",
        )?;
        let global = read_rope(metadata, architecture, config.head_dim)?.plain()?;
        let mut local = global.clone();
        local.base = positive(
            &format!("{architecture}.rope.freq_base_swa"),
            metadata,
            Some(10_000.0),
        )?;
        // Scaling stretches the positions of the global layers only.
        local.scale = 1.0;
        config.ropes = vec![global, local];
        Ok(config)
    }

    /// Reads the weights by their GGUF names.
    pub fn load(
        config: EncoderConfig,
        metadata: &Metadata,
        architecture: &str,
        loader: &mut Loader<'_, '_, '_>,
    ) -> Result<GemmaEmbedding> {
        let sliding = sliding_layers(metadata, architecture, config.layers, Some(6))?;
        let key = format!("{architecture}.attention.sliding_window");
        let window = metadata.u32(&key)?.unwrap_or(512) as usize;
        let embedding = loader.table("token_embd.weight", config.vocabulary, config.embedding)?;
        let mut blocks = Vec::new();
        for (layer, sliding) in sliding.into_iter().enumerate() {
            let window = if sliding { window } else { 0 };
            blocks.push(Block::load(&config, layer, window, loader)?);
        }
        let output_norm = loader.vector("output_norm.weight", config.embedding)?;
        Ok(GemmaEmbedding {
            config,
            embedding,
            blocks,
            output_norm,
        })
    }
}

impl Block {
    fn load(
        config: &EncoderConfig,
        layer: usize,
        window: usize,
        loader: &mut Loader<'_, '_, '_>,
    ) -> Result<Block> {
        let name = |part: &str| format!("blk.{layer}.{part}.weight");
        let (width, hidden, head) = (config.embedding, config.feed_forward, config.head_dim);
        let (queries, keys) = (config.heads * head, config.kv_heads * head);
        let mut one = |part: &str, rows: usize, columns: usize| {
            single(loader.matrix(&name(part), rows, columns, RowOrder::Stored)?, None)
        };
        let output = one("attn_output", width, queries)?;
        let gate = one("ffn_gate", hidden, width)?;
        let up = one("ffn_up", hidden, width)?;
        let down = one("ffn_down", width, hidden)?;
        if gate.form() != up.form() {
            return Err(Error::unsupported(format!(
                "blk.{layer}: ffn_gate and ffn_up must both be quantized, or both be floats of one kind"
            )));
        }
        let qkv = loader.stack(
            &[
                (&name("attn_q"), queries),
                (&name("attn_k"), keys),
                (&name("attn_v"), keys),
            ],
            width,
            None,
        )?;
        Ok(Block {
            attention_norm: loader.vector(&name("attn_norm"), width)?,
            qkv_form: one_form(&qkv, &format!("blk.{layer}.attn_q, attn_k, attn_v"))?,
            qkv,
            query_norm: loader.vector(&name("attn_q_norm"), head)?,
            key_norm: loader.vector(&name("attn_k_norm"), head)?,
            output,
            post_attention_norm: loader.vector(&name("post_attention_norm"), width)?,
            feed_forward_norm: loader.vector(&name("ffn_norm"), width)?,
            gate,
            up,
            down,
            post_feed_forward_norm: loader.vector(&name("post_ffw_norm"), width)?,
            window,
        })
    }
}

impl Encoder for GemmaEmbedding {
    fn config(&self) -> &EncoderConfig {
        &self.config
    }

    fn matrices(&self) -> Vec<&PackedMatrix> {
        let blocks = self.blocks.iter();
        let linears =
            blocks.flat_map(|block| [&block.qkv, &block.output, &block.gate, &block.up, &block.down]);
        linears.flat_map(Linear::parts).collect()
    }

    fn forward(
        &self,
        runtime: &Runtime,
        tokens: &[u32],
        batch: &Ragged,
        buffers: &mut EncoderBuffers<'_>,
        cancel: Option<&Cancel>,
    ) -> Result<()> {
        let width = self.config.embedding;
        let x = &mut buffers.x[..tokens.len() * width];
        // x = E[token] * sqrt(d)
        let scale = (width as f32).sqrt();
        fill_rows(runtime, x, width, |row, x| {
            self.embedding.row(tokens[row] as usize, x);
            x.iter_mut().for_each(|value| *value *= scale);
        });
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::Embedding, || Work::values(tokens.len() * width, 1, 8));
        let mut behind: Option<&[f32]> = None;
        for (layer, block) in self.blocks.iter().enumerate() {
            check_cancel(cancel)?;
            buffers.recorder.layer(layer);
            self.attend(runtime, block, batch, behind, buffers);
            self.feed_forward(runtime, block, tokens.len(), buffers);
            behind = Some(&block.post_feed_forward_norm);
        }
        self.residual(behind, &self.output_norm, buffers.side).finish(
            runtime,
            &mut buffers.x[..tokens.len() * width],
            width,
        );
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::OutputNorm, || Work::values(tokens.len() * width, 9, 12));
        Ok(())
    }
}

impl GemmaEmbedding {
    /// x += rms(side, behind); what follows sees rms(x, before).
    fn residual<'a>(&self, behind: Option<&'a [f32]>, before: &'a [f32], side: &'a [f32]) -> Residual<'a> {
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

    /// side = Wo attention(rope(rms(Wq a)), rope(rms(Wk a)), Wv a), a = rms(x)
    fn attend(
        &self,
        runtime: &Runtime,
        block: &Block,
        batch: &Ragged,
        behind: Option<&[f32]>,
        buffers: &mut EncoderBuffers<'_>,
    ) {
        let config = &self.config;
        let (width, heads, tokens) = (config.embedding, config.heads(), batch.tokens());
        let residual = self.residual(behind, &block.attention_norm, buffers.side);
        let a = residual.activate(
            runtime,
            &mut buffers.x[..tokens * width],
            width,
            block.qkv_form,
            &mut buffers.activations,
            buffers.scratch,
        );
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::AttentionNorm, || Work::values(tokens * width, 11, 13));
        let qkv = matrix(buffers.qkv, tokens, heads.stride());
        block.qkv.apply_to(runtime, &a.view(), qkv, false);
        recorder.mark(Op::Qkv, || Work::product(block.qkv.parts(), tokens, 4));

        let rope = usize::from(block.window > 0);
        let preparation = Preparation {
            norm: Some((&block.query_norm, &block.key_norm, config.epsilon)),
            rope: Some((
                buffers.cosine[rope],
                buffers.sine[rope],
                config.ropes[rope].dims / 2,
            )),
        };
        let qkv = matrix(buffers.qkv, tokens, heads.stride());
        ragged::prepare(runtime, heads, batch, preparation, qkv, &mut buffers.store);
        recorder.mark(Op::Rope, || Work::values(tokens * heads.stride(), 6, 12));
        let queries = heads.heads * heads.head_dim;
        let scores = Scores {
            window: block.window,
            ..Scores::whole(heads)
        };
        ragged::attend(
            runtime,
            heads,
            batch,
            scores,
            buffers.qkv,
            &buffers.store,
            buffers.scratch,
            matrix(buffers.side, tokens, queries),
        );
        recorder.mark(Op::Attention, || batch.attention_work(heads, scores));
        let input = Input {
            values: buffers.side,
            stride: queries,
            columns: queries,
            tokens,
            rows: None,
            norm: None,
        };
        let form = Form::of(block.output.parts()[0].layout().dtype);
        let attended = input.activate(runtime, form, &mut buffers.activations, buffers.scratch);
        recorder.mark(Op::Quantize, || Work::values(tokens * queries, 2, 5));
        let side = matrix(buffers.side, tokens, width);
        block.output.apply_to(runtime, &attended.view(), side, false);
        recorder.mark(Op::AttentionOutput, || {
            Work::product(block.output.parts(), tokens, 4)
        });
    }

    /// x += rms(side); side = down(gelu(gate f) * up f), f = rms(x)
    fn feed_forward(
        &self,
        runtime: &Runtime,
        block: &Block,
        tokens: usize,
        buffers: &mut EncoderBuffers<'_>,
    ) {
        let width = self.config.embedding;
        let residual = self.residual(
            Some(&block.post_attention_norm),
            &block.feed_forward_norm,
            buffers.side,
        );
        let f = residual.activate(
            runtime,
            &mut buffers.x[..tokens * width],
            width,
            Form::of(block.gate.parts()[0].layout().dtype),
            &mut buffers.activations,
            buffers.scratch,
        );
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::FeedForwardNorm, || Work::values(tokens * width, 11, 13));
        let hidden = Hidden {
            gate: Some(&block.gate.parts()[0]),
            gate_bias: None,
            up: &block.up.parts()[0],
            up_bias: None,
            activation: Activation::GeluTanh,
        };
        let form = Form::of(block.down.parts()[0].layout().dtype);
        let hidden = hidden.apply(runtime, &f.view(), form, &mut buffers.hidden, buffers.scratch);
        recorder.mark(Op::GateUp, || {
            Work::product([&block.gate.parts()[0], &block.up.parts()[0]], tokens, 1)
        });
        let side = matrix(buffers.side, tokens, width);
        block.down.apply_to(runtime, &hidden.view(), side, false);
        recorder.mark(Op::Down, || Work::product(block.down.parts(), tokens, 4));
    }
}
