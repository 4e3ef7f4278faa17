//! AVX2 with FMA and F16C; with and without AVX-VNNI.

use super::simd::{LANES, Simd};
use super::table::Isa;
use std::arch::x86_64::*;

/// AVX2; `VNNI` says whether the 256-bit `vpdpbusd` is there too.
#[derive(Clone, Copy)]
pub struct Avx2<const VNNI: bool>;

type F = [__m256; 2];
type I = [__m256i; 2];

/// Sum of eight lanes by the fixed tree: i with i + 4, then + 2, + 1.
///
/// # Safety
/// The CPU must have AVX.
#[inline(always)]
pub(super) unsafe fn reduce_add_8(value: __m256) -> f32 {
    // SAFETY: register operations only.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// Sum of (w - 128) * x. `vpmaddubsw` takes unsigned times signed bytes: |w - 128|, and x with the sign of w - 128.
/// 2 * 128 * 127 fits into 16 bits.
#[inline(always)]
unsafe fn dot4_centered(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: register operations only.
    unsafe {
        let w = _mm256_xor_si256(w, _mm256_set1_epi8(i8::MIN));
        dot4_saturating(sum, _mm256_abs_epi8(w), _mm256_sign_epi8(x, w))
    }
}

/// For w of at most 127: 2 * 127 * 127 fits into 16 bits.
#[inline(always)]
unsafe fn dot4_saturating(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: register operations only.
    unsafe {
        let pairs = _mm256_maddubs_epi16(w, x);
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}

/// The value, a denormal as zero of its sign.
#[inline(always)]
unsafe fn flush(value: __m256) -> __m256 {
    // SAFETY: register operations only.
    unsafe {
        let sign = _mm256_set1_ps(-0.0);
        let small =
            _mm256_cmp_ps::<_CMP_LT_OQ>(_mm256_andnot_ps(sign, value), _mm256_set1_ps(f32::MIN_POSITIVE));
        _mm256_blendv_ps(value, _mm256_and_ps(value, sign), small)
    }
}

/// `w * x + sum` with the flush of `vdpbf16ps`; see `scalar::fma_flushed`.
#[inline(always)]
unsafe fn fma_flushed(w: __m256, x: __m256, sum: __m256) -> __m256 {
    // SAFETY: register operations only.
    unsafe {
        let sign = _mm256_set1_ps(-0.0);
        let smallest = _mm256_set1_ps(f32::MIN_POSITIVE);
        let result = _mm256_fmadd_ps(w, x, sum);
        let magnitude = _mm256_andnot_ps(sign, result);
        let small = _mm256_cmp_ps::<_CMP_LE_OQ>(magnitude, smallest);
        if _mm256_movemask_ps(small) == 0 {
            return result;
        }
        // Of a result of 2^-126 the rounding error decides, times 2^64 so that it is a normal number. `sum - result` is
        // exact: only a product below 2^-133 is rounded here, and then the sum is next to the result.
        let scale = _mm256_set1_ps(18_446_744_073_709_551_616.0);
        let rest = _mm256_mul_ps(_mm256_sub_ps(sum, result), scale);
        let error = _mm256_fmadd_ps(_mm256_mul_ps(w, scale), x, rest);
        let towards_zero = _mm256_xor_ps(error, _mm256_and_ps(result, sign));
        let limit = _mm256_set1_ps(-6.462_348_5e-27); // -2^-151 * 2^64
        let below = _mm256_cmp_ps::<_CMP_LT_OQ>(towards_zero, limit);
        let edge = _mm256_cmp_ps::<_CMP_EQ_OQ>(magnitude, smallest);
        let tiny = _mm256_andnot_ps(_mm256_andnot_ps(below, edge), small);
        _mm256_blendv_ps(result, _mm256_and_ps(result, sign), tiny)
    }
}

/// What `vdpbf16ps` does, in eight lanes.
#[inline(always)]
unsafe fn dot2_bf16_8(sum: __m256, w: __m256i, x: __m256i) -> __m256 {
    // SAFETY: register operations only.
    unsafe {
        let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        let w_odd = flush(_mm256_castsi256_ps(_mm256_and_si256(w, high)));
        let x_odd = flush(_mm256_castsi256_ps(_mm256_and_si256(x, high)));
        let w_even = flush(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(w)));
        let x_even = flush(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(x)));
        fma_flushed(w_even, x_even, fma_flushed(w_odd, x_odd, flush(sum)))
    }
}

/// The even or the odd lanes of `a`, then those of `b`.
#[inline(always)]
unsafe fn every_second<const LANES: i32>(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: register operations only.
    unsafe {
        let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
        // Two of a, two of b in each half: put the halves' pairs in order.
        let mixed = _mm256_castps_si256(_mm256_shuffle_ps::<LANES>(a, b));
        _mm256_permute4x64_epi64::<0b11_01_10_00>(mixed)
    }
}

/// Lane i of vector j becomes lane j of vector i.
#[inline(always)]
unsafe fn transpose_8(rows: [__m256; 8]) -> [__m256; 8] {
    // The same steps as in `avx512.rs`, with two 128-bit parts.
    macro_rules! pairs {
        ($($i:literal)*) => {[$(
            _mm256_unpacklo_ps(rows[2 * $i], rows[2 * $i + 1]),
            _mm256_unpackhi_ps(rows[2 * $i], rows[2 * $i + 1]),
        )*]};
    }
    macro_rules! fours {
        ($pairs:ident, $($i:literal)*) => {[$(
            _mm256_shuffle_ps::<0b01_00_01_00>($pairs[4 * $i], $pairs[4 * $i + 2]),
            _mm256_shuffle_ps::<0b11_10_11_10>($pairs[4 * $i], $pairs[4 * $i + 2]),
            _mm256_shuffle_ps::<0b01_00_01_00>($pairs[4 * $i + 1], $pairs[4 * $i + 3]),
            _mm256_shuffle_ps::<0b11_10_11_10>($pairs[4 * $i + 1], $pairs[4 * $i + 3]),
        )*]};
    }
    macro_rules! parts {
        ($which:literal, $fours:ident, $($j:literal)*) => {[$(
            _mm256_permute2f128_ps::<$which>($fours[$j], $fours[4 + $j]),
        )*]};
    }
    // SAFETY: register operations only.
    unsafe {
        let pairs: [__m256; 8] = pairs!(0 1 2 3);
        let fours: [__m256; 8] = fours!(pairs, 0 1);
        let [c0, c1, c2, c3] = parts!(0x20, fours, 0 1 2 3);
        let [c4, c5, c6, c7] = parts!(0x31, fours, 0 1 2 3);
        [c0, c1, c2, c3, c4, c5, c6, c7]
    }
}

/// Lanes for [`every_second`].
const EVEN: i32 = 0b10_00_10_00;
/// Lanes for [`every_second`].
const ODD: i32 = 0b11_01_11_01;

// SAFETY of the whole block: the caller promises that the CPU has the instructions and that pointers are valid.
#[allow(clippy::undocumented_unsafe_blocks)]
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type F = F;
    type I = I;
    const CENTERS: bool = !VNNI;
    const TILE_PANELS: usize = 2;
    const TILE_TOKENS: usize = 2;

    #[inline(always)]
    unsafe fn splat(value: f32) -> F {
        unsafe { [_mm256_set1_ps(value); 2] }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
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
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
            ]
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(from: *const u16) -> F {
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast()));
            [
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: F) {
        unsafe {
            _mm256_storeu_ps(to, value[0]);
            _mm256_storeu_ps(to.add(8), value[1]);
        }
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
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value[0]));
            _mm_storeu_si128(
                to.add(8).cast(),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(value[1]),
            );
        }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        unsafe {
            [
                _mm256_fmadd_ps(a[0], b[0], c[0]),
                _mm256_fmadd_ps(a[1], b[1], c[1]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn select_less(a: F, b: F, yes: F, no: F) -> F {
        unsafe {
            [
                _mm256_blendv_ps(no[0], yes[0], _mm256_cmp_ps::<_CMP_LT_OQ>(a[0], b[0])),
                _mm256_blendv_ps(no[1], yes[1], _mm256_cmp_ps::<_CMP_LT_OQ>(a[1], b[1])),
            ]
        }
    }
    #[inline(always)]
    unsafe fn to_int(value: F) -> I {
        unsafe { [_mm256_cvtps_epi32(value[0]), _mm256_cvtps_epi32(value[1])] }
    }
    #[inline(always)]
    unsafe fn to_float(value: I) -> F {
        unsafe { [_mm256_cvtepi32_ps(value[0]), _mm256_cvtepi32_ps(value[1])] }
    }
    #[inline(always)]
    unsafe fn bits(value: F) -> I {
        unsafe { [_mm256_castps_si256(value[0]), _mm256_castps_si256(value[1])] }
    }
    #[inline(always)]
    unsafe fn from_bits(value: I) -> F {
        unsafe { [_mm256_castsi256_ps(value[0]), _mm256_castsi256_ps(value[1])] }
    }
    #[inline(always)]
    unsafe fn int_splat(value: i32) -> I {
        unsafe { [_mm256_set1_epi32(value); 2] }
    }
    #[inline(always)]
    unsafe fn int_broadcast(from: *const u8) -> I {
        unsafe { [_mm256_set1_epi32(from.cast::<i32>().read_unaligned()); 2] }
    }
    #[inline(always)]
    unsafe fn int_load(from: *const u8) -> I {
        unsafe {
            [
                _mm256_loadu_si256(from.cast()),
                _mm256_loadu_si256(from.add(32).cast()),
            ]
        }
    }
    #[inline(always)]
    unsafe fn int_load_16(from: *const u8) -> I {
        unsafe { [_mm256_broadcastsi128_si256(_mm_loadu_si128(from.cast())); 2] }
    }
    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> I {
        unsafe {
            [
                _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())),
                _mm256_cvtepi8_epi32(_mm_loadl_epi64(from.add(8).cast())),
            ]
        }
    }
    #[inline(always)]
    unsafe fn int_store(to: *mut u8, value: I) {
        unsafe {
            _mm256_storeu_si256(to.cast(), value[0]);
            _mm256_storeu_si256(to.add(32).cast(), value[1]);
        }
    }
    #[inline(always)]
    unsafe fn byte_add(a: I, b: I) -> I {
        unsafe { [_mm256_add_epi8(a[0], b[0]), _mm256_add_epi8(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn int_add(a: I, b: I) -> I {
        unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn int_sub(a: I, b: I) -> I {
        unsafe { [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn int_and(a: I, b: I) -> I {
        unsafe { [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn int_or(a: I, b: I) -> I {
        unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn int_xor(a: I, b: I) -> I {
        unsafe { [_mm256_xor_si256(a[0], b[0]), _mm256_xor_si256(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn int_mul(a: I, b: I) -> I {
        unsafe { [_mm256_mullo_epi32(a[0], b[0]), _mm256_mullo_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn int_max(a: I, b: I) -> I {
        unsafe { [_mm256_max_epi32(a[0], b[0]), _mm256_max_epi32(a[1], b[1])] }
    }
    #[inline(always)]
    unsafe fn shift_left<const N: i32>(a: I) -> I {
        unsafe { [_mm256_slli_epi32::<N>(a[0]), _mm256_slli_epi32::<N>(a[1])] }
    }
    #[inline(always)]
    unsafe fn shift_right<const N: i32>(a: I) -> I {
        unsafe { [_mm256_srli_epi32::<N>(a[0]), _mm256_srli_epi32::<N>(a[1])] }
    }
    #[inline(always)]
    unsafe fn shift_right_by(a: I, count: u32) -> I {
        unsafe {
            let count = _mm_cvtsi32_si128(count as i32);
            [_mm256_srl_epi32(a[0], count), _mm256_srl_epi32(a[1], count)]
        }
    }
    #[inline(always)]
    unsafe fn int_even(a: I, b: I) -> I {
        unsafe { [every_second::<EVEN>(a[0], a[1]), every_second::<EVEN>(b[0], b[1])] }
    }
    #[inline(always)]
    unsafe fn int_odd(a: I, b: I) -> I {
        unsafe { [every_second::<ODD>(a[0], a[1]), every_second::<ODD>(b[0], b[1])] }
    }
    #[inline(always)]
    unsafe fn shift_right_signed<const N: i32>(a: I) -> I {
        unsafe { [_mm256_srai_epi32::<N>(a[0]), _mm256_srai_epi32::<N>(a[1])] }
    }
    #[inline(always)]
    unsafe fn dot4(sum: I, w: I, x: I) -> I {
        unsafe {
            if VNNI {
                [
                    _mm256_dpbusd_avx_epi32(sum[0], w[0], x[0]),
                    _mm256_dpbusd_avx_epi32(sum[1], w[1], x[1]),
                ]
            } else {
                [
                    dot4_centered(sum[0], w[0], x[0]),
                    dot4_centered(sum[1], w[1], x[1]),
                ]
            }
        }
    }
    #[inline(always)]
    unsafe fn dot4_small(sum: I, w: I, x: I) -> I {
        unsafe {
            if VNNI {
                Self::dot4(sum, w, x)
            } else {
                [
                    dot4_saturating(sum[0], w[0], x[0]),
                    dot4_saturating(sum[1], w[1], x[1]),
                ]
            }
        }
    }
    #[inline(always)]
    unsafe fn shuffle(table: I, index: I) -> I {
        unsafe {
            [
                _mm256_shuffle_epi8(table[0], index[0]),
                _mm256_shuffle_epi8(table[1], index[1]),
            ]
        }
    }
    #[inline(always)]
    unsafe fn dot2_bf16(sum: F, w: I, x: I) -> F {
        unsafe { [dot2_bf16_8(sum[0], w[0], x[0]), dot2_bf16_8(sum[1], w[1], x[1])] }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut i8, value: I) {
        let mut lanes = [0i32; LANES];
        unsafe {
            Self::int_store(lanes.as_mut_ptr().cast(), value);
            to.cast::<[i8; LANES]>()
                .write_unaligned(lanes.map(|lane| lane as i8));
        }
    }
    #[inline(always)]
    unsafe fn store_u16(to: *mut u16, value: I) {
        unsafe {
            // Packing saturates, so the upper halves are cleared first; it works in 128-bit parts, which are put in order.
            let low = _mm256_set1_epi32(0xffff);
            let packed =
                _mm256_packus_epi32(_mm256_and_si256(value[0], low), _mm256_and_si256(value[1], low));
            _mm256_storeu_si256(to.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
        }
    }
    #[inline(always)]
    unsafe fn transpose(rows: [F; LANES]) -> [F; LANES] {
        // Four squares of 8 by 8; written out by macros, as what a loop indexes would stand on the stack.
        macro_rules! square {
            ($half:literal, $($row:literal)*) => { transpose_8([$(rows[$row][$half]),*]) };
        }
        unsafe {
            let [a0, a1, a2, a3, a4, a5, a6, a7] = square!(0, 0 1 2 3 4 5 6 7);
            let [b0, b1, b2, b3, b4, b5, b6, b7] = square!(0, 8 9 10 11 12 13 14 15);
            let [c0, c1, c2, c3, c4, c5, c6, c7] = square!(1, 0 1 2 3 4 5 6 7);
            let [d0, d1, d2, d3, d4, d5, d6, d7] = square!(1, 8 9 10 11 12 13 14 15);
            [
                [a0, b0],
                [a1, b1],
                [a2, b2],
                [a3, b3],
                [a4, b4],
                [a5, b5],
                [a6, b6],
                [a7, b7],
                [c0, d0],
                [c1, d1],
                [c2, d2],
                [c3, d3],
                [c4, d4],
                [c5, d5],
                [c6, d6],
                [c7, d7],
            ]
        }
    }
    #[inline(always)]
    unsafe fn prefetch(address: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) }
    }
    #[inline(always)]
    unsafe fn reduce_add(value: F) -> f32 {
        unsafe { reduce_add_8(_mm256_add_ps(value[0], value[1])) }
    }
}

super::table::code_table!(CODES_WITH_VNNI: Avx2<true>, #[target_feature(enable = "avx2,fma,f16c,bmi2,avxvnni")]);
super::table::code_table!(CODES_WITHOUT_VNNI: Avx2<false>, #[target_feature(enable = "avx2,fma,f16c,bmi2")]);
super::table::kernel_table!(WITH_VNNI: Avx2<true>, Isa::AvxVnni, CODES_WITH_VNNI, #[target_feature(enable = "avx2,fma,f16c,bmi2,avxvnni")]);
super::table::kernel_table!(WITHOUT_VNNI: Avx2<false>, Isa::Avx2, CODES_WITHOUT_VNNI, #[target_feature(enable = "avx2,fma,f16c,bmi2")]);
