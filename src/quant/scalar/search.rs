//! Search for the scales with the least squared error, for types whose reference encoder is not plain rounding.
//!
//! A *level* is the number that a code stands for: an integer, or an entry of a code book. For given levels the
//! best scale has a closed form (least squares), so the search tries some roundings of a group, solves each, and
//! keeps the best. The super-block's scale and the integer sub-scales are then improved in turn until nothing is
//! gained. All in a fixed order of operations: the same bytes everywhere.

use super::super::convert::{f16_to_f32, f32_to_f16};
use super::simple::{extreme, range};

/// Below this magnitude the f16 scale of every type is 0.
const NEGLIGIBLE: f32 = 1e-20;

/// Above this magnitude no type can hold a value, and squares might overflow.
const HUGE: f32 = 1e12;

/// A half-precision NaN.
const NAN_BITS: u16 = 0x7e00;

/// A set of levels.
pub(super) trait Levels: Copy {
    /// The level of the largest magnitude; it is negative.
    const LOWEST: f32;
    /// Candidates for the level that the extreme value gets: `LOWEST + k * STEP` for `k` from -9 to 9.
    const STEP: f32;
    /// Whether to try the extreme value at the other end too: pays when the levels are few or uneven.
    const BOTH_ENDS: bool;
    /// Whether every level has its negative; then scales are kept positive.
    const BALANCED: bool;
    /// The level nearest to a number.
    fn nearest(number: f32) -> f32;
}

/// The nearest integer, halves to even, for magnitudes up to 2^22: adding 1.5 * 2^23 leaves no bits for a fraction.
#[inline(always)]
fn round(number: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    (number + MAGIC) - MAGIC
}

#[inline(always)]
fn clamp(number: f32, lowest: f32, highest: f32) -> f32 {
    number.max(lowest).min(highest)
}

/// Integers from `-HALF` to `HALF - 1`.
#[derive(Clone, Copy)]
pub(super) struct Integers<const HALF: i16>;

impl<const HALF: i16> Levels for Integers<HALF> {
    const LOWEST: f32 = -(HALF as f32);
    const STEP: f32 = 0.1;
    const BOTH_ENDS: bool = HALF <= 4;
    const BALANCED: bool = false;

    #[inline(always)]
    fn nearest(number: f32) -> f32 {
        round(clamp(number, Self::LOWEST, HALF as f32 - 1.0))
    }
}

/// The levels -1, 0, 1 and 2 of Q2_0, mirrored so that the extreme is negative: -2 to 1.
pub(super) type Quaternary = Integers<2>;

/// Integers from `-LARGEST` to `LARGEST`.
#[derive(Clone, Copy)]
pub(super) struct Balanced<const LARGEST: i16>;

impl<const LARGEST: i16> Levels for Balanced<LARGEST> {
    const LOWEST: f32 = -(LARGEST as f32);
    const STEP: f32 = 0.1;
    const BOTH_ENDS: bool = false;
    const BALANCED: bool = true;

    #[inline(always)]
    fn nearest(number: f32) -> f32 {
        round(clamp(number, Self::LOWEST, LARGEST as f32))
    }
}

/// The code book of IQ4_NL and IQ4_XS.
#[derive(Clone, Copy)]
pub(super) struct Iq4Book;

/// Entry of the book nearest to each integer from -128 to 127.
const NEAREST_IQ4: [i8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let number = i as i32 - 128;
        let mut best = super::iq::IQ4_BOOK[0];
        let mut k = 1;
        while k < 16 {
            let entry = super::iq::IQ4_BOOK[k];
            if (entry as i32 - number).abs() < (best as i32 - number).abs() {
                best = entry;
            }
            k += 1;
        }
        table[i] = best;
        i += 1;
    }
    table
};

impl Levels for Iq4Book {
    const LOWEST: f32 = -127.0;
    const STEP: f32 = 1.0;
    const BOTH_ENDS: bool = true;
    const BALANCED: bool = false;

    #[inline(always)]
    fn nearest(number: f32) -> f32 {
        let index = (clamp(number, -128.0, 127.0) + 128.5) as usize;
        f32::from(NEAREST_IQ4[index & 255])
    }
}

/// The sum of eight lanes.
#[inline(always)]
fn total(lanes: [f32; 8]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// Eight partial sums let the compiler use vectors without changing the order of additions.
#[inline(always)]
fn sums<const N: usize>(values: &[f32], mut terms: impl FnMut(f32) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0.0; 8]; N];
    for values in values.as_chunks::<8>().0 {
        for (i, value) in values.iter().enumerate() {
            let terms = terms(*value);
            for (lanes, term) in lanes.iter_mut().zip(terms) {
                lanes[i] += term;
            }
        }
    }
    lanes.map(total)
}

/// `1 / scale`, and 0 for 0.
#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The bits of a finite scale: too large ones are cut, so that finite values never become infinite.
fn finite_bits(scale: f32) -> u16 {
    f32_to_f16(scale.clamp(-65504.0, 65504.0))
}

/// The values with a magnitude that the search can square; `None` if one is NaN or infinite.
fn prepared<const N: usize>(values: &[f32]) -> Option<[f32; N]> {
    let mut prepared = [0.0; N];
    for (prepared, value) in prepared.iter_mut().zip(values) {
        if !value.is_finite() {
            return None;
        }
        *prepared = value.clamp(-HUGE, HUGE);
    }
    Some(prepared)
}

/// The scale with which the levels nearest to `values / scale` come closest to the values.
fn best_scale<L: Levels>(values: &[f32]) -> f32 {
    let extreme = extreme(values);
    if extreme.abs() < NEGLIGIBLE {
        return 0.0;
    }
    let mut best = (0.0, 0.0);
    let mut attempt = |inverse: f32| {
        let [product, square] = sums(values, |value| {
            let level = L::nearest(value * inverse);
            [value * level, level * level]
        });
        // The error of the best scale for these levels is less by this than that of scale 0.
        let gain = product * product / square;
        if gain > best.0 {
            best = (gain, product / square);
        }
    };
    for k in -9_i8..=9 {
        let level = L::LOWEST + L::STEP * f32::from(k);
        attempt(level / extreme);
        if L::BOTH_ENDS {
            attempt(-level / extreme);
        }
    }
    if L::BALANCED { best.1.abs() } else { best.1 }
}

/// Squared error of the values with the levels nearest at `scale`.
fn error_at<L: Levels>(values: &[f32], scale: f32) -> f32 {
    let inverse = inverse(scale);
    let [error] = sums(values, |value| {
        let difference = value - scale * L::nearest(value * inverse);
        [difference * difference]
    });
    error
}

fn write_levels<L: Levels>(values: &[f32], scale: f32, levels: &mut [f32]) {
    let inverse = inverse(scale);
    for (level, value) in levels.iter_mut().zip(values) {
        *level = L::nearest(value * inverse);
    }
}

/// Scale (f16 bits) and levels of a block with one scale. NaN or infinity among the values: NaN.
pub(super) fn single_scale<L: Levels, const N: usize>(values: &[f32]) -> (u16, [f32; N]) {
    let mut levels = [0.0; N];
    let Some(values) = prepared::<N>(values) else {
        return (NAN_BITS, levels);
    };
    let mut bits = finite_bits(best_scale::<L>(&values));
    // The rounding to f16 may have moved levels, and one step away may be better for them.
    let mut least = f32::INFINITY;
    for candidate in [bits, bits.wrapping_sub(1), bits.saturating_add(1)] {
        let scale = f16_to_f32(candidate);
        let error = error_at::<L>(&values, scale);
        if scale.is_finite() && error < least {
            least = error;
            bits = candidate;
        }
    }
    write_levels::<L>(&values, f16_to_f32(bits), &mut levels);
    (bits, levels)
}

/// The integer sub-scales of a type.
#[derive(Clone, Copy)]
pub(super) struct SubScales {
    /// The least; 0 for types with balanced levels, which need no negative scale.
    pub(super) lowest: f32,
    pub(super) highest: f32,
    /// What a sub-scale of 1 means, a power of two.
    pub(super) unit: f32,
}

impl SubScales {
    /// From `-half` to `half - 1`.
    pub(super) const fn signed(half: f32) -> SubScales {
        SubScales {
            lowest: -half,
            highest: half - 1.0,
            unit: 1.0,
        }
    }
}

/// A symmetric super-block: `w = scale * unit * sub_scale * level`.
pub(super) struct Symmetric {
    /// f16 bits.
    pub(super) scale: u16,
    pub(super) sub_scales: [i8; 16],
    pub(super) levels: [f32; 256],
}

/// Encodes 256 values in groups of `group_length`.
/// NaN or infinity among the values: scale NaN.
pub(super) fn symmetric<L: Levels>(values: &[f32], group_length: usize, sub: SubScales) -> Symmetric {
    let mut best = Symmetric {
        scale: NAN_BITS,
        sub_scales: [0; 16],
        levels: [0.0; 256],
    };
    let Some(values) = prepared::<256>(values) else {
        return best;
    };
    let mut scales = [0.0; 16];
    for (scale, values) in scales.iter_mut().zip(values.chunks_exact(group_length)) {
        *scale = best_scale::<L>(values);
    }
    let outermost = if sub.lowest == 0.0 {
        sub.highest
    } else {
        sub.lowest
    };
    let mut least = f32::INFINITY;
    let mut scale = finite_bits(extreme(&scales) / (outermost * sub.unit));
    // Twice is nearly always enough; the bound keeps the time in hand.
    for _ in 0..4 {
        let unit = f16_to_f32(scale) * sub.unit;
        let (sub_scales, error) = best_sub_scales::<L>(&values, group_length, sub, unit, &scales);
        if error >= least {
            break;
        }
        least = error;
        best.scale = scale;
        best.sub_scales = sub_scales;
        // The best scale for these levels and sub-scales.
        let (mut product, mut square) = (0.0, 0.0);
        let groups = values
            .chunks_exact(group_length)
            .zip(best.levels.chunks_exact_mut(group_length));
        for ((values, levels), sub_scale) in groups.zip(sub_scales) {
            let sub_scale = f32::from(sub_scale);
            write_levels::<L>(values, unit * sub_scale, levels);
            for (value, level) in values.iter().zip(levels) {
                product += value * (sub_scale * *level);
                square += (sub_scale * *level) * (sub_scale * *level);
            }
        }
        if square == 0.0 {
            break;
        }
        scale = finite_bits(product / (square * sub.unit));
    }
    best
}

/// For each group the integer sub-scale of least error among the three next to the wanted scale; and the error.
fn best_sub_scales<L: Levels>(
    values: &[f32; 256],
    group_length: usize,
    sub: SubScales,
    unit: f32,
    wanted: &[f32; 16],
) -> ([i8; 16], f32) {
    let inverse = inverse(unit);
    let mut sub_scales = [0; 16];
    let mut total = 0.0;
    let groups = values.chunks_exact(group_length).zip(wanted);
    for (sub_scale, (values, wanted)) in sub_scales.iter_mut().zip(groups) {
        let middle = round(clamp(wanted * inverse, sub.lowest, sub.highest));
        let mut least = f32::INFINITY;
        for candidate in [middle, middle - 1.0, middle + 1.0] {
            let candidate = clamp(candidate, sub.lowest, sub.highest);
            let error = error_at::<L>(values, unit * candidate);
            if error < least {
                least = error;
                *sub_scale = candidate as i8;
            }
        }
        total += least;
    }
    (sub_scales, total)
}

/// A super-block with minimums: `w = scale * sub_scale * level - minimum * sub_minimum`, levels from 0.
pub(super) struct WithMinimums {
    /// f16 bits.
    pub(super) scale: u16,
    /// f16 bits.
    pub(super) minimum: u16,
    pub(super) sub_scales: [u8; 16],
    pub(super) sub_minimums: [u8; 16],
    pub(super) levels: [f32; 256],
}

/// Scale and minimum (both not negative) for the least error of one group: levels 0 to `highest`,
/// `w = scale * level - minimum`.
fn best_scale_and_minimum(values: &[f32], highest: f32) -> (f32, f32) {
    let (lowest, largest) = range(values);
    let lowest = lowest.min(0.0);
    if largest - lowest < NEGLIGIBLE {
        return (0.0, -lowest);
    }
    let count = values.len() as f32;
    let [sum] = sums(values, |value| [value]);
    let mut best = (f32::INFINITY, 0.0, 0.0);
    let attempt = |best: &mut (f32, f32, f32), inverse: f32, minimum: f32| {
        let [level_sum, square, product] = sums(values, |value| {
            let level = round(clamp((value + minimum) * inverse, 0.0, highest));
            [level, level * level, value * level]
        });
        // The normal equations of `value = scale * level + offset`.
        let determinant = count * square - level_sum * level_sum;
        let mut scale = (count * product - sum * level_sum) / determinant;
        let mut offset = (sum - scale * level_sum) / count;
        if determinant <= 0.0 || offset > 0.0 {
            scale = product / square;
            offset = 0.0;
        }
        // The squared error, less the sum of squared values.
        let error = scale * (scale * square - 2.0 * product)
            + offset * (count * offset - 2.0 * sum + 2.0 * scale * level_sum);
        if error < best.0 && scale > 0.0 {
            *best = (error, scale, -offset);
        }
    };
    for k in -10_i8..=10 {
        attempt(
            &mut best,
            (highest + 0.1 * f32::from(k)) / (largest - lowest),
            -lowest,
        );
    }
    let (_, scale, minimum) = best;
    if scale > 0.0 {
        attempt(&mut best, 1.0 / scale, minimum);
    }
    (best.1, best.2)
}

/// Squared error of a group at a scale and a minimum.
fn error_with_minimum(values: &[f32], scale: f32, minimum: f32, highest: f32) -> f32 {
    let inverse = inverse(scale);
    let [error] = sums(values, |value| {
        let level = round(clamp((value + minimum) * inverse, 0.0, highest));
        let difference = value - (scale * level - minimum);
        [difference * difference]
    });
    error
}

/// Encodes 256 values in groups of `group_length` with levels 0 to `highest`, sub-scales and sub-minimums 0 to
/// `sub_highest`. NaN or infinity among the values: scale NaN.
pub(super) fn with_minimums(
    values: &[f32],
    group_length: usize,
    highest: f32,
    sub_highest: f32,
) -> WithMinimums {
    let mut best = WithMinimums {
        scale: NAN_BITS,
        minimum: 0,
        sub_scales: [0; 16],
        sub_minimums: [0; 16],
        levels: [0.0; 256],
    };
    let Some(values) = prepared::<256>(values) else {
        return best;
    };
    let (mut scales, mut minimums) = ([0.0; 16], [0.0; 16]);
    for (g, values) in values.chunks_exact(group_length).enumerate() {
        (scales[g], minimums[g]) = best_scale_and_minimum(values, highest);
    }
    let mut scale = finite_bits(extreme(&scales) / sub_highest);
    let mut minimum = finite_bits(extreme(&minimums) / sub_highest);
    let mut least = f32::INFINITY;
    for _ in 0..3 {
        let trial = Trial {
            group_length,
            highest,
            sub_highest,
            scale: f16_to_f32(scale),
            minimum: f16_to_f32(minimum),
        };
        let (sub_scales, sub_minimums, error) = trial.best_integers(&values, &scales, &minimums);
        if error >= least {
            break;
        }
        least = error;
        (best.scale, best.minimum) = (scale, minimum);
        (best.sub_scales, best.sub_minimums) = (sub_scales, sub_minimums);
        let Some(refit) = trial.write_levels(&values, &mut best) else {
            break;
        };
        (scale, minimum) = (finite_bits(refit.0), finite_bits(refit.1));
    }
    best
}

/// A scale and a minimum for a super-block, on trial.
struct Trial {
    group_length: usize,
    highest: f32,
    sub_highest: f32,
    scale: f32,
    minimum: f32,
}

impl Trial {
    /// Sub-scales and sub-minimums of least error next to the wanted scales and minimums; and the error.
    fn best_integers(
        &self,
        values: &[f32; 256],
        scales: &[f32; 16],
        minimums: &[f32; 16],
    ) -> ([u8; 16], [u8; 16], f32) {
        let integer = |wanted: f32, unit: f32| round(clamp(wanted * inverse(unit), 0.0, self.sub_highest));
        let (mut sub_scales, mut sub_minimums) = ([0; 16], [0; 16]);
        let mut total = 0.0;
        for (g, values) in values.chunks_exact(self.group_length).enumerate() {
            let sub_scale = integer(scales[g], self.scale);
            let sub_minimum = integer(minimums[g], self.minimum);
            let mut least = f32::INFINITY;
            for (i, k) in [
                (0, 0),
                (-1, 0),
                (1, 0),
                (0, -1),
                (0, 1),
                (-1, -1),
                (1, 1),
                (-1, 1),
                (1, -1),
            ] {
                let sub_scale = clamp(sub_scale + i as f32, 0.0, self.sub_highest);
                let sub_minimum = clamp(sub_minimum + k as f32, 0.0, self.sub_highest);
                let (scale, minimum) = (self.scale * sub_scale, self.minimum * sub_minimum);
                let error = error_with_minimum(values, scale, minimum, self.highest);
                if error < least {
                    least = error;
                    (sub_scales[g], sub_minimums[g]) = (sub_scale as u8, sub_minimum as u8);
                }
            }
            total += least;
        }
        (sub_scales, sub_minimums, total)
    }

    /// Writes the levels of `block`; returns the scale and the minimum that fit these levels best.
    fn write_levels(&self, values: &[f32; 256], block: &mut WithMinimums) -> Option<(f32, f32)> {
        // Normal equations of `value = scale * a - minimum * b` with a = sub_scale * level, b = sub_minimum.
        let (mut aa, mut ab, mut bb, mut va, mut vb) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let groups = values
            .chunks_exact(self.group_length)
            .zip(block.levels.chunks_exact_mut(self.group_length));
        for (g, (values, levels)) in groups.enumerate() {
            let (sub_scale, b) = (f32::from(block.sub_scales[g]), f32::from(block.sub_minimums[g]));
            let (inverse, minimum) = (inverse(self.scale * sub_scale), self.minimum * b);
            for (level, value) in levels.iter_mut().zip(values) {
                *level = round(clamp((value + minimum) * inverse, 0.0, self.highest));
                let a = sub_scale * *level;
                aa += a * a;
                ab += a * b;
                bb += b * b;
                va += value * a;
                vb += value * b;
            }
        }
        if bb == 0.0 {
            return (aa > 0.0).then(|| (va / aa, 0.0));
        }
        let determinant = aa * bb - ab * ab;
        let scale = (va * bb - vb * ab) / determinant;
        let minimum = (va * ab - vb * aa) / determinant;
        (determinant > 0.0 && scale > 0.0 && minimum > 0.0).then_some((scale, minimum))
    }
}
