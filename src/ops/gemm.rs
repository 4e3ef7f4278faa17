//! Products of plain floats, on all threads.

use super::runtime::Runtime;
use crate::base::error::{Error, Result};
use crate::base::matrix::MatrixMut;
use crate::base::memory;
use crate::kernels::gemm::{GemmInput, scratch_length};

/// Multiply-adds below which other threads are not worth waking.
const SMALL: usize = 1 << 19;
/// Rows of a chunk at most: what they hold of A stays in the last-level cache for all columns.
const MOST_ROWS: usize = 1536;
/// Rows of a chunk at least, so that packing B is little beside multiplying it.
const FEWEST_ROWS: usize = 48;

/// `output = alpha a b + beta output + bias`. The operands must hold as many rows as the output has rows and columns.
///
/// Errors: scratch memory (about half a MiB for each thread, which the runtime keeps).
pub fn multiply(runtime: &Runtime, input: &GemmInput<'_>, output: MatrixMut<'_, f32>) -> Result<()> {
    let (rows, columns) = (output.rows(), output.columns());
    let work = rows.saturating_mul(columns).saturating_mul(input.depth);
    let threads = if work < SMALL { 1 } else { runtime.threads() };
    let (height, width) = chunk_shape(rows, columns, threads);
    let high = rows.div_ceil(height);
    let chunks = high * columns.div_ceil(width);
    let bytes = scratch_length(width, input.depth) * size_of::<f32>();
    // A chunk that runs alone may run on the piece of any worker.
    let size = bytes.saturating_mul(runtime.threads());
    runtime.with_scratch(size, |scratch| {
        let scratch = scratch.get_mut(..size).and_then(memory::cast_mut::<f32>);
        let Some(scratch) = scratch else {
            return Err(Error::no_memory("scratch memory is too small for a product"));
        };
        let blocks = output.by_blocks(height, width);
        runtime
            .pool()
            .divide_with(chunks, blocks, scratch, |chunk, part, scratch| {
                let (row, column) = (chunk % high * height, chunk / high * width);
                runtime.kernels().gemm(input, row, column, part, scratch);
            });
        Ok(())
    })?
}

/// Rows and columns of a chunk. One thread packs each block of B once for up to [`MOST_ROWS`] rows. Several get at least two
/// chunks each: first by columns, whose packing they share among them, then by rows.
fn chunk_shape(rows: usize, columns: usize, threads: usize) -> (usize, usize) {
    let even = |rows: usize, parts: usize| rows.div_ceil(parts.max(1)).next_multiple_of(12);
    let high = rows.div_ceil(MOST_ROWS);
    if threads == 1 {
        return (even(rows, high), columns);
    }
    let wanted = 2 * threads;
    let width = if high * columns.div_ceil(128) >= wanted {
        128
    } else {
        64
    };
    let high = high.max(wanted.div_ceil(columns.div_ceil(width)));
    (even(rows, high).max(FEWEST_ROWS), width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_the_product_and_are_enough_for_all_threads() {
        for (rows, columns) in [(1, 1), (12, 64), (256, 256), (1024, 1024), (5000, 40), (3, 9000)] {
            for threads in [1, 2, 3, 16] {
                let (height, width) = chunk_shape(rows, columns, threads);
                assert!(height > 0 && width > 0, "{rows} x {columns}");
                let chunks = rows.div_ceil(height) * columns.div_ceil(width);
                let most = rows.div_ceil(FEWEST_ROWS) * columns.div_ceil(64);
                // Rows are rounded up to whole tiles, which may cost a few.
                assert!(
                    chunks >= (3 * threads / 2).min(most) || threads == 1,
                    "{rows} x {columns}: {chunks} chunks for {threads} threads"
                );
            }
        }
    }
}
