//! The quantized payloads of MCF, the Mantle container format: Q8, Q4, K6, K4, K3 and K2.
//!
//! Unlike GGUF's, the blocks of MCF do not lie together: a payload holds regions for a whole tensor, scales first.
//! A block is 32 values along a row; K-types join 8 blocks of a row to a super-block with one scale.
//! Rows need not fill blocks: the last is padded with zeros.
//!
//! `w = scale * q` (Q8, Q4) and `w = scale * (u / 32) * q` (K-types), u the 6-bit sub-scale of the block. All
//! these products are exact in f32.

use super::super::convert::{f16_to_f32, f32_to_f16};
use super::search::{self, Balanced, Levels, SubScales};
use super::simple::{inverse, magnitude};
use crate::base::error::{Error, Result};
use std::ops::Range;

/// Values in a block.
pub const MCF_BLOCK: usize = 32;

/// Blocks in a super-block.
const BLOCKS_PER_SUPER: usize = 8;

/// Each region starts at a multiple of this from the payload's start.
const REGION_ALIGNMENT: usize = 64;

/// A quantized type of MCF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum McfType {
    /// 8 bits, scale per 32.
    Q8,
    /// 4 bits, scale per 32.
    Q4,
    /// 6 bits, super-blocks of 256.
    K6,
    /// 4 bits, super-blocks of 256.
    K4,
    /// 3 bits, super-blocks of 256.
    K3,
    /// 2 bits, super-blocks of 256.
    K2,
}

impl McfType {
    /// Every type.
    pub const ALL: [McfType; 6] = [
        McfType::Q8,
        McfType::Q4,
        McfType::K6,
        McfType::K4,
        McfType::K3,
        McfType::K2,
    ];

    /// The type of a `dtype` number in an MCF file.
    pub fn from_number(number: u32) -> Option<McfType> {
        McfType::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The `dtype` number in an MCF file.
    pub fn number(self) -> u32 {
        match self {
            McfType::Q8 => 0x20,
            McfType::Q4 => 0x21,
            McfType::K6 => 0x30,
            McfType::K4 => 0x31,
            McfType::K3 => 0x32,
            McfType::K2 => 0x33,
        }
    }

    /// The type's name.
    pub fn name(self) -> &'static str {
        match self {
            McfType::Q8 => "Q8",
            McfType::Q4 => "Q4",
            McfType::K6 => "K6",
            McfType::K4 => "K4",
            McfType::K3 => "K3",
            McfType::K2 => "K2",
        }
    }

    /// Bits of a code.
    pub fn code_bits(self) -> usize {
        match self {
            McfType::Q8 => 8,
            McfType::K6 => 6,
            McfType::Q4 | McfType::K4 => 4,
            McfType::K3 => 3,
            McfType::K2 => 2,
        }
    }

    /// Whether blocks are joined to super-blocks.
    pub fn has_super_blocks(self) -> bool {
        !matches!(self, McfType::Q8 | McfType::Q4)
    }

    /// What is added to a signed code to make it the unsigned code of [`McfBlock`].
    pub fn code_offset(self) -> u8 {
        1 << (self.code_bits() - 1)
    }
}

/// Where the parts of a tensor's payload lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McfLayout {
    /// The type.
    pub kind: McfType,
    /// Rows of the tensor.
    pub rows: usize,
    /// Columns of the tensor.
    pub columns: usize,
    /// Bytes of the f16 scales, row after row: one per block, or one per super-block.
    pub scales: Range<usize>,
    /// Bytes of the sub-scales, one per block; empty for Q8 and Q4.
    pub sub_scales: Range<usize>,
    /// Bytes of the codes, block after block.
    pub codes: Range<usize>,
}

/// One block, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McfBlock {
    /// Unsigned codes: the signed ones plus [`McfType::code_offset`].
    pub codes: [u8; MCF_BLOCK],
    /// f16 bits of the scale.
    pub scale: u16,
    /// Sub-scale, 0 to 63, in steps of 1/32; 32 for Q8 and Q4.
    pub sub_scale: u8,
}

impl McfBlock {
    /// The factor of the signed codes.
    pub fn factor(&self) -> f32 {
        f16_to_f32(self.scale) * (f32::from(self.sub_scale) / 32.0)
    }
}

impl McfLayout {
    /// The layout of a tensor of `rows` x `columns`. Fails with `INVALID_ARGUMENT` when its size overflows.
    pub fn new(kind: McfType, rows: usize, columns: usize) -> Result<McfLayout> {
        let layout = || {
            let blocks = rows.checked_mul(columns.div_ceil(MCF_BLOCK))?;
            let supers = rows.checked_mul(columns.div_ceil(MCF_BLOCK * BLOCKS_PER_SUPER))?;
            let has_super_blocks = kind.has_super_blocks();
            let scales = if has_super_blocks { supers } else { blocks }.checked_mul(2)?;
            let sub_scales_start = scales.checked_next_multiple_of(REGION_ALIGNMENT)?;
            let sub_scales = if has_super_blocks { blocks } else { 0 };
            let sub_scales_end = sub_scales_start.checked_add(sub_scales)?;
            let codes_start = sub_scales_end.checked_next_multiple_of(REGION_ALIGNMENT)?;
            let codes = blocks.checked_mul(MCF_BLOCK / 8 * kind.code_bits())?;
            Some(McfLayout {
                kind,
                rows,
                columns,
                scales: 0..scales,
                sub_scales: sub_scales_start..sub_scales_end,
                codes: codes_start..codes_start.checked_add(codes)?,
            })
        };
        layout().ok_or_else(|| {
            Error::invalid(format!(
                "a tensor of {rows} x {columns} {} values is too large",
                kind.name()
            ))
        })
    }

    /// Bytes of the payload.
    pub fn bytes(&self) -> usize {
        self.codes.end
    }

    /// Blocks in a row.
    pub fn blocks_per_row(&self) -> usize {
        self.columns.div_ceil(MCF_BLOCK)
    }

    fn supers_per_row(&self) -> usize {
        self.blocks_per_row().div_ceil(BLOCKS_PER_SUPER)
    }

    /// Takes block `block` of row `row` apart; padding beyond the last column comes as it is stored. Fails with
    /// `INVALID_ARGUMENT` when there is no such block, or when the payload is not [`McfLayout::bytes`] long.
    pub fn split(&self, payload: &[u8], row: usize, block: usize) -> Result<McfBlock> {
        self.check_payload(payload.len())?;
        if row >= self.rows || block >= self.blocks_per_row() {
            return Err(Error::invalid(format!(
                "block {block} of row {row} lies outside of {} rows of {} blocks",
                self.rows,
                self.blocks_per_row()
            )));
        }
        Ok(self.split_checked(payload, row, block))
    }

    /// As [`McfLayout::split`], the arguments having been checked.
    fn split_checked(&self, payload: &[u8], row: usize, block: usize) -> McfBlock {
        let index = row * self.blocks_per_row() + block;
        let (scale_index, sub_scale) = if self.kind.has_super_blocks() {
            let super_block = row * self.supers_per_row() + block / BLOCKS_PER_SUPER;
            (super_block, payload[self.sub_scales.start + index] & 63)
        } else {
            (index, 32)
        };
        let scale = self.scales.start + 2 * scale_index;
        let bytes = MCF_BLOCK / 8 * self.kind.code_bits();
        let codes = &payload[self.codes.start + index * bytes..][..bytes];
        McfBlock {
            codes: split_codes(codes, self.kind),
            scale: u16::from_le_bytes([payload[scale], payload[scale + 1]]),
            sub_scale,
        }
    }

    /// Decodes row `row` to `out`, `columns` values. Fails with `INVALID_ARGUMENT` when there is no such row or a
    /// length is wrong; then nothing is written.
    pub fn dequantize_row(&self, payload: &[u8], row: usize, out: &mut [f32]) -> Result<()> {
        self.check_payload(payload.len())?;
        self.check_row(row, out.len())?;
        for (block, out) in out.chunks_mut(MCF_BLOCK).enumerate() {
            let block = self.split_checked(payload, row, block);
            let factor = block.factor();
            for (value, code) in out.iter_mut().zip(block.codes) {
                *value = factor * (i32::from(code) - i32::from(self.kind.code_offset())) as f32;
            }
        }
        Ok(())
    }

    /// Encodes `values` as row `row` of a payload that was zeroed before its first row (gaps between the regions
    /// stay as they are). The most negative code is not used. Q8 is rounded plainly, the other types are searched
    /// for the least squared error; NaN or infinity makes the scale NaN. Fails as [`McfLayout::dequantize_row`].
    pub fn quantize_row(&self, values: &[f32], payload: &mut [u8], row: usize) -> Result<()> {
        self.check_payload(payload.len())?;
        self.check_row(row, values.len())?;
        if self.kind.has_super_blocks() {
            for (index, values) in values.chunks(MCF_BLOCK * BLOCKS_PER_SUPER).enumerate() {
                self.quantize_super_block(values, payload, row, index);
            }
            return Ok(());
        }
        for (index, values) in values.chunks(MCF_BLOCK).enumerate() {
            let mut block = [0.0; MCF_BLOCK];
            block[..values.len()].copy_from_slice(values);
            let (scale, levels) = match self.kind {
                McfType::Q8 => q8_levels(&block),
                _ => search::single_scale::<Balanced<7>, MCF_BLOCK>(&block),
            };
            let index = row * self.blocks_per_row() + index;
            self.write_scale(payload, index, scale);
            self.write_codes(payload, index, &levels);
        }
        Ok(())
    }

    fn quantize_super_block(&self, values: &[f32], payload: &mut [u8], row: usize, index: usize) {
        let mut padded = [0.0; MCF_BLOCK * BLOCKS_PER_SUPER];
        padded[..values.len()].copy_from_slice(values);
        let found = match self.kind {
            McfType::K6 => k_levels::<Balanced<31>>(&padded),
            McfType::K4 => k_levels::<Balanced<7>>(&padded),
            McfType::K3 => k_levels::<Balanced<3>>(&padded),
            _ => k_levels::<Balanced<1>>(&padded),
        };
        self.write_scale(payload, row * self.supers_per_row() + index, found.scale);
        let first = row * self.blocks_per_row() + index * BLOCKS_PER_SUPER;
        let blocks = found
            .levels
            .as_chunks::<MCF_BLOCK>()
            .0
            .iter()
            .zip(found.sub_scales);
        for (i, (levels, sub_scale)) in blocks.take(values.len().div_ceil(MCF_BLOCK)).enumerate() {
            // 0 to 63.
            payload[self.sub_scales.start + first + i] = sub_scale as u8;
            self.write_codes(payload, first + i, levels);
        }
    }

    fn write_scale(&self, payload: &mut [u8], index: usize, scale: u16) {
        let at = self.scales.start + 2 * index;
        payload[at..at + 2].copy_from_slice(&scale.to_le_bytes());
    }

    fn write_codes(&self, payload: &mut [u8], index: usize, levels: &[f32; MCF_BLOCK]) {
        let bits = self.kind.code_bits();
        let bytes = MCF_BLOCK / 8 * bits;
        let out = &mut payload[self.codes.start + index * bytes..][..bytes];
        let mask = (1_u64 << bits) - 1;
        // Eight codes fill as many bytes as a code has bits.
        for (out, levels) in out.chunks_exact_mut(bits).zip(levels.chunks_exact(8)) {
            let joined = levels.iter().rev().fold(0, |joined, level| {
                // Levels are integers; a negative one becomes its two's complement.
                joined << bits | (*level as i64 as u64 & mask)
            });
            out.copy_from_slice(&joined.to_le_bytes()[..bits]);
        }
    }

    fn check_payload(&self, found: usize) -> Result<()> {
        if found == self.bytes() {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the payload of a {} tensor of {} x {} takes {} bytes, found {found}",
            self.kind.name(),
            self.rows,
            self.columns,
            self.bytes()
        )))
    }

    fn check_row(&self, row: usize, values: usize) -> Result<()> {
        if row >= self.rows {
            return Err(Error::invalid(format!(
                "row {row} lies outside of a {} tensor of {} rows",
                self.kind.name(),
                self.rows
            )));
        }
        if values != self.columns {
            return Err(Error::invalid(format!(
                "a row of this {} tensor has {} values, found {values}",
                self.kind.name(),
                self.columns
            )));
        }
        Ok(())
    }
}

/// The codes of a block, made unsigned: two's complement plus half the range flips the highest bit.
fn split_codes(bytes: &[u8], kind: McfType) -> [u8; MCF_BLOCK] {
    let bits = kind.code_bits();
    let mask = (1_u64 << bits) - 1;
    let mut codes = [0; MCF_BLOCK];
    for (codes, bytes) in codes.chunks_exact_mut(8).zip(bytes.chunks_exact(bits)) {
        let mut joined = [0; 8];
        joined[..bits].copy_from_slice(bytes);
        let joined = u64::from_le_bytes(joined);
        for (i, code) in codes.iter_mut().enumerate() {
            *code = (joined >> (bits * i) & mask) as u8 ^ kind.code_offset();
        }
    }
    codes
}

/// Scale and levels of Q8: the largest magnitude becomes 127.
fn q8_levels(values: &[f32; MCF_BLOCK]) -> (u16, [f32; MCF_BLOCK]) {
    let scale = magnitude(values) / 127.0;
    let inverse = inverse(scale);
    let levels = values.map(|value| (value * inverse).round_ties_even().clamp(-127.0, 127.0));
    (f32_to_f16(scale), levels)
}

fn k_levels<L: Levels>(values: &[f32]) -> search::Symmetric {
    let sub_scales = SubScales {
        lowest: 0.0,
        highest: 63.0,
        unit: 1.0 / 32.0,
    };
    search::symmetric::<L>(values, MCF_BLOCK, sub_scales)
}
