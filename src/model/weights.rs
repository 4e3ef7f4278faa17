//! Loads tensors by name and packs them, on all threads, returning the file's pages as it goes.

use super::names::Names;
use super::table::RowTable;
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Status, Within};
use crate::base::matrix::Pieces;
use crate::format::container::{Container, Tensor};
use crate::format::dtype::DataType;
use crate::ops::linear::Linear;
use crate::ops::runtime::Runtime;
use crate::quant::packed::{Layout, PANEL, PackedMatrix, pack_panel};
use crate::quant::scalar::{dequantize_row, quantize_row};
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

/// What a loader reads, and what limits it.
#[derive(Clone, Copy)]
pub struct LoadSource<'a, 'c> {
    /// Threads and memory.
    pub runtime: &'a Runtime,
    /// The file.
    pub container: &'a Container<'c>,
    /// How the file names its tensors.
    pub names: &'a Names,
    /// Matrices of floats are stored as this type, where their rows fill its blocks.
    pub weights: Option<DataType>,
    /// Stops the loading.
    pub cancel: Option<&'a Cancel>,
    /// The most bytes that packed weights may take; 0 for no limit.
    pub limit: u64,
}

impl LoadSource<'_, '_> {
    /// The type that a tensor's rows are stored as.
    pub fn stored_type(&self, tensor: &Tensor) -> DataType {
        let is_float = matches!(tensor.dtype, DataType::F32 | DataType::F16 | DataType::BF16);
        self.weights
            .filter(|dtype| is_float && tensor.columns().is_multiple_of(dtype.block_length()))
            .unwrap_or(tensor.dtype)
    }
}

/// Reads the tensors of one file, by their GGUF names.
pub struct Loader<'a, 'c, 'p> {
    source: LoadSource<'a, 'c>,
    progress: Option<Progress<'p>>,
    done: u64,
    total: u64,
    packed: u64,
}

impl<'a, 'c, 'p> Loader<'a, 'c, 'p> {
    /// A loader.
    pub fn new(source: LoadSource<'a, 'c>, progress: Option<Progress<'p>>) -> Loader<'a, 'c, 'p> {
        let tensors = source.container.tensors();
        Loader {
            source,
            progress,
            done: 0,
            total: tensors.iter().map(|tensor| tensor.bytes).sum(),
            packed: 0,
        }
    }

    /// A loader of another file of the same model, whose bytes count on from those of this one. Give what it packed
    /// back with [`Loader::set_packed`].
    pub fn of_another<'o, 'd>(
        &self,
        container: &'o Container<'d>,
        names: &'o Names,
    ) -> Loader<'o, 'd, 'static>
    where
        'a: 'o,
    {
        let source = LoadSource {
            runtime: self.source.runtime,
            container,
            names,
            weights: self.source.weights,
            cancel: self.source.cancel,
            limit: self.source.limit,
        };
        let mut loader = Loader::new(source, None);
        loader.packed = self.packed;
        loader
    }

    /// Bytes packed so far.
    pub fn packed(&self) -> u64 {
        self.packed
    }

    /// Counts the bytes of a loader of another file, too.
    pub fn set_packed(&mut self, packed: u64) {
        self.packed = packed;
    }

    /// Whether the file has a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Rows of a tensor that the file may lack.
    pub fn rows(&self, name: &str) -> Option<usize> {
        self.find(name).map(Tensor::rows)
    }

    fn find(&self, name: &str) -> Option<&'a Tensor> {
        self.source.container.tensor(&self.source.names.of(name))
    }

    /// The tensor `name`, which must be `rows` x `columns`.
    fn tensor(&self, name: &str, rows: usize, columns: usize) -> Result<&'a Tensor> {
        let tensor = self.find(name).ok_or_else(|| {
            let name = self.source.names.of(name);
            Error::format(format!("required tensor {name} is missing"))
        })?;
        if tensor.columns() != columns || tensor.rows() != rows {
            return Err(Error::format(format!(
                "tensor {}: found the shape {:?}, expected {columns} x {rows}",
                tensor.name, tensor.shape
            )));
        }
        Ok(tensor)
    }

    /// A vector of `length` values, as f32.
    pub fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, 1, length)?;
        let mut values = zeros(length)?;
        let mut scratch = Vec::new();
        let bytes = self.source.container.rows(tensor, 0, 1, &mut scratch)?;
        dequantize_row(tensor.dtype, bytes, &mut values).within(|| format!("tensor {}", tensor.name))?;
        self.advance(tensor)?;
        Ok(values)
    }

    /// A vector whose values are in the order of a matrix's rows.
    pub fn vector_in(&mut self, name: &str, length: usize, order: RowOrder) -> Result<Vec<f32>> {
        let stored = self.vector(name, length)?;
        Ok((0..length).map(|row| stored[order.source(row)]).collect())
    }

    /// The weights of a norm, with what the file leaves out added.
    pub fn norm(&mut self, name: &str, length: usize) -> Result<Vec<f32>> {
        let mut values = self.vector(name, length)?;
        let offset = self.source.names.norm_offset();
        values.iter_mut().for_each(|value| *value += offset);
        Ok(values)
    }

    /// Whether the file stores the pairs that RoPE rotates next to each other, where its architecture may.
    pub fn stores_pairs(&self) -> bool {
        *self.source.names == Names::Gguf
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
        self.pack(&[(name, rows)], columns, order)
    }

    /// Matrices with the same inputs, whose outputs stand side by side: packed as one where they have one type.
    pub fn stack(
        &mut self,
        parts: &[(&str, usize)],
        columns: usize,
        bias: Option<Vec<f32>>,
    ) -> Result<Linear> {
        let mut types = Vec::new();
        for &(name, rows) in parts {
            types.push(self.source.stored_type(self.tensor(name, rows, columns)?));
        }
        let matrices = if types.windows(2).all(|pair| pair[0] == pair[1]) {
            vec![self.pack(parts, columns, RowOrder::Stored)?]
        } else {
            parts
                .iter()
                .map(|&(name, rows)| self.matrix(name, rows, columns, RowOrder::Stored))
                .collect::<Result<Vec<PackedMatrix>>>()?
        };
        Linear::new(matrices, bias)
    }

    /// Packs tensors of one type one below the other.
    fn pack(&mut self, parts: &[(&str, usize)], columns: usize, order: RowOrder) -> Result<PackedMatrix> {
        let mut tensors = Vec::new();
        let mut rows = 0;
        for &(name, count) in parts {
            tensors.push((rows, self.tensor(name, count, columns)?));
            rows += count;
        }
        let first = tensors[0].1;
        let dtype = self.source.stored_type(first);
        let place = || format!("tensor {}", first.name);
        let bytes = PackedMatrix::bytes_for(dtype, rows, columns).within(place)?;
        self.take(bytes)?;
        let allocator = self.source.runtime.allocator();
        let mut matrix = PackedMatrix::new(dtype, rows, columns, allocator).within(place)?;
        let stack = Stack {
            source: self.source,
            tensors: &tensors,
            dtype,
            order,
        };
        stack.pack(&mut matrix).within(place)?;
        for (_, tensor) in tensors {
            self.source.container.release(tensor);
            self.advance(tensor)?;
        }
        Ok(matrix)
    }

    /// A table whose rows are looked up.
    pub fn table(&mut self, name: &str, rows: usize, columns: usize) -> Result<RowTable> {
        let tensor = self.tensor(name, rows, columns)?;
        self.table_of(tensor, self.source.stored_type(tensor))
    }

    /// A table whose rows are looked up, as f32.
    pub fn table_f32(&mut self, name: &str, rows: usize, columns: usize) -> Result<RowTable> {
        let tensor = self.tensor(name, rows, columns)?;
        self.table_of(tensor, DataType::F32)
    }

    fn table_of(&mut self, tensor: &'a Tensor, dtype: DataType) -> Result<RowTable> {
        let place = || format!("tensor {}", tensor.name);
        let (rows, columns) = (tensor.rows(), tensor.columns());
        let bytes = RowTable::bytes_for(dtype, rows, columns).within(place)?;
        self.take(bytes)?;
        let allocator = self.source.runtime.allocator();
        let mut table = RowTable::new(dtype, rows, columns, allocator).within(place)?;
        let stack = Stack {
            source: self.source,
            tensors: &[(0, tensor)],
            dtype,
            order: RowOrder::Stored,
        };
        stack.copy(&mut table, rows).within(place)?;
        self.source.container.release(tensor);
        self.advance(tensor)?;
        Ok(table)
    }

    /// Counts bytes of weights against the limit.
    fn take(&mut self, bytes: usize) -> Result<()> {
        let packed = self.packed.saturating_add(bytes as u64);
        if self.source.limit > 0 && packed > self.source.limit {
            return Err(Error::no_memory(format!(
                "the weights do not fit into the memory limit of {} bytes: at least {packed} are needed",
                self.source.limit
            )));
        }
        self.packed = packed;
        Ok(())
    }

    /// Reports progress; an error when the caller has had enough.
    fn advance(&mut self, tensor: &Tensor) -> Result<()> {
        self.done += tensor.bytes;
        let go_on = match &mut self.progress {
            Some(progress) => progress(self.done, self.total),
            None => true,
        };
        if !go_on || self.source.cancel.is_some_and(Cancel::is_fired) {
            return Err(Error::new(Status::Cancelled, "loading was cancelled"));
        }
        Ok(())
    }
}

fn zeros(count: usize) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    values
        .try_reserve_exact(count)
        .map_err(|_| Error::no_memory(format!("cannot allocate {count} values")))?;
    values.resize(count, 0.0);
    Ok(values)
}

/// The rows of tensors that stand one below the other, read by several threads.
struct Stack<'a, 'c, 't> {
    source: LoadSource<'a, 'c>,
    /// Each with its first row in the stack.
    tensors: &'t [(usize, &'a Tensor)],
    /// What the rows become.
    dtype: DataType,
    order: RowOrder,
}

impl Stack<'_, '_, '_> {
    fn pack(&self, matrix: &mut PackedMatrix) -> Result<()> {
        let (layout, rows, blocks) = (*matrix.layout(), matrix.rows(), matrix.blocks());
        let (panels, panel_bytes) = (matrix.panels(), matrix.panel_bytes());
        self.in_pieces(panels, panel_bytes, matrix.bytes_mut(), |panel, bytes| {
            let first = panel * PANEL;
            self.pack_rows(&layout, first, PANEL.min(rows - first), blocks, bytes)
        })
    }

    fn copy(&self, table: &mut RowTable, rows: usize) -> Result<()> {
        let row_bytes = table.row_bytes();
        self.in_pieces(rows, row_bytes, table.bytes_mut(), |row, bytes| {
            let mut scratch = Row::default();
            bytes.copy_from_slice(self.row(row, &mut scratch)?);
            Ok(())
        })
    }

    /// Fills `count` pieces of `size` bytes on all threads; returns one of the errors, if there are any.
    fn in_pieces(
        &self,
        count: usize,
        size: usize,
        bytes: &mut [u8],
        fill: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<()> {
        let per_chunk = ((64 << 10) / size.max(1)).clamp(1, count.max(1));
        let failure = Mutex::new(None);
        let pieces = Pieces::new(bytes, per_chunk * size);
        let chunks = count.div_ceil(per_chunk);
        self.source.runtime.pool().divide(chunks, pieces, |chunk, part| {
            if self.source.cancel.is_some_and(Cancel::is_fired) {
                return;
            }
            for (index, piece) in part.chunks_exact_mut(size).enumerate() {
                if let Err(error) = fill(chunk * per_chunk + index, piece) {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return;
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
        let mut slices: [&[u8]; PANEL] = [&[]; PANEL];
        let mut scratch: [Row; PANEL] = Default::default();
        let (_, tensor) = self.tensors[0];
        if self.order == RowOrder::Stored && self.tensors.len() == 1 && tensor.dtype == self.dtype {
            let bytes = &mut scratch[0].stored;
            let bytes = self.source.container.rows(tensor, first, count, bytes)?;
            for (slice, row) in slices
                .iter_mut()
                .zip(bytes.chunks_exact(tensor.row_bytes().max(1)))
            {
                *slice = row;
            }
        } else {
            for (index, (slice, scratch)) in slices.iter_mut().zip(&mut scratch).take(count).enumerate() {
                *slice = self.row(self.order.source(first + index), scratch)?;
            }
        }
        pack_panel(layout, &slices[..count], blocks, panel);
        Ok(())
    }

    /// One row of the stack, as `dtype`.
    fn row<'s>(&'s self, row: usize, scratch: &'s mut Row) -> Result<&'s [u8]> {
        let index = self.tensors.partition_point(|&(first, _)| first <= row).max(1) - 1;
        let (first, tensor) = self.tensors[index];
        let stored = self
            .source
            .container
            .rows(tensor, row - first, 1, &mut scratch.stored)?;
        if tensor.dtype == self.dtype {
            return Ok(stored);
        }
        scratch.values = zeros(tensor.columns())?;
        dequantize_row(tensor.dtype, stored, &mut scratch.values)?;
        scratch.converted.clear();
        scratch
            .converted
            .resize(self.dtype.row_bytes(tensor.columns())?, 0);
        quantize_row(self.dtype, &scratch.values, &mut scratch.converted)?;
        Ok(&scratch.converted)
    }
}

/// What reading and converting a row needs.
#[derive(Default)]
struct Row {
    stored: Vec<u8>,
    values: Vec<f32>,
    converted: Vec<u8>,
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
