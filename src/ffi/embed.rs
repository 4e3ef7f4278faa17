//! ------------------------------------------------------------------------------------------------
//! Embeddings: texts to vectors
//! ------------------------------------------------------------------------------------------------
//!
//! An embedder holds the memory in which a model makes embeddings: an encoder, or a decoder, whose last layer
//! gives the vectors of the tokens. One call takes any number of documents of any
//! length, in flat arrays: there is no padding and no batch size to choose. The embedding of a document is the
//! same bits whatever else is in the call, with any number of threads and on any CPU.

use super::arena::{self, Block, mantle_arena};
use super::boundary::{self, call};
use super::cancel::{self, mantle_cancel};
use super::handle::{self, Handle, Opaque};
use super::model::{TokenizerCell, mantle_model, mantle_progress_fn};
use super::runtime::mantle_memory;
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use super::tokenizer::{self, mantle_token};
use crate::base::error::{Error, Result};
use crate::base::matrix::MatrixMut;
use crate::model::embed::{Documents, EmbedOptions, Embedder, EmbedderOptions, Watch};
use crate::model::pooling::Pooling;
use crate::model::weights::Progress;
use crate::text::embed::{Texts, embed_texts};
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// The memory in which a model makes embeddings. Serves one thread at a time; several embedders of one model
/// may be used on several threads.
pub struct mantle_embedder {
    handle: Handle<Opened>,
}

/// What an embedder handle holds.
pub struct Opened {
    pub(super) embedder: Embedder,
    tokenizer: Arc<TokenizerCell>,
    /// The arena that the embedder lives in; dropped after it.
    _block: Option<Arc<Block>>,
}

impl Opaque for mantle_embedder {
    type Value = Opened;
    const NAME: &'static str = "embedder";
    fn handle(&self) -> &Handle<Opened> {
        &self.handle
    }
}

/// What the model's files say; where they say nothing, the mean for encoders and the last token for decoders.
pub const MANTLE_POOLING_MODEL: i32 = -1;
/// None: one row for each token, without dense layers.
pub const MANTLE_POOLING_NONE: i32 = 0;
/// The mean of the tokens' vectors.
pub const MANTLE_POOLING_MEAN: i32 = 1;
/// The vector of the first token.
pub const MANTLE_POOLING_CLS: i32 = 2;
/// The vector of the last token.
pub const MANTLE_POOLING_LAST: i32 = 3;

/// As the model's files say; vectors of single tokens are not normalized.
pub const MANTLE_NORMALIZE_MODEL: i32 = -1;
/// Leave embeddings as they are.
pub const MANTLE_NORMALIZE_NO: i32 = 0;
/// Give embeddings length 1, so that their dot product is their cosine.
pub const MANTLE_NORMALIZE_YES: i32 = 1;

/// Leave tokens out at the end of documents that are too long, instead of refusing them. A text keeps the token
/// that closes it.
pub const MANTLE_EMBED_TRUNCATE: u32 = 1 << 0;

/// How large an embedder is. Set the defaults with mantle_embedder_options_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_embedder_options {
    /// sizeof(mantle_embedder_options).
    pub struct_size: usize,
    /// Most tokens of a document, at most what the model was trained for; 0 (default) for that, but not more
    /// than 8192. Memory grows with it.
    pub max_tokens: u32,
    /// No flags exist yet: 0.
    pub flags: u32,
    /// Most bytes that the embedder may take; 0 (default) for no limit.
    pub memory_limit: u64,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_embedder_options {
    const NAME: &'static str = "mantle_embedder_options";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_embedder_options {
            struct_size: size_of::<Self>(),
            max_tokens: 0,
            flags: 0,
            memory_limit: 0,
        }
    }
}

/// How embeddings are made. Set the defaults with mantle_embed_options_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_embed_options {
    /// sizeof(mantle_embed_options).
    pub struct_size: usize,
    /// MANTLE_POOLING_*; default MANTLE_POOLING_MODEL.
    pub pooling: i32,
    /// MANTLE_NORMALIZE_*; default MANTLE_NORMALIZE_MODEL.
    pub normalize: i32,
    /// Cut embeddings to this many values before they are normalized, for models trained so (Matryoshka); 0
    /// (default) for all.
    pub dimensions: u32,
    /// MANTLE_EMBED_* bits; default 0.
    pub flags: u32,
    /// Name of the model's prompt that is put before each text, such as "query": `prompt_length` bytes of
    /// UTF-8. NULL (default) for none. mantle_embed_tokens does not look at it.
    pub prompt: *const c_char,
    /// Bytes of `prompt`.
    pub prompt_length: usize,
    /// Called with the tokens that are done and those of all documents, some hundred tokens at a time, on the calling
    /// thread; false cancels. NULL (default) for none.
    pub progress: mantle_progress_fn,
    /// Handed to `progress`.
    pub progress_user_data: *mut c_void,
}

// SAFETY: repr(C), begins with its size; numbers and a plain pointer.
unsafe impl Structure for mantle_embed_options {
    const NAME: &'static str = "mantle_embed_options";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_embed_options {
            struct_size: size_of::<Self>(),
            pooling: MANTLE_POOLING_MODEL,
            normalize: MANTLE_NORMALIZE_MODEL,
            dimensions: 0,
            flags: 0,
            prompt: std::ptr::null(),
            prompt_length: 0,
            progress: None,
            progress_user_data: std::ptr::null_mut(),
        }
    }
}

/// What a model's files say about its embeddings.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_embedding_info {
    /// sizeof(mantle_embedding_info), set by the caller.
    pub struct_size: usize,
    /// Values of an embedding that is not cut.
    pub dimensions: u32,
    /// MANTLE_POOLING_*.
    pub pooling: i32,
    /// MANTLE_NORMALIZE_NO or MANTLE_NORMALIZE_YES.
    pub normalize: i32,
    /// Dense layers behind the pooling. An EmbeddingGemma has two; many converted files lack them, and their
    /// embeddings are not those of the original model.
    pub dense_layers: u32,
    /// Prompts that the model was trained with: read them with mantle_model_prompt.
    pub prompts: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_embedding_info {
    const NAME: &'static str = "mantle_embedding_info";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_embedding_info {
            struct_size: size_of::<Self>(),
            dimensions: 0,
            pooling: 0,
            normalize: 0,
            dense_layers: 0,
            prompts: 0,
            reserved: 0,
        }
    }
}

/// Tells what the model's files say about its embeddings. Any thread.
/// Errors: UNSUPPORTED (a decoder whose files describe other embeddings than can be made).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_embedding_info(
    model: *const mantle_model,
    info: *mut mantle_embedding_info,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let info = unsafe { structure::output(info)? };
        let found = model.model.embedding()?;
        info.write(mantle_embedding_info {
            dimensions: found.dimensions,
            pooling: found.pooling as i32,
            normalize: i32::from(found.normalize),
            dense_layers: found.dense_layers,
            prompts: found.prompts.len() as u32,
            ..mantle_embedding_info::defaults()
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Gives a prompt of the model: its name, and the text that is put before texts of that kind. `index` is below
/// `prompts` of mantle_embedding_info. Both are UTF-8 without a closing NUL, borrowed from the model. Any thread.
/// Errors: UNSUPPORTED (as mantle_model_embedding_info), NOT_FOUND (no such index).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_prompt(
    model: *const mantle_model,
    index: usize,
    name: *mut *const c_char,
    name_length: *mut usize,
    text: *mut *const c_char,
    text_length: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise the caller's pointers may be written.
        let (name, name_length, text, text_length) = unsafe {
            (
                boundary::output(name, "name")?,
                boundary::output(name_length, "name_length")?,
                boundary::output(text, "text")?,
                boundary::output(text_length, "text_length")?,
            )
        };
        let prompts = &model.model.embedding()?.prompts;
        let found = prompts
            .get(index)
            .ok_or_else(|| Error::not_found(format!("prompt {index} of {}", prompts.len())))?;
        name.write(found.0.as_ptr().cast());
        name_length.write(found.0.len());
        text.write(found.1.as_ptr().cast());
        text_length.write(found.1.len());
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Sets `options` to the defaults. `size` is sizeof(mantle_embedder_options). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embedder_options_init(
    options: *mut mantle_embedder_options,
    size: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    // SAFETY: the caller's pointers, checked for NULL.
    unsafe { call(error, || structure::initialize(options, size)) }
}

/// Sets `options` to the defaults. `size` is sizeof(mantle_embed_options). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embed_options_init(
    options: *mut mantle_embed_options,
    size: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    // SAFETY: the caller's pointers, checked for NULL.
    unsafe { call(error, || structure::initialize(options, size)) }
}

/// Tells how much memory an embedder with these options takes, exactly: `scratch` and `total`, which is the size
/// that its arena needs. Nothing is allocated. `options` may be NULL for the defaults. Any thread.
/// Errors: INVALID_ARGUMENT (an option out of range), UNSUPPORTED (as mantle_model_embedding_info).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embedder_bytes(
    model: *const mantle_model,
    options: *const mantle_embedder_options,
    memory: *mut mantle_memory,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL, or as large as its struct_size says.
        let options = size_options(&unsafe { structure::read(options)? })?;
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let memory = unsafe { structure::output(memory)? };
        memory.write(memory_of(Embedder::bytes(&model.model, &options)?));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Makes an embedder. `options` may be NULL for the defaults. `arena` is the memory that it lives in until it is
/// freed; NULL takes as much as is needed from the runtime's allocator. Free it with mantle_embedder_free. Any
/// thread.
/// Errors: as mantle_embedder_bytes; NO_MEMORY (the arena or the memory limit is too small: the message tells
/// what is needed), BUSY (the arena holds another session or embedder).
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embedder_new(
    model: *const mantle_model,
    options: *const mantle_embedder_options,
    arena: *const mantle_arena,
    out: *mut *mut mantle_embedder,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL, or as large as its struct_size says.
        let options = size_options(&unsafe { structure::read(options)? })?;
        let block = if arena.is_null() {
            None
        } else {
            // SAFETY: a living object, as the header demands.
            Some(Arc::clone(&*unsafe { handle::shared(arena)? }))
        };
        let buffer = block.as_ref().map(arena::lend).transpose()?;
        let embedder = Embedder::new(&model.model, &options, buffer)?;
        if let Some(block) = &block {
            arena::note_use(block, embedder.memory());
        }
        let handle = Handle::new(Opened {
            embedder,
            tokenizer: model.tokenizer_cell(),
            _block: block,
        });
        *out = handle::into_raw(mantle_embedder { handle });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how much memory the embedder holds: `scratch` and `total`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embedder_memory(
    embedder: *const mantle_embedder,
    memory: *mut mantle_memory,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let embedder = unsafe { handle::shared(embedder)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let memory = unsafe { structure::output(memory)? };
        memory.write(memory_of(embedder.embedder.memory()));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Frees the embedder; the arena it lived in is free for another one. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embedder_free(embedder: *mut mantle_embedder) {
    // SAFETY: NULL or a living object that nobody uses afterwards, as the header demands.
    boundary::quietly(|| unsafe { handle::free(embedder) });
}

/// Tells how many values a row has that these options give. `options` may be NULL for the defaults. Any thread.
/// Errors: INVALID_ARGUMENT (an option out of range).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embed_dimensions(
    embedder: *const mantle_embedder,
    options: *const mantle_embed_options,
    dimensions: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let embedder = unsafe { handle::shared(embedder)? };
        // SAFETY: NULL, or as large as its struct_size says.
        let options = embed_options(&unsafe { structure::read(options)? })?;
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let dimensions = unsafe { boundary::output(dimensions, "dimensions")? };
        dimensions.write(embedder.embedder.dimensions(&options)?);
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Makes the embeddings of `count` texts. Text i is the UTF-8 bytes texts[offsets[i]] up to
/// texts[offsets[i + 1]]; offsets has count + 1 numbers, begins with 0 and never falls. An empty text has an
/// embedding, too: that of the tokens which the model expects around a text. Row i goes to
/// embeddings + i * stride; `stride` counts floats and is at least what mantle_embed_dimensions tells (0 for just
/// that). `options` and `cancel` may be NULL. One thread per embedder.
/// Errors, before anything is computed: INVALID_ARGUMENT (offsets, invalid UTF-8, a text of more tokens than
/// max_tokens without MANTLE_EMBED_TRUNCATE: the message tells the number of the text; MANTLE_POOLING_NONE),
/// NOT_FOUND (a prompt that the model does not have; no tokenizer), UNSUPPORTED; during the work CANCELLED: then
/// some rows may have been written. BUSY.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embed_texts(
    embedder: *mut mantle_embedder,
    texts: *const c_char,
    offsets: *const usize,
    count: usize,
    options: *const mantle_embed_options,
    embeddings: *mut f32,
    stride: usize,
    cancel: *const mantle_cancel,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let mut opened = unsafe { handle::exclusive(embedder)? };
        // SAFETY: NULL is refused; otherwise as many numbers as the caller says.
        let offsets = unsafe { boundary::offsets(offsets, count)? };
        let total = offsets.last().copied().unwrap_or_default();
        // SAFETY: as above: the last offset tells how many bytes there are.
        let bytes = unsafe { boundary::slice(texts.cast::<u8>(), total, "texts")? };
        // SAFETY: NULL, or as large as its struct_size says.
        let given = unsafe { structure::read(options)? };
        let options = embed_options(&given)?;
        let prompt = if given.prompt.is_null() {
            None
        } else {
            // SAFETY: not NULL; as many bytes as the caller says.
            Some(unsafe { boundary::text(given.prompt, given.prompt_length, "prompt")? })
        };
        let columns = opened.embedder.dimensions(&options)?;
        // SAFETY: the caller's rows, which nobody else uses during the call.
        let out = unsafe { rows(embeddings, count, columns, stride)? };
        // SAFETY: NULL or a living object, as the header demands.
        let cancel = unsafe { cancel::optional(cancel) };
        let mut report = report_of(&given);
        let Opened {
            embedder, tokenizer, ..
        } = &mut *opened;
        let tokenizer = tokenizer.get(embedder.model())?.inner()?;
        let texts = Texts { bytes, offsets };
        embed_texts(
            embedder,
            &*tokenizer,
            &texts,
            prompt,
            &options,
            out,
            &mut Watch {
                cancel: cancel.as_ref(),
                progress: report.as_mut().map(|report| report as Progress<'_>),
            },
        )
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Like mantle_embed_texts, from token ids: document i is tokens[offsets[i]] up to tokens[offsets[i + 1]], with the
/// tokens that the model expects around a text, at least one. With MANTLE_POOLING_NONE there is a row for each
/// token instead of each document.
/// Errors: as mantle_embed_texts; INVALID_ARGUMENT (a document without tokens, an id outside the vocabulary).
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_embed_tokens(
    embedder: *mut mantle_embedder,
    tokens: *const mantle_token,
    offsets: *const usize,
    count: usize,
    options: *const mantle_embed_options,
    embeddings: *mut f32,
    stride: usize,
    cancel: *const mantle_cancel,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let mut opened = unsafe { handle::exclusive(embedder)? };
        // SAFETY: NULL is refused; otherwise as many numbers as the caller says.
        let offsets = unsafe { boundary::offsets(offsets, count)? };
        let total = offsets.last().copied().unwrap_or_default();
        // SAFETY: as above: the last offset tells how many tokens there are.
        let tokens = unsafe { tokenizer::ids(tokens, total, "tokens")? };
        // SAFETY: NULL, or as large as its struct_size says.
        let given = unsafe { structure::read(options)? };
        let options = embed_options(&given)?;
        let documents = Documents { tokens, offsets };
        let count = opened.embedder.rows(&documents, &options)?;
        let columns = opened.embedder.dimensions(&options)?;
        // SAFETY: the caller's rows, which nobody else uses during the call.
        let out = unsafe { rows(embeddings, count, columns, stride)? };
        // SAFETY: NULL or a living object, as the header demands.
        let cancel = unsafe { cancel::optional(cancel) };
        let mut report = report_of(&given);
        let mut watch = Watch {
            cancel: cancel.as_ref(),
            progress: report.as_mut().map(|report| report as Progress<'_>),
        };
        opened.embedder.embed(&documents, &options, out, &mut watch)
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// What calls the caller's progress function.
fn report_of(options: &mantle_embed_options) -> Option<impl FnMut(u64, u64) -> bool + use<>> {
    let user_data = options.progress_user_data;
    options.progress.map(|function| {
        move |done: u64, total: u64| {
            // SAFETY: the caller's function, on the caller's thread.
            unsafe { function(user_data, done, total) }
        }
    })
}

/// The caller's rows of output.
///
/// # Safety
/// `start` is NULL or points to `count` rows of `columns` floats, `stride` apart, that nobody else uses during `'a`.
unsafe fn rows<'a>(
    start: *mut f32,
    count: usize,
    columns: usize,
    stride: usize,
) -> Result<MatrixMut<'a, f32>> {
    let stride = if stride == 0 { columns } else { stride };
    if stride < columns {
        return Err(Error::invalid(format!(
            "stride is {stride}, expected at least the {columns} values of a row"
        )));
    }
    let too_large = || {
        Error::invalid(format!(
            "{count} rows of {stride} floats are more than can be addressed"
        ))
    };
    let length = match count {
        0 => 0,
        _ => (count - 1)
            .checked_mul(stride)
            .and_then(|start| start.checked_add(columns))
            .ok_or_else(too_large)?,
    };
    // SAFETY: as the caller promises; floats may hold anything.
    let values = unsafe { boundary::slice_mut(start, length, "embeddings")? };
    MatrixMut::new(values, count, columns, stride).ok_or_else(too_large)
}

fn size_options(options: &mantle_embedder_options) -> Result<EmbedderOptions> {
    if options.flags != 0 {
        return Err(Error::invalid(format!("flags is {}, expected 0", options.flags)));
    }
    Ok(EmbedderOptions {
        max_tokens: options.max_tokens,
        memory_limit: options.memory_limit,
    })
}

fn embed_options(options: &mantle_embed_options) -> Result<EmbedOptions> {
    let pooling = match options.pooling {
        MANTLE_POOLING_MODEL => None,
        number => Some(Pooling::from_number(number.into()).ok_or_else(|| {
            Error::invalid(format!("pooling is {number}, expected one of MANTLE_POOLING_*"))
        })?),
    };
    let normalize = match options.normalize {
        MANTLE_NORMALIZE_MODEL => None,
        MANTLE_NORMALIZE_NO => Some(false),
        MANTLE_NORMALIZE_YES => Some(true),
        other => {
            return Err(Error::invalid(format!(
                "normalize is {other}, expected one of MANTLE_NORMALIZE_*"
            )));
        }
    };
    if options.flags & !MANTLE_EMBED_TRUNCATE != 0 {
        return Err(Error::invalid(format!(
            "flags is {:#x}, expected MANTLE_EMBED_* bits",
            options.flags
        )));
    }
    Ok(EmbedOptions {
        pooling,
        normalize,
        dimensions: options.dimensions,
        truncate: options.flags & MANTLE_EMBED_TRUNCATE != 0,
    })
}

fn memory_of(bytes: u64) -> mantle_memory {
    mantle_memory {
        scratch: bytes,
        total: bytes,
        peak: bytes,
        ..mantle_memory::defaults()
    }
}
