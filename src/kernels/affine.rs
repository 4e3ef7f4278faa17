//! Rows of activations as 8- or 4-bit codes with one scale a row, with and without a zero point (the `int8` and `int4` of
//! MCF): `x = scale * (code - zero)`.

use super::Kernels;
use super::simd::{LANES, Simd};

/// What a row's codes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum RowCodes {
    /// 8 bits, the zero point is 0.
    Symmetric8 = 0,
    /// 8 bits with a zero point.
    Affine8 = 1,
    /// 4 bits with a zero point, two codes a byte, the first in the low bits.
    Affine4 = 2,
}

impl RowCodes {
    /// Bytes of the codes of a row.
    pub fn bytes(self, columns: usize) -> usize {
        match self {
            RowCodes::Symmetric8 | RowCodes::Affine8 => columns,
            RowCodes::Affine4 => columns.div_ceil(2),
        }
    }
}

/// Quantizes a row: writes the codes, returns scale and zero point.
///
/// # Safety
/// As many values as said can be read, and as many codes be written; the CPU has the instructions.
pub(super) type RowCodesFn = unsafe fn(*const f32, usize, *mut u8) -> (f32, f32);

impl Kernels {
    /// Quantizes a row; `codes` has [`RowCodes::bytes`]. Returns scale and zero point.
    ///
    /// A row with a NaN or an infinity gets the scale NaN and codes of 0. A row whose values differ by less than about 4e-34
    /// is taken as constant.
    pub fn quantize_codes(&self, kind: RowCodes, x: &[f32], codes: &mut [u8]) -> (f32, f32) {
        assert!(codes.len() == kind.bytes(x.len()));
        if x.is_empty() {
            return (0.0, 0.0);
        }
        // SAFETY: the lengths were checked; the table was chosen for this CPU.
        unsafe { (self.row_codes[kind as usize])(x.as_ptr(), x.len(), codes.as_mut_ptr()) }
    }
}

/// Scales below this have no inverse that is safely finite.
const TINY: f32 = 1.5e-36;

/// Scale and inverse, zero point, and the code that all values get where the row counts as constant.
struct Steps {
    scale: f32,
    inverse: f32,
    zero: f32,
    constant: Option<i32>,
}

/// The steps between `low` and `high`, which are finite, from code `-largest` to `largest`.
#[inline(always)]
fn affine_steps(low: f32, high: f32, largest: f32) -> Steps {
    let range = high - low;
    let scale = if range < f32::INFINITY {
        range / (2.0 * largest)
    } else {
        high / (2.0 * largest) - low / (2.0 * largest)
    };
    if scale < TINY {
        let middle = low / 2.0 + high / 2.0;
        return Steps {
            scale: middle,
            inverse: 0.0,
            zero: 0.0,
            constant: Some(1),
        };
    }
    let inverse = 1.0 / scale;
    let zero = low.mul_add(-inverse, -largest);
    Steps {
        scale,
        inverse,
        zero,
        constant: None,
    }
}

/// The steps between `-magnitude` and `magnitude`.
#[inline(always)]
fn symmetric_steps(magnitude: f32, largest: f32) -> Steps {
    let scale = magnitude / largest;
    if scale < TINY {
        return Steps {
            scale: 0.0,
            inverse: 0.0,
            zero: 0.0,
            constant: Some(0),
        };
    }
    Steps {
        scale,
        inverse: largest / magnitude,
        zero: 0.0,
        constant: None,
    }
}

/// 16 of `length` values from `at` on; behind the end the first value again.
#[inline(always)]
unsafe fn load_filled<S: Simd>(x: *const f32, at: usize, length: usize) -> S::F {
    // SAFETY: reads below `length`, which is not 0; the array holds 16 values.
    unsafe {
        if at + LANES <= length {
            return S::load(x.add(at));
        }
        let mut values = [*x; LANES];
        std::ptr::copy_nonoverlapping(x.add(at), values.as_mut_ptr(), length - at);
        S::load(values.as_ptr())
    }
}

/// The kernel of `BITS`, 8 or 4, and with or without a zero point.
///
/// # Safety
/// See [`RowCodesFn`]; `length` is not 0.
#[inline(always)]
pub unsafe fn row_codes<S: Simd, const BITS: usize, const AFFINE: bool>(
    x: *const f32,
    length: usize,
    codes: *mut u8,
) -> (f32, f32) {
    const NOT_FINITE: i32 = 0x7f80_0000;
    // SAFETY: as the caller promises.
    unsafe {
        let largest = if BITS == 8 { 127.0 } else { 7.0 };
        let mut low = S::splat(*x);
        let mut high = low;
        let mut magnitude = S::int_splat(0);
        for at in (0..length).step_by(LANES) {
            let value = load_filled::<S>(x, at, length);
            low = S::select_less(value, low, value, low);
            high = S::select_less(high, value, value, high);
            magnitude = S::int_max(magnitude, S::int_and(S::bits(value), S::int_splat(i32::MAX)));
        }
        let magnitude = S::int_reduce_max(magnitude);
        let bytes = if BITS == 8 { length } else { length.div_ceil(2) };
        if magnitude >= NOT_FINITE {
            codes.write_bytes(0, bytes);
            return (f32::from_bits(0x7fc0_0000), 0.0);
        }
        let steps = if AFFINE {
            // The smallest value is minus the largest of the negated ones.
            let low = -S::reduce_max(S::sub(S::splat(-0.0), low));
            affine_steps(low, S::reduce_max(high), largest)
        } else {
            symmetric_steps(f32::from_bits(magnitude as u32), largest)
        };
        let (inverse, zero) = (S::splat(steps.inverse), S::splat(steps.zero));
        let (lowest, highest) = (S::splat(-largest), S::splat(largest));
        for at in (0..length).step_by(LANES) {
            let step = S::fma(load_filled::<S>(x, at, length), inverse, zero);
            let step = S::select_less(step, lowest, lowest, S::select_less(highest, step, highest, step));
            let code = match steps.constant {
                Some(code) => S::int_splat(code),
                None => S::to_int(step),
            };
            let mut sixteen = [0i8; LANES];
            S::store_bytes(sixteen.as_mut_ptr(), code);
            let count = LANES.min(length - at);
            if BITS == 8 {
                std::ptr::copy_nonoverlapping(sixteen.as_ptr().cast(), codes.add(at), count);
            } else {
                // What stands behind the end of the row is 0.
                sixteen[count..].fill(0);
                let pairs = nibbles(sixteen);
                std::ptr::copy_nonoverlapping(pairs.as_ptr(), codes.add(at / 2), count.div_ceil(2));
            }
        }
        (steps.scale, steps.zero)
    }
}

/// The low halves of 16 bytes, two a byte.
#[inline(always)]
fn nibbles(codes: [i8; LANES]) -> [u8; LANES / 2] {
    let mut pairs = [0u8; LANES / 2];
    for i in 0..LANES / 2 {
        pairs[i] = (codes[2 * i] & 15) as u8 | (codes[2 * i + 1] as u8) << 4;
    }
    pairs
}
