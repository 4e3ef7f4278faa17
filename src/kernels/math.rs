//! Element-wise functions and norms.

use super::simd::{LANES, Simd};
use super::vector::narrow;
use crate::quant::packed::BLOCK;

/// e^x. Relative error at most 2e-7; 0 below -103.97, infinity above 88.73, NaN for NaN.
///
/// x = n ln 2 + r, |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7, whose remainder is below 2^-25;
/// ln 2 in two parts (Cody and Waite) keeps r exact; the scale 2^n in two factors reaches the denormals.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::F) -> S::F {
    // SAFETY: register operations only.
    unsafe {
        let low = S::splat(-104.0);
        let high = S::splat(89.0);
        // Not through `max`, which would turn NaN into a number.
        let x = S::select_less(x, low, low, S::select_less(high, x, high, x));
        let n = S::to_int(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let whole = S::to_float(n);
        let r = S::fma(whole, S::splat(-355.0 / 512.0), x);
        let r = S::fma(whole, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.0 / 5040.0);
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = S::fma(p, r, S::splat(coefficient));
        }
        let half = S::shift_right_signed::<1>(n);
        S::mul(
            S::mul(p, power_of_two::<S>(half)),
            power_of_two::<S>(S::int_sub(n, half)),
        )
    }
}

/// 2^n for -126 <= n <= 127.
#[inline(always)]
unsafe fn power_of_two<S: Simd>(n: S::I) -> S::F {
    // SAFETY: register operations only.
    unsafe { S::from_bits(S::shift_left::<23>(S::int_add(n, S::int_splat(127)))) }
}

/// x / (1 + e^-x).
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn silu<S: Simd>(x: S::F) -> S::F {
    // SAFETY: register operations only.
    unsafe {
        let one = S::splat(1.0);
        S::div(x, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
    }
}

/// Sum of squares of `length` values, in 16 lanes and one fixed tree.
#[inline(always)]
pub(super) unsafe fn sum_of_squares<S: Simd>(x: *const f32, length: usize) -> f32 {
    // SAFETY: `length` values can be read.
    unsafe {
        let mut sum = S::splat(0.0);
        let whole = length / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            let v = S::load(x.add(i));
            sum = S::fma(v, v, sum);
        }
        if whole < length {
            let v = S::load_partial(x.add(whole), length - whole);
            sum = S::fma(v, v, sum);
        }
        S::reduce_add(sum)
    }
}

/// `y = x / sqrt(mean(x^2) + epsilon) * weight`; `y` may be `x`.
///
/// # Safety
/// `length` values can be read at `x` and `weight` and written at `y`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn rms_norm<S: Simd>(x: *const f32, weight: *const f32, length: usize, epsilon: f32, y: *mut f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let mean = sum_of_squares::<S>(x, length) / length as f32;
        let factor = S::splat(1.0 / (mean + epsilon).sqrt());
        let whole = length / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            let scaled = S::mul(S::load(x.add(i)), factor);
            S::store(y.add(i), S::mul(scaled, S::load(weight.add(i))));
        }
        if whole < length {
            let rest = length - whole;
            let scaled = S::mul(S::load_partial(x.add(whole), rest), factor);
            S::store_partial(
                y.add(whole),
                S::mul(scaled, S::load_partial(weight.add(whole), rest)),
                rest,
            );
        }
    }
}

/// Rounds one row of activations to bf16 (nearest even, NaN stays NaN), padded with zeros to whole blocks.
///
/// # Safety
/// `length` values can be read at `x` and whole blocks written at `to`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn bf16_row<S: Simd>(x: *const f32, length: usize, to: *mut u16) {
    // SAFETY: as the caller promises.
    unsafe {
        narrow::<S, false>(x, length, to.cast());
        to.add(length)
            .write_bytes(0, length.next_multiple_of(BLOCK) - length);
    }
}

/// Rotates the two halves of `count` vectors of `2 * half` values each, `stride` apart, by the angles of one position:
/// `(a, b) -> (a cos - b sin, b cos + a sin)`.
///
/// # Safety
/// The vectors can be read and written, `half` values of `cosine` and `sine` be read; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn rotate_halves<S: Simd>(
    x: *mut f32,
    count: usize,
    stride: usize,
    half: usize,
    cosine: *const f32,
    sine: *const f32,
) {
    // SAFETY: as the caller promises.
    unsafe {
        for vector in 0..count {
            let (low, high) = (x.add(vector * stride), x.add(vector * stride + half));
            let whole = half / LANES * LANES;
            for i in (0..whole).step_by(LANES) {
                let (c, s) = (S::load(cosine.add(i)), S::load(sine.add(i)));
                let (a, b) = rotate::<S>(S::load(low.add(i)), S::load(high.add(i)), c, s);
                S::store(low.add(i), a);
                S::store(high.add(i), b);
            }
            if whole < half {
                let n = half - whole;
                let (c, s) = (
                    S::load_partial(cosine.add(whole), n),
                    S::load_partial(sine.add(whole), n),
                );
                let (a, b) = (
                    S::load_partial(low.add(whole), n),
                    S::load_partial(high.add(whole), n),
                );
                let (a, b) = rotate::<S>(a, b, c, s);
                S::store_partial(low.add(whole), a, n);
                S::store_partial(high.add(whole), b, n);
            }
        }
    }
}

/// `(a c - b s, b c + a s)`; the product that is not fused is rounded first, on every CPU.
#[inline(always)]
unsafe fn rotate<S: Simd>(a: S::F, b: S::F, c: S::F, s: S::F) -> (S::F, S::F) {
    // SAFETY: register operations only.
    unsafe {
        let zero = S::splat(0.0);
        (
            S::fma(a, c, S::sub(zero, S::mul(b, s))),
            S::fma(b, c, S::mul(a, s)),
        )
    }
}

/// Turns one row of scores into e^(score - max), in place; returns the maximum and the sum.
/// Scores outside `first..valid`, up to `padded` (a multiple of 16), become 0; `first < valid`.
///
/// # Safety
/// `padded` values can be read and written; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn softmax_part<S: Simd>(
    scores: *mut f32,
    first: usize,
    valid: usize,
    padded: usize,
) -> (f32, f32) {
    // SAFETY: as the caller promises.
    unsafe {
        for i in (0..first).chain(valid..padded) {
            *scores.add(i) = f32::NEG_INFINITY;
        }
        let mut largest = S::splat(f32::NEG_INFINITY);
        for i in (0..padded).step_by(LANES) {
            largest = S::max(largest, S::load(scores.add(i)));
        }
        let largest = S::reduce_max(largest);
        let shift = S::splat(largest);
        let mut sum = S::splat(0.0);
        for i in (0..padded).step_by(LANES) {
            let score = S::load(scores.add(i));
            let p = exp::<S>(S::sub(score, shift));
            S::store(scores.add(i), p);
            sum = S::add(sum, p);
        }
        (largest, S::reduce_add(sum))
    }
}
