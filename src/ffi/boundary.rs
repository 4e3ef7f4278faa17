//! The border between C and Rust: every exported function goes through [`call`] or [`quietly`], and every
//! pointer through one of the checks here.

use super::status::{MANTLE_OK, mantle_error, mantle_status};
use crate::base::error::{Error, Result, Status};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};

/// Runs the body of an exported function: catches panics, makes the error object.
///
/// # Safety
/// `error` is NULL or may be written.
pub unsafe fn call(error: *mut *mut mantle_error, body: impl FnOnce() -> Result<()>) -> mantle_status {
    if !error.is_null() {
        // SAFETY: writable, as the caller promises.
        unsafe { error.write(std::ptr::null_mut()) };
    }
    let failure = match caught(body) {
        Ok(()) => return MANTLE_OK,
        Err(failure) => failure,
    };
    let status = failure.status() as mantle_status;
    if !error.is_null() {
        let object = caught(|| Ok(Box::into_raw(Box::new(mantle_error::new(&failure)))));
        if let Ok(object) = object {
            // SAFETY: writable, as the caller promises.
            unsafe { error.write(object) };
        }
    }
    status
}

/// Runs the body of an exported function that has no way to report a failure, such as a free.
pub fn quietly(body: impl FnOnce()) {
    let _ = caught(|| {
        body();
        Ok(())
    });
}

thread_local! {
    /// How many exported functions this thread is inside of (a callback may call another one).
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// Where the panic happened that is on its way to `caught`.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

fn caught<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    collect_panics();
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    // Unwind safety: objects in use are poisoned by their guards, and everything else is dropped.
    let result = catch_unwind(AssertUnwindSafe(body));
    DEPTH.with(|depth| depth.set(depth.get() - 1));
    result.unwrap_or_else(|payload| Err(defect(payload.as_ref())))
}

fn defect(payload: &(dyn Any + Send)) -> Error {
    let what = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    let place = PLACE.with(RefCell::take);
    let place = if place.is_empty() {
        "an unknown place".to_string()
    } else {
        place
    };
    let worker = WORKER_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    let worker = worker.map(|text| format!(" ({text})")).unwrap_or_default();
    Error::new(
        Status::Panic,
        format!("a defect of libmantle was caught at {place}: {what}{worker}; please report it"),
    )
}

/// The last panic of a worker thread, which the pool raises again on the calling thread without its text.
/// Only for the message: when two runtimes panic at once, one may tell the other's.
static WORKER_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Rust prints panics to stderr before they unwind. A library must not print: panics inside this library's
/// calls and worker threads are taken down instead, and become error objects. Others go where they went.
fn collect_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let others = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if DEPTH.with(Cell::get) > 0 {
                let place = info.location().map(ToString::to_string).unwrap_or_default();
                PLACE.with(|held| held.replace(place));
            } else if is_worker() {
                let mut held = WORKER_PANIC.lock().unwrap_or_else(PoisonError::into_inner);
                *held = Some(info.to_string());
            } else {
                others(info);
            }
        }));
    });
}

/// Whether this thread belongs to a runtime's pool, whose threads carry the library's name.
fn is_worker() -> bool {
    std::thread::current()
        .name()
        .is_some_and(|name| name.starts_with("mantle"))
}

/// A pointer that the call writes through when it succeeds.
///
/// # Safety
/// `pointer` is NULL or may be written for `'a`.
pub unsafe fn output<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut std::mem::MaybeUninit<T>> {
    aligned(pointer, name)?;
    // SAFETY: not NULL, aligned; memory to be written is a valid `MaybeUninit`.
    unsafe { pointer.cast::<std::mem::MaybeUninit<T>>().as_mut() }.ok_or_else(|| null(name))
}

/// A pointer to a new object: set to NULL now, so that it is NULL when the call fails.
///
/// # Safety
/// `pointer` is NULL or may be written for `'a`.
pub unsafe fn output_object<'a, T>(pointer: *mut *mut T, name: &str) -> Result<&'a mut *mut T> {
    // SAFETY: as the caller promises.
    let place = unsafe { output(pointer, name)? };
    Ok(place.write(std::ptr::null_mut()))
}

/// `count` values to read. NULL is allowed for none.
///
/// # Safety
/// `pointer` is NULL or points to `count` values that nobody writes during `'a`.
pub unsafe fn slice<'a, T>(pointer: *const T, count: usize, name: &str) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    extent(pointer, count, name)?;
    // SAFETY: not NULL, aligned, not larger than an allocation can be; the values are the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// `count` values to write. NULL is allowed for none. The values must be initialized numbers.
///
/// # Safety
/// `pointer` is NULL or points to `count` values that nobody else uses during `'a`.
pub unsafe fn slice_mut<'a, T>(pointer: *mut T, count: usize, name: &str) -> Result<&'a mut [T]> {
    if count == 0 {
        return Ok(&mut []);
    }
    extent(pointer, count, name)?;
    // SAFETY: as in `slice`, and the caller promises exclusive use.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

/// UTF-8 text.
///
/// # Safety
/// As for [`slice`].
pub unsafe fn text<'a>(pointer: *const std::ffi::c_char, length: usize, name: &str) -> Result<&'a str> {
    // SAFETY: as the caller promises; `c_char` and `u8` are alike.
    let bytes = unsafe { slice(pointer.cast::<u8>(), length, name)? };
    utf8(bytes, name)
}

/// `bytes` as text; the error names the first byte that is wrong.
pub fn utf8<'a>(bytes: &'a [u8], name: &str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or_default();
        let how = match error.error_len() {
            None => "the text ends inside a character",
            Some(_) => "no character begins or continues so",
        };
        Error::invalid(format!(
            "{name} is not valid UTF-8: byte 0x{byte:02x} at index {at} of {}: {how}",
            bytes.len()
        ))
    })
}

/// Copies `from` to an output buffer whose size may not suffice; `size` then tells what is needed.
///
/// # Safety
/// `to` is NULL or may be written for `capacity` values; `size` is NULL or may be written.
pub unsafe fn copy_out<T: Copy>(
    from: &[T],
    to: *mut T,
    capacity: usize,
    size: *mut usize,
    name: &str,
) -> Result<()> {
    // SAFETY: as the caller promises.
    let size = unsafe { output(size, "size")? };
    if capacity > 0 {
        extent(to, capacity, name)?;
    }
    size.write(from.len());
    if from.len() > capacity {
        return Err(Error::new(
            Status::BufferTooSmall,
            format!("{name} has room for {capacity}, {} are needed", from.len()),
        ));
    }
    if !from.is_empty() {
        // SAFETY: `to` is not NULL and aligned (checked above, since the capacity is not 0) and has room.
        // The source belongs to the library, so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }
    Ok(())
}

/// Offsets that divide `[0, total)` into parts: `count + 1` numbers that start at 0 and never fall.
///
/// # Safety
/// `pointer` is NULL or points to `count + 1` values that nobody writes during `'a`.
pub unsafe fn offsets<'a>(pointer: *const usize, count: usize) -> Result<&'a [usize]> {
    let length = count
        .checked_add(1)
        .ok_or_else(|| Error::invalid(format!("count is {count}, too large")))?;
    // SAFETY: as the caller promises.
    let offsets = unsafe { slice(pointer, length, "offsets")? };
    if let Some(&first) = offsets.first()
        && first != 0
    {
        return Err(Error::invalid(format!("offsets[0] is {first}, expected 0")));
    }
    for (i, pair) in offsets.windows(2).enumerate() {
        if let &[low, high] = pair
            && low > high
        {
            return Err(Error::invalid(format!(
                "offsets[{}] is {high}, below offsets[{i}], which is {low}: offsets must never fall",
                i + 1
            )));
        }
    }
    Ok(offsets)
}

fn null(name: &str) -> Error {
    Error::invalid(format!("{name} is NULL"))
}

fn aligned<T>(pointer: *const T, name: &str) -> Result<()> {
    if !pointer.addr().is_multiple_of(align_of::<T>()) {
        return Err(Error::invalid(format!(
            "{name} is not aligned to {} bytes",
            align_of::<T>()
        )));
    }
    Ok(())
}

fn extent<T>(pointer: *const T, count: usize, name: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(Error::invalid(format!(
            "{name} is NULL, but its count is {count}"
        )));
    }
    aligned(pointer, name)?;
    let fits = count
        .checked_mul(size_of::<T>())
        .is_some_and(|bytes| bytes <= isize::MAX.unsigned_abs());
    if !fits {
        return Err(Error::invalid(format!(
            "{name} has a count of {count}, more than memory can hold"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::status::*;
    use std::ffi::CStr;

    #[test]
    fn a_panic_becomes_a_status_with_its_place() {
        let mut error = std::ptr::null_mut();
        // SAFETY: `error` may be written; the object is freed once.
        unsafe {
            let status = call(&mut error, || {
                let empty: &[u8] = &[];
                let beyond = std::hint::black_box(3);
                let _ = empty[beyond];
                Ok(())
            });
            assert_eq!(status, MANTLE_ERROR_PANIC);
            let message = CStr::from_ptr(mantle_error_message(error)).to_str().unwrap();
            assert!(message.contains("boundary.rs:"), "{message}");
            assert!(message.contains("index out of bounds"), "{message}");
            mantle_error_free(error);
            // Without an error pointer, and again on the same thread.
            let status = call(std::ptr::null_mut(), || panic!("on purpose"));
            assert_eq!(status, MANTLE_ERROR_PANIC);
            assert_eq!(call(&mut error, || Ok(())), MANTLE_OK);
            assert!(error.is_null());
        }
    }

    #[test]
    fn a_panic_on_a_worker_thread_is_told_too() {
        use crate::base::threads::Pool;
        let pool = Pool::new(2, std::time::Duration::ZERO, &[]).unwrap();
        let outside = std::thread::current().id();
        let mut error = std::ptr::null_mut();
        // SAFETY: `error` may be written; the object is freed once.
        unsafe {
            let status = call(&mut error, || {
                // Enough slow chunks that the worker gets some of them.
                pool.run(64, &|_, _| {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    assert_eq!(std::thread::current().id(), outside, "on purpose");
                });
                Ok(())
            });
            assert_eq!(status, MANTLE_ERROR_PANIC);
            let message = CStr::from_ptr(mantle_error_message(error)).to_str().unwrap();
            assert!(message.contains("on purpose"), "{message}");
            assert!(message.contains("boundary.rs:"), "{message}");
            mantle_error_free(error);
        }
    }

    #[test]
    fn offsets_must_start_at_0_and_never_fall() {
        let check = |numbers: &[usize]| {
            // SAFETY: the slice lives during the call.
            unsafe { offsets(numbers.as_ptr(), numbers.len() - 1) }.map(<[usize]>::len)
        };
        assert_eq!(check(&[0, 2, 2, 5]), Ok(4));
        assert!(check(&[1, 2]).unwrap_err().message().contains("offsets[0] is 1"));
        assert!(
            check(&[0, 3, 2])
                .unwrap_err()
                .message()
                .contains("offsets[2] is 2")
        );
        // SAFETY: NULL and an impossible count are refused before anything is read.
        unsafe {
            assert!(offsets(std::ptr::null(), 0).is_err());
            assert!(offsets(std::ptr::null(), usize::MAX).is_err());
        }
    }

    #[test]
    fn counts_that_no_memory_holds_are_refused() {
        let value = 0_u64;
        // SAFETY: refused before anything is read.
        unsafe {
            assert!(slice(&value, usize::MAX, "x").is_err());
            assert!(slice(&value, usize::MAX / 8, "x").is_err());
            assert!(slice::<u64>(std::ptr::null(), 0, "x").is_ok());
            let odd = std::ptr::from_ref(&value).byte_add(1);
            assert!(slice(odd, 1, "x").unwrap_err().message().contains("aligned"));
        }
    }

    #[test]
    fn wrong_utf8_is_named_by_its_byte() {
        let error = utf8(b"ab\xffcd", "text").unwrap_err();
        assert!(error.message().contains("byte 0xff at index 2 of 5"), "{error}");
        let error = utf8("grün".as_bytes().get(..3).unwrap(), "text").unwrap_err();
        assert!(
            error.message().contains("index 2 of 3: the text ends inside"),
            "{error}"
        );
    }
}
