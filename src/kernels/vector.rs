//! Plain steps over vectors: sums, products, softmax, rotation of pairs, conversion to and from 16-bit floats.
//!
//! What is read may be what is written ([`Source::InPlace`]): every step reads 16 values before it writes them.

use super::Kernels;
use super::activation::Activation;
use super::math::exp;
use super::simd::{LANES, Simd};
use crate::base::matrix::Source;
use crate::format::dtype::DataType;

/// The kernels of this file for one instruction set.
#[derive(Clone, Copy)]
pub(super) struct VectorKernels {
    pub(super) axpy: unsafe fn(f32, *const f32, usize, *mut f32),
    pub(super) scale: unsafe fn(f32, *const f32, usize, *mut f32),
    pub(super) add: unsafe fn(*const f32, *const f32, usize, *mut f32),
    pub(super) mul: unsafe fn(*const f32, *const f32, usize, *mut f32),
    pub(super) softmax: unsafe fn(*const f32, usize, *mut f32),
    pub(super) rotate_pairs: unsafe fn(*mut f32, usize, usize, usize, *const f32, *const f32),
    /// f32 to F16 and BF16.
    pub(super) narrow: [unsafe fn(*const f32, usize, *mut u8); 2],
    /// F16 and BF16 to f32.
    pub(super) widen: [unsafe fn(*const u8, usize, *mut f32); 2],
}

/// Runs a body for every 16 of `length` values, then for the rest. A macro, because a closure would lose the kernel's
/// instructions.
macro_rules! for_each_vector {
    ($S:ident, $length:expr, |$at:ident, $load:ident, $store:ident| $body:block) => {{
        let whole = $length / LANES * LANES;
        for $at in (0..whole).step_by(LANES) {
            #[allow(unused_macros)]
            macro_rules! $load {
                ($from:expr) => {
                    $S::load($from.add($at))
                };
            }
            macro_rules! $store {
                ($to:expr, $value:expr) => {
                    $S::store($to.add($at), $value)
                };
            }
            $body
        }
        if whole < $length {
            let ($at, rest) = (whole, $length - whole);
            #[allow(unused_macros)]
            macro_rules! $load {
                ($from:expr) => {
                    $S::load_partial($from.add($at), rest)
                };
            }
            macro_rules! $store {
                ($to:expr, $value:expr) => {
                    $S::store_partial($to.add($at), $value, rest)
                };
            }
            $body
        }
    }};
}

/// `y = a x + y`, rounded once; `x` may be `y`.
///
/// # Safety
/// `length` values can be read at `x`, read and written at `y`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn axpy<S: Simd>(a: f32, x: *const f32, length: usize, y: *mut f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let a = S::splat(a);
        for_each_vector!(S, length, |at, load, store| {
            store!(y, S::fma(a, load!(x), load!(y)));
        });
    }
}

/// `y = factor x`; `x` may be `y`.
///
/// # Safety
/// `length` values can be read at `x` and written at `y`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn scale<S: Simd>(factor: f32, x: *const f32, length: usize, y: *mut f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let factor = S::splat(factor);
        for_each_vector!(S, length, |at, load, store| {
            store!(y, S::mul(factor, load!(x)));
        });
    }
}

/// `y = a + b`; each may be `y`.
///
/// # Safety
/// `length` values can be read at `a` and `b` and written at `y`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn add<S: Simd>(a: *const f32, b: *const f32, length: usize, y: *mut f32) {
    // SAFETY: as the caller promises.
    unsafe {
        for_each_vector!(S, length, |at, load, store| {
            store!(y, S::add(load!(a), load!(b)));
        });
    }
}

/// `y = a b`; each may be `y`.
///
/// # Safety
/// `length` values can be read at `a` and `b` and written at `y`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn mul<S: Simd>(a: *const f32, b: *const f32, length: usize, y: *mut f32) {
    // SAFETY: as the caller promises.
    unsafe {
        for_each_vector!(S, length, |at, load, store| {
            store!(y, S::mul(load!(a), load!(b)));
        });
    }
}

/// `y = e^(x - max) / sum of e^(x - max)`; `x` may be `y`. A row with a NaN or +infinity, or of -infinity only, becomes NaN.
///
/// # Safety
/// `length` values, at least 1, can be read at `x` and written at `y`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn softmax<S: Simd>(x: *const f32, length: usize, y: *mut f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let whole = length / LANES * LANES;
        let rest = length - whole;
        // The last values, filled up with what e^x makes 0.
        let mut last = [f32::NEG_INFINITY; LANES];
        S::store_partial(last.as_mut_ptr(), S::load_partial(x.add(whole), rest), rest);
        let last = S::load(last.as_ptr());
        let mut largest = last;
        for i in (0..whole).step_by(LANES) {
            largest = S::max(largest, S::load(x.add(i)));
        }
        // A NaN may be lost here, but then it is met again in the sum.
        let shift = S::splat(S::reduce_max(largest));
        let mut sum = S::splat(0.0);
        for i in (0..whole).step_by(LANES) {
            let p = exp::<S>(S::sub(S::load(x.add(i)), shift));
            S::store(y.add(i), p);
            sum = S::add(sum, p);
        }
        let last = exp::<S>(S::sub(last, shift));
        // Lanes behind the end hold 0, or NaN when `shift` is not finite: then all of the row is NaN.
        let sum = S::splat(S::reduce_add(S::add(sum, last)));
        for i in (0..whole).step_by(LANES) {
            S::store(y.add(i), S::div(S::load(y.add(i)), sum));
        }
        S::store_partial(y.add(whole), S::div(last, sum), rest);
    }
}

/// Rotates the `half` pairs of neighbours of `count` vectors of `2 * half` values each, `stride` apart, by the angles of
/// one position: `(a, b) -> (a cos - b sin, b cos + a sin)`.
///
/// # Safety
/// The vectors can be read and written, `half` values of `cosine` and `sine` be read; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn rotate_pairs<S: Simd>(
    x: *mut f32,
    count: usize,
    stride: usize,
    half: usize,
    cosine: *const f32,
    sine: *const f32,
) {
    const PAIRS: usize = LANES / 2;
    // SAFETY: as the caller promises.
    unsafe {
        for vector in 0..count {
            let start = x.add(vector * stride);
            let whole = half / PAIRS * PAIRS;
            for i in (0..whole).step_by(PAIRS) {
                let at = start.add(2 * i);
                S::store(at, rotated_pairs::<S>(S::load(at), cosine.add(i), sine.add(i)));
            }
            if whole < half {
                let rest = half - whole;
                let (mut c, mut s) = ([0f32; PAIRS], [0f32; PAIRS]);
                std::ptr::copy_nonoverlapping(cosine.add(whole), c.as_mut_ptr(), rest);
                std::ptr::copy_nonoverlapping(sine.add(whole), s.as_mut_ptr(), rest);
                let at = start.add(2 * whole);
                let value = S::load_partial(at, 2 * rest);
                S::store_partial(at, rotated_pairs::<S>(value, c.as_ptr(), s.as_ptr()), 2 * rest);
            }
        }
    }
}

/// Eight pairs, turned by eight angles.
#[inline(always)]
unsafe fn rotated_pairs<S: Simd>(x: S::F, cosine: *const f32, sine: *const f32) -> S::F {
    // In every 16 bytes: the values of each pair exchanged.
    const EXCHANGED: [u8; 64] = bytes_of_lanes([1, 0, 3, 2, 1, 0, 3, 2, 1, 0, 3, 2, 1, 0, 3, 2]);
    // The sine counts as negative for the first of a pair.
    const FIRST: [i32; LANES] = {
        let mut signs = [0; LANES];
        let mut i = 0;
        while i < LANES {
            signs[i] = i32::MIN;
            i += 2;
        }
        signs
    };
    // SAFETY: eight values can be read at `cosine` and `sine`, as the caller promises.
    unsafe {
        let exchanged = S::from_bits(S::shuffle(S::bits(x), S::int_load(EXCHANGED.as_ptr())));
        let signs = S::int_load(FIRST.as_ptr().cast());
        let sine = S::from_bits(S::int_xor(twice_each::<S>(sine), signs));
        let cosine = S::from_bits(twice_each::<S>(cosine));
        S::fma(x, cosine, S::mul(exchanged, sine))
    }
}

/// Eight values, each in two neighbouring lanes, as bits.
#[inline(always)]
unsafe fn twice_each<S: Simd>(from: *const f32) -> S::I {
    const NONE: u8 = 4;
    const LOW: [u8; 64] = bytes_of_lanes([
        0, 0, 1, 1, 2, 2, 3, 3, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE,
    ]);
    const HIGH: [u8; 64] = bytes_of_lanes([
        NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, 0, 0, 1, 1, 2, 2, 3, 3,
    ]);
    // SAFETY: eight values can be read, as the caller promises.
    unsafe {
        let low = S::shuffle(S::int_load_16(from.cast()), S::int_load(LOW.as_ptr()));
        let high = S::shuffle(S::int_load_16(from.add(4).cast()), S::int_load(HIGH.as_ptr()));
        S::int_or(low, high)
    }
}

/// The index for [`Simd::shuffle`] that takes whole lanes of the same 16 bytes; a lane above 3 becomes 0.
const fn bytes_of_lanes(lanes: [u8; LANES]) -> [u8; 64] {
    let mut bytes = [0; 64];
    let mut i = 0;
    while i < 64 {
        let lane = lanes[i / 4];
        bytes[i] = if lane > 3 { 255 } else { 4 * lane + (i % 4) as u8 };
        i += 1;
    }
    bytes
}

/// The 16 bits of a BF16, in the low half of each lane: nearest even, NaN stays NaN (see `quant::convert`).
#[inline(always)]
unsafe fn bf16_bits<S: Simd>(x: S::F) -> S::I {
    // SAFETY: register operations only.
    unsafe {
        let bits = S::bits(x);
        let upper = S::shift_right::<16>(bits);
        let odd = S::int_and(upper, S::int_splat(1));
        let rounded = S::shift_right::<16>(S::int_add(S::int_add(bits, S::int_splat(0x7fff)), odd));
        // All ones where the magnitude is above that of infinity.
        let magnitude = S::int_and(bits, S::int_splat(0x7fff_ffff));
        let nan = S::shift_right_signed::<31>(S::int_sub(S::int_splat(0x7f80_0000), magnitude));
        let quiet = S::int_or(upper, S::int_splat(0x0040));
        S::int_xor(rounded, S::int_and(nan, S::int_xor(rounded, quiet)))
    }
}

/// Rounds to F16, or else to BF16.
///
/// # Safety
/// `length` values can be read at `x` and 2 bytes for each written at `y`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn narrow<S: Simd, const F16: bool>(x: *const f32, length: usize, y: *mut u8) {
    // SAFETY: as the caller promises; the array holds 16 values.
    unsafe {
        let whole = length / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            narrow_16::<S, F16>(S::load(x.add(i)), y.add(2 * i).cast());
        }
        let rest = length - whole;
        let mut last = [0u16; LANES];
        narrow_16::<S, F16>(S::load_partial(x.add(whole), rest), last.as_mut_ptr());
        std::ptr::copy_nonoverlapping(last.as_ptr().cast(), y.add(2 * whole), 2 * rest);
    }
}

#[inline(always)]
unsafe fn narrow_16<S: Simd, const F16: bool>(x: S::F, to: *mut u16) {
    // SAFETY: 16 values can be written, as the caller promises.
    unsafe {
        if F16 {
            S::store_f16(to, x);
        } else {
            S::store_u16(to, bf16_bits::<S>(x));
        }
    }
}

/// The values of F16, or else of BF16.
///
/// # Safety
/// 2 bytes for each of `length` values can be read at `x`, the values be written at `y`; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn widen<S: Simd, const F16: bool>(x: *const u8, length: usize, y: *mut f32) {
    // SAFETY: as the caller promises; the array holds 16 values.
    unsafe {
        let whole = length / LANES * LANES;
        for i in (0..whole).step_by(LANES) {
            S::store(y.add(i), widen_16::<S, F16>(x.add(2 * i).cast()));
        }
        let rest = length - whole;
        let mut last = [0u16; LANES];
        std::ptr::copy_nonoverlapping(x.add(2 * whole), last.as_mut_ptr().cast(), 2 * rest);
        S::store_partial(y.add(whole), widen_16::<S, F16>(last.as_ptr()), rest);
    }
}

#[inline(always)]
unsafe fn widen_16<S: Simd, const F16: bool>(from: *const u16) -> S::F {
    // SAFETY: 16 values can be read, as the caller promises.
    unsafe {
        if F16 {
            S::load_f16(from)
        } else {
            S::load_bf16(from)
        }
    }
}

/// The shells of one instruction set.
macro_rules! vector_table {
    ($name:ident: $simd:ty $(, #[$features:meta])?) => {
        const $name: $crate::kernels::vector::VectorKernels = {
            use $crate::kernels::vector;
            macro_rules! shell {
                ($shell:ident($argument:ident: $kind:ty) = $body:expr) => {
                    $(#[$features])?
                    unsafe fn $shell($argument: $kind, x: *const f32, length: usize, y: *mut f32) {
                        unsafe { $body($argument, x, length, y) }
                    }
                };
                ($shell:ident($from:ty, $to:ty) = $body:expr) => {
                    $(#[$features])?
                    unsafe fn $shell(x: *const $from, length: usize, y: *mut $to) {
                        unsafe { $body(x, length, y) }
                    }
                };
            }
            shell!(axpy(a: f32) = vector::axpy::<$simd>);
            shell!(scale(factor: f32) = vector::scale::<$simd>);
            shell!(add(a: *const f32) = vector::add::<$simd>);
            shell!(mul(a: *const f32) = vector::mul::<$simd>);
            shell!(softmax(f32, f32) = vector::softmax::<$simd>);
            shell!(narrow_f16(f32, u8) = vector::narrow::<$simd, true>);
            shell!(narrow_bf16(f32, u8) = vector::narrow::<$simd, false>);
            shell!(widen_f16(u8, f32) = vector::widen::<$simd, true>);
            shell!(widen_bf16(u8, f32) = vector::widen::<$simd, false>);
            $(#[$features])?
            unsafe fn rotate_pairs(x: *mut f32, count: usize, stride: usize, half: usize, cosine: *const f32, sine: *const f32) {
                unsafe { vector::rotate_pairs::<$simd>(x, count, stride, half, cosine, sine) }
            }
            $crate::kernels::vector::VectorKernels {
                axpy,
                scale,
                add,
                mul,
                softmax,
                rotate_pairs,
                narrow: [narrow_f16, narrow_bf16],
                widen: [widen_f16, widen_bf16],
            }
        };
    };
}
pub(super) use vector_table;

/// Where the values of `x` stand, when `y` has been borrowed for writing.
fn start_of(x: Source<'_>, y: *mut f32, length: usize) -> *const f32 {
    match x {
        Source::Apart(values) => {
            assert!(values.len() == length);
            values.as_ptr()
        }
        Source::InPlace => y.cast_const(),
    }
}

impl Kernels {
    /// `y = a x + y`, rounded once.
    pub fn axpy(&self, a: f32, x: Source<'_>, y: &mut [f32]) {
        let (length, to) = (y.len(), y.as_mut_ptr());
        // SAFETY: `start_of` checks the length; the table was chosen for this CPU.
        unsafe { (self.vector.axpy)(a, start_of(x, to, length), length, to) }
    }

    /// `y = factor x`.
    pub fn scale(&self, factor: f32, x: Source<'_>, y: &mut [f32]) {
        let (length, to) = (y.len(), y.as_mut_ptr());
        // SAFETY: as in `axpy`.
        unsafe { (self.vector.scale)(factor, start_of(x, to, length), length, to) }
    }

    /// `y = a + b`.
    pub fn add(&self, a: Source<'_>, b: Source<'_>, y: &mut [f32]) {
        let (length, to) = (y.len(), y.as_mut_ptr());
        // SAFETY: as in `axpy`.
        unsafe { (self.vector.add)(start_of(a, to, length), start_of(b, to, length), length, to) }
    }

    /// `y = a b`.
    pub fn mul(&self, a: Source<'_>, b: Source<'_>, y: &mut [f32]) {
        let (length, to) = (y.len(), y.as_mut_ptr());
        // SAFETY: as in `axpy`.
        unsafe { (self.vector.mul)(start_of(a, to, length), start_of(b, to, length), length, to) }
    }

    /// `y = function(x)`.
    pub fn apply(&self, function: Activation, x: Source<'_>, y: &mut [f32]) {
        let (length, to) = (y.len(), y.as_mut_ptr());
        // SAFETY: as in `axpy`.
        unsafe { (self.map[function as usize])(start_of(x, to, length), length, to) }
    }

    /// `y = function(gate) up`.
    pub fn apply_gate(&self, function: Activation, gate: Source<'_>, up: Source<'_>, y: &mut [f32]) {
        let (length, to) = (y.len(), y.as_mut_ptr());
        let (gate, up) = (start_of(gate, to, length), start_of(up, to, length));
        // SAFETY: as in `axpy`.
        unsafe { (self.gate[function as usize])(gate, up, length, to) }
    }

    /// `y = softmax(x)`; nothing for no values.
    pub fn softmax(&self, x: Source<'_>, y: &mut [f32]) {
        let (length, to) = (y.len(), y.as_mut_ptr());
        if length > 0 {
            // SAFETY: as in `axpy`; at least one value.
            unsafe { (self.vector.softmax)(start_of(x, to, length), length, to) }
        }
    }

    /// `y = x / sqrt(mean(x^2) + epsilon) * weight`.
    pub fn rms_norm_from(&self, x: Source<'_>, weight: &[f32], epsilon: f32, y: &mut [f32]) {
        let (length, to) = (y.len(), y.as_mut_ptr());
        assert!(weight.len() == length);
        // SAFETY: the lengths were checked; the kernel may work in place; the table was chosen for this CPU.
        unsafe { (self.rms_norm)(start_of(x, to, length), weight.as_ptr(), length, epsilon, to) }
    }

    /// `y = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias`.
    pub fn layer_norm_from(&self, x: Source<'_>, weight: &[f32], bias: &[f32], epsilon: f32, y: &mut [f32]) {
        let (length, to) = (y.len(), y.as_mut_ptr());
        assert!(weight.len() == length && bias.len() == length);
        let (weight, bias) = (weight.as_ptr(), bias.as_ptr());
        // SAFETY: as in `rms_norm_from`.
        unsafe { (self.layer_norm)(start_of(x, to, length), weight, bias, length, epsilon, to) }
    }

    /// Rotates the pairs of neighbours of `count` vectors of `2 * cosine.len()` values, `stride` apart (RoPE).
    pub fn rotate_pairs(&self, x: &mut [f32], count: usize, stride: usize, cosine: &[f32], sine: &[f32]) {
        let half = cosine.len();
        assert!(sine.len() == half && (count == 0 || (count - 1) * stride + 2 * half <= x.len()));
        let (cosine, sine) = (cosine.as_ptr(), sine.as_ptr());
        // SAFETY: the lengths were checked; the table was chosen for this CPU.
        unsafe { (self.vector.rotate_pairs)(x.as_mut_ptr(), count, stride, half, cosine, sine) }
    }

    /// Rounds to F16 or BF16, as `quant::convert` does; false, and nothing is done, for other types.
    pub fn narrow(&self, dtype: DataType, values: &[f32], bytes: &mut [u8]) -> bool {
        let Some(index) = half_index(dtype) else {
            return false;
        };
        assert!(bytes.len() == 2 * values.len());
        // SAFETY: the lengths were checked; any alignment will do; the table was chosen for this CPU.
        unsafe { (self.vector.narrow[index])(values.as_ptr(), values.len(), bytes.as_mut_ptr()) };
        true
    }

    /// The values of F16 or BF16; false, and nothing is done, for other types.
    pub fn widen(&self, dtype: DataType, bytes: &[u8], values: &mut [f32]) -> bool {
        let Some(index) = half_index(dtype) else {
            return false;
        };
        assert!(bytes.len() == 2 * values.len());
        // SAFETY: as in `narrow`.
        unsafe { (self.vector.widen[index])(bytes.as_ptr(), values.len(), values.as_mut_ptr()) };
        true
    }
}

fn half_index(dtype: DataType) -> Option<usize> {
    match dtype {
        DataType::F16 => Some(0),
        DataType::BF16 => Some(1),
        _ => None,
    }
}
