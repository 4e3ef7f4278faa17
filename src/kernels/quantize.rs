//! The quantization of activations; see [`Record`] for what is written, and `docs/activations.md` for why.

use super::simd::{LANES, Simd};
use crate::quant::activations::{Record, SUPER_BLOCK};
use crate::quant::packed::BLOCK;
use std::mem::MaybeUninit;

/// Blocks of a super-block.
const BLOCKS: usize = SUPER_BLOCK / BLOCK;

/// What absmax becomes, at most, before it is rounded to 127: below 127.5, so that the largest code still fits. Within these
/// bounds the choice is free; see `docs/activations.md`.
const LARGEST_CODE: f32 = 126.67;

/// Bits of 1.5e-36. A block whose absmax is below counts as zero: its scale would be a denormal.
const TINY: u32 = 0x0400_0000;

/// Bits of 2^111. A block with a larger value counts as not finite: `magic` would leave the range of f32.
const HUGE: u32 = 0x7700_0000;

/// Bits of f32 below the three of its mantissa that a scale has.
const FINE: i32 = (1 << 20) - 1;

/// Bits of 1.5 * 2^23, the magic number of the scale 1: as an i32, its successors count in steps of 1.
const MAGIC_OF_ONE: i32 = 0x4b40_0000;

/// The low bits of a magnitude make room for an index, so that the largest magnitude brings its place along.
const INDEX: i32 = 7;

/// `7 - lane % 8`: of equal magnitudes the first is the largest.
static INDICES: [i32; LANES] = [7, 6, 5, 4, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0];

/// Words of a [`Record`] behind its codes.
const WORDS: usize = (Record::BYTES - Record::STARTS) / 4;

/// The scales of 16 groups or blocks, and what is made of them.
struct Scales<S: Simd> {
    scale: S::F,
    /// 1 / scale; 0 where all codes are 0.
    inverse: S::F,
    magic: S::I,
    mantissa: S::I,
    step: S::I,
}

impl<S: Simd> Scales<S> {
    /// `absmax / LARGEST_CODE`, rounded up to the next with three bits of mantissa; 0 below [`TINY`], NaN from [`HUGE`] on.
    ///
    /// # Safety
    /// The CPU has the instructions of `S`.
    #[inline(always)]
    unsafe fn of(largest: S::F) -> Scales<S> {
        // SAFETY: register operations only.
        unsafe {
            let (tiny, huge) = (S::splat(f32::from_bits(TINY)), S::splat(f32::from_bits(HUGE)));
            let zero = S::splat(0.0);
            let nan = S::splat(f32::NAN);
            let exact = S::bits(S::mul(largest, S::splat(1.0 / LARGEST_CODE)));
            let bits = S::int_and(S::int_add(exact, S::int_splat(FINE)), S::int_splat(!FINE));
            let scale = S::from_bits(bits);
            let inverse = S::select_less(largest, tiny, zero, S::div(S::splat(1.0), scale));
            let exponent = S::int_add(S::shift_right::<23>(bits), S::int_splat(23));
            let magic = S::int_or(S::shift_left::<23>(exponent), S::int_splat(0x0040_0000));
            // A magic number that is NaN makes every output NaN; that of 1 leaves every output alone, as the codes are 0.
            let of_one = S::from_bits(S::int_splat(MAGIC_OF_ONE));
            let magic = S::select_less(largest, tiny, of_one, S::from_bits(magic));
            let scale = S::select_less(largest, tiny, zero, scale);
            let bits = S::bits(scale);
            let mantissa = S::int_and(bits, S::int_splat(0x007f_ffff));
            Scales {
                scale: S::select_less(largest, huge, scale, nan),
                inverse: S::select_less(largest, huge, inverse, zero),
                magic: S::bits(S::select_less(largest, huge, magic, nan)),
                mantissa: S::int_or(mantissa, S::int_splat(0x3f80_0000)),
                step: S::int_and(S::shift_right::<14>(bits), S::int_splat(0x1c0)),
            }
        }
    }
}

/// The group of four inputs that is worth a scale of its own.
#[derive(Clone, Copy)]
struct Peak {
    /// 8 times its block in the super-block, plus its group in the block.
    place: usize,
    /// Its largest magnitude; 0 when there is none.
    largest: f32,
}

/// Quantizes one row: a [`Record`] for each block of 32 inputs, and behind each super-block of 256 one for its spike.
/// The last block is padded with zeros.
///
/// The spike is the group of four inputs without which the square of its block's absmax falls the most, since the error
/// grows with that; where none stands out, its codes are zero. Then, per block, `scale = absmax / 126.67` rounded up to three bits
/// of mantissa, and codes rounded to nearest even. A block whose absmax is below 1.5e-36 counts as zero. A block with a NaN,
/// an infinity or a magnitude of 2^111 or more gets the scale NaN, so that every output made from it is NaN.
///
/// # Safety
/// `length` values can be read at `x`; `to` takes the records; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn quantize_row<S: Simd>(x: *const f32, length: usize, to: *mut u8) {
    let whole = length / SUPER_BLOCK;
    let stride = (BLOCKS + 1) * Record::BYTES;
    let mut plans = [const { MaybeUninit::<Plan<S>>::uninit() }; BATCH];
    // SAFETY: as the caller promises; a plan is made before it is used; the short super-block is copied to and from buffers
    // of a whole one.
    unsafe {
        for first in (0..whole).step_by(BATCH) {
            let count = BATCH.min(whole - first);
            for (i, plan) in plans[..count].iter_mut().enumerate() {
                let spike = to.add((first + i) * stride + BLOCKS * Record::BYTES);
                make_plan::<S>(x.add((first + i) * SUPER_BLOCK), spike, plan.as_mut_ptr());
            }
            for (i, plan) in plans[..count].iter().enumerate() {
                encode::<S>(&*plan.as_ptr(), to.add((first + i) * stride));
            }
        }
        let rest = length - whole * SUPER_BLOCK;
        if rest > 0 {
            let mut values = [0f32; SUPER_BLOCK];
            let mut records = [0u8; (BLOCKS + 1) * Record::BYTES];
            std::ptr::copy_nonoverlapping(x.add(whole * SUPER_BLOCK), values.as_mut_ptr(), rest);
            let spike = records.as_mut_ptr().add(BLOCKS * Record::BYTES);
            make_plan::<S>(values.as_ptr(), spike, plans[0].as_mut_ptr());
            encode::<S>(&*plans[0].as_ptr(), records.as_mut_ptr());
            let (to, bytes) = (to.add(whole * stride), rest.div_ceil(BLOCK) * Record::BYTES);
            std::ptr::copy_nonoverlapping(records.as_ptr(), to, bytes);
            let spike = records.as_ptr().add(BLOCKS * Record::BYTES);
            std::ptr::copy_nonoverlapping(spike, to.add(bytes), Record::BYTES);
        }
    }
}

/// Super-blocks whose scales are found before the first of them is encoded. Each step of the one hangs on the step before; beside
/// the others it costs the CPU no waiting.
const BATCH: usize = 4;

/// What is found out about a super-block before it is encoded.
struct Plan<S: Simd> {
    /// The inputs, without those of the spike.
    values: [f32; SUPER_BLOCK],
    inverses: [f32; LANES],
    scales: Scales<S>,
    peak: Peak,
    /// Sum of the values that the spike stands for.
    spike: f32,
}

/// Finds the spike of eight blocks, writes its record to `to`, and finds the scales. No branch depends on the values: it would be
/// guessed wrong half of the time.
///
/// # Safety
/// [`SUPER_BLOCK`] values can be read, one record and the plan written; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn make_plan<S: Simd>(x: *const f32, to: *mut u8, plan: *mut Plan<S>) {
    // SAFETY: as the caller promises; the values of the plan are plain memory, written by `absolute_maxima` first.
    unsafe {
        let values = (&raw mut (*plan).values).cast::<f32>();
        let (largest, peak) = absolute_maxima::<S>(x, values);
        let kept = if peak.largest > 0.0 { 0 } else { u32::MAX };
        for i in 0..4 {
            let value = values.add(4 * peak.place + i);
            *value = f32::from_bits((*value).to_bits() & kept);
        }
        let scales = Scales::<S>::of(largest);
        S::store((&raw mut (*plan).inverses).cast(), scales.inverse);
        (&raw mut (*plan).scales).write(scales);
        (&raw mut (*plan).peak).write(peak);
        (&raw mut (*plan).spike).write(write_spike(x, to, peak));
    }
}

/// Writes the records of eight blocks.
///
/// # Safety
/// Eight records can be written; the CPU has the instructions of `S`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // The block indexes three arrays at once.
unsafe fn encode<S: Simd>(plan: &Plan<S>, to: *mut u8) {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sums = [S::int_splat(0); BLOCKS];
        for block in 0..BLOCKS {
            let values = plan.values.as_ptr().add(block * BLOCK);
            let factor = S::splat(plan.inverses[block]);
            let a = S::to_int(S::mul(S::load(values), factor));
            let b = S::to_int(S::mul(S::load(values.add(LANES)), factor));
            let codes = to.add(block * Record::BYTES).cast::<i8>();
            S::store_bytes(codes, a);
            S::store_bytes(codes.add(LANES), b);
            sums[block] = pairs_added::<S>(a, b);
        }
        write_words::<S>(&plan.scales, sums_of_halves::<S>(&sums), to);
        let sums = to.add(plan.peak.place / 8 * Record::BYTES + Record::SUMS);
        let sums = sums.cast::<[f32; 2]>();
        let [all, half] = sums.read_unaligned();
        let of_half = if plan.peak.place % 8 < 4 { plan.spike } else { 0.0 };
        sums.write_unaligned([all + plan.spike, half + of_half]);
    }
}

/// The words of eight records behind their codes; `sums` has the sums of the first and the last 16 codes of each.
///
/// # Safety
/// As [`encode`].
#[inline(always)]
unsafe fn write_words<S: Simd>(scales: &Scales<S>, sums: S::I, to: *mut u8) {
    // One row for each word, and room for the last one's unused lanes.
    let mut words = [0i32; WORDS * BLOCKS + BLOCKS];
    // SAFETY: as the caller promises; the arrays hold what is stored and loaded.
    unsafe {
        let zero = S::splat(0.0);
        // Where the inverse is 0, a product is 0 or NaN, and what NaN becomes as an integer depends on the CPU. (Its low byte,
        // the code, is 0 everywhere.)
        let first = S::from_bits(S::int_even(sums, sums));
        let first = S::bits(S::select_less(zero, scales.inverse, first, zero));
        let last = S::from_bits(S::int_odd(sums, sums));
        let last = S::bits(S::select_less(zero, scales.inverse, last, zero));
        let all = S::int_add(first, last);
        let rows = [
            S::int_sub(scales.magic, S::shift_left::<7>(all)),
            S::int_sub(scales.magic, S::shift_left::<7>(first)),
            S::int_sub(scales.magic, S::shift_left::<7>(last)),
            scales.magic,
            S::bits(S::mul(scales.scale, S::to_float(all))),
            S::bits(S::mul(scales.scale, S::to_float(first))),
            scales.mantissa,
            scales.step,
        ];
        for (word, &row) in rows.iter().enumerate() {
            // Each overwrites the unused lanes of the one before.
            S::int_store(words.as_mut_ptr().add(word * BLOCKS).cast(), row);
        }
        let words = words.as_ptr();
        let mut rows = [
            S::int_load(words.cast()),
            S::int_load(words.add(LANES).cast()),
            S::int_load(words.add(2 * LANES).cast()),
            S::int_load(words.add(3 * LANES).cast()),
        ];
        // The place of an element has three bits of the word and three of the block. Even places before odd ones: the last bit
        // becomes the first one. Three times, and blocks and words have changed sides.
        rows = even_before_odd::<S>(even_before_odd::<S>(even_before_odd::<S>(rows)));
        for (pair, &row) in rows.iter().enumerate() {
            let mut two = [[0i32; WORDS]; 2];
            S::int_store(two.as_mut_ptr().cast(), row);
            let to = to.add(2 * pair * Record::BYTES + Record::STARTS);
            to.cast::<[i32; WORDS]>().write_unaligned(two[0]);
            let to = to.add(Record::BYTES);
            to.cast::<[i32; WORDS]>().write_unaligned(two[1]);
        }
    }
}

/// The elements at even places of 64, then those at odd ones.
#[inline(always)]
unsafe fn even_before_odd<S: Simd>(rows: [S::I; 4]) -> [S::I; 4] {
    // SAFETY: register operations only.
    unsafe {
        [
            S::int_even(rows[0], rows[1]),
            S::int_even(rows[2], rows[3]),
            S::int_odd(rows[0], rows[1]),
            S::int_odd(rows[2], rows[3]),
        ]
    }
}

/// The codes of the spike, with a scale of its own as those of blocks are; all zero when there is none. Returns the sum of
/// the values it stands for.
///
/// # Safety
/// As [`make_plan`].
#[inline(always)]
unsafe fn write_spike(x: *const f32, to: *mut u8, peak: Peak) -> f32 {
    let bits = ((peak.largest * (1.0 / LARGEST_CODE)).to_bits() as i32 + FINE) & !FINE;
    let (scale, inverse, magic) = if peak.largest > 0.0 {
        let magic = ((bits >> 23) + 23) << 23 | 0x0040_0000;
        let scale = f32::from_bits(bits as u32);
        (scale, 1.0 / scale, magic)
    } else {
        (0.0, 0.0, MAGIC_OF_ONE)
    };
    let mut codes = [0u8; 4];
    let mut sum = 0;
    for (i, code) in codes.iter_mut().enumerate() {
        // SAFETY: the place is below 64.
        let value = unsafe { *x.add(4 * peak.place + i) };
        // Where the inverse is 0, this is 0 or NaN, and NaN becomes 0.
        let rounded = (value * inverse).round_ties_even() as i32;
        *code = rounded as u8;
        sum += rounded;
    }
    let mut words = [0i32; Record::BYTES / 4];
    words[0] = i32::from_ne_bytes(codes);
    words[Record::PLACE / 4] = peak.place as i32;
    words[Record::STARTS / 4] = magic.wrapping_sub(128 * sum);
    words[Record::MAGIC / 4] = magic;
    words[Record::MANTISSA / 4] = bits & 0x007f_ffff | 0x3f80_0000;
    words[Record::STEP / 4] = (bits >> 14) & 0x1c0;
    // SAFETY: as the caller promises.
    unsafe { to.cast::<[i32; Record::BYTES / 4]>().write_unaligned(words) };
    scale * sum as f32
}

/// The largest magnitudes of the eight blocks, twice over, without the group that stands out most, and that group. Copies the
/// values.
///
/// # Safety
/// As [`make_plan`].
#[inline(always)]
unsafe fn absolute_maxima<S: Simd>(x: *const f32, values: *mut f32) -> (S::F, Peak) {
    let mut highs = [0u32; LANES];
    // SAFETY: as the caller promises; the arrays hold what is stored.
    unsafe {
        let of_two = [
            largest_of_groups::<S>(x, values),
            largest_of_groups::<S>(x.add(64), values.add(64)),
            largest_of_groups::<S>(x.add(128), values.add(128)),
            largest_of_groups::<S>(x.add(192), values.add(192)),
        ];
        // The two largest groups of each block, by halving: of 2, of 4, of all 8.
        let (high, low) = two_largest::<S>(of_two[0], of_two[1]);
        let (other_high, other_low) = two_largest::<S>(of_two[2], of_two[3]);
        let (high, low) = merged::<S>(high, low, other_high, other_low);
        let (high, low) = merged::<S>(high, low, high, low);
        S::int_store(highs.as_mut_ptr().cast(), high);
        let (high, low) = (S::from_bits(high), S::from_bits(low));
        let gain = S::sub(S::mul(high, high), S::mul(low, low));
        // An infinite or absent gain means that a square left the range; such a block keeps its group.
        let gain = S::select_less(gain, S::splat(f32::INFINITY), gain, S::splat(0.0));
        let key = S::int_and(S::bits(gain), S::int_splat(!INDEX));
        let key = S::int_or(key, S::int_load(INDICES.as_ptr().cast()));
        let best = S::int_reduce_max(key);
        if best <= INDEX {
            let none = Peak {
                place: 0,
                largest: 0.0,
            };
            return (high, none);
        }
        let block = INDEX - (best & INDEX);
        let largest = highs[block as usize];
        let group = INDEX - (largest as i32 & INDEX);
        let peak = Peak {
            place: (8 * block + group) as usize,
            largest: f32::from_bits(largest),
        };
        // Keys are those of different blocks: one lane of each half is not less than the best.
        let (key, best) = (S::from_bits(key), S::from_bits(S::int_splat(best)));
        (S::select_less(key, best, high, low), peak)
    }
}

/// The largest magnitudes of the 16 groups of four of 64 values, each with its index in its block in the low bits. Copies the
/// values to `to`.
///
/// # Safety
/// 64 values can be read and written.
#[inline(always)]
unsafe fn largest_of_groups<S: Simd>(x: *const f32, to: *mut f32) -> S::I {
    // SAFETY: as the caller promises.
    unsafe {
        let (a, b) = (S::load(x), S::load(x.add(LANES)));
        let (c, d) = (S::load(x.add(2 * LANES)), S::load(x.add(3 * LANES)));
        S::store(to, a);
        S::store(to.add(LANES), b);
        S::store(to.add(2 * LANES), c);
        S::store(to.add(3 * LANES), d);
        let a = largest_of_pairs::<S>(magnitude::<S>(a), magnitude::<S>(b));
        let c = largest_of_pairs::<S>(magnitude::<S>(c), magnitude::<S>(d));
        let largest = S::int_and(largest_of_pairs::<S>(a, c), S::int_splat(!INDEX));
        S::int_or(largest, S::int_load(INDICES.as_ptr().cast()))
    }
}

/// |x| as bits. As integers, magnitudes are ordered like the floats, and NaN lies above infinity: one rule for every CPU.
#[inline(always)]
unsafe fn magnitude<S: Simd>(x: S::F) -> S::I {
    // SAFETY: register operations only.
    unsafe { S::int_and(S::bits(x), S::int_splat(0x7fff_ffff)) }
}

/// The larger of each two neighbours: 8 of `a`, then 8 of `b`.
#[inline(always)]
unsafe fn largest_of_pairs<S: Simd>(a: S::I, b: S::I) -> S::I {
    // SAFETY: register operations only.
    unsafe { S::int_max(S::int_even(a, b), S::int_odd(a, b)) }
}

/// Each two neighbours added: 8 of `a`, then 8 of `b`.
#[inline(always)]
unsafe fn pairs_added<S: Simd>(a: S::I, b: S::I) -> S::I {
    // SAFETY: register operations only.
    unsafe { S::int_add(S::int_even(a, b), S::int_odd(a, b)) }
}

/// The smaller of two magnitudes.
#[inline(always)]
unsafe fn smaller<S: Simd>(a: S::I, b: S::I) -> S::I {
    // SAFETY: register operations only; a + b may wrap, and wraps back.
    unsafe { S::int_sub(S::int_add(a, b), S::int_max(a, b)) }
}

/// The larger and the smaller of each two neighbours: 8 of `a`, then 8 of `b`.
#[inline(always)]
unsafe fn two_largest<S: Simd>(a: S::I, b: S::I) -> (S::I, S::I) {
    // SAFETY: register operations only.
    unsafe {
        let (even, odd) = (S::int_even(a, b), S::int_odd(a, b));
        (S::int_max(even, odd), smaller::<S>(even, odd))
    }
}

/// From the two largest of neighbours the two largest of both: 8 of the first, then 8 of the second pair of vectors.
#[inline(always)]
unsafe fn merged<S: Simd>(high_a: S::I, low_a: S::I, high_b: S::I, low_b: S::I) -> (S::I, S::I) {
    // SAFETY: register operations only.
    unsafe {
        let (high, runner_up) = two_largest::<S>(high_a, high_b);
        let low = largest_of_pairs::<S>(low_a, low_b);
        (high, S::int_max(runner_up, low))
    }
}

/// From `[block]` vectors with 8 partial sums of the first and 8 of the last 16 codes, the sums: two for each block.
#[inline(always)]
unsafe fn sums_of_halves<S: Simd>(sums: &[S::I; BLOCKS]) -> S::I {
    // SAFETY: register operations only.
    unsafe {
        let a = pairs_added::<S>(
            pairs_added::<S>(sums[0], sums[1]),
            pairs_added::<S>(sums[2], sums[3]),
        );
        let b = pairs_added::<S>(
            pairs_added::<S>(sums[4], sums[5]),
            pairs_added::<S>(sums[6], sums[7]),
        );
        pairs_added::<S>(a, b)
    }
}
