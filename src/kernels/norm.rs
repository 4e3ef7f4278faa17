//! Norms that the encoders need; the plain RMS norm is in `math.rs`.

use super::math::sum_of_squares;
use super::simd::{LANES, Simd};

/// `x += y / sqrt(mean(y^2) + epsilon) * weight`: the norm behind a layer, and the residual addition.
///
/// # Safety
/// `length` values can be read at `y` and `weight`, read and written at `x`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn add_rms_norm<S: Simd>(
    y: *const f32,
    weight: *const f32,
    length: usize,
    epsilon: f32,
    x: *mut f32,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let mean = sum_of_squares::<S>(y, length) / length as f32;
        let factor = S::splat(1.0 / (mean + epsilon).sqrt());
        let whole = length / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            let scaled = S::mul(S::load(y.add(i)), factor);
            let sum = S::fma(scaled, S::load(weight.add(i)), S::load(x.add(i)));
            S::store(x.add(i), sum);
        }
        if whole < length {
            let rest = length - whole;
            let scaled = S::mul(S::load_partial(y.add(whole), rest), factor);
            let weight = S::load_partial(weight.add(whole), rest);
            let sum = S::fma(scaled, weight, S::load_partial(x.add(whole), rest));
            S::store_partial(x.add(whole), sum, rest);
        }
    }
}

/// `y = (x - mean) / sqrt(variance + epsilon) * weight + bias`; `y` may be `x`. The variance is taken around the mean,
/// in a second pass, so that a large mean costs no digits.
///
/// # Safety
/// `length` values can be read at `x`, `weight` and `bias` and written at `y`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn layer_norm<S: Simd>(
    x: *const f32,
    weight: *const f32,
    bias: *const f32,
    length: usize,
    epsilon: f32,
    y: *mut f32,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let whole = length / LANES * LANES;
        let rest = length - whole;
        let mut sum = S::splat(0.0);
        for i in (0..whole).step_by(LANES) {
            sum = S::add(sum, S::load(x.add(i)));
        }
        if rest > 0 {
            sum = S::add(sum, S::load_partial(x.add(whole), rest));
        }
        let mean = S::splat(S::reduce_add(sum) / length as f32);
        let mut squares = S::splat(0.0);
        for i in (0..whole).step_by(LANES) {
            let d = S::sub(S::load(x.add(i)), mean);
            squares = S::fma(d, d, squares);
        }
        if rest > 0 {
            let d = S::sub(S::load_partial(x.add(whole), rest), mean);
            // Lanes behind the end hold -mean; storing and loading part of them leaves zeros there.
            let mut lanes = [0f32; LANES];
            S::store_partial(lanes.as_mut_ptr(), d, rest);
            let d = S::load(lanes.as_ptr());
            squares = S::fma(d, d, squares);
        }
        let variance = S::reduce_add(squares) / length as f32;
        let factor = S::splat(1.0 / (variance + epsilon).sqrt());
        for i in (0..whole).step_by(LANES) {
            let scaled = S::mul(S::sub(S::load(x.add(i)), mean), factor);
            let value = S::fma(scaled, S::load(weight.add(i)), S::load(bias.add(i)));
            S::store(y.add(i), value);
        }
        if rest > 0 {
            let scaled = S::mul(S::sub(S::load_partial(x.add(whole), rest), mean), factor);
            let weight = S::load_partial(weight.add(whole), rest);
            let value = S::fma(scaled, weight, S::load_partial(bias.add(whole), rest));
            S::store_partial(y.add(whole), value, rest);
        }
    }
}
