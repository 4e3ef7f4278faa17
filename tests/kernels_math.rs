//! Norms, rotation and the quantization of activations: against float64, with the same bits on every instruction set.

#![allow(clippy::unwrap_used)] // Outside of test functions too, a failure should end the test.

mod kernels_support;

use kernels_support::*;
use mantle::kernels::Kernels;
use mantle::kernels::activation::Activation;
use mantle::kernels::simd::LANES;
use mantle::quant::activations::{Form, MANTISSAS, Record, SUPER_BLOCK};
use mantle::quant::convert::f32_to_bf16;
use mantle::quant::packed::BLOCK;

fn numbers(count: usize, size: f32, random: &mut Random) -> Guarded<f32> {
    let mut numbers = Guarded::new(count);
    numbers
        .iter_mut()
        .for_each(|value| *value = random.signed() * size);
    numbers
}

#[test]
fn rms_norm_is_that_of_float64() {
    let mut random = Random(1);
    for case in 0..200 {
        let length = if case < 40 {
            case + 1
        } else {
            random.within(1..=1500)
        };
        let size = [1e-12, 1e-3, 1.0, 300.0, 1e15][random.within(0..=4)];
        let (x, weight) = (
            numbers(length, size, &mut random),
            numbers(length, 2.0, &mut random),
        );
        let epsilon = [1e-6, 1e-5, 0.0][random.within(0..=2)];
        let mut found = Guarded::new(length);
        scalar().rms_norm(&x, &weight, epsilon, &mut found);
        let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
        let factor = 1.0 / (squares / length as f64 + f64::from(epsilon)).sqrt();
        // The sums of 16 lanes, the tree, and seven more roundings, half of them under the root.
        let bound = (length as f64 / 32.0 + 8.0) * 2f64.powi(-24);
        for ((&x, &weight), &found) in x.iter().zip(weight.iter()).zip(found.iter()) {
            let expected = f64::from(x) * factor * f64::from(weight);
            assert!(
                (f64::from(found) - expected).abs() <= expected.abs() * bound + 1e-44,
                "{length} values of {size:e}: {found:e} for {expected:e}"
            );
        }
        for (name, kernels) in others() {
            let mut other = Guarded::new(length);
            kernels.rms_norm(&x, &weight, epsilon, &mut other);
            assert_same(&format!("{name}, {length} values"), &other, &found);
        }
    }
}

#[test]
fn norms_of_what_is_not_finite_are_the_same_everywhere() {
    for special in [f32::NAN, f32::INFINITY, f32::MAX, 1e-40, 0.0] {
        let mut x = [special; 37];
        x[5] = 1.0;
        let mut expected = [0.0; 37];
        scalar().rms_norm(&x, &[1.0; 37], 1e-6, &mut expected);
        if special.is_nan() {
            assert!(expected.iter().all(|value| value.is_nan()));
        }
        for (name, kernels) in others() {
            let mut found = [0.0; 37];
            kernels.rms_norm(&x, &[1.0; 37], 1e-6, &mut found);
            assert_same(name, &found, &expected);
        }
    }
}

#[test]
fn the_gate_is_silu_times_up() {
    let mut random = Random(2);
    for length in (1..70).chain([1000, 1536]) {
        let (gate, up) = (
            numbers(length, 20.0, &mut random),
            numbers(length, 3.0, &mut random),
        );
        let expected: Vec<f32> = gate
            .iter()
            .zip(up.iter())
            .map(|(&gate, &up)| {
                let mut lanes = [gate; LANES];
                scalar().silu(&mut lanes);
                lanes[0] * up
            })
            .collect();
        for (name, kernels) in Kernels::every() {
            let mut found = Guarded::of(&gate);
            kernels.gate(Activation::Silu, &mut found, &up);
            assert_same(&format!("{name}, {length} values"), &found, &expected);
        }
    }
}

#[test]
fn rotation_is_that_of_float64_and_touches_nothing_else() {
    let mut random = Random(3);
    for _ in 0..200 {
        let (half, count, gap) = (random.within(1..=130), random.within(1..=5), random.within(0..=9));
        let stride = 2 * half + gap;
        let x = numbers((count - 1) * stride + 2 * half, 10.0, &mut random);
        let angles: Vec<f32> = (0..half).map(|_| random.signed() * 100.0).collect();
        let cosine = Guarded::of(&angles.iter().map(|angle| angle.cos()).collect::<Vec<f32>>());
        let sine = Guarded::of(&angles.iter().map(|angle| angle.sin()).collect::<Vec<f32>>());
        let mut found = Guarded::of(&x);
        scalar().rotate_halves(&mut found, count, stride, &cosine, &sine);
        for (i, &found) in found.iter().enumerate() {
            let (vector, at) = (i / stride * stride, i % stride);
            if at >= 2 * half {
                assert_eq!(found.to_bits(), x[i].to_bits(), "between the vectors");
                continue;
            }
            let (k, turn) = (at % half, if at < half { -1.0 } else { 1.0 });
            let own = f64::from(x[i]) * f64::from(cosine[k]);
            let other = f64::from(x[vector + (at + half) % (2 * half)]) * f64::from(sine[k]) * turn;
            let bound = (own.abs() + 2.0 * other.abs()) * 2f64.powi(-23) + 1e-44;
            assert!(
                (f64::from(found) - own - other).abs() <= bound,
                "{found:e} for {:e}",
                own + other
            );
        }
        for (name, kernels) in others() {
            let mut other = Guarded::of(&x);
            kernels.rotate_halves(&mut other, count, stride, &cosine, &sine);
            assert_same(name, &other, &found);
        }
    }
}

/// Rows whose blocks are ordinary, zero, denormal, next to the limits, or hold NaN or infinity.
fn rows_of_all_kinds(columns: usize, random: &mut Random) -> Vec<f32> {
    let mut x = Vec::new();
    let mut kind = 0;
    for i in 0..columns {
        if i % BLOCK == 0 {
            kind = random.within(0..=11);
        }
        let value = random.signed();
        x.push(match kind {
            0 => 0.0 * value,
            1 => value * 1e-38,
            2 => value * 1.6e-36,
            3 => value * f32::MAX,
            4 if random.chance(16) => f32::NAN,
            5 if random.chance(16) => f32::INFINITY * value,
            6 => f32::from_bits(random.bits() as u32),
            7 => (value * 127.0).round() / 2.0,
            _ => value * 100.0,
        });
    }
    x
}

/// What a block's largest value becomes at most before it is rounded to 127; below what a block counts as zero, and from what on
/// as not finite.
const LARGEST_CODE: f32 = 126.67;
const TINY: f32 = f32::from_bits(0x0400_0000);
const HUGE: f32 = f32::from_bits(0x7700_0000);

/// The low three bits of a magnitude do not count.
const NEARLY: f32 = 1e-6;

fn largest(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |a, b| a.max(b.abs()))
}

fn sum_of(codes: &[i8]) -> i32 {
    codes.iter().map(|&code| i32::from(code)).sum()
}

/// Codes of finite values that share a scale.
fn check_codes(x: &[f32], record: &Record) {
    let (codes, scale) = (&record.codes, record.scale());
    assert_eq!(record.mantissa, MANTISSAS[record.step as usize / 64]);
    assert_eq!(
        record.magic.to_bits() & 0x007f_ffff,
        0x0040_0000,
        "1.5 times a power of two"
    );
    if largest(x) < TINY * (1.0 - NEARLY) {
        assert_eq!((record.magic, sum_of(codes)), (12_582_912.0, 0));
        return;
    }
    let exact = largest(x) / LARGEST_CODE;
    let range = exact * (1.0 - NEARLY)..=exact * 1.125 * (1.0 + NEARLY);
    assert!(range.contains(&scale), "{scale:e} for {exact:e}");
    for (i, &code) in codes.iter().enumerate() {
        let value = f64::from(x.get(i).copied().unwrap_or(0.0));
        let error = (value - f64::from(code) * f64::from(scale)).abs();
        assert!(
            code != -128 && error <= f64::from(scale) * 0.500_04,
            "{value:e} as {code} of {scale:e}"
        );
    }
}

/// One block, without the group that stands apart, whose values' sum is in those of the block: of all, and of the first half.
fn check_block(x: &[f32], record: &Record, apart: [f32; 2]) {
    let total = sum_of(&record.codes);
    let first = sum_of(&record.codes[..BLOCK / 2]);
    let start = record.magic.to_bits() as i32;
    assert_eq!(
        record.starts,
        [total, first, total - first].map(|sum| start - 128 * sum)
    );
    if x.iter().all(|value| value.abs() < HUGE) {
        check_codes(x, record);
        let sums = [total, first].map(|sum| record.scale() * sum as f32);
        assert_eq!(record.sums, [sums[0] + apart[0], sums[1] + apart[1]]);
    } else if x
        .iter()
        .any(|value| value.is_nan() || value.abs() >= HUGE * (1.0 + NEARLY))
    {
        assert!(record.magic.is_nan() && record.sums.iter().all(|sum| sum.is_nan()));
        assert_eq!(record.codes, [0; BLOCK]);
    }
}

/// How much the square of a block's largest value falls without a group of four; nothing where it is not finite.
fn gain(x: &[f32], place: usize) -> f32 {
    let Some(block) = x.chunks(BLOCK).nth(place / 8) else {
        return 0.0;
    };
    let mut rest = block.to_vec();
    rest.iter_mut()
        .skip(place % 8 * 4)
        .take(4)
        .for_each(|value| *value = 0.0);
    let (high, low) = (largest(block), largest(&rest));
    let gain = high * high - low * low;
    let finite = block.iter().all(|value| value.is_finite()) && gain < f32::INFINITY;
    if finite { gain } else { 0.0 }
}

/// Takes the group of a spike out of a super-block, when it has codes of its own; returns the sum of the values it stands for, of
/// its block and of the first half of its block.
fn check_spike(x: &mut [f32], spike: &Record) -> [f32; 2] {
    let place = spike.place as usize;
    let best = (0..64)
        .max_by(|&a, &b| gain(x, a).total_cmp(&gain(x, b)))
        .unwrap();
    let of_block = largest(x.chunks(BLOCK).nth(best / 8).unwrap_or(&[]));
    let codes = &spike.codes[..4];
    assert_eq!(
        spike.starts[0],
        spike.magic.to_bits() as i32 - 128 * sum_of(codes)
    );
    if codes == [0; 4] {
        // Where nothing stands apart, the group stays in its block.
        assert!(gain(x, best) <= 4.0 * NEARLY * of_block * of_block);
        return [0.0; 2];
    }
    assert!(gain(x, place) >= gain(x, best) - 4.0 * NEARLY * of_block * of_block);
    let end = x.len().min(4 * place + 4);
    let group = &mut x[4 * place..end];
    let mut alone = *spike;
    alone.codes[4..].fill(0);
    check_codes(group, &alone);
    group.fill(0.0);
    let sum = spike.scale() * sum_of(codes) as f32;
    [sum, if place % 8 < 4 { sum } else { 0.0 }]
}

#[test]
fn activations_are_quantized_as_documented_with_the_same_bits_on_every_table() {
    let mut random = Random(4);
    let mut spikes = 0;
    for case in 0..600 {
        let columns = if case < 70 {
            case + 1
        } else {
            random.within(1..=700)
        };
        let x = rows_of_all_kinds(columns, &mut random);
        let prepared = Prepared::new(scalar(), Form::Codes, &x, 1, columns);
        let mut rest = x.clone();
        let records = prepared.records(0);
        assert_eq!(records.len(), columns.div_ceil(SUPER_BLOCK));
        for (x, (blocks, spike)) in rest.chunks_mut(SUPER_BLOCK).zip(&records) {
            let apart = check_spike(x, spike);
            spikes += usize::from(spike.codes[..4] != [0; 4]);
            assert_eq!(blocks.len(), x.len().div_ceil(BLOCK));
            for (b, (x, block)) in x.chunks(BLOCK).zip(blocks).enumerate() {
                let is_of_spike = b == spike.place as usize / 8;
                check_block(x, block, if is_of_spike { apart } else { [0.0; 2] });
            }
        }
        for (name, kernels) in others() {
            let other = Prepared::new(kernels, Form::Codes, &x, 1, columns);
            assert_eq!(other.view().data, prepared.view().data, "{name}");
        }
    }
    assert!(spikes > 200, "{spikes} groups stood apart");
}

/// Ties go to the even code: with the largest value chosen so that the scale is 1, the codes are the rounded values
/// themselves. A larger one in the next block is what stands apart.
#[test]
fn codes_are_rounded_to_even() {
    let mut x = [0.0; BLOCK + 1];
    x[..11].copy_from_slice(&[
        126.6, 0.5, 1.5, 2.5, -126.6, -0.5, -1.5, -2.5, 126.5, -126.5, 0.49999997,
    ]);
    x[BLOCK] = 1000.0;
    for (name, kernels) in Kernels::every() {
        let prepared = Prepared::new(kernels, Form::Codes, &x, 1, x.len());
        let (blocks, _) = &prepared.records(0)[0];
        let codes = blocks[0].codes;
        let expected = [127, 0, 2, 2, -127, 0, -2, -2, 126, -126, 0];
        assert_eq!(codes[..11], expected, "{name}");
    }
}

#[test]
fn float_activations_keep_their_bits_and_are_padded_with_zeros() {
    let mut random = Random(5);
    for columns in 1..100 {
        let x: Vec<f32> = (0..columns)
            .map(|_| f32::from_bits(random.bits() as u32))
            .collect();
        for (name, kernels) in Kernels::every() {
            let floats = Prepared::new(kernels, Form::F32, &x, 1, columns);
            let halves = Prepared::new(kernels, Form::Bf16, &x, 1, columns);
            for i in 0..columns.next_multiple_of(BLOCK) {
                let value = x.get(i).copied().unwrap_or(0.0);
                let float = &floats.view().data[4 * i..4 * i + 4];
                assert_eq!(float, value.to_bits().to_le_bytes(), "{name}: f32 {i}");
                let half = &halves.view().data[2 * i..2 * i + 2];
                assert_eq!(half, f32_to_bf16(value).to_le_bytes(), "{name}: bf16 {i}");
            }
        }
    }
}
