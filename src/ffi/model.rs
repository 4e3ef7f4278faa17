//! ------------------------------------------------------------------------------------------------
//! Model
//! ------------------------------------------------------------------------------------------------

use super::boundary::{self, call};
use super::cancel::{self, mantle_cancel};
use super::dtype::mantle_dtype;
use super::handle::{self, Handle, Opaque};
use super::runtime::mantle_runtime;
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use super::tokenizer::mantle_tokenizer;
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result};
use crate::format::container::LoadMode;
use crate::format::dtype::DataType;
use crate::model::model::{Model, ModelOptions};
use std::ffi::{c_char, c_void};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// A model: configuration, weights in the layout of the kernels, tokenizer. Never changes, so any number of
/// sessions on any number of threads may share it.
pub struct mantle_model {
    handle: Handle<Opened>,
}

/// What a model handle holds.
pub struct Opened {
    pub(super) model: Arc<Model>,
    tokenizer: Arc<TokenizerCell>,
}

/// The tokenizer of a model, made when it is first asked for: not every use needs it, and not every file has one.
#[derive(Default)]
pub(super) struct TokenizerCell(OnceLock<mantle_tokenizer>);

impl TokenizerCell {
    /// The tokenizer. Two threads may both make one; the first is kept.
    pub(super) fn get(&self, model: &Model) -> Result<&mantle_tokenizer> {
        if let Some(tokenizer) = self.0.get() {
            return Ok(tokenizer);
        }
        let made = mantle_tokenizer::new(crate::text::tokenizer::of_model(model)?);
        Ok(self.0.get_or_init(|| made))
    }
}

impl Opaque for mantle_model {
    type Value = Opened;
    const NAME: &'static str = "model";
    fn handle(&self) -> &Handle<Opened> {
        &self.handle
    }
}

/// Map the file into memory: fastest. If another program shortens the file meanwhile, the system ends the
/// process; use MANTLE_LOAD_READ for files that may change.
pub const MANTLE_LOAD_MAP: i32 = 0;
/// Read the file piece by piece. The same model, bit for bit.
pub const MANTLE_LOAD_READ: i32 = 1;

/// Tells how far a call is: `done` of `total` units (loading: bytes of weights; embedding: tokens). Returns false to
/// cancel. Called on the thread of the call.
pub type mantle_progress_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, done: u64, total: u64) -> bool>;

/// How to open a model. Set the defaults with mantle_model_options_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_model_options {
    /// sizeof(mantle_model_options).
    pub struct_size: usize,
    /// MANTLE_LOAD_*; default MANTLE_LOAD_MAP.
    pub load_mode: i32,
    /// No flags exist yet: 0.
    pub flags: u32,
    /// Most bytes that the model may take from the runtime's allocator; 0 (default) for no limit. Checked
    /// before any weight is loaded.
    pub memory_limit: u64,
    /// Told how far loading is; NULL (default) for none.
    pub progress: mantle_progress_fn,
    /// Handed to `progress`.
    pub progress_user_data: *mut c_void,
    /// Cancels loading when fired; NULL (default) for none.
    pub cancel: *const mantle_cancel,
    /// Matrices of floats (F32, F16, BF16) are kept as this type: MANTLE_DTYPE_BF16 takes half of the memory of F32
    /// and is faster where the CPU multiplies it, MANTLE_DTYPE_Q8_0 takes a quarter and is faster still; both cost
    /// accuracy. MANTLE_WEIGHTS_KEEP (default) for the file's own types. Rows that do not fill the blocks of the
    /// type stay as they are.
    pub weight_type: mantle_dtype,
    /// 0.
    pub reserved: u32,
}

/// Weights keep the types that they have in the file.
pub const MANTLE_WEIGHTS_KEEP: mantle_dtype = -1;

// SAFETY: repr(C), begins with its size; numbers, plain pointers and an optional function pointer.
unsafe impl Structure for mantle_model_options {
    const NAME: &'static str = "mantle_model_options";
    // Without the weights' type.
    const EARLIER_SIZES: &'static [usize] = &[48];
    fn defaults() -> Self {
        mantle_model_options {
            struct_size: size_of::<Self>(),
            load_mode: MANTLE_LOAD_MAP,
            flags: 0,
            memory_limit: 0,
            progress: None,
            progress_user_data: std::ptr::null_mut(),
            cancel: std::ptr::null(),
            weight_type: MANTLE_WEIGHTS_KEEP,
            reserved: 0,
        }
    }
}

/// Sets `options` to the defaults. `size` is sizeof(mantle_model_options). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_options_init(
    options: *mut mantle_model_options,
    size: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    // SAFETY: the caller's pointers, checked for NULL.
    unsafe { call(error, || structure::initialize(options, size)) }
}

/// Opens a model: a GGUF file, or a folder as Hugging Face keeps it (config.json, model.safetensors or its index,
/// tokenizer.json). Checks all of it and brings the weights into the layout of the kernels, on all threads of the
/// runtime. `path` has `path_length` bytes: a file name as the system takes it. `options` may be NULL for the
/// defaults. Free the model with mantle_model_free. Any thread.
/// Errors, which name the file, the field or tensor and what was found: NOT_FOUND (also a folder that lacks a
/// file), IO, INVALID_ARGUMENT (a device), FORMAT (not a model, or a broken one), UNSUPPORTED (an architecture or
/// tensor type that is not computed), NO_MEMORY, CANCELLED.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_open(
    runtime: *const mantle_runtime,
    path: *const c_char,
    path_length: usize,
    options: *const mantle_model_options,
    out: *mut *mut mantle_model,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as many bytes as the caller says.
        let path = unsafe { path_of(path, path_length)? };
        // SAFETY: NULL, or as large as its struct_size says.
        let options = unsafe { structure::read(options)? };
        // SAFETY: the pointers in the options are NULL or live, as the header demands.
        *out = unsafe { open(&options, |options| Model::open(&runtime, &path, options))? };
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Like mantle_model_open, from a model file that stands in memory: `size` bytes at `data`, at any
/// alignment. They are read during the call only.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_open_memory(
    runtime: *const mantle_runtime,
    data: *const c_void,
    size: usize,
    options: *const mantle_model_options,
    out: *mut *mut mantle_model,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as many bytes as the caller says.
        let data = unsafe { boundary::slice(data.cast::<u8>(), size, "data")? };
        // SAFETY: NULL, or as large as its struct_size says.
        let options = unsafe { structure::read(options)? };
        // SAFETY: the pointers in the options are NULL or live, as the header demands.
        *out = unsafe { open(&options, |options| Model::open_memory(&runtime, data, options))? };
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Gives the model's tokenizer, borrowed from the model. Made from the file at the first call. Any thread.
/// Errors: FORMAT or UNSUPPORTED, when the file has no tokenizer or one that is not known; the model itself
/// works without.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_tokenizer(
    model: *const mantle_model,
    out: *mut *const mantle_tokenizer,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output(out, "out")? }.write(std::ptr::null());
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        *out = std::ptr::from_ref(model.tokenizer()?);
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Frees the model and its tokenizer. Sessions made with it go on. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_free(model: *mut mantle_model) {
    // SAFETY: NULL or a living object that nobody uses afterwards, as the header demands.
    boundary::quietly(|| unsafe { handle::free(model) });
}

impl Opened {
    /// The tokenizer.
    pub(super) fn tokenizer(&self) -> Result<&mantle_tokenizer> {
        self.tokenizer.get(&self.model)
    }

    /// The place of the tokenizer, which outlives the model for those who hold it.
    pub(super) fn tokenizer_cell(&self) -> Arc<TokenizerCell> {
        Arc::clone(&self.tokenizer)
    }
}

/// Hands the caller's options to `load` and wraps the model.
///
/// # Safety
/// The pointers in `options` are NULL or live; its progress function may be called.
unsafe fn open(
    options: &mantle_model_options,
    load: impl FnOnce(ModelOptions<'_>) -> Result<Arc<Model>>,
) -> Result<*mut mantle_model> {
    let load_mode = match options.load_mode {
        MANTLE_LOAD_MAP => LoadMode::Map,
        MANTLE_LOAD_READ => LoadMode::Read,
        other => {
            return Err(Error::invalid(format!(
                "load_mode is {other}, expected one of MANTLE_LOAD_*"
            )));
        }
    };
    if options.flags != 0 {
        return Err(Error::invalid(format!("flags is {}, expected 0", options.flags)));
    }
    let weights = match options.weight_type {
        MANTLE_WEIGHTS_KEEP => None,
        number => Some(
            DataType::from_number(number.into())
                .ok_or_else(|| Error::invalid(format!("weight_type is {number}, no MANTLE_DTYPE_*")))?,
        ),
    };
    // SAFETY: as the caller promises.
    let cancel: Option<Cancel> = unsafe { cancel::optional(options.cancel) };
    let user_data = options.progress_user_data;
    let mut report = options.progress.map(|function| {
        move |done: u64, total: u64| {
            // SAFETY: the caller's function, on the caller's thread.
            unsafe { function(user_data, done, total) }
        }
    });
    let model = load(ModelOptions {
        load_mode,
        weights,
        memory_limit: options.memory_limit,
        progress: report
            .as_mut()
            .map(|report| report as &mut dyn FnMut(u64, u64) -> bool),
        cancel: cancel.as_ref(),
    })?;
    let handle = Handle::new(Opened {
        model,
        tokenizer: Arc::default(),
    });
    Ok(handle::into_raw(mantle_model { handle }))
}

/// A file name as the system takes it.
///
/// # Safety
/// `path` is NULL or has `length` bytes.
pub(super) unsafe fn path_of(path: *const c_char, length: usize) -> Result<PathBuf> {
    if path.is_null() {
        return Err(Error::invalid("path is NULL"));
    }
    // SAFETY: as the caller promises.
    let bytes = unsafe { boundary::slice(path.cast::<u8>(), length, "path")? };
    if bytes.is_empty() {
        return Err(Error::invalid("path is empty"));
    }
    if let Some(at) = bytes.iter().position(|&byte| byte == 0) {
        return Err(Error::invalid(format!(
            "path has a NUL at byte {at} of {length}: path_length does not count the closing NUL"
        )));
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt as _;
        Ok(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
    }
    #[cfg(not(unix))]
    {
        Ok(PathBuf::from(boundary::utf8(bytes, "path")?))
    }
}
