//! Encoders of the K-types, IQ4_NL, IQ4_XS and Q2_0: the search finds scales and levels, these put them in place.

use super::super::blocks::*;
use super::iq::IQ4_BOOK;
use super::search::{self, Integers, Iq4Book, Quaternary, SubScales};

/// Codes from levels: `level + offset`.
fn codes_of<const N: usize>(levels: &[f32; N], offset: i16) -> [u8; N] {
    // The levels are integers within the range of the type.
    levels.map(|level| (level as i16 + offset) as u8)
}

/// The inverse of `k_quants::split_runs`: takes bits `shift` to `shift + bits - 1` of each code.
fn join_runs(codes: &[u8], bits: usize, shift: u32, bytes: &mut [u8]) {
    let mask = (1_u8 << bits) - 1;
    for (bytes, codes) in bytes.chunks_exact_mut(32).zip(codes.chunks(256 / bits)) {
        for (j, run) in codes.chunks_exact(32).enumerate() {
            for (byte, code) in bytes.iter_mut().zip(run) {
                *byte |= (code >> shift & mask) << (bits * j);
            }
        }
    }
}

/// The inverse of `simple::split_nibbles`, in parts of `length` bytes.
fn join_halves(codes: &[u8], length: usize, bytes: &mut [u8]) {
    for (bytes, codes) in bytes.chunks_exact_mut(length).zip(codes.chunks_exact(2 * length)) {
        let (low, high) = codes.split_at(length);
        for (byte, (low, high)) in bytes.iter_mut().zip(low.iter().zip(high)) {
            *byte = low & 15 | (high & 15) << 4;
        }
    }
}

pub(super) fn quantize_q2_k(values: &[f32], bytes: &mut [u8]) {
    let found = search::with_minimums(values, 16, 3.0, 15.0);
    let mut block = BlockQ2_K {
        sub_scales: std::array::from_fn(|i| found.sub_scales[i] | found.sub_minimums[i] << 4),
        codes: [0; 64],
        scale: found.scale,
        minimum: found.minimum,
    };
    join_runs(&codes_of(&found.levels, 0), 2, 0, &mut block.codes);
    let _ = block.write(bytes);
}

pub(super) fn quantize_q3_k(values: &[f32], bytes: &mut [u8]) {
    let found = search::symmetric::<Integers<4>>(values, 16, SubScales::signed(32.0));
    let codes = codes_of(&found.levels, 4);
    let mut block = BlockQ3_K {
        high_bits: [0; 32],
        codes: [0; 64],
        sub_scales: [0; 12],
        scale: found.scale,
    };
    join_runs(&codes, 2, 0, &mut block.codes);
    join_runs(&codes, 1, 2, &mut block.high_bits);
    for (i, sub_scale) in found.sub_scales.iter().enumerate() {
        let sub_scale = (sub_scale + 32) as u8;
        block.sub_scales[i % 8] |= (sub_scale & 15) << (4 * (i / 8));
        block.sub_scales[8 + i % 4] |= (sub_scale >> 4) << (2 * (i / 4));
    }
    let _ = block.write(bytes);
}

/// The inverse of `k_quants::split_six_bits`.
fn join_six_bits(sub_scales: &[u8; 16], sub_minimums: &[u8; 16]) -> [u8; 12] {
    let mut packed = [0; 12];
    for i in 0..4 {
        packed[i] = sub_scales[i] | sub_scales[4 + i] >> 4 << 6;
        packed[4 + i] = sub_minimums[i] | sub_minimums[4 + i] >> 4 << 6;
        packed[8 + i] = sub_scales[4 + i] & 15 | sub_minimums[4 + i] << 4;
    }
    packed
}

pub(super) fn quantize_q4_k(values: &[f32], bytes: &mut [u8]) {
    let found = search::with_minimums(values, 32, 15.0, 63.0);
    let mut block = BlockQ4_K {
        scale: found.scale,
        minimum: found.minimum,
        sub_scales: join_six_bits(&found.sub_scales, &found.sub_minimums),
        codes: [0; 128],
    };
    join_halves(&codes_of(&found.levels, 0), 32, &mut block.codes);
    let _ = block.write(bytes);
}

pub(super) fn quantize_q5_k(values: &[f32], bytes: &mut [u8]) {
    let found = search::with_minimums(values, 32, 31.0, 63.0);
    let codes = codes_of(&found.levels, 0);
    let mut block = BlockQ5_K {
        scale: found.scale,
        minimum: found.minimum,
        sub_scales: join_six_bits(&found.sub_scales, &found.sub_minimums),
        high_bits: [0; 32],
        codes: [0; 128],
    };
    join_halves(&codes, 32, &mut block.codes);
    join_runs(&codes, 1, 4, &mut block.high_bits);
    let _ = block.write(bytes);
}

pub(super) fn quantize_q6_k(values: &[f32], bytes: &mut [u8]) {
    let found = search::symmetric::<Integers<32>>(values, 16, SubScales::signed(128.0));
    let codes = codes_of(&found.levels, 32);
    let mut block = BlockQ6_K {
        codes: [0; 128],
        high_bits: [0; 64],
        sub_scales: found.sub_scales,
        scale: found.scale,
    };
    join_halves(&codes, 64, &mut block.codes);
    join_runs(&codes, 2, 4, &mut block.high_bits);
    let _ = block.write(bytes);
}

/// Codes of levels that are entries of the code book.
fn book_codes<const N: usize>(levels: &[f32; N]) -> [u8; N] {
    levels.map(|level| {
        IQ4_BOOK
            .partition_point(|entry| f32::from(*entry) < level)
            .min(15) as u8
    })
}

pub(super) fn quantize_iq4_nl(values: &[f32], bytes: &mut [u8]) {
    let (scale, levels) = search::single_scale::<Iq4Book, 32>(values);
    let mut block = BlockIQ4_NL {
        scale,
        codes: [0; 16],
    };
    join_halves(&book_codes(&levels), 16, &mut block.codes);
    let _ = block.write(bytes);
}

pub(super) fn quantize_iq4_xs(values: &[f32], bytes: &mut [u8]) {
    let found = search::symmetric::<Iq4Book>(values, 32, SubScales::signed(32.0));
    let mut block = BlockIQ4_XS {
        scale: found.scale,
        sub_scales_high: 0,
        sub_scales_low: [0; 4],
        codes: [0; 128],
    };
    for (i, sub_scale) in found.sub_scales[..8].iter().enumerate() {
        let sub_scale = (sub_scale + 32) as u8;
        block.sub_scales_low[i / 2] |= (sub_scale & 15) << (4 * (i % 2));
        block.sub_scales_high |= u16::from(sub_scale >> 4) << (2 * i);
    }
    join_halves(&book_codes(&found.levels), 16, &mut block.codes);
    let _ = block.write(bytes);
}

/// Q1_0 as ggml's `quantize_row_q1_0_ref`: the scale is the mean magnitude, the codes are the signs.
pub(super) fn quantize_q1_0(values: &[f32], bytes: &mut [u8]) {
    let sum: f32 = values.iter().fold(0.0, |sum, value| sum + value.abs());
    let mut codes = [0; 16];
    for (i, value) in values.iter().enumerate().take(128) {
        codes[i / 8] |= u8::from(*value >= 0.0) << (i % 8);
    }
    let scale = super::super::convert::f32_to_f16(sum / values.len() as f32);
    let _ = BlockQ1_0 { scale, codes }.write(bytes);
}

/// Q2_0 has the levels -1 to 2; the search's are -2 to 1, so scale and levels change sign.
pub(super) fn quantize_q2_0(values: &[f32], bytes: &mut [u8]) {
    let (scale, levels) = search::single_scale::<Quaternary, 64>(values);
    let codes = codes_of(&levels.map(|level| -level), 1);
    let block = BlockQ2_0 {
        scale: scale ^ 0x8000,
        codes: std::array::from_fn(|i| (0..4).fold(0, |byte, k| byte | codes[4 * i + k] << (2 * k))),
    };
    let _ = block.write(bytes);
}
