//! Loads tensors by name and packs them, on all threads, returning the file's pages as it goes.

use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Status, Within};
use crate::base::matrix::Pieces;
use crate::format::container::{Container, Tensor};
use crate::ops::runtime::Runtime;
use crate::quant::packed::{Layout, PANEL, PackedMatrix, pack_panel};
use crate::quant::scalar::dequantize_row;
use std::sync::{Mutex, PoisonError};

/// Called with the bytes done and in all; false cancels.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> bool;

/// In which order a matrix's rows are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOrder {
    /// As stored.
    Stored,
    /// Heads of `head_dim` rows whose first `rotated` rows are stored as the interleaved pairs of RoPE become two halves:
    /// one rotation kernel serves both pairings, and scores do not depend on the order of the dims.
    PairsToHalves {
        /// Rows of a head.
        head_dim: usize,
        /// Rows of a head that are rotated.
        rotated: usize,
    },
}

impl RowOrder {
    /// The stored row that becomes row `row`.
    fn source(self, row: usize) -> usize {
        match self {
            RowOrder::Stored => row,
            RowOrder::PairsToHalves { head_dim, rotated } => {
                let (head, dim) = (row / head_dim * head_dim, row % head_dim);
                match dim {
                    dim if dim < rotated / 2 => head + 2 * dim,
                    dim if dim < rotated => head + 2 * (dim - rotated / 2) + 1,
                    dim => head + dim,
                }
            }
        }
    }
}

/// Reads the tensors of one file.
pub struct Loader<'a, 'c, 'p> {
    runtime: &'a Runtime,
    container: &'a Container<'c>,
    progress: Option<Progress<'p>>,
    cancel: Option<&'a Cancel>,
    done: u64,
    total: u64,
    packed: u64,
    limit: u64,
}

impl<'a, 'c, 'p> Loader<'a, 'c, 'p> {
    /// A loader. A `limit` above 0 is the most bytes that packed weights may take.
    pub fn new(
        runtime: &'a Runtime,
        container: &'a Container<'c>,
        progress: Option<Progress<'p>>,
        cancel: Option<&'a Cancel>,
        limit: u64,
    ) -> Loader<'a, 'c, 'p> {
        let total = container.tensors().iter().map(|tensor| tensor.bytes).sum();
        Loader {
            runtime,
            container,
            progress,
            cancel,
            done: 0,
            total,
            packed: 0,
            limit,
        }
    }

    /// Bytes packed so far.
    pub fn packed(&self) -> u64 {
        self.packed
    }

    /// Whether the file has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.container.tensor(name).is_some()
    }

    /// The tensor `name`, which must be `rows` x `columns`.
    fn tensor(&self, name: &str, rows: usize, columns: usize) -> Result<&'a Tensor> {
        let tensor = self
            .container
            .tensor(name)
            .ok_or_else(|| Error::format(format!("required tensor {name} is missing")))?;
        if tensor.columns() != columns || tensor.rows() != rows {
            return Err(Error::format(format!(
                "tensor {name}: found the shape {:?}, expected {columns} x {rows}",
                tensor.shape
            )));
        }
        Ok(tensor)
    }

    /// A vector of `length` values, as f32.
    pub fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, 1, length)?;
        let mut values = Vec::new();
        values
            .try_reserve_exact(length)
            .map_err(|_| Error::no_memory(format!("cannot allocate {length} values")))?;
        values.resize(length, 0.0);
        let mut scratch = Vec::new();
        let bytes = self.container.rows(tensor, 0, 1, &mut scratch)?;
        dequantize_row(tensor.dtype, bytes, &mut values).within(|| format!("tensor {name}"))?;
        self.advance(tensor)?;
        Ok(values)
    }

    /// A vector that the file may lack.
    pub fn optional_vector(&mut self, name: &str, length: usize) -> Result<Option<Vec<f32>>> {
        if self.has(name) {
            self.vector(name, length).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A matrix of `rows` outputs and `columns` inputs, packed.
    pub fn matrix(
        &mut self,
        name: &str,
        rows: usize,
        columns: usize,
        order: RowOrder,
    ) -> Result<PackedMatrix> {
        let tensor = self.tensor(name, rows, columns)?;
        let place = || format!("tensor {name}");
        let bytes = PackedMatrix::bytes_for(tensor.dtype, rows, columns).within(place)? as u64;
        if self.limit > 0 && self.packed + bytes > self.limit {
            return Err(Error::no_memory(format!(
                "the weights do not fit into the memory limit of {} bytes: at least {} are needed",
                self.limit,
                self.packed + bytes
            )));
        }
        let mut matrix =
            PackedMatrix::new(tensor.dtype, rows, columns, self.runtime.allocator()).within(place)?;
        let source = Source {
            runtime: self.runtime,
            container: self.container,
            cancel: self.cancel,
            tensor,
            order,
        };
        source.pack(&mut matrix).within(place)?;
        self.packed += bytes;
        self.container.release(tensor);
        self.advance(tensor)?;
        Ok(matrix)
    }

    /// Reports progress; an error when the caller has had enough.
    fn advance(&mut self, tensor: &Tensor) -> Result<()> {
        self.done += tensor.bytes;
        let go_on = match &mut self.progress {
            Some(progress) => progress(self.done, self.total),
            None => true,
        };
        if !go_on || self.cancel.is_some_and(Cancel::is_fired) {
            return Err(Error::new(Status::Cancelled, "loading was cancelled"));
        }
        Ok(())
    }
}

/// The rows of one tensor, read by several threads.
struct Source<'a, 'c> {
    runtime: &'a Runtime,
    container: &'a Container<'c>,
    cancel: Option<&'a Cancel>,
    tensor: &'a Tensor,
    order: RowOrder,
}

impl Source<'_, '_> {
    fn pack(&self, matrix: &mut PackedMatrix) -> Result<()> {
        const PANELS: usize = 4;
        let (layout, rows, blocks) = (*matrix.layout(), matrix.rows(), matrix.blocks());
        let (panels, panel_bytes) = (matrix.panels(), matrix.panel_bytes());
        let failure = Mutex::new(None);
        let pieces = Pieces::new(matrix.bytes_mut(), PANELS * panel_bytes);
        self.runtime
            .pool()
            .divide(panels.div_ceil(PANELS), pieces, |chunk, piece| {
                if self.cancel.is_some_and(Cancel::is_fired) {
                    return;
                }
                for (index, panel) in piece.chunks_exact_mut(panel_bytes).enumerate() {
                    let first = (chunk * PANELS + index) * PANEL;
                    let count = PANEL.min(rows - first);
                    if let Err(error) = self.pack_rows(&layout, first, count, blocks, panel) {
                        *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    }
                }
            });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Packs the rows `first .. first + count`.
    fn pack_rows(
        &self,
        layout: &Layout,
        first: usize,
        count: usize,
        blocks: usize,
        panel: &mut [u8],
    ) -> Result<()> {
        let (tensor, order) = (self.tensor, self.order);
        let mut slices: [&[u8]; PANEL] = [&[]; PANEL];
        let mut scratch: [Vec<u8>; PANEL] = Default::default();
        if order == RowOrder::Stored {
            let bytes = self.container.rows(tensor, first, count, &mut scratch[0])?;
            for (slice, row) in slices
                .iter_mut()
                .zip(bytes.chunks_exact(tensor.row_bytes().max(1)))
            {
                *slice = row;
            }
        } else {
            for (index, (slice, scratch)) in slices.iter_mut().zip(&mut scratch).take(count).enumerate() {
                *slice = self
                    .container
                    .rows(tensor, order.source(first + index), 1, scratch)?;
            }
        }
        pack_panel(layout, &slices[..count], blocks, panel);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_become_halves() {
        let order = RowOrder::PairsToHalves {
            head_dim: 6,
            rotated: 4,
        };
        let rows: Vec<usize> = (0..12).map(|row| order.source(row)).collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]);
    }
}
