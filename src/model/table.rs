//! A table whose rows are looked up, such as token embeddings.

use crate::base::error::{Error, Result};
use crate::base::memory::{Allocator, Buffer};
use crate::format::dtype::DataType;
use crate::quant::scalar::dequantize_row;

/// Rows as stored, one after another: a look-up reads one piece of memory, where a panel of the packed layout would
/// touch a cache line for every few values.
pub struct RowTable {
    dtype: DataType,
    columns: usize,
    row_bytes: usize,
    data: Buffer,
}

impl RowTable {
    /// Memory for `rows` rows of `columns` values.
    pub fn new(dtype: DataType, rows: usize, columns: usize, allocator: &Allocator) -> Result<RowTable> {
        // Rows that cannot be decoded are refused here, not at the first look-up.
        dequantize_row(dtype, &[], &mut [])?;
        Ok(RowTable {
            dtype,
            columns,
            row_bytes: dtype.row_bytes(columns)?,
            data: allocator.buffer(RowTable::bytes_for(dtype, rows, columns)?)?,
        })
    }

    /// Bytes that a table takes.
    pub fn bytes_for(dtype: DataType, rows: usize, columns: usize) -> Result<usize> {
        let bytes = dtype.row_bytes(columns)?.checked_mul(rows);
        bytes
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| Error::invalid(format!("a table of {rows} x {columns} is too large")))
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// All rows, to fill them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.data.bytes_mut()
    }

    fn bytes_of(&self, row: usize) -> &[u8] {
        &self.data.bytes()[row * self.row_bytes..][..self.row_bytes]
    }

    /// Decodes one row, which must exist, into `out`.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        if self.dtype == DataType::F32 {
            for (value, bytes) in out.iter_mut().zip(self.bytes_of(row).chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            return;
        }
        let Ok(()) = dequantize_row(self.dtype, self.bytes_of(row), &mut out[..self.columns]) else {
            unreachable!("the table was made of whole rows of a type that can be decoded")
        };
    }

    /// Adds one row, which must exist, of a table of F32 to `out`.
    pub fn add_row(&self, row: usize, out: &mut [f32]) {
        debug_assert!(self.dtype == DataType::F32);
        for (value, bytes) in out.iter_mut().zip(self.bytes_of(row).chunks_exact(4)) {
            *value += f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }
}
