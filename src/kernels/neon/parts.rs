//! What is done with one register of NEON.
//!
//! What std::arch keeps for its nightly compilers is written in assembly, one instruction each.
//!
//! Every function is `unsafe` because the CPU must have the instructions, and pointers must be valid.

#![allow(clippy::missing_safety_doc)]

use std::arch::aarch64::*;
use std::arch::asm;

/// How four products of bytes are summed: what the tiers differ in.
pub trait Products: Copy + 'static {
    /// Whether the instructions multiply signed bytes; otherwise `w` is unsigned.
    const SIGNED: bool;
    /// Tokens in the register tile of a matmul.
    const TILE_TOKENS: usize;
    /// Per lane: `sum + w0 x0 + w1 x1 + w2 x2 + w3 x3`, `x` signed bytes above -128.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn dot(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// NEON alone: products of 16 bits, two of which fit into 16 bits.
#[derive(Clone, Copy)]
pub struct Widening;
/// `sdot`.
#[derive(Clone, Copy)]
pub struct SignedDot;
/// `usdot`.
#[derive(Clone, Copy)]
pub struct MixedDot;

impl Products for Widening {
    const SIGNED: bool = true;
    const TILE_TOKENS: usize = 2;
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: register operations only.
        unsafe {
            let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
            let high = vmull_high_s8(w, x);
            // 2 * 128 * 127 fits into 16 bits.
            vpadalq_s16(sum, vpaddq_s16(low, high))
        }
    }
}

impl Products for SignedDot {
    const SIGNED: bool = true;
    const TILE_TOKENS: usize = 4;
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        let mut sum = sum;
        // SAFETY: registers only; the caller promises the instruction.
        unsafe {
            asm!("sdot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }
}

impl Products for MixedDot {
    const SIGNED: bool = false;
    const TILE_TOKENS: usize = 4;
    #[inline(always)]
    unsafe fn dot(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
        let mut sum = sum;
        // SAFETY: registers only; the caller promises the instruction.
        unsafe {
            asm!("usdot {sum:v}.4s, {w:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum, w = in(vreg) w, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }
}

/// Per byte, wrapping.
#[inline(always)]
pub unsafe fn byte_add_4(a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: register operations only.
    unsafe { vreinterpretq_s32_s8(vaddq_s8(vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b))) }
}

/// Bytes of `table` by index; 0 for an index above 15.
#[inline(always)]
pub unsafe fn shuffle_4(table: int32x4_t, index: int32x4_t) -> int32x4_t {
    // SAFETY: register operations only.
    unsafe {
        let (table, index) = (vreinterpretq_u8_s32(table), vreinterpretq_u8_s32(index));
        vreinterpretq_s32_u8(vqtbl1q_u8(table, index))
    }
}

/// Logical, per lane.
#[inline(always)]
pub unsafe fn shift_right_4<const N: i32>(a: int32x4_t) -> int32x4_t {
    // SAFETY: register operations only.
    unsafe { vreinterpretq_s32_u32(vshrq_n_u32::<N>(vreinterpretq_u32_s32(a))) }
}

/// Logical, per lane, by `count`; to the right where that is negative.
#[inline(always)]
pub unsafe fn shift_by_4(a: int32x4_t, count: int32x4_t) -> int32x4_t {
    // SAFETY: register operations only.
    unsafe { vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), count)) }
}

/// 128 less, per byte.
#[inline(always)]
pub unsafe fn center_4(w: int32x4_t) -> int32x4_t {
    // SAFETY: register operations only.
    unsafe { vreinterpretq_s32_s8(veorq_s8(vreinterpretq_s8_s32(w), vdupq_n_s8(i8::MIN))) }
}

/// See [`Products::dot`].
#[inline(always)]
pub unsafe fn dot_4<D: Products>(sum: int32x4_t, w: int32x4_t, x: int32x4_t) -> int32x4_t {
    // SAFETY: the caller has the instructions of `D`.
    unsafe { D::dot(sum, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x)) }
}

/// See [`crate::kernels::simd::Simd::max`].
#[inline(always)]
pub unsafe fn max_4(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: register operations only.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

/// See [`crate::kernels::simd::Simd::select_less`].
#[inline(always)]
pub unsafe fn select_less_4(
    a: float32x4_t,
    b: float32x4_t,
    yes: float32x4_t,
    no: float32x4_t,
) -> float32x4_t {
    // SAFETY: register operations only.
    unsafe { vbslq_f32(vcltq_f32(a, b), yes, no) }
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub unsafe fn fma_4(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
    // SAFETY: register operations only.
    unsafe { vfmaq_f32(c, a, b) }
}

/// The low 16 bits of every lane, those of `a` first.
#[inline(always)]
pub unsafe fn low_halves(a: int32x4_t, b: int32x4_t) -> int16x8_t {
    // SAFETY: register operations only.
    unsafe { vuzp1q_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b)) }
}

/// Lane i of vector j becomes lane j of vector i.
#[inline(always)]
pub unsafe fn transpose_4(
    a: float32x4_t,
    b: float32x4_t,
    c: float32x4_t,
    d: float32x4_t,
) -> [float32x4_t; 4] {
    // SAFETY: register operations only.
    unsafe {
        // a0 b0 a2 b2, a1 b1 a3 b3, and the same of c and d: then pairs of lanes are put together.
        let ab = [vtrn1q_f32(a, b), vtrn2q_f32(a, b)];
        let cd = [vtrn1q_f32(c, d), vtrn2q_f32(c, d)];
        let (ab, cd) = (
            [vreinterpretq_f64_f32(ab[0]), vreinterpretq_f64_f32(ab[1])],
            [vreinterpretq_f64_f32(cd[0]), vreinterpretq_f64_f32(cd[1])],
        );
        [
            vreinterpretq_f32_f64(vtrn1q_f64(ab[0], cd[0])),
            vreinterpretq_f32_f64(vtrn1q_f64(ab[1], cd[1])),
            vreinterpretq_f32_f64(vtrn2q_f64(ab[0], cd[0])),
            vreinterpretq_f32_f64(vtrn2q_f64(ab[1], cd[1])),
        ]
    }
}

/// Eight f16 as f32.
#[inline(always)]
pub unsafe fn load_f16_8(from: *const u16) -> [float32x4_t; 2] {
    let (low, high): (float32x4_t, float32x4_t);
    // SAFETY: the caller promises eight values; then registers only.
    unsafe {
        let halves = vld1q_u16(from);
        asm!("fcvtl {low:v}.4s, {halves:v}.4h",
            low = lateout(vreg) low, halves = in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
        asm!("fcvtl2 {high:v}.4s, {halves:v}.8h",
            high = lateout(vreg) high, halves = in(vreg) halves, options(pure, nomem, nostack, preserves_flags));
    }
    [low, high]
}

/// Eight f32 as f16, rounded to nearest even.
#[inline(always)]
pub unsafe fn store_f16_8(to: *mut u16, low: float32x4_t, high: float32x4_t) {
    // SAFETY: registers only; the caller promises room for eight values.
    unsafe {
        let mut halves: uint16x8_t;
        asm!("fcvtn {halves:v}.4h, {low:v}.4s",
            halves = lateout(vreg) halves, low = in(vreg) low, options(pure, nomem, nostack, preserves_flags));
        asm!("fcvtn2 {halves:v}.8h, {high:v}.4s",
            halves = inout(vreg) halves, high = in(vreg) high, options(pure, nomem, nostack, preserves_flags));
        vst1q_u16(to, halves);
    }
}

/// Eight bf16 as f32.
#[inline(always)]
pub unsafe fn load_bf16_8(from: *const u16) -> [float32x4_t; 2] {
    // SAFETY: the caller promises eight values; then registers only.
    unsafe {
        let halves = vld1q_u16(from);
        let low = vshlq_n_u32::<16>(vmovl_u16(vget_low_u16(halves)));
        let high = vshlq_n_u32::<16>(vmovl_high_u16(halves));
        [vreinterpretq_f32_u32(low), vreinterpretq_f32_u32(high)]
    }
}

/// The sign of the value, where `clear` is all ones; otherwise the value.
#[inline(always)]
pub unsafe fn sign_where(clear: uint32x4_t, value: float32x4_t) -> float32x4_t {
    // SAFETY: register operations only.
    unsafe {
        let magnitude = vandq_u32(clear, vdupq_n_u32(0x7fff_ffff));
        vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(value), magnitude))
    }
}

/// The value, a denormal as zero of its sign.
#[inline(always)]
pub unsafe fn flush(value: float32x4_t) -> float32x4_t {
    // SAFETY: register operations only.
    unsafe { sign_where(vcaltq_f32(value, vdupq_n_f32(f32::MIN_POSITIVE)), value) }
}

/// The first bf16 of each pair as f32, a denormal as zero.
#[inline(always)]
pub unsafe fn even(pairs: int32x4_t) -> float32x4_t {
    // SAFETY: register operations only.
    unsafe { flush(vreinterpretq_f32_s32(vshlq_n_s32::<16>(pairs))) }
}

/// The second bf16 of each pair as f32, a denormal as zero.
#[inline(always)]
pub unsafe fn odd(pairs: int32x4_t) -> float32x4_t {
    // SAFETY: register operations only.
    unsafe {
        flush(vreinterpretq_f32_s32(vandq_s32(
            pairs,
            vdupq_n_s32(0xffff_0000_u32 as i32),
        )))
    }
}

/// Flushes a result of `w * x + sum` that is at most 2^-126, as `avx2.rs` does it and explains it.
#[inline(always)]
pub unsafe fn flush_result(
    result: float32x4_t,
    w: float32x4_t,
    x: float32x4_t,
    sum: float32x4_t,
) -> float32x4_t {
    // SAFETY: register operations only.
    unsafe {
        let smallest = vdupq_n_f32(f32::MIN_POSITIVE);
        let small = vcaleq_f32(result, smallest);
        let edge = vceqq_f32(vabsq_f32(result), smallest);
        let scale = vdupq_n_f32(18_446_744_073_709_551_616.0); // 2^64
        let rest = vmulq_f32(vsubq_f32(sum, result), scale);
        let error = vfmaq_f32(rest, vmulq_f32(w, scale), x);
        let sign = vandq_u32(vreinterpretq_u32_f32(result), vdupq_n_u32(1 << 31));
        let towards_zero = vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(error), sign));
        let below = vcltq_f32(towards_zero, vdupq_n_f32(-6.462_348_5e-27)); // -2^-151 * 2^64
        sign_where(vbicq_u32(small, vbicq_u32(edge, below)), result)
    }
}
