//! ------------------------------------------------------------------------------------------------
//! Generation
//! ------------------------------------------------------------------------------------------------
//!
//! Greedy: each token is the one with the highest logit, the lowest id among equals. Programs that sample
//! otherwise use mantle_forward and mantle_logits; samplers will come as a field of
//! mantle_generate_options.

use super::boundary::call;
use super::cancel::{self, mantle_cancel};
use super::handle;
use super::session::mantle_session;
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use super::tokenizer::{self, MANTLE_TOKEN_NONE, mantle_token, mantle_tokenizer};
use crate::base::error::{Error, Result};
use crate::text::generate::{self, GenerateOptions, Generation, Stop};
use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::time::Duration;

/// Gets one generated token and the text that became whole with it: `length` bytes of UTF-8, maybe none,
/// since a character may be spread over several tokens; control tokens give no text. When the end leaves an
/// incomplete character, a last call has the token MANTLE_TOKEN_NONE and U+FFFD. Returns false to stop.
/// Must not use the session; it is busy.
pub type mantle_token_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        token: mantle_token,
        text: *const c_char,
        length: usize,
    ) -> bool,
>;

/// Go on when the model ends its answer (for measurements).
pub const MANTLE_GENERATE_IGNORE_END: u32 = 1 << 0;

/// The model ended its answer: a token for which mantle_tokenizer_is_end tells true.
pub const MANTLE_STOP_END: i32 = 1;
/// max_tokens were generated.
pub const MANTLE_STOP_MAX_TOKENS: i32 = 2;
/// The sequence has max_context tokens.
pub const MANTLE_STOP_CONTEXT_FULL: i32 = 3;
/// The callback returned false.
pub const MANTLE_STOP_CALLBACK: i32 = 4;

/// How to generate. Set the defaults with mantle_generate_options_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_generate_options {
    /// sizeof(mantle_generate_options).
    pub struct_size: usize,
    /// Most tokens to generate; 0 (default) for as many as the context holds.
    pub max_tokens: u32,
    /// MANTLE_GENERATE_* bits; default 0.
    pub flags: u32,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_generate_options {
    const NAME: &'static str = "mantle_generate_options";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_generate_options {
            struct_size: size_of::<Self>(),
            max_tokens: 0,
            flags: 0,
        }
    }
}

/// What a generation did and how long it took.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_generation {
    /// sizeof(mantle_generation), set by the caller.
    pub struct_size: usize,
    /// Tokens of the prompt that were computed.
    pub prompt_tokens: u64,
    /// Tokens generated, an end token not counted.
    pub tokens: u64,
    /// Nanoseconds for the prompt.
    pub prompt_nanoseconds: u64,
    /// Nanoseconds for the tokens after the first, which the prompt's pass gives: tokens - 1 passes, or
    /// `tokens` when an end token was generated.
    pub generation_nanoseconds: u64,
    /// Forward passes of one token that generation_nanoseconds is for.
    pub passes: u64,
    /// Why it stopped: MANTLE_STOP_*.
    pub stop: i32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_generation {
    const NAME: &'static str = "mantle_generation";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_generation {
            struct_size: size_of::<Self>(),
            prompt_tokens: 0,
            tokens: 0,
            prompt_nanoseconds: 0,
            generation_nanoseconds: 0,
            passes: 0,
            stop: 0,
            reserved: 0,
        }
    }
}

/// Sets `options` to the defaults. `size` is sizeof(mantle_generate_options). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_generate_options_init(
    options: *mut mantle_generate_options,
    size: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    // SAFETY: the caller's pointers, checked for NULL.
    unsafe { call(error, || structure::initialize(options, size)) }
}

/// Appends `count` prompt tokens (at least one) to a sequence, then generates tokens and hands each to
/// `callback` with its text. `tokenizer` is that of the session's model. `options` (NULL for the defaults),
/// `callback`, `cancel` and `result` may be NULL. Afterwards the sequence holds the prompt and the generated
/// tokens but the last one, which has not been computed; an end token is not appended. To go on, begin the
/// next prompt with what is missing. One thread per session.
/// Errors: as mantle_forward. When the prompt fails, the sequence is as before the call; later (CANCELLED),
/// it holds what was handed to the callback, but the last token.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_generate(
    session: *mut mantle_session,
    tokenizer: *const mantle_tokenizer,
    sequence: i32,
    prompt: *const mantle_token,
    count: usize,
    options: *const mantle_generate_options,
    callback: mantle_token_fn,
    user_data: *mut c_void,
    cancel: *const mantle_cancel,
    result: *mut mantle_generation,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let mut session = unsafe { handle::exclusive(session)? };
        // SAFETY: as above.
        let tokenizer = Arc::clone(&*unsafe { handle::shared(tokenizer)? });
        if count == 0 {
            return Err(Error::invalid(
                "count is 0, expected a prompt of at least one token",
            ));
        }
        // SAFETY: NULL is refused; otherwise as many ids as the caller says.
        let prompt = unsafe { tokenizer::ids(prompt, count, "prompt")? };
        // SAFETY: NULL, or as large as its struct_size says.
        let options = checked(&unsafe { structure::read(options)? })?;
        // SAFETY: NULL or a living object, as the header demands.
        let cancel = unsafe { cancel::optional(cancel) };
        // SAFETY: NULL is allowed; otherwise as large as its struct_size says.
        let result = unsafe { structure::optional_output(result)? };
        let mut on_token = |token: Option<u32>, text: &str| match callback {
            None => true,
            Some(function) => {
                let token = token.map_or(MANTLE_TOKEN_NONE, |token| token as mantle_token);
                // SAFETY: the caller's function, on the caller's thread; the text lives during the call.
                unsafe { function(user_data, token, text.as_ptr().cast(), text.len()) }
            }
        };
        let generation = generate::generate(
            &mut session.session,
            &tokenizer,
            sequence,
            prompt,
            &options,
            cancel.as_ref(),
            &mut on_token,
        )?;
        if let Some(result) = result {
            result.write(mantle_generation::of(&generation));
        }
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

impl mantle_generation {
    fn of(generation: &Generation) -> mantle_generation {
        mantle_generation {
            prompt_tokens: generation.prompt_tokens as u64,
            tokens: generation.tokens as u64,
            prompt_nanoseconds: nanoseconds(generation.prompt_time),
            generation_nanoseconds: nanoseconds(generation.generation_time),
            passes: generation.passes as u64,
            stop: match generation.stop {
                Stop::End => MANTLE_STOP_END,
                Stop::MaxTokens => MANTLE_STOP_MAX_TOKENS,
                Stop::ContextFull => MANTLE_STOP_CONTEXT_FULL,
                Stop::Callback => MANTLE_STOP_CALLBACK,
            },
            ..mantle_generation::defaults()
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn checked(options: &mantle_generate_options) -> Result<GenerateOptions> {
    tokenizer::known_flags(options.flags, MANTLE_GENERATE_IGNORE_END, "MANTLE_GENERATE_*")?;
    Ok(GenerateOptions {
        max_tokens: (options.max_tokens > 0).then_some(options.max_tokens as usize),
        ignore_end: options.flags & MANTLE_GENERATE_IGNORE_END != 0,
    })
}
