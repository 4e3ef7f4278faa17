//! ------------------------------------------------------------------------------------------------
//! Vectors: the steps between matrix products
//! ------------------------------------------------------------------------------------------------
//!
//! What holds for all of them. Vectors are dense f32. An input may be the very output (the same first value
//!   and, for rows, the same stride): the step then works in place. Any other overlap of an input with the
//!   output is INVALID_ARGUMENT; what lies between the rows counts as part of them. Inputs may overlap each
//!   other. A count of 0 does nothing.
//! The bits of a result depend neither on the number of threads nor on the instruction set. Long vectors and
//!   many rows are divided among the runtime's threads. Any thread. No memory is taken.
//! NaN in a value gives NaN in what is made from it; denormals are kept. Errors are INVALID_ARGUMENT only.

use super::boundary::{self, call};
use super::handle;
use super::matrix::{apart, extent};
use super::runtime::mantle_runtime;
use super::status::{mantle_error, mantle_status};
use crate::base::error::{Error, Result};
use crate::base::matrix::{MatrixMut, Source};
use crate::kernels::activation::Activation;
use crate::ops::rope;
use crate::ops::vector::{self, Pairing, RopeTable, Rows};

/// An element-wise function. docs/accuracy.md tells how exact each is.
pub type mantle_function = i32;

/// x / (1 + e^-x), also called swish; its gate is SwiGLU.
pub const MANTLE_FUNCTION_SILU: mantle_function = 0;
/// GELU in its tanh form, x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))); its gate is GeGLU.
pub const MANTLE_FUNCTION_GELU_TANH: mantle_function = 1;
/// GELU in its exact form, x/2 (1 + erf(x / sqrt(2))); its gate is GeGLU.
pub const MANTLE_FUNCTION_GELU_ERF: mantle_function = 2;
/// e^x.
pub const MANTLE_FUNCTION_EXP: mantle_function = 3;
/// The hyperbolic tangent.
pub const MANTLE_FUNCTION_TANH: mantle_function = 4;
/// The error function.
pub const MANTLE_FUNCTION_ERF: mantle_function = 5;

/// mantle_vector_rope: turns value i of a head with value i + dims / 2 (GPT-NeoX; most model files).
pub const MANTLE_ROPE_HALVES: i32 = 0;
/// mantle_vector_rope: turns value 2i of a head with value 2i + 1.
pub const MANTLE_ROPE_PAIRS: i32 = 1;

const _: () = {
    assert!(Activation::Silu as i32 == MANTLE_FUNCTION_SILU);
    assert!(Activation::GeluTanh as i32 == MANTLE_FUNCTION_GELU_TANH);
    assert!(Activation::GeluErf as i32 == MANTLE_FUNCTION_GELU_ERF);
    assert!(Activation::Exp as i32 == MANTLE_FUNCTION_EXP);
    assert!(Activation::Tanh as i32 == MANTLE_FUNCTION_TANH);
    assert!(Activation::Erf as i32 == MANTLE_FUNCTION_ERF);
    assert!(Pairing::Halves as i32 == MANTLE_ROPE_HALVES);
    assert!(Pairing::Neighbours as i32 == MANTLE_ROPE_PAIRS);
};

fn function_of(function: mantle_function) -> Result<Activation> {
    match function {
        MANTLE_FUNCTION_SILU => Ok(Activation::Silu),
        MANTLE_FUNCTION_GELU_TANH => Ok(Activation::GeluTanh),
        MANTLE_FUNCTION_GELU_ERF => Ok(Activation::GeluErf),
        MANTLE_FUNCTION_EXP => Ok(Activation::Exp),
        MANTLE_FUNCTION_TANH => Ok(Activation::Tanh),
        MANTLE_FUNCTION_ERF => Ok(Activation::Erf),
        _ => Err(Error::invalid(format!(
            "function is {function}, expected one of MANTLE_FUNCTION_*"
        ))),
    }
}

/// The input `x` of a step that writes `y`, both of `length` values.
///
/// # Safety
/// `x` is NULL or points to `length` values that nobody else writes during `'a`.
unsafe fn source<'a>(x: *const f32, y: *const f32, length: usize, name: &str) -> Result<Source<'a>> {
    // SAFETY: as the caller promises.
    let values = unsafe { boundary::slice(x, length, name)? };
    if std::ptr::eq(x, y) {
        return Ok(Source::InPlace);
    }
    apart(x, length, y, length, &format!("{name} and y"))?;
    Ok(Source::Apart(values))
}

/// y[i] += a * x[i], rounded once, for `count` values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_axpy(
    runtime: *const mantle_runtime,
    a: f32,
    x: *const f32,
    count: usize,
    y: *mut f32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as many values as the caller says.
        let x = unsafe { source(x, y, count, "x")? };
        // SAFETY: as above; the caller hands y over for the call.
        let y = unsafe { boundary::slice_mut(y, count, "y")? };
        vector::each_piece(&runtime, y, |kernels, first, y| {
            kernels.axpy(a, x.part(first, y.len()), y);
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// y[i] = factor * x[i], for `count` values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_scale(
    runtime: *const mantle_runtime,
    factor: f32,
    x: *const f32,
    count: usize,
    y: *mut f32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as many values as the caller says.
        let x = unsafe { source(x, y, count, "x")? };
        // SAFETY: as above; the caller hands y over for the call.
        let y = unsafe { boundary::slice_mut(y, count, "y")? };
        vector::each_piece(&runtime, y, |kernels, first, y| {
            kernels.scale(factor, x.part(first, y.len()), y);
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// y[i] = a[i] + b[i], for `count` values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_add(
    runtime: *const mantle_runtime,
    a: *const f32,
    b: *const f32,
    count: usize,
    y: *mut f32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as many values as the caller says.
        let (a, b) = unsafe { (source(a, y, count, "a")?, source(b, y, count, "b")?) };
        // SAFETY: as above; the caller hands y over for the call.
        let y = unsafe { boundary::slice_mut(y, count, "y")? };
        vector::each_piece(&runtime, y, |kernels, first, y| {
            let count = y.len();
            kernels.add(a.part(first, count), b.part(first, count), y);
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// y[i] = a[i] * b[i], for `count` values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_mul(
    runtime: *const mantle_runtime,
    a: *const f32,
    b: *const f32,
    count: usize,
    y: *mut f32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as many values as the caller says.
        let (a, b) = unsafe { (source(a, y, count, "a")?, source(b, y, count, "b")?) };
        // SAFETY: as above; the caller hands y over for the call.
        let y = unsafe { boundary::slice_mut(y, count, "y")? };
        vector::each_piece(&runtime, y, |kernels, first, y| {
            let count = y.len();
            kernels.mul(a.part(first, count), b.part(first, count), y);
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// y[i] = function(x[i]), for `count` values. `function` is one of MANTLE_FUNCTION_*.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_apply(
    runtime: *const mantle_runtime,
    function: mantle_function,
    x: *const f32,
    count: usize,
    y: *mut f32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        let function = function_of(function)?;
        // SAFETY: NULL is refused; otherwise as many values as the caller says.
        let x = unsafe { source(x, y, count, "x")? };
        // SAFETY: as above; the caller hands y over for the call.
        let y = unsafe { boundary::slice_mut(y, count, "y")? };
        vector::each_piece(&runtime, y, |kernels, first, y| {
            kernels.apply(function, x.part(first, y.len()), y);
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// y[i] = function(gate[i]) * up[i], for `count` values, in one pass: SwiGLU with MANTLE_FUNCTION_SILU, GeGLU
/// with MANTLE_FUNCTION_GELU_TANH or MANTLE_FUNCTION_GELU_ERF.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_gate(
    runtime: *const mantle_runtime,
    function: mantle_function,
    gate: *const f32,
    up: *const f32,
    count: usize,
    y: *mut f32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        let function = function_of(function)?;
        // SAFETY: NULL is refused; otherwise as many values as the caller says.
        let (gate, up) = unsafe { (source(gate, y, count, "gate")?, source(up, y, count, "up")?) };
        // SAFETY: as above; the caller hands y over for the call.
        let y = unsafe { boundary::slice_mut(y, count, "y")? };
        vector::each_piece(&runtime, y, |kernels, first, y| {
            let (gate, up) = (gate.part(first, y.len()), up.part(first, y.len()));
            kernels.apply_gate(function, gate, up, y);
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Input and output of a step over rows.
///
/// # Safety
/// `x` and `y` are NULL or point to rows as said, which nobody else writes (`x`) or uses (`y`) during `'a`.
unsafe fn rows<'a>(
    x: *const f32,
    (rows, columns): (usize, usize),
    x_stride: usize,
    y: *mut f32,
    y_stride: usize,
) -> Result<(Rows<'a>, MatrixMut<'a, f32>)> {
    let x_length = extent(rows, columns, x_stride, "x_stride")?;
    let y_length = extent(rows, columns, y_stride, "y_stride")?;
    // SAFETY: as the caller promises.
    let values = unsafe { boundary::slice(x, x_length, "x")? };
    let values = if std::ptr::eq(x, y) && (x_stride == y_stride || rows == 1) {
        Source::InPlace
    } else {
        apart(x, x_length, y, y_length, "x and y")?;
        Source::Apart(values)
    };
    // SAFETY: as the caller promises.
    let y = unsafe { boundary::slice_mut(y, y_length, "y")? };
    let y = MatrixMut::new(y, rows, columns, y_stride)
        .ok_or_else(|| Error::invalid("y does not fit its rows"))?;
    let x = Rows {
        values,
        stride: x_stride,
    };
    Ok((x, y))
}

/// Softmax of each of `rows` rows of `columns` values: y = e^(x - max) / sum of e^(x - max). Row r of x begins
/// at x + r * x_stride, row r of y at y + r * y_stride; strides count values and are at least `columns`.
/// A value of -infinity gets the weight 0. A row that holds NaN or +infinity, or nothing but -infinity,
/// becomes NaN.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_softmax(
    runtime: *const mantle_runtime,
    x: *const f32,
    rows: usize,
    columns: usize,
    x_stride: usize,
    y: *mut f32,
    y_stride: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        // SAFETY: NULL is refused; otherwise rows as the caller says.
        let (x, y) = unsafe { self::rows(x, (rows, columns), x_stride, y, y_stride)? };
        vector::each_row(&runtime, x, y, |kernels, x, y| kernels.softmax(x, y));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// RMS norm of each of `rows` rows of `columns` values: y = x / sqrt(mean(x^2) + epsilon) * weight, with
/// `columns` values of `weight`, apart from y. Strides as for mantle_vector_softmax. `epsilon` is finite and
/// not negative. Where the sum of squares leaves the range of f32, finite values become 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_rms_norm(
    runtime: *const mantle_runtime,
    x: *const f32,
    rows: usize,
    columns: usize,
    x_stride: usize,
    weight: *const f32,
    epsilon: f32,
    y: *mut f32,
    y_stride: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        check_epsilon(epsilon)?;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        // SAFETY: NULL is refused; otherwise rows as the caller says.
        let (x, mut y) = unsafe { self::rows(x, (rows, columns), x_stride, y, y_stride)? };
        // SAFETY: NULL is refused; otherwise as many values as the caller says.
        let weight = unsafe { parameters(weight, columns, &mut y, "weight")? };
        vector::each_row(&runtime, x, y, |kernels, x, y| {
            kernels.rms_norm_from(x, weight, epsilon, y);
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Layer norm of each of `rows` rows of `columns` values: y = (x - mean(x)) / sqrt(variance(x) + epsilon) *
/// weight + bias, with `columns` values of `weight` and of `bias`, apart from y. The variance is the mean
/// of (x - mean(x))^2. Strides and `epsilon` as for mantle_vector_rms_norm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_layer_norm(
    runtime: *const mantle_runtime,
    x: *const f32,
    rows: usize,
    columns: usize,
    x_stride: usize,
    weight: *const f32,
    bias: *const f32,
    epsilon: f32,
    y: *mut f32,
    y_stride: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        check_epsilon(epsilon)?;
        if rows == 0 || columns == 0 {
            return Ok(());
        }
        // SAFETY: NULL is refused; otherwise rows as the caller says.
        let (x, mut y) = unsafe { self::rows(x, (rows, columns), x_stride, y, y_stride)? };
        // SAFETY: NULL is refused; otherwise as many values as the caller says.
        let weight = unsafe { parameters(weight, columns, &mut y, "weight")? };
        // SAFETY: as above.
        let bias = unsafe { parameters(bias, columns, &mut y, "bias")? };
        vector::each_row(&runtime, x, y, |kernels, x, y| {
            kernels.layer_norm_from(x, weight, bias, epsilon, y);
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

fn check_epsilon(epsilon: f32) -> Result<()> {
    if epsilon.is_finite() && epsilon >= 0.0 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "epsilon is {epsilon}, expected a finite number that is not negative"
    )))
}

/// `count` values that lie apart from `y`.
///
/// # Safety
/// `values` is NULL or points to `count` values that nobody else writes during `'a`.
unsafe fn parameters<'a>(
    values: *const f32,
    count: usize,
    y: &mut MatrixMut<'_, f32>,
    name: &str,
) -> Result<&'a [f32]> {
    let length = (y.rows().saturating_sub(1))
        .saturating_mul(y.stride())
        .saturating_add(y.columns());
    apart(
        values,
        count,
        y.start().cast_const(),
        length,
        &format!("{name} and y"),
    )?;
    // SAFETY: as the caller promises.
    unsafe { boundary::slice(values, count, name) }
}

/// Fills tables of the angles of rotary position embedding, for mantle_vector_rope: angle(position, i) =
/// position / scale * base^(-2i / dims) for positions 0 to `positions` - 1 and i from 0 to dims / 2 - 1. `cosine`
/// and `sine` take `positions` rows of dims / 2 values each, one after the other, and must not overlap. `dims` is
/// even and at least 2; `base` (10000 in the paper) and `scale` (1, or the factor by which the context is
/// stretched) are finite and above 0. Computed in f64; the error of a value is that of rounding it to f32.
/// Errors: INVALID_ARGUMENT, NO_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_rope_table(
    positions: usize,
    dims: usize,
    base: f32,
    scale: f32,
    cosine: *mut f32,
    sine: *mut f32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        check_dims(dims)?;
        for (value, name) in [(base, "base"), (scale, "scale")] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::invalid(format!(
                    "{name} is {value}, expected a finite number above 0"
                )));
            }
        }
        let length = table_length(positions, dims)?;
        apart(
            cosine.cast_const(),
            length,
            sine.cast_const(),
            length,
            "cosine and sine",
        )?;
        // SAFETY: NULL is refused; otherwise as many values as the caller says, apart from each other.
        let cosine = unsafe { boundary::slice_mut(cosine, length, "cosine")? };
        // SAFETY: as above.
        let sine = unsafe { boundary::slice_mut(sine, length, "sine")? };
        rope::fill_tables(dims, base, scale, cosine, sine)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

fn check_dims(dims: usize) -> Result<()> {
    if dims >= 2 && dims.is_multiple_of(2) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "dims is {dims}, expected an even number of at least 2"
    )))
}

fn table_length(positions: usize, dims: usize) -> Result<usize> {
    positions.checked_mul(dims / 2).ok_or_else(|| {
        Error::invalid(format!(
            "{positions} positions of {dims} dims are more than memory can hold"
        ))
    })
}

/// Rotary position embedding (Su et al. 2021), in place. Row t of x, one of `rows`, begins at x + t * stride and
/// holds `heads` heads of `head_dim` values each; of every head the first `dims` values (even, at most
/// `head_dim`) are turned by the angles of the row's position, the others stay: (a, b) becomes
/// (a cos - b sin, b cos + a sin). `pairing`, MANTLE_ROPE_*, says which values are a and b. The position is
/// positions[t], or t where `positions` is NULL. `cosine` and `sine` are tables of `table_positions` rows of
/// dims / 2 values, as mantle_rope_table makes them, apart from x.
/// Errors: INVALID_ARGUMENT, also for a position that the table does not have; then x is as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_vector_rope(
    runtime: *const mantle_runtime,
    pairing: i32,
    cosine: *const f32,
    sine: *const f32,
    table_positions: usize,
    dims: usize,
    positions: *const u32,
    x: *mut f32,
    rows: usize,
    heads: usize,
    head_dim: usize,
    stride: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        let pairing = match pairing {
            MANTLE_ROPE_HALVES => Pairing::Halves,
            MANTLE_ROPE_PAIRS => Pairing::Neighbours,
            _ => {
                return Err(Error::invalid(format!(
                    "pairing is {pairing}, expected one of MANTLE_ROPE_*"
                )));
            }
        };
        check_dims(dims)?;
        if dims > head_dim {
            return Err(Error::invalid(format!(
                "dims is {dims}, more than head_dim, which is {head_dim}"
            )));
        }
        if rows == 0 || heads == 0 {
            return Ok(());
        }
        let columns = heads.checked_mul(head_dim).ok_or_else(|| {
            Error::invalid(format!(
                "{heads} heads of {head_dim} values are more than memory can hold"
            ))
        })?;
        let length = extent(rows, columns, stride, "stride")?;
        let table = table_length(table_positions, dims)?;
        for (values, name) in [(cosine, "cosine and x"), (sine, "sine and x")] {
            apart(values, table, x.cast_const(), length, name)?;
        }
        // SAFETY: NULL is refused; otherwise as many values as the caller says.
        let cosine = unsafe { boundary::slice(cosine, table, "cosine")? };
        // SAFETY: as above.
        let sine = unsafe { boundary::slice(sine, table, "sine")? };
        // SAFETY: as above.
        let positions =
            (!positions.is_null()).then(|| unsafe { boundary::slice(positions, rows, "positions") });
        // SAFETY: as above; the caller hands x over for the call.
        let x = unsafe { boundary::slice_mut(x, length, "x")? };
        let x = MatrixMut::new(x, rows, columns, stride)
            .ok_or_else(|| Error::invalid("x does not fit its rows"))?;
        let table = RopeTable { cosine, sine, dims };
        vector::rotate(&runtime, pairing, table, positions.transpose()?, head_dim, x)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}
