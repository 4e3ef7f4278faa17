//! ------------------------------------------------------------------------------------------------
//! Rows: encoding and decoding
//! ------------------------------------------------------------------------------------------------

use super::boundary::{self, call};
use super::dtype::{self, mantle_dtype};
use super::handle;
use super::matrix;
use super::runtime::mantle_runtime;
use super::status::{mantle_error, mantle_status};
use crate::base::error::Error;
use crate::base::matrix::MatrixMut;
use crate::ops::rows;
use std::ffi::c_void;

/// Tells how many bytes a row of `columns` values takes as `dtype`. Any thread.
/// Errors: INVALID_ARGUMENT (an unknown type, columns that do not fill whole blocks).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_row_bytes(
    dtype: mantle_dtype,
    columns: usize,
    bytes: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let bytes = unsafe { boundary::output(bytes, "bytes")? };
        bytes.write(dtype::row_bytes(dtype::of(dtype)?, columns)?);
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Encodes `rows` rows of `columns` values as `dtype`. Row r begins at values + r * stride (in values, at
/// least `columns`); the encoded rows follow each other in `data`, which has `size` = rows *
/// mantle_row_bytes bytes, at any alignment. Runs on the runtime's threads. Any thread.
/// Errors: INVALID_ARGUMENT (columns that do not fill whole blocks, a stride too small, a wrong size, values
/// that the type cannot hold), UNSUPPORTED (a type that cannot be encoded). `data` may then hold some rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_quantize_rows(
    runtime: *const mantle_runtime,
    dtype: mantle_dtype,
    values: *const f32,
    rows: usize,
    columns: usize,
    stride: usize,
    data: *mut c_void,
    size: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        let dtype = dtype::of(dtype)?;
        dtype::check_bytes(dtype, rows, columns, size, "size")?;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let length = matrix::extent(rows, columns, stride, "stride")?;
        // SAFETY: NULL is refused; otherwise rows as the caller says.
        let values = unsafe { boundary::slice(values, length, "values")? };
        // SAFETY: as above; the caller hands the bytes over for the call.
        let data = unsafe { boundary::slice_mut(data.cast::<u8>(), size, "data")? };
        rows::quantize(&runtime, dtype, values, columns, stride, data)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Decodes what mantle_quantize_rows encoded, or what stands in a model file: `size` = rows *
/// mantle_row_bytes bytes at `data`, at any alignment. Row r goes to values + r * stride (in values, at least
/// `columns`). Runs on the runtime's threads. Any thread.
/// Errors: INVALID_ARGUMENT (columns that do not fill whole blocks, a stride too small, a wrong size).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_dequantize_rows(
    runtime: *const mantle_runtime,
    dtype: mantle_dtype,
    data: *const c_void,
    size: usize,
    rows: usize,
    columns: usize,
    values: *mut f32,
    stride: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        let dtype = dtype::of(dtype)?;
        dtype::check_bytes(dtype, rows, columns, size, "size")?;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let length = matrix::extent(rows, columns, stride, "stride")?;
        // SAFETY: NULL is refused; otherwise as many bytes as the caller says.
        let data = unsafe { boundary::slice(data.cast::<u8>(), size, "data")? };
        // SAFETY: as above; the caller hands the values over for the call.
        let values = unsafe { boundary::slice_mut(values, length, "values")? };
        let values = MatrixMut::new(values, rows, columns, stride)
            .ok_or_else(|| Error::invalid("values do not fit their rows"))?;
        rows::dequantize(&runtime, dtype, data, values)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}
