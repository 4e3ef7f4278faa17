//! A decoder that embeds texts (Wang et al. 2024, "Improving Text Embeddings with Large Language Models"): its layers over
//! whole documents side by side, causal, without a cache and without logits.

use super::encoder::{Encoder, EncoderBuffers, EncoderConfig, check_cancel, matrix};
use super::llama::{Block, Llama};
use super::plan::Buffers;
use crate::base::cancel::Cancel;
use crate::base::error::Result;
use crate::ops::linear::Linear;
use crate::ops::profile::{Op, Work};
use crate::ops::ragged::{self, Preparation, Ragged, Scores};
use crate::ops::runtime::Runtime;
use crate::quant::packed::PackedMatrix;

impl Encoder for Llama {
    fn config(&self) -> &EncoderConfig {
        &self.as_encoder
    }

    fn matrices(&self) -> Vec<&PackedMatrix> {
        let blocks = self.blocks.iter();
        blocks
            .flat_map(|block| {
                let linears = [&block.qkv, &block.output, &block.down].into_iter();
                linears.flat_map(Linear::parts).chain([&block.gate, &block.up])
            })
            .collect()
    }

    fn forward(
        &self,
        runtime: &Runtime,
        tokens: &[u32],
        batch: &Ragged,
        buffers: &mut EncoderBuffers<'_>,
        cancel: Option<&Cancel>,
    ) -> Result<()> {
        let width = self.as_encoder.embedding;
        self.embed(runtime, tokens, &mut buffers.x[..tokens.len() * width]);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::Embedding, || Work::values(tokens.len() * width, 0, 8));
        let mut behind = None;
        for (layer, block) in self.blocks.iter().enumerate() {
            check_cancel(cancel)?;
            buffers.recorder.layer(layer);
            self.project(
                runtime,
                block,
                behind,
                tokens.len(),
                &mut decoder_buffers(buffers),
            );
            self.attend_documents(runtime, block, layer, batch, buffers);
            let mut buffers = decoder_buffers(buffers);
            self.project_attended(runtime, block, tokens.len(), &mut buffers);
            self.feed_forward(runtime, block, tokens.len(), &mut buffers);
            behind = block.post_norms.as_ref().map(|(_, norm)| norm.as_slice());
        }
        let x = &mut buffers.x[..tokens.len() * width];
        self.residual(behind, &self.output_norm, buffers.side)
            .finish(runtime, x, width);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::OutputNorm, || Work::values(tokens.len() * width, 9, 12));
        Ok(())
    }
}

impl Llama {
    /// side = attention(rope(q), rope(k), v) within each document
    fn attend_documents(
        &self,
        runtime: &Runtime,
        block: &Block,
        layer: usize,
        batch: &Ragged,
        buffers: &mut EncoderBuffers<'_>,
    ) {
        let (config, tokens) = (self.config(), batch.tokens());
        let (heads, rope) = (config.heads(), config.rope_of(layer));
        let norms = block.head_norms.as_ref();
        let preparation = Preparation {
            norm: norms.map(|(queries, keys)| (&queries[..], &keys[..], config.epsilon)),
            rope: Some((
                buffers.cosine[rope],
                buffers.sine[rope],
                config.ropes[rope].dims / 2,
            )),
        };
        let qkv = matrix(buffers.qkv, tokens, heads.stride());
        ragged::prepare(runtime, heads, batch, preparation, qkv, &mut buffers.store);
        let recorder = &mut buffers.recorder;
        recorder.mark(Op::Rope, || Work::values(tokens * heads.stride(), 6, 12));
        let scores = Scores {
            causal: true,
            window: config.window_of(layer),
            scale: config.score_scale,
            cap: config.score_cap,
        };
        ragged::attend(
            runtime,
            heads,
            batch,
            scores,
            buffers.qkv,
            &buffers.store,
            buffers.scratch,
            matrix(buffers.side, tokens, heads.heads * heads.head_dim),
        );
        recorder.mark(Op::Attention, || batch.attention_work(heads, scores));
    }
}

/// The same memory as a decoder's steps name it; they use neither cache nor logits here.
fn decoder_buffers<'b>(buffers: &'b mut EncoderBuffers<'_>) -> Buffers<'b> {
    let [cosine, local_cosine] = &mut buffers.cosine;
    let [sine, local_sine] = &mut buffers.sine;
    Buffers {
        keys: &mut [],
        values: &mut [],
        cosine: [cosine, local_cosine],
        sine: [sine, local_sine],
        x: buffers.x,
        qkv: buffers.qkv,
        attended: buffers.side,
        activations: buffers.activations.reborrow(),
        hidden: buffers.hidden.reborrow(),
        scratch: buffers.scratch,
        logits: &mut [],
        recorder: buffers.recorder.reborrow(),
    }
}
