//! Super-blocks of lattice points: IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S, taken apart.
//!
//! A code names a point of 8 (IQ3: 4) magnitudes in a grid; signs lie beside it. The parts hold the resulting small
//! integers with offset 128, so a group needs nothing but its scale.

use super::super::blocks::*;
use super::iq_grids::{IQ1_GRID, IQ2_S_GRID, IQ2_XS_GRID, IQ2_XXS_GRID, IQ3_S_GRID, IQ3_XXS_GRID};
use super::parts::BlockParts;

/// The code book of IQ4_NL and IQ4_XS.
pub(crate) const IQ4_BOOK: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Magnitudes of the IQ2 grids, by the 2-bit digit of the grid.
const IQ2_MAGNITUDES: [u8; 4] = [0x08, 0x19, 0x2b, 0];

/// Magnitudes of the IQ3_XXS grid, by the digit of the grid.
const IQ3_XXS_MAGNITUDES: [u8; 8] = [0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3e];

/// Magnitudes of the IQ3_S grid.
const IQ3_S_MAGNITUDES: [u8; 8] = [0x01, 0x03, 0x05, 0x07, 0x09, 0x0b, 0x0d, 0x0f];

/// Eight sign bits from a pattern of seven: the eighth makes the number of minus signs even.
#[inline(always)]
fn even_signs(pattern: u32) -> u8 {
    let pattern = (pattern & 127) as u8;
    pattern | ((pattern.count_ones() & 1) as u8) << 7
}

/// Code of a magnitude with its sign bit (bit `i` of `signs`).
#[inline(always)]
fn signed_code(magnitude: u8, signs: u8, i: usize) -> u8 {
    if signs >> i & 1 == 0 {
        128 + magnitude
    } else {
        128 - magnitude
    }
}

/// Writes the 8 codes of an IQ2 grid point.
#[inline(always)]
fn iq2_point(point: u16, signs: u8, codes: &mut [u8]) {
    for (i, code) in codes.iter_mut().enumerate().take(8) {
        *code = signed_code(IQ2_MAGNITUDES[usize::from(point >> (2 * i) & 3)], signs, i);
    }
}

/// Writes the 8 codes of two IQ3 grid points.
#[inline(always)]
fn iq3_points(points: [u16; 2], magnitudes: &[u8; 8], signs: u8, codes: &mut [u8]) {
    for (i, code) in codes.iter_mut().enumerate().take(8) {
        let digit = points[i / 4] >> (4 * (i % 4)) & 7;
        *code = signed_code(magnitudes[usize::from(digit)], signs, i);
    }
}

/// The sub-scale `2n + 1` of a small number.
#[inline(always)]
fn odd(number: u8) -> i8 {
    2 * (number & 15) as i8 + 1
}

/// Sub-scales of 4 bits, two a byte.
#[inline(always)]
fn odd_nibbles(bytes: &[u8], sub_scales: &mut [i8; 16]) {
    for (byte, pair) in bytes.iter().zip(sub_scales.chunks_exact_mut(2)) {
        pair[0] = odd(byte & 15);
        pair[1] = odd(byte >> 4);
    }
}

pub(super) fn split_iq2_xxs(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockIQ2_XXS::read(bytes)?;
    parts.scale = block.scale;
    let groups = block
        .codes
        .as_chunks::<8>()
        .0
        .iter()
        .zip(parts.codes.chunks_exact_mut(32));
    for ((bytes, codes), sub_scale) in groups.zip(&mut parts.sub_scales) {
        let [points @ .., a, b, c, d] = *bytes;
        let signs = u32::from_le_bytes([a, b, c, d]);
        *sub_scale = odd((signs >> 28) as u8);
        let points: [u8; 4] = points;
        for (i, (point, codes)) in points.iter().zip(codes.chunks_exact_mut(8)).enumerate() {
            iq2_point(
                IQ2_XXS_GRID[usize::from(*point)],
                even_signs(signs >> (7 * i)),
                codes,
            );
        }
    }
    Some(())
}

pub(super) fn split_iq2_xs(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockIQ2_XS::read(bytes)?;
    parts.scale = block.scale;
    odd_nibbles(&block.sub_scales, &mut parts.sub_scales);
    for (word, codes) in block.codes.iter().zip(parts.codes.chunks_exact_mut(8)) {
        let point = IQ2_XS_GRID[usize::from(word & 511)];
        iq2_point(point, even_signs(u32::from(word >> 9)), codes);
    }
    Some(())
}

pub(super) fn split_iq2_s(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockIQ2_S::read(bytes)?;
    parts.scale = block.scale;
    odd_nibbles(&block.sub_scales, &mut parts.sub_scales);
    for (i, codes) in parts.codes.chunks_exact_mut(8).enumerate() {
        let high = u16::from(block.high_bits[i / 4] >> (2 * (i % 4)) & 3);
        let point = IQ2_S_GRID[usize::from(u16::from(block.codes[i]) | high << 8)];
        iq2_point(point, block.signs[i], codes);
    }
    Some(())
}

pub(super) fn split_iq3_xxs(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockIQ3_XXS::read(bytes)?;
    parts.scale = block.scale;
    let words = block.signs_and_scales.as_chunks::<4>().0;
    for (i, codes) in parts.codes.chunks_exact_mut(8).enumerate() {
        let word = u32::from_le_bytes(words[i / 4]);
        parts.sub_scales[i / 4] = odd((word >> 28) as u8);
        let points = [2 * i, 2 * i + 1].map(|k| IQ3_XXS_GRID[usize::from(block.codes[k])]);
        iq3_points(
            points,
            &IQ3_XXS_MAGNITUDES,
            even_signs(word >> (7 * (i % 4))),
            codes,
        );
    }
    Some(())
}

pub(super) fn split_iq3_s(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockIQ3_S::read(bytes)?;
    parts.scale = block.scale;
    odd_nibbles(&block.sub_scales, &mut parts.sub_scales);
    for (i, codes) in parts.codes.chunks_exact_mut(8).enumerate() {
        let points = [2 * i, 2 * i + 1].map(|k| {
            let high = u16::from(block.high_bits[k / 8] >> (k % 8) & 1);
            IQ3_S_GRID[usize::from(u16::from(block.codes[k]) | high << 8)]
        });
        iq3_points(points, &IQ3_S_MAGNITUDES, block.signs[i], codes);
    }
    Some(())
}

/// Writes the 8 codes of an IQ1 grid point: `8 * (digit - 1)`, plus 1 or minus 1 for the shift of an eighth.
#[inline(always)]
fn iq1_point(low: u8, high: u16, minus: bool, codes: &mut [u8]) {
    let point = IQ1_GRID[usize::from(u16::from(low) | (high & 7) << 8)];
    let zero = if minus { 128 - 8 - 1 } else { 128 - 8 + 1 };
    for (i, code) in codes.iter_mut().enumerate().take(8) {
        *code = zero + 8 * (point >> (2 * i) & 3) as u8;
    }
}

pub(super) fn split_iq1_s(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockIQ1_S::read(bytes)?;
    parts.scale = block.scale;
    for (i, codes) in parts.codes.chunks_exact_mut(8).enumerate() {
        let word = block.high_bits[i / 4];
        parts.sub_scales[i / 4] = odd((word >> 12 & 7) as u8);
        iq1_point(block.codes[i], word >> (3 * (i % 4)), word & 0x8000 != 0, codes);
    }
    Some(())
}

pub(super) fn split_iq1_m(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockIQ1_M::read(bytes)?;
    let words = block.sub_scales;
    parts.scale = words[0] >> 12 | words[1] >> 12 << 4 | words[2] >> 12 << 8 | words[3] >> 12 << 12;
    for (i, sub_scale) in parts.sub_scales.iter_mut().enumerate() {
        *sub_scale = odd((words[i / 4] >> (3 * (i % 4)) & 7) as u8);
    }
    for (i, codes) in parts.codes.chunks_exact_mut(8).enumerate() {
        let bits = block.high_bits[i / 2] >> (4 * (i % 2));
        iq1_point(block.codes[i], u16::from(bits), bits & 8 != 0, codes);
    }
    Some(())
}
