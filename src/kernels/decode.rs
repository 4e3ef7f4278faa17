//! Weight types as the matmul sees them: how a block becomes vectors of unsigned codes, and its scales.
//!
//! A new type is one implementation of [`Weights`] here and one line in `table.rs`.

use super::simd::Simd;
use crate::quant::packed::{BLOCK, PANEL};

/// A type of 8-bit-or-less codes in the packed layout.
pub trait Weights: 'static {
    /// Bytes of the codes of a block.
    const CODE_BYTES: usize;
    /// Bytes of a record of scales.
    const SCALE_BYTES: usize;
    /// Codes are stored as q + offset; the offset is 128 >> `OFFSET_SHIFT`. `None`: codes are q itself, unsigned.
    const OFFSET_SHIFT: Option<i32>;
    /// Codes are at most 127.
    const SMALL: bool;
    /// Each weight is `scale * q + minimum`.
    const HAS_MINIMUM: bool;

    /// Codes of the input groups `step` and `step + 4` of a block, for `step` below 4.
    ///
    /// # Safety
    /// `codes` points at the block's codes; the CPU has the instructions of `S`.
    unsafe fn pair<S: Simd>(codes: *const u8, step: usize) -> [S::I; 2];

    /// The 16 rows' scales of block `block`.
    ///
    /// # Safety
    /// `scales` points at the panel's scales; the CPU has the instructions of `S`.
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize) -> S::F;

    /// The 16 rows' minima of block `block`; zero where there are none.
    ///
    /// # Safety
    /// As [`Weights::scale`].
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize) -> S::F;
}

/// The low and the high nibbles of 64 bytes.
///
/// # Safety
/// 64 bytes can be read at `codes`; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn nibbles<S: Simd>(codes: *const u8, step: usize) -> [S::I; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        let both = S::int_load(codes.add(64 * step));
        let low = S::int_splat(0x0f0f_0f0f);
        [S::int_and(both, low), S::int_and(S::shift_right::<4>(both), low)]
    }
}

/// 8-bit codes with a scale of f16 per block.
pub struct Q8_0;
// The functions' safety is the trait's.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Weights for Q8_0 {
    const CODE_BYTES: usize = BLOCK * PANEL;
    const SCALE_BYTES: usize = 2 * PANEL;
    const OFFSET_SHIFT: Option<i32> = Some(0);
    const SMALL: bool = false;
    const HAS_MINIMUM: bool = false;
    #[inline(always)]
    unsafe fn pair<S: Simd>(codes: *const u8, step: usize) -> [S::I; 2] {
        unsafe {
            [
                S::int_load(codes.add(64 * step)),
                S::int_load(codes.add(64 * (step + 4))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block * Self::SCALE_BYTES).cast()) }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(_: *const u8, _: usize) -> S::F {
        unsafe { S::splat(0.0) }
    }
}

/// 4-bit codes with a scale of f16 per block; q = code - 8.
pub struct Q4_0;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Weights for Q4_0 {
    const CODE_BYTES: usize = BLOCK * PANEL / 2;
    const SCALE_BYTES: usize = 2 * PANEL;
    const OFFSET_SHIFT: Option<i32> = Some(4);
    const SMALL: bool = true;
    const HAS_MINIMUM: bool = false;
    #[inline(always)]
    unsafe fn pair<S: Simd>(codes: *const u8, step: usize) -> [S::I; 2] {
        unsafe { nibbles::<S>(codes, step) }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block * Self::SCALE_BYTES).cast()) }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(_: *const u8, _: usize) -> S::F {
        unsafe { S::splat(0.0) }
    }
}

/// 4-bit codes with a scale and a minimum of f16 per block.
pub struct Q4_1;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Weights for Q4_1 {
    const CODE_BYTES: usize = BLOCK * PANEL / 2;
    const SCALE_BYTES: usize = 4 * PANEL;
    const OFFSET_SHIFT: Option<i32> = None;
    const SMALL: bool = true;
    const HAS_MINIMUM: bool = true;
    #[inline(always)]
    unsafe fn pair<S: Simd>(codes: *const u8, step: usize) -> [S::I; 2] {
        unsafe { nibbles::<S>(codes, step) }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block * Self::SCALE_BYTES).cast()) }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block * Self::SCALE_BYTES + 2 * PANEL).cast()) }
    }
}
