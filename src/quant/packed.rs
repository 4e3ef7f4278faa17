//! The packed layout of weight matrices: one layout for every instruction set, and for mmap.
//!
//! A *panel* is 16 output rows. A panel holds its codes, block of 32 inputs after block, and behind
//! them its scales; `docs/packed-layout.md` pins the bytes. Rows that do not fill a panel and inputs that
//! do not fill a block are padded with zero bytes, whose codes or scales are zero.

pub mod books;
mod layout;
mod panel;

pub use layout::{Layout, Planes, Record};
pub use panel::pack_panel;

use crate::base::error::{Error, Result};
use crate::base::memory::{Allocator, Buffer};
use crate::format::dtype::DataType;
use std::ops::Range;

/// Rows of a panel.
pub const PANEL: usize = 16;

/// Inputs of a block.
pub const BLOCK: usize = 32;

/// A weight matrix in the packed layout: `rows` outputs, `columns` inputs. Immutable once filled.
pub struct PackedMatrix {
    layout: Layout,
    rows: usize,
    columns: usize,
    panel_bytes: usize,
    data: Buffer,
}

impl PackedMatrix {
    /// Memory for a matrix of `rows` x `columns`, all weights zero.
    pub fn new(dtype: DataType, rows: usize, columns: usize, allocator: &Allocator) -> Result<PackedMatrix> {
        let bytes = PackedMatrix::bytes_for(dtype, rows, columns)?;
        let layout = Layout::of(dtype)?;
        let panel_bytes = bytes / rows.div_ceil(PANEL);
        Ok(PackedMatrix {
            layout,
            rows,
            columns,
            panel_bytes,
            data: allocator.buffer(bytes)?,
        })
    }

    /// Bytes that a packed matrix takes.
    pub fn bytes_for(dtype: DataType, rows: usize, columns: usize) -> Result<usize> {
        if rows == 0 || columns == 0 {
            return Err(Error::invalid(format!(
                "a matrix of {rows} x {columns} holds nothing"
            )));
        }
        Layout::of(dtype)?
            .panel_bytes(columns.div_ceil(BLOCK))
            .and_then(|bytes| bytes.checked_mul(rows.div_ceil(PANEL)))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(|| Error::invalid(format!("a matrix of {rows} x {columns} is too large")))
    }

    /// The layout of the panels.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Blocks of 32 inputs, the last one padded.
    pub fn blocks(&self) -> usize {
        self.columns.div_ceil(BLOCK)
    }

    /// Panels of 16 rows, the last one padded.
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL)
    }

    /// Bytes from one panel to the next.
    pub fn panel_bytes(&self) -> usize {
        self.panel_bytes
    }

    /// All panels, one after another.
    pub fn bytes(&self) -> &[u8] {
        self.data.bytes()
    }

    /// All panels, to fill them with [`pack_panel`].
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.data.bytes_mut()
    }

    /// The rows of a panel.
    pub fn panel_rows(&self, panel: usize) -> Range<usize> {
        panel * PANEL..((panel + 1) * PANEL).min(self.rows)
    }

    /// Decodes one row into `columns` values: the bits that [`super::scalar::dequantize_row`] gives for the stored row.
    pub fn row(&self, row: usize, out: &mut [f32]) -> Result<()> {
        if row >= self.rows || out.len() != self.columns {
            return Err(Error::invalid(format!(
                "row {row} into {} values: the matrix is {} x {}",
                out.len(),
                self.rows,
                self.columns
            )));
        }
        let start = row / PANEL * self.panel_bytes;
        let panel = &self.data.bytes()[start..start + self.panel_bytes];
        panel::unpack_row(&self.layout, panel, self.blocks(), row % PANEL, out)
    }
}
