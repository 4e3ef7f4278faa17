//! Q2_K and Q3_K: codes so small that they are multiplied with the factors of their half blocks while decoding.

use super::Weights;
use super::planes::{Whole, bits_of, crumbs, crumbs_of, move_bits};
use super::scales::Floats;
use crate::kernels::simd::Simd;
use crate::quant::packed::{BLOCK, PANEL};

/// In every 4 bytes, 4 times their place among the 4 rows of 16 bytes: where the row's table starts.
static ROWS: [u8; 64] = rows();

const fn rows() -> [u8; 64] {
    let mut rows = [0; 64];
    let mut i = 0;
    while i < 64 {
        rows[i] = (i as u8 / 4) % 4 * 4;
        i += 1;
    }
    rows
}

/// Q2_K: 2-bit codes; scale and minimum of f16 for 8 blocks, and for every half block a byte with 4-bit factors for the
/// scale and, above, for the minimum.
///
/// Code times factor is at most 45: the products are the codes here, from a table of four bytes for each row, and a
/// block needs one scale only. For minima a in the first half and b in the second, and the sums A and B of the
/// activations, `a A + b B = b (A + B) + (a - b) A`.
pub struct TwoBitsWithFactors;

impl TwoBitsWithFactors {
    /// The factors of one half of a block.
    ///
    /// # Safety
    /// As [`Weights::scale`].
    #[inline(always)]
    unsafe fn factors<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::I {
        // SAFETY: as the caller promises.
        unsafe {
            S::load_i8(
                scales
                    .add((block / 8 * 20 + 4 + block % 8 * 2 + half) * PANEL)
                    .cast(),
            )
        }
    }

    /// The products of codes and factors of one half of a block.
    ///
    /// # Safety
    /// As [`Weights::scale`].
    #[inline(always)]
    unsafe fn products<S: Simd>(codes: S::I, scales: *const u8, block: usize, half: usize) -> S::I {
        // SAFETY: as the caller promises.
        unsafe {
            let factor = S::int_and(Self::factors::<S>(scales, block, half), S::int_splat(15));
            let table = S::int_mul(factor, S::int_splat(0x0302_0100));
            S::shuffle(table, S::int_or(codes, S::int_load(ROWS.as_ptr())))
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)]
impl Weights for TwoBitsWithFactors {
    const CODE_BYTES: usize = BLOCK * PANEL / 4;
    const CENTERED: bool = false;
    const MANY_FROM: usize = 12;
    const HALVES: usize = 1;
    const MINIMA: usize = 2;
    type Unpacked = (Whole<false>, Floats<1, 2>);
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(
        codes: *const u8,
        scales: *const u8,
        block: usize,
    ) -> [S::I; 2] {
        unsafe {
            let pair = crumbs::<S>(codes, STEP);
            [
                Self::products::<S>(pair[0], scales, block, 0),
                Self::products::<S>(pair[1], scales, block, 1),
            ]
        }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, scales: *const u8, block: usize, group: usize) -> S::I {
        unsafe { Self::products::<S>(crumbs_of::<S>(codes, group), scales, block, group / 4) }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block / 8 * 20 * PANEL).cast()) }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize, index: usize) -> S::F {
        unsafe {
            let second = S::shift_right::<4>(Self::factors::<S>(scales, block, 1));
            let second = S::int_and(second, S::int_splat(15));
            // Subtracted, hence the other sign.
            let factor = if index == 0 {
                S::int_sub(S::int_splat(0), second)
            } else {
                let first = S::shift_right::<4>(Self::factors::<S>(scales, block, 0));
                S::int_sub(second, S::int_and(first, S::int_splat(15)))
            };
            let minimum = S::load_f16(scales.add((block / 8 * 20 + 2) * PANEL).cast());
            S::mul(minimum, S::to_float(factor))
        }
    }
}

/// Q3_K: 2-bit codes and a plane of the highest bits; scale of f16 for 8 blocks, and for every half block a factor f
/// from -32 to 31.
///
/// `128 - (code - 4) * f` is 0 to 252: the negated products are the codes here, from two tables of four bytes for each
/// row, and a block needs one scale only, the negated one.
pub struct ThreeBitsWithFactors;

impl ThreeBitsWithFactors {
    /// The products of codes and factors of one half of a block, from the two low bits of the codes, and the highest bit
    /// as bit 7 of `high`, the others zero.
    ///
    /// # Safety
    /// As [`Weights::scale`].
    #[inline(always)]
    unsafe fn products<S: Simd>(
        codes: S::I,
        high: S::I,
        scales: *const u8,
        block: usize,
        half: usize,
    ) -> S::I {
        // SAFETY: as the caller promises.
        unsafe {
            let at = (block / 8 * 18 + 2 + block % 8 * 2 + half) * PANEL;
            let factor = S::load_i8(scales.add(at).cast());
            // Bytes 4u, 3u + 32, 2u + 64, u + 96 with u = f + 32: 128 - (code - 4) f for codes 0 to 3.
            let above = S::int_add(factor, S::int_splat(32));
            let table = S::int_mul(above, S::int_splat(0x0102_0304));
            let table = S::int_add(table, S::int_splat(0x6040_2000));
            // Bytes 128, v + 97, 2v + 66, 3v + 35 with v = 31 - f: the same for codes 4 to 7.
            let below = S::int_sub(S::int_splat(31), factor);
            let high_table = S::int_mul(below, S::int_splat(0x0302_0100));
            let high_table = S::int_add(high_table, S::int_splat(0x2342_6180));
            // An index with the top bit set gives zero.
            let index = S::int_or(S::int_or(codes, high), S::int_load(ROWS.as_ptr()));
            let other = S::int_xor(index, S::int_splat(0x8080_8080_u32 as i32));
            S::int_or(S::shuffle(table, index), S::shuffle(high_table, other))
        }
    }
}

#[allow(clippy::undocumented_unsafe_blocks)]
impl Weights for ThreeBitsWithFactors {
    const CODE_BYTES: usize = BLOCK * PANEL * 3 / 8;
    const CENTERED: bool = true;
    const MANY_FROM: usize = 8;
    const HALVES: usize = 1;
    const MINIMA: usize = 0;
    type Unpacked = (Whole<true>, Floats<1, 0>);
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(
        codes: *const u8,
        scales: *const u8,
        block: usize,
    ) -> [S::I; 2] {
        unsafe {
            let pair = crumbs::<S>(codes, STEP);
            let plane = S::int_load(codes.add(BLOCK * PANEL / 4));
            let top = S::int_splat(0x8080_8080_u32 as i32);
            let high = [
                S::int_and(move_bits::<S>(plane, STEP, 7), top),
                S::int_and(move_bits::<S>(plane, STEP + 4, 7), top),
            ];
            [
                Self::products::<S>(pair[0], high[0], scales, block, 0),
                Self::products::<S>(pair[1], high[1], scales, block, 1),
            ]
        }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, scales: *const u8, block: usize, group: usize) -> S::I {
        unsafe {
            let high = S::shift_left::<7>(bits_of::<S>(codes.add(BLOCK * PANEL / 4), group));
            Self::products::<S>(crumbs_of::<S>(codes, group), high, scales, block, group / 4)
        }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe {
            let scale = S::load_f16(scales.add(block / 8 * 18 * PANEL).cast());
            S::mul(scale, S::splat(-1.0))
        }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(_: *const u8, _: usize, _: usize) -> S::F {
        unsafe { S::splat(0.0) }
    }
}
