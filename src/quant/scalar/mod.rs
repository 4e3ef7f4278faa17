//! Scalar encode and decode of every stored type: the reference that the packed layout and the vector kernels
//! are built from and tested against.
//!
//! A scale that is NaN or infinite is not an error: it makes its whole block NaN or infinite, as the formula
//! of the block says.

mod float;
mod iq;
mod iq_grids;
mod k_encode;
mod k_quants;
mod mcf;
mod microscaling;
mod parts;
mod search;
mod simple;
mod ternary;

pub(crate) use iq::IQ4_BOOK;
pub(crate) use microscaling::E2M1_BOOK;
pub use parts::{BlockLayout, BlockParts, Codes, MAX_BLOCK_LENGTH, Minimum, ScaleFormat, SubScale};

use crate::base::error::{Error, Result};
use crate::format::dtype::DataType;

/// Decodes whole blocks: `bytes` of type `dtype` to `out`, one f32 per value. Types that pad their rows are decoded row
/// by row.
///
/// Integers and F64 are rounded to the nearest f32. Fails with `INVALID_ARGUMENT` when the lengths do not fit
/// each other or do not fill whole blocks; then nothing is written.
pub fn dequantize_row(dtype: DataType, bytes: &[u8], out: &mut [f32]) -> Result<()> {
    check_lengths(dtype, out.len(), bytes.len())?;
    if let Some(layout) = BlockLayout::of(dtype) {
        let mut parts = BlockParts::default();
        let blocks = bytes.chunks_exact(dtype.block_bytes());
        // The last block of a row may be longer than the row.
        for (block, values) in blocks.zip(out.chunks_mut(dtype.block_length())) {
            layout.split(block, &mut parts)?;
            layout.dequantize(&parts, values);
        }
        return Ok(());
    }
    match dtype {
        DataType::Q8_K => simple::dequantize_q8_k(bytes, out),
        _ => float::dequantize(dtype, bytes, out)?,
    }
    Ok(())
}

/// Encodes whole blocks of `values` as `dtype`.
///
/// Where ggml's reference quantizer is plain rounding (Q1_0, Q4_0 to Q8_0, the ternary types, MXFP4), the bytes
/// are those of ggml and of the Python package `gguf`. The K-types, IQ4, Q2_0 and MCF's types but Q8 are searched for the
/// least squared error; MCF's types never use their most negative code. NaN or infinity in a block gives a scale that is not finite;
/// types whose scale cannot say so refuse such values. Fails with `INVALID_ARGUMENT` when the lengths do not
/// fit each other or do not fill whole blocks, and with `UNSUPPORTED` for the types that have no encoder
/// (IQ1 to IQ3, integers, 8-bit floats).
pub fn quantize_row(dtype: DataType, values: &[f32], bytes: &mut [u8]) -> Result<()> {
    check_lengths(dtype, values.len(), bytes.len())?;
    let encode: fn(&[f32], &mut [u8]) = match dtype {
        DataType::F32 | DataType::F16 | DataType::BF16 | DataType::F64 => {
            return float::quantize(dtype, values, bytes);
        }
        DataType::Q4_0 => simple::quantize_q4_0,
        DataType::Q4_1 => simple::quantize_q4_1,
        DataType::Q5_0 => simple::quantize_q5_0,
        DataType::Q5_1 => simple::quantize_q5_1,
        DataType::Q8_0 => simple::quantize_q8_0,
        DataType::Q1_0 => k_encode::quantize_q1_0,
        DataType::Q2_0 => k_encode::quantize_q2_0,
        DataType::Q2_K => k_encode::quantize_q2_k,
        DataType::Q3_K => k_encode::quantize_q3_k,
        DataType::Q4_K => k_encode::quantize_q4_k,
        DataType::Q5_K => k_encode::quantize_q5_k,
        DataType::Q6_K => k_encode::quantize_q6_k,
        DataType::IQ4_NL => k_encode::quantize_iq4_nl,
        DataType::IQ4_XS => k_encode::quantize_iq4_xs,
        DataType::Q8_1 => simple::quantize_q8_1,
        DataType::Q8_K => simple::quantize_q8_k,
        DataType::TQ1_0 => ternary::quantize_tq1_0,
        DataType::TQ2_0 => ternary::quantize_tq2_0,
        DataType::Q8 => mcf::quantize_q8,
        DataType::Q4 => mcf::quantize_q4,
        DataType::K6 => mcf::quantize_k6,
        DataType::K4 => mcf::quantize_k4,
        DataType::K3 => mcf::quantize_k3,
        DataType::K2 => mcf::quantize_k2,
        DataType::MXFP4 => {
            check_finite(dtype, values)?;
            microscaling::quantize_mxfp4
        }
        DataType::NVFP4 => {
            check_finite(dtype, values)?;
            microscaling::quantize_nvfp4
        }
        _ => {
            return Err(Error::unsupported(format!(
                "{} has no encoder; choose a type such as Q8_0, Q6_K or Q4_K",
                dtype.name()
            )));
        }
    };
    let blocks = bytes.chunks_exact_mut(dtype.block_bytes());
    for (block, values) in blocks.zip(values.chunks(dtype.block_length())) {
        encode(values, block);
    }
    Ok(())
}

/// That `values` values of `dtype` fill whole blocks of together `bytes` bytes.
fn check_lengths(dtype: DataType, values: usize, bytes: usize) -> Result<()> {
    let expected = dtype
        .row_bytes(values)
        .map_err(|error| Error::invalid(error.message()))?;
    if bytes != expected {
        return Err(Error::invalid(format!(
            "{values} values of type {} take {expected} bytes, found {bytes}",
            dtype.name()
        )));
    }
    Ok(())
}

fn check_finite(dtype: DataType, values: &[f32]) -> Result<()> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::invalid(format!(
            "value {index} is {}, and {} can hold finite values only",
            values[index],
            dtype.name()
        ))),
    }
}
