//! The small set of vector operations that every kernel body is written in.
//!
//! A vector has 16 lanes on every instruction set: one 512-bit register, two 256-bit ones, four
//! 128-bit ones, or an array. So the order of every addition is the same everywhere, and so are the bits.

/// Lanes of a vector; also the rows of a panel and the tokens of a key panel.
pub const LANES: usize = 16;

/// An instruction set. Every method is `unsafe` for two reasons: it may be called only where the CPU has
/// the instructions, and its pointers must be valid for what it reads or writes (no alignment is required).
///
/// All floats are rounded to nearest even; no method flushes denormals, except [`Simd::dot2_bf16`].
#[allow(clippy::missing_safety_doc, missing_docs)]
pub trait Simd: Copy + 'static {
    /// 16 f32.
    type F: Copy;
    /// 16 i32, or 64 bytes.
    type I: Copy;
    /// Whether [`Simd::dot4`] takes 128 off the codes.
    const CENTERS: bool;
    /// Panels in the register tile of a matmul, 1 or 2.
    const TILE_PANELS: usize;
    /// Tokens in the register tile of a matmul, at most 6.
    const TILE_TOKENS: usize;
    /// Vectors in the register tile of a product of floats, 1 or 2.
    const GEMM_VECTORS: usize = 1;
    /// Rows in the register tile of a product of floats, 6 or 12: with the vectors, as many sums as the registers hold
    /// beside a few operands.
    const GEMM_ROWS: usize = 6;

    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    /// `count` lanes (at most 16), the others zero.
    unsafe fn load_partial(from: *const f32, count: usize) -> Self::F;
    unsafe fn load_f16(from: *const u16) -> Self::F;
    unsafe fn load_bf16(from: *const u16) -> Self::F;
    unsafe fn store(to: *mut f32, value: Self::F);
    unsafe fn store_partial(to: *mut f32, value: Self::F, count: usize);
    unsafe fn store_f16(to: *mut u16, value: Self::F);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a > b ? a : b` per lane: `b` when either is NaN, as `maxps`.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a < b ? yes : no` per lane; `no` when either is NaN.
    unsafe fn select_less(a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// Nearest integer, ties to even; unspecified outside the range of i32 and for NaN.
    unsafe fn to_int(value: Self::F) -> Self::I;
    unsafe fn to_float(value: Self::I) -> Self::F;
    unsafe fn bits(value: Self::F) -> Self::I;
    unsafe fn from_bits(value: Self::I) -> Self::F;

    unsafe fn int_splat(value: i32) -> Self::I;
    /// The i32 at `from` in every lane.
    unsafe fn int_broadcast(from: *const u8) -> Self::I;
    unsafe fn int_load(from: *const u8) -> Self::I;
    /// The 16 bytes at `from`, four times.
    unsafe fn int_load_16(from: *const u8) -> Self::I;
    /// 16 signed bytes, one a lane.
    unsafe fn load_i8(from: *const i8) -> Self::I;
    unsafe fn int_store(to: *mut u8, value: Self::I);
    /// Per byte, wrapping.
    unsafe fn byte_add(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn int_add(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn int_sub(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn int_and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn int_or(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn int_xor(a: Self::I, b: Self::I) -> Self::I;
    /// The low 32 bits of the product, per lane.
    unsafe fn int_mul(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn int_max(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn shift_left<const N: i32>(a: Self::I) -> Self::I;
    /// Logical, per 32-bit lane.
    unsafe fn shift_right<const N: i32>(a: Self::I) -> Self::I;
    /// Logical, per 32-bit lane, by a number that is not a constant; below 32.
    unsafe fn shift_right_by(a: Self::I, count: u32) -> Self::I;
    /// The even lanes of `a`, then those of `b`.
    unsafe fn int_even(a: Self::I, b: Self::I) -> Self::I;
    /// The odd lanes of `a`, then those of `b`.
    unsafe fn int_odd(a: Self::I, b: Self::I) -> Self::I;
    /// Arithmetic, per 32-bit lane.
    unsafe fn shift_right_signed<const N: i32>(a: Self::I) -> Self::I;
    /// Per lane: `sum + (w0 - c) x0 + (w1 - c) x1 + (w2 - c) x2 + (w3 - c) x3`, `w` unsigned and `x` signed bytes above
    /// -128; c is 128 where the instructions multiply signed bytes ([`Simd::CENTERS`]), 0 where they do not (`vpdpbusd`).
    unsafe fn dot4(sum: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// Per lane: `sum + w0 x0 + w1 x1 + w2 x2 + w3 x3`, `w` at most 127, `x` signed bytes above -128.
    unsafe fn dot4_small(sum: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// In every byte, that byte of the same 16 bytes of `table` which `index` names; 0 where `index` is above 127. Other
    /// values of `index` must be below 16.
    unsafe fn shuffle(table: Self::I, index: Self::I) -> Self::I;
    /// Per lane, over a pair of bf16: `fma(w0, x0, fma(w1, x1, sum))`, denormals taken and given as zero (`vdpbf16ps`).
    unsafe fn dot2_bf16(sum: Self::F, w: Self::I, x: Self::I) -> Self::F;
    /// The low byte of every lane: 16 bytes.
    unsafe fn store_bytes(to: *mut i8, value: Self::I);
    /// The low 16 bits of every lane.
    #[inline(always)]
    unsafe fn store_u16(to: *mut u16, value: Self::I) {
        let mut lanes = [0i32; LANES];
        let mut halves = [0u16; LANES];
        // SAFETY: the array holds 16 values; `to` takes 16, at any alignment.
        unsafe {
            Self::int_store(lanes.as_mut_ptr().cast(), value);
            for i in 0..LANES {
                halves[i] = lanes[i] as u16;
            }
            to.cast::<[u16; LANES]>().write_unaligned(halves);
        }
    }
    /// Lane i of vector j becomes lane j of vector i.
    #[inline(always)]
    unsafe fn transpose(rows: [Self::F; LANES]) -> [Self::F; LANES] {
        let mut values = [[0f32; LANES]; LANES];
        let mut turned = [[0f32; LANES]; LANES];
        let mut columns = rows;
        // SAFETY: each array holds 16 values.
        unsafe {
            for i in 0..LANES {
                Self::store(values[i].as_mut_ptr(), rows[i]);
            }
            for i in 0..LANES {
                for j in 0..LANES {
                    turned[i][j] = values[j][i];
                }
                columns[i] = Self::load(turned[i].as_ptr());
            }
        }
        columns
    }
    /// Brings a cache line closer; a hint, any address is allowed.
    unsafe fn prefetch(address: *const u8);

    /// Sum of the lanes by the fixed tree: lane i with i + 8, then + 4, + 2, + 1.
    #[inline(always)]
    unsafe fn reduce_add(value: Self::F) -> f32 {
        let mut lanes = [0f32; LANES];
        // SAFETY: the array holds 16 values.
        unsafe { Self::store(lanes.as_mut_ptr(), value) };
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// Largest lane; exact, so the order does not matter. NaN-free input.
    #[inline(always)]
    unsafe fn reduce_max(value: Self::F) -> f32 {
        let mut lanes = [0f32; LANES];
        // SAFETY: the array holds 16 values.
        unsafe { Self::store(lanes.as_mut_ptr(), value) };
        lanes
            .iter()
            .fold(f32::NEG_INFINITY, |a, &b| if a > b { a } else { b })
    }

    /// Largest lane.
    #[inline(always)]
    unsafe fn int_reduce_max(value: Self::I) -> i32 {
        let mut lanes = [0i32; LANES];
        // SAFETY: register operations; the array holds 16 values.
        unsafe {
            let a = Self::int_max(Self::int_even(value, value), Self::int_odd(value, value));
            let a = Self::int_max(Self::int_even(a, a), Self::int_odd(a, a));
            let a = Self::int_max(Self::int_even(a, a), Self::int_odd(a, a));
            let a = Self::int_max(Self::int_even(a, a), Self::int_odd(a, a));
            Self::int_store(lanes.as_mut_ptr().cast(), a);
        }
        lanes[0]
    }
}
