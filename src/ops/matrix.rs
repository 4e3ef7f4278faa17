//! One matrix of weights by itself: packed on all threads, multiplied without a plan.

use super::linear::{Input, Linear};
use super::runtime::Runtime;
use crate::base::error::{Error, Result};
use crate::base::matrix::{MatrixMut, Pieces};
use crate::base::memory::{self, ALIGNMENT, Buffer};
use crate::format::dtype::DataType;
use crate::quant::activations::{ActivationMemory, Form, Spike};
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
        let carving = Carving::of(Form::of(self.dtype), tokens, columns)?;
        let held = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = held()
            .take()
            .filter(|buffer| buffer.bytes().len() >= carving.total);
        let mut buffer = match kept {
            Some(buffer) => buffer,
            None => runtime.allocator().buffer(carving.total)?,
        };
        let input = Input {
            values: x,
            stride,
            columns,
            tokens,
            rows: None,
            norm: None,
        };
        let mut memory = carving.carve(&mut buffer)?;
        self.linear
            .apply(runtime, &input, &mut memory, &mut [], output, false);
        *held() = Some(buffer);
        Ok(())
    }
}

/// Where the parts of the activations stand in the scratch memory.
struct Carving {
    data: usize,
    /// Bytes of the scales, the biases, the sums and the spikes.
    cells: [usize; 4],
    total: usize,
}

impl Carving {
    fn of(form: Form, tokens: usize, columns: usize) -> Result<Carving> {
        let carving = || {
            let blocks = columns.div_ceil(BLOCK);
            let data = tokens
                .checked_mul(blocks)?
                .checked_mul(BLOCK * form.value_bytes())?;
            let data = data.checked_next_multiple_of(ALIGNMENT)?;
            let (scales, biases, sums) = form.cells(tokens, blocks)?;
            let spikes = form.spikes(tokens, blocks)?.checked_mul(size_of::<Spike>() / 4)?;
            let mut cells = [scales, biases, sums, spikes];
            let mut total = data;
            for cells in &mut cells {
                *cells = cells.checked_mul(4)?.checked_next_multiple_of(ALIGNMENT)?;
                total = total.checked_add(*cells)?;
            }
            Some(Carving { data, cells, total })
        };
        carving().ok_or_else(|| Error::invalid(format!("{tokens} rows of {columns} values are too many")))
    }

    fn carve<'b>(&self, buffer: &'b mut Buffer) -> Result<ActivationMemory<'b>> {
        let small = || Error::no_memory("scratch memory is too small for the activations");
        let (data, rest) = buffer
            .bytes_mut()
            .split_at_mut_checked(self.data)
            .ok_or_else(small)?;
        let (scales, rest) = rest.split_at_mut_checked(self.cells[0]).ok_or_else(small)?;
        let (biases, rest) = rest.split_at_mut_checked(self.cells[1]).ok_or_else(small)?;
        let (sums, rest) = rest.split_at_mut_checked(self.cells[2]).ok_or_else(small)?;
        let (spikes, _) = rest.split_at_mut_checked(self.cells[3]).ok_or_else(small)?;
        Ok(ActivationMemory {
            data,
            scales: memory::cast_mut(scales).ok_or_else(small)?,
            biases: memory::cast_mut(biases).ok_or_else(small)?,
            sums: memory::cast_mut(sums).ok_or_else(small)?,
            spikes: memory::cast_mut(spikes).ok_or_else(small)?,
        })
    }
}
