//! Weight types as the matmul sees them: how a block becomes vectors of unsigned codes, and its scales.
//!
//! Most types are a pair: planes of codes ([`Codes`]) and a record of scales ([`Scales`]). A new type is one line at
//! the end of this file and two in `table.rs`; `quant/packed` writes what is read here.

mod factors;
mod planes;
mod scales;

pub use planes::Whole;
pub use scales::Floats;

use super::simd::Simd;
use crate::format::dtype::DataType;

/// Planes that hold the codes of a block.
pub trait Codes: 'static {
    /// Bytes of a block.
    const BYTES: usize;
    /// Codes are q + 128; otherwise q itself, at most 127.
    const CENTERED: bool;
    /// From how many tokens on it is faster to decode such codes to memory; measured on Zen 5.
    const MANY_FROM: usize;
    /// The same codes as bytes.
    type Unpacked: Codes;

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
    /// Scales of a row and block: 1, or 2 for those of inputs 0 to 15 and 16 to 31.
    const HALVES: usize;
    /// Minima of a row and block; see [`Weights::minimum`].
    const MINIMA: usize;
    /// From how many tokens on it is faster to decode such scales to memory; measured on Zen 5.
    const MANY_FROM: usize;
    /// The same scales as f32.
    type Unpacked: Scales;

    /// See [`Weights::scale`].
    ///
    /// # Safety
    /// As there.
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F;

    /// See [`Weights::STEPPED`].
    const STEPPED: bool = false;

    /// See [`Weights::stepped`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn stepped<S: Simd>(_scales: *const u8, _block: usize, _half: usize, _step: usize) -> S::F {
        // SAFETY: register operations; the caller has the instructions.
        unsafe { S::splat(0.0) }
    }

    /// See [`Weights::minimum`].
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    unsafe fn minimum<S: Simd>(_scales: *const u8, _block: usize, _index: usize) -> S::F {
        // SAFETY: register operations; the caller has the instructions.
        unsafe { S::splat(0.0) }
    }
}

/// A type of 8-bit-or-less codes in the packed layout. Nearly all are pairs of [`Codes`] and [`Scales`].
pub trait Weights: 'static {
    /// Bytes of the codes of a block.
    const CODE_BYTES: usize;
    /// Codes are q + 128; otherwise q itself, at most 127.
    const CENTERED: bool;
    /// From how many tokens on it is faster to decode to memory, as measured by [`super::Strategy`].
    const MANY_FROM: usize;
    /// Scales of a row and block: 1, or 2 for those of inputs 0 to 15 and 16 to 31.
    const HALVES: usize;
    /// Minima of a row and block; see [`Weights::minimum`].
    const MINIMA: usize;
    /// The same weights as bytes and f32.
    type Unpacked: Weights;

    /// Codes of the input groups `STEP` and `STEP + 4` of a block, for `STEP` below 4: one of each half.
    ///
    /// # Safety
    /// `codes` points at the block's codes, `scales` at the panel's scales; the CPU has the instructions of `S`.
    unsafe fn pair<S: Simd, const STEP: usize>(
        codes: *const u8,
        scales: *const u8,
        block: usize,
    ) -> [S::I; 2];

    /// Codes of one of the 8 input groups of a block. The group is data, so there is no branch on it.
    ///
    /// # Safety
    /// As [`Weights::pair`].
    unsafe fn group<S: Simd>(codes: *const u8, scales: *const u8, block: usize, group: usize) -> S::I;

    /// The 16 rows' scales of one half of block `block`.
    ///
    /// # Safety
    /// `scales` points at the panel's scales; the CPU has the instructions of `S`.
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F;

    /// Whether the scales are stored times each of the eight mantissas that activations' scales have; otherwise they are
    /// multiplied as they are needed, with the same result.
    const STEPPED: bool = false;

    /// The scales of one half of block `block` times the mantissa number `step / 64`; only where they are stored so.
    ///
    /// # Safety
    /// As [`Weights::scale`]; `step` is a multiple of 64 below 512.
    #[inline(always)]
    unsafe fn stepped<S: Simd>(_scales: *const u8, _block: usize, _half: usize, _step: usize) -> S::F {
        // SAFETY: register operations; the caller has the instructions.
        unsafe { S::splat(0.0) }
    }

    /// The 16 rows' minima of block `block`: what the sum of the block's activations is multiplied with (`index` 0), and
    /// the sum of the first 16 alone (`index` 1).
    ///
    /// # Safety
    /// As [`Weights::scale`].
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize, index: usize) -> S::F;
}

// The functions' safety is the trait's.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<C: Codes, K: Scales> Weights for (C, K) {
    const CODE_BYTES: usize = C::BYTES;
    const CENTERED: bool = C::CENTERED;
    const MANY_FROM: usize = if C::MANY_FROM < K::MANY_FROM {
        C::MANY_FROM
    } else {
        K::MANY_FROM
    };
    const HALVES: usize = K::HALVES;
    const MINIMA: usize = K::MINIMA;
    type Unpacked = (C::Unpacked, K::Unpacked);
    #[inline(always)]
    unsafe fn pair<S: Simd, const STEP: usize>(codes: *const u8, _: *const u8, _: usize) -> [S::I; 2] {
        unsafe { C::pair::<S, STEP>(codes) }
    }
    #[inline(always)]
    unsafe fn group<S: Simd>(codes: *const u8, _: *const u8, _: usize, group: usize) -> S::I {
        unsafe { C::group::<S>(codes, group) }
    }
    #[inline(always)]
    unsafe fn scale<S: Simd>(scales: *const u8, block: usize, half: usize) -> S::F {
        unsafe { K::scale::<S>(scales, block, half) }
    }
    const STEPPED: bool = K::STEPPED;
    #[inline(always)]
    unsafe fn stepped<S: Simd>(scales: *const u8, block: usize, half: usize, step: usize) -> S::F {
        unsafe { K::stepped::<S>(scales, block, half, step) }
    }
    #[inline(always)]
    unsafe fn minimum<S: Simd>(scales: *const u8, block: usize, index: usize) -> S::F {
        unsafe { K::minimum::<S>(scales, block, index) }
    }
}

/// The types by name; IQ2_S is multiplied as IQ2_XS, TQ1_0 as TQ2_0, MCF's Q8 and Q4 as Q8_0 and Q4_0.
pub mod types {
    use super::factors::{ThreeBitsWithFactors, TwoBitsWithFactors};
    use super::planes::*;
    use super::scales::*;
    use crate::quant::packed::books::*;

    macro_rules! types {
        ($($name:ident = $weights:ty;)*) => { $(
            #[doc = concat!("How ", stringify!($name), " is decoded.")]
            #[allow(non_camel_case_types)]
            pub type $name = $weights;
        )* };
    }
    types! {
        Q8_0 = (Bytes, Half<1>);
        Q4_0 = (Nibbles<true>, Half<1>);
        Q4_1 = (Nibbles<false>, HalfAndMinimum);
        Q5_0 = (FiveBits<true>, Half<1>);
        Q5_1 = (FiveBits<false>, HalfAndMinimum);
        Q2_K = TwoBitsWithFactors;
        Q3_K = ThreeBitsWithFactors;
        Q4_K = (Nibbles<false>, SuperAndMinimum);
        Q5_K = (FiveBits<false>, SuperAndMinimum);
        Q6_K = (SixBits, Super<2, 0>);
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
        K6 = (SixBits, Super<1, 5>);
        K4 = (Nibbles<true>, Super<1, 5>);
        K3 = (ThreeBits, Super<1, 5>);
        K2 = (Crumbs<2>, Super<1, 5>);
    }
}

/// From how many tokens on weights of a type are decoded in the cache; `None` for types without codes.
pub fn many_from(dtype: DataType) -> Option<usize> {
    macro_rules! find {
        ($($dtype:ident = $name:ident;)*) => {
            match dtype {
                $(DataType::$dtype => Some(<types::$name as Weights>::MANY_FROM),)*
                _ => None,
            }
        };
    }
    find! {
        Q8_0 = Q8_0; Q4_0 = Q4_0; Q4_1 = Q4_1; Q5_0 = Q5_0; Q5_1 = Q5_1; Q2_K = Q2_K; Q3_K = Q3_K; Q4_K = Q4_K;
        Q5_K = Q5_K; Q6_K = Q6_K; IQ4_NL = IQ4_NL; IQ4_XS = IQ4_XS; IQ1_S = IQ1_S; IQ1_M = IQ1_M;
        IQ2_XXS = IQ2_XXS; IQ2_XS = IQ2_XS; IQ2_S = IQ2_XS; IQ3_XXS = IQ3_XXS; IQ3_S = IQ3_S; TQ1_0 = TQ2_0;
        TQ2_0 = TQ2_0; Q1_0 = Q1_0; Q2_0 = Q2_0; MXFP4 = MXFP4; NVFP4 = NVFP4; Q8 = Q8_0; Q4 = Q4_0; K6 = K6; K4 = K4; K3 = K3;
        K2 = K2;
    }
}
