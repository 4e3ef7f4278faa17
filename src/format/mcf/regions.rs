//! Where the parts of a quantized tensor lie in MCF: not in blocks but in regions, scales first.
//!
//! A block is 32 values along a row; the K-types join 8 blocks of a row to a super-block with one scale. Rows need not
//! fill blocks: the last one is padded with zeros.

use crate::base::error::{Error, Result};
use crate::format::dtype::DataType;
use std::ops::Range;

/// Values in a block.
const BLOCK: usize = 32;

/// Blocks in a super-block.
const BLOCKS_PER_SUPER: usize = 8;

/// Each region starts at a multiple of this from the payload's start.
const ALIGNMENT: usize = 64;

/// The regions of a tensor's payload: byte ranges from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    dtype: DataType,
    rows: usize,
    blocks: usize,
    supers: usize,
    /// f16 scales, row after row: one for each block, or for each super-block.
    pub scales: Range<usize>,
    /// Sub-scales, one for each block; empty for Q8 and Q4.
    pub sub_scales: Range<usize>,
    /// Codes, block after block.
    pub codes: Range<usize>,
}

/// Bits of a code of a type that MCF stores in regions; `None` for other types.
pub fn code_bits(dtype: DataType) -> Option<usize> {
    Some(match dtype {
        DataType::Q8 => 8,
        DataType::K6 => 6,
        DataType::Q4 | DataType::K4 => 4,
        DataType::K3 => 3,
        DataType::K2 => 2,
        _ => return None,
    })
}

fn has_super_blocks(dtype: DataType) -> bool {
    !matches!(dtype, DataType::Q8 | DataType::Q4)
}

impl Regions {
    /// The regions of a tensor of `rows` x `columns`. `INVALID_ARGUMENT` for a type that does not lie in regions, and
    /// when the size overflows.
    pub fn new(dtype: DataType, rows: usize, columns: usize) -> Result<Regions> {
        let bits = code_bits(dtype)
            .ok_or_else(|| Error::invalid(format!("tensors of type {} lie in blocks", dtype.name())))?;
        let regions = || {
            let blocks = columns.div_ceil(BLOCK);
            let supers = blocks.div_ceil(BLOCKS_PER_SUPER);
            let all_blocks = rows.checked_mul(blocks)?;
            let (scales, sub_scales) = match has_super_blocks(dtype) {
                true => (rows.checked_mul(supers)?, all_blocks),
                false => (all_blocks, 0),
            };
            let scales = scales.checked_mul(2)?;
            let sub_scales_start = scales.checked_next_multiple_of(ALIGNMENT)?;
            let sub_scales_end = sub_scales_start.checked_add(sub_scales)?;
            let codes_start = sub_scales_end.checked_next_multiple_of(ALIGNMENT)?;
            let codes = all_blocks.checked_mul(BLOCK / 8 * bits)?;
            Some(Regions {
                dtype,
                rows,
                blocks,
                supers,
                scales: 0..scales,
                sub_scales: sub_scales_start..sub_scales_end,
                codes: codes_start..codes_start.checked_add(codes)?,
            })
        };
        regions().ok_or_else(|| {
            Error::invalid(format!(
                "a tensor of {rows} x {columns} {} values is too large",
                dtype.name()
            ))
        })
    }

    /// Bytes of the payload.
    pub fn bytes(&self) -> usize {
        self.codes.end
    }

    /// Bytes of one row in the three regions.
    fn of_row(&self) -> [usize; 3] {
        let (scales, sub_scales) = match has_super_blocks(self.dtype) {
            true => (self.supers, self.blocks),
            false => (self.blocks, 0),
        };
        let bits = code_bits(self.dtype).unwrap_or(0);
        [2 * scales, sub_scales, self.blocks * BLOCK / 8 * bits]
    }

    /// The bytes of `count` rows from row `first` on in each of the regions; the rows must exist.
    pub fn of_rows(&self, first: usize, count: usize) -> [Range<usize>; 3] {
        debug_assert!(first + count <= self.rows);
        let [scales, sub_scales, codes] = self.of_row();
        let part = |start: usize, row: usize| start + first * row..start + (first + count) * row;
        [
            part(self.scales.start, scales),
            part(self.sub_scales.start, sub_scales),
            part(self.codes.start, codes),
        ]
    }

    /// Copies whole rows from the parts that [`Regions::of_rows`] names to blocks, one row after another. What pads the
    /// last super-block of a row stays as it is in `rows`.
    pub fn gather(&self, parts: [&[u8]; 3], rows: &mut [u8]) {
        for (index, block) in rows.chunks_exact_mut(self.dtype.block_bytes()).enumerate() {
            let mut fields = block;
            for ((range, room), part) in self.of_block(index).into_iter().zip(parts) {
                let (field, rest) = fields.split_at_mut(room);
                field[..range.len()].copy_from_slice(&part[range]);
                fields = rest;
            }
        }
    }

    /// Copies whole rows of blocks to the parts that [`Regions::of_rows`] names.
    pub fn scatter(&self, rows: &[u8], mut parts: [&mut [u8]; 3]) {
        for (index, block) in rows.chunks_exact(self.dtype.block_bytes()).enumerate() {
            let mut fields = block;
            for ((range, room), part) in self.of_block(index).into_iter().zip(&mut parts) {
                let (field, rest) = fields.split_at(room);
                part[range.clone()].copy_from_slice(&field[..range.len()]);
                fields = rest;
            }
        }
    }

    /// Where the fields of a block (scale, sub-scales, codes) stand in the parts of the rows whose `index`-th block it is,
    /// and the bytes that the block has for each.
    fn of_block(&self, index: usize) -> [(Range<usize>, usize); 3] {
        let code_bytes = BLOCK / 8 * code_bits(self.dtype).unwrap_or(0);
        let scale = (2 * index..2 * index + 2, 2);
        if !has_super_blocks(self.dtype) {
            let codes = index * code_bytes..(index + 1) * code_bytes;
            return [scale, (0..0, 0), (codes, code_bytes)];
        }
        // There is a super-block only where a row has blocks.
        let (row, within) = (index / self.supers, index % self.supers * BLOCKS_PER_SUPER);
        let first = row * self.blocks + within;
        let end = (first + BLOCKS_PER_SUPER).min((row + 1) * self.blocks);
        [
            scale,
            (first..end, BLOCKS_PER_SUPER),
            (
                first * code_bytes..end * code_bytes,
                BLOCKS_PER_SUPER * code_bytes,
            ),
        ]
    }
}
