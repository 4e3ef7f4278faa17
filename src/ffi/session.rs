//! ------------------------------------------------------------------------------------------------
//! Session: sequences and forward passes
//! ------------------------------------------------------------------------------------------------
//!
//! A session holds up to max_sequences sequences of tokens with their keys and values. mantle_forward
//! appends tokens to sequences and computes their logits: the scores of the token that follows. After the
//! first call it takes no memory any more.

use super::arena::{self, Block, mantle_arena};
use super::boundary::{self, call};
use super::cancel::{self, mantle_cancel};
use super::dtype::{MANTLE_DTYPE_F16, mantle_dtype};
use super::handle::{self, Handle, Opaque};
use super::model::mantle_model;
use super::runtime::mantle_memory;
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use super::tokenizer::{self, mantle_token};
use crate::base::error::{Error, Result};
use crate::format::dtype::DataType;
use crate::model::session::{Entries, Session, SessionMemory, SessionOptions, Want};
use std::sync::Arc;

/// Sequences of one model in one piece of memory. Serves one thread at a time; several sessions of one model
/// may be used on several threads.
pub struct mantle_session {
    handle: Handle<Opened>,
}

/// What a session handle holds.
pub struct Opened {
    pub(super) session: Session,
    /// The arena that the session lives in; dropped after it.
    _block: Option<Arc<Block>>,
}

impl Opaque for mantle_session {
    type Value = Opened;
    const NAME: &'static str = "session";
    fn handle(&self) -> &Handle<Opened> {
        &self.handle
    }
}

/// Compute no logits: faster, when only the sequence matters.
pub const MANTLE_LOGITS_NONE: i32 = 0;
/// Logits of the last token of each sequence of the call: row i belongs to the i-th sequence.
pub const MANTLE_LOGITS_LAST: i32 = 1;
/// Logits of every token of the call: row i belongs to tokens[i].
pub const MANTLE_LOGITS_ALL: i32 = 2;

/// How large a session is. Set the defaults with mantle_session_options_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_session_options {
    /// sizeof(mantle_session_options).
    pub struct_size: usize,
    /// Most tokens of a sequence, at most what the model was trained for; 0 (default) for that, but not more
    /// than 4096.
    pub max_context: u32,
    /// Most tokens that one forward pass computes together; 0 (default) for 512. Longer calls are computed in
    /// parts, with the same results. More is faster for long prompts and takes more scratch.
    pub max_batch_tokens: u32,
    /// Most sequences; 0 (default) for 1. They are numbered from 0.
    pub max_sequences: u32,
    /// Most rows of logits that one call gives; 0 (default) for one per sequence. MANTLE_LOGITS_ALL needs one
    /// per token of the call.
    pub max_logits: u32,
    /// How keys are stored: MANTLE_DTYPE_F16 (default) or MANTLE_DTYPE_F32.
    pub key_type: mantle_dtype,
    /// How values are stored: as keys.
    pub value_type: mantle_dtype,
    /// No flags exist yet: 0.
    pub flags: u32,
    /// 0.
    pub reserved: u32,
    /// Most bytes that the session may take; 0 (default) for no limit.
    pub memory_limit: u64,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_session_options {
    const NAME: &'static str = "mantle_session_options";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_session_options {
            struct_size: size_of::<Self>(),
            max_context: 0,
            max_batch_tokens: 0,
            max_sequences: 0,
            max_logits: 0,
            key_type: MANTLE_DTYPE_F16,
            value_type: MANTLE_DTYPE_F16,
            flags: 0,
            reserved: 0,
            memory_limit: 0,
        }
    }
}

/// Sets `options` to the defaults. `size` is sizeof(mantle_session_options). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_session_options_init(
    options: *mut mantle_session_options,
    size: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    // SAFETY: the caller's pointers, checked for NULL.
    unsafe { call(error, || structure::initialize(options, size)) }
}

/// Tells how much memory a session with these options takes, exactly: `cache`, `scratch` and their `total`,
/// which is the size that its arena needs. Nothing is allocated. `options` may be NULL for the defaults.
/// Any thread.
/// Errors: INVALID_ARGUMENT (an option out of range), UNSUPPORTED (a type that keys and values cannot have).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_session_bytes(
    model: *const mantle_model,
    options: *const mantle_session_options,
    memory: *mut mantle_memory,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL, or as large as its struct_size says.
        let options = checked(&unsafe { structure::read(options)? })?;
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let memory = unsafe { structure::output(memory)? };
        memory.write(memory_of(&Session::bytes(&model.model, &options)?));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Makes a session. `options` may be NULL for the defaults. `arena` is the memory that it lives in until it is
/// freed; NULL takes as much as is needed from the runtime's allocator. Free it with mantle_session_free. Any
/// thread.
/// Errors: as mantle_session_bytes; NO_MEMORY (the arena or the memory limit is too small: the message tells
/// what is needed), BUSY (the arena holds another session).
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_session_new(
    model: *const mantle_model,
    options: *const mantle_session_options,
    arena: *const mantle_arena,
    out: *mut *mut mantle_session,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL, or as large as its struct_size says.
        let options = checked(&unsafe { structure::read(options)? })?;
        let block = if arena.is_null() {
            None
        } else {
            // SAFETY: a living object, as the header demands.
            Some(Arc::clone(&*unsafe { handle::shared(arena)? }))
        };
        let buffer = block.as_ref().map(arena::lend).transpose()?;
        let session = Session::new(&model.model, &options, buffer)?;
        if let Some(block) = &block {
            arena::note_use(block, session.memory().total);
        }
        let handle = Handle::new(Opened {
            session,
            _block: block,
        });
        *out = handle::into_raw(mantle_session { handle });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how much memory the session holds: `cache`, `scratch` and their `total`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_session_memory(
    session: *const mantle_session,
    memory: *mut mantle_memory,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let session = unsafe { handle::shared(session)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let memory = unsafe { structure::output(memory)? };
        memory.write(memory_of(&session.session.memory()));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Frees the session; the arena it lived in is free for another one. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_session_free(session: *mut mantle_session) {
    // SAFETY: NULL or a living object that nobody uses afterwards, as the header demands.
    boundary::quietly(|| unsafe { handle::free(session) });
}

/// Appends tokens to `count` sequences and computes them. Sequence sequences[i] gets the tokens
/// tokens[offsets[i]] up to tokens[offsets[i + 1]], at least one; offsets has count + 1 numbers, begins with 0
/// and never falls. No sequence may stand twice. `logits` is one of MANTLE_LOGITS_*; read the result with
/// mantle_logits. `cancel` may be NULL. One thread per session.
/// The logits of a sequence are the same bits whatever else is in the call, however its tokens are divided
/// over calls, and with any number of threads.
/// Errors: INVALID_ARGUMENT (a sequence, offset or token id out of range, more logits than max_logits), CONTEXT_FULL (a sequence would
/// get longer than max_context), CANCELLED, BUSY. The sequences of the call are then as before it, and no
/// logits are left.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_forward(
    session: *mut mantle_session,
    sequences: *const i32,
    tokens: *const mantle_token,
    offsets: *const usize,
    count: usize,
    logits: i32,
    cancel: *const mantle_cancel,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let mut session = unsafe { handle::exclusive(session)? };
        if count == 0 {
            return Err(Error::invalid("count is 0, expected at least one sequence"));
        }
        // SAFETY: NULL is refused; otherwise as many numbers as the caller says.
        let sequences = unsafe { boundary::slice(sequences, count, "sequences")? };
        // SAFETY: as above.
        let offsets = unsafe { boundary::offsets(offsets, count)? };
        let total = offsets.last().copied().unwrap_or_default();
        // SAFETY: as above: the last offset tells how many tokens there are.
        let tokens = unsafe { tokenizer::ids(tokens, total, "tokens")? };
        let want = want_of(logits)?;
        // SAFETY: NULL or a living object, as the header demands.
        let cancel = unsafe { cancel::optional(cancel) };
        let entries = Entries {
            sequences,
            tokens,
            offsets,
        };
        session.session.forward(&entries, want, cancel.as_ref())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how many rows of logits the last mantle_forward left. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_logits_rows(
    session: *const mantle_session,
    rows: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let session = unsafe { handle::shared(session)? };
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let rows = unsafe { boundary::output(rows, "rows")? };
        rows.write(session.session.rows());
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Gives a row of logits of the last mantle_forward: `size` numbers at `logits`, one per token of the
/// vocabulary, borrowed from the session until the next call that changes it. Any thread.
/// Errors: INVALID_ARGUMENT (no such row, or no logits were asked for), BUSY (a call is changing the session).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_logits(
    session: *const mantle_session,
    row: usize,
    logits: *mut *const f32,
    size: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let session = unsafe { handle::shared(session)? };
        // SAFETY: NULL is refused; otherwise the caller's pointers may be written.
        let (logits, size) = unsafe {
            (
                boundary::output(logits, "logits")?,
                boundary::output(size, "size")?,
            )
        };
        let found = session.session.logits(row)?;
        logits.write(found.as_ptr());
        size.write(found.len());
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how many tokens a sequence has. Any thread.
/// Errors: INVALID_ARGUMENT or NOT_FOUND (no such sequence), BUSY (a call is changing the session).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_sequence_length(
    session: *const mantle_session,
    sequence: i32,
    length: *mut u32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let session = unsafe { handle::shared(session)? };
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let length = unsafe { boundary::output(length, "length")? };
        length.write(session.session.sequence_length(sequence)?);
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Cuts a sequence to its first `length` tokens; 0 empties it. One thread per session.
/// Errors: INVALID_ARGUMENT or NOT_FOUND (no such sequence, or it is shorter than `length`), BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_sequence_truncate(
    session: *mut mantle_session,
    sequence: i32,
    length: u32,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let mut session = unsafe { handle::exclusive(session)? };
        session.session.truncate(sequence, length)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// The options of the library for those of the caller.
pub(super) fn checked(options: &mantle_session_options) -> Result<SessionOptions> {
    if options.flags != 0 || options.reserved != 0 {
        return Err(Error::invalid(format!(
            "flags is {} and reserved is {}, expected 0",
            options.flags, options.reserved
        )));
    }
    let dtype = |number: mantle_dtype, name: &str| {
        DataType::from_number(number.into())
            .ok_or_else(|| Error::invalid(format!("{name} is {number}, expected one of MANTLE_DTYPE_*")))
    };
    Ok(SessionOptions {
        max_context: options.max_context,
        max_batch_tokens: options.max_batch_tokens,
        max_sequences: options.max_sequences,
        max_logits: options.max_logits,
        key_type: dtype(options.key_type, "key_type")?,
        value_type: dtype(options.value_type, "value_type")?,
        memory_limit: options.memory_limit,
    })
}

fn want_of(logits: i32) -> Result<Want> {
    match logits {
        MANTLE_LOGITS_NONE => Ok(Want::None),
        MANTLE_LOGITS_LAST => Ok(Want::Last),
        MANTLE_LOGITS_ALL => Ok(Want::All),
        _ => Err(Error::invalid(format!(
            "logits is {logits}, expected one of MANTLE_LOGITS_*"
        ))),
    }
}

/// A session's memory as C sees it.
fn memory_of(memory: &SessionMemory) -> mantle_memory {
    mantle_memory {
        total: memory.total,
        peak: memory.total,
        cache: memory.kv,
        scratch: memory.scratch,
        ..mantle_memory::defaults()
    }
}
