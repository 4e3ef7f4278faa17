//! ------------------------------------------------------------------------------------------------
//! Limits: what this machine can do
//! ------------------------------------------------------------------------------------------------
//!
//! The other side of a benchmark's percentage. Measure them in the same run as what is compared with them:
//! a machine that others use too is not the same a minute later.

use super::boundary::{self, call};
use super::status::{mantle_error, mantle_status};
use crate::base::error::{Error, Result};
use crate::kernels::limits::{self, Limit};

/// Multiply-adds of 8-bit integers into 32 bits, as VNNI does: operations per second, two per multiply-add.
pub const MANTLE_LIMIT_INTEGER_DOT: i32 = 0;
/// Fused multiply-adds of f32: operations per second, two per multiply-add.
pub const MANTLE_LIMIT_FUSED_MULTIPLY_ADD: i32 = 1;
/// Multiply-adds of bfloat16 into f32: operations per second, two per multiply-add. 0 where the processor has
/// no instruction for it.
pub const MANTLE_LIMIT_BF16_DOT: i32 = 2;
/// Reading memory: bytes per second of all threads together.
pub const MANTLE_LIMIT_READ: i32 = 3;

/// Measures a limit of this machine, MANTLE_LIMIT_*, with the best instruction set it has, and writes what all
/// threads together reach to `rate`. `threads` (1 to 1024) are started and pinned for it and end with the call.
/// It works for about `milliseconds` (1 to 60000) in slices of two milliseconds; the best slice counts, so
/// that other programs disturb the result as little as can be. For MANTLE_LIMIT_READ each thread reads a buffer
/// of its own of `bytes_per_thread` over and over; the other limits ignore it. Any thread.
/// Errors: INVALID_ARGUMENT (an unknown limit, a number out of range), NO_MEMORY, IO (a thread could not be
/// started).
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_measure_limit(
    limit: i32,
    threads: u32,
    bytes_per_thread: usize,
    milliseconds: u32,
    rate: *mut f64,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let rate = unsafe { boundary::output(rate, "rate")? };
        rate.write(limits::measure(
            limit_of(limit)?,
            threads as usize,
            None,
            bytes_per_thread,
            milliseconds,
        )?);
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Bytes of the processor's last-level cache; 32 MiB where the system does not tell. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mantle_last_level_cache() -> usize {
    let mut bytes = 0;
    boundary::quietly(|| bytes = limits::last_level_cache());
    bytes
}

fn limit_of(number: i32) -> Result<Limit> {
    let limits = [
        (MANTLE_LIMIT_INTEGER_DOT, Limit::IntegerDot),
        (MANTLE_LIMIT_FUSED_MULTIPLY_ADD, Limit::FusedMultiplyAdd),
        (MANTLE_LIMIT_BF16_DOT, Limit::Bf16Dot),
        (MANTLE_LIMIT_READ, Limit::Read),
    ];
    let found = limits.into_iter().find(|(known, _)| *known == number);
    let (_, limit) =
        found.ok_or_else(|| Error::invalid(format!("{number} is no MANTLE_LIMIT_*: expected 0 to 3")))?;
    Ok(limit)
}
