//! Scalar conversions between f32, f16 (IEEE 754 binary16) and bf16, without tables.
//!
//! Narrowing rounds to nearest, ties to even; values too large become infinity; denormals are exact.
//! NaN stays NaN in both directions: the payload is truncated or padded and the quiet bit is set, as the
//! instructions `vcvtps2ph` and `vcvtph2ps` do. The vector kernels give the same bits.

/// The f32 with the value of an f16 given by its bits.
#[inline]
pub const fn f16_to_f32(bits: u16) -> f32 {
    let sign = ((bits & 0x8000) as u32) << 16;
    let exponent = ((bits >> 10) & 0x1f) as u32;
    let mantissa = (bits & 0x03ff) as u32;
    let magnitude = if exponent == 0x1f {
        let quiet = if mantissa == 0 { 0 } else { 0x0040_0000 };
        0x7f80_0000 | (mantissa << 13) | quiet
    } else if exponent != 0 {
        // The exponent's bias grows from 15 to 127.
        ((exponent + 112) << 23) | (mantissa << 13)
    } else {
        // Zero or denormal: a multiple of 2^-24, exact in f32.
        (mantissa as f32 * (1.0 / 16_777_216.0)).to_bits()
    };
    f32::from_bits(sign | magnitude)
}

/// The bits of the f16 nearest to `value`.
#[inline]
pub const fn f32_to_f16(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00 | ((magnitude >> 13) as u16 & 0x03ff);
    }
    // From 65520 on, half a step above the largest f16, the nearest is infinity.
    if magnitude >= 0x477f_f000 {
        return sign | 0x7c00;
    }
    // From 2^-14 on, the result is normal; a carry out of the mantissa rightly raises the exponent.
    if magnitude >= 0x3880_0000 {
        let rounded = magnitude + 0x0fff + ((magnitude >> 13) & 1);
        return sign | ((rounded - 0x3800_0000) >> 13) as u16;
    }
    // Below, the result counts steps of 2^-24; up to 2^-25 it is zero.
    let exponent = magnitude >> 23;
    if exponent < 102 {
        return sign;
    }
    let shift = 126 - exponent;
    let mantissa = (magnitude & 0x007f_ffff) | 0x0080_0000;
    let half_minus_one = (1 << (shift - 1)) - 1;
    let rounded = (mantissa + half_minus_one + ((mantissa >> shift) & 1)) >> shift;
    sign | rounded as u16
}

/// The f32 with the value of a bf16 given by its bits. A signalling NaN stays as it is: only its bits move.
#[inline]
pub const fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits((bits as u32) << 16)
}

/// The bits of the bf16 nearest to `value`.
#[inline]
pub const fn f32_to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return (bits >> 16) as u16 | 0x0040;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}
