//! Steps over vectors and rows of vectors, on all threads where there is enough to do.

use super::linear::rows_per_chunk;
use super::runtime::Runtime;
use crate::base::error::{Error, Result};
use crate::base::matrix::{MatrixMut, Pieces, Source};
use crate::kernels::Kernels;

/// Values that are worth a chunk of their own: a few microseconds.
const CHUNK_VALUES: usize = 1 << 14;

/// Calls `step` with the kernels for pieces of `y` and the place of their first value.
pub fn each_piece(runtime: &Runtime, y: &mut [f32], step: impl Fn(&Kernels, usize, &mut [f32]) + Sync) {
    let chunks = y.len().div_ceil(CHUNK_VALUES);
    let pieces = Pieces::new(y, CHUNK_VALUES);
    runtime.pool().divide(chunks, pieces, |chunk, piece| {
        step(runtime.kernels(), chunk * CHUNK_VALUES, piece)
    });
}

/// Rows that are read: row i begins at value i * stride. Rows that are written in place are those of the output.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// All of them, with what lies between.
    pub values: Source<'a>,
    /// Values from one row to the next.
    pub stride: usize,
}

/// Calls `step` with the kernels for every row of `y` and the row of `x` that belongs to it.
pub fn each_row(
    runtime: &Runtime,
    x: Rows<'_>,
    y: MatrixMut<'_, f32>,
    step: impl Fn(&Kernels, Source<'_>, &mut [f32]) + Sync,
) {
    let (rows, columns) = (y.rows(), y.columns());
    let per_chunk = rows_per_chunk(rows, columns);
    runtime.pool().divide(
        rows.div_ceil(per_chunk),
        y.by_rows(per_chunk),
        |chunk, mut part| {
            for i in 0..part.rows() {
                let first = (chunk * per_chunk + i) * x.stride;
                step(runtime.kernels(), x.values.part(first, columns), part.row(i));
            }
        },
    );
}

/// Which two values of a head are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Pairing {
    /// Value i with value i + dims / 2 (GPT-NeoX, and the files of most models).
    Halves = 0,
    /// Value 2 i with value 2 i + 1 (the original form).
    Neighbours = 1,
}

/// Angles of positions from 0 on, as `rope::fill_tables` makes them.
#[derive(Clone, Copy)]
pub struct RopeTable<'a> {
    /// `[position][dims / 2]`.
    pub cosine: &'a [f32],
    /// `[position][dims / 2]`.
    pub sine: &'a [f32],
    /// Values of a head that are turned: even, at least 2.
    pub dims: usize,
}

/// Turns the first `table.dims` values of every head of every row of `x`, in place. Row t has position `positions[t]`, or
/// t without a list. The columns of `x` are heads of `head_dim` values each.
///
/// Errors: a position that the table does not have; then nothing is written.
pub fn rotate(
    runtime: &Runtime,
    pairing: Pairing,
    table: RopeTable<'_>,
    positions: Option<&[u32]>,
    head_dim: usize,
    x: MatrixMut<'_, f32>,
) -> Result<()> {
    let (rows, columns) = (x.rows(), x.columns());
    let half = table.dims / 2;
    let known = table.cosine.len().min(table.sine.len()) / half.max(1);
    let position = |row: usize| positions.map_or(row, |list| list.get(row).map_or(row, |&at| at as usize));
    if let Some(row) = (0..rows).find(|&row| position(row) >= known) {
        return Err(Error::invalid(format!(
            "row {row} has position {}, but the table has {known} positions",
            position(row)
        )));
    }
    let per_chunk = rows_per_chunk(rows, columns);
    let chunks = rows.div_ceil(per_chunk);
    runtime
        .pool()
        .divide(chunks, x.by_rows(per_chunk), |chunk, mut part| {
            for i in 0..part.rows() {
                let at = position(chunk * per_chunk + i) * half;
                let (cosine, sine) = (&table.cosine[at..at + half], &table.sine[at..at + half]);
                let (kernels, row) = (runtime.kernels(), part.row(i));
                let heads = columns / head_dim.max(1);
                match pairing {
                    Pairing::Halves => kernels.rotate_halves(row, heads, head_dim, cosine, sine),
                    Pairing::Neighbours => kernels.rotate_pairs(row, heads, head_dim, cosine, sine),
                }
            }
        });
    Ok(())
}
