//! Element-wise functions, norms and the quantization of activations.

use super::simd::{LANES, Simd};
use super::vector::narrow;
use crate::quant::activations::{BIASES, SUMS, SUPER_BLOCK, Spike};
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

/// 16 of `length` values from `at` on, zeros behind the end.
#[inline(always)]
unsafe fn load_padded<S: Simd>(x: *const f32, at: usize, length: usize) -> S::F {
    // SAFETY: reads below `length` only.
    unsafe {
        if at + LANES <= length {
            S::load(x.add(at))
        } else {
            S::load_partial(x.add(at.min(length)), length.saturating_sub(at))
        }
    }
}

/// Below this, 127 / absmax would leave the range of f32; such a block is taken as zero.
const TINY: i32 = 0x0400_0000; // 1.5e-36

/// Quantizes one row of activations, block of 32 after block: `scale = absmax / 127.3`, codes rounded to nearest
/// even, `biases = -128 * sum of codes` of the block, of its first and of its last 16 inputs, `sums = scale * sum of
/// codes` of the block and of its first 16. The last block is padded with zeros. In every super-block of 256 inputs, the group of four that would coarsen its block the
/// most is taken out (its codes there are zero) and gets codes and a scale of its own: a [`Spike`].
///
/// A block whose absmax is below 1.5e-36 counts as zero. A block with a NaN or an infinity gets the
/// scale NaN, so that every output made from it is NaN.
///
/// # Safety
/// `length` values can be read at `x`; `codes` takes whole blocks, `biases` [`BIASES`] values a block, `sums` [`SUMS`], `scales` one,
/// `spikes` one a super-block; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn quantize_row<S: Simd>(
    x: *const f32,
    length: usize,
    codes: *mut i8,
    scales: *mut f32,
    biases: *mut i32,
    sums: *mut f32,
    spikes: *mut Spike,
) {
    // SAFETY: as the caller promises.
    unsafe {
        for first in (0..length).step_by(SUPER_BLOCK) {
            let end = (first + SUPER_BLOCK).min(length);
            let spike = find_spike::<S>(x, first, end);
            for from in (first..end).step_by(BLOCK) {
                let mut a = load_padded::<S>(x, from, length);
                let mut b = load_padded::<S>(x, from + LANES, length);
                if from == spike.block {
                    let mut values = [0f32; BLOCK];
                    S::store(values.as_mut_ptr(), a);
                    S::store(values.as_mut_ptr().add(LANES), b);
                    let group = 4 * spike.group;
                    let taken = [
                        values[group],
                        values[group + 1],
                        values[group + 2],
                        values[group + 3],
                    ];
                    *spikes.add(first / SUPER_BLOCK) = spike.quantized(taken);
                    if spike.largest >= TINY {
                        values[group..group + 4].fill(0.0);
                        a = S::load(values.as_ptr());
                        b = S::load(values.as_ptr().add(LANES));
                    }
                }
                let block = from / BLOCK;
                let (scale, sum, first_half) = quantize_block::<S>(a, b, codes.add(from));
                *scales.add(block) = scale;
                let biases = biases.add(BIASES * block);
                *biases = -128 * sum;
                *biases.add(1) = -128 * first_half;
                *biases.add(2) = -128 * (sum - first_half);
                let sums = sums.add(SUMS * block);
                *sums = scale * sum as f32;
                *sums.add(1) = scale * first_half as f32;
            }
        }
    }
}

/// One block: codes to `to`; returns the scale, the sum of the codes, and that of the first 16.
#[inline(always)]
unsafe fn quantize_block<S: Simd>(a: S::F, b: S::F, to: *mut i8) -> (f32, i32, i32) {
    // SAFETY: as the caller of `quantize_row` promises.
    unsafe {
        let largest = S::int_reduce_max(S::int_max(magnitude::<S>(a), magnitude::<S>(b)));
        let (scale, inverse) = scale_of(largest);
        if inverse == 0.0 {
            S::store_bytes(to, S::int_splat(0));
            S::store_bytes(to.add(LANES), S::int_splat(0));
            return (scale, 0, 0);
        }
        let factor = S::splat(inverse);
        let (a, b) = (S::to_int(S::mul(a, factor)), S::to_int(S::mul(b, factor)));
        S::store_bytes(to, a);
        S::store_bytes(to.add(LANES), b);
        (scale, S::int_reduce_add(S::int_add(a, b)), S::int_reduce_add(a))
    }
}

/// |x| as bits. As integers, magnitudes are ordered like the floats, and NaN lies above infinity: one rule for every CPU.
#[inline(always)]
unsafe fn magnitude<S: Simd>(x: S::F) -> S::I {
    // SAFETY: register operations only.
    unsafe { S::int_and(S::bits(x), S::int_splat(0x7fff_ffff)) }
}

/// Scale and inverse for values up to a magnitude (as bits).
#[inline(always)]
fn scale_of(largest: i32) -> (f32, f32) {
    if largest >= NOT_FINITE {
        (f32::from_bits(0x7fc0_0000), 0.0)
    } else if largest < TINY {
        (0.0, 0.0)
    } else {
        let largest = f32::from_bits(largest as u32);
        (largest / LARGEST_CODE, LARGEST_CODE / largest)
    }
}

/// What absmax becomes before it is rounded to 127: below 127.5, so that the largest code still fits and the step is a
/// little finer than absmax / 127. Within these bounds the choice is free; see `docs/activations.md`.
const LARGEST_CODE: f32 = 127.3;

/// Bits of infinity; a NaN's are larger.
const NOT_FINITE: i32 = 0x7f80_0000;

/// The group of a super-block that is worth a scale of its own.
struct Peak {
    /// First input of its block.
    block: usize,
    /// Which four inputs of the block.
    group: usize,
    /// Largest magnitude of the group, as bits.
    largest: i32,
    /// How much the square of the block's absmax falls without the group: the error grows with it.
    gain: f32,
}

impl Peak {
    /// The four values with codes and a scale of their own; zero when they are too small or not finite.
    #[inline(always)]
    fn quantized(&self, values: [f32; 4]) -> Spike {
        let place = (self.block % SUPER_BLOCK / BLOCK * 8 + self.group) as u32;
        let (scale, inverse) = scale_of(self.largest);
        if inverse == 0.0 {
            return [place, 0, 0, 0];
        }
        let mut codes = [0u8; 4];
        let mut sum = 0;
        for (code, value) in codes.iter_mut().zip(values) {
            let rounded = (value * inverse).round_ties_even() as i32;
            sum += rounded;
            *code = rounded as u8;
        }
        [
            place,
            u32::from_le_bytes(codes),
            scale.to_bits(),
            (-128 * sum) as u32,
        ]
    }
}

/// The group of the inputs `first..end` that stands out most from its block. Blocks that are not finite have none.
#[inline(always)]
unsafe fn find_spike<S: Simd>(x: *const f32, first: usize, end: usize) -> Peak {
    let mut best = Peak {
        block: first,
        group: 0,
        largest: 0,
        gain: 0.0,
    };
    for block in (first..end).step_by(BLOCK) {
        let mut groups = [0i32; BLOCK];
        // SAFETY: reads below `end` only; the array holds both vectors.
        unsafe {
            let a = magnitude::<S>(load_padded::<S>(x, block, end));
            let b = magnitude::<S>(load_padded::<S>(x, block + LANES, end));
            S::int_store(groups.as_mut_ptr().cast(), S::group_max(a));
            S::int_store(groups.as_mut_ptr().add(LANES).cast(), S::group_max(b));
        }
        let (mut largest, mut rest, mut group) = (-1, 0, 0);
        for k in 0..8 {
            let value = groups[4 * k];
            if value > largest {
                rest = largest.max(0);
                (largest, group) = (value, k);
            } else if value > rest {
                rest = value;
            }
        }
        let (high, low) = (f32::from_bits(largest as u32), f32::from_bits(rest as u32));
        let gain = high * high - low * low;
        // An infinite or absent gain means that a square left the range; such a block keeps its group.
        if largest < NOT_FINITE && gain > best.gain && gain < f32::INFINITY {
            best = Peak {
                block,
                group,
                largest,
                gain,
            };
        }
    }
    best
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
