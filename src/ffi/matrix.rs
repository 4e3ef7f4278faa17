//! ------------------------------------------------------------------------------------------------
//! Matrices: the kernels by themselves
//! ------------------------------------------------------------------------------------------------

use super::boundary::{self, call};
use super::dtype::{self, mantle_dtype};
use super::handle::{self, Handle, Opaque};
use super::runtime::mantle_runtime;
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use crate::base::error::{Error, Result};
use crate::base::matrix::MatrixMut;
use crate::ops::matrix::Matrix;
use std::ffi::c_void;

/// A matrix of weights in the layout of the kernels. Never changes.
pub struct mantle_matrix {
    handle: Handle<Matrix>,
}

impl Opaque for mantle_matrix {
    type Value = Matrix;
    const NAME: &'static str = "matrix";
    fn handle(&self) -> &Handle<Matrix> {
        &self.handle
    }
}

/// What a matrix is and takes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_matrix_info {
    /// sizeof(mantle_matrix_info), set by the caller.
    pub struct_size: usize,
    /// Rows: outputs of a multiplication.
    pub rows: u64,
    /// Columns: inputs of a multiplication.
    pub columns: u64,
    /// Bytes in the layout of the kernels.
    pub packed_bytes: u64,
    /// Element type of the weights.
    pub dtype: mantle_dtype,
    /// 0.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_matrix_info {
    const NAME: &'static str = "mantle_matrix_info";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_matrix_info {
            struct_size: size_of::<Self>(),
            rows: 0,
            columns: 0,
            packed_bytes: 0,
            dtype: 0,
            reserved: 0,
        }
    }
}

/// Brings a matrix of weights into the layout of the kernels. `data` are `rows` rows of `columns` values,
/// encoded as `dtype` says, one after the other: `size` = rows * mantle_row_bytes bytes, at any alignment,
/// read during the call only. Free the matrix with mantle_matrix_free. Any thread.
/// Errors: INVALID_ARGUMENT (a shape with 0, columns that do not fill whole blocks, a wrong size),
/// UNSUPPORTED (a type that is not multiplied), NO_MEMORY.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_matrix_new(
    runtime: *const mantle_runtime,
    dtype: mantle_dtype,
    data: *const c_void,
    size: usize,
    rows: usize,
    columns: usize,
    out: *mut *mut mantle_matrix,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as many bytes as the caller says.
        let data = unsafe { boundary::slice(data.cast::<u8>(), size, "data")? };
        let dtype = dtype::of(dtype)?;
        if rows == 0 || columns == 0 {
            return Err(Error::invalid(format!(
                "the matrix has {rows} rows and {columns} columns, expected at least 1 of each"
            )));
        }
        dtype::check_bytes(dtype, rows, columns, size, "size")?;
        let matrix = Matrix::pack(&runtime, dtype, data, rows, columns)?;
        let handle = Handle::new(matrix);
        *out = handle::into_raw(mantle_matrix { handle });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells shape, type and size of the matrix. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_matrix_get_info(
    matrix: *const mantle_matrix,
    info: *mut mantle_matrix_info,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let matrix = unsafe { handle::shared(matrix)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let info = unsafe { structure::output(info)? };
        info.write(mantle_matrix_info {
            rows: matrix.rows() as u64,
            columns: matrix.columns() as u64,
            packed_bytes: matrix.bytes() as u64,
            dtype: matrix.dtype() as mantle_dtype,
            ..mantle_matrix_info::defaults()
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Frees the matrix. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_matrix_free(matrix: *mut mantle_matrix) {
    // SAFETY: NULL or a living object that nobody uses afterwards, as the header demands.
    boundary::quietly(|| unsafe { handle::free(matrix) });
}

/// Multiplies: y[t][r] = sum over c of matrix[r][c] * x[t][c], for `count` vectors x[t] (tokens). Row t of x
/// begins at x + t * x_stride and has as many values as the matrix has columns; row t of y begins at
/// y + t * y_stride and has as many as the matrix has rows. Strides count values and are at least the length
/// of a row. x and y must not overlap. Quantized weights are multiplied by x rounded to 8 bits per 32
/// values, BF16 weights by x rounded to BF16; F32 and F16 weights by x as it is.
/// The bits of y do not depend on `count`, the number of threads or the instruction set. Any thread; several
/// may share the matrix.
/// The matrix keeps the scratch memory for the rounded x, so that the next call takes none.
/// Errors: INVALID_ARGUMENT (a stride too small, overlap), NO_MEMORY (scratch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_matmul(
    runtime: *const mantle_runtime,
    matrix: *const mantle_matrix,
    x: *const f32,
    count: usize,
    x_stride: usize,
    y: *mut f32,
    y_stride: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: as above.
        let matrix = unsafe { handle::shared(matrix)? };
        if count == 0 {
            return Ok(());
        }
        let x_length = extent(count, matrix.columns(), x_stride, "x_stride")?;
        let y_length = extent(count, matrix.rows(), y_stride, "y_stride")?;
        apart(x, x_length, y, y_length, "x and y")?;
        // SAFETY: NULL is refused; otherwise rows as the caller says, which do not overlap with y.
        let x = unsafe { boundary::slice(x, x_length, "x")? };
        // SAFETY: as above; the caller hands y over for the call.
        let y = unsafe { boundary::slice_mut(y, y_length, "y")? };
        let y = MatrixMut::new(y, count, matrix.rows(), y_stride)
            .ok_or_else(|| Error::invalid("y does not fit its rows"))?;
        matrix.multiply(&runtime, x, x_stride, y)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Values from the first of row 0 to the last of row `count` - 1.
pub(super) fn extent(count: usize, length: usize, stride: usize, name: &str) -> Result<usize> {
    if stride < length {
        return Err(Error::invalid(format!(
            "{name} is {stride}, expected at least {length}, the length of a row"
        )));
    }
    let before = count.saturating_sub(1).checked_mul(stride);
    before
        .and_then(|before| before.checked_add(length))
        .filter(|_| count > 0)
        .ok_or_else(|| {
            Error::invalid(format!(
                "{count} rows {stride} apart are more than memory can hold"
            ))
        })
}

/// Refuses two ranges that share bytes.
pub(super) fn apart<X, Y>(
    x: *const X,
    x_length: usize,
    y: *const Y,
    y_length: usize,
    names: &str,
) -> Result<()> {
    let x_end = x.addr().saturating_add(x_length.saturating_mul(size_of::<X>()));
    let y_end = y.addr().saturating_add(y_length.saturating_mul(size_of::<Y>()));
    if x.addr() < y_end && y.addr() < x_end {
        return Err(Error::invalid(format!("{names} overlap")));
    }
    Ok(())
}
