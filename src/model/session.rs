//! A session: the key-value cache and the scratch memory of some sequences of one model. One thread at a time.

use super::config::Config;
use super::llama::Batch;
use super::model::{Model, Numbers};
use super::plan::{Buffers, Carver, Limits, carve};
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Status};
use crate::base::memory::{Buffer, cast};
use crate::format::dtype::DataType;
use crate::kernels::CACHE_TYPES;
use crate::ops::attention::{Span, Tile, cut_tiles};
use crate::ops::profile::{Profile, Profiler};
use crate::quant::activations::Form;
use std::ops::Range;
use std::sync::Arc;

/// How large a session is.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionOptions {
    /// Positions of a sequence; 0 for those that the model was trained for, at most 4096.
    pub max_context: u32,
    /// Tokens that go through the layers at once; longer calls are cut. 0 for 512.
    pub max_batch_tokens: u32,
    /// Sequences; 0 for 1.
    pub max_sequences: u32,
    /// Rows of logits that one call can give; 0 for one per sequence.
    pub max_logits: u32,
    /// Type of cached keys: F16 or F32.
    pub key_type: DataType,
    /// Type of cached values: F16 or F32.
    pub value_type: DataType,
    /// The most bytes that the session may take; 0 for no limit.
    pub memory_limit: u64,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            max_context: 0,
            max_batch_tokens: 0,
            max_sequences: 0,
            max_logits: 0,
            key_type: DataType::F16,
            value_type: DataType::F16,
            memory_limit: 0,
        }
    }
}

/// Memory of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionMemory {
    /// Key-value cache.
    pub kv: u64,
    /// Everything else.
    pub scratch: u64,
    /// Both: the bytes of the arena.
    pub total: u64,
}

/// Which rows of logits a call writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Want {
    /// None.
    None = 0,
    /// One row for each sequence of the call: that of its last token.
    Last = 1,
    /// One row for each token of the call.
    All = 2,
}

/// Tokens to append: those of entry i are `tokens[offsets[i]..offsets[i + 1]]`, appended to sequence `sequences[i]`.
#[derive(Clone, Copy, Debug)]
pub struct Entries<'a> {
    /// A number below the session's sequences, each at most once.
    pub sequences: &'a [i32],
    /// Token ids.
    pub tokens: &'a [u32],
    /// One more than there are entries, from 0 up to the number of tokens.
    pub offsets: &'a [usize],
}

/// A session of a model.
pub struct Session {
    model: Arc<Model>,
    limits: Limits,
    arena: Buffer,
    /// Where the logits lie in the arena, in bytes.
    logits: Range<usize>,
    memory: SessionMemory,
    lengths: Vec<usize>,
    rows: usize,
    lists: Lists,
    profiler: Profiler,
}

/// Lists of one pass through the layers, with room for the largest.
struct Lists {
    tokens: Vec<u32>,
    positions: Vec<u32>,
    spans: Vec<Span>,
    tiles: Vec<Tile>,
    starts: Vec<usize>,
    wanted: Vec<u32>,
}

impl Session {
    /// The bytes that a session needs, computed before anything is allocated.
    pub fn bytes(model: &Model, options: &SessionOptions) -> Result<SessionMemory> {
        let limits = read_options(model.decoder()?.config(), options, model.runtime().threads())?;
        measure(model.llama().config(), &limits, model.llama().widest_form())
    }

    /// Like [`Session::bytes`], for a model that is not loaded: an upper bound.
    pub fn bytes_for(numbers: &Numbers, options: &SessionOptions, threads: usize) -> Result<SessionMemory> {
        match numbers {
            Numbers::Decoder(config) => measure(config, &read_options(config, options, threads)?, Form::F32),
            Numbers::Encoder(_) => Err(Error::unsupported(
                "the model is an encoder: it has no sequences, but gives embeddings",
            )),
        }
    }

    /// A session in `arena`, or in memory of its own.
    pub fn new(model: &Arc<Model>, options: &SessionOptions, arena: Option<Buffer>) -> Result<Session> {
        let limits = read_options(model.decoder()?.config(), options, model.runtime().threads())?;
        let memory = Session::bytes(model, options)?;
        if options.memory_limit > 0 && memory.total > options.memory_limit {
            return Err(Error::no_memory(format!(
                "the session needs {} bytes, more than its memory limit of {}",
                memory.total, options.memory_limit
            )));
        }
        let needed =
            usize::try_from(memory.total).map_err(|_| Error::no_memory("the session is too large"))?;
        let arena = match arena {
            Some(arena) if arena.bytes().len() < needed => {
                return Err(Error::no_memory(format!(
                    "the arena has {} bytes; the session needs {needed}",
                    arena.bytes().len()
                )));
            }
            Some(arena) => arena,
            None => model.runtime().allocator().buffer(needed)?,
        };
        let mut session = Session {
            model: model.clone(),
            limits,
            arena,
            logits: 0..0,
            memory,
            lengths: filled(limits.sequences, 0)?,
            rows: 0,
            lists: Lists {
                tokens: filled(limits.tokens, 0)?,
                positions: filled(limits.tokens, 0)?,
                spans: with_room(limits.tokens)?,
                tiles: with_room(limits.tokens)?,
                starts: with_room(limits.tokens)?,
                wanted: with_room(limits.tokens)?,
            },
            profiler: Profiler::default(),
        };
        session.fill_rope_tables()?;
        session.find_logits()?;
        Ok(session)
    }

    fn buffers(&mut self) -> Result<Buffers<'_>> {
        let llama = self.model.llama();
        carve(
            &mut Carver::cutting(self.arena.bytes_mut()),
            llama.config(),
            &self.limits,
            llama.widest_form(),
        )
    }

    fn find_logits(&mut self) -> Result<()> {
        let arena = self.arena.bytes().as_ptr().addr();
        let logits = self.buffers()?.logits.as_ptr_range();
        self.logits = logits.start.addr() - arena..logits.end.addr() - arena;
        Ok(())
    }

    /// cos and sin of every position, in f64 by a library whose results do not depend on the system.
    fn fill_rope_tables(&mut self) -> Result<()> {
        let model = self.model.clone();
        let context = self.limits.context;
        let buffers = self.buffers()?;
        let tables = buffers.cosine.into_iter().zip(buffers.sine);
        for (rope, (cosine, sine)) in model.llama().config().ropes.iter().zip(tables) {
            let (frequencies, magnitude) = rope.frequencies();
            let half = frequencies.len();
            for (i, frequency) in frequencies.into_iter().enumerate() {
                for position in 0..context {
                    let angle = position as f64 / f64::from(rope.scale) * frequency;
                    cosine[position * half + i] = (magnitude * libm::cos(angle)) as f32;
                    sine[position * half + i] = (magnitude * libm::sin(angle)) as f32;
                }
            }
        }
        Ok(())
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Positions of a sequence.
    pub fn context(&self) -> usize {
        self.limits.context
    }

    /// Tokens that go through the layers at once.
    pub fn batch_tokens(&self) -> usize {
        self.limits.tokens
    }

    /// The memory that the session holds.
    pub fn memory(&self) -> SessionMemory {
        self.memory
    }

    /// Appends tokens to sequences and computes the logits that are wanted.
    ///
    /// Everything is checked before any work: after [`Status::InvalidArgument`] or [`Status::ContextFull`] nothing has
    /// changed. After [`Status::Cancelled`] the tokens of finished passes are in their sequences.
    pub fn forward(&mut self, entries: &Entries<'_>, want: Want, cancel: Option<&Cancel>) -> Result<()> {
        let begun = self.profiler.begin();
        let result = self.run(entries, want, cancel);
        self.profiler.end(begun, entries.tokens.len());
        result
    }

    /// Profiles the calls from now on, from zero; or stops, and forgets the profile.
    pub fn set_profiling(&mut self, on: bool) -> Result<()> {
        if on {
            return self.profiler.switch_on(self.model.llama().config().layers);
        }
        self.profiler.switch_off();
        Ok(())
    }

    /// Where the time of the calls went; `None` when profiling is off.
    pub fn profile(&self) -> Option<&Profile> {
        self.profiler.profile()
    }

    fn run(&mut self, entries: &Entries<'_>, want: Want, cancel: Option<&Cancel>) -> Result<()> {
        self.check(entries, want)?;
        self.rows = 0;
        let mut cursor = (0, 0);
        let mut logits = 0;
        while cursor.0 < entries.sequences.len() {
            let next = self.fill_lists(entries, cursor, want);
            if let Err(error) = self.pass(logits, cancel) {
                self.undo(entries, cursor);
                return Err(error);
            }
            for span in &self.lists.spans {
                self.lengths[span.sequence] += span.tokens;
            }
            logits += self.lists.wanted.len();
            cursor = next;
        }
        self.rows = logits;
        Ok(())
    }

    /// One pass of the tokens in the lists through all layers.
    /// Takes back what the passes of this call before `cursor` appended.
    fn undo(&mut self, entries: &Entries<'_>, cursor: (usize, usize)) {
        for (entry, &sequence) in entries.sequences.iter().enumerate().take(cursor.0 + 1) {
            let appended = if entry < cursor.0 {
                entries.offsets[entry + 1] - entries.offsets[entry]
            } else {
                cursor.1
            };
            self.lengths[sequence as usize] -= appended;
        }
    }

    fn pass(&mut self, logits: usize, cancel: Option<&Cancel>) -> Result<()> {
        let llama = self.model.llama();
        let arena = &mut Carver::cutting(self.arena.bytes_mut());
        let mut buffers = carve(arena, llama.config(), &self.limits, llama.widest_form())?;
        buffers.recorder = self.profiler.recorder();
        let batch = Batch {
            tokens: &self.lists.tokens,
            positions: &self.lists.positions,
            spans: &self.lists.spans,
            tiles: &self.lists.tiles,
            starts: &self.lists.starts,
            wanted: &self.lists.wanted,
            logits,
        };
        llama.forward(self.model.runtime(), &batch, &self.limits, &mut buffers, cancel)
    }

    /// Takes as many tokens as go through the layers at once, from (entry, token of it) on; returns where to go on.
    fn fill_lists(&mut self, entries: &Entries<'_>, start: (usize, usize), want: Want) -> (usize, usize) {
        let lists = &mut self.lists;
        lists.tokens.clear();
        lists.positions.clear();
        lists.spans.clear();
        lists.wanted.clear();
        let (mut entry, mut token) = start;
        while entry < entries.sequences.len() && lists.tokens.len() < self.limits.tokens {
            let all = &entries.tokens[entries.offsets[entry]..entries.offsets[entry + 1]];
            let count = (all.len() - token).min(self.limits.tokens - lists.tokens.len());
            let sequence = entries.sequences[entry] as usize;
            let (row, position) = (lists.tokens.len(), self.lengths[sequence]);
            lists.tokens.extend_from_slice(&all[token..token + count]);
            lists
                .positions
                .extend((position..position + count).map(|position| position as u32));
            if count > 0 {
                lists.spans.push(Span {
                    sequence,
                    position,
                    row,
                    tokens: count,
                });
            }
            token += count;
            match want {
                Want::All => lists.wanted.extend((row..row + count).map(|row| row as u32)),
                Want::Last if token == all.len() && count > 0 => lists.wanted.push((row + count - 1) as u32),
                _ => {}
            }
            if token == all.len() {
                (entry, token) = (entry + 1, 0);
            }
        }
        cut_tiles(
            &lists.spans,
            self.model.llama().config().group(),
            &mut lists.tiles,
            &mut lists.starts,
        );
        (entry, token)
    }

    fn check(&self, entries: &Entries<'_>, want: Want) -> Result<()> {
        let Entries {
            sequences,
            tokens,
            offsets,
        } = *entries;
        if offsets.len() != sequences.len() + 1
            || offsets.first() != Some(&0)
            || offsets.last() != Some(&tokens.len())
        {
            return Err(Error::invalid(format!(
                "{} offsets for {} sequences and {} tokens; expected one more than sequences, from 0 to the number of tokens",
                offsets.len(),
                sequences.len(),
                tokens.len()
            )));
        }
        for (entry, &sequence) in sequences.iter().enumerate() {
            let known = usize::try_from(sequence)
                .ok()
                .filter(|&sequence| sequence < self.lengths.len());
            let known = known.ok_or_else(|| {
                Error::invalid(format!(
                    "entry {entry}: sequence {sequence} is not one of 0 to {}",
                    self.lengths.len() - 1
                ))
            })?;
            if sequences[..entry].contains(&sequence) {
                return Err(Error::invalid(format!(
                    "entry {entry}: sequence {sequence} occurs twice in one call"
                )));
            }
            if offsets[entry] > offsets[entry + 1] || offsets[entry + 1] > tokens.len() {
                return Err(Error::invalid(format!(
                    "offsets go from {} to {} at entry {entry}",
                    offsets[entry],
                    offsets[entry + 1]
                )));
            }
            let count = offsets[entry + 1] - offsets[entry];
            if count == 0 {
                return Err(Error::invalid(format!(
                    "entry {entry}: no token for sequence {sequence}"
                )));
            }
            let length = self.lengths[known];
            if count > self.limits.context - length {
                return Err(Error::new(
                    Status::ContextFull,
                    format!(
                        "sequence {sequence} holds {length} tokens; {count} more do not fit into the session's context of {}",
                        self.limits.context
                    ),
                ));
            }
        }
        let vocabulary = self.model.llama().config().vocabulary;
        if let Some(index) = tokens.iter().position(|&token| token as usize >= vocabulary) {
            return Err(Error::invalid(format!(
                "token {index} is {}, outside of the vocabulary of {vocabulary}",
                tokens[index] as i32
            )));
        }
        let rows = match want {
            Want::None => 0,
            Want::Last => sequences.len(),
            Want::All => tokens.len(),
        };
        if rows > self.limits.rows {
            return Err(Error::invalid(format!(
                "{rows} rows of logits are wanted; the session was made for {} (option max_logits)",
                self.limits.rows
            )));
        }
        Ok(())
    }

    /// Rows of logits that the last call wrote: in the order of its entries, or of its tokens.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// One row of logits of the last call.
    pub fn logits(&self, row: usize) -> Result<&[f32]> {
        if row >= self.rows {
            return Err(Error::invalid(format!(
                "row {row} of logits; the last call wrote {}",
                self.rows
            )));
        }
        let vocabulary = self.model.llama().config().vocabulary;
        let logits = self.arena.bytes().get(self.logits.clone()).and_then(cast::<f32>);
        logits
            .and_then(|logits| logits.get(2 * row * vocabulary..(2 * row + 1) * vocabulary))
            .ok_or_else(|| Error::new(Status::Panic, "the logits do not lie in the session's memory"))
    }

    /// Tokens that a sequence holds.
    pub fn sequence_length(&self, sequence: i32) -> Result<u32> {
        Ok(self.lengths[self.sequence(sequence)?] as u32)
    }

    /// Forgets the tokens of a sequence from `length` on.
    pub fn truncate(&mut self, sequence: i32, length: u32) -> Result<()> {
        let index = self.sequence(sequence)?;
        if length as usize > self.lengths[index] {
            return Err(Error::invalid(format!(
                "sequence {sequence} holds {} tokens; it cannot be cut to {length}",
                self.lengths[index]
            )));
        }
        self.lengths[index] = length as usize;
        Ok(())
    }

    fn sequence(&self, sequence: i32) -> Result<usize> {
        let index = usize::try_from(sequence)
            .ok()
            .filter(|&index| index < self.lengths.len());
        index.ok_or_else(|| {
            Error::invalid(format!(
                "sequence {sequence} is not one of 0 to {}",
                self.lengths.len() - 1
            ))
        })
    }
}

/// Larger batches and more sequences are mistakes; the bound keeps the lists of a session small.
const MOST_TOKENS: u32 = 1 << 16;

fn read_options(config: &Config, options: &SessionOptions, threads: usize) -> Result<Limits> {
    let or = |value: u32, default: usize| if value == 0 { default } else { value as usize };
    for (name, value) in [
        ("max_batch_tokens", options.max_batch_tokens),
        ("max_sequences", options.max_sequences),
        ("max_logits", options.max_logits),
    ] {
        if value > MOST_TOKENS {
            return Err(Error::invalid(format!(
                "{name} is {value}; at most {MOST_TOKENS} is possible"
            )));
        }
    }
    let context = or(options.max_context, config.context.min(4096));
    if context > config.context {
        return Err(Error::invalid(format!(
            "max_context is {context}; the model was trained for {} positions",
            config.context
        )));
    }
    for (name, dtype) in [("key_type", options.key_type), ("value_type", options.value_type)] {
        if !CACHE_TYPES.contains(&dtype) {
            return Err(Error::unsupported(format!(
                "{name} is {}; the cache can be F16 or F32",
                dtype.name()
            )));
        }
    }
    let sequences = or(options.max_sequences, 1);
    Ok(Limits {
        context,
        tokens: or(options.max_batch_tokens, 512),
        sequences,
        rows: or(options.max_logits, sequences),
        key_type: options.key_type,
        value_type: options.value_type,
        threads,
    })
}

fn measure(config: &Config, limits: &Limits, form: Form) -> Result<SessionMemory> {
    let mut carver = Carver::counting();
    carve(&mut carver, config, limits, form)?;
    let slabs = config.layers * config.kv_heads * limits.sequences;
    let kv = (slabs * (limits.key_bytes(config) + limits.value_bytes(config))) as u64;
    let total = carver.used() as u64;
    Ok(SessionMemory {
        kv,
        scratch: total - kv,
        total,
    })
}

fn with_room<T>(count: usize) -> Result<Vec<T>> {
    let mut list = Vec::new();
    list.try_reserve_exact(count)
        .map_err(|_| Error::no_memory(format!("cannot allocate a list of {count}")))?;
    Ok(list)
}

fn filled<T: Clone>(count: usize, value: T) -> Result<Vec<T>> {
    let mut list = with_room(count)?;
    list.resize(count, value);
    Ok(list)
}
