//! ------------------------------------------------------------------------------------------------
//! Status and errors
//! ------------------------------------------------------------------------------------------------

use super::boundary;
use crate::base::error::{Error, Status};
use std::ffi::{CStr, CString, c_char};

/// How a call ended: MANTLE_OK, or the class of the error. A number that a program does not know is
/// an error of a class that came later.
pub type mantle_status = i32;

/// Success.
pub const MANTLE_OK: mantle_status = 0;
/// An argument is NULL, of a wrong size or out of range.
pub const MANTLE_ERROR_INVALID_ARGUMENT: mantle_status = -1;
/// A file, key, tensor or sequence does not exist.
pub const MANTLE_ERROR_NOT_FOUND: mantle_status = -2;
/// The operating system refused to read or write.
pub const MANTLE_ERROR_IO: mantle_status = -3;
/// A file breaks the rules of its format.
pub const MANTLE_ERROR_FORMAT: mantle_status = -4;
/// The file or request is valid, but asks for something this library does not do.
pub const MANTLE_ERROR_UNSUPPORTED: mantle_status = -5;
/// Memory could not be had, or a memory limit would be exceeded.
pub const MANTLE_ERROR_NO_MEMORY: mantle_status = -6;
/// An output buffer is too small; the size needed was written.
pub const MANTLE_ERROR_BUFFER_TOO_SMALL: mantle_status = -7;
/// A sequence does not fit into the session's context.
pub const MANTLE_ERROR_CONTEXT_FULL: mantle_status = -8;
/// The caller cancelled the call.
pub const MANTLE_ERROR_CANCELLED: mantle_status = -9;
/// The object is in use by another call.
pub const MANTLE_ERROR_BUSY: mantle_status = -10;
/// A defect inside the library was caught; the object concerned refuses further calls.
pub const MANTLE_ERROR_PANIC: mantle_status = -11;
/// Header and library do not match: a struct_size that this library cannot serve.
pub const MANTLE_ERROR_ABI_MISMATCH: mantle_status = -12;

/// What went wrong in one call. Immutable; made by the call, freed by the caller.
pub struct mantle_error {
    status: mantle_status,
    message: CString,
    context: CString,
}

impl mantle_error {
    /// The object for `error`, with its texts closed by NUL.
    pub(super) fn new(error: &Error) -> mantle_error {
        mantle_error {
            status: error.status() as mantle_status,
            message: closed(error.message()),
            context: closed(&error.context()),
        }
    }
}

/// `text` closed by NUL. A NUL inside (from a file's name or contents) is shown as U+FFFD.
fn closed(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

/// The name of a status, such as "INVALID_ARGUMENT"; "UNKNOWN" for a number this library does not
/// know. Closed by NUL, valid for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mantle_status_name(status: mantle_status) -> *const c_char {
    let name: &CStr = match status {
        MANTLE_OK => c"OK",
        MANTLE_ERROR_INVALID_ARGUMENT => c"INVALID_ARGUMENT",
        MANTLE_ERROR_NOT_FOUND => c"NOT_FOUND",
        MANTLE_ERROR_IO => c"IO",
        MANTLE_ERROR_FORMAT => c"FORMAT",
        MANTLE_ERROR_UNSUPPORTED => c"UNSUPPORTED",
        MANTLE_ERROR_NO_MEMORY => c"NO_MEMORY",
        MANTLE_ERROR_BUFFER_TOO_SMALL => c"BUFFER_TOO_SMALL",
        MANTLE_ERROR_CONTEXT_FULL => c"CONTEXT_FULL",
        MANTLE_ERROR_CANCELLED => c"CANCELLED",
        MANTLE_ERROR_BUSY => c"BUSY",
        MANTLE_ERROR_PANIC => c"PANIC",
        MANTLE_ERROR_ABI_MISMATCH => c"ABI_MISMATCH",
        _ => c"UNKNOWN",
    };
    name.as_ptr()
}

/// The class of an error; the same number that the call returned. MANTLE_OK for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_error_status(error: *const mantle_error) -> mantle_status {
    // SAFETY: NULL or a living object, as the caller promised.
    unsafe { error.as_ref() }.map_or(MANTLE_OK, |error| error.status)
}

/// What was found and what was expected: one sentence in English, closed by NUL, borrowed from the
/// error. "" for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_error_message(error: *const mantle_error) -> *const c_char {
    // SAFETY: NULL or a living object, as the caller promised.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.message.as_ptr())
}

/// Where it went wrong: file, tensor or field, outermost first, joined by ": "; often "". Closed by
/// NUL, borrowed from the error. A message for people is context, ": ", message. "" for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_error_context(error: *const mantle_error) -> *const c_char {
    // SAFETY: NULL or a living object, as the caller promised.
    unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.context.as_ptr())
}

/// Frees an error object and its texts. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_error_free(error: *mut mantle_error) {
    if !error.is_null() {
        boundary::quietly(|| {
            // SAFETY: the object came from `Box::into_raw` in `boundary::call`; freed once, as promised.
            drop(unsafe { Box::from_raw(error) });
        });
    }
}

// A status of the library and its C constant are one number.
const _: () = {
    assert!(Status::Ok as i32 == MANTLE_OK);
    assert!(Status::InvalidArgument as i32 == MANTLE_ERROR_INVALID_ARGUMENT);
    assert!(Status::NotFound as i32 == MANTLE_ERROR_NOT_FOUND);
    assert!(Status::Io as i32 == MANTLE_ERROR_IO);
    assert!(Status::Format as i32 == MANTLE_ERROR_FORMAT);
    assert!(Status::Unsupported as i32 == MANTLE_ERROR_UNSUPPORTED);
    assert!(Status::NoMemory as i32 == MANTLE_ERROR_NO_MEMORY);
    assert!(Status::BufferTooSmall as i32 == MANTLE_ERROR_BUFFER_TOO_SMALL);
    assert!(Status::ContextFull as i32 == MANTLE_ERROR_CONTEXT_FULL);
    assert!(Status::Cancelled as i32 == MANTLE_ERROR_CANCELLED);
    assert!(Status::Busy as i32 == MANTLE_ERROR_BUSY);
    assert!(Status::Panic as i32 == MANTLE_ERROR_PANIC);
    assert!(Status::AbiMismatch as i32 == MANTLE_ERROR_ABI_MISMATCH);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_library() {
        for status in [
            Status::Ok,
            Status::InvalidArgument,
            Status::NotFound,
            Status::Io,
            Status::Format,
            Status::Unsupported,
            Status::NoMemory,
            Status::BufferTooSmall,
            Status::ContextFull,
            Status::Cancelled,
            Status::Busy,
            Status::Panic,
            Status::AbiMismatch,
        ] {
            // SAFETY: the names are static and closed by NUL.
            let name = unsafe { CStr::from_ptr(mantle_status_name(status as i32)) };
            assert_eq!(name.to_str().unwrap(), status.name());
        }
        // SAFETY: as above.
        let unknown = unsafe { CStr::from_ptr(mantle_status_name(-999)) };
        assert_eq!(unknown, c"UNKNOWN");
    }

    #[test]
    fn a_nul_in_a_text_does_not_cut_it() {
        let error = Error::format("key a\0b").within("file");
        let object = mantle_error::new(&error);
        assert_eq!(object.message.to_str().unwrap(), "key a\u{fffd}b");
        assert_eq!(object.context.to_str().unwrap(), "file");
    }
}
