//! ------------------------------------------------------------------------------------------------
//! Tokenizer
//! ------------------------------------------------------------------------------------------------

use super::boundary::{self, call};
use super::handle::{self, Handle, Opaque};
use super::status::{mantle_error, mantle_status};
use crate::base::error::{Error, Result};
use crate::text::tokenizer::{EncodeOptions, Special, Tokenizer};
use std::ffi::c_char;
use std::sync::Arc;

/// Turns text into token ids and back. Belongs to its model; never changes.
pub struct mantle_tokenizer {
    handle: Handle<Arc<dyn Tokenizer>>,
}

impl Opaque for mantle_tokenizer {
    type Value = Arc<dyn Tokenizer>;
    const NAME: &'static str = "tokenizer";
    fn handle(&self) -> &Handle<Arc<dyn Tokenizer>> {
        &self.handle
    }
}

impl mantle_tokenizer {
    pub(super) fn new(tokenizer: Arc<dyn Tokenizer>) -> mantle_tokenizer {
        let handle = Handle::new(tokenizer);
        mantle_tokenizer { handle }
    }

    /// The tokenizer itself.
    pub(super) fn inner(&self) -> Result<Arc<dyn Tokenizer>> {
        // SAFETY: a living object.
        let tokenizer = unsafe { handle::shared(std::ptr::from_ref(self))? };
        Ok(Arc::clone(&tokenizer))
    }
}

/// The number of a token: 0 up to the size of the vocabulary.
pub type mantle_token = i32;

/// No token: the answer to a question for a token that the model does not have.
pub const MANTLE_TOKEN_NONE: mantle_token = -1;

/// mantle_tokenize: add the tokens that the model expects around a text (begin, end).
pub const MANTLE_TOKENIZE_ADD_SPECIAL: u32 = 1 << 0;
/// mantle_tokenize: text that is written like a control token becomes that token. Not for text of users.
pub const MANTLE_TOKENIZE_PARSE_SPECIAL: u32 = 1 << 1;
/// mantle_detokenize: leave control tokens out.
pub const MANTLE_DETOKENIZE_SKIP_SPECIAL: u32 = 1 << 0;

/// Begins a sequence.
pub const MANTLE_SPECIAL_BOS: i32 = 0;
/// Ends a sequence.
pub const MANTLE_SPECIAL_EOS: i32 = 1;
/// Ends a turn of a conversation.
pub const MANTLE_SPECIAL_EOT: i32 = 2;
/// Ends a message that more messages of the same turn follow.
pub const MANTLE_SPECIAL_EOM: i32 = 3;
/// Stands for text that has no token.
pub const MANTLE_SPECIAL_UNKNOWN: i32 = 4;
/// Fills up a batch; this library never needs it.
pub const MANTLE_SPECIAL_PAD: i32 = 5;
/// Separates or ends texts (BERT).
pub const MANTLE_SPECIAL_SEP: i32 = 6;
/// Begins a text (BERT).
pub const MANTLE_SPECIAL_CLS: i32 = 7;
/// Stands for a token to be guessed (BERT).
pub const MANTLE_SPECIAL_MASK: i32 = 8;
/// A line feed.
pub const MANTLE_SPECIAL_NEWLINE: i32 = 9;

/// Turns `text`, `length` bytes of UTF-8, into token ids. `flags` are MANTLE_TOKENIZE_* bits. The ids go to
/// `tokens`, which has room for `capacity`; `size` tells how many there are. With capacity 0, `tokens` may be
/// NULL, to ask for the size. Any thread.
/// Errors: INVALID_ARGUMENT (text that is not UTF-8: the message tells the first wrong byte; unknown flags),
/// BUFFER_TOO_SMALL (`size` tells what is needed).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_tokenize(
    tokenizer: *const mantle_tokenizer,
    text: *const c_char,
    length: usize,
    flags: u32,
    tokens: *mut mantle_token,
    capacity: usize,
    size: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let tokenizer = unsafe { handle::shared(tokenizer)? };
        // SAFETY: NULL is refused; otherwise as many bytes as the caller says.
        let text = unsafe { boundary::text(text, length, "text")? };
        known_flags(
            flags,
            MANTLE_TOKENIZE_ADD_SPECIAL | MANTLE_TOKENIZE_PARSE_SPECIAL,
            "MANTLE_TOKENIZE_*",
        )?;
        let options = EncodeOptions {
            add_special: flags & MANTLE_TOKENIZE_ADD_SPECIAL != 0,
            parse_special: flags & MANTLE_TOKENIZE_PARSE_SPECIAL != 0,
        };
        let ids = tokenizer.encode(text, options)?;
        // SAFETY: the caller's buffer of `capacity` ids, which are as wide as `u32`, and a pointer that may be
        // written. Vocabularies are smaller than 2^31, so no id becomes negative.
        unsafe { boundary::copy_out(&ids, tokens.cast::<u32>(), capacity, size, "tokens") }
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Turns `count` token ids into text. `flags` are MANTLE_DETOKENIZE_* bits. The text goes to `text`, which has
/// room for `capacity` bytes and is not closed by NUL; `size` tells its length. It is UTF-8 when the ids came
/// from mantle_tokenize; a part of such ids may begin or end inside a character. With capacity 0, `text` may
/// be NULL, to ask for the size. Any thread.
/// Errors: INVALID_ARGUMENT (an id outside the vocabulary, unknown flags), BUFFER_TOO_SMALL (`size` tells
/// what is needed).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_detokenize(
    tokenizer: *const mantle_tokenizer,
    tokens: *const mantle_token,
    count: usize,
    flags: u32,
    text: *mut c_char,
    capacity: usize,
    size: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let tokenizer = unsafe { handle::shared(tokenizer)? };
        // SAFETY: NULL is refused; otherwise as many ids as the caller says.
        let ids = unsafe { ids(tokens, count, "tokens")? };
        known_flags(flags, MANTLE_DETOKENIZE_SKIP_SPECIAL, "MANTLE_DETOKENIZE_*")?;
        let bytes = tokenizer.decode(ids, flags & MANTLE_DETOKENIZE_SKIP_SPECIAL != 0)?;
        // SAFETY: the caller's buffer of `capacity` bytes, and a pointer that may be written.
        unsafe { boundary::copy_out(&bytes, text.cast(), capacity, size, "text") }
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how many tokens the vocabulary has; ids are below it. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_tokenizer_vocabulary_size(
    tokenizer: *const mantle_tokenizer,
    size: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let tokenizer = unsafe { handle::shared(tokenizer)? };
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let size = unsafe { boundary::output(size, "size")? };
        size.write(tokenizer.vocabulary_size());
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Gives the token with a role, MANTLE_SPECIAL_*; MANTLE_TOKEN_NONE when the model has none. Any thread.
/// Errors: INVALID_ARGUMENT (an unknown role).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_tokenizer_special(
    tokenizer: *const mantle_tokenizer,
    which: i32,
    token: *mut mantle_token,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let tokenizer = unsafe { handle::shared(tokenizer)? };
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let token = unsafe { boundary::output(token, "token")? };
        let id = tokenizer.special(special_of(which)?);
        token.write(id.map_or(MANTLE_TOKEN_NONE, |id| id as mantle_token));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells whether a generated `token` ends the answer. Any thread.
/// Errors: INVALID_ARGUMENT (an id outside the vocabulary).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_tokenizer_is_end(
    tokenizer: *const mantle_tokenizer,
    token: mantle_token,
    is_end: *mut bool,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let tokenizer = unsafe { handle::shared(tokenizer)? };
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let is_end = unsafe { boundary::output(is_end, "is_end")? };
        let size = tokenizer.vocabulary_size();
        let id = u32::try_from(token).ok().filter(|&id| (id as usize) < size);
        let id =
            id.ok_or_else(|| Error::invalid(format!("token {token} is outside the vocabulary of {size}")))?;
        is_end.write(tokenizer.is_end_of_generation(id));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Token ids from C: the same bits as the library's, once none is negative.
///
/// # Safety
/// `tokens` is NULL or points to `count` ids that nobody writes during `'a`.
pub(super) unsafe fn ids<'a>(tokens: *const mantle_token, count: usize, name: &str) -> Result<&'a [u32]> {
    // SAFETY: as the caller promises; both types have the same size and alignment.
    let (signed, ids) = unsafe {
        (
            boundary::slice(tokens, count, name)?,
            boundary::slice(tokens.cast::<u32>(), count, name)?,
        )
    };
    if let Some(at) = signed.iter().position(|&id| id < 0) {
        return Err(Error::invalid(format!(
            "{name}[{at}] is {}, outside the vocabulary",
            signed[at]
        )));
    }
    Ok(ids)
}

/// Refuses bits that mean nothing yet, so that they may mean something later.
pub(super) fn known_flags(flags: u32, known: u32, names: &str) -> Result<()> {
    if flags & !known != 0 {
        return Err(Error::invalid(format!(
            "flags is {flags:#x}, expected {names} bits"
        )));
    }
    Ok(())
}

fn special_of(which: i32) -> Result<Special> {
    Ok(match which {
        MANTLE_SPECIAL_BOS => Special::Bos,
        MANTLE_SPECIAL_EOS => Special::Eos,
        MANTLE_SPECIAL_EOT => Special::Eot,
        MANTLE_SPECIAL_EOM => Special::Eom,
        MANTLE_SPECIAL_UNKNOWN => Special::Unk,
        MANTLE_SPECIAL_PAD => Special::Pad,
        MANTLE_SPECIAL_SEP => Special::Sep,
        MANTLE_SPECIAL_CLS => Special::Cls,
        MANTLE_SPECIAL_MASK => Special::Mask,
        MANTLE_SPECIAL_NEWLINE => Special::Nl,
        _ => {
            return Err(Error::invalid(format!(
                "which is {which}, expected one of MANTLE_SPECIAL_*"
            )));
        }
    })
}
