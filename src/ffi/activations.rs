//! ------------------------------------------------------------------------------------------------
//! Activations: quantized rows
//! ------------------------------------------------------------------------------------------------
//!
//! What mantle_matmul does with its inputs inside, to look at or to store, and the forms of MCF. Rows follow one
//! another at any alignment; all numbers are little-endian.

use super::boundary::{self, call};
use super::handle;
use super::matrix::extent;
use super::runtime::mantle_runtime;
use super::status::{mantle_error, mantle_status};
use crate::base::error::{Error, Result};
use crate::base::matrix::MatrixMut;
use crate::kernels::affine::RowCodes;
use crate::ops::activation_rows::{self, RowForm};
use std::ffi::c_void;

/// How a row of activations is quantized.
pub type mantle_activation_form = i32;

/// As mantle_matmul does it for quantized weights: 8-bit codes with a scale for each 32 values, of every 256 values
/// one group of four apart (docs/activations.md). A row of n values has b = n / 32 (rounded up) blocks and
/// s = b / 8 (rounded up) groups: b scales (f32); s times place (u32: a quarter of the index of the group's first
/// value among its 256), four codes (i8), scale (f32); then 32 * b codes (i8), 0 behind the end. A value is the
/// scale of its block times its code, and for the values of a group plus the group's scale times the code there.
pub const MANTLE_ACTIVATIONS_BLOCKS: mantle_activation_form = 0;
/// One scale for the row: scale (f32), n codes (i8, up to 127 in magnitude). A value is scale * code.
pub const MANTLE_ACTIVATIONS_ROW: mantle_activation_form = 1;
/// MCF's int8: scale (f32), zero point (f32), n codes (i8, up to 127 in magnitude). A value is scale times
/// the difference of code and zero point.
pub const MANTLE_ACTIVATIONS_INT8: mantle_activation_form = 2;
/// MCF's int4: scale (f32), zero point (f32), n codes (4 bits in two's complement, up to 7 in magnitude, two a byte,
/// the first in the low half, 0 behind the end). A value is scale times the difference of code and zero point.
pub const MANTLE_ACTIVATIONS_INT4: mantle_activation_form = 3;

fn form_of(form: mantle_activation_form) -> Result<RowForm> {
    match form {
        MANTLE_ACTIVATIONS_BLOCKS => Ok(RowForm::Blocks),
        MANTLE_ACTIVATIONS_ROW => Ok(RowForm::Row(RowCodes::Symmetric8)),
        MANTLE_ACTIVATIONS_INT8 => Ok(RowForm::Row(RowCodes::Affine8)),
        MANTLE_ACTIVATIONS_INT4 => Ok(RowForm::Row(RowCodes::Affine4)),
        _ => Err(Error::invalid(format!(
            "form is {form}, expected one of MANTLE_ACTIVATIONS_*"
        ))),
    }
}

fn row_bytes(form: RowForm, columns: usize) -> Result<usize> {
    form.row_bytes(columns)
        .ok_or_else(|| Error::invalid(format!("{columns} columns are more than memory can hold")))
}

fn check_size(form: RowForm, rows: usize, columns: usize, size: usize) -> Result<()> {
    let row = row_bytes(form, columns)?;
    let expected = rows.checked_mul(row).ok_or_else(|| {
        Error::invalid(format!(
            "{rows} rows of {row} bytes are more than memory can hold"
        ))
    })?;
    if size != expected {
        return Err(Error::invalid(format!(
            "size is {size}, expected {expected}: {rows} rows of {columns} values take {row} bytes each"
        )));
    }
    Ok(())
}

/// Tells how many bytes a quantized row of `columns` values takes. Any thread.
/// Errors: INVALID_ARGUMENT (an unknown form).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_activation_row_bytes(
    form: mantle_activation_form,
    columns: usize,
    bytes: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let bytes = unsafe { boundary::output(bytes, "bytes")? };
        bytes.write(row_bytes(form_of(form)?, columns)?);
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Quantizes `rows` rows of `columns` values. Row r begins at values + r * stride (in values, at least `columns`);
/// the results follow each other in `data`, which has `size` = rows * mantle_activation_row_bytes bytes. Codes are
/// rounded to nearest even. A block or row with NaN or infinity (a block also with 2^111 or more) gets the scale NaN and
/// codes of 0, so that all of it becomes NaN; a block, a group or a symmetric row whose largest magnitude is tiny (below
/// 1.5e-36, for a row 127 times that) counts as 0; a row with a zero point whose values differ by less than 254
/// (int4: 14) times 1.5e-36 as constant. The same bits on every instruction set. Runs on the runtime's threads. Any thread.
/// Errors: INVALID_ARGUMENT (an unknown form, a stride too small, a wrong size), NO_MEMORY (scratch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_quantize_activations(
    runtime: *const mantle_runtime,
    form: mantle_activation_form,
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
        let form = form_of(form)?;
        check_size(form, rows, columns, size)?;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let length = extent(rows, columns, stride, "stride")?;
        // SAFETY: NULL is refused; otherwise rows as the caller says.
        let values = unsafe { boundary::slice(values, length, "values")? };
        // SAFETY: as above; the caller hands the bytes over for the call.
        let data = unsafe { boundary::slice_mut(data.cast::<u8>(), size, "data")? };
        activation_rows::quantize(&runtime, form, values, columns, stride, data)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// The values that mantle_quantize_activations rounded to: `size` = rows * mantle_activation_row_bytes bytes at
/// `data`. Row r goes to values + r * stride (in values, at least `columns`). Runs on the runtime's threads. Any
/// thread.
/// Errors: INVALID_ARGUMENT (an unknown form, a stride too small, a wrong size).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_dequantize_activations(
    runtime: *const mantle_runtime,
    form: mantle_activation_form,
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
        let form = form_of(form)?;
        check_size(form, rows, columns, size)?;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let length = extent(rows, columns, stride, "stride")?;
        // SAFETY: NULL is refused; otherwise as many bytes as the caller says.
        let data = unsafe { boundary::slice(data.cast::<u8>(), size, "data")? };
        // SAFETY: as above; the caller hands the values over for the call.
        let values = unsafe { boundary::slice_mut(values, length, "values")? };
        let values = MatrixMut::new(values, rows, columns, stride)
            .ok_or_else(|| Error::invalid("values do not fit their rows"))?;
        activation_rows::dequantize(&runtime, form, data, values)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}
