//! ------------------------------------------------------------------------------------------------
//! Profile: where the time goes
//! ------------------------------------------------------------------------------------------------
//!
//! A session or an embedder can note how often each op of its calls runs, how long it takes, how much it computes
//! and how much memory it moves, per layer. Off by default, at the cost of one branch per op; while it is on, the
//! clock is read once per op and nothing is allocated. The times are those of the calling thread, which waits for
//! the others, so the ops add up to the time of the calls but for a few percent. A profile is a copy: the numbers
//! up to the moment it was taken.

use super::boundary::{self, call};
use super::embed::mantle_embedder;
use super::handle::{self, Handle, Opaque};
use super::session::mantle_session;
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use crate::base::error::{Error, Result, Status};
use crate::ops::profile::{Entry, Op, Profile};
use std::ffi::c_char;

/// Texts to token ids, in mantle_embed_texts.
pub const MANTLE_OP_TOKENIZATION: i32 = 0;
/// Rows of the embedding tables.
pub const MANTLE_OP_EMBEDDING: i32 = 1;
/// The norm before attention (in BERT: behind the layer before), and quantization for the next product.
pub const MANTLE_OP_ATTENTION_NORM: i32 = 2;
/// Products with the weights of queries, keys and values.
pub const MANTLE_OP_QKV: i32 = 3;
/// Norms of queries and keys and rotary positions; in encoders also the copy of keys and values.
pub const MANTLE_OP_ROPE: i32 = 4;
/// Writing keys and values into the cache.
pub const MANTLE_OP_CACHE_STORE: i32 = 5;
/// Scores, softmax, and the weighted sum of values.
pub const MANTLE_OP_ATTENTION: i32 = 6;
/// Quantization of what attention gave.
pub const MANTLE_OP_QUANTIZE: i32 = 7;
/// Product with the output weights of attention.
pub const MANTLE_OP_ATTENTION_OUTPUT: i32 = 8;
/// The norm before the feed-forward network (in BERT: behind attention), and quantization for the next product.
pub const MANTLE_OP_FEED_FORWARD_NORM: i32 = 9;
/// Products with the gate and up weights, the activation function, and quantization of the hidden values.
pub const MANTLE_OP_GATE_UP: i32 = 10;
/// Product with the down weights.
pub const MANTLE_OP_DOWN: i32 = 11;
/// The norm behind the last layer.
pub const MANTLE_OP_OUTPUT_NORM: i32 = 12;
/// The output head with its norm, for the tokens whose logits are wanted.
pub const MANTLE_OP_HEAD: i32 = 13;
/// Token vectors to one vector per document.
pub const MANTLE_OP_POOLING: i32 = 14;
/// Dense layers behind pooling.
pub const MANTLE_OP_DENSE: i32 = 15;
/// Embeddings to length 1, and their copy to the caller.
pub const MANTLE_OP_NORMALIZE: i32 = 16;

/// For `layer`: all layers together, and ops outside of the layers.
pub const MANTLE_ALL_LAYERS: i32 = -1;

/// Where the time of some calls went. Never changes.
pub struct mantle_profile {
    handle: Handle<Profile>,
}

impl Opaque for mantle_profile {
    type Value = Profile;
    const NAME: &'static str = "profile";
    fn handle(&self) -> &Handle<Profile> {
        &self.handle
    }
}

/// What a profile covers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_profile_info {
    /// sizeof(mantle_profile_info), set by the caller.
    pub struct_size: usize,
    /// Ops that this library knows: their numbers are below.
    pub ops: u32,
    /// Layers of the model.
    pub layers: u32,
    /// Calls: mantle_forward, one for each pass of mantle_generate, mantle_embed_texts, mantle_embed_tokens.
    pub calls: u64,
    /// Tokens of these calls.
    pub tokens: u64,
    /// Nanoseconds of these calls from beginning to end.
    pub nanoseconds: u64,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_profile_info {
    const NAME: &'static str = "mantle_profile_info";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_profile_info {
            struct_size: size_of::<Self>(),
            ops: 0,
            layers: 0,
            calls: 0,
            tokens: 0,
            nanoseconds: 0,
        }
    }
}

/// What an op took.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_profile_entry {
    /// sizeof(mantle_profile_entry), set by the caller.
    pub struct_size: usize,
    /// How often it ran.
    pub calls: u64,
    /// Nanoseconds on the calling thread.
    pub nanoseconds: u64,
    /// Multiplications and additions that its definition takes, a fused multiply-add counted as two: of 8-bit
    /// integers in products with quantized weights, else of floats.
    pub operations: u64,
    /// Bytes of its weights, inputs and outputs, each moved once.
    pub bytes: u64,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_profile_entry {
    const NAME: &'static str = "mantle_profile_entry";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_profile_entry {
            struct_size: size_of::<Self>(),
            calls: 0,
            nanoseconds: 0,
            operations: 0,
            bytes: 0,
        }
    }
}

/// The name of an op, such as "attention_output"; "unknown" for a number this library does not know. Closed by
/// NUL, valid for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mantle_op_name(op: i32) -> *const c_char {
    op_of(op).map_or(c"unknown", Op::c_name).as_ptr()
}

/// Switches profiling of a session's calls on, from zero, or off, which forgets the numbers. One thread per
/// session.
/// Errors: NO_MEMORY, BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_session_set_profiling(
    session: *mut mantle_session,
    on: bool,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let mut session = unsafe { handle::exclusive(session)? };
        session.session.set_profiling(on)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// As mantle_session_set_profiling, for an embedder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embedder_set_profiling(
    embedder: *mut mantle_embedder,
    on: bool,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let mut opened = unsafe { handle::exclusive(embedder)? };
        opened.embedder.set_profiling(on)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Takes the profile of a session's calls since profiling was switched on. Free it with mantle_profile_free. Any
/// thread.
/// Errors: NOT_FOUND (profiling is off), NO_MEMORY, BUSY (a call is running).
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_session_profile(
    session: *const mantle_session,
    out: *mut *mut mantle_profile,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        // SAFETY: NULL or a living object, as the header demands.
        let session = unsafe { handle::shared(session)? };
        *out = copy_of(session.session.profile(), "session")?;
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// As mantle_session_profile, for an embedder.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embedder_profile(
    embedder: *const mantle_embedder,
    out: *mut *mut mantle_profile,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        // SAFETY: NULL or a living object, as the header demands.
        let opened = unsafe { handle::shared(embedder)? };
        *out = copy_of(opened.embedder.profile(), "embedder")?;
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Frees the profile. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_profile_free(profile: *mut mantle_profile) {
    // SAFETY: NULL or a living object that nobody uses afterwards, as the header demands.
    boundary::quietly(|| unsafe { handle::free(profile) });
}

/// Tells what the profile covers. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_profile_get_info(
    profile: *const mantle_profile,
    info: *mut mantle_profile_info,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let profile = unsafe { handle::shared(profile)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let info = unsafe { structure::output(info)? };
        info.write(mantle_profile_info {
            ops: Op::ALL.len() as u32,
            layers: profile.layers() as u32,
            calls: profile.calls(),
            tokens: profile.tokens(),
            nanoseconds: profile.nanoseconds(),
            ..mantle_profile_info::defaults()
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells what `op`, MANTLE_OP_*, took in layer `layer`, or with MANTLE_ALL_LAYERS altogether. An op that did not
/// run there (such as the head in a layer) has zeros. Any thread.
/// Errors: INVALID_ARGUMENT (an unknown op, a layer that the model does not have).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_profile_get_entry(
    profile: *const mantle_profile,
    op: i32,
    layer: i32,
    entry: *mut mantle_profile_entry,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let profile = unsafe { handle::shared(profile)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let entry = unsafe { structure::output(entry)? };
        let found = entry_of(&profile, op, layer)?;
        entry.write(mantle_profile_entry {
            calls: found.calls,
            nanoseconds: found.nanoseconds,
            operations: found.operations,
            bytes: found.bytes,
            ..mantle_profile_entry::defaults()
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Writes the profile as a table: a line for each op that ran, their sum, and the calls; with `by_layer` also a
/// line for each layer of each op. `text` gets `size` bytes without a closing NUL. Any thread.
/// Errors: BUFFER_TOO_SMALL (`size` is then what is needed).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_profile_table(
    profile: *const mantle_profile,
    by_layer: bool,
    text: *mut c_char,
    capacity: usize,
    size: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let profile = unsafe { handle::shared(profile)? };
        let table = profile.table(by_layer);
        // SAFETY: NULL is refused unless the capacity is 0; otherwise the caller's pointers may be written.
        unsafe { boundary::copy_out(table.as_bytes(), text.cast(), capacity, size, "text") }
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

fn op_of(number: i32) -> Option<Op> {
    usize::try_from(number)
        .ok()
        .and_then(|place| Op::ALL.get(place))
        .copied()
}

fn entry_of(profile: &Profile, op: i32, layer: i32) -> Result<Entry> {
    let most = Op::ALL.len() - 1;
    let op = op_of(op).ok_or_else(|| Error::invalid(format!("op is {op}, expected 0 to {most}")))?;
    if layer == MANTLE_ALL_LAYERS {
        return Ok(profile.total(op));
    }
    let known = usize::try_from(layer)
        .ok()
        .filter(|&layer| layer < profile.layers());
    let layer = known.ok_or_else(|| {
        Error::invalid(format!(
            "layer is {layer}; the model has {} layers, from 0 on",
            profile.layers()
        ))
    })?;
    Ok(profile.in_layer(op, layer))
}

fn copy_of(profile: Option<&Profile>, owner: &str) -> Result<*mut mantle_profile> {
    let profile = profile.ok_or_else(|| {
        Error::new(
            Status::NotFound,
            format!("profiling of the {owner} is off: switch it on before the calls"),
        )
    })?;
    let handle = Handle::new(profile.try_clone()?);
    Ok(handle::into_raw(mantle_profile { handle }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn every_op_has_its_number_and_name_in_c() {
        for op in Op::ALL {
            // SAFETY: the names are static and closed by NUL.
            let name = unsafe { CStr::from_ptr(mantle_op_name(op as i32)) };
            assert_eq!(name.to_str().unwrap(), op.name());
        }
        assert_eq!(MANTLE_OP_NORMALIZE, Op::Normalize as i32);
        assert_eq!(MANTLE_OP_HEAD, Op::Head as i32);
        assert_eq!(MANTLE_OP_QKV, Op::Qkv as i32);
    }
}
