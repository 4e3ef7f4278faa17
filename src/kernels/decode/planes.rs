//! Planes of codes.

use super::Codes;
use crate::kernels::simd::Simd;
use crate::quant::packed::books::Book;
use crate::quant::packed::{BLOCK, PANEL};
use std::marker::PhantomData;

/// Shifts bits that stand at `FROM` to `TO`, in every 32-bit lane.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn move_bits<S: Simd>(value: S::I, from: usize, to: usize) -> S::I {
    // SAFETY: register operations; the caller has the instructions. `from` and `to` are constants after inlining.
    unsafe {
        match (to + 8).wrapping_sub(from) {
            1 => S::shift_right::<7>(value),
            2 => S::shift_right::<6>(value),
            3 => S::shift_right::<5>(value),
            4 => S::shift_right::<4>(value),
            5 => S::shift_right::<3>(value),
            6 => S::shift_right::<2>(value),
            7 => S::shift_right::<1>(value),
            9 => S::shift_left::<1>(value),
            10 => S::shift_left::<2>(value),
            11 => S::shift_left::<3>(value),
            12 => S::shift_left::<4>(value),
            13 => S::shift_left::<5>(value),
            14 => S::shift_left::<6>(value),
            15 => S::shift_left::<7>(value),
            _ => value,
        }
    }
}

/// `low` with the bits of `plane` that stand at `from` put at `to`; `mask` has the bits at `to` in every byte.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn with_high<S: Simd>(low: S::I, plane: S::I, from: usize, to: usize, mask: i32) -> S::I {
    // SAFETY: register operations; the caller has the instructions.
    unsafe {
        let high = S::int_and(move_bits::<S>(plane, from, to), S::int_splat(mask));
        S::int_or(low, high)
    }
}

/// The low and the high nibbles of the `step`-th 64 bytes.
///
/// # Safety
/// These bytes can be read; the CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn nibbles<S: Simd>(codes: *const u8, step: usize) -> [S::I; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        let both = S::int_load(codes.add(64 * step));
        let low = S::int_splat(0x0f0f_0f0f);
        [S::int_and(both, low), S::int_and(S::shift_right::<4>(both), low)]
    }
}

/// The 2-bit codes of groups `step` and `step + 4`: each half of the inputs has its 64 bytes, group k at bit 2k.
///
/// # Safety
/// 128 bytes can be read; the CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn crumbs<S: Simd>(codes: *const u8, step: usize) -> [S::I; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        let low = S::int_splat(0x0303_0303);
        [
            S::int_and(move_bits::<S>(S::int_load(codes), 2 * step, 0), low),
            S::int_and(move_bits::<S>(S::int_load(codes.add(64)), 2 * step, 0), low),
        ]
    }
}

/// Ors in a plane of one bit per code, group k at bit k of its 64 bytes, as bit `to` of the codes.
///
/// # Safety
/// 64 bytes can be read at `plane`; the CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn with_one_bit<S: Simd>(
    low: [S::I; 2],
    plane: *const u8,
    step: usize,
    to: usize,
) -> [S::I; 2] {
    // SAFETY: as the caller promises.
    unsafe {
        let plane = S::int_load(plane);
        let mask = 0x0101_0101 << to;
        [
            with_high::<S>(low[0], plane, step, to, mask),
            with_high::<S>(low[1], plane, step + 4, to, mask),
        ]
    }
}

/// The nibbles of group `group`.
///
/// # Safety
/// 256 bytes can be read; the CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn nibbles_of<S: Simd>(codes: *const u8, group: usize) -> S::I {
    // SAFETY: as the caller promises.
    unsafe {
        let both = S::int_load(codes.add(64 * (group % 4)));
        let shifted = S::shift_right_by(both, (group / 4 * 4) as u32);
        S::int_and(shifted, S::int_splat(0x0f0f_0f0f))
    }
}

/// The 2-bit codes of group `group`, laid out as for [`crumbs`].
///
/// # Safety
/// 128 bytes can be read; the CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn crumbs_of<S: Simd>(codes: *const u8, group: usize) -> S::I {
    // SAFETY: as the caller promises.
    unsafe {
        let plane = S::int_load(codes.add(64 * (group / 4)));
        let shifted = S::shift_right_by(plane, (group % 4 * 2) as u32);
        S::int_and(shifted, S::int_splat(0x0303_0303))
    }
}

/// The single bits of group `group`.
///
/// # Safety
/// 64 bytes can be read; the CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn bits_of<S: Simd>(plane: *const u8, group: usize) -> S::I {
    // SAFETY: as the caller promises.
    unsafe {
        let shifted = S::shift_right_by(S::int_load(plane), group as u32);
        S::int_and(shifted, S::int_splat(0x0101_0101))
    }
}

/// Adds `more` to the codes of a pair, so that 128 stands for zero; nothing where codes have no sign.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn centered<S: Simd>(pair: [S::I; 2], more: u8) -> [S::I; 2] {
    if more == 0 {
        return pair;
    }
    // SAFETY: register operations; the caller has the instructions.
    unsafe {
        let more = S::int_splat(i32::from_le_bytes([more; 4]));
        [S::byte_add(pair[0], more), S::byte_add(pair[1], more)]
    }
}

/// 8-bit codes; 128 stands for zero.
pub struct Bytes;
// The functions' safety is the trait's, here and below.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Codes for Bytes {
    const BYTES: usize = BLOCK * PANEL;
    const CENTERED: bool = true;
    const MANY_FROM: usize = usize::MAX;
    type Unpacked = Whole<true>;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe {
            [
                S::int_load(codes.add(64 * STEP)),
                S::int_load(codes.add(64 * (STEP + 4))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe { S::int_load(codes.add(64 * group)) }
    }
}

/// 4-bit codes; with `CENTERED`, 8 stands for zero.
pub struct Nibbles<const CENTERED: bool>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const CENTERED: bool> Codes for Nibbles<CENTERED> {
    const BYTES: usize = BLOCK * PANEL / 2;
    const CENTERED: bool = CENTERED;
    const MANY_FROM: usize = if CENTERED { usize::MAX } else { 36 };
    type Unpacked = Whole<CENTERED>;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe { centered::<S>(nibbles::<S>(codes, STEP), if CENTERED { 120 } else { 0 }) }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe {
            let code = nibbles_of::<S>(codes, group);
            centered::<S>([code; 2], if CENTERED { 120 } else { 0 })[0]
        }
    }
}

/// 5-bit codes: nibbles, and a plane of the highest bits; with `CENTERED`, 16 stands for zero.
pub struct FiveBits<const CENTERED: bool>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const CENTERED: bool> Codes for FiveBits<CENTERED> {
    const BYTES: usize = BLOCK * PANEL * 5 / 8;
    const CENTERED: bool = CENTERED;
    const MANY_FROM: usize = 24;
    type Unpacked = Whole<CENTERED>;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe {
            let pair = with_one_bit::<S>(nibbles::<S>(codes, STEP), codes.add(BLOCK * PANEL / 2), STEP, 4);
            centered::<S>(pair, if CENTERED { 112 } else { 0 })
        }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe {
            let high = bits_of::<S>(codes.add(BLOCK * PANEL / 2), group);
            let code = S::int_or(nibbles_of::<S>(codes, group), S::shift_left::<4>(high));
            centered::<S>([code; 2], if CENTERED { 112 } else { 0 })[0]
        }
    }
}

/// 6-bit codes, 32 stands for zero: nibbles, and for each half of the inputs a plane of the two highest bits.
pub struct SixBits;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Codes for SixBits {
    const BYTES: usize = BLOCK * PANEL * 6 / 8;
    const CENTERED: bool = true;
    const MANY_FROM: usize = 24;
    type Unpacked = Whole<true>;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe {
            let low = nibbles::<S>(codes, STEP);
            let plane = codes.add(BLOCK * PANEL / 2);
            let pair = [
                with_high::<S>(low[0], S::int_load(plane), 2 * STEP, 4, 0x3030_3030),
                with_high::<S>(low[1], S::int_load(plane.add(64)), 2 * STEP, 4, 0x3030_3030),
            ];
            centered::<S>(pair, 96)
        }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe {
            let high = crumbs_of::<S>(codes.add(BLOCK * PANEL / 2), group);
            let code = S::int_or(nibbles_of::<S>(codes, group), S::shift_left::<4>(high));
            centered::<S>([code; 2], 96)[0]
        }
    }
}

/// 2-bit codes; `ZERO`, 1 or 2, stands for zero.
pub struct Crumbs<const ZERO: u8>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const ZERO: u8> Codes for Crumbs<ZERO> {
    const BYTES: usize = BLOCK * PANEL / 4;
    const CENTERED: bool = true;
    const MANY_FROM: usize = usize::MAX;
    type Unpacked = Whole<true>;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe { centered::<S>(crumbs::<S>(codes, STEP), 128 - ZERO) }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe { centered::<S>([crumbs_of::<S>(codes, group); 2], 128 - ZERO)[0] }
    }
}

/// 3-bit codes, 4 stands for zero: 2-bit codes, and a plane of the highest bits.
pub struct ThreeBits;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Codes for ThreeBits {
    const BYTES: usize = BLOCK * PANEL * 3 / 8;
    const CENTERED: bool = true;
    const MANY_FROM: usize = 24;
    type Unpacked = Whole<true>;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe {
            let pair = with_one_bit::<S>(crumbs::<S>(codes, STEP), codes.add(BLOCK * PANEL / 4), STEP, 2);
            centered::<S>(pair, 124)
        }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe {
            let high = bits_of::<S>(codes.add(BLOCK * PANEL / 4), group);
            let code = S::int_or(crumbs_of::<S>(codes, group), S::shift_left::<2>(high));
            centered::<S>([code; 2], 124)[0]
        }
    }
}

/// Codes that were decoded to bytes.
pub struct Whole<const CENTERED: bool>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const CENTERED: bool> Codes for Whole<CENTERED> {
    const BYTES: usize = BLOCK * PANEL;
    const CENTERED: bool = CENTERED;
    const MANY_FROM: usize = usize::MAX;
    type Unpacked = Whole<CENTERED>;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe { Bytes::pair::<S, STEP>(codes) }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe { Bytes::group::<S>(codes, group) }
    }
}

/// 4-bit codes that name one of 16 values.
pub struct Named<B>(PhantomData<B>);
#[allow(clippy::undocumented_unsafe_blocks)]
impl<B: Book> Codes for Named<B> {
    const BYTES: usize = BLOCK * PANEL / 2;
    const CENTERED: bool = true;
    const MANY_FROM: usize = usize::MAX;
    type Unpacked = Whole<true>;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe {
            let names = nibbles::<S>(codes, STEP);
            let table = S::int_load_16(B::UNSIGNED.as_ptr());
            [S::shuffle(table, names[0]), S::shuffle(table, names[1])]
        }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe {
            let table = S::int_load_16(B::UNSIGNED.as_ptr());
            S::shuffle(table, nibbles_of::<S>(codes, group))
        }
    }
}
