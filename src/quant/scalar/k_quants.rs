//! Super-blocks of 256 values with integer sub-scales: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K and IQ4_XS, taken apart.

use super::super::blocks::*;
use super::parts::BlockParts;
use super::simple::split_nibbles;

/// Ors `bits` bits per value, `shift` left, into 256 codes. Each 32 bytes hold `8 / bits` runs of 32 values: run j
/// lies at bit `bits * j` of the 32 bytes.
#[inline(always)]
pub(super) fn split_runs(bytes: &[u8], bits: u32, shift: u32, codes: &mut [u8; 256]) {
    let mask = (1_u8 << bits) - 1;
    let runs_per_part = (8 / bits) as usize;
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_mut(32 * runs_per_part)) {
        for (j, run) in (0..).zip(codes.chunks_exact_mut(32)) {
            for (code, byte) in run.iter_mut().zip(bytes) {
                *code |= (byte >> (bits * j) & mask) << shift;
            }
        }
    }
}

pub(super) fn split_q2_k(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ2_K::read(bytes)?;
    parts.scale = block.scale;
    parts.minimum = block.minimum;
    for (i, byte) in block.sub_scales.iter().enumerate() {
        parts.sub_scales[i] = (byte & 15) as i8;
        parts.sub_minimums[i] = byte >> 4;
    }
    parts.codes = [0; 256];
    split_runs(&block.codes, 2, 0, &mut parts.codes);
    Some(())
}

pub(super) fn split_q3_k(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ3_K::read(bytes)?;
    parts.scale = block.scale;
    parts.sub_scales = std::array::from_fn(|i| {
        let low = block.sub_scales[i % 8] >> (4 * (i / 8)) & 15;
        let high = block.sub_scales[8 + i % 4] >> (2 * (i / 4)) & 3;
        (low | high << 4) as i8 - 32
    });
    parts.codes = [0; 256];
    split_runs(&block.codes, 2, 0, &mut parts.codes);
    split_runs(&block.high_bits, 1, 2, &mut parts.codes);
    Some(())
}

/// The 8 sub-scales and 8 sub-minimums of Q4_K and Q5_K, 6 bits each: group i below 4 lies whole in bytes i and
/// 4+i; group 4+i has its low halves in byte 8+i and bits 4-5 at the top of bytes i and 4+i.
fn split_six_bits(packed: &[u8; 12], parts: &mut BlockParts) {
    for i in 0..4 {
        let (scale, minimum, low) = (packed[i], packed[4 + i], packed[8 + i]);
        parts.sub_scales[i] = (scale & 63) as i8;
        parts.sub_minimums[i] = minimum & 63;
        parts.sub_scales[4 + i] = (low & 15 | scale >> 6 << 4) as i8;
        parts.sub_minimums[4 + i] = low >> 4 | minimum >> 6 << 4;
    }
}

pub(super) fn split_q4_k(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ4_K::read(bytes)?;
    parts.scale = block.scale;
    parts.minimum = block.minimum;
    split_six_bits(&block.sub_scales, parts);
    for (bytes, codes) in block.codes.chunks_exact(32).zip(parts.codes.chunks_exact_mut(64)) {
        split_nibbles(bytes, codes);
    }
    Some(())
}

pub(super) fn split_q5_k(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ5_K::read(bytes)?;
    parts.scale = block.scale;
    parts.minimum = block.minimum;
    split_six_bits(&block.sub_scales, parts);
    for (bytes, codes) in block.codes.chunks_exact(32).zip(parts.codes.chunks_exact_mut(64)) {
        split_nibbles(bytes, codes);
    }
    split_runs(&block.high_bits, 1, 4, &mut parts.codes);
    Some(())
}

pub(super) fn split_q6_k(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ6_K::read(bytes)?;
    parts.scale = block.scale;
    parts.sub_scales = block.sub_scales;
    for (bytes, codes) in block
        .codes
        .chunks_exact(64)
        .zip(parts.codes.chunks_exact_mut(128))
    {
        split_nibbles(bytes, codes);
    }
    split_runs(&block.high_bits, 2, 4, &mut parts.codes);
    Some(())
}

pub(super) fn split_iq4_xs(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockIQ4_XS::read(bytes)?;
    parts.scale = block.scale;
    for (i, sub_scale) in parts.sub_scales[..8].iter_mut().enumerate() {
        let low = block.sub_scales_low[i / 2] >> (4 * (i % 2)) & 15;
        let high = (block.sub_scales_high >> (2 * i) & 3) as u8;
        *sub_scale = (low | high << 4) as i8 - 32;
    }
    for (bytes, codes) in block.codes.chunks_exact(16).zip(parts.codes.chunks_exact_mut(32)) {
        split_nibbles(bytes, codes);
    }
    Some(())
}
