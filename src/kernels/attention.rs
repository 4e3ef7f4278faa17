//! Attention over panels of keys and rows of values, with online softmax.
//!
//! Keys of one head stand in panels of 16 tokens, `[panel][dim][16]`, so that a vector of scores is 16 tokens;
//! values as `[token][dim]`, so that a vector of output is 16 dims: no horizontal sums.
//!
//! ```text
//! for each segment of 256 keys, counted from the start of the sequence:
//!     scores = queries . keys                      tiles of rows x panels, in the order of dims
//!     p = e^(scores - max), sum                    per row
//!     part = p . values                            tiles of rows x dims, in the order of keys
//!     (max, sum, output) = merged with the segments before, rescaled to the larger max
//! output / sum
//! ```
//! A row is one query head at one token; rows that share a key head share each read of keys and values.
//! Segments are fixed by position, so a row's bits do not depend on the rows it is computed with, nor on how
//! segments are spread over threads. (Milakov and Gimelshein 2018; Dao 2022 for the tiling.)

#![allow(clippy::needless_range_loop)] // Panels and rows index several arrays of a tile at once.

use super::math;
use super::matmul::{FloatRows, float_tile, float_tile_onto, for_each_tile, tile_tokens};
use super::simd::{LANES, Simd};

/// Keys of a segment.
pub const SEGMENT: usize = 256;

/// The most rows (tokens x heads of a group) of one call.
pub const MAX_ROWS: usize = 48;

/// What the attention kernel reads and writes; the safe front is [`super::Kernels::attention`].
#[derive(Clone, Copy)]
pub struct AttentionArgs {
    /// Query of the first token, first head of the group: `group * head_dim` values in a row.
    pub queries: *const f32,
    /// Values from one token's queries to the next.
    pub query_stride: usize,
    /// Query heads that share this key head.
    pub group: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// Tokens; `tokens * group` is at most [`MAX_ROWS`].
    pub tokens: usize,
    /// Position of the first token.
    pub position: usize,
    /// Keys of the sequence; a causal token sees none behind its own position.
    pub key_count: usize,
    /// A token sees keys up to its own position only.
    pub causal: bool,
    /// Keys further than this behind (causal: `position - key < window`; else `|position - key| <= window / 2`) are not
    /// seen; 0 is no limit.
    pub window: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// Scores s become cap * tanh(s / cap); 0 for no cap.
    pub cap: f32,
    /// Panels of this head's keys.
    pub keys: *const u8,
    /// Rows of this head's values, [`value_dim`] values each.
    pub values: *const u8,
    /// Output of the first token, laid out like the queries.
    pub output: *mut f32,
    /// Values from one token's output to the next.
    pub output_stride: usize,
    /// [`scratch_length`] values.
    pub scratch: *mut f32,
}

/// An attention kernel.
///
/// # Safety
/// The pointers of the arguments are valid for the sizes given there, and the CPU has the instructions.
pub type AttentionFn = unsafe fn(&AttentionArgs);

/// Values of a head as stored in a row of values: whole vectors.
pub const fn value_dim(head_dim: usize) -> usize {
    head_dim.next_multiple_of(LANES)
}

/// Scratch values that a call with `rows` rows needs.
pub const fn scratch_length(rows: usize, head_dim: usize) -> usize {
    rows * (head_dim + SEGMENT + value_dim(head_dim) + 4)
}

impl AttentionArgs {
    /// The keys that the token at `position` sees.
    #[inline(always)]
    fn range(&self, position: usize) -> (usize, usize) {
        if self.causal {
            let end = (position + 1).min(self.key_count);
            (
                if self.window == 0 {
                    0
                } else {
                    end.saturating_sub(self.window)
                },
                end,
            )
        } else if self.window == 0 {
            (0, self.key_count)
        } else {
            (
                position.saturating_sub(self.window / 2),
                (position + self.window / 2 + 1).min(self.key_count),
            )
        }
    }

    /// The keys of the segment `from .. from + count` that a row sees, counted from the segment's start.
    #[inline(always)]
    fn seen(&self, row: usize, from: usize, count: usize) -> (usize, usize) {
        let (first, end) = self.range(self.position + row / self.group);
        (
            first.saturating_sub(from).min(count),
            end.saturating_sub(from).min(count),
        )
    }
}

/// The parts of the scratch memory.
struct Scratch {
    /// `[row][head_dim]`, scaled.
    queries: *mut f32,
    /// `[row][SEGMENT]`.
    scores: *mut f32,
    /// `[row][value_dim]`.
    output: *mut f32,
    /// `[row][4]`: largest score, sum, factor of what was there, factor of the segment.
    state: *mut f32,
}

/// Attention of a few tokens over all keys they see.
///
/// # Safety
/// See [`AttentionFn`].
#[inline(always)]
pub unsafe fn attention<S: Simd, K: FloatRows, V: FloatRows>(args: &AttentionArgs) {
    let rows = args.tokens * args.group;
    let dim = value_dim(args.head_dim);
    // SAFETY: the scratch has `scratch_length(rows, head_dim)` values; the rest as the caller promises.
    unsafe {
        let scores = args.scratch.add(rows * args.head_dim);
        let output = scores.add(rows * SEGMENT);
        let scratch = Scratch {
            queries: args.scratch,
            scores,
            output,
            state: output.add(rows * dim),
        };
        start(args, &scratch, rows, dim);
        let (first, _) = args.range(args.position);
        let (_, end) = args.range(args.position + args.tokens - 1);
        for segment in first / SEGMENT..end.div_ceil(SEGMENT) {
            let from = segment * SEGMENT;
            let count = SEGMENT.min(end - from);
            score::<S, K>(args, &scratch, rows, from, count);
            weigh::<S>(args, &scratch, from, count);
            gather::<S, V>(args, &scratch, rows, from, count);
        }
        finish::<S>(args, &scratch, dim);
    }
}

/// Copies and scales the queries, clears output and state.
#[inline(always)]
unsafe fn start(args: &AttentionArgs, scratch: &Scratch, rows: usize, dim: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        for token in 0..args.tokens {
            let from = args.queries.add(token * args.query_stride);
            let to = scratch.queries.add(token * args.group * args.head_dim);
            for i in 0..args.group * args.head_dim {
                *to.add(i) = *from.add(i) * args.scale;
            }
        }
        scratch.output.write_bytes(0, rows * dim);
        for row in 0..rows {
            *scratch.state.add(4 * row) = f32::NEG_INFINITY;
            *scratch.state.add(4 * row + 1) = 0.0;
        }
    }
}

/// Scores of all rows with the keys `from .. from + count`.
#[inline(always)]
unsafe fn score<S: Simd, K: FloatRows>(
    args: &AttentionArgs,
    scratch: &Scratch,
    rows: usize,
    from: usize,
    count: usize,
) {
    let panel_bytes = args.head_dim * LANES * K::BYTES;
    let panels = count.div_ceil(LANES);
    // SAFETY: as the caller promises; a segment starts with a panel.
    unsafe {
        for_each_tile!(S, panels, rows, |panel, row, P, T| {
            let keys = args.keys.add((from / LANES + panel) * panel_bytes);
            let queries = scratch.queries.add(row * args.head_dim);
            let step = LANES * K::BYTES;
            let sum =
                float_tile::<S, K, P, T>(queries, args.head_dim, keys, step, panel_bytes, args.head_dim);
            for t in 0..T {
                for p in 0..P {
                    S::store(
                        scratch.scores.add((row + t) * SEGMENT + (panel + p) * LANES),
                        sum[t][p],
                    );
                }
            }
        });
    }
}

/// Scores to exponentials, and the factors by which old output and new part are merged.
#[inline(always)]
unsafe fn weigh<S: Simd>(args: &AttentionArgs, scratch: &Scratch, from: usize, count: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        for token in 0..args.tokens {
            let (first, valid) = args.seen(token * args.group, from, count);
            for row in token * args.group..(token + 1) * args.group {
                let scores = scratch.scores.add(row * SEGMENT);
                let state = scratch.state.add(4 * row);
                if first >= valid {
                    scores.write_bytes(0, count.next_multiple_of(LANES));
                    *state.add(3) = 0.0;
                    continue;
                }
                if args.cap > 0.0 {
                    cap_scores::<S>(scores, count.next_multiple_of(LANES), args.cap);
                }
                let (largest, sum) =
                    math::softmax_part::<S>(scores, first, valid, count.next_multiple_of(LANES));
                let before = *state;
                let after = if before > largest { before } else { largest };
                let (old, new) = (exp_of::<S>(before - after), exp_of::<S>(largest - after));
                *state = after;
                *state.add(1) = *state.add(1) * old + sum * new;
                *state.add(2) = old;
                *state.add(3) = new;
            }
        }
    }
}

/// Scores s become cap * tanh(s / cap), by tanh(x) = 1 - 2 / (e^(2x) + 1): its absolute error is below 2e-7.
#[inline(always)]
unsafe fn cap_scores<S: Simd>(scores: *mut f32, length: usize, cap: f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let one = S::splat(1.0);
        for i in (0..length).step_by(LANES) {
            let twice = S::mul(S::load(scores.add(i)), S::splat(2.0 / cap));
            let rest = S::div(S::splat(2.0), S::add(math::exp::<S>(twice), one));
            S::store(scores.add(i), S::mul(S::sub(one, rest), S::splat(cap)));
        }
    }
}

/// e^x of one value, by the same polynomial as everywhere.
#[inline(always)]
unsafe fn exp_of<S: Simd>(x: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    // SAFETY: 16 values.
    unsafe { S::store(lanes.as_mut_ptr(), math::exp::<S>(S::splat(x))) };
    lanes[0]
}

/// Adds the segment's weighted values to the output of every row that sees the segment.
///
/// A tile runs over the keys that all its rows see, and each row alone over what it sees before and after: a key that a
/// row does not see is not multiplied by zero but left out, so that a NaN there cannot reach the row.
#[inline(always)]
unsafe fn gather<S: Simd, V: FloatRows>(
    args: &AttentionArgs,
    scratch: &Scratch,
    rows: usize,
    from: usize,
    count: usize,
) {
    let dim = value_dim(args.head_dim);
    let vectors = dim / LANES;
    // SAFETY: as the caller promises; a row sees keys below `count` only.
    unsafe {
        for_each_tile!(S, vectors, rows, |vector, row, P, T| {
            let mut seen = [(0, 0); T];
            for (t, seen) in seen.iter_mut().enumerate() {
                *seen = args.seen(row + t, from, count);
            }
            // Both ends grow with the position: the last row starts last, the first one ends first.
            let (start, end) = match (seen[T - 1].0, seen[0].1) {
                (start, end) if start < end => (start, end),
                _ => (count, count),
            };
            let weights = scratch.scores.add(row * SEGMENT);
            let values = args.values.add((from * dim + vector * LANES) * V::BYTES);
            let mut sum = [[S::splat(0.0); P]; T];
            for t in 0..T {
                let part = seen[t].0..start.min(seen[t].1);
                weigh_values::<S, V, P>(&mut sum[t], weights.add(t * SEGMENT), values, dim, part);
            }
            let sum = &mut float_tile_onto::<S, V, P, T>(
                sum,
                weights.add(start),
                SEGMENT,
                values.add(start * dim * V::BYTES),
                dim * V::BYTES,
                LANES * V::BYTES,
                end - start,
            );
            for t in 0..T {
                let part = end..seen[t].1;
                weigh_values::<S, V, P>(&mut sum[t], weights.add(t * SEGMENT), values, dim, part);
                merge::<S, P>(&sum[t], scratch, row + t, dim, vector);
            }
        });
    }
}

/// Adds the weighted values of some keys to the sums of one row.
#[inline(always)]
unsafe fn weigh_values<S: Simd, V: FloatRows, const P: usize>(
    sum: &mut [S::F; P],
    weights: *const f32,
    values: *const u8,
    dim: usize,
    keys: std::ops::Range<usize>,
) {
    for key in keys {
        // SAFETY: as the caller promises.
        unsafe {
            let weight = S::splat(*weights.add(key));
            for (p, sum) in sum.iter_mut().enumerate() {
                let value = V::load::<S>(values.add((key * dim + p * LANES) * V::BYTES));
                *sum = S::fma(value, weight, *sum);
            }
        }
    }
}

/// Merges a row's part of a segment with its output, unless the row saw nothing of the segment.
#[inline(always)]
unsafe fn merge<S: Simd, const P: usize>(
    part: &[S::F; P],
    scratch: &Scratch,
    row: usize,
    dim: usize,
    vector: usize,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let state = scratch.state.add(4 * row);
        if *state.add(3) == 0.0 {
            return;
        }
        let (old, new) = (S::splat(*state.add(2)), S::splat(*state.add(3)));
        for (p, &part) in part.iter().enumerate() {
            let to = scratch.output.add(row * dim + (vector + p) * LANES);
            S::store(to, S::fma(S::load(to), old, S::mul(part, new)));
        }
    }
}

/// Divides by the sums and writes the output.
#[inline(always)]
unsafe fn finish<S: Simd>(args: &AttentionArgs, scratch: &Scratch, dim: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        for row in 0..args.tokens * args.group {
            let (token, head) = (row / args.group, row % args.group);
            let from = scratch.output.add(row * dim);
            let to = args.output.add(token * args.output_stride + head * args.head_dim);
            let sum = S::splat(*scratch.state.add(4 * row + 1));
            for i in (0..args.head_dim).step_by(LANES) {
                let value = S::div(S::load(from.add(i)), sum);
                S::store_partial(to.add(i), value, LANES.min(args.head_dim - i));
            }
        }
    }
}

/// Writes the key of one token into its panel: `length` values, 16 apart.
///
/// # Safety
/// `panel` is the head's panel that holds `position`; `length` values can be read; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn store_key<S: Simd>(
    key: *const f32,
    length: usize,
    position: usize,
    panel: *mut u8,
    half: bool,
) {
    let lane = position % LANES;
    // SAFETY: as the caller promises.
    unsafe {
        for i in (0..length).step_by(LANES) {
            let count = LANES.min(length - i);
            let values = S::load_partial(key.add(i), count);
            if half {
                let mut lanes = [0u16; LANES];
                S::store_f16(lanes.as_mut_ptr(), values);
                for (k, &value) in lanes[..count].iter().enumerate() {
                    *panel.cast::<u16>().add((i + k) * LANES + lane) = value;
                }
            } else {
                for k in 0..count {
                    *panel.cast::<f32>().add((i + k) * LANES + lane) = *key.add(i + k);
                }
            }
        }
    }
}

/// Writes the value of one token into its row, padded with zeros to whole vectors.
///
/// # Safety
/// `length` values can be read and [`value_dim`] values written; the CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn store_value<S: Simd>(value: *const f32, length: usize, to: *mut u8, half: bool) {
    // SAFETY: as the caller promises.
    unsafe {
        for i in (0..length).step_by(LANES) {
            let values = S::load_partial(value.add(i), LANES.min(length - i));
            if half {
                S::store_f16(to.cast::<u16>().add(i), values);
            } else {
                S::store(to.cast::<f32>().add(i), values);
            }
        }
    }
}
