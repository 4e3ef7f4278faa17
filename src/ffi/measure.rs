//! ------------------------------------------------------------------------------------------------
//! Measuring: steps and strategies by themselves
//! ------------------------------------------------------------------------------------------------
//!
//! For benchmarks: what is inside of other calls, and what the library chooses by itself.

use super::boundary::{self, call};
use super::handle;
use super::matrix::mantle_matrix;
use super::runtime::mantle_runtime;
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use crate::base::error::{Error, Result};
use crate::kernels::Strategy;
use crate::kernels::limits::MAX_MILLISECONDS;
use crate::ops::measure::{self, Shape, Step};
use std::time::Duration;

/// Weights are decoded in whichever of the ways below is faster for the type and the number of tokens.
pub const MANTLE_STRATEGY_FASTEST: i32 = 0;
/// Weights are decoded in registers, for every few tokens anew.
pub const MANTLE_STRATEGY_IN_REGISTERS: i32 = 1;
/// Weights are decoded to the first-level cache, once for many tokens.
pub const MANTLE_STRATEGY_IN_CACHE: i32 = 2;
/// Weights are floats: there is nothing to decode.
pub const MANTLE_STRATEGY_NONE: i32 = 3;

/// Handing an empty piece of work to every thread of the runtime, and waiting for all of them.
pub const MANTLE_STEP_FORK_JOIN: i32 = 0;
/// Quantization of `rows` rows of `columns` activations to 8 bits per 32 values.
pub const MANTLE_STEP_QUANTIZE: i32 = 1;
/// Attention of a document of `rows` tokens to itself, as in encoders: keys and values are F32.
pub const MANTLE_STEP_ATTENTION: i32 = 2;
/// Causal attention of the last `rows` of `columns` tokens of a sequence, over a cache of F16.
pub const MANTLE_STEP_CACHED_ATTENTION: i32 = 3;

/// How large a step is. What is not named with the step is not looked at.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_step_shape {
    /// sizeof(mantle_step_shape).
    pub struct_size: usize,
    /// Rows or tokens.
    pub rows: u32,
    /// Columns or keys.
    pub columns: u32,
    /// Attention: query heads, a multiple of kv_heads.
    pub heads: u32,
    /// Attention: key and value heads.
    pub kv_heads: u32,
    /// Attention: values of a head.
    pub head_dim: u32,
    /// 0.
    pub reserved: u32,
    /// Cached attention: use as many caches in turn as take so many bytes together; 0 for one.
    pub working_set: u64,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_step_shape {
    const NAME: &'static str = "mantle_step_shape";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_step_shape {
            struct_size: size_of::<Self>(),
            rows: 0,
            columns: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            reserved: 0,
            working_set: 0,
        }
    }
}

/// What a step took.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_step_result {
    /// sizeof(mantle_step_result), set by the caller.
    pub struct_size: usize,
    /// The best time of many.
    pub seconds: f64,
    /// As in mantle_profile_entry.
    pub operations: u64,
    /// As in mantle_profile_entry.
    pub bytes: u64,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_step_result {
    const NAME: &'static str = "mantle_step_result";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_step_result {
            struct_size: size_of::<Self>(),
            seconds: 0.0,
            operations: 0,
            bytes: 0,
        }
    }
}

/// Runs a step, MANTLE_STEP_*, again and again with made-up data for about `milliseconds` (1 to 60000). Any thread.
/// Errors: INVALID_ARGUMENT (an unknown step, a shape with 0 or too large), NO_MEMORY.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_measure_step(
    runtime: *const mantle_runtime,
    step: i32,
    shape: *const mantle_step_shape,
    milliseconds: u32,
    result: *mut mantle_step_result,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL, or as large as its struct_size says.
        let shape = shape_of(&unsafe { structure::read(shape)? });
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let result = unsafe { structure::output(result)? };
        if milliseconds == 0 || milliseconds > MAX_MILLISECONDS {
            return Err(Error::invalid(format!(
                "{milliseconds} milliseconds: expected 1 to {MAX_MILLISECONDS}"
            )));
        }
        let time = Duration::from_millis(milliseconds.into());
        let measured = measure::measure(&runtime, step_of(step)?, &shape, time)?;
        result.write(mantle_step_result {
            seconds: measured.seconds,
            operations: measured.work.operations,
            bytes: measured.work.bytes,
            ..mantle_step_result::defaults()
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Chooses how the weights of a matrix are decoded, MANTLE_STRATEGY_*; the results are the same. One thread per
/// matrix.
/// Errors: INVALID_ARGUMENT (an unknown strategy), BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_matrix_set_strategy(
    matrix: *mut mantle_matrix,
    strategy: i32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let mut matrix = unsafe { handle::exclusive(matrix)? };
        matrix.set_strategy(strategy_of(strategy)?);
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how the weights of a matrix are decoded when `count` vectors are multiplied: MANTLE_STRATEGY_IN_REGISTERS,
/// _IN_CACHE or _NONE. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_matrix_strategy(
    runtime: *const mantle_runtime,
    matrix: *const mantle_matrix,
    count: usize,
    strategy: *mut i32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: as above.
        let matrix = unsafe { handle::shared(matrix)? };
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let strategy = unsafe { boundary::output(strategy, "strategy")? };
        strategy.write(match matrix.strategy(&runtime, count) {
            None => MANTLE_STRATEGY_NONE,
            Some(Strategy::Fastest) => MANTLE_STRATEGY_FASTEST,
            Some(Strategy::InRegisters) => MANTLE_STRATEGY_IN_REGISTERS,
            Some(Strategy::InCache) => MANTLE_STRATEGY_IN_CACHE,
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

fn strategy_of(number: i32) -> Result<Strategy> {
    match number {
        MANTLE_STRATEGY_FASTEST => Ok(Strategy::Fastest),
        MANTLE_STRATEGY_IN_REGISTERS => Ok(Strategy::InRegisters),
        MANTLE_STRATEGY_IN_CACHE => Ok(Strategy::InCache),
        _ => Err(Error::invalid(format!(
            "strategy is {number}, expected MANTLE_STRATEGY_FASTEST, _IN_REGISTERS or _IN_CACHE"
        ))),
    }
}

fn step_of(number: i32) -> Result<Step> {
    match number {
        MANTLE_STEP_FORK_JOIN => Ok(Step::ForkJoin),
        MANTLE_STEP_QUANTIZE => Ok(Step::Quantize),
        MANTLE_STEP_ATTENTION => Ok(Step::Attention),
        MANTLE_STEP_CACHED_ATTENTION => Ok(Step::CachedAttention),
        _ => Err(Error::invalid(format!(
            "step is {number}, expected one of MANTLE_STEP_*"
        ))),
    }
}

fn shape_of(shape: &mantle_step_shape) -> Shape {
    Shape {
        rows: shape.rows as usize,
        columns: shape.columns as usize,
        heads: shape.heads as usize,
        kv_heads: shape.kv_heads as usize,
        head_dim: shape.head_dim as usize,
        working_set: usize::try_from(shape.working_set).unwrap_or(usize::MAX),
    }
}
