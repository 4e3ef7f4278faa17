//! Weight types as the matmul sees them: how a block becomes vectors of unsigned codes, and its scales.
//!
//! A type is a pair: planes of codes ([`Codes`]) and a record of scales ([`Scales`]). A new type is one line at the
//! end of this file and two in `table.rs`; `quant/packed` writes what is read here.

use super::simd::Simd;
use crate::quant::packed::books::{Book, E2m1Book, Iq1Book, Iq2Book, Iq3sBook, Iq3xxsBook, Iq4Book};
use crate::quant::packed::{BLOCK, PANEL};
use std::marker::PhantomData;

/// Planes that hold the codes of a block.
pub trait Codes: 'static {
    /// Bytes of a block.
    const BYTES: usize;
    /// Codes are stored as q + offset; 0 or a power of two up to 128.
    const OFFSET: u8;
    /// Codes are at most 127.
    const SMALL: bool;

    /// Codes of the input groups `STEP` and `STEP + 4` of a block, for `STEP` below 4: one of each half.
    ///
    /// # Safety
    /// `codes` points at the block's codes; the CPU has the instructions of `S`.
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2];

    /// Codes of one of the 8 input groups of a block. The group is data, so there is no branch on it.
    ///
    /// # Safety
    /// As [`Codes::pair`].
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I;
}

/// Records of scales.
pub trait Scales: 'static {
    /// Bytes of a record.
    const BYTES: usize;
    /// Scales of a row and block: 1, or 2 for those of inputs 0 to 15 and 16 to 31.
    const HALVES: usize;
    /// Each weight is `scale * q + minimum`.
    const HAS_MINIMUM: bool;

    /// The 16 rows' scales of one half of block `block`.
    ///
    /// # Safety
    /// `scales` points at the panel's scales; the CPU has the instructions of `S`.
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F;

    /// The 16 rows' minima of one half of block `block`; zero where there are none.
    ///
    /// # Safety
    /// As [`Scales::scale`].
    #[inline(always)]
    unsafe fn minimum<S: Simd>(_scales: *const u8, _block: usize, _half: usize) -> S::F {
        // SAFETY: register operations; the caller has the instructions.
        unsafe { S::splat(0.0) }
    }
}

/// A type of 8-bit-or-less codes in the packed layout.
pub trait Weights: 'static {
    /// Its codes.
    type Codes: Codes;
    /// Its scales.
    type Scales: Scales;
}

impl<C: Codes, K: Scales> Weights for (C, K) {
    type Codes = C;
    type Scales = K;
}

/// Shifts bits that stand at `FROM` to `TO`, in every 32-bit lane.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
unsafe fn move_bits<S: Simd>(value: S::I, from: usize, to: usize) -> S::I {
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
            _ => value,
        }
    }
}

/// `low` with the bits of `plane` that stand at `from` put at `to`; `mask` has the bits at `to` in every byte.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
unsafe fn with_high<S: Simd>(low: S::I, plane: S::I, from: usize, to: usize, mask: i32) -> S::I {
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
unsafe fn nibbles<S: Simd>(codes: *const u8, step: usize) -> [S::I; 2] {
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
unsafe fn crumbs<S: Simd>(codes: *const u8, step: usize) -> [S::I; 2] {
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
unsafe fn with_one_bit<S: Simd>(low: [S::I; 2], plane: *const u8, step: usize, to: usize) -> [S::I; 2] {
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
unsafe fn nibbles_of<S: Simd>(codes: *const u8, group: usize) -> S::I {
    // SAFETY: as the caller promises.
    unsafe {
        let both = S::int_load(codes.add(64 * (group % 4)));
        S::int_and(
            S::shift_right_by(both, (group / 4 * 4) as u32),
            S::int_splat(0x0f0f_0f0f),
        )
    }
}

/// The 2-bit codes of group `group`, laid out as for [`crumbs`].
///
/// # Safety
/// 128 bytes can be read; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn crumbs_of<S: Simd>(codes: *const u8, group: usize) -> S::I {
    // SAFETY: as the caller promises.
    unsafe {
        let plane = S::int_load(codes.add(64 * (group / 4)));
        S::int_and(
            S::shift_right_by(plane, (group % 4 * 2) as u32),
            S::int_splat(0x0303_0303),
        )
    }
}

/// The single bits of group `group`.
///
/// # Safety
/// 64 bytes can be read; the CPU has the instructions of `S`.
#[inline(always)]
unsafe fn bits_of<S: Simd>(plane: *const u8, group: usize) -> S::I {
    // SAFETY: as the caller promises.
    unsafe {
        S::int_and(
            S::shift_right_by(S::int_load(plane), group as u32),
            S::int_splat(0x0101_0101),
        )
    }
}

/// 8-bit codes.
pub struct Bytes;
// The functions' safety is the trait's, here and below.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Codes for Bytes {
    const BYTES: usize = BLOCK * PANEL;
    const OFFSET: u8 = 128;
    const SMALL: bool = false;
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

/// 4-bit codes.
pub struct Nibbles<const OFFSET: u8>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const OFFSET: u8> Codes for Nibbles<OFFSET> {
    const BYTES: usize = BLOCK * PANEL / 2;
    const OFFSET: u8 = OFFSET;
    const SMALL: bool = true;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe { nibbles::<S>(codes, STEP) }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe { nibbles_of::<S>(codes, group) }
    }
}

/// 5-bit codes: nibbles, and a plane of the highest bits.
pub struct FiveBits<const OFFSET: u8>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const OFFSET: u8> Codes for FiveBits<OFFSET> {
    const BYTES: usize = BLOCK * PANEL * 5 / 8;
    const OFFSET: u8 = OFFSET;
    const SMALL: bool = true;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe { with_one_bit::<S>(nibbles::<S>(codes, STEP), codes.add(BLOCK * PANEL / 2), STEP, 4) }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe {
            let high = bits_of::<S>(codes.add(BLOCK * PANEL / 2), group);
            S::int_or(nibbles_of::<S>(codes, group), S::shift_left::<4>(high))
        }
    }
}

/// 6-bit codes: nibbles, and for each half of the inputs a plane of the two highest bits.
pub struct SixBits<const OFFSET: u8>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const OFFSET: u8> Codes for SixBits<OFFSET> {
    const BYTES: usize = BLOCK * PANEL * 6 / 8;
    const OFFSET: u8 = OFFSET;
    const SMALL: bool = true;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe {
            let low = nibbles::<S>(codes, STEP);
            let plane = codes.add(BLOCK * PANEL / 2);
            [
                with_high::<S>(low[0], S::int_load(plane), 2 * STEP, 4, 0x3030_3030),
                with_high::<S>(low[1], S::int_load(plane.add(64)), 2 * STEP, 4, 0x3030_3030),
            ]
        }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe {
            let high = crumbs_of::<S>(codes.add(BLOCK * PANEL / 2), group);
            S::int_or(nibbles_of::<S>(codes, group), S::shift_left::<4>(high))
        }
    }
}

/// 2-bit codes.
pub struct Crumbs<const OFFSET: u8>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const OFFSET: u8> Codes for Crumbs<OFFSET> {
    const BYTES: usize = BLOCK * PANEL / 4;
    const OFFSET: u8 = OFFSET;
    const SMALL: bool = true;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe { crumbs::<S>(codes, STEP) }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe { crumbs_of::<S>(codes, group) }
    }
}

/// 3-bit codes: 2-bit ones, and a plane of the highest bits.
pub struct ThreeBits<const OFFSET: u8>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const OFFSET: u8> Codes for ThreeBits<OFFSET> {
    const BYTES: usize = BLOCK * PANEL * 3 / 8;
    const OFFSET: u8 = OFFSET;
    const SMALL: bool = true;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe { with_one_bit::<S>(crumbs::<S>(codes, STEP), codes.add(BLOCK * PANEL / 4), STEP, 2) }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe {
            let high = bits_of::<S>(codes.add(BLOCK * PANEL / 4), group);
            S::int_or(crumbs_of::<S>(codes, group), S::shift_left::<2>(high))
        }
    }
}

/// 4-bit codes that name one of 16 values.
pub struct Named<B>(PhantomData<B>);
#[allow(clippy::undocumented_unsafe_blocks)]
impl<B: Book> Codes for Named<B> {
    const BYTES: usize = BLOCK * PANEL / 2;
    const OFFSET: u8 = 128;
    const SMALL: bool = false;
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8) -> [S::I; 2] {
        unsafe {
            let names = nibbles::<S>(codes, STEP);
            [
                S::lookup16(&B::UNSIGNED, names[0]),
                S::lookup16(&B::UNSIGNED, names[1]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, group: usize) -> S::I {
        unsafe { S::lookup16(&B::UNSIGNED, nibbles_of::<S>(codes, group)) }
    }
}

/// A scale of f16 for every `GROUP` blocks.
pub struct Half<const GROUP: usize>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const GROUP: usize> Scales for Half<GROUP> {
    const BYTES: usize = 2 * PANEL;
    const HALVES: usize = 1;
    const HAS_MINIMUM: bool = false;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block / GROUP * Self::BYTES).cast()) }
    }
}

/// A scale and a minimum of f16 for every block.
pub struct HalfAndMinimum;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Scales for HalfAndMinimum {
    const BYTES: usize = 4 * PANEL;
    const HALVES: usize = 1;
    const HAS_MINIMUM: bool = true;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block * Self::BYTES).cast()) }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe { S::load_f16(scales.add(block * Self::BYTES + 2 * PANEL).cast()) }
    }
}

/// A scale of f16 for 8 blocks, times `2^-FRACTION`, times a signed byte for each half (`HALVES` = 2) or whole of a block.
pub struct Super<const HALVES: usize, const FRACTION: i32>;
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const HALVES: usize, const FRACTION: i32> Scales for Super<HALVES, FRACTION> {
    const BYTES: usize = (2 + 8 * HALVES) * PANEL;
    const HALVES: usize = HALVES;
    const HAS_MINIMUM: bool = false;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F {
        unsafe {
            let record = scales.add(block / 8 * Self::BYTES);
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
    const BYTES: usize = (4 + 16) * PANEL;
    const HALVES: usize = 1;
    const HAS_MINIMUM: bool = true;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe {
            let record = scales.add(block / 8 * Self::BYTES);
            let sub = S::load_i8(record.add((4 + block % 8 * 2) * PANEL).cast());
            S::mul(S::load_f16(record.cast()), S::to_float(sub))
        }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize, _: usize) -> S::F {
        unsafe {
            let record = scales.add(block / 8 * Self::BYTES);
            let sub = S::load_i8(record.add((5 + block % 8 * 2) * PANEL).cast());
            let minimum = S::load_f16(record.add(2 * PANEL).cast());
            S::mul(minimum, S::to_float(S::int_sub(S::int_splat(0), sub)))
        }
    }
}

/// As [`SuperAndMinimum`] for halves of blocks, with 4 bits for the factor of the scale and 4 above for that of the minimum.
pub struct SuperAndMinimumNibbles;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Scales for SuperAndMinimumNibbles {
    const BYTES: usize = (4 + 16) * PANEL;
    const HALVES: usize = 2;
    const HAS_MINIMUM: bool = true;
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F {
        unsafe {
            let record = scales.add(block / 8 * Self::BYTES);
            let both = S::load_i8(record.add((4 + block % 8 * 2 + half) * PANEL).cast());
            let sub = S::int_and(both, S::int_splat(15));
            S::mul(S::load_f16(record.cast()), S::to_float(sub))
        }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F {
        unsafe {
            let record = scales.add(block / 8 * Self::BYTES);
            let both = S::load_i8(record.add((4 + block % 8 * 2 + half) * PANEL).cast());
            let sub = S::int_and(S::shift_right::<4>(both), S::int_splat(15));
            let minimum = S::load_f16(record.add(2 * PANEL).cast());
            S::mul(minimum, S::to_float(S::int_sub(S::int_splat(0), sub)))
        }
    }
}

/// A power of two for every block, as MXFP4 stores it: a byte e means 2^(e - 128).
pub struct PowerOfTwo;
#[allow(clippy::undocumented_unsafe_blocks)]
impl Scales for PowerOfTwo {
    const BYTES: usize = PANEL;
    const HALVES: usize = 1;
    const HAS_MINIMUM: bool = false;
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
    const BYTES: usize = 2 * PANEL;
    const HALVES: usize = 2;
    const HAS_MINIMUM: bool = false;
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

/// The types by name; IQ2_S is multiplied as IQ2_XS, TQ1_0 as TQ2_0.
pub mod types {
    use super::*;
    macro_rules! types {
        ($($name:ident = ($codes:ty, $scales:ty);)*) => { $(
            #[doc = concat!("Codes and scales of ", stringify!($name), ".")]
            #[allow(non_camel_case_types)]
            pub type $name = ($codes, $scales);
        )* };
    }
    types! {
        Q8_0 = (Bytes, Half<1>);
        Q4_0 = (Nibbles<8>, Half<1>);
        Q4_1 = (Nibbles<0>, HalfAndMinimum);
        Q5_0 = (FiveBits<16>, Half<1>);
        Q5_1 = (FiveBits<0>, HalfAndMinimum);
        Q2_K = (Crumbs<0>, SuperAndMinimumNibbles);
        Q3_K = (ThreeBits<4>, Super<2, 0>);
        Q4_K = (Nibbles<0>, SuperAndMinimum);
        Q5_K = (FiveBits<0>, SuperAndMinimum);
        Q6_K = (SixBits<32>, Super<2, 0>);
        IQ4_NL = (Named<Iq4Book>, Half<1>);
        IQ4_XS = (Named<Iq4Book>, Super<1, 0>);
        IQ1_S = (Named<Iq1Book>, Super<1, 3>);
        IQ1_M = (Named<Iq1Book>, Super<2, 3>);
        IQ2_XXS = (Named<Iq2Book>, Super<1, 3>);
        IQ2_XS = (Named<Iq2Book>, Super<2, 3>);
        IQ3_XXS = (Named<Iq3xxsBook>, Super<1, 2>);
        IQ3_S = (Named<Iq3sBook>, Super<1, 0>);
        TQ2_0 = (Crumbs<1>, Half<8>);
        Q1_0 = (Crumbs<1>, Half<4>);
        Q2_0 = (Crumbs<1>, Half<2>);
        MXFP4 = (Named<E2m1Book>, PowerOfTwo);
        NVFP4 = (Named<E2m1Book>, SmallFloat);
    }
}
