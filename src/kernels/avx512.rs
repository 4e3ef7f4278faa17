//! AVX-512 (F, BW, DQ, VL): without VNNI, with it, and with BF16 too.
//!
//! Skylake-X and Cannon Lake have no VNNI, Cascade Lake and Ice Lake do; Cooper Lake, Sapphire Rapids and Zen 4 have BF16.

use super::simd::{LANES, Simd};
use super::table::{Isa, Kernels};
use std::arch::x86_64::*;

/// AVX-512; `VNNI` says whether `vpdpbusd` is there too, `BF16` the same of `vdpbf16ps`.
#[derive(Clone, Copy)]
pub struct Avx512<const VNNI: bool, const BF16: bool>;

#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as __mmask16
}

/// In each 128 bits: the lower two lanes of `a`, then those of `b`.
#[inline(always)]
unsafe fn unpack_low(a: __m512, b: __m512) -> __m512 {
    // SAFETY: register operations only.
    unsafe { _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))) }
}

/// In each 128 bits: the upper two lanes of `a`, then those of `b`.
#[inline(always)]
unsafe fn unpack_high(a: __m512, b: __m512) -> __m512 {
    // SAFETY: register operations only.
    unsafe { _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))) }
}

/// Sum of (w - 128) * x as in `avx2.rs`: |w - 128|, and x with the sign of w - 128, for which AVX-512 needs a mask.
#[inline(always)]
unsafe fn dot4_centered(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
    // SAFETY: register operations only.
    unsafe {
        let w = _mm512_xor_si512(w, _mm512_set1_epi8(i8::MIN));
        let x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
        dot4_saturating(sum, _mm512_abs_epi8(w), x)
    }
}

/// For w of at most 128: 2 * 128 * 127 fits into 16 bits.
#[inline(always)]
unsafe fn dot4_saturating(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
    // SAFETY: register operations only.
    unsafe {
        let pairs = _mm512_maddubs_epi16(w, x);
        _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)))
    }
}

/// The same bits, as pairs of bf16.
#[inline(always)]
unsafe fn as_bf16(value: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits without meaning of their own.
    unsafe { std::mem::transmute(value) }
}

/// The value, a denormal as zero of its sign.
#[inline(always)]
unsafe fn flush(value: __m512) -> __m512 {
    // SAFETY: register operations only.
    unsafe {
        let small = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(value), _mm512_set1_ps(f32::MIN_POSITIVE));
        let sign = _mm512_and_si512(_mm512_castps_si512(value), _mm512_set1_epi32(i32::MIN));
        _mm512_mask_blend_ps(small, value, _mm512_castsi512_ps(sign))
    }
}

/// `w * x + sum` with the flush of `vdpbf16ps`; see `scalar::fma_flushed`, and `avx2.rs` for the steps.
#[inline(always)]
unsafe fn fma_flushed(w: __m512, x: __m512, sum: __m512) -> __m512 {
    // SAFETY: register operations only.
    unsafe {
        let smallest = _mm512_set1_ps(f32::MIN_POSITIVE);
        let result = _mm512_fmadd_ps(w, x, sum);
        let magnitude = _mm512_abs_ps(result);
        let small = _mm512_cmp_ps_mask::<_CMP_LE_OQ>(magnitude, smallest);
        if small == 0 {
            return result;
        }
        let scale = _mm512_set1_ps(18_446_744_073_709_551_616.0);
        let rest = _mm512_mul_ps(_mm512_sub_ps(sum, result), scale);
        let error = _mm512_fmadd_ps(_mm512_mul_ps(w, scale), x, rest);
        let sign = _mm512_and_si512(_mm512_castps_si512(result), _mm512_set1_epi32(i32::MIN));
        let towards_zero = _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(error), sign));
        let limit = _mm512_set1_ps(-6.462_348_5e-27); // -2^-151 * 2^64
        let below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(towards_zero, limit);
        let edge = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(magnitude, smallest);
        _mm512_mask_blend_ps(small & !(edge & !below), result, _mm512_castsi512_ps(sign))
    }
}

// SAFETY of the whole block: the caller promises that the CPU has the instructions and that pointers are valid.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const VNNI: bool, const BF16: bool> Simd for Avx512<VNNI, BF16> {
    type F = __m512;
    type I = __m512i;
    const CENTERS: bool = !VNNI;
    const TILE_PANELS: usize = 2;
    const TILE_TOKENS: usize = 6;
    const GEMM_VECTORS: usize = 2;
    const GEMM_ROWS: usize = 12;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(from) }
    }
    #[inline(always)]
    unsafe fn load_partial(from: *const f32, count: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask(count), from) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: __m512) {
        unsafe { _mm512_storeu_ps(to, value) }
    }
    #[inline(always)]
    unsafe fn store_partial(to: *mut f32, value: __m512, count: usize) {
        unsafe { _mm512_mask_storeu_ps(to, mask(count), value) }
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, value: __m512) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value)) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn select_less(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes) }
    }
    #[inline(always)]
    unsafe fn to_int(value: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(value) }
    }
    #[inline(always)]
    unsafe fn to_float(value: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(value) }
    }
    #[inline(always)]
    unsafe fn bits(value: __m512) -> __m512i {
        unsafe { _mm512_castps_si512(value) }
    }
    #[inline(always)]
    unsafe fn from_bits(value: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(value) }
    }
    #[inline(always)]
    unsafe fn int_splat(value: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(value) }
    }
    #[inline(always)]
    unsafe fn int_broadcast(from: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn int_load(from: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(from.cast()) }
    }
    #[inline(always)]
    unsafe fn int_load_16(from: *const u8) -> __m512i {
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())) }
    }
    #[inline(always)]
    unsafe fn int_store(to: *mut u8, value: __m512i) {
        unsafe { _mm512_storeu_si512(to.cast(), value) }
    }
    #[inline(always)]
    unsafe fn byte_add(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi8(a, b) }
    }
    #[inline(always)]
    unsafe fn int_add(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn int_sub(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_sub_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn int_and(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn int_or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn int_xor(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_xor_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn int_mul(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_mullo_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn int_max(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_max_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_left<const N: i32>(a: __m512i) -> __m512i {
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    unsafe fn shift_right<const N: i32>(a: __m512i) -> __m512i {
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    unsafe fn shift_right_by(a: __m512i, count: u32) -> __m512i {
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(count as i32)) }
    }
    #[inline(always)]
    unsafe fn int_even(a: __m512i, b: __m512i) -> __m512i {
        unsafe {
            let lanes = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            _mm512_permutex2var_epi32(a, lanes, b)
        }
    }
    #[inline(always)]
    unsafe fn int_odd(a: __m512i, b: __m512i) -> __m512i {
        unsafe {
            let lanes = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            _mm512_permutex2var_epi32(a, lanes, b)
        }
    }
    #[inline(always)]
    unsafe fn shift_right_signed<const N: i32>(a: __m512i) -> __m512i {
        unsafe { _mm512_sra_epi32(a, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    unsafe fn dot4(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe {
            if VNNI {
                _mm512_dpbusd_epi32(sum, w, x)
            } else {
                dot4_centered(sum, w, x)
            }
        }
    }
    #[inline(always)]
    unsafe fn dot4_small(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe {
            if VNNI {
                _mm512_dpbusd_epi32(sum, w, x)
            } else {
                dot4_saturating(sum, w, x)
            }
        }
    }
    #[inline(always)]
    unsafe fn shuffle(table: __m512i, index: __m512i) -> __m512i {
        unsafe { _mm512_shuffle_epi8(table, index) }
    }
    #[inline(always)]
    unsafe fn dot2_bf16(sum: __m512, w: __m512i, x: __m512i) -> __m512 {
        unsafe {
            if BF16 {
                return _mm512_dpbf16_ps(sum, as_bf16(w), as_bf16(x));
            }
            let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            let w_odd = flush(_mm512_castsi512_ps(_mm512_and_si512(w, high)));
            let x_odd = flush(_mm512_castsi512_ps(_mm512_and_si512(x, high)));
            let w_even = flush(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(w)));
            let x_even = flush(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(x)));
            fma_flushed(w_even, x_even, fma_flushed(w_odd, x_odd, flush(sum)))
        }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut i8, value: __m512i) {
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(value)) }
    }
    #[inline(always)]
    unsafe fn store_u16(to: *mut u16, value: __m512i) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(value)) }
    }
    #[inline(always)]
    unsafe fn transpose(rows: [__m512; LANES]) -> [__m512; LANES] {
        // Written out by macros: what a loop indexes would stand on the stack.
        macro_rules! pairs {
            ($($i:literal)*) => {[$(
                _mm512_unpacklo_ps(rows[2 * $i], rows[2 * $i + 1]),
                _mm512_unpackhi_ps(rows[2 * $i], rows[2 * $i + 1]),
            )*]};
        }
        macro_rules! fours {
            ($pairs:ident, $($i:literal)*) => {[$(
                unpack_low($pairs[4 * $i], $pairs[4 * $i + 2]),
                unpack_high($pairs[4 * $i], $pairs[4 * $i + 2]),
                unpack_low($pairs[4 * $i + 1], $pairs[4 * $i + 3]),
                unpack_high($pairs[4 * $i + 1], $pairs[4 * $i + 3]),
            )*]};
        }
        // Of four vectors, the parts 0 and 2 (EVEN) or 1 and 3 (ODD) of each two.
        const EVEN: i32 = 0b10_00_10_00;
        const ODD: i32 = 0b11_01_11_01;
        macro_rules! parts {
            ($fours:ident, $first:ident, $second:ident, $($j:literal)*) => {[$(
                _mm512_shuffle_f32x4::<$second>(
                    _mm512_shuffle_f32x4::<$first>($fours[$j], $fours[4 + $j]),
                    _mm512_shuffle_f32x4::<$first>($fours[8 + $j], $fours[12 + $j]),
                ),
            )*]};
        }
        unsafe {
            // Of rows a, b, c, d, in each of the four 128-bit parts: a0 b0 a1 b1 and a2 b2 a3 b3.
            let pairs: [__m512; LANES] = pairs!(0 1 2 3 4 5 6 7);
            // a0 b0 c0 d0, and so on: vector 4 i + j holds in part q the rows 4 i .. 4 i + 3 of column 4 q + j.
            let fours: [__m512; LANES] = fours!(pairs, 0 1 2 3);
            let [c0, c1, c2, c3] = parts!(fours, EVEN, EVEN, 0 1 2 3);
            let [c4, c5, c6, c7] = parts!(fours, ODD, EVEN, 0 1 2 3);
            let [c8, c9, c10, c11] = parts!(fours, EVEN, ODD, 0 1 2 3);
            let [c12, c13, c14, c15] = parts!(fours, ODD, ODD, 0 1 2 3);
            [
                c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15,
            ]
        }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn reduce_add(value: __m512) -> f32 {
        unsafe {
            let half = _mm256_add_ps(_mm512_castps512_ps256(value), _mm512_extractf32x8_ps::<1>(value));
            super::avx2::reduce_add_8(half)
        }
    }
    #[inline(always)]
    unsafe fn reduce_max(value: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(value) }
    }
    #[inline(always)]
    unsafe fn int_reduce_max(value: __m512i) -> i32 {
        unsafe { _mm512_reduce_max_epi32(value) }
    }
}

super::table::code_table!(
    CODES: Avx512<true, false>,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi2")]
);
super::table::code_table!(
    CODES_WITHOUT_VNNI: Avx512<false, false>,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")]
);
super::table::kernel_table!(
    WITH_BF16: Avx512<true, true>,
    Isa::Avx512,
    CODES,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c,bmi2")]
);
super::table::kernel_table!(
    WITHOUT_VNNI: Avx512<false, false>,
    Isa::Avx512,
    CODES_WITHOUT_VNNI,
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")]
);
/// With VNNI: only the kernels of codes have a use for it.
pub(super) static WITHOUT_BF16: Kernels = Kernels {
    matmul_codes: CODES,
    ..WITHOUT_VNNI
};
