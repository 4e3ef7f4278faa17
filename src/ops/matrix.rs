//! One matrix of weights by itself: packed on all threads, multiplied without a plan.

use super::linear::{Input, Linear};
use super::runtime::Runtime;
use crate::base::error::{Error, Result};
use crate::base::matrix::{MatrixMut, Pieces};
use crate::base::memory::Buffer;
use crate::format::dtype::DataType;
use crate::kernels::Strategy;
use crate::quant::activations::{ActivationMemory, Form};
use crate::quant::packed::{BLOCK, Layout, PANEL, PackedMatrix, pack_panel};
use std::sync::{Mutex, PoisonError};

/// A packed matrix and the scratch memory of its last multiplication.
pub struct Matrix {
    linear: Linear,
    dtype: DataType,
    /// Kept, so that multiplying again takes no memory. A second thread meanwhile takes its own.
    scratch: Mutex<Option<Buffer>>,
}

impl Matrix {
    /// Packs `rows` rows of `columns` values of type `dtype` that stand one after the other in `data`.
    ///
    /// Errors: a size that does not fit, a type without a kernel, memory.
    pub fn pack(
        runtime: &Runtime,
        dtype: DataType,
        data: &[u8],
        rows: usize,
        columns: usize,
    ) -> Result<Matrix> {
        let layout = Layout::of(dtype)?;
        let row_bytes = dtype.row_bytes(columns)?;
        if row_bytes == 0 || rows.checked_mul(row_bytes) != Some(data.len()) {
            return Err(Error::invalid(format!(
                "{} bytes do not hold {rows} rows of {columns} {} values",
                data.len(),
                dtype.name()
            )));
        }
        let mut packed = PackedMatrix::new(dtype, rows, columns, runtime.allocator())?;
        let (blocks, panels, panel_bytes) = (packed.blocks(), packed.panels(), packed.panel_bytes());
        let pieces = Pieces::new(packed.bytes_mut(), panel_bytes);
        runtime.pool().divide(panels, pieces, |panel, bytes| {
            let first = panel * PANEL * row_bytes;
            let mut held: [&[u8]; PANEL] = [&[]; PANEL];
            let mut count = 0;
            for row in data
                .get(first..)
                .unwrap_or(&[])
                .chunks_exact(row_bytes)
                .take(PANEL)
            {
                held[count] = row;
                count += 1;
            }
            pack_panel(&layout, &held[..count], blocks, bytes);
        });
        Ok(Matrix {
            linear: Linear::new(vec![packed], None)?,
            dtype,
            scratch: Mutex::new(None),
        })
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.linear.rows()
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.linear.columns()
    }

    /// The stored type of the weights.
    pub fn dtype(&self) -> DataType {
        self.dtype
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.linear.bytes()
    }

    /// How weights of codes are decoded from now on.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        self.linear.set_strategy(strategy);
    }

    /// How weights of codes are decoded when `tokens` rows are multiplied; `None` for floats, which need none of it.
    pub fn strategy(&self, runtime: &Runtime, tokens: usize) -> Option<Strategy> {
        let fastest = runtime.kernels().strategy(self.dtype, tokens)?;
        Some(match self.linear.strategy() {
            Strategy::Fastest => fastest,
            set => set,
        })
    }

    /// `output = x * weights^T`. Row `t` of x begins at `x[t * stride]`; `output` has a row for each.
    ///
    /// Errors: shapes that do not fit each other, memory.
    pub fn multiply(
        &self,
        runtime: &Runtime,
        x: &[f32],
        stride: usize,
        output: MatrixMut<'_, f32>,
    ) -> Result<()> {
        let (tokens, columns) = (output.rows(), self.columns());
        let last = tokens.saturating_sub(1).checked_mul(stride);
        let needed = last.and_then(|last| last.checked_add(columns));
        if tokens == 0 || output.columns() != self.rows() || needed.is_none_or(|needed| needed > x.len()) {
            return Err(Error::invalid(format!(
                "{} values, {tokens} rows {stride} apart, do not fit a matrix of {} x {columns} and an output of {tokens} x {}",
                x.len(),
                self.rows(),
                output.columns()
            )));
        }
        let bytes = Form::of(self.dtype)
            .row_bytes(columns.div_ceil(BLOCK))
            .and_then(|row| row.checked_mul(tokens))
            .ok_or_else(|| Error::invalid(format!("{tokens} rows of {columns} values are too many")))?;
        let held = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = held().take().filter(|buffer| buffer.bytes().len() >= bytes);
        let mut buffer = match kept {
            Some(buffer) => buffer,
            None => runtime.allocator().buffer(bytes)?,
        };
        let input = Input {
            values: x,
            stride,
            columns,
            tokens,
            rows: None,
            norm: None,
        };
        let mut memory = ActivationMemory {
            data: buffer.bytes_mut(),
        };
        self.linear
            .apply(runtime, &input, &mut memory, &mut [], output, false);
        *held() = Some(buffer);
        Ok(())
    }
}
