//! The quantized types of MCF, the Mantle container format: Q8, Q4, K6, K4, K3 and K2.
//!
//! `w = scale * q` (Q8, Q4) and `w = scale * (u / 32) * q` (K-types), u the 6-bit sub-scale of 32 values. All these
//! products are exact in f32. Codes are two's complement, least significant bit first; here they become unsigned by
//! flipping the highest bit, which adds half the range.

use super::super::blocks::{Block as _, BlockK2, BlockK3, BlockK4, BlockK6, BlockQ4, BlockQ8};
use super::super::convert::f32_to_f16;
use super::parts::BlockParts;
use super::search::{self, Balanced, Levels, SubScales};
use super::simple::{inverse, magnitude};

/// Values in a block; a super-block has 8 of them.
const BLOCK: usize = 32;

/// Unpacks codes of `BITS` bits.
fn split_codes<const BITS: usize>(bytes: &[u8], codes: &mut [u8]) {
    let mask = (1_u64 << BITS) - 1;
    // Eight codes fill as many bytes as a code has bits.
    for (codes, bytes) in codes.chunks_exact_mut(8).zip(bytes.chunks_exact(BITS)) {
        let mut joined = [0; 8];
        joined[..BITS].copy_from_slice(bytes);
        let joined = u64::from_le_bytes(joined);
        for (i, code) in codes.iter_mut().enumerate() {
            *code = (joined >> (BITS * i) & mask) as u8 ^ 1 << (BITS - 1);
        }
    }
}

/// Packs levels, which are integers.
fn join_codes<const BITS: usize>(levels: &[f32], bytes: &mut [u8]) {
    let mask = (1_u64 << BITS) - 1;
    for (bytes, levels) in bytes.chunks_exact_mut(BITS).zip(levels.chunks_exact(8)) {
        let joined = levels.iter().rev().fold(0, |joined, level| {
            // A negative one becomes its two's complement.
            joined << BITS | (*level as i64 as u64 & mask)
        });
        bytes.copy_from_slice(&joined.to_le_bytes()[..BITS]);
    }
}

pub(super) fn split_q8(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ8::read(bytes)?;
    parts.scale = block.scale;
    for (code, stored) in parts.codes.iter_mut().zip(block.codes) {
        *code = stored ^ 0x80;
    }
    Some(())
}

pub(super) fn split_q4(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ4::read(bytes)?;
    parts.scale = block.scale;
    split_codes::<4>(&block.codes, &mut parts.codes[..BLOCK]);
    Some(())
}

macro_rules! super_blocks {
    ($($split:ident, $quantize:ident: $block:ident, $bits:literal, $largest:literal;)*) => {$(
        pub(super) fn $split(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
            let block = $block::read(bytes)?;
            parts.scale = block.scale;
            for (sub_scale, stored) in parts.sub_scales.iter_mut().zip(block.sub_scales) {
                *sub_scale = (stored & 63) as i8;
            }
            split_codes::<$bits>(&block.codes, &mut parts.codes);
            Some(())
        }

        pub(super) fn $quantize(values: &[f32], out: &mut [u8]) {
            let found = search_super_block::<Balanced<$largest>>(values);
            let mut block = $block {
                scale: found.scale,
                sub_scales: [0; 8],
                codes: [0; 32 * $bits],
            };
            for (stored, sub_scale) in block.sub_scales.iter_mut().zip(found.sub_scales) {
                // 0 to 63.
                *stored = sub_scale as u8;
            }
            join_codes::<$bits>(&found.levels, &mut block.codes);
            let _written = block.write(out);
        }
    )*};
}

super_blocks! {
    split_k6, quantize_k6: BlockK6, 6, 31;
    split_k4, quantize_k4: BlockK4, 4, 7;
    split_k3, quantize_k3: BlockK3, 3, 3;
    split_k2, quantize_k2: BlockK2, 2, 1;
}

fn search_super_block<L: Levels>(values: &[f32]) -> search::Symmetric {
    let sub_scales = SubScales {
        lowest: 0.0,
        highest: 63.0,
        unit: 1.0 / 32.0,
    };
    let mut padded = [0.0; 8 * BLOCK];
    padded[..values.len()].copy_from_slice(values);
    search::symmetric::<L>(&padded, BLOCK, sub_scales)
}

fn padded(values: &[f32]) -> [f32; BLOCK] {
    let mut block = [0.0; BLOCK];
    block[..values.len()].copy_from_slice(values);
    block
}

/// The largest magnitude becomes 127.
pub(super) fn quantize_q8(values: &[f32], out: &mut [u8]) {
    let values = padded(values);
    let scale = magnitude(&values) / 127.0;
    let inverse = inverse(scale);
    let block = BlockQ8 {
        scale: f32_to_f16(scale),
        codes: values.map(|value| (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8 as u8),
    };
    let _written = block.write(out);
}

pub(super) fn quantize_q4(values: &[f32], out: &mut [u8]) {
    let (scale, levels) = search::single_scale::<Balanced<7>, BLOCK>(&padded(values));
    let mut block = BlockQ4 {
        scale,
        codes: [0; 16],
    };
    join_codes::<4>(&levels, &mut block.codes);
    let _written = block.write(out);
}
