//! Kernels: one body per algorithm over the `Simd` trait, one thin file per instruction set.
//!
//! The methods of [`Kernels`] here are the safe fronts: they check every shape and then call the table.

pub mod activation;
pub mod affine;
pub mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod code_tile;
mod codes;
mod decode;
pub mod gemm;
pub mod limits;
mod limits_loops;
mod math;
mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod quantize;
mod scalar;
pub mod simd;
mod table;
mod vector;

pub use table::{Isa, Kernels};

use crate::base::matrix::MatrixMut;
use crate::format::dtype::DataType;
use crate::quant::activations::{Activations, Form};
use crate::quant::packed::{BLOCK, PANEL, PackedMatrix};
use activation::Activation;
use attention::AttentionArgs;
use matmul::MatmulArgs;
pub use matmul::{Strategy, Tuning};
use std::ops::Range;

/// Which element types the key-value cache may have.
pub const CACHE_TYPES: [DataType; 2] = [DataType::F32, DataType::F16];

/// One head's keys and values, and the queries that look at them.
pub struct AttentionInput<'a> {
    /// `[token][query_stride]`; a token's row starts with the `group * head_dim` values of the group.
    pub queries: &'a [f32],
    /// Values from one token to the next.
    pub query_stride: usize,
    /// Query heads that share the keys.
    pub group: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Position of the first token.
    pub position: usize,
    /// Keys of the sequence.
    pub key_count: usize,
    /// Whether a token sees only keys up to its own position.
    pub causal: bool,
    /// Sliding window, 0 for none.
    pub window: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Scores s become cap * tanh(s / cap); 0 for no cap.
    pub cap: f32,
    /// Key panels `[panel][dim][16]` of type `key_type`.
    pub keys: &'a [u8],
    /// F32 or F16.
    pub key_type: DataType,
    /// Values `[token][value_dim]` of type `value_type`.
    pub values: &'a [u8],
    /// F32 or F16.
    pub value_type: DataType,
}

impl Kernels {
    /// `output = x * panels^T (+ row_bias) (+ output)`: `output` is tokens x rows of the panels. Weights of a type
    /// without a kernel cannot be packed, so every packed matrix can be multiplied.
    pub fn matmul(
        &self,
        weights: &PackedMatrix,
        panels: Range<usize>,
        x: &Activations<'_>,
        output: MatrixMut<'_, f32>,
        row_bias: Option<&[f32]>,
        accumulate: bool,
    ) {
        self.matmul_by(
            Strategy::Fastest,
            weights,
            panels,
            x,
            output,
            row_bias,
            accumulate,
        );
    }

    /// The strategy that is fastest for a type and a number of tokens; `None` for types without codes.
    pub fn strategy(&self, dtype: DataType, tokens: usize) -> Option<Strategy> {
        decode::many_from(dtype).map(|many| match tokens >= many {
            true => Strategy::InCache,
            false => Strategy::InRegisters,
        })
    }

    /// [`Kernels::matmul`] by a given strategy, to measure them.
    #[allow(clippy::too_many_arguments)]
    pub fn matmul_by(
        &self,
        strategy: Strategy,
        weights: &PackedMatrix,
        panels: Range<usize>,
        x: &Activations<'_>,
        mut output: MatrixMut<'_, f32>,
        row_bias: Option<&[f32]>,
        accumulate: bool,
    ) {
        let rows = (panels.end * PANEL)
            .min(weights.rows())
            .saturating_sub(panels.start * PANEL);
        let dtype = weights.layout().dtype;
        assert!(panels.start <= panels.end && panels.end <= weights.panels());
        assert!(output.columns() == rows && output.rows() == x.tokens);
        assert!(x.blocks == weights.blocks() && x.form == Form::of(dtype));
        assert!(x.is_whole());
        assert!(row_bias.is_none_or(|bias| bias.len() == rows));
        let Some(kernel) = self.matmul_of(dtype) else {
            unreachable!("only types with kernels are packed")
        };
        let args = MatmulArgs {
            panels: weights.bytes()[panels.start * weights.panel_bytes()..].as_ptr(),
            panel_bytes: weights.panel_bytes(),
            panel_count: panels.len(),
            rows,
            blocks: x.blocks,
            tokens: x.tokens,
            inputs: x.data.as_ptr(),
            input_stride: x.data.len() / x.tokens.max(1),
            output: output.start(),
            output_stride: output.stride(),
            row_bias: row_bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
            accumulate,
            strategy,
            tuning: self.tuning,
        };
        // SAFETY: the table was chosen for this CPU; the shapes were checked above.
        unsafe { kernel(&args) }
    }

    /// Puts one row of activations into `row`, in the form `form`.
    pub fn activate(&self, form: Form, x: &[f32], row: &mut [u8]) {
        assert!(form.row_bytes(x.len().div_ceil(BLOCK)) == Some(row.len()));
        match form {
            // SAFETY: the length was checked, and bytes need no alignment; the table was chosen for this CPU.
            Form::Codes => unsafe { (self.quantize_row)(x.as_ptr(), x.len(), row.as_mut_ptr()) },
            Form::F32 => {
                let (values, padding) = row.split_at_mut(4 * x.len());
                for (to, value) in values.chunks_exact_mut(4).zip(x) {
                    to.copy_from_slice(&value.to_ne_bytes());
                }
                padding.fill(0);
            }
            Form::Bf16 => {
                assert!(row.as_ptr().addr().is_multiple_of(2));
                // SAFETY: length and alignment were checked; the table was chosen for this CPU.
                unsafe { (self.bf16_row)(x.as_ptr(), x.len(), row.as_mut_ptr().cast()) }
            }
        }
    }

    /// Attention of the tokens of `output` (tokens x at least `group * head_dim`) over the keys they see.
    /// `scratch` takes [`attention::scratch_length`] values.
    pub fn attention(&self, input: &AttentionInput<'_>, mut output: MatrixMut<'_, f32>, scratch: &mut [f32]) {
        let tokens = output.rows();
        let rows = tokens * input.group;
        if rows == 0 {
            return;
        }
        let bytes = |dtype| if dtype == DataType::F32 { 4 } else { 2 };
        let width = input.group * input.head_dim;
        assert!(rows <= attention::MAX_ROWS && output.columns() >= width);
        assert!(input.queries.len() >= (tokens - 1) * input.query_stride + width);
        let panels = input.key_count.div_ceil(simd::LANES);
        assert!(input.keys.len() >= panels * input.head_dim * simd::LANES * bytes(input.key_type));
        assert!(
            input.values.len()
                >= input.key_count * attention::value_dim(input.head_dim) * bytes(input.value_type)
        );
        assert!(scratch.len() >= attention::scratch_length(rows, input.head_dim));
        assert!(input.position + tokens <= input.key_count);
        assert!(CACHE_TYPES.contains(&input.key_type) && CACHE_TYPES.contains(&input.value_type));
        let args = AttentionArgs {
            queries: input.queries.as_ptr(),
            query_stride: input.query_stride,
            group: input.group,
            head_dim: input.head_dim,
            tokens,
            position: input.position,
            key_count: input.key_count,
            causal: input.causal,
            window: input.window,
            scale: input.scale,
            cap: input.cap,
            keys: input.keys.as_ptr(),
            values: input.values.as_ptr(),
            output: output.start(),
            output_stride: output.stride(),
            scratch: scratch.as_mut_ptr(),
        };
        let half = |dtype| usize::from(dtype == DataType::F16);
        let kernel = self.attention[2 * half(input.key_type) + half(input.value_type)];
        // SAFETY: the shapes were checked above; the table was chosen for this CPU.
        unsafe { kernel(&args) }
    }

    /// Writes one token's key into the panels of its head.
    pub fn store_key(&self, key: &[f32], position: usize, panels: &mut [u8], dtype: DataType) {
        let half = dtype == DataType::F16;
        let bytes = key.len() * simd::LANES * if half { 2 } else { 4 };
        let panel = &mut panels[position / simd::LANES * bytes..][..bytes];
        assert!(panel.as_ptr().addr().is_multiple_of(4));
        // SAFETY: the panel holds `key.len()` rows of 16; it is aligned; the table was chosen for this CPU.
        unsafe { (self.store_key)(key.as_ptr(), key.len(), position, panel.as_mut_ptr(), half) }
    }

    /// Writes one token's value into the rows of its head.
    pub fn store_value(&self, value: &[f32], position: usize, rows: &mut [u8], dtype: DataType) {
        let half = dtype == DataType::F16;
        let bytes = attention::value_dim(value.len()) * if half { 2 } else { 4 };
        let row = &mut rows[position * bytes..][..bytes];
        // SAFETY: the row holds the padded value; the table was chosen for this CPU.
        unsafe { (self.store_value)(value.as_ptr(), value.len(), row.as_mut_ptr(), half) }
    }

    /// `y = x / sqrt(mean(x^2) + epsilon) * weight`.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], epsilon: f32, y: &mut [f32]) {
        assert!(x.len() == weight.len() && x.len() == y.len());
        // SAFETY: the lengths were checked; the table was chosen for this CPU.
        unsafe { (self.rms_norm)(x.as_ptr(), weight.as_ptr(), x.len(), epsilon, y.as_mut_ptr()) }
    }

    /// [`Kernels::rms_norm`] of each vector of `weight.len()` values in `x`, in place.
    pub fn rms_norm_each(&self, x: &mut [f32], weight: &[f32], epsilon: f32) {
        for vector in x.chunks_exact_mut(weight.len().max(1)) {
            let start = vector.as_mut_ptr();
            // SAFETY: `vector` is as long as `weight`; the kernel may work in place; the table was chosen for this CPU.
            unsafe { (self.rms_norm)(start, weight.as_ptr(), vector.len(), epsilon, start) }
        }
    }

    /// `x += y / sqrt(mean(y^2) + epsilon) * weight`.
    pub fn add_rms_norm(&self, y: &[f32], weight: &[f32], epsilon: f32, x: &mut [f32]) {
        assert!(x.len() == weight.len() && x.len() == y.len());
        // SAFETY: the lengths were checked; the table was chosen for this CPU.
        unsafe { (self.add_rms_norm)(y.as_ptr(), weight.as_ptr(), x.len(), epsilon, x.as_mut_ptr()) }
    }

    /// `x = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`.
    pub fn layer_norm(&self, x: &mut [f32], weight: &[f32], bias: &[f32], epsilon: f32) {
        assert!(x.len() == weight.len() && x.len() == bias.len());
        let start = x.as_mut_ptr();
        // SAFETY: the lengths were checked; the kernel may work in place; the table was chosen for this CPU.
        unsafe { (self.layer_norm)(start, weight.as_ptr(), bias.as_ptr(), x.len(), epsilon, start) }
    }

    /// `x = activation(x)`.
    pub fn activation(&self, activation: Activation, x: &mut [f32]) {
        let start = x.as_mut_ptr();
        // SAFETY: in place over the whole slice; the table was chosen for this CPU.
        unsafe { (self.map[activation as usize])(start, x.len(), start) }
    }

    /// `gate = activation(gate) * up`.
    pub fn gate(&self, activation: Activation, gate: &mut [f32], up: &[f32]) {
        assert!(gate.len() == up.len());
        let start = gate.as_mut_ptr();
        // SAFETY: the lengths were checked; in place; the table was chosen for this CPU.
        unsafe { (self.gate[activation as usize])(start, up.as_ptr(), gate.len(), start) }
    }

    /// Rotates the halves of `count` vectors of `2 * cosine.len()` values, `stride` apart (RoPE).
    pub fn rotate_halves(&self, x: &mut [f32], count: usize, stride: usize, cosine: &[f32], sine: &[f32]) {
        let half = cosine.len();
        assert!(sine.len() == half && (count == 0 || (count - 1) * stride + 2 * half <= x.len()));
        // SAFETY: the lengths were checked; the table was chosen for this CPU.
        unsafe {
            (self.rotate_halves)(
                x.as_mut_ptr(),
                count,
                stride,
                half,
                cosine.as_ptr(),
                sine.as_ptr(),
            )
        }
    }

    /// e^x of 16 values.
    pub fn exp(&self, x: &mut [f32; simd::LANES]) {
        // SAFETY: 16 values; the table was chosen for this CPU.
        unsafe { (self.exp)(x.as_mut_ptr()) }
    }

    /// x / (1 + e^-x) of 16 values.
    pub fn silu(&self, x: &mut [f32; simd::LANES]) {
        // SAFETY: 16 values; the table was chosen for this CPU.
        unsafe { (self.silu)(x.as_mut_ptr()) }
    }
}
