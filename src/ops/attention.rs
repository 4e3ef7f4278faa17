//! Rotary embedding, the key-value cache and attention over it, on all threads.

use super::linear::rows_per_chunk;
use super::profile::Work;
use super::runtime::Runtime;
use crate::base::matrix::{MatrixMut, Pieces};
use crate::format::dtype::DataType;
use crate::kernels::AttentionInput;

/// Consecutive tokens of one sequence in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Which sequence of the cache.
    pub sequence: usize,
    /// Position of the first token in its sequence.
    pub position: usize,
    /// Row of the first token in the batch.
    pub row: usize,
    /// Number of tokens.
    pub tokens: usize,
}

/// A few tokens of one span, whose queries share each read of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// The sequence.
    pub sequence: usize,
    /// Position of the first token.
    pub position: usize,
    /// Keys that the sequence holds with the span's tokens.
    pub keys: usize,
}

/// Rows (tokens x heads of a group) of a tile: four register tiles of six, whose scores stay in L1.
const TILE_ROWS: usize = 24;

/// Cuts spans into tiles; `starts[i]` is the first row of tile i. Both are cleared first and must have room for as many
/// tiles as there are tokens.
pub fn cut_tiles(spans: &[Span], group: usize, tiles: &mut Vec<Tile>, starts: &mut Vec<usize>) {
    tiles.clear();
    starts.clear();
    for span in spans {
        for token in (0..span.tokens).step_by((TILE_ROWS / group).max(1)) {
            starts.push(span.row + token);
            tiles.push(Tile {
                sequence: span.sequence,
                position: span.position + token,
                keys: span.position + span.tokens,
            });
        }
    }
}

/// Where queries, keys and values of a token stand, and how heads share them.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
}

impl Heads {
    /// Values of a token: queries, then keys, then values.
    pub fn stride(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Values of a token that have a position: queries and keys.
    pub fn rotated(&self) -> usize {
        (self.heads + self.kv_heads) * self.head_dim
    }

    fn key(&self, head: usize) -> usize {
        (self.heads + head) * self.head_dim
    }

    fn value(&self, head: usize) -> usize {
        (self.heads + self.kv_heads + head) * self.head_dim
    }
}

/// What happens to queries and keys before they meet.
pub struct Rotation<'a> {
    /// RMS norms of each head's queries and keys: their weights, and epsilon.
    pub norms: Option<(&'a [f32], &'a [f32], f32)>,
    /// `[position][half]`.
    pub cosine: &'a [f32],
    /// As `cosine`.
    pub sine: &'a [f32],
    /// Pairs of a head that are rotated.
    pub half: usize,
}

impl Rotation<'_> {
    /// Normalizes the queries and keys of every row and rotates them by its position.
    pub fn apply(&self, runtime: &Runtime, heads: Heads, positions: &[u32], qkv: &mut [f32]) {
        let (stride, half) = (heads.stride(), self.half);
        let per_chunk = rows_per_chunk(positions.len(), stride);
        let pieces = Pieces::new(qkv, per_chunk * stride);
        let kernels = runtime.kernels();
        runtime
            .pool()
            .divide(positions.len().div_ceil(per_chunk), pieces, |chunk, rows| {
                let positions = &positions[chunk * per_chunk..];
                for (row, &position) in rows.chunks_exact_mut(stride).zip(positions) {
                    let (queries, rest) = row.split_at_mut(heads.key(0));
                    if let Some((query, key, epsilon)) = self.norms {
                        kernels.rms_norm_each(queries, query, epsilon);
                        kernels.rms_norm_each(&mut rest[..heads.kv_heads * heads.head_dim], key, epsilon);
                    }
                    let at = position as usize * half;
                    let vectors = heads.heads + heads.kv_heads;
                    kernels.rotate_halves(
                        &mut row[..vectors * heads.head_dim],
                        vectors,
                        heads.head_dim,
                        &self.cosine[at..at + half],
                        &self.sine[at..at + half],
                    );
                }
            });
    }
}

/// One layer of the cache: `[head][sequence]` slabs.
pub struct Layer<'a> {
    /// Key panels.
    pub keys: &'a mut [u8],
    /// Value rows.
    pub values: &'a mut [u8],
    /// Bytes of one head's keys of one sequence.
    pub key_bytes: usize,
    /// Bytes of one head's values of one sequence.
    pub value_bytes: usize,
    /// Type of the keys.
    pub key_type: DataType,
    /// Type of the values.
    pub value_type: DataType,
}

/// Writes the keys and values of all spans into the cache.
pub fn store(runtime: &Runtime, heads: Heads, spans: &[Span], qkv: &[f32], layer: &mut Layer<'_>) {
    let tokens: usize = spans.iter().map(|span| span.tokens).sum();
    // A few tokens are not worth waking another thread.
    let per_chunk = rows_per_chunk(heads.kv_heads, tokens * heads.head_dim);
    let (key_slab, value_slab) = (
        layer.keys.len() / heads.kv_heads,
        layer.values.len() / heads.kv_heads,
    );
    let (key_bytes, value_bytes) = (layer.key_bytes, layer.value_bytes);
    let (key_type, value_type) = (layer.key_type, layer.value_type);
    let parts = (
        Pieces::new(layer.keys, per_chunk * key_slab),
        Pieces::new(layer.values, per_chunk * value_slab),
    );
    runtime.pool().divide(
        heads.kv_heads.div_ceil(per_chunk),
        parts,
        |chunk, (keys, values)| {
            let slabs = keys
                .chunks_exact_mut(key_slab)
                .zip(values.chunks_exact_mut(value_slab));
            for (index, (keys, values)) in slabs.enumerate() {
                let head = chunk * per_chunk + index;
                for span in spans {
                    let keys = &mut keys[span.sequence * key_bytes..][..key_bytes];
                    let values = &mut values[span.sequence * value_bytes..][..value_bytes];
                    for token in 0..span.tokens {
                        let row = &qkv[(span.row + token) * heads.stride()..][..heads.stride()];
                        let position = span.position + token;
                        let kernels = runtime.kernels();
                        kernels.store_key(
                            &row[heads.key(head)..][..heads.head_dim],
                            position,
                            keys,
                            key_type,
                        );
                        kernels.store_value(
                            &row[heads.value(head)..][..heads.head_dim],
                            position,
                            values,
                            value_type,
                        );
                    }
                }
            }
        },
    );
}

/// Attention of a batch over one layer of the cache.
pub struct Attention<'a> {
    /// How the heads stand.
    pub heads: Heads,
    /// See [`cut_tiles`].
    pub tiles: &'a [Tile],
    /// See [`cut_tiles`].
    pub starts: &'a [usize],
    /// Sliding window, 0 for none.
    pub window: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Scores s become cap * tanh(s / cap); 0 for no cap.
    pub cap: f32,
}

impl Attention<'_> {
    /// `output[token][head]` = attention of the token's query head over the keys it sees. Causal.
    pub fn apply(
        &self,
        runtime: &Runtime,
        qkv: &[f32],
        layer: &Layer<'_>,
        scratch: &mut [f32],
        output: MatrixMut<'_, f32>,
    ) {
        let heads = self.heads;
        let group = heads.heads / heads.kv_heads;
        let Some(parts) = output.by_tiles(self.starts, group * heads.head_dim) else {
            unreachable!("tiles are cut in the order of rows")
        };
        let (key_slab, value_slab) = (
            layer.keys.len() / heads.kv_heads,
            layer.values.len() / heads.kv_heads,
        );
        let count = self.tiles.len();
        runtime
            .pool()
            .divide_with(count * heads.kv_heads, parts, scratch, |chunk, part, scratch| {
                let (head, index) = (chunk / count, chunk % count);
                let tile = &self.tiles[index];
                let input = AttentionInput {
                    queries: &qkv[self.starts[index] * heads.stride() + head * group * heads.head_dim..],
                    query_stride: heads.stride(),
                    group,
                    head_dim: heads.head_dim,
                    position: tile.position,
                    key_count: tile.keys,
                    causal: true,
                    window: self.window,
                    scale: self.scale,
                    cap: self.cap,
                    keys: &layer.keys[head * key_slab + tile.sequence * layer.key_bytes..][..layer.key_bytes],
                    key_type: layer.key_type,
                    values: &layer.values[head * value_slab + tile.sequence * layer.value_bytes..]
                        [..layer.value_bytes],
                    value_type: layer.value_type,
                };
                runtime.kernels().attention(&input, part, scratch);
            });
    }

    /// What it does for these spans.
    pub fn work(&self, spans: &[Span], layer: &Layer<'_>) -> Work {
        let Heads {
            heads,
            kv_heads,
            head_dim,
        } = self.heads;
        let seen = |position: usize| match self.window {
            0 => position + 1,
            window => window.min(position + 1),
        };
        let (mut tokens, mut pairs, mut keys) = (0, 0, 0);
        for span in spans.iter().filter(|span| span.tokens > 0) {
            tokens += span.tokens;
            pairs += (span.position..span.position + span.tokens)
                .map(seen)
                .sum::<usize>();
            keys += (seen(span.position) + span.tokens - 1).min(span.position + span.tokens);
        }
        let size = |dtype| if dtype == DataType::F32 { 4 } else { 2 };
        let key_bytes = head_dim * (size(layer.key_type) + size(layer.value_type));
        Work::attention([tokens, pairs, keys], [heads, kv_heads, head_dim], key_bytes)
    }
}
