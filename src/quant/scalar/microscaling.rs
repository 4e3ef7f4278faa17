//! Blocks of 4-bit floats (E2M1): MXFP4 (OCP Microscaling Formats 1.0) and NVFP4.

use super::super::blocks::*;
use super::parts::BlockParts;
use super::simple::{join_nibbles, magnitude, split_nibbles};

/// Twice the values of E2M1, by code. Doubled they are integers; the scales are halved instead.
pub(crate) const E2M1_BOOK: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half the power of two that an E8M0 byte means: `2^(exponent - 128)`. 255, NaN in the specification, is taken
/// as a number, as ggml does.
#[inline]
pub(super) fn exponent_to_f32(exponent: u8) -> f32 {
    match exponent {
        // Denormals.
        0 => f32::from_bits(0x0020_0000),
        1 => f32::from_bits(0x0040_0000),
        _ => f32::from_bits((u32::from(exponent) - 1) << 23),
    }
}

/// Half the value of an unsigned E4M3 float. 0x7F, NaN in the specification, is 0, as in ggml; bit 7 is ignored.
#[inline]
pub(super) fn e4m3_to_f32(bits: u8) -> f32 {
    if bits == 0x7f {
        return 0.0;
    }
    let exponent = u32::from(bits >> 3 & 15);
    let mantissa = f32::from(bits & 7);
    if exponent == 0 {
        // Steps of 2^-9, halved.
        mantissa * (1.0 / 1024.0)
    } else {
        // (1 + mantissa/8) * 2^(exponent - 7), halved.
        (8.0 + mantissa) * f32::from_bits((exponent + 127 - 7 - 4) << 23)
    }
}

pub(super) fn split_mxfp4(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockMXFP4::read(bytes)?;
    parts.scale = u16::from(block.exponent);
    split_nibbles(&block.codes, &mut parts.codes);
    Some(())
}

pub(super) fn split_nvfp4(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockNVFP4::read(bytes)?;
    for (sub_scale, bits) in parts.sub_scales.iter_mut().zip(block.sub_scales) {
        *sub_scale = bits as i8;
    }
    for (bytes, codes) in block.codes.chunks_exact(8).zip(parts.codes.chunks_exact_mut(16)) {
        split_nibbles(bytes, codes);
    }
    Some(())
}

/// The code whose value times `scale` is nearest to `value`; the first of equals.
fn nearest_code(value: f32, scale: f32) -> u8 {
    let mut best = (f32::INFINITY, 0);
    for (code, entry) in (0..).zip(E2M1_BOOK) {
        let error = (scale * f32::from(entry) - value).abs();
        if error < best.0 {
            best = (error, code);
        }
    }
    best.1
}

/// `floor(log2(value))` with the logarithm rounded to f32 first, as ggml computes it: just below a power of two the
/// rounding reaches the power.
fn floor_log2(value: f32) -> i32 {
    // Doubles hold every f32 as a normal number.
    let bits = f64::from(value).to_bits();
    let exponent = (bits >> 52) as i32 - 1023;
    let mantissa = f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 1023 << 52);
    // log2 of a number just below 2 is 1 - (2 - m)/2 * log2(e), but for terms far below f32's precision.
    if mantissa > 1.9999 {
        let logarithm = f64::from(exponent + 1) - (1.0 - mantissa / 2.0) * std::f64::consts::LOG2_E;
        return (logarithm as f32).floor() as i32;
    }
    exponent
}

pub(super) fn quantize_mxfp4(values: &[f32], bytes: &mut [u8]) {
    let magnitude = magnitude(values);
    let exponent = if magnitude > 0.0 {
        // The largest E2M1 value is 1.5 * 2^2.
        (floor_log2(magnitude) - 2 + 127).clamp(0, 254) as u8
    } else {
        0
    };
    let scale = exponent_to_f32(exponent);
    let mut codes = [0; 32];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = nearest_code(*value, scale);
    }
    let codes = join_nibbles(&codes);
    let _ = BlockMXFP4 { exponent, codes }.write(bytes);
}

/// The unsigned E4M3 float nearest to `value`, at most 448; halves go up.
fn f32_to_e4m3(value: f32) -> u8 {
    let value = value.clamp(0.0, 448.0);
    let bits = value.to_bits();
    let exponent = (bits >> 23) as i32 - 127 + 7;
    if exponent <= 0 {
        // Steps of 2^-9; eight of them are the smallest normal number, whose code is 8.
        return (value * 512.0 + 0.5) as u8;
    }
    // Keep three bits of mantissa; a carry rightly raises the exponent. 0x7F is not a number.
    let rounded = ((bits >> 19) + 1) >> 1;
    (rounded as i32 - ((127 - 7) << 3)).min(0x7e) as u8
}

/// Per group of 16 the scale maps the largest magnitude to 6, the largest E2M1 value.
pub(super) fn quantize_nvfp4(values: &[f32], bytes: &mut [u8]) {
    let mut block = BlockNVFP4 {
        sub_scales: [0; 4],
        codes: [0; 32],
    };
    let groups = values.chunks_exact(16).zip(block.codes.chunks_exact_mut(8));
    for (sub_scale, (values, bytes)) in block.sub_scales.iter_mut().zip(groups) {
        *sub_scale = f32_to_e4m3(magnitude(values) / 6.0);
        let scale = e4m3_to_f32(*sub_scale);
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = nearest_code(values[i], scale) | nearest_code(values[8 + i], scale) << 4;
        }
    }
    let _ = block.write(bytes);
}
