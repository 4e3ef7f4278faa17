//! Activations in the form that a matmul takes: quantized per block of 32, f32, or bf16.

use super::packed::BLOCK;
use crate::base::matrix::{ByColumns, ByRows, MatrixMut};
use crate::format::dtype::DataType;

/// Inputs that are quantized together: eight blocks and their spike.
pub const SUPER_BLOCK: usize = 256;

/// Blocks of a super-block.
const BLOCKS: usize = SUPER_BLOCK / BLOCK;

/// How activations are stored for a type of weights; the one that needs most memory comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// bf16.
    Bf16,
    /// i8 codes with a scale per block of 32: a [`Record`] for each block, one for the spike behind each super-block.
    Codes,
    /// f32.
    F32,
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

    /// Bytes of a row of `blocks` blocks; `None` on overflow.
    pub fn row_bytes(self, blocks: usize) -> Option<usize> {
        match self {
            Form::Codes => blocks
                .checked_add(super_blocks(blocks))?
                .checked_mul(Record::BYTES),
            Form::F32 => blocks.checked_mul(4 * BLOCK),
            Form::Bf16 => blocks.checked_mul(2 * BLOCK),
        }
    }

    /// What the address of a row must be a multiple of.
    fn alignment(self) -> usize {
        match self {
            Form::Codes | Form::F32 => 4,
            Form::Bf16 => 2,
        }
    }
}

/// The mantissas that a scale may have.
pub const MANTISSAS: [f32; 8] = [1.0, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875];

/// One block of 32 quantized inputs, as it stands in memory: one cache line.
///
/// The inputs are `codes * scale`, and the scale is `mantissa * 2^e` with one of eight mantissas. Both factors are made
/// so that they cost the matmul nothing (`kernels/codes.rs`): `2^e` is in `magic`, the mantissas are multiplied
/// with the weights' scales beforehand.
///
/// A *spike* is stored the same way: the group of four inputs that stands out most in its super-block has codes and a
/// scale of its own, so that the rest of its block gets a finer scale; its codes in the block are zero. A few inputs of a
/// language model are far larger than their neighbours (Dettmers et al. 2022); see `docs/activations.md`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// The codes, above -128; of a spike only the first four.
    pub codes: [i8; BLOCK],
    /// Where the sum of products of codes starts: the bits of `magic` less 128 times the sum of the codes. Of all inputs, of
    /// the first 16, and of the last 16; of a spike only the first.
    pub starts: [i32; 3],
    /// `1.5 * 2^(23 + e)`: a float whose bits count in steps of `2^e`; NaN when an input is not finite or too large.
    pub magic: f32,
    /// Sum of the inputs as they are quantized, with the spike: of all 32, and of the first 16. Zero of a spike.
    pub sums: [f32; 2],
    /// One of [`MANTISSAS`].
    pub mantissa: f32,
    /// Which mantissa: 0, 64, 128 to 448, the bytes from one vector of scales to another.
    pub step: u32,
    /// Of a spike: 8 times its block in the super-block, plus its group of four in the block. Stands where a block
    /// has its fifth to eighth code.
    pub place: u32,
}

impl Record {
    /// Bytes of a record.
    pub const BYTES: usize = 64;
    /// Where [`Record::place`] of a spike stands.
    pub const PLACE: usize = 4;
    /// Where [`Record::starts`] stand.
    pub const STARTS: usize = 32;
    /// Where [`Record::magic`] stands.
    pub const MAGIC: usize = 44;
    /// Where [`Record::sums`] stand.
    pub const SUMS: usize = 48;
    /// Where [`Record::mantissa`] stands.
    pub const MANTISSA: usize = 56;
    /// Where [`Record::step`] stands.
    pub const STEP: usize = 60;

    /// Reads [`Record::BYTES`] bytes; zeros where there are fewer.
    pub fn read(bytes: &[u8]) -> Record {
        let mut whole = [0u8; Record::BYTES];
        whole.iter_mut().zip(bytes).for_each(|(to, &byte)| *to = byte);
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&whole[at..at + 4]);
            u32::from_ne_bytes(word)
        };
        let float = |at| f32::from_bits(word(at));
        let mut codes = [0; BLOCK];
        codes
            .iter_mut()
            .zip(whole)
            .for_each(|(code, byte)| *code = byte as i8);
        Record {
            codes,
            starts: [0, 4, 8].map(|at| word(Record::STARTS + at) as i32),
            magic: float(Record::MAGIC),
            sums: [0, 4].map(|at| float(Record::SUMS + at)),
            mantissa: float(Record::MANTISSA),
            step: word(Record::STEP),
            place: word(Record::PLACE),
        }
    }

    /// The factor of the codes.
    pub fn scale(&self) -> f32 {
        // Powers of two but for the mantissa: exact.
        self.magic / 1.5 / (1u32 << 23) as f32 * self.mantissa
    }
}

/// Memory for activations, filled by `Kernels::activate`.
pub struct ActivationsMut<'a> {
    form: Form,
    tokens: usize,
    blocks: usize,
    row_bytes: usize,
    data: &'a mut [u8],
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
    /// One row for each token, [`Form::row_bytes`] each.
    pub data: &'a [u8],
}

impl<'a> Activations<'a> {
    /// `count` tokens from `first` on.
    pub fn slice(&self, first: usize, count: usize) -> Activations<'a> {
        let row = self.data.len().checked_div(self.tokens).unwrap_or(0);
        Activations {
            form: self.form,
            tokens: count,
            blocks: self.blocks,
            data: &self.data[first * row..][..count * row],
        }
    }

    /// Whether the slice holds what form and shape say, at an address where the values may stand.
    pub fn is_whole(&self) -> bool {
        let bytes = self.form.row_bytes(self.blocks);
        bytes.and_then(|row| row.checked_mul(self.tokens)) == Some(self.data.len())
            && self.data.as_ptr().addr().is_multiple_of(self.form.alignment())
    }
}

/// Memory for the activations of an arena, before it is given a form and a shape.
pub struct ActivationMemory<'a> {
    /// Aligned to 64.
    pub data: &'a mut [u8],
}

impl ActivationMemory<'_> {
    /// The same memory for a shorter time.
    pub fn reborrow(&mut self) -> ActivationMemory<'_> {
        ActivationMemory { data: self.data }
    }

    /// The memory as `tokens` rows of `columns` inputs; `None` when it is too small.
    pub fn shape(&mut self, form: Form, tokens: usize, columns: usize) -> Option<ActivationsMut<'_>> {
        let blocks = columns.div_ceil(BLOCK);
        let row_bytes = form.row_bytes(blocks)?;
        Some(ActivationsMut {
            form,
            tokens,
            blocks,
            row_bytes,
            data: self.data.get_mut(..tokens.checked_mul(row_bytes)?)?,
        })
    }
}

impl ActivationsMut<'_> {
    /// How they are stored.
    pub fn form(&self) -> Form {
        self.form
    }

    /// All of them, as one part: a row of bytes for each token.
    pub fn whole(&mut self) -> MatrixMut<'_, u8> {
        match MatrixMut::new(self.data, self.tokens, self.row_bytes, self.row_bytes) {
            Some(matrix) => matrix,
            None => unreachable!("the slice was cut to whole rows"),
        }
    }

    /// Divided so that chunk `i` fills all blocks of `count` tokens.
    pub fn by_tokens(&mut self, count: usize) -> ByRows<'_, u8> {
        self.whole().by_rows(count)
    }

    /// Divided so that chunk `i` fills super-block `i` of all tokens.
    pub fn by_super_blocks(&mut self) -> ByColumns<'_, u8> {
        let width = match self.form {
            Form::Codes => (BLOCKS + 1) * Record::BYTES,
            Form::F32 => SUPER_BLOCK * 4,
            Form::Bf16 => SUPER_BLOCK * 2,
        };
        self.whole().by_columns(width)
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
        }
    }
}

/// Super-blocks that `blocks` blocks make, the last of which may be short.
pub fn super_blocks(blocks: usize) -> usize {
    blocks.div_ceil(BLOCKS)
}

/// The values that a row of [`Form::Codes`] stands for.
pub fn restore(row: &[u8], values: &mut [f32]) {
    let records = row.chunks((BLOCKS + 1) * Record::BYTES);
    for (values, records) in values.chunks_mut(SUPER_BLOCK).zip(records) {
        let (blocks, spike) = records.split_at(records.len().saturating_sub(Record::BYTES));
        for (values, record) in values.chunks_mut(BLOCK).zip(blocks.chunks(Record::BYTES)) {
            let record = Record::read(record);
            let scale = record.scale();
            for (value, &code) in values.iter_mut().zip(&record.codes) {
                *value = f32::from(code) * scale;
            }
        }
        let spike = Record::read(spike);
        let group = values.iter_mut().skip(4 * spike.place as usize).take(4);
        for (value, &code) in group.zip(&spike.codes) {
            *value += f32::from(code) * spike.scale();
        }
    }
}
