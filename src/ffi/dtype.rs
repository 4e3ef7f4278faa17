//! ------------------------------------------------------------------------------------------------
//! Element types
//! ------------------------------------------------------------------------------------------------
//!
//! Quantized types store blocks: so many values share scales and take so many bytes. A row of a tensor
//! is a whole number of blocks (the types of MCF fill the last one up). Every type below is recognised in files; which ones the library
//! multiplies is told by mantle_matrix_new and mantle_model_open, which refuse the others by name.

use crate::base::error::{Error, Result};
use crate::format::dtype::DataType;
use std::ffi::{CStr, c_char};

/// Element type of tensors. Numbers up to 255 are those of GGUF (ggml_type).
pub type mantle_dtype = i32;

/// 32-bit float.
pub const MANTLE_DTYPE_F32: mantle_dtype = 0;
/// 16-bit float (IEEE half).
pub const MANTLE_DTYPE_F16: mantle_dtype = 1;
/// 4 bits, scale per 32. 32 values in 18 bytes.
pub const MANTLE_DTYPE_Q4_0: mantle_dtype = 2;
/// 4 bits, scale and minimum per 32. 32 values in 20 bytes.
pub const MANTLE_DTYPE_Q4_1: mantle_dtype = 3;
/// 5 bits, scale per 32. 32 values in 22 bytes.
pub const MANTLE_DTYPE_Q5_0: mantle_dtype = 6;
/// 5 bits, scale and minimum per 32. 32 values in 24 bytes.
pub const MANTLE_DTYPE_Q5_1: mantle_dtype = 7;
/// 8 bits, scale per 32. 32 values in 34 bytes.
pub const MANTLE_DTYPE_Q8_0: mantle_dtype = 8;
/// 8 bits, scale and sum per 32 (activations only). 32 values in 36 bytes.
pub const MANTLE_DTYPE_Q8_1: mantle_dtype = 9;
/// 2 bits, super-blocks of 256. 256 values in 84 bytes.
pub const MANTLE_DTYPE_Q2_K: mantle_dtype = 10;
/// 3 bits, super-blocks of 256. 256 values in 110 bytes.
pub const MANTLE_DTYPE_Q3_K: mantle_dtype = 11;
/// 4 bits, super-blocks of 256. 256 values in 144 bytes.
pub const MANTLE_DTYPE_Q4_K: mantle_dtype = 12;
/// 5 bits, super-blocks of 256. 256 values in 176 bytes.
pub const MANTLE_DTYPE_Q5_K: mantle_dtype = 13;
/// 6 bits, super-blocks of 256. 256 values in 210 bytes.
pub const MANTLE_DTYPE_Q6_K: mantle_dtype = 14;
/// 8 bits, super-blocks of 256 (activations only). 256 values in 292 bytes.
pub const MANTLE_DTYPE_Q8_K: mantle_dtype = 15;
/// 2.06 bits, lattice. 256 values in 66 bytes.
pub const MANTLE_DTYPE_IQ2_XXS: mantle_dtype = 16;
/// 2.31 bits, lattice. 256 values in 74 bytes.
pub const MANTLE_DTYPE_IQ2_XS: mantle_dtype = 17;
/// 3.06 bits, lattice. 256 values in 98 bytes.
pub const MANTLE_DTYPE_IQ3_XXS: mantle_dtype = 18;
/// 1.56 bits, lattice. 256 values in 50 bytes.
pub const MANTLE_DTYPE_IQ1_S: mantle_dtype = 19;
/// 4 bits, non-linear code book, scale per 32. 32 values in 18 bytes.
pub const MANTLE_DTYPE_IQ4_NL: mantle_dtype = 20;
/// 3.44 bits, lattice. 256 values in 110 bytes.
pub const MANTLE_DTYPE_IQ3_S: mantle_dtype = 21;
/// 2.56 bits, lattice. 256 values in 82 bytes.
pub const MANTLE_DTYPE_IQ2_S: mantle_dtype = 22;
/// 4.25 bits, non-linear code book, super-blocks of 256. 256 values in 136 bytes.
pub const MANTLE_DTYPE_IQ4_XS: mantle_dtype = 23;
/// 8-bit integer.
pub const MANTLE_DTYPE_I8: mantle_dtype = 24;
/// 16-bit integer.
pub const MANTLE_DTYPE_I16: mantle_dtype = 25;
/// 32-bit integer.
pub const MANTLE_DTYPE_I32: mantle_dtype = 26;
/// 64-bit integer.
pub const MANTLE_DTYPE_I64: mantle_dtype = 27;
/// 64-bit float.
pub const MANTLE_DTYPE_F64: mantle_dtype = 28;
/// 1.75 bits, lattice. 256 values in 56 bytes.
pub const MANTLE_DTYPE_IQ1_M: mantle_dtype = 29;
/// 16-bit float with the exponent of F32.
pub const MANTLE_DTYPE_BF16: mantle_dtype = 30;
/// 1.69 bits, ternary. 256 values in 54 bytes.
pub const MANTLE_DTYPE_TQ1_0: mantle_dtype = 34;
/// 2.06 bits, ternary. 256 values in 66 bytes.
pub const MANTLE_DTYPE_TQ2_0: mantle_dtype = 35;
/// 4-bit float, shared exponent per 32. 32 values in 17 bytes.
pub const MANTLE_DTYPE_MXFP4: mantle_dtype = 39;
/// 4-bit float, FP8 scale per 16. 64 values in 36 bytes.
pub const MANTLE_DTYPE_NVFP4: mantle_dtype = 40;
/// 1 bit, scale per 128. 128 values in 18 bytes.
pub const MANTLE_DTYPE_Q1_0: mantle_dtype = 41;
/// 2 bits, scale per 64. 64 values in 18 bytes.
pub const MANTLE_DTYPE_Q2_0: mantle_dtype = 42;
/// 8-bit unsigned integer (safetensors; GGUF has no number for it).
pub const MANTLE_DTYPE_U8: mantle_dtype = 256;
/// 16-bit unsigned integer (safetensors).
pub const MANTLE_DTYPE_U16: mantle_dtype = 257;
/// 32-bit unsigned integer (safetensors).
pub const MANTLE_DTYPE_U32: mantle_dtype = 258;
/// 64-bit unsigned integer (safetensors).
pub const MANTLE_DTYPE_U64: mantle_dtype = 259;
/// Truth value in a byte (safetensors).
pub const MANTLE_DTYPE_BOOL: mantle_dtype = 260;
/// 8-bit float, 4 exponent and 3 mantissa bits (safetensors).
pub const MANTLE_DTYPE_F8_E4M3: mantle_dtype = 261;
/// 8-bit float, 5 exponent and 2 mantissa bits (safetensors).
pub const MANTLE_DTYPE_F8_E5M2: mantle_dtype = 262;
/// 8-bit power of two (safetensors; scales of MX formats).
pub const MANTLE_DTYPE_F8_E8M0: mantle_dtype = 263;
/// 8-bit float E4M3 without negative zero (safetensors).
pub const MANTLE_DTYPE_F8_E4M3FNUZ: mantle_dtype = 264;
/// 8-bit float E5M2 without negative zero (safetensors).
pub const MANTLE_DTYPE_F8_E5M2FNUZ: mantle_dtype = 265;
/// Complex number of two 32-bit floats (safetensors).
pub const MANTLE_DTYPE_C64: mantle_dtype = 266;
/// 8 bits, scale per 32 (MCF). 32 values in 34 bytes; the last block of a row may be filled up with zeros.
pub const MANTLE_DTYPE_Q8: mantle_dtype = 544;
/// 4 bits, scale per 32 (MCF). 32 values in 18 bytes; the last block of a row may be filled up with zeros.
pub const MANTLE_DTYPE_Q4: mantle_dtype = 545;
/// 6 bits, super-blocks of 256 (MCF). 256 values in 202 bytes; the last block of a row may be filled up with zeros.
pub const MANTLE_DTYPE_K6: mantle_dtype = 560;
/// 4 bits, super-blocks of 256 (MCF). 256 values in 138 bytes; the last block of a row may be filled up with zeros.
pub const MANTLE_DTYPE_K4: mantle_dtype = 561;
/// 3 bits, super-blocks of 256 (MCF). 256 values in 106 bytes; the last block of a row may be filled up with zeros.
pub const MANTLE_DTYPE_K3: mantle_dtype = 562;
/// 2 bits, super-blocks of 256 (MCF). 256 values in 74 bytes; the last block of a row may be filled up with zeros.
pub const MANTLE_DTYPE_K2: mantle_dtype = 563;

/// The name of an element type as the field writes it, such as "Q4_K"; "UNKNOWN" for a number this
/// library does not know. Closed by NUL, valid for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mantle_dtype_name(dtype: mantle_dtype) -> *const c_char {
    let name: &CStr = match dtype {
        MANTLE_DTYPE_F32 => c"F32",
        MANTLE_DTYPE_F16 => c"F16",
        MANTLE_DTYPE_Q4_0 => c"Q4_0",
        MANTLE_DTYPE_Q4_1 => c"Q4_1",
        MANTLE_DTYPE_Q5_0 => c"Q5_0",
        MANTLE_DTYPE_Q5_1 => c"Q5_1",
        MANTLE_DTYPE_Q8_0 => c"Q8_0",
        MANTLE_DTYPE_Q8_1 => c"Q8_1",
        MANTLE_DTYPE_Q2_K => c"Q2_K",
        MANTLE_DTYPE_Q3_K => c"Q3_K",
        MANTLE_DTYPE_Q4_K => c"Q4_K",
        MANTLE_DTYPE_Q5_K => c"Q5_K",
        MANTLE_DTYPE_Q6_K => c"Q6_K",
        MANTLE_DTYPE_Q8_K => c"Q8_K",
        MANTLE_DTYPE_IQ2_XXS => c"IQ2_XXS",
        MANTLE_DTYPE_IQ2_XS => c"IQ2_XS",
        MANTLE_DTYPE_IQ3_XXS => c"IQ3_XXS",
        MANTLE_DTYPE_IQ1_S => c"IQ1_S",
        MANTLE_DTYPE_IQ4_NL => c"IQ4_NL",
        MANTLE_DTYPE_IQ3_S => c"IQ3_S",
        MANTLE_DTYPE_IQ2_S => c"IQ2_S",
        MANTLE_DTYPE_IQ4_XS => c"IQ4_XS",
        MANTLE_DTYPE_I8 => c"I8",
        MANTLE_DTYPE_I16 => c"I16",
        MANTLE_DTYPE_I32 => c"I32",
        MANTLE_DTYPE_I64 => c"I64",
        MANTLE_DTYPE_F64 => c"F64",
        MANTLE_DTYPE_IQ1_M => c"IQ1_M",
        MANTLE_DTYPE_BF16 => c"BF16",
        MANTLE_DTYPE_TQ1_0 => c"TQ1_0",
        MANTLE_DTYPE_TQ2_0 => c"TQ2_0",
        MANTLE_DTYPE_MXFP4 => c"MXFP4",
        MANTLE_DTYPE_NVFP4 => c"NVFP4",
        MANTLE_DTYPE_Q1_0 => c"Q1_0",
        MANTLE_DTYPE_Q2_0 => c"Q2_0",
        MANTLE_DTYPE_U8 => c"U8",
        MANTLE_DTYPE_U16 => c"U16",
        MANTLE_DTYPE_U32 => c"U32",
        MANTLE_DTYPE_U64 => c"U64",
        MANTLE_DTYPE_BOOL => c"BOOL",
        MANTLE_DTYPE_F8_E4M3 => c"F8_E4M3",
        MANTLE_DTYPE_F8_E5M2 => c"F8_E5M2",
        MANTLE_DTYPE_F8_E8M0 => c"F8_E8M0",
        MANTLE_DTYPE_F8_E4M3FNUZ => c"F8_E4M3FNUZ",
        MANTLE_DTYPE_F8_E5M2FNUZ => c"F8_E5M2FNUZ",
        MANTLE_DTYPE_C64 => c"C64",
        MANTLE_DTYPE_Q8 => c"Q8",
        MANTLE_DTYPE_Q4 => c"Q4",
        MANTLE_DTYPE_K6 => c"K6",
        MANTLE_DTYPE_K4 => c"K4",
        MANTLE_DTYPE_K3 => c"K3",
        MANTLE_DTYPE_K2 => c"K2",
        _ => c"UNKNOWN",
    };
    name.as_ptr()
}

/// The type of a number.
pub(super) fn of(dtype: mantle_dtype) -> Result<DataType> {
    DataType::from_number(dtype.into())
        .ok_or_else(|| Error::invalid(format!("dtype is {dtype}, expected one of MANTLE_DTYPE_*")))
}

/// Bytes of a row; a wrong length is the caller's mistake here, not a file's.
pub(super) fn row_bytes(dtype: DataType, columns: usize) -> Result<usize> {
    dtype
        .row_bytes(columns)
        .map_err(|error| Error::invalid(error.message()))
}

/// Checks that `size` bytes hold `rows` rows of `columns` values.
pub(super) fn check_bytes(
    dtype: DataType,
    rows: usize,
    columns: usize,
    size: usize,
    name: &str,
) -> Result<()> {
    let row_bytes = row_bytes(dtype, columns)?;
    let expected = rows.checked_mul(row_bytes).ok_or_else(|| {
        Error::invalid(format!(
            "{rows} rows of {columns} values are more than memory can hold"
        ))
    })?;
    if size != expected {
        return Err(Error::invalid(format!(
            "{name} is {size}, expected {expected}: {rows} rows of {columns} {} values take {row_bytes} bytes each",
            dtype.name()
        )));
    }
    Ok(())
}

// A type of the library and its C constant are one number.
const _: () = {
    assert!(DataType::F32 as i32 == MANTLE_DTYPE_F32);
    assert!(DataType::F16 as i32 == MANTLE_DTYPE_F16);
    assert!(DataType::Q4_0 as i32 == MANTLE_DTYPE_Q4_0);
    assert!(DataType::Q4_1 as i32 == MANTLE_DTYPE_Q4_1);
    assert!(DataType::Q5_0 as i32 == MANTLE_DTYPE_Q5_0);
    assert!(DataType::Q5_1 as i32 == MANTLE_DTYPE_Q5_1);
    assert!(DataType::Q8_0 as i32 == MANTLE_DTYPE_Q8_0);
    assert!(DataType::Q8_1 as i32 == MANTLE_DTYPE_Q8_1);
    assert!(DataType::Q2_K as i32 == MANTLE_DTYPE_Q2_K);
    assert!(DataType::Q3_K as i32 == MANTLE_DTYPE_Q3_K);
    assert!(DataType::Q4_K as i32 == MANTLE_DTYPE_Q4_K);
    assert!(DataType::Q5_K as i32 == MANTLE_DTYPE_Q5_K);
    assert!(DataType::Q6_K as i32 == MANTLE_DTYPE_Q6_K);
    assert!(DataType::Q8_K as i32 == MANTLE_DTYPE_Q8_K);
    assert!(DataType::IQ2_XXS as i32 == MANTLE_DTYPE_IQ2_XXS);
    assert!(DataType::IQ2_XS as i32 == MANTLE_DTYPE_IQ2_XS);
    assert!(DataType::IQ3_XXS as i32 == MANTLE_DTYPE_IQ3_XXS);
    assert!(DataType::IQ1_S as i32 == MANTLE_DTYPE_IQ1_S);
    assert!(DataType::IQ4_NL as i32 == MANTLE_DTYPE_IQ4_NL);
    assert!(DataType::IQ3_S as i32 == MANTLE_DTYPE_IQ3_S);
    assert!(DataType::IQ2_S as i32 == MANTLE_DTYPE_IQ2_S);
    assert!(DataType::IQ4_XS as i32 == MANTLE_DTYPE_IQ4_XS);
    assert!(DataType::I8 as i32 == MANTLE_DTYPE_I8);
    assert!(DataType::I16 as i32 == MANTLE_DTYPE_I16);
    assert!(DataType::I32 as i32 == MANTLE_DTYPE_I32);
    assert!(DataType::I64 as i32 == MANTLE_DTYPE_I64);
    assert!(DataType::F64 as i32 == MANTLE_DTYPE_F64);
    assert!(DataType::IQ1_M as i32 == MANTLE_DTYPE_IQ1_M);
    assert!(DataType::BF16 as i32 == MANTLE_DTYPE_BF16);
    assert!(DataType::TQ1_0 as i32 == MANTLE_DTYPE_TQ1_0);
    assert!(DataType::TQ2_0 as i32 == MANTLE_DTYPE_TQ2_0);
    assert!(DataType::MXFP4 as i32 == MANTLE_DTYPE_MXFP4);
    assert!(DataType::NVFP4 as i32 == MANTLE_DTYPE_NVFP4);
    assert!(DataType::Q1_0 as i32 == MANTLE_DTYPE_Q1_0);
    assert!(DataType::Q2_0 as i32 == MANTLE_DTYPE_Q2_0);
    assert!(DataType::U8 as i32 == MANTLE_DTYPE_U8);
    assert!(DataType::U16 as i32 == MANTLE_DTYPE_U16);
    assert!(DataType::U32 as i32 == MANTLE_DTYPE_U32);
    assert!(DataType::U64 as i32 == MANTLE_DTYPE_U64);
    assert!(DataType::BOOL as i32 == MANTLE_DTYPE_BOOL);
    assert!(DataType::F8_E4M3 as i32 == MANTLE_DTYPE_F8_E4M3);
    assert!(DataType::F8_E5M2 as i32 == MANTLE_DTYPE_F8_E5M2);
    assert!(DataType::F8_E8M0 as i32 == MANTLE_DTYPE_F8_E8M0);
    assert!(DataType::F8_E4M3FNUZ as i32 == MANTLE_DTYPE_F8_E4M3FNUZ);
    assert!(DataType::F8_E5M2FNUZ as i32 == MANTLE_DTYPE_F8_E5M2FNUZ);
    assert!(DataType::C64 as i32 == MANTLE_DTYPE_C64);
    assert!(DataType::Q8 as i32 == MANTLE_DTYPE_Q8);
    assert!(DataType::Q4 as i32 == MANTLE_DTYPE_Q4);
    assert!(DataType::K6 as i32 == MANTLE_DTYPE_K6);
    assert!(DataType::K4 as i32 == MANTLE_DTYPE_K4);
    assert!(DataType::K3 as i32 == MANTLE_DTYPE_K3);
    assert!(DataType::K2 as i32 == MANTLE_DTYPE_K2);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_type_has_its_name_in_c() {
        for &dtype in DataType::ALL {
            // SAFETY: the names are static and closed by NUL.
            let name = unsafe { CStr::from_ptr(mantle_dtype_name(dtype as i32)) };
            assert_eq!(name.to_str().unwrap(), dtype.name());
        }
        // SAFETY: as above.
        assert_eq!(unsafe { CStr::from_ptr(mantle_dtype_name(4)) }, c"UNKNOWN");
    }
}
