//! ------------------------------------------------------------------------------------------------
//! What a model tells of itself
//! ------------------------------------------------------------------------------------------------

use super::boundary::{self, call};
use super::dtype::mantle_dtype;
use super::handle;
use super::model::{self, mantle_model};
use super::runtime::{mantle_memory, mantle_runtime};
use super::session::{self, mantle_session_options};
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use crate::base::error::Error;
use crate::format::container::{LoadMode, Tensor};
use crate::model::model::{Model, ModelInfo, ModelMemory};
use crate::model::session::Session;
use std::ffi::c_char;

/// Bytes of a name in mantle_model_info, the closing NUL counted.
pub const MANTLE_NAME_SIZE: usize = 64;
/// Dimensions that a tensor may have.
pub const MANTLE_MAX_DIMENSIONS: usize = 4;

/// The model gives embeddings of texts: an encoder, or a decoder by its last layer.
pub const MANTLE_CAPABILITY_EMBEDDING: u32 = 1 << 0;
/// The model gives logits of the next token, so that text can be generated (a decoder).
pub const MANTLE_CAPABILITY_GENERATION: u32 = 1 << 1;

/// The shape of a model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_model_info {
    /// sizeof(mantle_model_info), set by the caller.
    pub struct_size: usize,
    /// The architecture, such as "llama": UTF-8, closed by NUL, cut off when it is longer.
    pub architecture: [c_char; MANTLE_NAME_SIZE],
    /// The model's name in the file: as above; "" when it has none.
    pub name: [c_char; MANTLE_NAME_SIZE],
    /// MANTLE_CAPABILITY_* bits.
    pub capabilities: u32,
    /// Transformer layers.
    pub layers: u32,
    /// Values of a token's vector between layers.
    pub embedding: u32,
    /// Query heads per layer.
    pub heads: u32,
    /// Key and value heads per layer.
    pub kv_heads: u32,
    /// Values of a head.
    pub head_size: u32,
    /// Values of the feed-forward network's inner vector.
    pub feed_forward: u32,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// Tokens of a sequence that the model was trained for: the default context of a session.
    pub context: u32,
    /// 0.
    pub reserved: u32,
    /// Weights, counted singly.
    pub parameters: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of the weights in the layout of the kernels.
    pub packed_bytes: u64,
    /// Bytes of weights that are read to compute one token.
    pub bytes_per_token: u64,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_model_info {
    const NAME: &'static str = "mantle_model_info";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_model_info {
            struct_size: size_of::<Self>(),
            architecture: [0; MANTLE_NAME_SIZE],
            name: [0; MANTLE_NAME_SIZE],
            capabilities: 0,
            layers: 0,
            embedding: 0,
            heads: 0,
            kv_heads: 0,
            head_size: 0,
            feed_forward: 0,
            vocabulary: 0,
            context: 0,
            reserved: 0,
            parameters: 0,
            file_bytes: 0,
            packed_bytes: 0,
            bytes_per_token: 0,
        }
    }
}

/// MANTLE_CAPABILITY_* bits.
fn capabilities(info: &ModelInfo) -> u32 {
    let embedding = match info.embeddings {
        Some(_) => MANTLE_CAPABILITY_EMBEDDING,
        None => 0,
    };
    match info.is_encoder {
        true => embedding,
        false => embedding | MANTLE_CAPABILITY_GENERATION,
    }
}

impl mantle_model_info {
    pub(super) fn of(info: &ModelInfo) -> mantle_model_info {
        mantle_model_info {
            architecture: fixed(&info.architecture),
            name: fixed(&info.name),
            capabilities: capabilities(info),
            layers: info.layers,
            embedding: info.embedding,
            heads: info.heads,
            kv_heads: info.kv_heads,
            head_size: info.head_size,
            feed_forward: info.feed_forward,
            vocabulary: info.vocabulary,
            context: info.context,
            parameters: info.parameters,
            file_bytes: info.file_bytes,
            packed_bytes: info.packed_bytes,
            bytes_per_token: info.bytes_per_token,
            ..mantle_model_info::defaults()
        }
    }
}

/// `text` in a fixed array, closed by NUL, cut off between characters.
fn fixed(text: &str) -> [c_char; MANTLE_NAME_SIZE] {
    let mut array = [0; MANTLE_NAME_SIZE];
    let mut end = text.len().min(MANTLE_NAME_SIZE - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for (place, byte) in array.iter_mut().zip(text.bytes().take(end)) {
        *place = byte as c_char;
    }
    array
}

/// A model's memory as C sees it.
pub(super) fn memory_of(memory: &ModelMemory) -> mantle_memory {
    let total = memory.packed.saturating_add(memory.other);
    mantle_memory {
        total,
        peak: total,
        weights: memory.packed,
        other: memory.other,
        ..mantle_memory::defaults()
    }
}

/// One tensor of a model's file.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_tensor_info {
    /// sizeof(mantle_tensor_info), set by the caller.
    pub struct_size: usize,
    /// The tensor's name: `name_length` bytes of UTF-8, borrowed from the model, not closed by NUL.
    pub name: *const c_char,
    /// Bytes of the name.
    pub name_length: usize,
    /// Element type in the file.
    pub dtype: mantle_dtype,
    /// Dimensions: how many numbers of `shape` are used.
    pub dimensions: u32,
    /// Values in each dimension, innermost (columns of a row) first; 1 beyond `dimensions`.
    pub shape: [u64; MANTLE_MAX_DIMENSIONS],
    /// First byte of the data in the file.
    pub offset: u64,
    /// Bytes of the data in the file.
    pub bytes: u64,
}

// SAFETY: repr(C), begins with its size; numbers and a plain pointer.
unsafe impl Structure for mantle_tensor_info {
    const NAME: &'static str = "mantle_tensor_info";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_tensor_info {
            struct_size: size_of::<Self>(),
            name: std::ptr::null(),
            name_length: 0,
            dtype: 0,
            dimensions: 0,
            shape: [1; MANTLE_MAX_DIMENSIONS],
            offset: 0,
            bytes: 0,
        }
    }
}

/// Reads a model file's header and tells what mantle_model_open would give, and how much memory the model
/// and a session with `session_options` would take together (`cache` and `scratch` are an upper bound),
/// without loading weights. Missing tensors and wrong shapes show only when the model is opened.
/// `session_options` may be NULL for the model alone, `info` and `memory` when they
/// are not wanted. Any thread.
/// Errors: as mantle_model_open and mantle_session_bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_probe(
    runtime: *const mantle_runtime,
    path: *const c_char,
    path_length: usize,
    session_options: *const mantle_session_options,
    info: *mut mantle_model_info,
    memory: *mut mantle_memory,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as many bytes as the caller says.
        let path = unsafe { model::path_of(path, path_length)? };
        let session_options = if session_options.is_null() {
            None
        } else {
            // SAFETY: as large as its struct_size says.
            Some(session::checked(&unsafe { structure::read(session_options)? })?)
        };
        // SAFETY: NULL is allowed; otherwise as large as its struct_size says.
        let info = unsafe { structure::optional_output(info)? };
        // SAFETY: as above.
        let memory = unsafe { structure::optional_output(memory)? };
        let (found, needed, config) = Model::probe(&path, LoadMode::Map)?;
        let mut needed = memory_of(&needed);
        if let Some(options) = session_options {
            let session = Session::bytes_for(&config, &options, runtime.threads())?;
            needed.cache = session.kv;
            needed.scratch = session.scratch;
            needed.total = needed.total.saturating_add(session.total);
            needed.peak = needed.total;
        }
        if let Some(info) = info {
            info.write(mantle_model_info::of(&found));
        }
        if let Some(memory) = memory {
            memory.write(needed);
        }
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells the model's shape. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_get_info(
    model: *const mantle_model,
    info: *mut mantle_model_info,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let info = unsafe { structure::output(info)? };
        info.write(mantle_model_info::of(model.model.info()));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how much memory the model holds: `weights`, `other` and their `total`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_memory(
    model: *const mantle_model,
    memory: *mut mantle_memory,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let memory = unsafe { structure::output(memory)? };
        memory.write(memory_of(&model.model.memory()));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how many metadata entries the model's file has. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_metadata_count(
    model: *const mantle_model,
    count: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let count = unsafe { boundary::output(count, "count")? };
        count.write(model.model.metadata().iter().len());
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Gives the key of a metadata entry: `length` bytes of UTF-8 at `key`, borrowed from the model, not closed
/// by NUL. `index` is below the count; the order is the file's. Any thread.
/// Errors: NOT_FOUND (no such index).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_metadata_key(
    model: *const mantle_model,
    index: usize,
    key: *mut *const c_char,
    length: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise the caller's pointers may be written.
        let (key, length) = unsafe { (boundary::output(key, "key")?, boundary::output(length, "length")?) };
        let mut entries = model.model.metadata().iter();
        let count = entries.len();
        let (found, _) = entries
            .nth(index)
            .ok_or_else(|| Error::not_found(format!("metadata entry {index} of {count}")))?;
        key.write(found.as_ptr().cast());
        length.write(found.len());
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Gives the value of a metadata key as JSON text: a number, true or false, a string, or an array. Numbers
/// that JSON cannot say (NaN, infinity) are null; bytes that are not UTF-8 are U+FFFD. The text goes to
/// `json`, which has room for `capacity` bytes and is not closed by NUL; `size` tells its length. With
/// capacity 0, `json` may be NULL, to ask for the size. Any thread.
/// Errors: NOT_FOUND (no such key), BUFFER_TOO_SMALL (`size` tells what is needed).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_metadata_value(
    model: *const mantle_model,
    key: *const c_char,
    key_length: usize,
    json: *mut c_char,
    capacity: usize,
    size: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise as many bytes as the caller says.
        let key = unsafe { boundary::text(key, key_length, "key")? };
        let value = model
            .model
            .metadata()
            .get(key)
            .ok_or_else(|| Error::not_found(format!("the model has no metadata key {key:?}")))?;
        let text = value.to_json();
        // SAFETY: the caller's buffer of `capacity` bytes, and a pointer that may be written.
        unsafe { boundary::copy_out(text.as_bytes(), json.cast(), capacity, size, "json") }
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how many tensors the model's file has. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_tensor_count(
    model: *const mantle_model,
    count: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let count = unsafe { boundary::output(count, "count")? };
        count.write(model.model.tensors().len());
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Describes a tensor of the model's file. `index` is below the count; the order is the file's. Any thread.
/// Errors: NOT_FOUND (no such index).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_tensor_info(
    model: *const mantle_model,
    index: usize,
    info: *mut mantle_tensor_info,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let info = unsafe { structure::output(info)? };
        let tensors = model.model.tensors();
        let tensor = tensors
            .get(index)
            .ok_or_else(|| Error::not_found(format!("tensor {index} of {}", tensors.len())))?;
        info.write(tensor_info(tensor));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Finds a tensor by its name: `name_length` bytes. Any thread.
/// Errors: NOT_FOUND (no such name).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_model_tensor_find(
    model: *const mantle_model,
    name: *const c_char,
    name_length: usize,
    index: *mut usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let model = unsafe { handle::shared(model)? };
        // SAFETY: NULL is refused; otherwise as many bytes as the caller says.
        let name = unsafe { boundary::text(name, name_length, "name")? };
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let index = unsafe { boundary::output(index, "index")? };
        let found = model
            .model
            .tensors()
            .iter()
            .position(|tensor| tensor.name == name);
        index.write(found.ok_or_else(|| Error::not_found(format!("the model has no tensor {name:?}")))?);
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

fn tensor_info(tensor: &Tensor) -> mantle_tensor_info {
    let mut shape = [1; MANTLE_MAX_DIMENSIONS];
    for (place, &size) in shape.iter_mut().zip(&tensor.shape) {
        *place = size;
    }
    mantle_tensor_info {
        name: tensor.name.as_ptr().cast(),
        name_length: tensor.name.len(),
        dtype: tensor.dtype as mantle_dtype,
        dimensions: tensor.shape.len() as u32,
        shape,
        offset: tensor.offset,
        bytes: tensor.bytes,
        ..mantle_tensor_info::defaults()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters() {
        let long = "ä".repeat(40);
        let array = fixed(&long);
        let bytes: Vec<u8> = array.iter().map(|&c| c as u8).collect();
        assert_eq!(bytes.iter().position(|&b| b == 0), Some(62));
        assert_eq!(
            std::str::from_utf8(bytes.get(..62).unwrap()).unwrap(),
            "ä".repeat(31)
        );
    }
}
