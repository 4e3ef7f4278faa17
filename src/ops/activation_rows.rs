//! Rows of activations, quantized to bytes and back, on all threads: what matrix products do with their inputs inside, and the
//! forms with one scale a row.

use super::runtime::Runtime;
use crate::base::error::{Error, Result};
use crate::base::matrix::{MatrixMut, Pieces};
use crate::base::memory::ALIGNMENT;
use crate::kernels::affine::RowCodes;
use crate::quant::activations::{Form, Record, SUPER_BLOCK, super_blocks};
use crate::quant::packed::BLOCK;

/// How a row of activations is stored. All numbers are little-endian; nothing is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowForm {
    /// As a [`Record`] says it, without what is made from it: an f32 scale for each block of 32, a spike for each 256 values
    /// (u32 place, four i8 codes, f32 scale), then i8 codes of whole blocks.
    Blocks,
    /// One scale a row: f32 scale, f32 zero point unless the codes are symmetric, codes.
    Row(RowCodes),
}

/// Bytes of a spike in a row.
const SPIKE_BYTES: usize = 12;

impl RowForm {
    /// Bytes of a row; `None` on overflow.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        match self {
            RowForm::Blocks => {
                let blocks = columns.div_ceil(BLOCK);
                let spikes = super_blocks(blocks).checked_mul(SPIKE_BYTES)?;
                blocks.checked_mul(4 + BLOCK)?.checked_add(spikes)
            }
            RowForm::Row(codes) => codes.bytes(columns).checked_add(self.head_bytes()),
        }
    }

    /// Bytes before the codes of a row with one scale.
    fn head_bytes(self) -> usize {
        match self {
            RowForm::Row(RowCodes::Affine8 | RowCodes::Affine4) => 8,
            RowForm::Row(RowCodes::Symmetric8) | RowForm::Blocks => 4,
        }
    }
}

/// Values that are worth a chunk of their own.
const CHUNK_VALUES: usize = 1 << 14;

/// Quantizes rows of `columns` values, `stride` apart in `values`, one after the other into `data`, whose length says how many
/// there are.
///
/// Errors: lengths that do not fit, scratch memory (for [`RowForm::Blocks`]).
pub fn quantize(
    runtime: &Runtime,
    form: RowForm,
    values: &[f32],
    columns: usize,
    stride: usize,
    data: &mut [u8],
) -> Result<()> {
    let too_long = || Error::invalid(format!("{columns} columns are more than memory can hold"));
    let row_bytes = form.row_bytes(columns).ok_or_else(too_long)?.max(1);
    let rows = data.len() / row_bytes;
    let last = rows.saturating_sub(1).checked_mul(stride);
    if last
        .and_then(|last| last.checked_add(columns))
        .is_none_or(|needed| needed > values.len())
    {
        return Err(Error::invalid(format!(
            "{} values do not hold {rows} rows of {columns}, {stride} apart",
            values.len()
        )));
    }
    let length = match form {
        RowForm::Blocks => Form::Codes
            .row_bytes(columns.div_ceil(BLOCK))
            .and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT))
            .ok_or_else(too_long)?,
        RowForm::Row(_) => 0,
    };
    let size = length.checked_mul(runtime.threads()).ok_or_else(too_long)?;
    let per_chunk = (CHUNK_VALUES / columns.max(1)).max(1);
    let pieces = Pieces::new(data, per_chunk * row_bytes);
    runtime.with_scratch(size, |scratch| {
        let scratch = &mut scratch[..size];
        runtime.pool().divide_with(
            rows.div_ceil(per_chunk),
            pieces,
            scratch,
            |chunk, bytes, scratch| {
                for (i, to) in bytes.chunks_exact_mut(row_bytes).enumerate() {
                    let row = &values[(chunk * per_chunk + i) * stride..][..columns];
                    match form {
                        RowForm::Blocks => quantize_blocks(runtime, row, scratch, to),
                        RowForm::Row(codes) => quantize_row(runtime, form, codes, row, to),
                    }
                }
            },
        );
    })
}

fn quantize_row(runtime: &Runtime, form: RowForm, codes: RowCodes, row: &[f32], to: &mut [u8]) {
    let (head, to) = to.split_at_mut(form.head_bytes());
    let (scale, zero) = runtime.kernels().quantize_codes(codes, row, to);
    for (bytes, number) in head.as_chunks_mut::<4>().0.iter_mut().zip([scale, zero]) {
        *bytes = number.to_le_bytes();
    }
}

fn quantize_blocks(runtime: &Runtime, row: &[f32], scratch: &mut [u8], to: &mut [u8]) {
    let blocks = row.len().div_ceil(BLOCK);
    let records = &mut scratch[..(blocks + super_blocks(blocks)) * Record::BYTES];
    runtime.kernels().activate(Form::Codes, row, records);
    let (scales, rest) = to.split_at_mut(4 * blocks);
    let (spikes, codes) = rest.split_at_mut(SPIKE_BYTES * super_blocks(blocks));
    let mut blocks = scales
        .as_chunks_mut::<4>()
        .0
        .iter_mut()
        .zip(codes.chunks_exact_mut(BLOCK));
    let super_blocks = records.chunks((SUPER_BLOCK / BLOCK + 1) * Record::BYTES);
    for (records, spike) in super_blocks.zip(spikes.chunks_exact_mut(SPIKE_BYTES)) {
        let (own, last) = records.split_at(records.len() - Record::BYTES);
        for (record, (scale, codes)) in own.chunks_exact(Record::BYTES).zip(&mut blocks) {
            let record = Record::read(record);
            *scale = record.scale().to_le_bytes();
            put_codes(&record, codes);
        }
        let record = Record::read(last);
        spike[..4].copy_from_slice(&record.place.to_le_bytes());
        put_codes(&record, &mut spike[4..8]);
        spike[8..].copy_from_slice(&record.scale().to_le_bytes());
    }
}

fn put_codes(record: &Record, bytes: &mut [u8]) {
    bytes
        .iter_mut()
        .zip(record.codes)
        .for_each(|(byte, code)| *byte = code as u8);
}

/// The values that rows from [`quantize`] stand for.
///
/// Errors: lengths that do not fit.
pub fn dequantize(runtime: &Runtime, form: RowForm, data: &[u8], values: MatrixMut<'_, f32>) -> Result<()> {
    let (rows, columns) = (values.rows(), values.columns());
    let row_bytes = form.row_bytes(columns).unwrap_or(usize::MAX);
    if rows.checked_mul(row_bytes) != Some(data.len()) {
        return Err(Error::invalid(format!(
            "{} bytes do not hold {rows} rows of {columns} values",
            data.len()
        )));
    }
    let per_chunk = (CHUNK_VALUES / columns.max(1)).max(1);
    let chunks = rows.div_ceil(per_chunk);
    runtime
        .pool()
        .divide(chunks, values.by_rows(per_chunk), |chunk, mut part| {
            for i in 0..part.rows() {
                let row = &data[(chunk * per_chunk + i) * row_bytes..][..row_bytes];
                match form {
                    RowForm::Blocks => dequantize_blocks(row, part.row(i)),
                    RowForm::Row(codes) => dequantize_row(form, codes, row, part.row(i)),
                }
            }
        });
    Ok(())
}

fn number(bytes: &[u8], index: usize) -> u32 {
    u32::from_le_bytes(bytes.as_chunks::<4>().0[index])
}

fn dequantize_row(form: RowForm, kind: RowCodes, row: &[u8], values: &mut [f32]) {
    let (head, codes) = row.split_at(form.head_bytes());
    let scale = f32::from_bits(number(head, 0));
    let zero = if kind == RowCodes::Symmetric8 {
        0.0
    } else {
        f32::from_bits(number(head, 1))
    };
    for (i, value) in values.iter_mut().enumerate() {
        let code = match kind {
            // The low half of the byte, then the high one, each with its sign.
            RowCodes::Affine4 => ((codes[i / 2] >> (4 * (i % 2))) << 4) as i8 >> 4,
            RowCodes::Symmetric8 | RowCodes::Affine8 => codes[i] as i8,
        };
        *value = scale * (f32::from(code) - zero);
    }
}

fn dequantize_blocks(row: &[u8], values: &mut [f32]) {
    let blocks = values.len().div_ceil(BLOCK);
    let (scales, rest) = row.split_at(4 * blocks);
    let (spikes, codes) = rest.split_at(SPIKE_BYTES * super_blocks(blocks));
    for (block, (values, codes)) in values
        .chunks_mut(BLOCK)
        .zip(codes.chunks_exact(BLOCK))
        .enumerate()
    {
        let scale = f32::from_bits(number(scales, block));
        for (value, &code) in values.iter_mut().zip(codes) {
            *value = scale * f32::from(code as i8);
        }
    }
    for (values, spike) in values
        .chunks_mut(SUPER_BLOCK)
        .zip(spikes.chunks_exact(SPIKE_BYTES))
    {
        let scale = f32::from_bits(number(spike, 2));
        // A place that no quantizer writes lies behind the end and changes nothing.
        let group = values
            .iter_mut()
            .skip((number(spike, 0) as usize).saturating_mul(4));
        for (value, code) in group.zip(number(spike, 1).to_le_bytes()) {
            *value += scale * f32::from(code as i8);
        }
    }
}
