//! Attention of whole documents to themselves: no cache, no mask, no padding between documents.
//!
//! Documents stand side by side in the batch, as many rows as they have tokens. Their keys and values are copied into
//! the layout of the attention kernel, where each document starts a new panel of 16 tokens.

use super::attention::Heads;
use super::profile::Work;
use super::runtime::Runtime;
use crate::base::error::{Error, Result};
use crate::base::matrix::MatrixMut;
use crate::format::dtype::DataType;
use crate::kernels::AttentionInput;
use crate::kernels::attention::value_dim;
use crate::kernels::simd::LANES;

/// Rows (tokens x heads of a group) of a tile, as in `attention.rs`.
const TILE_ROWS: usize = 24;

/// Multiplications and additions that are worth claiming a chunk.
const CHUNK_WORK: usize = 1 << 16;

/// One document of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    /// Row of its first token.
    pub row: usize,
    /// Number of tokens.
    pub tokens: usize,
    /// First slot of its keys and values, a multiple of 16.
    slot: usize,
}

/// Up to 16 tokens of one document.
#[derive(Clone, Copy, Debug)]
struct Panel {
    /// Position of the first token in its document.
    position: usize,
}

/// Tokens of one document whose queries share each read of keys and values.
#[derive(Clone, Copy, Debug)]
struct Tile {
    document: usize,
    position: usize,
}

/// The documents of one pass, and how the work on them is divided.
pub struct Ragged {
    documents: Vec<Document>,
    panels: Vec<Panel>,
    /// First row of each panel.
    panel_rows: Vec<usize>,
    tiles: Vec<Tile>,
    /// First row of each tile.
    tile_rows: Vec<usize>,
    tokens: usize,
}

impl Ragged {
    /// Room for any documents of together `tokens` tokens.
    pub fn with_room(tokens: usize) -> Result<Ragged> {
        Ok(Ragged {
            documents: room(tokens)?,
            panels: room(tokens)?,
            panel_rows: room(tokens)?,
            tiles: room(tokens)?,
            tile_rows: room(tokens)?,
            tokens: 0,
        })
    }

    /// Forgets all documents.
    pub fn clear(&mut self) {
        self.documents.clear();
        self.panels.clear();
        self.panel_rows.clear();
        self.tiles.clear();
        self.tile_rows.clear();
        self.tokens = 0;
    }

    /// Whether a document of `tokens` tokens still fits into `panels` panels.
    pub fn has_room(&self, tokens: usize, panels: usize) -> bool {
        self.panels.len() + tokens.div_ceil(LANES) <= panels
    }

    /// Adds a document; `group` query heads share a key head.
    pub fn push(&mut self, tokens: usize, group: usize) {
        let (row, slot) = (self.tokens, self.slots());
        for position in (0..tokens).step_by(LANES) {
            self.panels.push(Panel { position });
            self.panel_rows.push(row + position);
        }
        for position in (0..tokens).step_by((TILE_ROWS / group).max(1)) {
            let document = self.documents.len();
            self.tiles.push(Tile { document, position });
            self.tile_rows.push(row + position);
        }
        self.documents.push(Document { row, tokens, slot });
        self.tokens += tokens;
    }

    /// The position of the token in row `row`, in its document.
    pub fn position(&self, row: usize) -> usize {
        let panel = self
            .panel_rows
            .partition_point(|&first| first <= row)
            .saturating_sub(1);
        match (self.panels.get(panel), self.panel_rows.get(panel)) {
            (Some(panel), Some(first)) => panel.position + row - first,
            _ => 0,
        }
    }

    /// The documents.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// Tokens of all documents.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// What attention does with these scores.
    pub fn attention_work(&self, heads: Heads, scores: Scores) -> Work {
        let pairs = self
            .documents
            .iter()
            .map(|document| scores.pairs(document.tokens));
        Work::attention(
            [self.tokens, pairs.sum(), self.tokens],
            [heads.heads, heads.kv_heads, heads.head_dim],
            8 * heads.head_dim,
        )
    }

    /// Slots that the keys and values of all documents take: whole panels.
    pub fn slots(&self) -> usize {
        self.panels.len() * LANES
    }
}

fn room<T>(count: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count)
        .map_err(|_| Error::no_memory(format!("cannot allocate a list of {count}")))?;
    Ok(list)
}

/// Memory for the keys and values of a batch, in the layout of the attention kernel.
pub struct Store<'a> {
    /// `[head][slot / 16][dim][16]` f32.
    pub keys: &'a mut [u8],
    /// `[head][slot][value_dim]` f32.
    pub values: &'a mut [u8],
}

/// Bytes of keys and of values that one head takes for `slots` slots.
pub fn store_bytes(heads: Heads, slots: usize) -> (usize, usize) {
    (4 * slots * heads.head_dim, 4 * slots * value_dim(heads.head_dim))
}

/// What is done to queries and keys before they meet.
#[derive(Clone, Copy, Default)]
pub struct Preparation<'a> {
    /// RMS norm of each head: weights of queries, of keys, epsilon.
    pub norm: Option<(&'a [f32], &'a [f32], f32)>,
    /// cos, sin: `[position][half]`, and half.
    pub rope: Option<(&'a [f32], &'a [f32], usize)>,
}

/// Normalizes and rotates queries and keys in place, and copies keys and values into `store`.
pub fn prepare(
    runtime: &Runtime,
    heads: Heads,
    batch: &Ragged,
    preparation: Preparation<'_>,
    qkv: MatrixMut<'_, f32>,
    store: &mut Store<'_>,
) {
    let (key_bytes, value_bytes) = store_bytes(heads, LANES);
    let slots = batch.slots() / LANES;
    let keys = MatrixMut::new(store.keys, heads.kv_heads, slots * key_bytes, slots * key_bytes);
    let values = MatrixMut::new(
        store.values,
        heads.kv_heads,
        slots * value_bytes,
        slots * value_bytes,
    );
    let (Some(keys), Some(values), Some(rows)) =
        (keys, values, qkv.by_tiles(&batch.panel_rows, heads.stride()))
    else {
        unreachable!("the plan carved keys and values for every panel, in the order of rows")
    };
    let parts = (rows, keys.by_columns(key_bytes), values.by_columns(value_bytes));
    let (queries, rotated) = (
        heads.heads * heads.head_dim,
        (heads.heads + heads.kv_heads) * heads.head_dim,
    );
    runtime.pool().divide(
        batch.panels.len(),
        parts,
        |panel, (mut rows, mut keys, mut values)| {
            let kernels = runtime.kernels();
            for token in 0..rows.rows() {
                let row = rows.row(token);
                if let Some((query, key, epsilon)) = preparation.norm {
                    kernels.rms_norm_each(&mut row[..queries], query, epsilon);
                    kernels.rms_norm_each(&mut row[queries..rotated], key, epsilon);
                }
                if let Some((cosine, sine, half)) = preparation.rope {
                    let at = (batch.panels[panel].position + token) * half;
                    let (cosine, sine) = (&cosine[at..at + half], &sine[at..at + half]);
                    let vectors = heads.heads + heads.kv_heads;
                    kernels.rotate_halves(&mut row[..rotated], vectors, heads.head_dim, cosine, sine);
                }
                let (keys_of, values_of) = row[queries..].split_at(heads.kv_heads * heads.head_dim);
                let both = keys_of
                    .chunks_exact(heads.head_dim)
                    .zip(values_of.chunks_exact(heads.head_dim));
                for (head, (key, value)) in both.enumerate() {
                    kernels.store_key(key, token, keys.row(head), DataType::F32);
                    kernels.store_value(value, token, values.row(head), DataType::F32);
                }
            }
        },
    );
}

/// Which keys a query sees, and what becomes of its scores.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// No key behind the query's own position (a decoder), or the whole document (an encoder).
    pub causal: bool,
    /// Keys at most `window / 2` positions away, or with `causal` less than `window` behind; 0 for no such limit.
    pub window: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Scores s become cap * tanh(s / cap); 0 for no cap.
    pub cap: f32,
}

impl Scores {
    /// The whole document, with the usual factor.
    pub fn whole(heads: Heads) -> Scores {
        Scores {
            causal: false,
            window: 0,
            scale: 1.0 / (heads.head_dim as f32).sqrt(),
            cap: 0.0,
        }
    }

    /// Pairs of a query and a key that it sees, in a document of `tokens` tokens.
    fn pairs(&self, tokens: usize) -> usize {
        let (window, reach) = (self.window.min(tokens), self.window / 2);
        match (self.causal, self.window) {
            (false, 0) => tokens * tokens,
            (false, _) if reach + 1 >= tokens => tokens * tokens,
            // Whole windows, without what sticks out at both ends.
            (false, _) => tokens * (2 * reach + 1) - reach * (reach + 1),
            (true, 0) => tokens * (tokens + 1) / 2,
            // The first tokens see what is before them, the others a whole window.
            (true, _) => window * (window + 1) / 2 + (tokens - window) * window,
        }
    }
}

/// `output[token][head]` = attention of the token's query head over its document's keys. `scratch` takes what the kernel
/// needs for each thread.
#[allow(clippy::too_many_arguments)] // What an attention layer takes; a struct would only rename it.
pub fn attend(
    runtime: &Runtime,
    heads: Heads,
    batch: &Ragged,
    scores: Scores,
    qkv: &[f32],
    store: &Store<'_>,
    scratch: &mut [f32],
    output: MatrixMut<'_, f32>,
) {
    let group = heads.heads / heads.kv_heads;
    let (count, slots) = (batch.tiles.len(), batch.slots());
    let (key_slab, value_slab) = store_bytes(heads, slots);
    let per_chunk = heads_per_chunk(runtime, heads, batch);
    let width = group * heads.head_dim;
    let Some(parts) = output.by_tiles(&batch.tile_rows, per_chunk * width) else {
        unreachable!("tiles are cut in the order of rows")
    };
    let chunks = count * heads.kv_heads.div_ceil(per_chunk);
    runtime
        .pool()
        .divide_with(chunks, parts, scratch, |chunk, mut part, scratch| {
            let (first, index) = (chunk / count * per_chunk, chunk % count);
            let tile = batch.tiles[index];
            let document = batch.documents[tile.document];
            let (key_start, value_start) = store_bytes(heads, document.slot);
            for head in first..(first + per_chunk).min(heads.kv_heads) {
                let input = AttentionInput {
                    queries: &qkv[batch.tile_rows[index] * heads.stride() + head * width..],
                    query_stride: heads.stride(),
                    group,
                    head_dim: heads.head_dim,
                    position: tile.position,
                    key_count: document.tokens,
                    causal: scores.causal,
                    window: scores.window,
                    scale: scores.scale,
                    cap: scores.cap,
                    keys: &store.keys[head * key_slab + key_start..(head + 1) * key_slab],
                    key_type: DataType::F32,
                    values: &store.values[head * value_slab + value_start..(head + 1) * value_slab],
                    value_type: DataType::F32,
                };
                let output = part.columns_mut((head - first) * width, width);
                runtime.kernels().attention(&input, output, scratch);
            }
        });
}

/// Key heads of a chunk: few enough that all threads have work, enough that claiming it costs little.
fn heads_per_chunk(runtime: &Runtime, heads: Heads, batch: &Ragged) -> usize {
    let squares: usize = batch
        .documents
        .iter()
        .map(|document| document.tokens.pow(2))
        .sum();
    let work = 2 * squares * heads.heads * heads.head_dim;
    let wanted = (work / CHUNK_WORK).max(4 * runtime.threads());
    (batch.tiles.len() * heads.kv_heads / wanted).clamp(1, heads.kv_heads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_those_that_are_seen() {
        let heads = Heads {
            heads: 1,
            kv_heads: 1,
            head_dim: 1,
        };
        for tokens in [1usize, 2, 5, 9, 20] {
            for window in [0usize, 1, 2, 5, 8, 40] {
                for causal in [false, true] {
                    let scores = Scores {
                        causal,
                        window,
                        ..Scores::whole(heads)
                    };
                    let sees = |query: usize, key: usize| match causal {
                        true => key <= query && (window == 0 || query - key < window),
                        false => window == 0 || query.abs_diff(key) <= window / 2,
                    };
                    let queries = (0..tokens).flat_map(|query| (0..tokens).map(move |key| (query, key)));
                    let expected = queries.filter(|&(query, key)| sees(query, key)).count();
                    assert_eq!(scores.pairs(tokens), expected, "{tokens} tokens, {scores:?}");
                }
            }
        }
    }
}
