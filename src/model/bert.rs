//! BERT (Devlin et al. 2018: MiniLM, BGE, E5, GTE) and nomic-bert (Nussbaum et al. 2024), which has rotary positions
//! and a gated feed-forward network.

use super::config::positive;
use super::encoder::{
    Encoder, EncoderBuffers, EncoderConfig, check_cancel, fill_rows, matrix, one_form, single,
};
use super::rope::{Rope, read_rope};
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

/// Says which activation the feed-forward network has; ours, for models from a folder. GGUF files do not have it.
pub const ACTIVATION_KEY: &str = "bert.feed_forward_activation";

/// Weights and biases of a layer norm.
struct LayerNorm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// One transformer block. Norms stand behind the additions.
struct Block {
    qkv: Linear,
    qkv_form: Form,
    output: Linear,
    attention_norm: LayerNorm,
    gate: Option<Linear>,
    up: Linear,
    up_bias: Option<Vec<f32>>,
    gate_bias: Option<Vec<f32>>,
    down: Linear,
    output_norm: LayerNorm,
}

/// The weights of a BERT.
pub struct Bert {
    config: EncoderConfig,
    tokens: RowTable,
    /// One row per position; `None` with rotary positions.
    positions: Option<RowTable>,
    /// The first row of the table of token types: every text is of the first type.
    token_type: Option<Vec<f32>>,
    embedding_norm: LayerNorm,
    blocks: Vec<Block>,
    activation: Activation,
}

impl Bert {
    /// Reads the numbers.
    pub fn config(metadata: &Metadata, architecture: &str, vocabulary: usize) -> Result<EncoderConfig> {
        let mut config =
            EncoderConfig::read(metadata, architecture, vocabulary, "attention.layer_norm_epsilon")?;
        if config.kv_heads != config.heads || config.heads * config.head_dim != config.embedding {
            return Err(Error::unsupported(format!(
                "{} heads of {} values and {} key heads do not make an embedding of {}",
                config.heads, config.head_dim, config.kv_heads, config.embedding
            )));
        }
        if architecture == "nomic-bert" {
            config.ropes = vec![read_rope(metadata, architecture, config.head_dim)?.plain()?];
            // The file's own base; llama.cpp's default for all models would be wrong here without notice.
            let key = "nomic-bert.rope.freq_base";
            config.ropes[0] = Rope {
                base: positive(key, metadata, None)?,
                ..config.ropes[0].clone()
            };
        }
        Ok(config)
    }

    /// Reads the weights by their GGUF names.
    pub fn load(
        config: EncoderConfig,
        metadata: &Metadata,
        architecture: &str,
        loader: &mut Loader<'_, '_, '_>,
    ) -> Result<Bert> {
        let width = config.embedding;
        let gated = architecture == "nomic-bert";
        let activation = match metadata.str(ACTIVATION_KEY)? {
            _ if gated => Activation::Silu,
            None | Some("gelu") => Activation::GeluErf,
            Some("gelu_tanh") => Activation::GeluTanh,
            Some(other) => {
                return Err(Error::unsupported(format!(
                    "activation \"{other}\" is not supported; gelu and gelu_tanh are"
                )));
            }
        };
        let tokens = loader.table("token_embd.weight", config.vocabulary, width)?;
        let positions = if config.ropes.is_empty() {
            // Some files have a few more rows than positions.
            let rows = loader.rows("position_embd.weight").unwrap_or(0);
            Some(loader.table_f32("position_embd.weight", rows.max(config.context), width)?)
        } else {
            None
        };
        let token_type = match loader.rows("token_types.weight") {
            None => None,
            Some(types) => {
                let mut first = vec![0.0; width];
                loader
                    .table_f32("token_types.weight", types, width)?
                    .row(0, &mut first);
                Some(first)
            }
        };
        let embedding_norm = LayerNorm::load("token_embd_norm", width, loader)?;
        let blocks = (0..config.layers)
            .map(|layer| Block::load(&config, layer, gated, loader))
            .collect::<Result<Vec<Block>>>()?;
        Ok(Bert {
            config,
            tokens,
            positions,
            token_type,
            embedding_norm,
            blocks,
            activation,
        })
    }
}

impl LayerNorm {
    fn load(name: &str, width: usize, loader: &mut Loader<'_, '_, '_>) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: loader.vector(&format!("{name}.weight"), width)?,
            bias: match loader.optional_vector(&format!("{name}.bias"), width)? {
                Some(bias) => bias,
                None => vec![0.0; width],
            },
        })
    }

    fn after(&self, epsilon: f32) -> Residual<'_> {
        Residual {
            add: None,
            norm: Norm::Layer {
                weight: &self.weight,
                bias: &self.bias,
                epsilon,
            },
            in_place: true,
        }
    }
}

impl Block {
    fn load(
        config: &EncoderConfig,
        layer: usize,
        gated: bool,
        loader: &mut Loader<'_, '_, '_>,
    ) -> Result<Block> {
        let (width, hidden) = (config.embedding, config.feed_forward);
        let name = |part: &str| format!("blk.{layer}.{part}");
        let mut one = |part: &str, rows: usize, columns: usize| {
            let matrix = loader.matrix(&name(&format!("{part}.weight")), rows, columns, RowOrder::Stored)?;
            let bias = loader.optional_vector(&name(&format!("{part}.bias")), rows)?;
            Ok::<_, Error>((matrix, bias))
        };
        let (output, output_bias) = one("attn_output", width, width)?;
        let (up, up_bias) = one("ffn_up", hidden, width)?;
        let (down, down_bias) = one("ffn_down", width, hidden)?;
        let (gate, gate_bias) = match gated {
            true => {
                let (gate, bias) = one("ffn_gate", hidden, width)?;
                (Some(single(gate, None)?), bias)
            }
            false => (None, None),
        };
        let up = single(up, None)?;
        if gate.as_ref().is_some_and(|gate| gate.form() != up.form()) {
            return Err(Error::unsupported(format!(
                "blk.{layer}: ffn_gate and ffn_up must both be quantized, or both be floats of one kind"
            )));
        }
        let qkv = Block::load_qkv(width, layer, loader)?;
        Ok(Block {
            qkv_form: one_form(&qkv, &format!("blk.{layer}.attn_q, attn_k, attn_v"))?,
            qkv,
            output: single(output, output_bias)?,
            attention_norm: LayerNorm::load(&name("attn_output_norm"), width, loader)?,
            gate,
            gate_bias,
            up,
            up_bias,
            down: single(down, down_bias)?,
            output_norm: LayerNorm::load(&name("layer_output_norm"), width, loader)?,
        })
    }

    /// Queries, keys and values side by side, whether the file has one matrix or three.
    fn load_qkv(width: usize, layer: usize, loader: &mut Loader<'_, '_, '_>) -> Result<Linear> {
        let name = |part: &str| format!("blk.{layer}.{part}");
        if loader.has(&name("attn_qkv.weight")) {
            let bias = loader.optional_vector(&name("attn_qkv.bias"), 3 * width)?;
            let matrix = loader.matrix(&name("attn_qkv.weight"), 3 * width, width, RowOrder::Stored)?;
            return single(matrix, bias);
        }
        let mut bias = Vec::new();
        for part in ["attn_q.bias", "attn_k.bias", "attn_v.bias"] {
            if let Some(values) = loader.optional_vector(&name(part), width)? {
                bias.extend(values);
            }
        }
        if !bias.is_empty() && bias.len() != 3 * width {
            return Err(Error::format(format!(
                "blk.{layer}: some of attn_q, attn_k and attn_v have a bias, and some have none"
            )));
        }
        let names = ["attn_q.weight", "attn_k.weight", "attn_v.weight"].map(name);
        let parts = [
            (names[0].as_str(), width),
            (names[1].as_str(), width),
            (names[2].as_str(), width),
        ];
        loader.stack(&parts, width, (!bias.is_empty()).then_some(bias))
    }
}

impl Encoder for Bert {
    fn config(&self) -> &EncoderConfig {
        &self.config
    }

    fn matrices(&self) -> Vec<&PackedMatrix> {
        let linears = self.blocks.iter().flat_map(|block| {
            let parts = [&block.qkv, &block.output, &block.up, &block.down];
            parts.into_iter().chain(&block.gate)
        });
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
        let (width, epsilon) = (self.config.embedding, self.config.epsilon);
        let count = tokens.len();
        self.embed(runtime, tokens, batch, &mut buffers.x[..count * width]);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::Embedding, || Work::values(count * width, 2, 16));
        let mut residual = self.embedding_norm.after(epsilon);
        for (layer, block) in self.blocks.iter().enumerate() {
            check_cancel(cancel)?;
            buffers.recorder.layer(layer);
            self.attend(runtime, block, batch, residual, buffers);
            self.feed_forward(runtime, block, count, buffers);
            residual = block.output_norm.after(epsilon);
        }
        residual.finish(runtime, &mut buffers.x[..count * width], width);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::OutputNorm, || Work::values(count * width, 8, 8));
        Ok(())
    }
}

impl Bert {
    /// x = E[token] + P[position] + T[0]
    fn embed(&self, runtime: &Runtime, tokens: &[u32], batch: &Ragged, x: &mut [f32]) {
        let width = self.config.embedding;
        fill_rows(runtime, x, width, |row, x| {
            self.tokens.row(tokens[row] as usize, x);
            if let Some(table) = &self.positions {
                table.add_row(batch.position(row), x);
            }
            if let Some(token_type) = &self.token_type {
                x.iter_mut().zip(token_type).for_each(|(x, value)| *x += value);
            }
        });
    }

    /// x = norm(x); x += Wo attention(Wq x, Wk x, Wv x)
    fn attend(
        &self,
        runtime: &Runtime,
        block: &Block,
        batch: &Ragged,
        before: Residual<'_>,
        buffers: &mut EncoderBuffers<'_>,
    ) {
        let config = &self.config;
        let (width, heads, tokens) = (config.embedding, config.heads(), batch.tokens());
        let x = before.activate(
            runtime,
            &mut buffers.x[..tokens * width],
            width,
            block.qkv_form,
            &mut buffers.activations,
            buffers.scratch,
        );
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::AttentionNorm, || Work::values(tokens * width, 10, 9));
        let qkv = matrix(buffers.qkv, tokens, heads.stride());
        block.qkv.apply_to(runtime, &x.view(), qkv, false);
        recorder.mark(Op::Qkv, || Work::product(block.qkv.parts(), tokens, 4));

        let rope = config.ropes.first();
        let preparation = Preparation {
            norm: None,
            rope: rope.map(|rope| (&*buffers.cosine[0], &*buffers.sine[0], rope.dims / 2)),
        };
        let qkv = matrix(buffers.qkv, tokens, heads.stride());
        ragged::prepare(runtime, heads, batch, preparation, qkv, &mut buffers.store);
        recorder.mark(Op::Rope, || Work::values(tokens * heads.stride(), 3, 12));
        ragged::attend(
            runtime,
            heads,
            batch,
            Scores::whole(heads),
            buffers.qkv,
            &buffers.store,
            buffers.scratch,
            matrix(buffers.side, tokens, width),
        );
        recorder.mark(Op::Attention, || {
            batch.attention_work(heads, Scores::whole(heads))
        });
        let input = Input {
            values: buffers.side,
            stride: width,
            columns: width,
            tokens,
            rows: None,
            norm: None,
        };
        let form = Form::of(block.output.parts()[0].layout().dtype);
        let attended = input.activate(runtime, form, &mut buffers.activations, buffers.scratch);
        recorder.mark(Op::Quantize, || Work::values(tokens * width, 2, 5));
        let x = matrix(buffers.x, tokens, width);
        block.output.apply_to(runtime, &attended.view(), x, true);
        recorder.mark(Op::AttentionOutput, || {
            Work::product(block.output.parts(), tokens, 8)
        });
    }

    /// x = norm(x); x += W2 f(W1 x + b1) + b2
    fn feed_forward(
        &self,
        runtime: &Runtime,
        block: &Block,
        tokens: usize,
        buffers: &mut EncoderBuffers<'_>,
    ) {
        let width = self.config.embedding;
        let x = block.attention_norm.after(self.config.epsilon).activate(
            runtime,
            &mut buffers.x[..tokens * width],
            width,
            Form::of(block.up.parts()[0].layout().dtype),
            &mut buffers.activations,
            buffers.scratch,
        );
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::FeedForwardNorm, || Work::values(tokens * width, 10, 9));
        let hidden = Hidden {
            gate: block.gate.as_ref().map(|gate| &gate.parts()[0]),
            gate_bias: block.gate_bias.as_deref(),
            up: &block.up.parts()[0],
            up_bias: block.up_bias.as_deref(),
            activation: self.activation,
        };
        let form = Form::of(block.down.parts()[0].layout().dtype);
        let hidden = hidden.apply(runtime, &x.view(), form, &mut buffers.hidden, buffers.scratch);
        recorder.mark(Op::GateUp, || {
            let gate = block.gate.iter().flat_map(|gate| gate.parts());
            Work::product(gate.chain(block.up.parts()), tokens, 1)
        });
        let x = matrix(buffers.x, tokens, width);
        block.down.apply_to(runtime, &hidden.view(), x, true);
        recorder.mark(Op::Down, || Work::product(block.down.parts(), tokens, 8));
    }
}
