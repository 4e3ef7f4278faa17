//! The packed layout of weight matrices: one layout for every instruction set, and for mmap.
//!
//! A *panel* is 16 output rows. A panel holds its codes, block of 32 inputs after block, and behind
//! them its scales; `docs/packed-layout.md` pins the bytes. Rows that do not fill a panel and inputs that
//! do not fill a block are padded with codes that multiply to zero.

use crate::base::error::{Error, Result};
use crate::base::memory::{Allocator, Buffer};
use crate::format::dtype::DataType;
use std::ops::Range;

/// Rows of a panel.
pub const PANEL: usize = 16;

/// Inputs of a block.
pub const BLOCK: usize = 32;

/// How one type stands in a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The stored type that was packed.
    pub dtype: DataType,
    /// Bytes of the codes of one block of 32 inputs, all 16 rows.
    pub code_bytes: usize,
    /// Blocks that share one record of scales.
    pub scale_group: usize,
    /// Bytes of one record of scales, all 16 rows; 0 for float types.
    pub scale_bytes: usize,
}

impl Layout {
    /// The layout of `dtype`; an error that names the type when it has no packed form.
    pub fn of(dtype: DataType) -> Result<Layout> {
        let (code_bytes, scale_group, scale_bytes) = match dtype {
            DataType::F32 => (BLOCK * PANEL * 4, 1, 0),
            DataType::F16 | DataType::BF16 => (BLOCK * PANEL * 2, 1, 0),
            DataType::Q8_0 => (BLOCK * PANEL, 1, 2 * PANEL),
            DataType::Q4_0 => (BLOCK * PANEL / 2, 1, 2 * PANEL),
            DataType::Q4_1 => (BLOCK * PANEL / 2, 1, 4 * PANEL),
            _ => {
                return Err(Error::unsupported(format!(
                    "no kernel multiplies weights of type {} yet; there are kernels for F32, F16, BF16, Q8_0, Q4_0 and Q4_1",
                    dtype.name()
                )));
            }
        };
        Ok(Layout {
            dtype,
            code_bytes,
            scale_group,
            scale_bytes,
        })
    }

    /// Bytes of one panel with `blocks` blocks of inputs, a multiple of 64; `None` on overflow.
    pub fn panel_bytes(&self, blocks: usize) -> Option<usize> {
        let codes = blocks.checked_mul(self.code_bytes)?;
        let scales = blocks.div_ceil(self.scale_group).checked_mul(self.scale_bytes)?;
        codes.checked_add(scales)?.checked_next_multiple_of(64)
    }
}

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

    /// Decodes one row into `columns` values.
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
        unpack_row(&self.layout, panel, self.blocks(), row % PANEL, out);
        Ok(())
    }
}

/// Where input `i` of row `row` stands in a block of 8-bit codes: 8 groups of 4 inputs, 16 rows each.
fn byte_at(row: usize, input: usize) -> usize {
    input / 4 * 64 + row * 4 + input % 4
}

/// Where input `i` of row `row` stands in a plane of nibbles, and the shift: inputs 4j..4j+4 in the low
/// and 16+4j..16+4j+4 in the high nibbles of the j-th 64 bytes.
fn nibble_at(row: usize, input: usize) -> (usize, u32) {
    (byte_at(row, input % 16), if input < 16 { 0 } else { 4 })
}

/// Packs up to 16 rows (raw bytes of the stored type, whole blocks) into one zeroed panel. `blocks` is that of the matrix.
pub fn pack_panel(layout: &Layout, rows: &[&[u8]], blocks: usize, panel: &mut [u8]) {
    let (codes, scales) = panel.split_at_mut(blocks * layout.code_bytes);
    match layout.dtype {
        DataType::F32 => pack_floats::<4>(rows, codes),
        DataType::F16 => pack_floats::<2>(rows, codes),
        DataType::BF16 => pack_bf16(rows, codes),
        _ => {
            let length = layout.dtype.block_bytes();
            for (r, row) in rows.iter().enumerate() {
                for (b, block) in row.chunks_exact(length).take(blocks).enumerate() {
                    let codes = &mut codes[b * layout.code_bytes..][..layout.code_bytes];
                    let scales = &mut scales[b * layout.scale_bytes..][..layout.scale_bytes];
                    match layout.dtype {
                        DataType::Q8_0 => {
                            put(scales, r, &block[..2]);
                            for (i, &code) in block[2..].iter().enumerate() {
                                codes[byte_at(r, i)] = code ^ 0x80;
                            }
                        }
                        DataType::Q4_0 => {
                            put(scales, r, &block[..2]);
                            pack_nibbles(codes, r, &block[2..]);
                        }
                        DataType::Q4_1 => {
                            put(scales, r, &block[..2]);
                            put(&mut scales[2 * PANEL..], r, &block[2..4]);
                            pack_nibbles(codes, r, &block[4..]);
                        }
                        _ => {}
                    }
                }
            }
            pad_rows(layout, rows.len(), blocks, codes);
        }
    }
}

/// Codes that mean zero for the rows that are missing; their scales are zero as well, so that not even a
/// hostile file's infinite scale can reach them.
fn pad_rows(layout: &Layout, rows: usize, blocks: usize, codes: &mut [u8]) {
    let zero: fn(&mut [u8], usize) = match layout.dtype {
        DataType::Q8_0 => |block, row| (0..BLOCK).for_each(|i| block[byte_at(row, i)] = 0x80),
        DataType::Q4_0 => |block, row| (0..BLOCK / 2).for_each(|i| block[byte_at(row, i)] = 0x88),
        _ => return,
    };
    for block in codes.chunks_exact_mut(layout.code_bytes).take(blocks) {
        (rows..PANEL).for_each(|row| zero(block, row));
    }
}

/// A 16-bit field of one row.
fn put(fields: &mut [u8], row: usize, bytes: &[u8]) {
    fields[2 * row..2 * row + 2].copy_from_slice(bytes);
}

/// GGUF keeps input i in the low and input 16 + i in the high nibble of byte i: the halves of the plane.
fn pack_nibbles(codes: &mut [u8], row: usize, nibbles: &[u8]) {
    for (i, &byte) in nibbles.iter().enumerate() {
        codes[byte_at(row, i)] = byte;
    }
}

/// `[input][row]`, `BYTES` bytes each.
fn pack_floats<const BYTES: usize>(rows: &[&[u8]], codes: &mut [u8]) {
    for (r, row) in rows.iter().enumerate() {
        for (i, value) in row.chunks_exact(BYTES).enumerate() {
            codes[(i * PANEL + r) * BYTES..][..BYTES].copy_from_slice(value);
        }
    }
}

/// `[pair of inputs][row][2]`: what `vdpbf16ps` takes.
fn pack_bf16(rows: &[&[u8]], codes: &mut [u8]) {
    for (r, row) in rows.iter().enumerate() {
        for (i, value) in row.chunks_exact(2).enumerate() {
            codes[((i / 2 * PANEL + r) * 2 + i % 2) * 2..][..2].copy_from_slice(value);
        }
    }
}

fn unpack_row(layout: &Layout, panel: &[u8], blocks: usize, row: usize, out: &mut [f32]) {
    let (codes, scales) = panel.split_at(blocks * layout.code_bytes);
    let half = |bytes: &[u8], at: usize| {
        super::convert::f16_to_f32(u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]))
    };
    for (b, out) in out.chunks_mut(BLOCK).enumerate() {
        let codes = &codes[b * layout.code_bytes..][..layout.code_bytes];
        let scales = &scales[b * layout.scale_bytes..][..layout.scale_bytes];
        let nibble = |i: usize| {
            let (at, shift) = nibble_at(row, i);
            (codes[at] >> shift & 15) as f32
        };
        for (i, value) in out.iter_mut().enumerate() {
            *value = match layout.dtype {
                DataType::F32 => {
                    let at = (i * PANEL + row) * 4;
                    f32::from_le_bytes([codes[at], codes[at + 1], codes[at + 2], codes[at + 3]])
                }
                DataType::F16 => half(codes, i * PANEL + row),
                DataType::BF16 => {
                    let at = ((i / 2 * PANEL + row) * 2 + i % 2) * 2;
                    f32::from_bits(u32::from(u16::from_le_bytes([codes[at], codes[at + 1]])) << 16)
                }
                DataType::Q8_0 => half(scales, row) * (codes[byte_at(row, i)] ^ 0x80) as i8 as f32,
                DataType::Q4_0 => half(scales, row) * (nibble(i) - 8.0),
                _ => half(scales, row) * nibble(i) + half(scales, PANEL + row),
            };
        }
    }
}
