//! Plain numbers: floats and integers, one value each.

use super::super::convert::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
use crate::base::error::{Error, Result};
use crate::format::dtype::DataType;

/// Decodes; the caller has checked the lengths.
pub(super) fn dequantize(dtype: DataType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    match dtype {
        DataType::F32 => decode(bytes, out, f32::from_le_bytes),
        DataType::F16 => decode(bytes, out, |bytes| f16_to_f32(u16::from_le_bytes(bytes))),
        DataType::BF16 => decode(bytes, out, |bytes| bf16_to_f32(u16::from_le_bytes(bytes))),
        DataType::F64 => decode(bytes, out, |bytes| f64::from_le_bytes(bytes) as f32),
        DataType::I8 => decode(bytes, out, |bytes| f32::from(i8::from_le_bytes(bytes))),
        DataType::I16 => decode(bytes, out, |bytes| f32::from(i16::from_le_bytes(bytes))),
        DataType::I32 => decode(bytes, out, |bytes| i32::from_le_bytes(bytes) as f32),
        DataType::I64 => decode(bytes, out, |bytes| i64::from_le_bytes(bytes) as f32),
        DataType::U8 | DataType::BOOL => decode(bytes, out, |[byte]| f32::from(byte)),
        DataType::U16 => decode(bytes, out, |bytes| f32::from(u16::from_le_bytes(bytes))),
        DataType::U32 => decode(bytes, out, |bytes| u32::from_le_bytes(bytes) as f32),
        DataType::U64 => decode(bytes, out, |bytes| u64::from_le_bytes(bytes) as f32),
        DataType::F8_E4M3 => decode(bytes, out, |[byte]| match byte & 0x7f {
            0x7f => f32::NAN,
            _ => small_float(byte, 3, 7),
        }),
        // The upper half of an f16.
        DataType::F8_E5M2 => decode(bytes, out, |[byte]| f16_to_f32(u16::from(byte) << 8)),
        DataType::F8_E4M3FNUZ => decode(bytes, out, |[byte]| match byte {
            0x80 => f32::NAN,
            _ => small_float(byte, 3, 8),
        }),
        DataType::F8_E5M2FNUZ => decode(bytes, out, |[byte]| match byte {
            0x80 => f32::NAN,
            _ => small_float(byte, 2, 16),
        }),
        DataType::F8_E8M0 => decode(bytes, out, |[byte]| match byte {
            // 2^-127 is denormal in f32.
            0 => f32::from_bits(0x0040_0000),
            255 => f32::NAN,
            _ => f32::from_bits(u32::from(byte) << 23),
        }),
        _ => {
            return Err(Error::unsupported(format!(
                "type {} has no decoder",
                dtype.name()
            )));
        }
    }
    Ok(())
}

/// Encodes; the caller has checked the lengths.
pub(super) fn quantize(dtype: DataType, values: &[f32], bytes: &mut [u8]) -> Result<()> {
    match dtype {
        DataType::F32 => encode(values, bytes, f32::to_le_bytes),
        DataType::F16 => encode(values, bytes, |value| f32_to_f16(value).to_le_bytes()),
        DataType::BF16 => encode(values, bytes, |value| f32_to_bf16(value).to_le_bytes()),
        DataType::F64 => encode(values, bytes, |value| f64::from(value).to_le_bytes()),
        _ => {
            return Err(Error::unsupported(format!(
                "type {} has no encoder",
                dtype.name()
            )));
        }
    }
    Ok(())
}

/// The value of an 8-bit float: a sign, an exponent of that bias, `mantissa_bits` of mantissa; no special values.
fn small_float(bits: u8, mantissa_bits: u32, bias: u32) -> f32 {
    let exponent = u32::from(bits & 0x7f) >> mantissa_bits;
    let fraction = bits & ((1 << mantissa_bits) - 1);
    let hidden = if exponent == 0 { 0 } else { 1 << mantissa_bits };
    // An exponent of 0 means that of 1 without the hidden bit.
    let unit = f32::from_bits((exponent.max(1) + 127 - bias - mantissa_bits) << 23);
    let magnitude = f32::from(fraction | hidden) * unit;
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

fn decode<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = number(*bytes);
    }
}

fn encode<const N: usize>(values: &[f32], bytes: &mut [u8], number: impl Fn(f32) -> [u8; N]) {
    for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
        *bytes = number(*value);
    }
}
