//! Records of scales, and scales that were decoded.

use super::Scales;
use crate::kernels::simd::Simd;
use crate::quant::activations::MANTISSAS;
use crate::quant::packed::PANEL;

/// A scale of f16 for every `GROUP` blocks.
pub struct Half<const GROUP: usize>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const GROUP: usize> Scales for Half<GROUP> {
    const HALVES: usize = 1;
    const MINIMA: usize = 0;
    const MANY_FROM: usize = 24;
    type Unpacked = Floats<1, 0>;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block / GROUP * 2 * PANEL).cast()) }
    }
}

/// A scale and a minimum of f16 for every block.
pub struct HalfAndMinimum;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Scales for HalfAndMinimum {
    const HALVES: usize = 1;
    const MINIMA: usize = 1;
    const MANY_FROM: usize = 24;
    type Unpacked = Floats<1, 1>;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block * 4 * PANEL).cast()) }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block * 4 * PANEL + 2 * PANEL).cast()) }
    }
}

/// A scale of f16 for 8 blocks, times `2^-FRACTION`, times a signed byte for each half (`HALVES` = 2) or whole of a block.
pub struct Super<const HALVES: usize, const FRACTION: i32>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const HALVES: usize, const FRACTION: i32> Scales for Super<HALVES, FRACTION> {
    const HALVES: usize = HALVES;
    const MINIMA: usize = 0;
    const MANY_FROM: usize = if HALVES == 2 { 12 } else { 24 };
    type Unpacked = Floats<HALVES, 0>;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F {
        unsafe {
            let record = scales.add(block / 8 * (2 + 8 * HALVES) * PANEL);
            let sub = S::load_i8(record.add((2 + block % 8 * HALVES + half) * PANEL).cast());
            let scale = S::mul(S::load_f16(record.cast()), S::to_float(sub));
            if FRACTION == 0 {
                return scale;
            }
            // A power of two: exact.
            S::mul(scale, S::splat(1.0 / (1 << FRACTION) as f32))
        }
    }
}

/// A scale and a minimum of f16 for 8 blocks, each times a byte for every block; the minimum is subtracted.
pub struct SuperAndMinimum;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Scales for SuperAndMinimum {
    const HALVES: usize = 1;
    const MINIMA: usize = 1;
    const MANY_FROM: usize = 24;
    type Unpacked = Floats<1, 1>;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe {
            let record = scales.add(block / 8 * 20 * PANEL);
            let sub = S::load_i8(record.add((4 + block % 8 * 2) * PANEL).cast());
            S::mul(S::load_f16(record.cast()), S::to_float(sub))
        }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe {
            let record = scales.add(block / 8 * 20 * PANEL);
            let sub = S::load_i8(record.add((5 + block % 8 * 2) * PANEL).cast());
            let minimum = S::load_f16(record.add(2 * PANEL).cast());
            S::mul(minimum, S::to_float(S::int_sub(S::int_splat(0), sub)))
        }
    }
}

/// Scales and minima that were decoded to f32: `[block][scales times eight mantissas, minima][16]`.
pub struct Floats<const HALVES: usize, const MINIMA: usize>;

impl<const HALVES: usize, const MINIMA: usize> Floats<HALVES, MINIMA> {
    /// Vectors of a block.
    const VECTORS: usize = MANTISSAS.len() * HALVES + MINIMA;
}

#[allow(clippy::undocumented_unsafe_blocks)]
impl<const HALVES: usize, const MINIMA: usize> Scales for Floats<HALVES, MINIMA> {
    const HALVES: usize = HALVES;
    const MINIMA: usize = MINIMA;
    const MANY_FROM: usize = usize::MAX;
    const STEPPED: bool = true;
    type Unpacked = Floats<HALVES, MINIMA>;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F {
        unsafe { Self::stepped::<S>(scales, block, half, 0) }
    }
    #[inline(always)]
    unsafe fn stepped<S: Simd>(scales: *const u8, block: usize, half: usize, step: usize) -> S::F {
        let vector = block * Self::VECTORS + half * MANTISSAS.len();
        unsafe { S::load(scales.add(vector * 4 * PANEL + step).cast()) }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize, index: usize) -> S::F {
        let vector = block * Self::VECTORS + HALVES * MANTISSAS.len() + index;
        unsafe { S::load(scales.add(vector * 4 * PANEL).cast()) }
    }
}

/// A power of two for every block, as MXFP4 stores it: a byte e means 2^(e - 128).
pub struct PowerOfTwo;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Scales for PowerOfTwo {
    const HALVES: usize = 1;
    const MINIMA: usize = 0;
    const MANY_FROM: usize = 24;
    type Unpacked = Floats<1, 0>;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe {
            let stored = S::load_i8(scales.add(block * PANEL).cast());
            let exponent = S::int_and(stored, S::int_splat(255));
            let less_one = S::int_sub(exponent, S::int_splat(1));
            // Exponents 0 and 1 are denormals, 2^21 and 2^22 units in the last place; for the others this is below
            // the bits of the normal number.
            let capped = S::int_sub(exponent, S::int_max(less_one, S::int_splat(0)));
            let denormal = S::int_add(S::int_splat(1 << 21), S::shift_left::<21>(capped));
            S::from_bits(S::int_max(S::shift_left::<23>(less_one), denormal))
        }
    }
}

/// An FP8 (E4M3) scale for each half of a block, halved, as NVFP4 has it; 0x7f counts as 0.
pub struct SmallFloat;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Scales for SmallFloat {
    const HALVES: usize = 2;
    const MINIMA: usize = 0;
    const MANY_FROM: usize = 12;
    type Unpacked = Floats<2, 0>;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F {
        unsafe {
            let stored = S::load_i8(scales.add((2 * block + half) * PANEL).cast());
            let magnitude = S::int_and(stored, S::int_splat(0x7f));
            // As the bits of an f32 the number is 2^120 too small, denormals too; half of it is wanted.
            let bits = S::shift_left::<20>(magnitude);
            let value = S::mul(S::from_bits(bits), S::splat(f32::from_bits((127 + 119) << 23)));
            S::select_less(value, S::splat(240.0), value, S::splat(0.0))
        }
    }
}
