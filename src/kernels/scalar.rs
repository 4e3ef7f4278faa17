//! The scalar instruction set: plain Rust, the reference that every other one must match bit for bit.

use super::simd::{LANES, Simd};
use super::table::Isa;
use crate::quant::convert::{f16_to_f32, f32_to_f16};

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Scalar;

type F = [f32; LANES];
type I = [i32; LANES];

#[inline(always)]
fn each<A: Copy, B: Copy, C>(a: [A; LANES], b: [B; LANES], f: impl Fn(A, B) -> C) -> [C; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// A bf16 as f32, a denormal as zero of its sign.
#[inline(always)]
pub(super) fn bf16_flushed(bits: u16) -> f32 {
    flushed(f32::from_bits(u32::from(bits) << 16))
}

/// The value, a denormal as zero of its sign.
#[inline(always)]
pub(super) fn flushed(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE {
        f32::from_bits(value.to_bits() & 0x8000_0000)
    } else {
        value
    }
}

/// `w * x + sum` as `vdpbf16ps` rounds it: a result that is below the smallest normal number counts as zero. Below is
/// meant after rounding to 24 bits with an exponent without end (as everywhere in SSE), so that 2^-126 - 2^-151 and more
/// become 2^-126, and what is less becomes zero although the nearest f32 may be 2^-126.
#[inline(always)]
pub(super) fn fma_flushed(w: f32, x: f32, sum: f32) -> f32 {
    let result = w.mul_add(x, sum);
    if result.abs() > f32::MIN_POSITIVE {
        return result;
    }
    // The product of two bf16 is exact in f64, and so is the sum wherever it is close to the limit.
    let exact = f64::from(w) * f64::from(x) + f64::from(sum);
    if exact.abs() < f64::from(f32::MIN_POSITIVE) * (1.0 - 1.0 / 33_554_432.0) {
        f32::from_bits(result.to_bits() & 0x8000_0000)
    } else {
        result
    }
}

// SAFETY of the whole block: no instruction needs the CPU's leave; pointers are the caller's promise.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Scalar {
    type F = F;
    type I = I;
    const CENTERS: bool = false;
    const TILE_PANELS: usize = 1;
    const TILE_TOKENS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        unsafe { from.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> F {
        std::array::from_fn(|i| {
            if i < count {
                unsafe { from.add(i).read_unaligned() }
            } else {
                0.0
            }
        })
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        unsafe { from.cast::<[u16; LANES]>().read_unaligned() }.map(f16_to_f32)
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> F {
        unsafe { from.cast::<[u16; LANES]>().read_unaligned() }
            .map(|bits| f32::from_bits(u32::from(bits) << 16))
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: F) {
        unsafe { to.cast::<F>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, value: F, count: usize) {
        for (i, &lane) in value.iter().enumerate().take(count) {
            unsafe { to.add(i).write_unaligned(lane) }
        }
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: F) {
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(value.map(f32_to_f16)) }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        each(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        each(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn select_less(a: F, b: F, yes: F, no: F) -> F {
        std::array::from_fn(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    unsafe fn to_int(value: F) -> I {
        value.map(|lane| lane.round_ties_even() as i32)
    }
    #[inline(always)]
    unsafe fn to_float(value: I) -> F {
        value.map(|lane| lane as f32)
    }
    #[inline(always)]
    unsafe fn bits(value: F) -> I {
        value.map(|lane| lane.to_bits() as i32)
    }
    #[inline(always)]
    unsafe fn from_bits(value: I) -> F {
        value.map(|lane| f32::from_bits(lane as u32))
    }
    #[inline(always)]
    unsafe fn int_splat(value: i32) -> I {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn int_broadcast(from: *const u8) -> I {
        [unsafe { from.cast::<i32>().read_unaligned() }; LANES]
    }
    #[inline(always)]
    unsafe fn int_load(from: *const u8) -> I {
        unsafe { from.cast::<I>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn int_load_16(from: *const u8) -> I {
        let four = unsafe { from.cast::<[i32; 4]>().read_unaligned() };
        std::array::from_fn(|i| four[i % 4])
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> I {
        unsafe { from.cast::<[i8; LANES]>().read_unaligned() }.map(i32::from)
    }
    #[inline(always)]
    unsafe fn int_store(to: *mut u8, value: I) {
        unsafe { to.cast::<I>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn byte_add(a: I, b: I) -> I {
        each(a, b, |a, b| {
            let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
            i32::from_le_bytes(std::array::from_fn(|i| a[i].wrapping_add(b[i])))
        })
    }
    #[inline(always)]
    unsafe fn int_add(a: I, b: I) -> I {
        each(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    unsafe fn int_sub(a: I, b: I) -> I {
        each(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    unsafe fn int_and(a: I, b: I) -> I {
        each(a, b, |a, b| a & b)
    }
    #[inline(always)]
    unsafe fn int_or(a: I, b: I) -> I {
        each(a, b, |a, b| a | b)
    }
    #[inline(always)]
    unsafe fn int_xor(a: I, b: I) -> I {
        each(a, b, |a, b| a ^ b)
    }
    #[inline(always)]
    unsafe fn int_mul(a: I, b: I) -> I {
        each(a, b, i32::wrapping_mul)
    }
    #[inline(always)]
    unsafe fn int_max(a: I, b: I) -> I {
        each(a, b, i32::max)
    }
    #[inline(always)]
    unsafe fn shift_left<const N: i32>(a: I) -> I {
        a.map(|lane| lane << N)
    }
    #[inline(always)]
    unsafe fn shift_right<const N: i32>(a: I) -> I {
        a.map(|lane| (lane as u32 >> N) as i32)
    }
    #[inline(always)]
    unsafe fn shift_right_by(a: I, count: u32) -> I {
        a.map(|lane| (lane as u32 >> count) as i32)
    }
    #[inline(always)]
    unsafe fn int_even(a: I, b: I) -> I {
        std::array::from_fn(|i| if i < 8 { a[2 * i] } else { b[2 * i - 16] })
    }
    #[inline(always)]
    unsafe fn int_odd(a: I, b: I) -> I {
        std::array::from_fn(|i| if i < 8 { a[2 * i + 1] } else { b[2 * i - 15] })
    }
    #[inline(always)]
    unsafe fn shift_right_signed<const N: i32>(a: I) -> I {
        a.map(|lane| lane >> N)
    }
    #[inline(always)]
    unsafe fn dot4(sum: I, w: I, x: I) -> I {
        std::array::from_fn(|i| {
            let (w, x) = (w[i].to_le_bytes(), x[i].to_le_bytes());
            (0..4).fold(sum[i], |sum, k| {
                sum.wrapping_add(i32::from(w[k]) * i32::from(x[k] as i8))
            })
        })
    }
    #[inline(always)]
    unsafe fn dot4_small(sum: I, w: I, x: I) -> I {
        unsafe { Self::dot4(sum, w, x) }
    }
    #[inline(always)]
    unsafe fn shuffle(table: I, index: I) -> I {
        std::array::from_fn(|i| {
            let byte = |name: u8| {
                let lane = table[i / 4 * 4 + usize::from(name >> 2 & 3)];
                if name > 127 {
                    0
                } else {
                    lane.to_le_bytes()[usize::from(name & 3)]
                }
            };
            i32::from_le_bytes(index[i].to_le_bytes().map(byte))
        })
    }
    #[inline(always)]
    unsafe fn dot2_bf16(sum: F, w: I, x: I) -> F {
        std::array::from_fn(|i| {
            let half = |pair: i32, high: bool| bf16_flushed((pair as u32 >> (16 * u32::from(high))) as u16);
            let odd = fma_flushed(half(w[i], true), half(x[i], true), flushed(sum[i]));
            fma_flushed(half(w[i], false), half(x[i], false), odd)
        })
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut i8, value: I) {
        unsafe {
            to.cast::<[i8; LANES]>()
                .write_unaligned(value.map(|lane| lane as i8))
        }
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}

super::table::code_table!(CODES: Scalar);
super::table::kernel_table!(SCALAR: Scalar, Isa::Scalar, CODES);
