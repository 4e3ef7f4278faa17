//! Steps over vectors, and 16-bit floats: against float64 or the plain conversion, with the same bits on every
//! instruction set, reading and writing nothing beside the vectors.

#![allow(clippy::unwrap_used)] // Outside of test functions too, a failure should end the test.

mod kernels_support;

use kernels_support::*;
use mantle::base::matrix::Source;
use mantle::format::dtype::DataType;
use mantle::kernels::Kernels;
use mantle::kernels::activation::Activation;
use mantle::quant::convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};

/// Values of all sizes, at times with infinity, NaN and denormals among them.
fn values(count: usize, random: &mut Random) -> Guarded<f32> {
    let special = random.chance(3);
    let size = [1e-38, 1e-3, 1.0, 30.0, 1e20][random.within(0..=4)];
    let mut values = Guarded::new(count);
    for value in values.iter_mut() {
        *value = match random.within(0..=19) {
            0 if special => f32::from_bits(random.bits() as u32),
            1 if special => [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0][random.within(0..=3)],
            _ => random.signed() * size,
        };
    }
    values
}

/// Lengths around the width of a vector, then some longer ones.
fn lengths(random: &mut Random) -> Vec<usize> {
    let long = (0..20).map(|_| random.within(70..=2000));
    let long: Vec<usize> = long.collect();
    (0..70).chain(long).collect()
}

type Step<'a> = &'a dyn Fn(&Kernels, Source<'_>, Source<'_>, &mut [f32]);

/// What `step` makes of a and b: with the output apart, and in place of either or both.
fn results(kernels: &Kernels, step: Step<'_>, a: &[f32], b: &[f32]) -> [Vec<f32>; 4] {
    let run = |start: &[f32], a: Source<'_>, b: Source<'_>| {
        let mut y = Guarded::of(start);
        step(kernels, a, b, &mut y);
        y.to_vec()
    };
    [
        run(b, Source::Apart(a), Source::Apart(b)),
        run(a, Source::InPlace, Source::Apart(b)),
        run(b, Source::Apart(a), Source::InPlace),
        run(a, Source::InPlace, Source::InPlace),
    ]
}

/// `step` on every table and in place against the formula, which is exact or rounds as f32 does.
fn check(what: &str, step: Step<'_>, formula: impl Fn(f32, f32) -> f32) {
    let mut random = Random(what.len() as u64);
    for length in lengths(&mut random) {
        let (a, b) = (values(length, &mut random), values(length, &mut random));
        let expected: Vec<f32> = a.iter().zip(b.iter()).map(|(&a, &b)| formula(a, b)).collect();
        let alone: Vec<f32> = a.iter().map(|&a| formula(a, a)).collect();
        for (name, kernels) in Kernels::every() {
            let found = results(kernels, step, &a, &b);
            for found in &found[..3] {
                assert_same(&format!("{what}, {name}, {length}"), found, &expected);
            }
            assert_same(
                &format!("{what}, {name}, {length}, both in place"),
                &found[3],
                &alone,
            );
        }
    }
}

#[test]
fn sums_and_products_are_those_of_f32() {
    check("add", &|k, a, b, y| k.add(a, b, y), |a, b| a + b);
    check("mul", &|k, a, b, y| k.mul(a, b, y), |a, b| a * b);
    for factor in [0.0, -1.75, 1e30, f32::NAN] {
        check("scale", &|k, a, _, y| k.scale(factor, a, y), |a, _| factor * a);
        let mut random = Random(9);
        for length in lengths(&mut random) {
            let (x, y) = (values(length, &mut random), values(length, &mut random));
            let pairs = x.iter().zip(y.iter());
            let expected: Vec<f32> = pairs.map(|(&x, &y)| factor.mul_add(x, y)).collect();
            let doubled: Vec<f32> = y.iter().map(|&y| factor.mul_add(y, y)).collect();
            for (name, kernels) in Kernels::every() {
                let mut found = Guarded::of(&y);
                kernels.axpy(factor, Source::Apart(&x), &mut found);
                assert_same(&format!("axpy, {name}"), &found, &expected);
                let mut found = Guarded::of(&y);
                kernels.axpy(factor, Source::InPlace, &mut found);
                assert_same(&format!("axpy in place, {name}"), &found, &doubled);
            }
        }
    }
}

#[test]
fn functions_and_gates_do_not_depend_on_where_their_input_stands() {
    for function in [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::Exp,
        Activation::Tanh,
        Activation::Erf,
    ] {
        let one = |x: f32| {
            let mut lanes = [x; 16];
            scalar().activation(function, &mut lanes);
            lanes[0]
        };
        let name = format!("{function:?}");
        check(&name, &|k, a, _, y| k.apply(function, a, y), |a, _| one(a));
        check(&name, &|k, a, b, y| k.apply_gate(function, a, b, y), |a, b| {
            one(a) * b
        });
    }
}

#[test]
fn softmax_is_that_of_float64() {
    let mut random = Random(3);
    for length in lengths(&mut random).into_iter().filter(|&length| length > 0) {
        let mut x = Guarded::<f32>::new(length);
        let size = [0.1, 5.0, 200.0][random.within(0..=2)];
        x.iter_mut().for_each(|x| *x = random.signed() * size);
        if length > 1 && random.chance(2) {
            x[random.within(1..=length - 1)] = f32::NEG_INFINITY;
        }
        let mut found = Guarded::new(length);
        scalar().softmax(Source::Apart(&x), &mut found);
        let largest = x.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let weights: Vec<f64> = x
            .iter()
            .map(|&x| (f64::from(x) - f64::from(largest)).exp())
            .collect();
        let sum: f64 = weights.iter().sum();
        // e^x, the difference before it (whose rounding counts as much as it is large), the sum, the quotient.
        let bound = 4e-7 + (length as f64 / 32.0 + 400.0 * f64::from(size / 200.0)) * 6e-8;
        for (&found, weight) in found.iter().zip(&weights) {
            let error = (f64::from(found) - weight / sum).abs();
            assert!(
                error <= weight / sum * bound + 1e-44,
                "{found:e} for {:e}",
                weight / sum
            );
        }
        for (name, kernels) in others() {
            let mut other = Guarded::of(&x);
            kernels.softmax(Source::InPlace, &mut other);
            assert_same(&format!("softmax, {name}, {length}"), &other, &found);
        }
    }
}

#[test]
fn softmax_of_what_is_not_finite_is_nan() {
    for length in [1, 5, 16, 17, 33, 64] {
        for (name, kernels) in Kernels::every() {
            for at in 0..length {
                for special in [f32::NAN, f32::INFINITY] {
                    let mut x = vec![1.0; length];
                    x[at] = special;
                    kernels.softmax(Source::InPlace, &mut x);
                    assert!(
                        x.iter().all(|x| x.is_nan()),
                        "{name}: {special} at {at} of {length}"
                    );
                }
            }
            let mut x = vec![f32::NEG_INFINITY; length];
            kernels.softmax(Source::InPlace, &mut x);
            assert!(x.iter().all(|x| x.is_nan()), "{name}: -infinity, {length}");
        }
    }
}

#[test]
fn norms_are_the_same_in_place() {
    let mut random = Random(5);
    for length in lengths(&mut random).into_iter().filter(|&length| length > 0) {
        let x = values(length, &mut random);
        let (weight, bias) = (values(length, &mut random), values(length, &mut random));
        let mut rms = vec![0.0; length];
        scalar().rms_norm(&x, &weight, 1e-5, &mut rms);
        let mut layer = x.to_vec();
        scalar().layer_norm(&mut layer, &weight, &bias, 1e-5);
        for (name, kernels) in Kernels::every() {
            for in_place in [true, false] {
                let source = if in_place {
                    Source::InPlace
                } else {
                    Source::Apart(&x)
                };
                let mut y = Guarded::of(&x);
                kernels.rms_norm_from(source, &weight, 1e-5, &mut y);
                assert_same(&format!("RMS norm, {name}, {length}"), &y, &rms);
                let mut y = Guarded::of(&x);
                kernels.layer_norm_from(source, &weight, &bias, 1e-5, &mut y);
                assert_same(&format!("layer norm, {name}, {length}"), &y, &layer);
            }
        }
    }
}

#[test]
fn pairs_are_rotated_as_in_float64_and_nothing_else_is_touched() {
    let mut random = Random(6);
    for _ in 0..200 {
        let (half, count, gap) = (random.within(1..=130), random.within(1..=5), random.within(0..=9));
        let stride = 2 * half + gap;
        let mut x = Guarded::<f32>::new((count - 1) * stride + 2 * half);
        x.iter_mut().for_each(|x| *x = random.signed() * 10.0);
        let angles: Vec<f32> = (0..half).map(|_| random.signed() * 100.0).collect();
        let cosine = Guarded::of(&angles.iter().map(|angle| angle.cos()).collect::<Vec<f32>>());
        let sine = Guarded::of(&angles.iter().map(|angle| angle.sin()).collect::<Vec<f32>>());
        let mut found = Guarded::of(&x);
        scalar().rotate_pairs(&mut found, count, stride, &cosine, &sine);
        for (i, &found) in found.iter().enumerate() {
            let at = i % stride;
            if at >= 2 * half {
                assert_eq!(found.to_bits(), x[i].to_bits(), "between the vectors");
                continue;
            }
            let (k, first) = (at / 2, at % 2 == 0);
            let own = f64::from(x[i]) * f64::from(cosine[k]);
            let other = if first {
                -f64::from(x[i + 1])
            } else {
                f64::from(x[i - 1])
            };
            let other = other * f64::from(sine[k]);
            let bound = (own.abs() + 2.0 * other.abs()) * 2f64.powi(-23) + 1e-44;
            assert!((f64::from(found) - own - other).abs() <= bound, "{found:e}");
        }
        for (name, kernels) in others() {
            let mut other = Guarded::of(&x);
            kernels.rotate_pairs(&mut other, count, stride, &cosine, &sine);
            assert_same(name, &other, &found);
        }
    }
}

#[test]
fn every_half_is_widened_as_one_by_one() {
    let stored: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    for (name, kernels) in Kernels::every() {
        for (dtype, convert) in [
            (DataType::F16, f16_to_f32 as fn(u16) -> f32),
            (DataType::BF16, bf16_to_f32),
        ] {
            let mut found = vec![0.0; 1 << 16];
            assert!(kernels.widen(dtype, &stored, &mut found));
            for (bits, found) in (0..=u16::MAX).zip(&found) {
                assert_eq!(
                    found.to_bits(),
                    convert(bits).to_bits(),
                    "{name}: {} {bits:#x}",
                    dtype.name()
                );
            }
        }
        assert!(!kernels.widen(DataType::F32, &stored, &mut []));
    }
}

#[test]
fn floats_are_rounded_to_halves_as_one_by_one() {
    // All exponents with the mantissas around the ties, then some of any kind.
    let mut bits: Vec<u32> = Vec::new();
    for upper in 0..=u16::MAX {
        for lower in [0u16, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff] {
            bits.push(u32::from(upper) << 16 | u32::from(lower));
        }
    }
    let mut random = Random(7);
    bits.extend((0..100_000).map(|_| random.bits() as u32));
    let values: Vec<f32> = bits.iter().map(|&bits| f32::from_bits(bits)).collect();
    for (name, kernels) in Kernels::every() {
        for (dtype, convert) in [
            (DataType::F16, f32_to_f16 as fn(f32) -> u16),
            (DataType::BF16, f32_to_bf16),
        ] {
            let mut found = vec![0; 2 * values.len()];
            assert!(kernels.narrow(dtype, &values, &mut found));
            for (value, found) in values.iter().zip(found.as_chunks::<2>().0) {
                let found = u16::from_le_bytes(*found);
                let expected = convert(*value);
                assert_eq!(
                    found,
                    expected,
                    "{name}: {:#x} as {}",
                    value.to_bits(),
                    dtype.name()
                );
            }
        }
    }
}

#[test]
fn halves_end_where_they_end_at_any_alignment() {
    let mut random = Random(8);
    for length in 0..70 {
        let values = values(length, &mut random);
        for dtype in [DataType::F16, DataType::BF16] {
            for (name, kernels) in Kernels::every() {
                // An odd length before the end of the page: nothing is aligned.
                let mut bytes = Guarded::<u8>::new(2 * length + 1);
                bytes.fill(0xa5);
                kernels.narrow(dtype, &values, &mut bytes[1..]);
                assert_eq!(bytes[0], 0xa5, "{name}");
                let mut expected = vec![0; 2 * length];
                scalar().narrow(dtype, &values, &mut expected);
                assert_eq!(bytes[1..], expected, "{name}");
                let mut wide = Guarded::<f32>::new(length);
                kernels.widen(dtype, &bytes[1..], &mut wide);
                let mut expected = vec![0.0; length];
                scalar().widen(dtype, &bytes[1..], &mut expected);
                assert_same(name, &wide, &expected);
            }
        }
    }
}
