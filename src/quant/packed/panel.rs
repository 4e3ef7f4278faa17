//! Packs rows into a panel and reads them back.
//!
//! Four codes of a row, a *group*, are handled as one `u32` with a code in each byte; group g of a block has the inputs 4g to 4g + 3.

use super::layout::{Layout, Planes, Record};
use super::{BLOCK, PANEL};
use crate::base::error::{Error, Result};
use crate::format::dtype::DataType;
use crate::quant::convert::f16_to_f32;
use crate::quant::scalar::{BlockLayout, BlockParts, Minimum};

/// Groups of a block.
const GROUPS: usize = BLOCK / 4;

/// Bytes of a plane that has 4 bytes for every row.
const PLANE: usize = 4 * PANEL;

/// Packs up to 16 rows into one zeroed panel of a matrix with `blocks` blocks of inputs.
///
/// Each row is the raw bytes of the stored type: whole blocks, at most what `blocks` takes. Rows and inputs that are
/// missing stay zero bytes: their scales are zero, or their codes are.
pub fn pack_panel(layout: &Layout, rows: &[&[u8]], blocks: usize, panel: &mut [u8]) {
    let (codes, records) = panel.split_at_mut(blocks * layout.code_bytes);
    match (layout.dtype, layout.planes) {
        (DataType::BF16, _) => pack_pairs(rows, codes),
        (_, Planes::Floats { bytes }) => pack_floats(rows, codes, bytes),
        _ => {
            if let Some(stored) = BlockLayout::of(layout.dtype) {
                let packer = Packer::new(layout, stored);
                for (r, row) in rows.iter().enumerate().take(PANEL) {
                    packer.pack_row(row, r, blocks, codes, records);
                }
            }
        }
    }
}

/// What packing needs to know of a type.
struct Packer<'a> {
    layout: &'a Layout,
    stored: BlockLayout,
    /// The packed code of each stored code.
    codes: [u8; 256],
}

impl Packer<'_> {
    fn new(layout: &Layout, stored: BlockLayout) -> Packer<'_> {
        let mut codes = [0; 256];
        for (stored_code, code) in (0..=255).zip(&mut codes) {
            let value = stored.value(stored_code);
            *code = match layout.planes {
                Planes::Book(book) => book.iter().position(|&v| i32::from(v) == value).unwrap_or(0) as u8,
                Planes::Integers { offset, .. } => (value + i32::from(offset)) as u8,
                Planes::Floats { .. } => 0,
            };
        }
        Packer {
            layout,
            stored,
            codes,
        }
    }

    fn pack_row(&self, row: &[u8], r: usize, blocks: usize, codes: &mut [u8], records: &mut [u8]) {
        let layout = self.layout;
        let mut parts = BlockParts::default();
        let per_stored = layout.dtype.block_length() / BLOCK;
        for (i, bytes) in row.chunks_exact(layout.dtype.block_bytes()).enumerate() {
            let first = i * per_stored;
            if first >= blocks || self.stored.split(bytes, &mut parts).is_err() {
                return;
            }
            // The padding of a row's last super-block is left out.
            for b in 0..per_stored.min(blocks - first) {
                let words: [u32; GROUPS] = std::array::from_fn(|g| {
                    u32::from_le_bytes(std::array::from_fn(|k| {
                        self.codes[usize::from(parts.codes[b * BLOCK + 4 * g + k])]
                    }))
                });
                let codes = &mut codes[(first + b) * layout.code_bytes..][..layout.code_bytes];
                layout.planes.write_row(&words, r, codes);
                self.write_scales(&parts, first + b, b, r, records);
            }
        }
    }

    /// The scales of block `block` of the panel, the `b`-th of its stored block.
    fn write_scales(&self, parts: &BlockParts, block: usize, b: usize, row: usize, records: &mut [u8]) {
        let layout = self.layout;
        let record = &mut records[block / layout.scale_group * layout.scale_bytes..][..layout.scale_bytes];
        let in_record = block % layout.scale_group;
        match layout.record {
            Record::None => {}
            Record::Half { minimum } => {
                put_half(record, row, parts.scale);
                if minimum {
                    put_half(&mut record[2 * PANEL..], row, parts.minimum);
                }
            }
            Record::Super { halves } => {
                put_half(record, row, parts.scale);
                for half in 0..halves {
                    record[(2 + in_record * halves + half) * PANEL + row] =
                        parts.sub_scales[b * halves + half] as u8;
                }
            }
            Record::SuperAndMinimum => {
                put_half(record, row, parts.scale);
                put_half(&mut record[2 * PANEL..], row, parts.minimum);
                let bytes = &mut record[(4 + 2 * in_record) * PANEL..];
                bytes[row] = parts.sub_scales[b] as u8;
                bytes[PANEL + row] = parts.sub_minimums[b];
            }
            Record::SuperAndMinimumNibbles => {
                put_half(record, row, parts.scale);
                put_half(&mut record[2 * PANEL..], row, parts.minimum);
                let bytes = &mut record[(4 + 2 * in_record) * PANEL..];
                for half in 0..2 {
                    let (scale, minimum) = (parts.sub_scales[2 * b + half], parts.sub_minimums[2 * b + half]);
                    bytes[half * PANEL + row] = scale as u8 | minimum << 4;
                }
            }
            Record::PowerOfTwo => record[row] = parts.scale as u8,
            Record::SmallFloat => {
                for half in 0..2 {
                    record[half * PANEL + row] = parts.sub_scales[2 * b + half] as u8;
                }
            }
        }
    }
}

impl Planes {
    /// Bits of the first planes and of the planes behind them.
    fn bits(self) -> (u32, u32) {
        match self {
            Planes::Integers { low, high, .. } => (low, high),
            Planes::Book(_) => (4, 0),
            Planes::Floats { .. } => (0, 0),
        }
    }

    /// Writes the codes of one row of a block whose bytes are zero so far.
    ///
    /// 8 bits: a plane for each group. 4 bits: plane j has group j in the low and group j + 4 in the high nibbles.
    /// 2 bits: plane h has group 4h + k at bit 2k. 1 bit: one plane with group k at bit k.
    fn write_row(self, words: &[u32; GROUPS], row: usize, codes: &mut [u8]) {
        let (low, high) = self.bits();
        let mut write = |plane: usize, word: u32| {
            codes[plane * PLANE + 4 * row..][..4].copy_from_slice(&word.to_le_bytes());
        };
        let quarters = |h: usize, shift: u32| {
            (0..4).fold(0, |plane, k| {
                plane | (words[4 * h + k] >> shift & 0x0303_0303) << (2 * k)
            })
        };
        match low {
            8 => (0..GROUPS).for_each(|g| write(g, words[g])),
            4 => {
                for j in 0..4 {
                    write(j, words[j] & 0x0f0f_0f0f | (words[j + 4] & 0x0f0f_0f0f) << 4);
                }
            }
            _ => (0..2).for_each(|h| write(h, quarters(h, 0))),
        }
        let behind = low as usize;
        match high {
            1 => write(
                behind,
                (0..GROUPS).fold(0, |plane, k| plane | (words[k] >> low & 0x0101_0101) << k),
            ),
            2 => (0..2).for_each(|h| write(behind + h, quarters(h, low))),
            _ => {}
        }
    }

    /// The code of one row and input.
    fn code(self, row: usize, input: usize, codes: &[u8]) -> u8 {
        let (low, high) = self.bits();
        let (group, half) = (input / 4, input / 16);
        let byte = |plane: usize| codes[plane * PLANE + 4 * row + input % 4];
        let code = match low {
            8 => return byte(group),
            4 => byte(group % 4) >> (4 * half) & 15,
            _ => byte(half) >> (2 * (group % 4)) & 3,
        };
        let behind = low as usize;
        match high {
            1 => code | (byte(behind) >> group & 1) << low,
            2 => code | (byte(behind + half) >> (2 * (group % 4)) & 3) << low,
            _ => code,
        }
    }

    /// The value of a code.
    fn value(self, code: u8) -> i32 {
        match self {
            Planes::Integers { offset, .. } => i32::from(code) - i32::from(offset),
            Planes::Book(book) => i32::from(book[usize::from(code & 15)]),
            Planes::Floats { .. } => 0,
        }
    }
}

fn put_half(fields: &mut [u8], row: usize, bits: u16) {
    fields[2 * row..2 * row + 2].copy_from_slice(&bits.to_le_bytes());
}

fn half_bits(fields: &[u8], row: usize) -> u16 {
    u16::from_le_bytes([fields[2 * row], fields[2 * row + 1]])
}

/// `[input][row]`, `width` bytes each.
fn pack_floats(rows: &[&[u8]], codes: &mut [u8], width: usize) {
    for (r, row) in rows.iter().enumerate() {
        for (i, value) in row.chunks_exact(width).enumerate() {
            codes[(i * PANEL + r) * width..][..width].copy_from_slice(value);
        }
    }
}

/// `[pair of inputs][row][2]`: what `vdpbf16ps` takes.
fn pack_pairs(rows: &[&[u8]], codes: &mut [u8]) {
    for (r, row) in rows.iter().enumerate() {
        for (i, value) in row.chunks_exact(2).enumerate() {
            codes[((i / 2 * PANEL + r) * 2 + i % 2) * 2..][..2].copy_from_slice(value);
        }
    }
}

/// Decodes one row of a panel: the bits that `scalar::dequantize_row` gives for the stored row.
pub(super) fn unpack_row(
    layout: &Layout,
    panel: &[u8],
    blocks: usize,
    row: usize,
    out: &mut [f32],
) -> Result<()> {
    let (codes, records) = panel.split_at(blocks * layout.code_bytes);
    if let Planes::Floats { bytes } = layout.planes {
        for (i, value) in out.iter_mut().enumerate() {
            *value = match (layout.dtype, bytes) {
                (DataType::BF16, _) => {
                    let bits = half_bits(codes, (i / 2 * PANEL + row) * 2 + i % 2);
                    f32::from_bits(u32::from(bits) << 16)
                }
                (_, 2) => f16_to_f32(half_bits(codes, i * PANEL + row)),
                _ => {
                    let at = (i * PANEL + row) * 4;
                    f32::from_le_bytes([codes[at], codes[at + 1], codes[at + 2], codes[at + 3]])
                }
            };
        }
        return Ok(());
    }
    let stored = BlockLayout::of(layout.dtype)
        .ok_or_else(|| Error::unsupported(format!("{} has no block layout", layout.dtype.name())))?;
    let mut parts = BlockParts::default();
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let codes = &codes[block * layout.code_bytes..][..layout.code_bytes];
        let halves = read_scales(layout, records, block, row, &mut parts);
        for (i, value) in out.iter_mut().enumerate() {
            let half = if halves == 2 { i / 16 } else { 0 };
            let code = layout.planes.value(layout.planes.code(row, i, codes));
            *value = stored.group_scale(&parts, half) * code as f32;
            if stored.minimum != Minimum::None {
                *value += stored.group_minimum(&parts, half);
            }
        }
    }
    Ok(())
}

/// Puts the scales of a row and block into the first groups of `parts`; the number of groups.
fn read_scales(layout: &Layout, records: &[u8], block: usize, row: usize, parts: &mut BlockParts) -> usize {
    let record = &records[block / layout.scale_group * layout.scale_bytes..][..layout.scale_bytes];
    let in_record = block % layout.scale_group;
    match layout.record {
        Record::None => 1,
        Record::Half { minimum } => {
            parts.scale = half_bits(record, row);
            if minimum {
                parts.minimum = half_bits(&record[2 * PANEL..], row);
            }
            1
        }
        Record::Super { halves } => {
            parts.scale = half_bits(record, row);
            for half in 0..halves {
                parts.sub_scales[half] = record[(2 + in_record * halves + half) * PANEL + row] as i8;
            }
            halves
        }
        Record::SuperAndMinimum => {
            parts.scale = half_bits(record, row);
            parts.minimum = half_bits(&record[2 * PANEL..], row);
            let bytes = &record[(4 + 2 * in_record) * PANEL..];
            parts.sub_scales[0] = bytes[row] as i8;
            parts.sub_minimums[0] = bytes[PANEL + row];
            1
        }
        Record::SuperAndMinimumNibbles => {
            parts.scale = half_bits(record, row);
            parts.minimum = half_bits(&record[2 * PANEL..], row);
            let bytes = &record[(4 + 2 * in_record) * PANEL..];
            for half in 0..2 {
                let byte = bytes[half * PANEL + row];
                parts.sub_scales[half] = (byte & 15) as i8;
                parts.sub_minimums[half] = byte >> 4;
            }
            2
        }
        Record::PowerOfTwo => {
            parts.scale = u16::from(record[row]);
            1
        }
        Record::SmallFloat => {
            for half in 0..2 {
                parts.sub_scales[half] = record[half * PANEL + row] as i8;
            }
            2
        }
    }
}
