//! How exact the element-wise functions are, against float64 over the bit patterns of all finite f32, and that every
//! instruction set gives the same bits. The bounds here are those of docs/accuracy.md.
//!
//! By itself the test takes every 331st pattern. Every one (some minutes), with the figures of the document:
//!
//!     MANTLE_SWEEP_STRIDE=1 cargo test --release --test accuracy -- --nocapture

#![allow(clippy::unwrap_used)] // Outside of test functions too, a failure should end the test.

mod kernels_support;

use kernels_support::*;
use mantle::kernels::activation::Activation;
use mantle::kernels::simd::LANES;
use mantle::kernels::{Isa, Kernels};
use std::sync::Mutex;

fn stride(otherwise: u32) -> u32 {
    std::env::var("MANTLE_SWEEP_STRIDE")
        .ok()
        .and_then(|stride| stride.parse().ok())
        .unwrap_or(otherwise)
}

type Lanes = [f32; LANES];

/// Calls `check` with vectors of values of all exponents and both signs, NaN and infinity among them, on two threads.
fn sweep(stride: u32, check: impl Fn(&Lanes) + Sync) {
    std::thread::scope(|scope| {
        for sign in [0, 0x8000_0000] {
            let check = &check;
            scope.spawn(move || {
                let mut magnitudes = (0..=0x7fff_ffff_u32).step_by(stride as usize).peekable();
                while magnitudes.peek().is_some() {
                    // The last vector is filled up with NaN.
                    check(&std::array::from_fn(|_| {
                        f32::from_bits(magnitudes.next().unwrap_or(0x7fff_ffff) | sign)
                    }));
                }
            });
        }
    });
}

/// The largest error of a kind, and where.
#[derive(Clone, Copy, Default)]
struct Worst {
    error: f64,
    at: f32,
}

impl Worst {
    fn note(&mut self, error: f64, at: f32) {
        if error > self.error {
            *self = Worst { error, at };
        }
    }

    fn merge(&mut self, other: Worst) {
        self.note(other.error, other.at);
    }
}

/// The largest relative error over the inputs that `relative` chooses, and the largest absolute error over the others. An
/// infinite result is right where the exact value rounds to it, and NaN gives NaN.
fn largest_errors(
    function: Activation,
    exact: impl Fn(f64) -> f64 + Sync,
    relative: impl Fn(f32, f64) -> bool + Sync,
) -> (Worst, Worst) {
    let kernels = Kernels::of(Isa::best()).unwrap();
    let largest = Mutex::new((Worst::default(), Worst::default()));
    sweep(stride(331), |x| {
        let mut y = *x;
        kernels.activation(function, &mut y);
        let mut worst = (Worst::default(), Worst::default());
        for (&x, &y) in x.iter().zip(&y) {
            let expected = exact(f64::from(x));
            if x.is_nan() {
                assert!(y.is_nan(), "{function:?}(NaN) is {y:e}");
            } else if x.is_infinite() {
                // docs/determinism.md tells what becomes of it.
            } else if expected.abs() > f64::from(f32::MAX) * (1.0 + 1e-7) {
                assert!(same(y, expected as f32), "{function:?}({x:e}) is {y:e}");
            } else if relative(x, expected) {
                let error = (f64::from(y) - expected).abs() / expected.abs();
                assert!(!error.is_nan(), "{function:?}({x:e}) is {y:e} for {expected:e}");
                worst.0.note(error, x);
            } else {
                let error = (f64::from(y) - expected).abs();
                assert!(!error.is_nan(), "{function:?}({x:e}) is {y:e} for {expected:e}");
                worst.1.note(error, x);
            }
        }
        let mut largest = largest.lock().unwrap();
        largest.0.merge(worst.0);
        largest.1.merge(worst.1);
    });
    let (relative, absolute) = largest.into_inner().unwrap();
    for (kind, worst) in [("relative", relative), ("absolute", absolute)] {
        println!(
            "{function:?}: largest {kind} error {:.3e} at {:e} ({:#010x})",
            worst.error,
            worst.at,
            worst.at.to_bits()
        );
    }
    (relative, absolute)
}

/// Results that are normal numbers.
fn normal(_: f32, expected: f64) -> bool {
    expected.abs() >= f64::from(f32::MIN_POSITIVE)
}

#[track_caller]
fn check((relative, absolute): (Worst, Worst), most_relative: f64, most_absolute: f64) {
    assert!(
        relative.error <= most_relative,
        "{:e} at {:e}",
        relative.error,
        relative.at
    );
    assert!(
        absolute.error <= most_absolute,
        "{:e} at {:e}",
        absolute.error,
        absolute.at
    );
}

#[test]
fn exp_is_within_its_error_for_every_f32() {
    check(largest_errors(Activation::Exp, f64::exp, normal), 1e-7, 1.5e-45);
}

#[test]
fn tanh_is_within_its_error_for_every_f32() {
    check(largest_errors(Activation::Tanh, f64::tanh, normal), 2e-7, 1.5e-45);
}

#[test]
fn erf_is_within_its_error_for_every_f32() {
    check(largest_errors(Activation::Erf, libm::erf, normal), 2e-7, 1.5e-45);
}

#[test]
fn silu_is_within_its_error_for_every_f32() {
    // Below -88.73, e^-x is infinite and the result -0 instead of at most 2.6e-37 in magnitude.
    let exact = |x: f64| x / (1.0 + (-x).exp());
    let large = |_, expected: f64| expected.abs() > 3e-37;
    check(largest_errors(Activation::Silu, exact, large), 2e-7, 3e-37);
}

/// GELU goes to 0 on the left as the difference of two numbers near 1/2: left of `bend` the error is absolute.
fn right_of(bend: f32) -> impl Fn(f32, f64) -> bool {
    move |x, expected| x > bend && normal(x, expected)
}

#[test]
fn gelu_in_its_tanh_form_is_within_its_error_for_every_f32() {
    let exact =
        |x: f64| x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
    check(
        largest_errors(Activation::GeluTanh, exact, right_of(-0.5)),
        2e-6,
        1e-6,
    );
}

#[test]
fn gelu_in_its_exact_form_is_within_its_error_for_every_f32() {
    let exact = |x: f64| x / 2.0 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    check(
        largest_errors(Activation::GeluErf, exact, right_of(0.0)),
        2.4e-6,
        1.3e-6,
    );
}

#[test]
fn every_table_gives_the_same_bits() {
    for function in [
        Activation::Silu,
        Activation::GeluTanh,
        Activation::GeluErf,
        Activation::Exp,
        Activation::Tanh,
        Activation::Erf,
    ] {
        sweep(stride(8191), |x| {
            let mut expected = *x;
            scalar().activation(function, &mut expected);
            for (name, kernels) in others() {
                let mut y = *x;
                kernels.activation(function, &mut y);
                assert_same(&format!("{function:?}, {name}"), &y, &expected);
            }
        });
    }
}

#[test]
fn functions_have_their_limits() {
    let infinity = f32::INFINITY;
    for (function, x, expected) in [
        (Activation::Exp, 0.0, 1.0),
        (Activation::Exp, -0.0, 1.0),
        (Activation::Exp, 89.0, infinity),
        (Activation::Exp, infinity, infinity),
        (Activation::Exp, f32::MAX, infinity),
        (Activation::Exp, -103.98, 0.0),
        (Activation::Exp, -infinity, 0.0),
        (Activation::Exp, f32::NAN, f32::NAN),
        (Activation::Tanh, 0.0, 0.0),
        (Activation::Tanh, -0.0, -0.0),
        (Activation::Tanh, infinity, 1.0),
        (Activation::Tanh, -infinity, -1.0),
        (Activation::Erf, -0.0, -0.0),
        (Activation::Erf, infinity, 1.0),
        (Activation::Erf, -infinity, -1.0),
        (Activation::Silu, infinity, infinity),
        (Activation::Silu, -infinity, f32::NAN),
        (Activation::Silu, -100.0, -0.0),
        (Activation::GeluTanh, infinity, infinity),
        (Activation::GeluTanh, -infinity, f32::NAN),
        (Activation::GeluErf, infinity, infinity),
        (Activation::GeluErf, -infinity, f32::NAN),
    ] {
        for (name, kernels) in Kernels::every() {
            let mut y = [x; LANES];
            kernels.activation(function, &mut y);
            assert_same(&format!("{function:?}({x}), {name}"), &y, &[expected; LANES]);
        }
    }
}
