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
