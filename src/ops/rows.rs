//! Encoding and decoding of many rows, on all threads.

use super::runtime::Runtime;
use crate::base::error::{Error, Result};
use crate::base::matrix::{MatrixMut, Pieces};
use crate::format::dtype::DataType;
use crate::quant::scalar;
use std::sync::{Mutex, PoisonError};

/// Values that are worth a chunk of their own.
const CHUNK_VALUES: usize = 1 << 14;

/// Encodes rows of `columns` values, `stride` apart in `values`, one after the other into `data`, whose length
/// says how many rows there are.
///
/// Errors: those of [`scalar::quantize_row`], of the first row that has one; lengths that do not fit. Some rows
/// may then have been written.
pub fn quantize(
    runtime: &Runtime,
    dtype: DataType,
    values: &[f32],
    columns: usize,
    stride: usize,
    data: &mut [u8],
) -> Result<()> {
    let row_bytes = dtype.row_bytes(columns)?.max(1);
    let rows = data.len() / row_bytes;
    let per_chunk = (CHUNK_VALUES / columns.max(1)).max(1);
    let pieces = Pieces::new(data, per_chunk * row_bytes);
    let failure = Failure::default();
    runtime
        .pool()
        .divide(rows.div_ceil(per_chunk), pieces, |chunk, bytes| {
            for (i, encoded) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                let row = chunk * per_chunk + i;
                failure.note(row, || {
                    let row = row_of(values, row, columns, stride)?;
                    if runtime.kernels().narrow(dtype, row, encoded) {
                        return Ok(());
                    }
                    scalar::quantize_row(dtype, row, encoded)
                });
            }
        });
    failure.into_result()
}

/// Decodes rows that stand one after the other in `data` into the rows of `values`.
///
/// Errors: those of [`scalar::dequantize_row`]; lengths that do not fit. Some rows may then have been written.
pub fn dequantize(runtime: &Runtime, dtype: DataType, data: &[u8], values: MatrixMut<'_, f32>) -> Result<()> {
    let columns = values.columns();
    let row_bytes = dtype.row_bytes(columns)?;
    let per_chunk = (CHUNK_VALUES / columns.max(1)).max(1);
    let chunks = values.rows().div_ceil(per_chunk);
    let failure = Failure::default();
    runtime
        .pool()
        .divide(chunks, values.by_rows(per_chunk), |chunk, mut part| {
            for i in 0..part.rows() {
                let row = chunk * per_chunk + i;
                failure.note(row, || {
                    let encoded = row_of(data, row, row_bytes, row_bytes)?;
                    if runtime.kernels().widen(dtype, encoded, part.row(i)) {
                        return Ok(());
                    }
                    scalar::dequantize_row(dtype, encoded, part.row(i))
                });
            }
        });
    failure.into_result()
}

fn row_of<T>(values: &[T], row: usize, length: usize, stride: usize) -> Result<&[T]> {
    let start = row.saturating_mul(stride);
    values
        .get(start..start.saturating_add(length))
        .ok_or_else(|| Error::invalid(format!("there is no row {row} of {length} values")))
}

/// The error of the lowest row, whichever thread met it first.
#[derive(Default)]
struct Failure(Mutex<Option<(usize, Error)>>);

impl Failure {
    fn note(&self, row: usize, work: impl FnOnce() -> Result<()>) {
        if let Err(error) = work() {
            let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if held.as_ref().is_none_or(|(lowest, _)| row < *lowest) {
                *held = Some((row, error.within(format!("row {row}"))));
            }
        }
    }

    fn into_result(self) -> Result<()> {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}
