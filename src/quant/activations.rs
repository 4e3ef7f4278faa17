//! Activations in the form that a matmul takes: quantized per block of 32, f32, or bf16.

use super::packed::BLOCK;
use crate::base::matrix::{ByColumns, ByRows, MatrixMut};
use crate::format::dtype::DataType;

/// Inputs that are quantized together: eight blocks.
pub const SUPER_BLOCK: usize = 256;

/// The group of four inputs that stands out most in its super-block, with codes and a scale of its own, so that the rest
/// of its block gets a finer scale: (block of the super-block * 8 + group, four i8 codes, scale as bits of f32, -128 * sum of the codes).
///
/// A few inputs of a language model are far larger than their neighbours (Dettmers et al. 2022). One group for
/// every 256 inputs takes 44 % off the error of SmolLM2's logits, for one multiplication in 64 more.
pub type Spike = [u32; 4];

/// How activations are stored for a type of weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// i8 codes with a scale per block of 32.
    Codes,
    /// f32.
    F32,
    /// bf16.
    Bf16,
}

impl Form {
    /// The form that weights of `dtype` are multiplied with.
    pub fn of(dtype: DataType) -> Form {
        match dtype {
            DataType::F32 | DataType::F16 => Form::F32,
            DataType::BF16 => Form::Bf16,
            _ => Form::Codes,
        }
    }

    /// Bytes of one value.
    pub fn value_bytes(self) -> usize {
        match self {
            Form::Codes => 1,
            Form::Bf16 => 2,
            Form::F32 => 4,
        }
    }

    /// How many scales, biases and sums `tokens` rows of `blocks` blocks have; `None` on overflow.
    pub fn cells(self, tokens: usize, blocks: usize) -> Option<(usize, usize, usize)> {
        let cells = match self {
            Form::Codes => tokens.checked_mul(blocks)?,
            Form::F32 | Form::Bf16 => 0,
        };
        Some((cells, cells.checked_mul(BIASES)?, cells.checked_mul(SUMS)?))
    }
}

impl Form {
    /// How many spikes `tokens` rows of `blocks` blocks have; `None` on overflow.
    pub fn spikes(self, tokens: usize, blocks: usize) -> Option<usize> {
        match self {
            Form::Codes => tokens.checked_mul(super_blocks(blocks)),
            Form::F32 | Form::Bf16 => Some(0),
        }
    }
}

/// Biases of a block: those of all its inputs, of the first 16 and of the others.
pub const BIASES: usize = 3;

/// Sums of a block: those of all its inputs and of the first 16.
pub const SUMS: usize = 2;

/// Memory for activations, filled by `Kernels::activate`.
pub struct ActivationsMut<'a> {
    form: Form,
    tokens: usize,
    blocks: usize,
    data: &'a mut [u8],
    scales: &'a mut [f32],
    biases: &'a mut [i32],
    sums: &'a mut [f32],
    spikes: &'a mut [Spike],
}

/// Activations that are ready.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    /// How they are stored.
    pub form: Form,
    /// Number of tokens.
    pub tokens: usize,
    /// Blocks of 32 inputs; the last may be padded with zeros.
    pub blocks: usize,
    /// `[token][32 * blocks]` values.
    pub data: &'a [u8],
    /// `[token][block]`: scale of the codes.
    pub scales: &'a [f32],
    /// `[token][block][BIASES]`: -128 * sum of the codes.
    pub biases: &'a [i32],
    /// `[token][block][SUMS]`: scale * sum of the codes.
    pub sums: &'a [f32],
    /// `[token][super-block]`: the group of inputs that stands apart from its block.
    pub spikes: &'a [Spike],
}

impl<'a> Activations<'a> {
    /// `count` tokens from `first` on.
    pub fn slice(&self, first: usize, count: usize) -> Activations<'a> {
        let row = self.blocks * BLOCK * self.form.value_bytes();
        let cells = self.scales.len().checked_div(self.tokens).unwrap_or(0);
        let spikes = self.spikes.len().checked_div(self.tokens).unwrap_or(0);
        Activations {
            form: self.form,
            tokens: count,
            blocks: self.blocks,
            data: &self.data[first * row..][..count * row],
            scales: &self.scales[first * cells..][..count * cells],
            biases: &self.biases[BIASES * first * cells..][..BIASES * count * cells],
            sums: &self.sums[SUMS * first * cells..][..SUMS * count * cells],
            spikes: &self.spikes[first * spikes..][..count * spikes],
        }
    }

    /// Whether the slices hold what form and shape say, at an address where the values may stand.
    pub fn is_whole(&self) -> bool {
        let cells = self.tokens * self.blocks;
        let records = if self.form == Form::Codes { cells } else { 0 };
        self.data.len() >= cells * BLOCK * self.form.value_bytes()
            && self.data.as_ptr().addr().is_multiple_of(self.form.value_bytes())
            && self.scales.len() >= records
            && self.biases.len() >= BIASES * records
            && self.sums.len() >= SUMS * records
            && self.spikes.len()
                >= if records > 0 {
                    self.tokens * super_blocks(self.blocks)
                } else {
                    0
                }
    }
}

/// A column of blocks of all tokens, or all blocks of some tokens: what one chunk fills.
pub type Part<'a> = (
    MatrixMut<'a, u8>,
    MatrixMut<'a, f32>,
    MatrixMut<'a, i32>,
    MatrixMut<'a, f32>,
    MatrixMut<'a, Spike>,
);

/// Parts of all blocks of some tokens.
pub type PartsByRows<'a> = (
    ByRows<'a, u8>,
    ByRows<'a, f32>,
    ByRows<'a, i32>,
    ByRows<'a, f32>,
    ByRows<'a, Spike>,
);

/// Parts of some blocks of all tokens.
pub type PartsByColumns<'a> = (
    ByColumns<'a, u8>,
    ByColumns<'a, f32>,
    ByColumns<'a, i32>,
    ByColumns<'a, f32>,
    ByColumns<'a, Spike>,
);

/// Memory for the activations of an arena, before it is given a form and a shape.
pub struct ActivationMemory<'a> {
    /// At least `tokens * 32 * blocks * value_bytes` bytes, aligned to 64.
    pub data: &'a mut [u8],
    /// At least what [`Form::cells`] says, as the others.
    pub scales: &'a mut [f32],
    /// [`BIASES`] for each scale.
    pub biases: &'a mut [i32],
    /// [`SUMS`] for each scale.
    pub sums: &'a mut [f32],
    /// One for each super-block.
    pub spikes: &'a mut [Spike],
}

impl ActivationMemory<'_> {
    /// The memory as `tokens` rows of `columns` inputs; `None` when it is too small.
    pub fn shape(&mut self, form: Form, tokens: usize, columns: usize) -> Option<ActivationsMut<'_>> {
        let blocks = columns.div_ceil(BLOCK);
        let bytes = tokens
            .checked_mul(blocks)?
            .checked_mul(BLOCK * form.value_bytes())?;
        let (scales, biases, sums) = form.cells(tokens, blocks)?;
        let spikes = form.spikes(tokens, blocks)?;
        Some(ActivationsMut {
            form,
            tokens,
            blocks,
            data: self.data.get_mut(..bytes)?,
            scales: self.scales.get_mut(..scales)?,
            biases: self.biases.get_mut(..biases)?,
            sums: self.sums.get_mut(..sums)?,
            spikes: self.spikes.get_mut(..spikes)?,
        })
    }
}

impl ActivationsMut<'_> {
    /// How they are stored.
    pub fn form(&self) -> Form {
        self.form
    }

    /// All of them, as one part.
    pub fn whole(&mut self) -> Part<'_> {
        let (tokens, blocks, bytes) = (
            self.tokens,
            self.blocks,
            self.blocks * BLOCK * self.form.value_bytes(),
        );
        let cells = if self.form == Form::Codes { blocks } else { 0 };
        (
            matrix(self.data, tokens, bytes),
            matrix(self.scales, tokens, cells),
            matrix(self.biases, tokens, BIASES * cells),
            matrix(self.sums, tokens, SUMS * cells),
            matrix(self.spikes, tokens, super_blocks(cells)),
        )
    }

    /// Divided so that chunk `i` fills all blocks of `count` tokens.
    pub fn by_tokens(&mut self, count: usize) -> PartsByRows<'_> {
        let (data, scales, biases, sums, spikes) = self.whole();
        (
            data.by_rows(count),
            scales.by_rows(count),
            biases.by_rows(count),
            sums.by_rows(count),
            spikes.by_rows(count),
        )
    }

    /// Divided so that chunk `i` fills super-block `i` of all tokens.
    pub fn by_super_blocks(&mut self) -> PartsByColumns<'_> {
        let blocks = SUPER_BLOCK / BLOCK;
        let width = SUPER_BLOCK * self.form.value_bytes();
        let (data, scales, biases, sums, spikes) = self.whole();
        (
            data.by_columns(width),
            scales.by_columns(blocks),
            biases.by_columns(BIASES * blocks),
            sums.by_columns(SUMS * blocks),
            spikes.by_columns(1),
        )
    }

    /// The finished activations.
    pub fn view(&self) -> Activations<'_> {
        let Self {
            form, tokens, blocks, ..
        } = *self;
        Activations {
            form,
            tokens,
            blocks,
            data: self.data,
            scales: self.scales,
            biases: self.biases,
            sums: self.sums,
            spikes: self.spikes,
        }
    }
}

/// A dense matrix over a slice that [`ActivationMemory::shape`] made long enough.
fn matrix<T>(values: &mut [T], rows: usize, columns: usize) -> MatrixMut<'_, T> {
    match MatrixMut::new(values, rows, columns, columns) {
        Some(matrix) => matrix,
        None => unreachable!("the slice was cut to rows x columns"),
    }
}

/// Super-blocks that `blocks` blocks make, the last of which may be short.
pub fn super_blocks(blocks: usize) -> usize {
    blocks.div_ceil(SUPER_BLOCK / BLOCK)
}

/// The values that row `row` of a part stands for, when its form is [`Form::Codes`].
pub fn restore(part: &mut Part<'_>, row: usize, values: &mut [f32]) {
    let (codes, scales) = (part.0.row(row), part.1.row(row));
    for (block, &scale) in values
        .chunks_mut(BLOCK)
        .zip(codes.chunks_exact(BLOCK))
        .zip(scales.iter())
    {
        for (value, &code) in block.0.iter_mut().zip(block.1) {
            *value = f32::from(code as i8) * scale;
        }
    }
    for (values, &[place, codes, scale, _]) in values.chunks_mut(SUPER_BLOCK).zip(part.4.row(row).iter()) {
        let group = values.iter_mut().skip(4 * place as usize);
        for (value, code) in group.zip(codes.to_le_bytes()) {
            *value += f32::from(code as i8) * f32::from_bits(scale);
        }
    }
}
