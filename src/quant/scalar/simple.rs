//! Blocks with one scale and perhaps a minimum: Q1_0, Q2_0, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, IQ4_NL; and Q8_K.
//!
//! The encoders do, operation by operation in f32, what ggml's `quantize_row_*_ref` and the Python package
//! `gguf` do, so that the bytes are the same.

use super::super::blocks::*;
use super::super::convert::f32_to_f16;
use super::parts::BlockParts;

/// Spreads 16 bytes to 32 codes of 4 bits: low halves first, then high halves.
#[inline(always)]
pub(super) fn split_nibbles(bytes: &[u8], codes: &mut [u8]) {
    let (low, high) = codes.split_at_mut(bytes.len().min(codes.len()));
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// The inverse of [`split_nibbles`] for 32 codes.
#[inline(always)]
pub(super) fn join_nibbles(codes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| codes[i] & 15 | codes[16 + i] << 4)
}

#[inline(always)]
fn split_high_bits(bits: [u8; 4], codes: &mut [u8; 256]) {
    let bits = u32::from_le_bytes(bits);
    for (i, code) in codes[..32].iter_mut().enumerate() {
        *code |= ((bits >> i & 1) as u8) << 4;
    }
}

#[inline(always)]
fn join_high_bits(codes: &[u8; 32]) -> [u8; 4] {
    let bits = codes
        .iter()
        .rev()
        .fold(0_u32, |bits, code| bits << 1 | u32::from(code >> 4 & 1));
    bits.to_le_bytes()
}

pub(super) fn split_q4_0(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ4_0::read(bytes)?;
    parts.scale = block.scale;
    split_nibbles(&block.codes, &mut parts.codes);
    Some(())
}

pub(super) fn split_q4_1(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ4_1::read(bytes)?;
    parts.scale = block.scale;
    parts.minimum = block.minimum;
    split_nibbles(&block.codes, &mut parts.codes);
    Some(())
}

pub(super) fn split_q5_0(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ5_0::read(bytes)?;
    parts.scale = block.scale;
    split_nibbles(&block.codes, &mut parts.codes);
    split_high_bits(block.high_bits, &mut parts.codes);
    Some(())
}

pub(super) fn split_q5_1(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ5_1::read(bytes)?;
    parts.scale = block.scale;
    parts.minimum = block.minimum;
    split_nibbles(&block.codes, &mut parts.codes);
    split_high_bits(block.high_bits, &mut parts.codes);
    Some(())
}

pub(super) fn split_q8_0(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ8_0::read(bytes)?;
    parts.scale = block.scale;
    split_signed(&block.codes, parts);
    Some(())
}

pub(super) fn split_q8_1(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ8_1::read(bytes)?;
    parts.scale = block.scale;
    split_signed(&block.codes, parts);
    Some(())
}

pub(super) fn split_iq4_nl(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockIQ4_NL::read(bytes)?;
    parts.scale = block.scale;
    split_nibbles(&block.codes, &mut parts.codes);
    Some(())
}

/// What the codes of Q1_0 mean.
pub(super) const SIGN_BOOK: [i8; 16] = [-1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub(super) fn split_q1_0(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ1_0::read(bytes)?;
    parts.scale = block.scale;
    for (byte, codes) in block.codes.iter().zip(parts.codes.chunks_exact_mut(8)) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = byte >> i & 1;
        }
    }
    Some(())
}

pub(super) fn split_q2_0(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockQ2_0::read(bytes)?;
    parts.scale = block.scale;
    for (byte, codes) in block.codes.iter().zip(parts.codes.chunks_exact_mut(4)) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = byte >> (2 * i) & 3;
        }
    }
    Some(())
}

/// Signed codes become unsigned by adding 128.
#[inline(always)]
fn split_signed(signed: &[i8], parts: &mut BlockParts) {
    for (code, signed) in parts.codes.iter_mut().zip(signed) {
        *code = *signed as u8 ^ 0x80;
    }
}

/// Decodes Q8_K, the only block with an f32 scale.
pub(super) fn dequantize_q8_k(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes
        .chunks_exact(BlockQ8_K::BYTES)
        .zip(out.chunks_exact_mut(256))
    {
        let Some(block) = BlockQ8_K::read(bytes) else {
            return;
        };
        for (value, code) in out.iter_mut().zip(block.codes) {
            *value = block.scale * f32::from(code);
        }
    }
}

/// The value of the largest magnitude, with its sign; the first of equals. A NaN wins.
pub(super) fn extreme(values: &[f32]) -> f32 {
    // Zeros keep the sign of the first, as in ggml.
    let mut extreme = values.first().copied().unwrap_or(0.0);
    for value in values {
        if value.is_nan() {
            return *value;
        }
        if value.abs() > extreme.abs() {
            extreme = *value;
        }
    }
    extreme
}

/// Minimum and maximum of the values; a NaN gives NaN for both.
pub(super) fn range(values: &[f32]) -> (f32, f32) {
    let (mut minimum, mut maximum) = (f32::INFINITY, f32::NEG_INFINITY);
    for value in values {
        if value.is_nan() {
            return (*value, *value);
        }
        minimum = minimum.min(*value);
        maximum = maximum.max(*value);
    }
    (minimum, maximum)
}

/// `1 / scale`, and 0 for a scale of 0.
#[inline(always)]
pub(super) fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Codes of a symmetric type with the code `offset` for 0; the extreme value gets code 0, so that the code
/// range is used fully. Returns scale and codes.
fn symmetric_codes(values: &[f32], offset: u8) -> (u16, [u8; 32]) {
    let scale = extreme(values) / -f32::from(offset);
    let inverse = inverse(scale);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(values) {
        // `as` cuts towards zero and saturates.
        *code = ((value * inverse + (f32::from(offset) + 0.5)) as u8).min(2 * offset - 1);
    }
    (f32_to_f16(scale), codes)
}

/// Codes 0 to `largest` between minimum and maximum. Returns scale, minimum and codes.
fn asymmetric_codes(values: &[f32], largest: u8) -> (u16, u16, [u8; 32]) {
    let (minimum, maximum) = range(values);
    let scale = (maximum - minimum) / f32::from(largest);
    let inverse = inverse(scale);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (((value - minimum) * inverse + 0.5) as u8).min(largest);
    }
    (f32_to_f16(scale), f32_to_f16(minimum), codes)
}

/// Largest magnitude; NaN if there is one.
pub(super) fn magnitude(values: &[f32]) -> f32 {
    extreme(values).abs()
}

/// Codes -127 to 127, rounded half away from zero. Returns the scale and the codes.
fn signed_codes(values: &[f32]) -> (f32, [i8; 32]) {
    let scale = magnitude(values) / 127.0;
    let inverse = inverse(scale);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value * inverse).round() as i8;
    }
    (scale, codes)
}

pub(super) fn quantize_q4_0(values: &[f32], bytes: &mut [u8]) {
    let (scale, codes) = symmetric_codes(values, 8);
    let codes = join_nibbles(&codes);
    let _ = BlockQ4_0 { scale, codes }.write(bytes);
}

pub(super) fn quantize_q4_1(values: &[f32], bytes: &mut [u8]) {
    let (scale, minimum, codes) = asymmetric_codes(values, 15);
    let codes = join_nibbles(&codes);
    let _ = BlockQ4_1 {
        scale,
        minimum,
        codes,
    }
    .write(bytes);
}

pub(super) fn quantize_q5_0(values: &[f32], bytes: &mut [u8]) {
    let (scale, codes) = symmetric_codes(values, 16);
    let block = BlockQ5_0 {
        scale,
        high_bits: join_high_bits(&codes),
        codes: join_nibbles(&codes),
    };
    let _ = block.write(bytes);
}

pub(super) fn quantize_q5_1(values: &[f32], bytes: &mut [u8]) {
    let (scale, minimum, codes) = asymmetric_codes(values, 31);
    let block = BlockQ5_1 {
        scale,
        minimum,
        high_bits: join_high_bits(&codes),
        codes: join_nibbles(&codes),
    };
    let _ = block.write(bytes);
}

pub(super) fn quantize_q8_0(values: &[f32], bytes: &mut [u8]) {
    let (scale, codes) = signed_codes(values);
    let scale = f32_to_f16(scale);
    let _ = BlockQ8_0 { scale, codes }.write(bytes);
}

pub(super) fn quantize_q8_1(values: &[f32], bytes: &mut [u8]) {
    let (scale, codes) = signed_codes(values);
    let sum: i32 = codes.iter().map(|code| i32::from(*code)).sum();
    let block = BlockQ8_1 {
        scale: f32_to_f16(scale),
        sum: f32_to_f16(sum as f32 * scale),
        codes,
    };
    let _ = block.write(bytes);
}

/// As ggml's `quantize_row_q8_K_ref`: the extreme value becomes code -127, rounding is half to even.
pub(super) fn quantize_q8_k(values: &[f32], bytes: &mut [u8]) {
    let extreme = extreme(values);
    let inverse = if extreme == 0.0 { 0.0 } else { -127.0 / extreme };
    let mut codes = [0; 256];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (value * inverse).round_ties_even().min(127.0) as i8;
    }
    let mut sums = [0; 16];
    for (sum, codes) in sums.iter_mut().zip(codes.chunks_exact(16)) {
        *sum = codes.iter().map(|code| i16::from(*code)).sum();
    }
    // A scale is 0 only when all values are.
    let scale = if extreme == 0.0 { 0.0 } else { 1.0 / inverse };
    let _ = BlockQ8_K { scale, codes, sums }.write(bytes);
}
