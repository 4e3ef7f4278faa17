//! What stands behind a pointer to an opaque object: the value, who is using it, and whether a call on
//! it panicked.
//!
//! Shared use and exclusive use are told apart at run time, without waiting: whoever comes second gets
//! an error. A free during a call (from a callback) takes effect when the call ends.

use crate::base::error::{Error, Result, Status};
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Set while one call uses the value exclusively.
const EXCLUSIVE: u32 = 1 << 31;
/// Set when the object was freed; whoever uses it last drops it.
const FREED: u32 = 1 << 30;

/// The value of an opaque object with its state of use.
pub struct Handle<T> {
    /// EXCLUSIVE, FREED, and in the low bits the number of calls that share the value.
    state: AtomicU32,
    poisoned: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only through `Shared` (any number, `&T`) or `Exclusive` (one, `&mut T`),
// which `state` keeps apart, as a readers-writer lock does.
unsafe impl<T: Send + Sync> Sync for Handle<T> {}

impl<T> Handle<T> {
    /// A value that nobody uses yet.
    pub fn new(value: T) -> Handle<T> {
        Handle {
            state: AtomicU32::new(0),
            poisoned: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }
}

/// An opaque C type: a structure around a handle.
pub trait Opaque: Sized {
    /// What the handle holds.
    type Value: Send + Sync;
    /// How messages call the object.
    const NAME: &'static str;
    /// The handle inside.
    fn handle(&self) -> &Handle<Self::Value>;
}

/// The right to read an object's value during one call.
pub struct Shared<T: Opaque>(*const T);

/// The right to change an object's value during one call.
pub struct Exclusive<T: Opaque>(*const T);

/// Opens `object` for reading, together with other readers.
///
/// # Safety
/// `object` is NULL or points to a living `T` that came from [`into_raw`] or lives in another object.
pub unsafe fn shared<T: Opaque>(object: *const T) -> Result<Shared<T>> {
    // SAFETY: NULL or living, as the caller promises.
    let handle = unsafe { object.as_ref() }.ok_or_else(missing::<T>)?.handle();
    let enter = |state: u32| (state & (EXCLUSIVE | FREED) == 0).then_some(state + 1);
    match handle
        .state
        .fetch_update(Ordering::Acquire, Ordering::Relaxed, enter)
    {
        Ok(_) => usable::<T, _>(handle, Shared(object)),
        Err(state) => Err(occupied::<T>(state)),
    }
}

/// Opens `object` for changing, alone.
///
/// # Safety
/// As for [`shared`].
pub unsafe fn exclusive<T: Opaque>(object: *mut T) -> Result<Exclusive<T>> {
    // SAFETY: NULL or living, as the caller promises.
    let handle = unsafe { object.as_ref() }.ok_or_else(missing::<T>)?.handle();
    match handle
        .state
        .compare_exchange(0, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed)
    {
        Ok(_) => usable::<T, _>(handle, Exclusive(object)),
        Err(state) => Err(occupied::<T>(state)),
    }
}

/// Moves an object to the heap, for C to hold.
pub fn into_raw<T: Opaque>(object: T) -> *mut T {
    Box::into_raw(Box::new(object))
}

/// Frees `object`: now, or when the call that uses it ends.
///
/// # Safety
/// `object` is NULL or came from [`into_raw`] and was not freed before.
pub unsafe fn free<T: Opaque>(object: *mut T) {
    // SAFETY: NULL or living, as the caller promises.
    let Some(handle) = (unsafe { object.as_ref() }).map(Opaque::handle) else {
        return;
    };
    let before = handle.state.fetch_or(FREED, Ordering::AcqRel);
    if before == 0 {
        // SAFETY: nobody uses the object, and FREED keeps everybody out; it came from `into_raw`.
        drop(unsafe { Box::from_raw(object) });
    }
}

fn missing<T: Opaque>() -> Error {
    Error::invalid(format!("{} is NULL", T::NAME))
}

fn occupied<T: Opaque>(state: u32) -> Error {
    if state & FREED != 0 {
        return Error::invalid(format!("the {} was freed", T::NAME));
    }
    Error::new(
        Status::Busy,
        format!(
            "the {} is in use by another call; it serves one call at a time",
            T::NAME
        ),
    )
}

/// `guard`, unless its object is poisoned (then the guard ends here).
fn usable<T: Opaque, G>(handle: &Handle<T::Value>, guard: G) -> Result<G> {
    if handle.poisoned.load(Ordering::Relaxed) {
        return Err(Error::new(
            Status::Panic,
            format!(
                "a defect was caught in an earlier call on this {}; it can only be freed",
                T::NAME
            ),
        ));
    }
    Ok(guard)
}

/// Ends a use that added `mine` to the state; drops the object when it was freed meanwhile.
///
/// # Safety
/// `object` is in use by the caller, who does not touch it afterwards.
unsafe fn leave<T: Opaque>(object: *const T, mine: u32) {
    // SAFETY: an object in use lives.
    let handle = unsafe { &*object }.handle();
    if std::thread::panicking() {
        handle.poisoned.store(true, Ordering::Relaxed);
    }
    let after = handle.state.fetch_sub(mine, Ordering::AcqRel) - mine;
    if after == FREED {
        // SAFETY: the last user of a freed object; FREED keeps everybody else out. An object is freed only
        // through `free`, so it came from `into_raw`.
        drop(unsafe { Box::from_raw(object.cast_mut()) });
    }
}

impl<T: Opaque> Deref for Shared<T> {
    type Target = T::Value;
    fn deref(&self) -> &T::Value {
        // SAFETY: the object lives while in use; only readers are inside.
        unsafe { &*(*self.0).handle().value.get() }
    }
}

impl<T: Opaque> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: this guard is the use, and ends here.
        unsafe { leave(self.0, 1) }
    }
}

impl<T: Opaque> Deref for Exclusive<T> {
    type Target = T::Value;
    fn deref(&self) -> &T::Value {
        // SAFETY: the object lives while in use; this guard is the only one.
        unsafe { &*(*self.0).handle().value.get() }
    }
}

impl<T: Opaque> DerefMut for Exclusive<T> {
    fn deref_mut(&mut self) -> &mut T::Value {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { &mut *(*self.0).handle().value.get() }
    }
}

impl<T: Opaque> Drop for Exclusive<T> {
    fn drop(&mut self) {
        // SAFETY: this guard is the use, and ends here.
        unsafe { leave(self.0, EXCLUSIVE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct Thing {
        handle: Handle<Arc<u32>>,
    }

    impl Opaque for Thing {
        type Value = Arc<u32>;
        const NAME: &'static str = "thing";
        fn handle(&self) -> &Handle<Arc<u32>> {
            &self.handle
        }
    }

    fn thing() -> (*mut Thing, Arc<u32>) {
        let value = Arc::new(7);
        let handle = Handle::new(Arc::clone(&value));
        (into_raw(Thing { handle }), value)
    }

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let (raw, value) = thing();
        // SAFETY: `raw` lives until the free below.
        unsafe {
            let one = shared(raw).unwrap();
            let two = shared(raw).unwrap();
            assert_eq!(**one + **two, 14);
            assert_eq!(exclusive(raw).err().unwrap().status(), Status::Busy);
            drop((one, two));
            let alone = exclusive(raw).unwrap();
            assert_eq!(shared(raw).err().unwrap().status(), Status::Busy);
            assert_eq!(exclusive(raw).err().unwrap().status(), Status::Busy);
            drop(alone);
            drop(exclusive(raw).unwrap());
            free(raw);
        }
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_free_during_a_call_waits_for_its_end() {
        let (raw, value) = thing();
        // SAFETY: `raw` lives until the last use ends.
        unsafe {
            let one = shared(raw).unwrap();
            let two = shared(raw).unwrap();
            free(raw);
            drop(one);
            assert_eq!(Arc::strong_count(&value), 2);
            let refused = shared(raw).err().unwrap();
            assert_eq!(refused.message(), "the thing was freed");
            drop(two);
        }
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn a_panic_during_a_call_poisons() {
        let (raw, _) = thing();
        let address = raw.expose_provenance();
        std::thread::spawn(move || {
            // SAFETY: `raw` lives; the address is the exposed one.
            let _use = unsafe { exclusive(std::ptr::with_exposed_provenance_mut::<Thing>(address)) }.unwrap();
            // Unwinds without a message on stderr.
            std::panic::resume_unwind(Box::new("on purpose"));
        })
        .join()
        .unwrap_err();
        // SAFETY: `raw` lives until the free.
        unsafe {
            let refused = shared(raw).err().unwrap();
            assert_eq!(refused.status(), Status::Panic);
            assert_eq!(exclusive(raw).err().unwrap().status(), Status::Panic);
            free(raw);
        }
    }

    #[test]
    fn null_is_an_error_and_may_be_freed() {
        // SAFETY: NULL is allowed.
        unsafe {
            let refused = shared::<Thing>(std::ptr::null()).err().unwrap();
            assert_eq!(refused.message(), "thing is NULL");
            free::<Thing>(std::ptr::null_mut());
        }
    }
}
