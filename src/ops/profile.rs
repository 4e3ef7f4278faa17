//! Where the time of forward passes goes: calls, time, operations and bytes of every op in every layer.
//!
//! Taken on the calling thread: the time since the mark before it belongs to a mark's op, so nothing between two
//! ops is lost, and waiting for the slowest thread counts. Switched off, a mark costs one branch; switched on, it
//! reads the clock and allocates nothing.

use crate::base::error::{Error, Result};
use crate::quant::activations::Form;
use crate::quant::packed::PackedMatrix;
use std::fmt::Write as _;
use std::time::Instant;

/// The steps of forward passes. Steps that a model fuses count under the name of the larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Op {
    /// Texts to token ids.
    Tokenization = 0,
    /// Rows of the embedding tables, and the norm behind them.
    Embedding = 1,
    /// The norm before attention (or behind the layer before), and quantization for the next product.
    AttentionNorm = 2,
    /// Products with the weights of queries, keys and values.
    Qkv = 3,
    /// Norms of queries and keys, rotary positions; in encoders also the copy of keys and values.
    Rope = 4,
    /// Writing keys and values into the cache.
    CacheStore = 5,
    /// Scores, softmax and the weighted sum of values.
    Attention = 6,
    /// Quantization of what attention gave.
    Quantize = 7,
    /// Product with the output weights of attention.
    AttentionOutput = 8,
    /// The norm before the feed-forward network (or behind attention), and quantization for the next product.
    FeedForwardNorm = 9,
    /// Products with the gate and up weights, the activation function, and quantization of the hidden values.
    GateUp = 10,
    /// Product with the down weights.
    Down = 11,
    /// The norm behind the last layer.
    OutputNorm = 12,
    /// The output head: norm, quantization and product, for the rows whose logits are wanted.
    Head = 13,
    /// Token vectors to one vector per document.
    Pooling = 14,
    /// Dense layers behind pooling.
    Dense = 15,
    /// Embeddings to length 1, and their copy to the caller.
    Normalize = 16,
}

impl Op {
    /// Every op, in the order of a forward pass; an op's number is its place.
    pub const ALL: [Op; 17] = [
        Op::Tokenization,
        Op::Embedding,
        Op::AttentionNorm,
        Op::Qkv,
        Op::Rope,
        Op::CacheStore,
        Op::Attention,
        Op::Quantize,
        Op::AttentionOutput,
        Op::FeedForwardNorm,
        Op::GateUp,
        Op::Down,
        Op::OutputNorm,
        Op::Head,
        Op::Pooling,
        Op::Dense,
        Op::Normalize,
    ];

    /// The field's name.
    pub fn name(self) -> &'static str {
        self.c_name().to_str().unwrap_or("")
    }

    /// [`Op::name`] for C.
    pub fn c_name(self) -> &'static std::ffi::CStr {
        match self {
            Op::Tokenization => c"tokenization",
            Op::Embedding => c"embedding",
            Op::AttentionNorm => c"attention_norm",
            Op::Qkv => c"qkv",
            Op::Rope => c"rope",
            Op::CacheStore => c"cache_store",
            Op::Attention => c"attention",
            Op::Quantize => c"quantize",
            Op::AttentionOutput => c"attention_output",
            Op::FeedForwardNorm => c"feed_forward_norm",
            Op::GateUp => c"gate_up",
            Op::Down => c"down",
            Op::OutputNorm => c"output_norm",
            Op::Head => c"head",
            Op::Pooling => c"pooling",
            Op::Dense => c"dense",
            Op::Normalize => c"normalize",
        }
    }

    /// Whether it is a part of every layer.
    pub fn is_in_layers(self) -> bool {
        (Op::AttentionNorm as i32..=Op::Down as i32).contains(&(self as i32))
    }
}

/// What a step has to do at least.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiplications and additions; a fused multiply-add is two.
    pub operations: u64,
    /// Weights, inputs and outputs, each moved once.
    pub bytes: u64,
}

impl Work {
    /// `count` values, with so many operations and bytes moved for each.
    pub fn values(count: usize, operations: usize, bytes: usize) -> Work {
        Work {
            operations: (count * operations) as u64,
            bytes: (count * bytes) as u64,
        }
    }

    /// The product of `tokens` inputs and matrices that share them; an output takes `output_bytes`.
    pub fn product<'a>(
        matrices: impl IntoIterator<Item = &'a PackedMatrix>,
        tokens: usize,
        output_bytes: usize,
    ) -> Work {
        let (mut work, mut inputs) = (Work::default(), 0);
        for matrix in matrices {
            let form = Form::of(matrix.layout().dtype);
            inputs = tokens * form.row_bytes(matrix.blocks()).unwrap_or(0);
            work.operations += (2 * tokens * matrix.rows() * matrix.columns()) as u64;
            work.bytes += (matrix.bytes().len() + tokens * matrix.rows() * output_bytes) as u64;
        }
        work.bytes += inputs as u64;
        work
    }

    /// Attention: `pairs` of a query token and a key that it sees, on each of `heads` heads; `keys` key and value pairs
    /// of `key_bytes` are read on each of `kv_heads`. Queries and outputs are f32.
    pub fn attention(
        [tokens, pairs, keys]: [usize; 3],
        [heads, kv_heads, head_dim]: [usize; 3],
        key_bytes: usize,
    ) -> Work {
        Work {
            operations: (4 * pairs * heads * head_dim) as u64,
            bytes: (8 * tokens * heads * head_dim + keys * kv_heads * key_bytes) as u64,
        }
    }
}

/// What an op took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// How often it ran.
    pub calls: u64,
    /// Time on the calling thread.
    pub nanoseconds: u64,
    /// See [`Work`].
    pub operations: u64,
    /// See [`Work`].
    pub bytes: u64,
}

impl Entry {
    fn add(&mut self, other: &Entry) {
        self.calls += other.calls;
        self.nanoseconds += other.nanoseconds;
        self.operations += other.operations;
        self.bytes += other.bytes;
    }
}

/// The sums over all calls since it was switched on.
#[derive(Debug)]
pub struct Profile {
    layers: usize,
    /// `[op][layer]`; ops outside of the layers use the first place.
    entries: Vec<Entry>,
    calls: u64,
    tokens: u64,
    nanoseconds: u64,
    /// Layer and time of the last mark.
    layer: usize,
    last: Instant,
}

impl Profile {
    fn new(layers: usize) -> Result<Profile> {
        let count = Op::ALL.len() * layers.max(1);
        let mut entries = room(count)?;
        entries.resize(count, Entry::default());
        Ok(Profile {
            layers,
            entries,
            calls: 0,
            tokens: 0,
            nanoseconds: 0,
            layer: 0,
            last: Instant::now(),
        })
    }

    /// A copy, with what it holds now.
    pub fn try_clone(&self) -> Result<Profile> {
        let mut entries = room(self.entries.len())?;
        entries.extend_from_slice(&self.entries);
        Ok(Profile { entries, ..*self })
    }

    /// Layers of the model.
    pub fn layers(&self) -> usize {
        self.layers
    }

    /// Calls that were profiled.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Their tokens.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Their time from beginning to end.
    pub fn nanoseconds(&self) -> u64 {
        self.nanoseconds
    }

    /// What an op took in one layer. Ops outside of the layers took nothing there.
    pub fn in_layer(&self, op: Op, layer: usize) -> Entry {
        match op.is_in_layers() && layer < self.layers {
            true => self.entries[self.place(op, layer)],
            false => Entry::default(),
        }
    }

    /// What an op took in all layers, or outside of them.
    pub fn total(&self, op: Op) -> Entry {
        let width = self.layers.max(1);
        let mut total = Entry::default();
        for entry in &self.entries[op as usize * width..][..width] {
            total.add(entry);
        }
        total
    }

    fn place(&self, op: Op, layer: usize) -> usize {
        op as usize * self.layers.max(1) + if op.is_in_layers() { layer } else { 0 }
    }

    /// Adds the time since the last mark to `op`.
    fn mark(&mut self, op: Op, work: Work) {
        let now = Instant::now();
        let nanoseconds = now.duration_since(self.last).as_nanos() as u64;
        self.last = now;
        let place = self.place(op, self.layer);
        if let Some(entry) = self.entries.get_mut(place) {
            entry.add(&Entry {
                calls: 1,
                nanoseconds,
                operations: work.operations,
                bytes: work.bytes,
            });
        }
    }

    /// The profile as a table of text: a row for each op that ran, their sum, and the time of the calls. With
    /// `by_layer` a row for each layer of each op follows.
    pub fn table(&self, by_layer: bool) -> String {
        let mut text = format!(
            "{:<18} {:>5} {:>9} {:>11} {:>7} {:>11} {:>9} {:>11} {:>8}\n",
            "op", "layer", "calls", "ms", "%", "Gop", "Gop/s", "MB", "GB/s"
        );
        let mut sum = Entry::default();
        for op in Op::ALL {
            sum.add(&self.total(op));
            self.write_row(&mut text, op.name(), "", &self.total(op));
        }
        self.write_row(&mut text, "sum", "", &sum);
        let calls = Entry {
            calls: self.calls,
            nanoseconds: self.nanoseconds,
            ..sum
        };
        self.write_row(&mut text, "calls", "", &calls);
        for op in Op::ALL.into_iter().filter(|op| by_layer && op.is_in_layers()) {
            for layer in 0..self.layers {
                let entry = self.in_layer(op, layer);
                self.write_row(&mut text, op.name(), &layer.to_string(), &entry);
            }
        }
        text
    }

    fn write_row(&self, text: &mut String, name: &str, layer: &str, entry: &Entry) {
        if entry.calls == 0 {
            return;
        }
        let nanoseconds = (entry.nanoseconds as f64).max(1.0);
        let (operations, bytes) = (entry.operations as f64, entry.bytes as f64);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<18} {layer:>5} {:>9} {:>11.3} {:>7.2} {:>11.3} {:>9.1} {:>11.2} {:>8.2}",
            entry.calls,
            nanoseconds / 1e6,
            100.0 * nanoseconds / (self.nanoseconds as f64).max(1.0),
            operations / 1e9,
            operations / nanoseconds,
            bytes / 1e6,
            bytes / nanoseconds
        );
    }
}

fn room(count: usize) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    entries
        .try_reserve_exact(count)
        .map_err(|_| Error::no_memory("cannot allocate a profile"))?;
    Ok(entries)
}

/// A place for a profile, which is there when it is switched on.
#[derive(Debug, Default)]
pub struct Profiler(Option<Box<Profile>>);

impl Profiler {
    /// Starts a new profile of a model of `layers` layers.
    pub fn switch_on(&mut self, layers: usize) -> Result<()> {
        self.0 = Some(Box::new(Profile::new(layers)?));
        Ok(())
    }

    /// Stops, and forgets the profile.
    pub fn switch_off(&mut self) {
        self.0 = None;
    }

    /// The profile so far.
    pub fn profile(&self) -> Option<&Profile> {
        self.0.as_deref()
    }

    /// A call begins: [`Profiler::end`] takes the result.
    pub fn begin(&mut self) -> Option<Instant> {
        self.0.as_mut().map(|profile| {
            profile.last = Instant::now();
            profile.last
        })
    }

    /// A call of `tokens` tokens ends.
    pub fn end(&mut self, begun: Option<Instant>, tokens: usize) {
        if let (Some(profile), Some(begun)) = (&mut self.0, begun) {
            profile.calls += 1;
            profile.tokens += tokens as u64;
            profile.nanoseconds += begun.elapsed().as_nanos() as u64;
        }
    }

    /// A step outside of a call ended, which began at `begun`; its time counts as that of calls, too.
    pub fn step(&mut self, begun: Option<Instant>, op: Op) {
        if let (Some(profile), Some(begun)) = (&mut self.0, begun) {
            profile.last = begun;
            profile.mark(op, Work::default());
            profile.nanoseconds += begun.elapsed().as_nanos() as u64;
        }
    }

    /// What a pass notes its steps with. Time before now belongs to no op.
    pub fn recorder(&mut self) -> Recorder<'_> {
        self.begin();
        Recorder(self.0.as_deref_mut())
    }
}

/// Notes the steps of a pass, or nothing when profiling is off.
#[derive(Default)]
pub struct Recorder<'a>(Option<&'a mut Profile>);

impl Recorder<'_> {
    /// The same recorder for a shorter time.
    pub fn reborrow(&mut self) -> Recorder<'_> {
        Recorder(self.0.as_deref_mut())
    }

    /// The steps that follow belong to this layer.
    #[inline]
    pub fn layer(&mut self, layer: usize) {
        if let Some(profile) = &mut self.0 {
            profile.layer = layer;
        }
    }

    /// A step ended.
    #[inline]
    pub fn mark(&mut self, op: Op, work: impl FnOnce() -> Work) {
        if let Some(profile) = &mut self.0 {
            profile.mark(op, work());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn numbers_are_places() {
        for (place, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, place);
            assert!(!op.name().is_empty());
            let same = Op::ALL.into_iter().filter(|other| other.name() == op.name());
            assert_eq!(same.count(), 1);
        }
    }

    #[test]
    fn marks_add_up() {
        let mut profiler = Profiler::default();
        assert!(profiler.begin().is_none());
        profiler
            .recorder()
            .mark(Op::Qkv, || unreachable!("profiling is off"));
        profiler.switch_on(3).unwrap();
        let work = || Work::values(10, 2, 4);
        let begun = profiler.begin();
        let mut recorder = profiler.recorder();
        recorder.mark(Op::Embedding, work);
        for layer in 0..3 {
            recorder.layer(layer);
            std::thread::sleep(Duration::from_millis(2));
            recorder.mark(Op::Qkv, work);
        }
        recorder.mark(Op::Head, work);
        profiler.end(begun, 5);
        let profile = profiler.profile().unwrap();
        assert_eq!((profile.calls(), profile.tokens(), profile.layers()), (1, 5, 3));
        let total = profile.total(Op::Qkv);
        assert_eq!((total.calls, total.operations, total.bytes), (3, 60, 120));
        assert!(total.nanoseconds >= 6_000_000);
        assert_eq!(profile.in_layer(Op::Qkv, 1).calls, 1);
        assert_eq!(profile.in_layer(Op::Qkv, 3), Entry::default());
        assert_eq!(profile.in_layer(Op::Head, 0), Entry::default());
        assert_eq!(profile.total(Op::Head).calls, 1);
        let sum: u64 = Op::ALL.iter().map(|&op| profile.total(op).nanoseconds).sum();
        assert!(sum <= profile.nanoseconds() && sum * 100 >= profile.nanoseconds() * 95);

        let table = profile.table(false);
        let rows: Vec<&str> = table.lines().filter_map(|line| line.split(' ').next()).collect();
        assert_eq!(rows, ["op", "embedding", "qkv", "head", "sum", "calls"]);
        assert_eq!(profile.table(true).lines().count(), 6 + 3);
        profiler.switch_off();
        assert!(profiler.profile().is_none());
    }
}
