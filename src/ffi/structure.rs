//! Structures that grow: each begins with `struct_size`, and later versions only append fields.
//!
//! A caller built against another header passes another size. A smaller one that was once ours is a prefix
//! of today's structure. A larger one is served when everything beyond today's structure is zero, which
//! every later field must accept as "as before".

use crate::base::error::{Error, Result, Status};

/// The largest `struct_size` that is believed: anything above is a structure that was not initialized.
const LARGEST: usize = 4096;

/// A C structure whose first field is `struct_size`.
///
/// # Safety
/// `repr(C)`, begins with a `usize`, and every pattern of bytes is a valid value but for function pointers
/// in `Option`, which the caller of the C function vouches for.
pub unsafe trait Structure: Copy {
    /// The name in C.
    const NAME: &'static str;
    /// `sizeof` in earlier versions of the header.
    const EARLIER_SIZES: &'static [usize];
    /// The defaults.
    fn defaults() -> Self;
}

fn check<T: Structure>(size: usize) -> Result<()> {
    let ours = size_of::<T>();
    if size == ours || T::EARLIER_SIZES.contains(&size) || (size > ours && size <= LARGEST) {
        return Ok(());
    }
    Err(Error::new(
        Status::AbiMismatch,
        format!(
            "{}.struct_size is {size}, expected {ours}: was the structure initialized, and does the header \
             belong to this library?",
            T::NAME
        ),
    ))
}

fn address<T: Structure>(pointer: *const T) -> Result<()> {
    if pointer.is_null() {
        return Err(Error::invalid(format!("{} is NULL", T::NAME)));
    }
    if !pointer.addr().is_multiple_of(align_of::<T>()) {
        return Err(Error::invalid(format!(
            "{} is not aligned to {} bytes",
            T::NAME,
            align_of::<T>()
        )));
    }
    Ok(())
}

/// Fills a caller's structure of `size` bytes with the defaults.
///
/// # Safety
/// `pointer` is NULL or may be written for `size` bytes.
pub unsafe fn initialize<T: Structure>(pointer: *mut T, size: usize) -> Result<()> {
    address(pointer)?;
    check::<T>(size)?;
    // SAFETY: not NULL, aligned, and as large as the caller promises.
    unsafe { put(pointer, size, T::defaults()) };
    Ok(())
}

/// Reads a caller's structure; NULL gives the defaults.
///
/// # Safety
/// `pointer` is NULL or points to as many bytes as its `struct_size` says.
pub unsafe fn read<T: Structure>(pointer: *const T) -> Result<T> {
    let mut value = T::defaults();
    if pointer.is_null() {
        return Ok(value);
    }
    address(pointer)?;
    // SAFETY: the structure begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    check::<T>(size)?;
    let ours = size_of::<T>();
    // SAFETY: at least `min(size, ours)` bytes stand on both sides; the value is ours alone.
    unsafe {
        std::ptr::copy_nonoverlapping(
            pointer.cast::<u8>(),
            std::ptr::from_mut(&mut value).cast::<u8>(),
            size.min(ours),
        );
    }
    for at in ours..size {
        // SAFETY: below `size`.
        if unsafe { pointer.cast::<u8>().add(at).read() } != 0 {
            return Err(Error::new(
                Status::AbiMismatch,
                format!(
                    "{} uses a field that this library does not know: byte {at} of {size} is not zero, and \
                     the library knows {ours} bytes",
                    T::NAME
                ),
            ));
        }
    }
    Ok(value)
}

/// Checks that a result can be written to a caller's structure, before any work is done for it.
///
/// # Safety
/// `pointer` is NULL or points to a structure whose `struct_size` is set and which may be written for `'a`.
pub unsafe fn output<'a, T: Structure>(pointer: *mut T) -> Result<Output<'a, T>> {
    address(pointer)?;
    // SAFETY: the structure begins with its size.
    let size = unsafe { pointer.cast::<usize>().read() };
    check::<T>(size)?;
    Ok(Output {
        pointer,
        size,
        lives: std::marker::PhantomData,
    })
}

/// Like [`output`]; NULL when the caller does not want the result.
///
/// # Safety
/// As for [`output`].
pub unsafe fn optional_output<'a, T: Structure>(pointer: *mut T) -> Result<Option<Output<'a, T>>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    unsafe { output(pointer) }.map(Some)
}

/// A checked place for a result.
pub struct Output<'a, T: Structure> {
    pointer: *mut T,
    size: usize,
    lives: std::marker::PhantomData<&'a mut T>,
}

impl<T: Structure> Output<'_, T> {
    /// Writes the result; fields that the library does not know become zero.
    pub fn write(self, value: T) {
        // SAFETY: checked by `output`, whose caller promised the rest.
        unsafe { put(self.pointer, self.size, value) }
    }
}

/// # Safety
/// `pointer` may be written for `size` bytes and is aligned; `size` is at least that of a `usize`.
unsafe fn put<T: Structure>(pointer: *mut T, size: usize, value: T) {
    let ours = size_of::<T>();
    // SAFETY: within `size` bytes, as promised; the value is ours alone.
    unsafe {
        if size > ours {
            pointer.cast::<u8>().add(ours).write_bytes(0, size - ours);
        }
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(&value).cast::<u8>(),
            pointer.cast::<u8>(),
            size.min(ours),
        );
        pointer.cast::<usize>().write(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Options {
        struct_size: usize,
        first: u64,
        later: u64,
    }

    // SAFETY: plain numbers.
    unsafe impl Structure for Options {
        const NAME: &'static str = "options";
        const EARLIER_SIZES: &'static [usize] = &[16];
        fn defaults() -> Options {
            Options {
                struct_size: size_of::<Options>(),
                first: 1,
                later: 2,
            }
        }
    }

    #[repr(C)]
    struct Newer {
        known: Options,
        unknown: u64,
    }

    fn newer(size: usize, unknown: u64) -> Newer {
        Newer {
            known: Options {
                struct_size: size,
                first: 10,
                later: 20,
            },
            unknown,
        }
    }

    fn parse(newer: &Newer) -> Result<Options> {
        // SAFETY: the structure is as large as the tests' sizes say, or the size is refused.
        unsafe { read(std::ptr::from_ref(newer).cast::<Options>()) }
    }

    #[test]
    fn an_earlier_caller_gets_defaults_for_later_fields() {
        let options = parse(&newer(16, 0)).unwrap();
        assert_eq!((options.first, options.later), (10, 2));
        // SAFETY: NULL is allowed.
        let defaults = unsafe { read::<Options>(std::ptr::null()) };
        assert_eq!(defaults.unwrap(), Options::defaults());
    }

    #[test]
    fn a_later_caller_is_served_when_it_asks_for_nothing_new() {
        assert_eq!(parse(&newer(32, 0)).unwrap().later, 20);
        let refused = parse(&newer(32, 1 << 40)).unwrap_err();
        assert_eq!(refused.status(), Status::AbiMismatch);
        assert!(refused.message().contains("byte 29 of 32"), "{refused}");
    }

    #[test]
    fn other_sizes_are_refused() {
        for size in [0, 8, 15, 17, 23, LARGEST + 1, usize::MAX] {
            assert_eq!(parse(&newer(size, 0)).unwrap_err().status(), Status::AbiMismatch);
        }
    }

    #[test]
    fn results_respect_the_callers_size() {
        for (size, later, unknown) in [(16, 20, 9), (24, 6, 9), (32, 6, 0)] {
            let mut place = newer(size, 9);
            let value = Options {
                struct_size: 0,
                first: 5,
                later: 6,
            };
            // SAFETY: the place is 32 bytes large.
            unsafe { output(std::ptr::from_mut(&mut place).cast::<Options>()) }
                .unwrap()
                .write(value);
            assert_eq!(place.known.struct_size, size);
            assert_eq!(
                (place.known.first, place.known.later, place.unknown),
                (5, later, unknown)
            );
            // SAFETY: as above.
            unsafe { initialize(std::ptr::from_mut(&mut place).cast::<Options>(), size) }.unwrap();
            assert_eq!((place.known.struct_size, place.known.first), (size, 1));
        }
    }
}
