//! ------------------------------------------------------------------------------------------------
//! Products of plain floats
//! ------------------------------------------------------------------------------------------------

use super::boundary::{self, call};
use super::dtype::{self, MANTLE_DTYPE_F32, mantle_dtype};
use super::handle;
use super::matrix::{apart, extent};
use super::runtime::mantle_runtime;
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use crate::base::error::{Error, Result};
use crate::base::matrix::MatrixMut;
use crate::format::dtype::DataType;
use crate::kernels::gemm::{Element, GemmInput, Operand};
use crate::ops::gemm;
use std::ffi::c_void;

/// B holds a row of `columns` values for each input, instead of a row of `depth` values for each column.
pub const MANTLE_GEMM_B_BY_INPUT: u32 = 1 << 0;

/// Options of mantle_matmul_f32. Set the defaults with mantle_gemm_options_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_gemm_options {
    /// sizeof(mantle_gemm_options).
    pub struct_size: usize,
    /// How A is stored: MANTLE_DTYPE_F32 (default), MANTLE_DTYPE_F16 or MANTLE_DTYPE_BF16.
    pub a_type: mantle_dtype,
    /// How B is stored; as a_type.
    pub b_type: mantle_dtype,
    /// Factor of A; default 1. It is multiplied into A, rounded.
    pub alpha: f32,
    /// Factor of what C holds; default 0: then C is only written, whatever it holds.
    pub beta: f32,
    /// Added to every row of C: one value for each column. NULL (default) for none.
    pub bias: *const f32,
    /// MANTLE_GEMM_* bits; default 0.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with its size; numbers and a plain pointer.
unsafe impl Structure for mantle_gemm_options {
    const NAME: &'static str = "mantle_gemm_options";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_gemm_options {
            struct_size: size_of::<Self>(),
            a_type: MANTLE_DTYPE_F32,
            b_type: MANTLE_DTYPE_F32,
            alpha: 1.0,
            beta: 0.0,
            bias: std::ptr::null(),
            flags: 0,
            reserved: 0,
        }
    }
}

/// Sets `options` to the defaults. `size` is sizeof(mantle_gemm_options). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_gemm_options_init(
    options: *mut mantle_gemm_options,
    size: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    // SAFETY: NULL is refused; otherwise the caller's memory of that size.
    let body = || unsafe { structure::initialize(options, size) };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Multiplies plain floats: c[i][j] = alpha * sum over k of a[i][k] * b[j][k] + beta * c[i][j] + bias[j] for `rows`
/// rows i, `columns` columns j and `depth` inputs k: B has the shape of weights, one row for each output, or with
/// MANTLE_GEMM_B_BY_INPUT that of a row-major matrix, b[k][j]. Row i of A begins at value a + i * a_stride, and so
/// on; strides count values and are at least the length of a row. `options` may be NULL for the defaults. For
/// weights that are used again and again, mantle_matrix_new and mantle_matmul are faster.
/// C must not overlap A, B or the bias; A and B may overlap. With `depth` 0 the sum is 0; no rows or no columns are
/// no work. NaN and infinity are handed on as IEEE 754 says, also those of A when alpha is 0; denormals are kept.
/// Every c[i][j] is one chain of fused multiply-adds over k in order, which starts from beta * c[i][j] + bias[j]: its
/// bits depend neither on the shape beside it nor on the number of threads nor on the instruction set. F16 and
/// BF16 are widened, which is exact. Runs on the runtime's threads, and takes scratch memory from its allocator
/// (about half a MiB for each thread), which the runtime keeps for the next call. Any thread.
/// Errors: INVALID_ARGUMENT (a stride too small, overlap, an unknown type or flag), NO_MEMORY (scratch).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_matmul_f32(
    runtime: *const mantle_runtime,
    a: *const c_void,
    a_stride: usize,
    b: *const c_void,
    b_stride: usize,
    rows: usize,
    columns: usize,
    depth: usize,
    options: *const mantle_gemm_options,
    c: *mut f32,
    c_stride: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL or as large as its struct_size says.
        let options = unsafe { structure::read(options)? };
        let (a_type, b_type) = (
            element(options.a_type, "a_type")?,
            element(options.b_type, "b_type")?,
        );
        let by_input = options.flags & MANTLE_GEMM_B_BY_INPUT != 0;
        if options.flags & !MANTLE_GEMM_B_BY_INPUT != 0 || options.reserved != 0 {
            return Err(Error::invalid(format!(
                "flags are {:#x} and reserved is {}, expected MANTLE_GEMM_* bits and 0",
                options.flags, options.reserved
            )));
        }
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        let c_length = extent(rows, columns, c_stride, "c_stride")?;
        let c_start = c.cast_const();
        let b_shape = if by_input {
            (depth, columns)
        } else {
            (columns, depth)
        };
        // SAFETY: NULL is refused; otherwise rows as the caller says.
        let a = unsafe { operand(a, a_type, (rows, depth), a_stride, (c_start, c_length), 'a')? };
        // SAFETY: as above.
        let b = unsafe { operand(b, b_type, b_shape, b_stride, (c_start, c_length), 'b')? };
        let bias = if options.bias.is_null() {
            None
        } else {
            apart(options.bias, columns, c_start, c_length, "bias and c")?;
            // SAFETY: not NULL; as many values as there are columns.
            Some(unsafe { boundary::slice(options.bias, columns, "bias")? })
        };
        // SAFETY: NULL is refused; the caller hands c over for the call.
        let c = unsafe { boundary::slice_mut(c, c_length, "c")? };
        let c = MatrixMut::new(c, rows, columns, c_stride)
            .ok_or_else(|| Error::invalid("c does not fit its rows"))?;
        let input = GemmInput {
            a,
            b,
            by_input,
            depth,
            alpha: options.alpha,
            beta: options.beta,
            bias,
        };
        gemm::multiply(&runtime, &input, c)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

fn element(dtype: mantle_dtype, name: &str) -> Result<Element> {
    match dtype::of(dtype) {
        Ok(DataType::F32) => Ok(Element::F32),
        Ok(DataType::F16) => Ok(Element::F16),
        Ok(DataType::BF16) => Ok(Element::Bf16),
        _ => Err(Error::invalid(format!(
            "{name} is {dtype}, expected MANTLE_DTYPE_F32, MANTLE_DTYPE_F16 or MANTLE_DTYPE_BF16"
        ))),
    }
}

/// A or B, apart from C.
///
/// # Safety
/// `start` is NULL or points to rows as said, which nobody writes during `'a`.
unsafe fn operand<'a>(
    start: *const c_void,
    element: Element,
    (rows, columns): (usize, usize),
    stride: usize,
    (c, c_length): (*const f32, usize),
    name: char,
) -> Result<Operand<'a>> {
    if rows == 0 || columns == 0 {
        return Ok(Operand {
            bytes: &[],
            element,
            stride: 0,
        });
    }
    let length = extent(rows, columns, stride, &format!("{name}_stride"))?;
    let name = name.to_string();
    // Checks the alignment, and that the bytes can be counted.
    // SAFETY: as the caller promises.
    let bytes = unsafe {
        match element {
            Element::F32 => size_of_val(boundary::slice(start.cast::<f32>(), length, &name)?),
            Element::F16 | Element::Bf16 => size_of_val(boundary::slice(start.cast::<u16>(), length, &name)?),
        }
    };
    let start = start.cast::<u8>();
    apart(start, bytes, c, c_length, &format!("{name} and c"))?;
    Ok(Operand {
        // SAFETY: as the caller promises.
        bytes: unsafe { boundary::slice(start, bytes, &name)? },
        element,
        stride,
    })
}
