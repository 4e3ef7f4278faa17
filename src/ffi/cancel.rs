//! ------------------------------------------------------------------------------------------------
//! Cancellation
//! ------------------------------------------------------------------------------------------------

use super::boundary::{self, call};
use super::status::{mantle_error, mantle_status};
use crate::base::cancel::Cancel;

/// A request to stop, which may be handed to any call that can take long. Such a call looks at it at
/// least once per layer, chunk of a prompt or tensor, then ends with MANTLE_ERROR_CANCELLED; its objects
/// stay usable. The object may serve many calls, also at once.
pub struct mantle_cancel {
    cancel: Cancel,
}

/// Makes a request that has not been fired. Free it with mantle_cancel_free. Any thread.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_cancel_new(
    out: *mut *mut mantle_cancel,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        let cancel = Cancel::new();
        *out = Box::into_raw(Box::new(mantle_cancel { cancel }));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Asks the calls that hold `cancel` to stop. Any thread; also in a signal handler. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_cancel_fire(cancel: *const mantle_cancel) {
    // SAFETY: NULL or a living object, as the header demands. One atomic store follows: no lock, no memory.
    if let Some(cancel) = unsafe { cancel.as_ref() } {
        cancel.cancel.fire();
    }
}

/// Takes the request back, so that the object may serve again. Any thread. NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_cancel_reset(cancel: *const mantle_cancel) {
    // SAFETY: NULL or a living object, as the header demands.
    if let Some(cancel) = unsafe { cancel.as_ref() } {
        cancel.cancel.reset();
    }
}

/// Whether the request has been fired and not taken back; false for NULL. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_cancel_is_fired(cancel: *const mantle_cancel) -> bool {
    // SAFETY: NULL or a living object, as the header demands.
    unsafe { cancel.as_ref() }.is_some_and(|cancel| cancel.cancel.is_fired())
}

/// Frees the object; calls that hold it go on and can no longer be stopped. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_cancel_free(cancel: *mut mantle_cancel) {
    if !cancel.is_null() {
        // SAFETY: the object came from `mantle_cancel_new` and is freed once, as the header demands.
        boundary::quietly(|| drop(unsafe { Box::from_raw(cancel) }));
    }
}

/// The flag behind an optional parameter: a clone, which outlives the C object.
///
/// # Safety
/// `cancel` is NULL or a living object.
pub(super) unsafe fn optional(cancel: *const mantle_cancel) -> Option<Cancel> {
    // SAFETY: as the caller promises.
    unsafe { cancel.as_ref() }.map(|cancel| cancel.cancel.clone())
}
