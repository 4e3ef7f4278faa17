//! A block taken apart into integer codes and scales: what decoding and packing have in common.
//!
//! Every block type but Q8_K is an instance of one formula. For value `i` in group `g = i / group_length`:
//!
//! `w = scale * scale_factor * sub_scale[g] * value(code[i])`, and, where the type has a minimum,
//! `+ minimum` or `- minimum * sub_minimum[g]`.
//!
//! All products of scales are exact in f32 (11 bits times at most 8), so their order is free. Then come one
//! rounding of the product with `value(code)` and one of the sum.

use super::super::convert::f16_to_f32;
use super::{iq, k_quants, mcf, microscaling, simple, ternary};
use crate::base::error::{Error, Result};
use crate::format::dtype::DataType;

/// Values in the longest block.
pub const MAX_BLOCK_LENGTH: usize = 256;

/// What the unsigned codes of a type mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Codes {
    /// `value = code - offset`.
    Offset(u8),
    /// `value = book[code]`.
    Book(&'static [i8; 16]),
}

/// How [`BlockParts::scale`] is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleFormat {
    /// IEEE half.
    F16,
    /// A power of two as MXFP4 stores it: the low byte e means `2^(e - 128)`.
    Exponent,
    /// The type has no scale per block; it counts as 1.
    One,
}

/// How [`BlockParts::sub_scales`] are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubScale {
    /// The type has none; they count as 1.
    One,
    /// Signed integers.
    Integer,
    /// The bits of unsigned E4M3 floats, to be halved (NVFP4).
    E4M3,
}

/// Whether a type has a minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minimum {
    /// Symmetric: none.
    None,
    /// `w = ... + minimum` (Q4_1, Q5_1).
    Added,
    /// `w = ... - minimum * sub_minimum[g]` (Q2_K, Q4_K, Q5_K).
    Subtracted,
}

/// What the blocks of a type hold, and how to take them apart.
#[derive(Clone, Copy, Debug)]
pub struct BlockLayout {
    /// The type.
    pub dtype: DataType,
    /// Values per group, that is per sub-scale: 16, 32, or the block length where there are no sub-scales.
    pub group_length: usize,
    /// Bits that a code needs. Lattice types (IQ1 to IQ3) are decoded to 8-bit codes.
    pub code_bits: u32,
    /// Meaning of the codes.
    pub codes: Codes,
    /// Format of the scale and of the minimum.
    pub scale_format: ScaleFormat,
    /// A power of two that the scale is multiplied with.
    pub scale_factor: f32,
    /// Format of the sub-scales.
    pub sub_scale: SubScale,
    /// Kind of minimum.
    pub minimum: Minimum,
    split: fn(&[u8], &mut BlockParts) -> Option<()>,
}

/// One block, taken apart by [`BlockLayout::split`]. Only the entries that the type has are meaningful.
#[derive(Clone, Debug)]
pub struct BlockParts {
    /// One unsigned code per value, in the order of the values.
    pub codes: [u8; MAX_BLOCK_LENGTH],
    /// Bits of the scale.
    pub scale: u16,
    /// Bits of the minimum (f16).
    pub minimum: u16,
    /// One sub-scale per group.
    pub sub_scales: [i8; 16],
    /// One sub-minimum per group.
    pub sub_minimums: [u8; 16],
}

impl Default for BlockParts {
    fn default() -> BlockParts {
        BlockParts {
            codes: [0; MAX_BLOCK_LENGTH],
            scale: 0,
            minimum: 0,
            sub_scales: [1; 16],
            sub_minimums: [0; 16],
        }
    }
}

impl BlockLayout {
    /// The layout of a block type; `None` for plain numbers and for Q8_K, whose scale is an f32.
    pub fn of(dtype: DataType) -> Option<BlockLayout> {
        // A symmetric type with one f16 scale per block; the others differ as said below.
        let simple = |code_bits, offset, split| BlockLayout {
            dtype,
            group_length: dtype.block_length(),
            code_bits,
            codes: Codes::Offset(offset),
            scale_format: ScaleFormat::F16,
            scale_factor: 1.0,
            sub_scale: SubScale::One,
            minimum: Minimum::None,
            split,
        };
        let grouped = |group_length, code_bits, offset, split| BlockLayout {
            group_length,
            sub_scale: SubScale::Integer,
            ..simple(code_bits, offset, split)
        };
        let lattice = |group_length, scale_factor, split| BlockLayout {
            scale_factor,
            ..grouped(group_length, 8, 128, split)
        };
        // MCF: two's complement made unsigned; sub-scales in steps of 1/32.
        let super_block = |code_bits, split| BlockLayout {
            scale_factor: 1.0 / 32.0,
            ..grouped(32, code_bits, 1 << (code_bits - 1), split)
        };
        let minimum = |minimum, layout| BlockLayout { minimum, ..layout };
        let book = |book, layout| BlockLayout {
            codes: Codes::Book(book),
            ..layout
        };
        use Minimum::{Added, Subtracted};
        Some(match dtype {
            DataType::Q1_0 => book(&simple::SIGN_BOOK, simple(1, 0, simple::split_q1_0)),
            DataType::Q2_0 => simple(2, 1, simple::split_q2_0),
            DataType::Q4_0 => simple(4, 8, simple::split_q4_0),
            DataType::Q4_1 => minimum(Added, simple(4, 0, simple::split_q4_1)),
            DataType::Q5_0 => simple(5, 16, simple::split_q5_0),
            DataType::Q5_1 => minimum(Added, simple(5, 0, simple::split_q5_1)),
            DataType::Q8_0 => simple(8, 128, simple::split_q8_0),
            DataType::Q8_1 => simple(8, 128, simple::split_q8_1),
            DataType::Q2_K => minimum(Subtracted, grouped(16, 2, 0, k_quants::split_q2_k)),
            DataType::Q3_K => grouped(16, 3, 4, k_quants::split_q3_k),
            DataType::Q4_K => minimum(Subtracted, grouped(32, 4, 0, k_quants::split_q4_k)),
            DataType::Q5_K => minimum(Subtracted, grouped(32, 5, 0, k_quants::split_q5_k)),
            DataType::Q6_K => grouped(16, 6, 32, k_quants::split_q6_k),
            DataType::IQ2_XXS => lattice(32, 0.125, iq::split_iq2_xxs),
            DataType::IQ2_XS => lattice(16, 0.125, iq::split_iq2_xs),
            DataType::IQ2_S => lattice(16, 0.125, iq::split_iq2_s),
            DataType::IQ3_XXS => lattice(32, 0.25, iq::split_iq3_xxs),
            DataType::IQ3_S => lattice(32, 1.0, iq::split_iq3_s),
            DataType::IQ1_S => lattice(32, 0.125, iq::split_iq1_s),
            DataType::IQ1_M => lattice(16, 0.125, iq::split_iq1_m),
            DataType::IQ4_NL => book(&iq::IQ4_BOOK, simple(4, 0, simple::split_iq4_nl)),
            DataType::IQ4_XS => book(&iq::IQ4_BOOK, grouped(32, 4, 0, k_quants::split_iq4_xs)),
            DataType::TQ1_0 => simple(2, 1, ternary::split_tq1_0),
            DataType::TQ2_0 => simple(2, 1, ternary::split_tq2_0),
            DataType::MXFP4 => BlockLayout {
                scale_format: ScaleFormat::Exponent,
                ..book(&microscaling::E2M1_BOOK, simple(4, 0, microscaling::split_mxfp4))
            },
            DataType::NVFP4 => BlockLayout {
                scale_format: ScaleFormat::One,
                sub_scale: SubScale::E4M3,
                ..book(
                    &microscaling::E2M1_BOOK,
                    grouped(16, 4, 0, microscaling::split_nvfp4),
                )
            },
            DataType::Q8 => simple(8, 128, mcf::split_q8),
            DataType::Q4 => simple(4, 8, mcf::split_q4),
            DataType::K6 => super_block(6, mcf::split_k6),
            DataType::K4 => super_block(4, mcf::split_k4),
            DataType::K3 => super_block(3, mcf::split_k3),
            DataType::K2 => super_block(2, mcf::split_k2),
            _ => return None,
        })
    }

    /// Takes one block apart. Fails with `INVALID_ARGUMENT` unless `bytes` is exactly one block.
    pub fn split(&self, bytes: &[u8], parts: &mut BlockParts) -> Result<()> {
        (self.split)(bytes, parts).ok_or_else(|| {
            Error::invalid(format!(
                "a block of type {} takes {} bytes, found {}",
                self.dtype.name(),
                self.dtype.block_bytes(),
                bytes.len()
            ))
        })
    }

    /// The value of a code, -128 to 127.
    #[inline]
    pub fn value(&self, code: u8) -> i32 {
        match self.codes {
            Codes::Offset(offset) => i32::from(code) - i32::from(offset),
            Codes::Book(book) => i32::from(book[usize::from(code & 15)]),
        }
    }

    /// The scale of a block, without factor and sub-scale.
    #[inline]
    pub fn scale(&self, parts: &BlockParts) -> f32 {
        match self.scale_format {
            ScaleFormat::F16 => f16_to_f32(parts.scale),
            ScaleFormat::Exponent => microscaling::exponent_to_f32(parts.scale as u8),
            ScaleFormat::One => 1.0,
        }
    }

    /// The scale of a group: scale, factor and sub-scale together. `group` counts from 0 within the block and
    /// is taken modulo 16.
    #[inline]
    pub fn group_scale(&self, parts: &BlockParts, group: usize) -> f32 {
        let scale = self.scale(parts) * self.scale_factor;
        let sub_scale = parts.sub_scales[group & 15];
        match self.sub_scale {
            SubScale::One => scale,
            SubScale::Integer => scale * f32::from(sub_scale),
            SubScale::E4M3 => scale * microscaling::e4m3_to_f32(sub_scale as u8),
        }
    }

    /// The minimum of a group: what is added to each product, with its sign. 0 where the type has none.
    #[inline]
    pub fn group_minimum(&self, parts: &BlockParts, group: usize) -> f32 {
        match self.minimum {
            Minimum::None => 0.0,
            Minimum::Added => f16_to_f32(parts.minimum),
            Minimum::Subtracted => -(f16_to_f32(parts.minimum) * f32::from(parts.sub_minimums[group & 15])),
        }
    }

    /// Writes the values of a block that was taken apart; `out` holds one f32 per value of the block.
    pub fn dequantize(&self, parts: &BlockParts, out: &mut [f32]) {
        let codes = parts.codes.chunks(self.group_length);
        for (group, (out, codes)) in out.chunks_mut(self.group_length).zip(codes).enumerate() {
            let scale = self.group_scale(parts, group);
            match self.codes {
                Codes::Offset(offset) => {
                    for (value, code) in out.iter_mut().zip(codes) {
                        *value = scale * (i32::from(*code) - i32::from(offset)) as f32;
                    }
                }
                Codes::Book(book) => {
                    for (value, code) in out.iter_mut().zip(codes) {
                        *value = scale * f32::from(book[usize::from(code & 15)]);
                    }
                }
            }
            // Not for symmetric types: -0 + 0 would be 0.
            if self.minimum != Minimum::None {
                let minimum = self.group_minimum(parts, group);
                for value in out {
                    *value += minimum;
                }
            }
        }
    }
}
