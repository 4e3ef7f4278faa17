//! The activations and norms of encoders: against float64, with the same bits on every instruction set.
#![allow(clippy::type_complexity, clippy::needless_range_loop)]

mod kernels_support;

use kernels_support::*;
use mantle::kernels::Kernels;
use mantle::kernels::activation::Activation;

/// Values of a normal range, of both signs.
fn numbers(length: usize, scale: f32, random: &mut Random) -> Guarded<f32> {
    let values: Vec<f32> = (0..length).map(|_| random.signed() * scale).collect();
    Guarded::of(&values)
}

/// 0.5 x (1 + erf(x / sqrt 2)) by the complementary function, which keeps its digits for negative x.
fn gelu_erf(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x / std::f64::consts::SQRT_2)
}

fn gelu_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + inner.tanh())
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

const ALL: [(Activation, fn(f64) -> f64); 3] = [
    (Activation::Silu, silu),
    (Activation::GeluTanh, gelu_tanh),
    (Activation::GeluErf, gelu_erf),
];

#[test]
fn activations_are_within_two_millionths_of_float64() {
    let x: Vec<f32> = (-1_500_000..=1_500_000).map(|i| i as f32 * 1e-5).collect();
    for (activation, exact) in ALL {
        let mut found = x.clone();
        scalar().activation(activation, &mut found);
        let mut largest = 0f64;
        for (&x, &found) in x.iter().zip(&found) {
            let error = (f64::from(found) - exact(f64::from(x))).abs();
            largest = largest.max(error);
        }
        assert!(largest <= 2e-6, "{activation:?}: {largest:e}");
    }
}

#[test]
fn far_away_gelu_is_zero_or_its_input_and_nan_stays() {
    for activation in [Activation::GeluTanh, Activation::GeluErf] {
        let mut x = [
            -1e30,
            -1e4,
            -50.0,
            -0.0,
            0.0,
            50.0,
            1e4,
            1e30,
            f32::INFINITY,
            f32::NAN,
        ];
        scalar().activation(activation, &mut x);
        for i in 0..5 {
            assert_eq!(x[i], 0.0, "{activation:?} {i}");
        }
        for (i, expected) in [(5, 50.0f32), (6, 1e4), (7, 1e30)] {
            assert!(
                (x[i] - expected).abs() <= expected * 2.4e-7,
                "{activation:?} {}",
                x[i]
            );
        }
        assert_eq!(x[8], f32::INFINITY);
        assert!(x[9].is_nan());
    }
}

#[test]
fn every_instruction_set_gives_the_same_activations() {
    let mut random = Random(7);
    for length in (1..70).chain([1000, 1152]) {
        let x = numbers(length, 8.0, &mut random);
        let up = numbers(length, 3.0, &mut random);
        for (activation, _) in ALL {
            let (mut alone, mut gated) = (Guarded::of(&x), Guarded::of(&x));
            scalar().activation(activation, &mut alone);
            scalar().gate(activation, &mut gated, &up);
            for (i, (&alone, &gated)) in alone.iter().zip(gated.iter()).enumerate() {
                assert_eq!((alone * up[i]).to_bits(), gated.to_bits());
            }
            for (name, kernels) in others() {
                let mut found = Guarded::of(&x);
                kernels.activation(activation, &mut found);
                assert_same(name, &found, &alone);
                let mut found = Guarded::of(&x);
                kernels.gate(activation, &mut found, &up);
                assert_same(name, &found, &gated);
            }
        }
    }
}

#[test]
fn layer_norm_is_that_of_float64() {
    let mut random = Random(8);
    for length in [1, 2, 15, 16, 17, 31, 33, 384, 385, 768, 1024] {
        for shift in [0.0, 100.0] {
            let x: Vec<f32> = numbers(length, 4.0, &mut random)
                .iter()
                .map(|x| x + shift)
                .collect();
            let (weight, bias) = (
                numbers(length, 2.0, &mut random),
                numbers(length, 1.0, &mut random),
            );
            let mut expected = Guarded::of(&x);
            scalar().layer_norm(&mut expected, &weight, &bias, 1e-12);
            let count = length as f64;
            let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
            let variance = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
            for (i, &found) in expected.iter().enumerate() {
                let unit = (f64::from(x[i]) - mean) / (variance + 1e-12).sqrt();
                let exact = unit * f64::from(weight[i]) + f64::from(bias[i]);
                let bound = if length > 1 { 1e-4 } else { 2.0 };
                assert!(
                    (f64::from(found) - exact).abs() < bound,
                    "{found} for {exact}, {length}"
                );
            }
            for (name, kernels) in others() {
                let mut found = Guarded::of(&x);
                kernels.layer_norm(&mut found, &weight, &bias, 1e-12);
                assert_same(name, &found, &expected);
            }
        }
    }
}

#[test]
fn the_norm_behind_a_layer_is_added() {
    let mut random = Random(9);
    for length in [1, 15, 16, 64, 100, 768] {
        let (x, y) = (
            numbers(length, 4.0, &mut random),
            numbers(length, 9.0, &mut random),
        );
        let weight = numbers(length, 2.0, &mut random);
        let squares = y.iter().map(|&y| f64::from(y).powi(2)).sum::<f64>() / length as f64;
        let mut expected = Guarded::of(&x);
        scalar().add_rms_norm(&y, &weight, 1e-6, &mut expected);
        for (i, &found) in expected.iter().enumerate() {
            let unit = f64::from(y[i]) / (squares + 1e-6).sqrt();
            let exact = f64::from(x[i]) + unit * f64::from(weight[i]);
            assert!((f64::from(found) - exact).abs() < 1e-5, "{found} for {exact}");
        }
        for (name, kernels) in others() {
            let mut found = Guarded::of(&x);
            kernels.add_rms_norm(&y, &weight, 1e-6, &mut found);
            assert_same(name, &found, &expected);
        }
        // The heads of a row are normalized each by itself.
        let mut heads = Guarded::of(&[&y[..], &x[..]].concat());
        Kernels::rms_norm_each(scalar(), &mut heads, &weight, 1e-6);
        let mut alone = vec![0.0; length];
        scalar().rms_norm(&x, &weight, 1e-6, &mut alone);
        assert_same("heads", &heads[length..], &alone);
    }
}
