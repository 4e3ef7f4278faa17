//! Values -1, 0 and 1: TQ1_0 (five base-3 digits a byte) and TQ2_0 (four 2-bit codes a byte).
//!
//! A byte of TQ1_0 holds `ceil(number * 256 / 243)`, where the base-3 digits of `number`, the most significant
//! first, are the codes of values that lie 32, 16 or 4 apart. Multiplying by 3^k modulo 256 brings digit k to the
//! top, and a multiplication by 3/256 reads it: no division.

use super::super::blocks::*;
use super::super::convert::f32_to_f16;
use super::k_quants::split_runs;
use super::parts::BlockParts;
use super::simple::{inverse, magnitude};

/// Powers of three, by digit.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// The parts of a TQ1_0 block: bytes in the part; the values are 5 runs of that length (the last: 4 runs).
const RUNS: [usize; 3] = [32, 16, 4];

pub(super) fn split_tq1_0(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockTQ1_0::read(bytes)?;
    parts.scale = block.scale;
    let digits = block.codes.split_at(RUNS[0]);
    let (first, rest) = parts.codes.split_at_mut(5 * RUNS[0]);
    let (second, third) = rest.split_at_mut(5 * RUNS[1]);
    for (bytes, codes) in [
        (digits.0, first),
        (digits.1, second),
        (&block.high_codes[..], third),
    ] {
        for (run, power) in codes.chunks_exact_mut(bytes.len()).zip(POWERS) {
            for (code, byte) in run.iter_mut().zip(bytes) {
                *code = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as u8;
            }
        }
    }
    Some(())
}

pub(super) fn split_tq2_0(bytes: &[u8], parts: &mut BlockParts) -> Option<()> {
    let block = BlockTQ2_0::read(bytes)?;
    parts.scale = block.scale;
    parts.codes = [0; 256];
    split_runs(&block.codes, 2, 0, &mut parts.codes);
    Some(())
}

/// The scale is the largest magnitude; codes 0, 1, 2 for the nearest of -1, 0, 1, halves away from zero.
fn ternary_codes(values: &[f32]) -> (u16, [u8; 256]) {
    let scale = magnitude(values);
    let inverse = inverse(scale);
    let mut codes = [0; 256];
    for (code, value) in codes.iter_mut().zip(values) {
        *code = ((value * inverse).round().clamp(-1.0, 1.0) as i8 + 1) as u8;
    }
    (f32_to_f16(scale), codes)
}

/// Joins runs of codes to bytes of base-3 digits.
fn join_digits(codes: &[u8], bytes: &mut [u8]) {
    let length = bytes.len();
    for (i, byte) in bytes.iter_mut().enumerate() {
        let digit = |run: usize| codes.get(run * length + i).map_or(0, |code| u16::from(*code));
        let number = (0..5).fold(0, |number, run| number * 3 + digit(run));
        *byte = (number * 256).div_ceil(243) as u8;
    }
}

pub(super) fn quantize_tq1_0(values: &[f32], bytes: &mut [u8]) {
    let (scale, codes) = ternary_codes(values);
    let (first, rest) = codes.split_at(5 * RUNS[0]);
    let (second, third) = rest.split_at(5 * RUNS[1]);
    let mut block = BlockTQ1_0 {
        codes: [0; 48],
        high_codes: [0; 4],
        scale,
    };
    let digits = block.codes.split_at_mut(RUNS[0]);
    join_digits(first, digits.0);
    join_digits(second, digits.1);
    join_digits(third, &mut block.high_codes);
    let _ = block.write(bytes);
}

pub(super) fn quantize_tq2_0(values: &[f32], bytes: &mut [u8]) {
    let (scale, codes) = ternary_codes(values);
    let mut packed = [0; 64];
    for (bytes, codes) in packed.chunks_exact_mut(32).zip(codes.chunks_exact(128)) {
        for (j, run) in codes.chunks_exact(32).enumerate() {
            for (byte, code) in bytes.iter_mut().zip(run) {
                *byte |= code << (2 * j);
            }
        }
    }
    let _ = BlockTQ2_0 { codes: packed, scale }.write(bytes);
}
