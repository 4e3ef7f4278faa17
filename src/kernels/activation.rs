//! Element-wise functions: activations of feed-forward networks, alone and as gates, and what they are made of.
//!
//! Both forms of GELU are x * h(x) with h(x) - 1/2 odd and almost constant beyond 5, so each is one polynomial:
//! h = 1/2 + u P(s), u = x cut to [-c, c], s = 2 u^2 / c^2 - 1. P is the least maximum error fit in Chebyshev
//! polynomials of s (Lawson's weights), written out in powers of s, which are harmless on [-1, 1]. Measured against
//! float64: `docs/accuracy.md`.

use super::math::{exp, silu};
use super::simd::{LANES, Simd};

/// An element-wise function, such as a feed-forward network applies to its hidden values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Activation {
    /// x / (1 + e^-x).
    Silu = 0,
    /// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
    GeluTanh = 1,
    /// x/2 (1 + erf(x / sqrt(2))).
    GeluErf = 2,
    /// e^x.
    Exp = 3,
    /// The hyperbolic tangent.
    Tanh = 4,
    /// The error function.
    Erf = 5,
}

/// An element-wise function of 16 values.
pub trait Elementwise: 'static {
    /// The function.
    ///
    /// # Safety
    /// The CPU has the instructions of `S`.
    unsafe fn apply<S: Simd>(x: S::F) -> S::F;
}

/// See [`Activation::Silu`].
pub struct Silu;
/// See [`Activation::GeluTanh`].
pub struct GeluTanh;
/// See [`Activation::GeluErf`].
pub struct GeluErf;
/// See [`Activation::Exp`].
pub struct Exp;
/// See [`Activation::Tanh`].
pub struct Tanh;
/// See [`Activation::Erf`].
pub struct Erf;

#[allow(clippy::undocumented_unsafe_blocks)] // The trait's promise.
impl Elementwise for Exp {
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::F) -> S::F {
        unsafe { exp::<S>(x) }
    }
}

/// Up to 0.625, x + x s P(s) with s = x^2, P the fit of least maximum error; beyond, 1 - 2 / (e^2|x| + 1).
#[allow(clippy::undocumented_unsafe_blocks)] // The trait's promise.
impl Elementwise for Tanh {
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::F) -> S::F {
        const P: [f32; 6] = [
            0.002_142_957_2,
            -0.008_177_393,
            0.021_700_7,
            -0.053_946_763,
            0.133_332_06,
            -0.333_333_3,
        ];
        unsafe {
            let magnitude = absolute::<S>(x);
            let one = S::splat(1.0);
            let raised = S::add(exp::<S>(S::add(magnitude, magnitude)), one);
            let far = S::sub(one, S::div(S::splat(2.0), raised));
            let s = S::mul(x, x);
            let near = S::fma(S::mul(magnitude, s), polynomial::<S, 6>(s, &P), magnitude);
            with_sign_of::<S>(S::select_less(magnitude, S::splat(0.625), near, far), x)
        }
    }
}

/// Up to 1, x + x P(x^2); beyond, 1 - e^Q(|x|), where Q approximates ln(1 - erf). Both are fits of least maximum error.
#[allow(clippy::undocumented_unsafe_blocks)] // The trait's promise.
impl Elementwise for Erf {
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::F) -> S::F {
        const P: [f32; 7] = [
            7.853_848e-5,
            -0.000_801_019,
            0.005_188_327_3,
            -0.026_853_811,
            0.112_835_854,
            -0.376_126_26,
            0.128_379_17,
        ];
        const Q: [f32; 7] = [
            0.000_186_380_36,
            -0.002_947_669_7,
            0.021_838_108,
            -0.103_106_85,
            -0.638_144_73,
            -1.127_089_3,
            -0.000_341_507_75,
        ];
        unsafe {
            let magnitude = absolute::<S>(x);
            // 1 - erf(4) is below half a step of f32 at 1. A NaN is kept.
            let t = S::select_less(S::splat(4.0), magnitude, S::splat(4.0), magnitude);
            let far = S::sub(S::splat(1.0), exp::<S>(polynomial::<S, 7>(t, &Q)));
            let near = S::fma(magnitude, polynomial::<S, 7>(S::mul(x, x), &P), magnitude);
            with_sign_of::<S>(S::select_less(magnitude, S::splat(1.0), near, far), x)
        }
    }
}

/// |x|.
#[inline(always)]
unsafe fn absolute<S: Simd>(x: S::F) -> S::F {
    // SAFETY: register operations only.
    unsafe { S::from_bits(S::int_and(S::bits(x), S::int_splat(0x7fff_ffff))) }
}

/// `value`, which is not negative, with the sign of `sign`.
#[inline(always)]
unsafe fn with_sign_of<S: Simd>(value: S::F, sign: S::F) -> S::F {
    // SAFETY: register operations only.
    unsafe {
        S::from_bits(S::int_or(
            S::bits(value),
            S::int_and(S::bits(sign), S::int_splat(i32::MIN)),
        ))
    }
}

/// The polynomial of these coefficients, that of the highest power first.
#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(x: S::F, coefficients: &[f32; N]) -> S::F {
    // SAFETY: register operations only.
    unsafe {
        let mut p = S::splat(coefficients[0]);
        for &coefficient in &coefficients[1..] {
            p = S::fma(p, x, S::splat(coefficient));
        }
        p
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // The trait's promise.
impl Elementwise for Silu {
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::F) -> S::F {
        unsafe { silu::<S>(x) }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // The trait's promise.
impl Elementwise for GeluTanh {
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::F) -> S::F {
        const P: [f32; 13] = [
            0.000_623_829_8,
            -0.002_036_428_5,
            0.002_686_548_7,
            -0.003_062_696,
            0.005_711_384_6,
            -0.010_435_254,
            0.016_072_713,
            -0.023_031_913,
            0.031_340_525,
            -0.040_538_948,
            0.051_657_66,
            -0.070_365_936,
            0.141_378_5,
        ];
        unsafe { odd_step::<S, 13>(x, 5.0, &P) }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)] // The trait's promise.
#[allow(clippy::excessive_precision)] // As fitted; the compiler rounds.
impl Elementwise for GeluErf {
    #[inline(always)]
    unsafe fn apply<S: Simd>(x: S::F) -> S::F {
        const P: [f32; 13] = [
            0.000_863_386_8,
            -0.002_512_416_1,
            0.002_847_405_8,
            -0.003_488_042_4,
            0.007_558_521_3,
            -0.013_116_003,
            0.018_389_037,
            -0.024_589_587,
            0.031_906_504,
            -0.039_941_747,
            0.050_030_246,
            -0.067_743_39,
            0.135_949_92,
        ];
        unsafe { odd_step::<S, 13>(x, 5.2, &P) }
    }
}

/// x h(x), see above; 0 below `-cut`. NaN stays NaN.
#[inline(always)]
unsafe fn odd_step<S: Simd, const N: usize>(x: S::F, cut: f32, coefficients: &[f32; N]) -> S::F {
    // SAFETY: register operations only.
    unsafe {
        let (low, high) = (S::splat(-cut), S::splat(cut));
        let u = S::select_less(x, low, low, S::select_less(high, x, high, x));
        let s = S::fma(S::mul(u, u), S::splat(2.0 / (cut * cut)), S::splat(-1.0));
        let h = S::fma(u, polynomial::<S, N>(s, coefficients), S::splat(0.5));
        S::mul(x, S::select_less(x, low, S::splat(0.0), h))
    }
}

/// `y = f(x)` over `length` values; `y` may be `x`.
///
/// # Safety
/// `length` values can be read and written; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn map<S: Simd, A: Elementwise>(x: *const f32, length: usize, y: *mut f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let whole = length / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            S::store(y.add(i), A::apply::<S>(S::load(x.add(i))));
        }
        if whole < length {
            let rest = length - whole;
            let value = A::apply::<S>(S::load_partial(x.add(whole), rest));
            S::store_partial(y.add(whole), value, rest);
        }
    }
}

/// `y = f(gate) * up` over `length` values; `y` may be one of the inputs.
///
/// # Safety
/// `length` values can be read and written; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn gate<S: Simd, A: Elementwise>(gate: *const f32, up: *const f32, length: usize, y: *mut f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let whole = length / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            let value = A::apply::<S>(S::load(gate.add(i)));
            S::store(y.add(i), S::mul(value, S::load(up.add(i))));
        }
        if whole < length {
            let rest = length - whole;
            let value = A::apply::<S>(S::load_partial(gate.add(whole), rest));
            let value = S::mul(value, S::load_partial(up.add(whole), rest));
            S::store_partial(y.add(whole), value, rest);
        }
    }
}
