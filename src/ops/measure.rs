//! Times of single steps that no caller can run by itself, with made-up data: for benchmarks.

use super::attention::{Attention, Heads, Layer, Span, cut_tiles};
use super::linear::Input;
use super::profile::Work;
use super::ragged::{self, Ragged, Scores, Store, store_bytes};
use super::runtime::Runtime;
use crate::base::error::{Error, Result};
use crate::base::matrix::MatrixMut;
use crate::base::memory::{Buffer, Plain, cast, cast_mut};
use crate::format::dtype::DataType;
use crate::kernels::attention::{MAX_ROWS, scratch_length, value_dim};
use crate::kernels::simd::LANES;
use crate::quant::activations::{ActivationMemory, Form};
use crate::quant::packed::BLOCK;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Handing an empty piece of work to every thread, and waiting for all.
    ForkJoin,
    /// Quantization of `rows` rows of `columns` activations.
    Quantize,
    /// Attention of a document of `rows` tokens to itself, as in encoders. Keys and values are f32.
    Attention,
    /// Causal attention of the last `rows` of `columns` tokens, over keys and values in a cache of F16.
    CachedAttention,
}

/// How large a step is. What a step does not name above is not looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// Rows.
    pub rows: usize,
    /// Columns, or keys.
    pub columns: usize,
    /// Query heads, a multiple of the key heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// The caches take at least so many bytes together and are used in turn, so that a cache larger than the CPU's
    /// comes from memory.
    pub working_set: usize,
}

/// What a step took, and what it has to do.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// The best time of many.
    pub seconds: f64,
    /// What a step does.
    pub work: Work,
}

/// Largest number of a shape, and of all bytes: more is a mistake.
const MOST: usize = 1 << 24;
const MOST_BYTES: usize = 1 << 36;
/// Rows of attention among themselves, at most: the work grows with their square.
const MOST_ATTENDED: usize = 1 << 16;

/// Runs a step again and again for about `time`; the best time counts.
///
/// Errors: a shape with 0 or too large, memory.
pub fn measure(runtime: &Runtime, step: Step, shape: &Shape, time: Duration) -> Result<Measured> {
    match step {
        Step::ForkJoin => Ok(Measured {
            seconds: fork_join(runtime, time),
            work: Work::default(),
        }),
        Step::Quantize => quantize(runtime, shape, time),
        Step::Attention => attention(runtime, shape, time),
        Step::CachedAttention => cached_attention(runtime, shape, time),
    }
}

/// Seconds of one call: the best of many short series. A series takes long enough that reading the clock costs nothing.
fn best(time: Duration, mut body: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut series = |count: u32| {
        let start = Instant::now();
        (0..count).for_each(|_| body());
        start.elapsed().as_secs_f64() / f64::from(count)
    };
    series(1);
    let mut count = 1;
    let mut least = series(count);
    while least * f64::from(count) < 2e-4 && count < 1 << 20 {
        count *= 2;
        least = least.min(series(count));
    }
    while begin.elapsed() < time {
        least = least.min(series(count));
    }
    least
}

fn check(name: &str, value: usize) -> Result<()> {
    if value == 0 || value > MOST {
        return Err(Error::invalid(format!("{name} is {value}, expected 1 to {MOST}")));
    }
    Ok(())
}

/// A buffer of the product of `dimensions` values of `size` bytes.
fn buffer(runtime: &Runtime, dimensions: &[usize], size: usize) -> Result<Buffer> {
    let bytes = dimensions
        .iter()
        .try_fold(size, |bytes, &count| bytes.checked_mul(count))
        .filter(|&bytes| bytes <= MOST_BYTES)
        .ok_or_else(|| Error::invalid("the shape is too large to measure"))?;
    runtime.allocator().buffer(bytes)
}

fn floats<T: Plain>(buffer: &mut Buffer) -> Result<&mut [T]> {
    cast_mut(buffer.bytes_mut()).ok_or_else(|| Error::no_memory("memory is not aligned"))
}

/// Numbers from -1 to 1, the same in every run.
fn fill(values: &mut [f32]) {
    let mut state = 1_u32;
    for value in values {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *value = (state >> 8) as f32 / 8_388_608.0 - 1.0;
    }
}

/// Every thread waits until all have come, so that none does the work of two; but not for ever: a thread that the
/// system holds up, or another caller of the pool, would stop it.
fn fork_join(runtime: &Runtime, time: Duration) -> f64 {
    let (threads, arrived) = (runtime.threads(), AtomicUsize::new(0));
    best(time, || {
        arrived.store(0, Ordering::Relaxed);
        runtime.pool().run(threads, &|_, _| {
            arrived.fetch_add(1, Ordering::AcqRel);
            for _ in 0..10_000 {
                if arrived.load(Ordering::Acquire) >= threads {
                    break;
                }
                std::hint::spin_loop();
            }
        });
    })
}

fn quantize(runtime: &Runtime, shape: &Shape, time: Duration) -> Result<Measured> {
    let &Shape { rows, columns, .. } = shape;
    check("rows", rows)?;
    check("columns", columns)?;
    let mut x = buffer(runtime, &[rows, columns], 4)?;
    fill(floats(&mut x)?);
    let values = cast(x.bytes()).ok_or_else(|| Error::no_memory("memory is not aligned"))?;
    let row_bytes = Form::Codes.row_bytes(columns.div_ceil(BLOCK));
    let mut held = buffer(runtime, &[rows], row_bytes.unwrap_or(usize::MAX))?;
    let mut memory = ActivationMemory {
        data: held.bytes_mut(),
    };
    let input = Input {
        values,
        stride: columns,
        columns,
        tokens: rows,
        rows: None,
        norm: None,
    };
    let seconds = best(time, || {
        input.activate(runtime, Form::Codes, &mut memory, &mut []);
    });
    Ok(Measured {
        seconds,
        work: Work::values(rows * columns, 2, 5),
    })
}

/// The heads of a shape.
fn heads_of(shape: &Shape) -> Result<Heads> {
    let &Shape {
        heads,
        kv_heads,
        head_dim,
        ..
    } = shape;
    check("heads", heads)?;
    check("kv_heads", kv_heads)?;
    check("head_dim", head_dim)?;
    if heads % kv_heads != 0 || heads / kv_heads > MAX_ROWS || head_dim > 1 << 12 || heads > 1 << 12 {
        return Err(Error::invalid(format!(
            "{heads} heads of {head_dim} values over {kv_heads} key heads: at most {MAX_ROWS} share one, evenly"
        )));
    }
    Ok(Heads {
        heads,
        kv_heads,
        head_dim,
    })
}

fn attention(runtime: &Runtime, shape: &Shape, time: Duration) -> Result<Measured> {
    let heads = heads_of(shape)?;
    let tokens = shape.rows;
    check("rows", tokens)?;
    if tokens > MOST_ATTENDED {
        return Err(Error::invalid(format!(
            "rows is {tokens}, expected at most {MOST_ATTENDED}: each row looks at every other"
        )));
    }
    let group = heads.heads / heads.kv_heads;
    let mut batch = Ragged::with_room(tokens)?;
    batch.push(tokens, group);
    let (key_bytes, value_bytes) = store_bytes(heads, batch.slots());
    let mut qkv = buffer(runtime, &[tokens, heads.stride()], 4)?;
    let mut keys = buffer(runtime, &[heads.kv_heads, key_bytes], 1)?;
    let mut values = buffer(runtime, &[heads.kv_heads, value_bytes], 1)?;
    let mut scratch = scratch_of(runtime, heads)?;
    let mut output = buffer(runtime, &[tokens, heads.heads, heads.head_dim], 4)?;
    fill(floats(&mut qkv)?);
    let queries = heads.heads * heads.head_dim;
    let scores = Scores::whole(heads);
    let mut store = Store {
        keys: keys.bytes_mut(),
        values: values.bytes_mut(),
    };
    let shape_error = || Error::invalid("the shape does not fit its memory");
    let rows = MatrixMut::new(floats(&mut qkv)?, tokens, heads.stride(), heads.stride());
    let preparation = ragged::Preparation::default();
    ragged::prepare(
        runtime,
        heads,
        &batch,
        preparation,
        rows.ok_or_else(shape_error)?,
        &mut store,
    );
    let qkv: &[f32] = floats(&mut qkv)?;
    let scratch = floats(&mut scratch)?;
    let mut output =
        MatrixMut::new(floats(&mut output)?, tokens, queries, queries).ok_or_else(shape_error)?;
    let seconds = best(time, || {
        let output = output.reborrow();
        ragged::attend(runtime, heads, &batch, scores, qkv, &store, scratch, output);
    });
    Ok(Measured {
        seconds,
        work: batch.attention_work(heads, scores),
    })
}

/// Scratch memory of attention for every thread.
fn scratch_of(runtime: &Runtime, heads: Heads) -> Result<Buffer> {
    let group = heads.heads / heads.kv_heads;
    let length = scratch_length(MAX_ROWS.max(group), heads.head_dim).next_multiple_of(LANES);
    buffer(runtime, &[runtime.threads(), length], 4)
}

fn cached_attention(runtime: &Runtime, shape: &Shape, time: Duration) -> Result<Measured> {
    let heads = heads_of(shape)?;
    let (tokens, keys) = (shape.rows, shape.columns);
    check("rows", tokens)?;
    check("columns", keys)?;
    if tokens > keys {
        return Err(Error::invalid(format!(
            "rows is {tokens}, more than the {keys} tokens of the sequence (columns)"
        )));
    }
    let slots = keys.next_multiple_of(LANES);
    let (key_bytes, value_bytes) = (slots * heads.head_dim * 2, slots * value_dim(heads.head_dim) * 2);
    let (key_slab, value_slab) = (key_bytes * heads.kv_heads, value_bytes * heads.kv_heads);
    let copies = shape
        .working_set
        .min(MOST_BYTES)
        .div_ceil(key_slab + value_slab)
        .max(1);
    let mut key_memory = buffer(runtime, &[copies, key_slab], 1)?;
    let mut value_memory = buffer(runtime, &[copies, value_slab], 1)?;
    let mut qkv = buffer(runtime, &[tokens, heads.stride()], 4)?;
    fill(floats(&mut qkv)?);
    let mut row = buffer(runtime, &[heads.head_dim], 4)?;
    fill(floats(&mut row)?);
    let row: &[f32] = floats(&mut row)?;
    for (keys_of, values_of) in key_memory
        .bytes_mut()
        .chunks_exact_mut(key_bytes)
        .zip(value_memory.bytes_mut().chunks_exact_mut(value_bytes))
    {
        for position in 0..keys {
            runtime.kernels().store_key(row, position, keys_of, DataType::F16);
            runtime
                .kernels()
                .store_value(row, position, values_of, DataType::F16);
        }
    }
    let span = Span {
        sequence: 0,
        position: keys - tokens,
        row: 0,
        tokens,
    };
    let (mut tiles, mut starts) = (Vec::new(), Vec::new());
    for list in [tiles.try_reserve(tokens), starts.try_reserve(tokens)] {
        list.map_err(|_| Error::no_memory("cannot allocate the tiles"))?;
    }
    cut_tiles(&[span], heads.heads / heads.kv_heads, &mut tiles, &mut starts);
    let attention = Attention {
        heads,
        tiles: &tiles,
        starts: &starts,
        window: 0,
        scale: 1.0 / (heads.head_dim as f32).sqrt(),
        cap: 0.0,
    };
    let queries = heads.heads * heads.head_dim;
    let mut scratch = scratch_of(runtime, heads)?;
    let mut output = buffer(runtime, &[tokens, queries], 4)?;
    let qkv: &[f32] = floats(&mut qkv)?;
    let scratch = floats(&mut scratch)?;
    let mut output = MatrixMut::new(floats(&mut output)?, tokens, queries, queries)
        .ok_or_else(|| Error::invalid("the shape does not fit its memory"))?;
    let mut copy = 0;
    let seconds = best(time, || {
        let layer = Layer {
            keys: &mut key_memory.bytes_mut()[copy * key_slab..][..key_slab],
            values: &mut value_memory.bytes_mut()[copy * value_slab..][..value_slab],
            key_bytes,
            value_bytes,
            key_type: DataType::F16,
            value_type: DataType::F16,
        };
        copy = (copy + 1) % copies;
        attention.apply(runtime, qkv, &layer, scratch, output.reborrow());
    });
    let tail = Layer {
        keys: key_memory.bytes_mut(),
        values: value_memory.bytes_mut(),
        key_bytes,
        value_bytes,
        key_type: DataType::F16,
        value_type: DataType::F16,
    };
    let work = attention.work(&[span], &tail);
    Ok(Measured { seconds, work })
}

#[cfg(test)]
mod tests {
    use super::super::runtime::RuntimeOptions;
    use super::*;

    #[test]
    fn every_step_runs_and_says_what_it_does() {
        let options = RuntimeOptions {
            threads: 2,
            ..RuntimeOptions::default()
        };
        let runtime = Runtime::new(options).unwrap();
        let time = Duration::from_millis(1);
        let shape = Shape {
            rows: 3,
            columns: 40,
            heads: 6,
            kv_heads: 2,
            head_dim: 20,
            working_set: 100_000,
        };
        let run = |step| measure(&runtime, step, &shape, time).unwrap();
        assert!(run(Step::ForkJoin).seconds > 0.0);
        assert_eq!(run(Step::Quantize).work, Work::values(120, 2, 5));
        assert_eq!(run(Step::Attention).work.operations, 4 * 3 * 3 * 6 * 20);
        let cached = run(Step::CachedAttention);
        assert_eq!(cached.work.operations, 4 * (38 + 39 + 40) * 6 * 20);
        assert_eq!(cached.work.bytes, 8 * 3 * 6 * 20 + 40 * 2 * 20 * 4);
        assert!(cached.seconds > 0.0);
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let runtime = Runtime::new(RuntimeOptions::default()).unwrap();
        let time = Duration::from_millis(1);
        let good = Shape {
            rows: 3,
            columns: 40,
            heads: 6,
            kv_heads: 2,
            head_dim: 16,
            working_set: 0,
        };
        for (step, shape) in [
            (Step::Quantize, Shape { rows: 0, ..good }),
            (
                Step::Quantize,
                Shape {
                    columns: usize::MAX,
                    ..good
                },
            ),
            (Step::Attention, Shape { kv_heads: 4, ..good }),
            (Step::Attention, Shape { heads: 0, ..good }),
            (Step::Attention, Shape { rows: MOST, ..good }),
            (Step::CachedAttention, Shape { rows: 41, ..good }),
            (
                Step::CachedAttention,
                Shape {
                    head_dim: MOST + 1,
                    ..good
                },
            ),
        ] {
            assert!(
                measure(&runtime, step, &shape, time).is_err(),
                "{step:?} {shape:?}"
            );
        }
    }
}
