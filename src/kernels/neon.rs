//! NEON, which every aarch64 CPU has: by itself, with `sdot` (dotprod, from Armv8.2), and with `usdot` (i8mm, from Armv8.6).

mod parts;

use super::simd::{LANES, Simd};
use super::table::{Isa, Kernels};
use parts::*;
use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

type F = [float32x4_t; 4];
type I = [int32x4_t; 4];

/// NEON with the products of a tier.
#[derive(Clone, Copy)]
pub struct Neon<D>(PhantomData<D>);

/// A function of registers for each of the four. A macro, since a closure would lose the instructions of its kernel.
macro_rules! four {
    ($function:ident $(::<$n:ident>)? ($($argument:expr),+)) => {
        [
            $function$(::<$n>)?($($argument[0]),+),
            $function$(::<$n>)?($($argument[1]),+),
            $function$(::<$n>)?($($argument[2]),+),
            $function$(::<$n>)?($($argument[3]),+),
        ]
    };
}

/// Reads or writes 64 bytes, four registers.
macro_rules! load_four {
    ($function:ident($from:expr)) => {{
        let from = $from;
        [
            $function(from),
            $function(from.add(4)),
            $function(from.add(8)),
            $function(from.add(12)),
        ]
    }};
}
macro_rules! store_four {
    ($function:ident($to:expr, $value:expr)) => {{
        let (to, value) = ($to, $value);
        $function(to, value[0]);
        $function(to.add(4), value[1]);
        $function(to.add(8), value[2]);
        $function(to.add(12), value[3]);
    }};
}

/// `w * x + sum` with the flush of `vdpbf16ps`; see `scalar::fma_flushed`.
#[inline(always)]
unsafe fn fma_flushed(w: F, x: F, sum: F) -> F {
    // SAFETY: register operations only.
    unsafe {
        let result = four!(fma_4(w, x, sum));
        let smallest = [vdupq_n_f32(f32::MIN_POSITIVE); 4];
        let small = four!(vcaleq_f32(result, smallest));
        let any = vorrq_u32(vorrq_u32(small[0], small[1]), vorrq_u32(small[2], small[3]));
        if vmaxvq_u32(any) == 0 {
            return result;
        }
        four!(flush_result(result, w, x, sum))
    }
}

// SAFETY of the whole block: the caller promises that the CPU has the instructions and that pointers are valid.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<D: Products> Simd for Neon<D> {
    type F = F;
    type I = I;
    const CENTERS: bool = D::SIGNED;
    const TILE_PANELS: usize = 1;
    const TILE_TOKENS: usize = D::TILE_TOKENS;

    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        unsafe { [vdupq_n_f32(value); 4] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        unsafe { load_four!(vld1q_f32(from)) }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> F {
        let mut lanes = [0f32; LANES];
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
            Self::load(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        unsafe {
            let ([a, b], [c, d]) = (load_f16_8(from), load_f16_8(from.add(8)));
            [a, b, c, d]
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> F {
        unsafe {
            let ([a, b], [c, d]) = (load_bf16_8(from), load_bf16_8(from.add(8)));
            [a, b, c, d]
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: F) {
        unsafe { store_four!(vst1q_f32(to, value)) }
    }
    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, value: F, count: usize) {
        let mut lanes = [0f32; LANES];
        unsafe {
            Self::store(lanes.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count);
        }
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: F) {
        unsafe {
            store_f16_8(to, value[0], value[1]);
            store_f16_8(to.add(8), value[2], value[3]);
        }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        unsafe { four!(vaddq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        unsafe { four!(vsubq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        unsafe { four!(vmulq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        unsafe { four!(vdivq_f32(a, b)) }
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        unsafe { four!(fma_4(a, b, c)) }
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        unsafe { four!(max_4(a, b)) }
    }
    #[inline(always)]
    unsafe fn select_less(a: F, b: F, yes: F, no: F) -> F {
        unsafe { four!(select_less_4(a, b, yes, no)) }
    }
    #[inline(always)]
    unsafe fn to_int(value: F) -> I {
        unsafe { four!(vcvtnq_s32_f32(value)) }
    }
    #[inline(always)]
    unsafe fn to_float(value: I) -> F {
        unsafe { four!(vcvtq_f32_s32(value)) }
    }
    #[inline(always)]
    unsafe fn bits(value: F) -> I {
        unsafe { four!(vreinterpretq_s32_f32(value)) }
    }
    #[inline(always)]
    unsafe fn from_bits(value: I) -> F {
        unsafe { four!(vreinterpretq_f32_s32(value)) }
    }
    #[inline(always)]
    unsafe fn int_splat(value: i32) -> I {
        unsafe { [vdupq_n_s32(value); 4] }
    }
    #[inline(always)]
    unsafe fn int_broadcast(from: *const u8) -> I {
        unsafe { [vdupq_n_s32(from.cast::<i32>().read_unaligned()); 4] }
    }
    #[inline(always)]
    unsafe fn int_load(from: *const u8) -> I {
        unsafe { load_four!(vld1q_s32(from.cast::<i32>())) }
    }
    #[inline(always)]
    unsafe fn int_load_16(from: *const u8) -> I {
        unsafe { [vld1q_s32(from.cast()); 4] }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> I {
        unsafe {
            let bytes = vld1q_s8(from);
            let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_high_s16(low),
                vmovl_s16(vget_low_s16(high)),
                vmovl_high_s16(high),
            ]
        }
    }
    #[inline(always)]
    unsafe fn int_store(to: *mut u8, value: I) {
        unsafe { store_four!(vst1q_s32(to.cast::<i32>(), value)) }
    }
    #[inline(always)]
    unsafe fn byte_add(a: I, b: I) -> I {
        unsafe { four!(byte_add_4(a, b)) }
    }
    #[inline(always)]
    unsafe fn int_add(a: I, b: I) -> I {
        unsafe { four!(vaddq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn int_sub(a: I, b: I) -> I {
        unsafe { four!(vsubq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn int_and(a: I, b: I) -> I {
        unsafe { four!(vandq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn int_or(a: I, b: I) -> I {
        unsafe { four!(vorrq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn int_xor(a: I, b: I) -> I {
        unsafe { four!(veorq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn int_mul(a: I, b: I) -> I {
        unsafe { four!(vmulq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn int_max(a: I, b: I) -> I {
        unsafe { four!(vmaxq_s32(a, b)) }
    }
    #[inline(always)]
    unsafe fn shift_left<const N: i32>(a: I) -> I {
        unsafe { four!(vshlq_n_s32::<N>(a)) }
    }
    #[inline(always)]
    unsafe fn shift_right<const N: i32>(a: I) -> I {
        unsafe { four!(shift_right_4::<N>(a)) }
    }
    #[inline(always)]
    unsafe fn shift_right_by(a: I, count: u32) -> I {
        unsafe {
            let count = [vdupq_n_s32(-(count as i32)); 4];
            four!(shift_by_4(a, count))
        }
    }
    #[inline(always)]
    unsafe fn int_even(a: I, b: I) -> I {
        unsafe {
            [
                vuzp1q_s32(a[0], a[1]),
                vuzp1q_s32(a[2], a[3]),
                vuzp1q_s32(b[0], b[1]),
                vuzp1q_s32(b[2], b[3]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn int_odd(a: I, b: I) -> I {
        unsafe {
            [
                vuzp2q_s32(a[0], a[1]),
                vuzp2q_s32(a[2], a[3]),
                vuzp2q_s32(b[0], b[1]),
                vuzp2q_s32(b[2], b[3]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn shift_right_signed<const N: i32>(a: I) -> I {
        unsafe { four!(vshrq_n_s32::<N>(a)) }
    }
    #[inline(always)]
    unsafe fn dot4(sum: I, w: I, x: I) -> I {
        unsafe {
            let w = if D::SIGNED { four!(center_4(w)) } else { w };
            Self::dot4_small(sum, w, x)
        }
    }
    #[inline(always)]
    unsafe fn dot4_small(sum: I, w: I, x: I) -> I {
        unsafe {
            [
                dot_4::<D>(sum[0], w[0], x[0]),
                dot_4::<D>(sum[1], w[1], x[1]),
                dot_4::<D>(sum[2], w[2], x[2]),
                dot_4::<D>(sum[3], w[3], x[3]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn shuffle(table: I, index: I) -> I {
        unsafe { four!(shuffle_4(table, index)) }
    }
    #[inline(always)]
    unsafe fn dot2_bf16(sum: F, w: I, x: I) -> F {
        unsafe {
            let sum = four!(flush(sum));
            let sum = fma_flushed(four!(odd(w)), four!(odd(x)), sum);
            fma_flushed(four!(even(w)), four!(even(x)), sum)
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut i8, value: I) {
        unsafe {
            let low = vreinterpretq_s8_s16(low_halves(value[0], value[1]));
            let high = vreinterpretq_s8_s16(low_halves(value[2], value[3]));
            vst1q_s8(to, vuzp1q_s8(low, high));
        }
    }
    #[inline(always)]
    unsafe fn store_u16(to: *mut u16, value: I) {
        unsafe {
            vst1q_s16(to.cast(), low_halves(value[0], value[1]));
            vst1q_s16(to.add(8).cast(), low_halves(value[2], value[3]));
        }
    }
    #[inline(always)]
    unsafe fn transpose(rows: [F; LANES]) -> [F; LANES] {
        // Squares of 4 by 4; written out by macros, as what a loop indexes would stand on the stack.
        macro_rules! columns {
            ($part:literal) => {{
                let a = transpose_4(
                    rows[0][$part],
                    rows[1][$part],
                    rows[2][$part],
                    rows[3][$part],
                );
                let b = transpose_4(
                    rows[4][$part],
                    rows[5][$part],
                    rows[6][$part],
                    rows[7][$part],
                );
                let c = transpose_4(
                    rows[8][$part],
                    rows[9][$part],
                    rows[10][$part],
                    rows[11][$part],
                );
                let d = transpose_4(
                    rows[12][$part],
                    rows[13][$part],
                    rows[14][$part],
                    rows[15][$part],
                );
                [
                    [a[0], b[0], c[0], d[0]],
                    [a[1], b[1], c[1], d[1]],
                    [a[2], b[2], c[2], d[2]],
                    [a[3], b[3], c[3], d[3]],
                ]
            }};
        }
        unsafe {
            let [c0, c1, c2, c3] = columns!(0);
            let [c4, c5, c6, c7] = columns!(1);
            let [c8, c9, c10, c11] = columns!(2);
            let [c12, c13, c14, c15] = columns!(3);
            [
                c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15,
            ]
        }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe {
            asm!("prfm pldl1keep, [{address}]", address = in(reg) address, options(nomem, nostack, preserves_flags))
        }
    }
    #[inline(always)]
    unsafe fn reduce_add(value: F) -> f32 {
        unsafe {
            let four = vaddq_f32(vaddq_f32(value[0], value[2]), vaddq_f32(value[1], value[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vpadds_f32(two)
        }
    }
    #[inline(always)]
    unsafe fn reduce_max(value: F) -> f32 {
        unsafe {
            vmaxvq_f32(vmaxq_f32(
                vmaxq_f32(value[0], value[1]),
                vmaxq_f32(value[2], value[3]),
            ))
        }
    }
    #[inline(always)]
    unsafe fn int_reduce_max(value: I) -> i32 {
        unsafe {
            vmaxvq_s32(vmaxq_s32(
                vmaxq_s32(value[0], value[1]),
                vmaxq_s32(value[2], value[3]),
            ))
        }
    }
}

super::table::code_table!(CODES: Neon<Widening>);
super::table::code_table!(CODES_WITH_DOTPROD: Neon<SignedDot>, #[target_feature(enable = "neon,dotprod")]);
super::table::code_table!(CODES_WITH_I8MM: Neon<MixedDot>, #[target_feature(enable = "neon,i8mm")]);
super::table::kernel_table!(BASE: Neon<SignedDot>, Isa::Neon, CODES);
/// Only the kernels of codes have a use for more instructions.
pub(super) static WITH_DOTPROD: Kernels = Kernels {
    isa: Isa::NeonDotprod,
    matmul_codes: CODES_WITH_DOTPROD,
    ..BASE
};
/// As [`WITH_DOTPROD`], with `usdot`.
pub(super) static WITH_I8MM: Kernels = Kernels {
    isa: Isa::NeonI8mm,
    matmul_codes: CODES_WITH_I8MM,
    ..BASE
};
