//! Aligned memory whose allocation can fail, from the system or from the host's own allocator.

use super::error::{Error, Result};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Alignment of every buffer: a cache line and a 512-bit vector.
pub const ALIGNMENT: usize = 64;

/// From this size on, buffers are aligned to, and advised as, huge pages.
const HUGE_PAGE: usize = 2 << 20;

/// The host's allocation functions.
#[derive(Clone, Copy)]
pub struct HostAllocator {
    /// Returns `size` bytes aligned to `alignment`, or NULL.
    pub allocate: unsafe extern "C" fn(user_data: *mut c_void, size: usize, alignment: usize) -> *mut c_void,
    /// Takes back what `allocate` gave, with the same size and alignment.
    pub free:
        unsafe extern "C" fn(user_data: *mut c_void, memory: *mut c_void, size: usize, alignment: usize),
    /// Handed to both.
    pub user_data: *mut c_void,
}

// SAFETY: the C API demands that both functions and `user_data` may be used from any thread.
unsafe impl Send for HostAllocator {}
// SAFETY: as above.
unsafe impl Sync for HostAllocator {}

/// Where buffers come from. Counts what is held; clones share the counters.
#[derive(Clone, Default)]
pub struct Allocator {
    host: Option<HostAllocator>,
    small_pages: bool,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Counters {
    held: AtomicU64,
    peak: AtomicU64,
}

impl Allocator {
    /// The system's allocator.
    pub fn system() -> Allocator {
        Allocator::default()
    }

    /// The host's functions.
    pub fn host(host: HostAllocator) -> Allocator {
        Allocator {
            host: Some(host),
            ..Allocator::default()
        }
    }

    /// The same, but large buffers are not advised as huge pages.
    pub fn with_small_pages(self) -> Allocator {
        Allocator {
            small_pages: true,
            ..self
        }
    }

    /// Bytes held now in buffers of this allocator.
    pub fn held(&self) -> u64 {
        self.counters.held.load(Ordering::Relaxed)
    }

    /// The largest number of bytes ever held at once.
    pub fn peak(&self) -> u64 {
        self.counters.peak.load(Ordering::Relaxed)
    }

    /// `size` zeroed bytes, aligned to at least [`ALIGNMENT`].
    pub fn buffer(&self, size: usize) -> Result<Buffer> {
        if size == 0 {
            return Ok(Buffer {
                memory: NonNull::<Line>::dangling().cast(),
                size: 0,
                alignment: ALIGNMENT,
                allocator: self.clone(),
            });
        }
        let alignment = if size >= HUGE_PAGE { HUGE_PAGE } else { ALIGNMENT };
        let refused = || Error::no_memory(format!("cannot allocate {size} bytes"));
        let layout = std::alloc::Layout::from_size_align(size, alignment).map_err(|_| refused())?;
        let memory = match self.host {
            // SAFETY: the host promised an allocator; size and alignment are valid.
            Some(host) => unsafe { (host.allocate)(host.user_data, size, alignment).cast::<u8>() },
            // SAFETY: the layout has a size above zero.
            None if size < HUGE_PAGE => unsafe { std::alloc::alloc_zeroed(layout) },
            // SAFETY: as above. `alloc_zeroed` with a large alignment would write every page before
            // it is advised; fresh pages are zeroed below instead.
            None => unsafe { std::alloc::alloc(layout) },
        };
        let memory = NonNull::new(memory).ok_or_else(refused)?;
        if memory.as_ptr().addr() % ALIGNMENT != 0 {
            if let Some(host) = self.host {
                // SAFETY: the pointer came from this allocator with this size and alignment.
                unsafe { (host.free)(host.user_data, memory.as_ptr().cast(), size, alignment) };
            }
            return Err(Error::invalid(format!(
                "the host's allocator returned memory that is not aligned to {alignment} bytes"
            )));
        }
        if size >= HUGE_PAGE && !self.small_pages {
            advise_huge_pages(memory, size);
        }
        if self.host.is_some() || size >= HUGE_PAGE {
            // SAFETY: the allocation is `size` bytes long.
            unsafe { memory.as_ptr().write_bytes(0, size) };
        }
        let held = self.counters.held.fetch_add(size as u64, Ordering::Relaxed) + size as u64;
        self.counters.peak.fetch_max(held, Ordering::Relaxed);
        Ok(Buffer {
            memory,
            size,
            alignment,
            allocator: self.clone(),
        })
    }
}

fn advise_huge_pages(memory: NonNull<u8>, size: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: advice on a range that this process owns; it changes no contents. A refusal costs speed only.
    unsafe {
        libc::madvise(memory.as_ptr().cast(), size, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (memory, size);
}

#[repr(align(64))]
struct Line;

/// Plain values that may hold any bit pattern and have no padding.
///
/// # Safety
/// Every bit pattern must be valid, without padding, at an alignment of at most [`ALIGNMENT`].
pub unsafe trait Plain: Copy + Send + Sync + 'static {}
macro_rules! plain {
    ($($t:ty),*) => { $(
        // SAFETY: a primitive number.
        unsafe impl Plain for $t {}
    )* };
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, [u32; 4]);

/// An owned block of aligned bytes.
pub struct Buffer {
    memory: NonNull<u8>,
    size: usize,
    alignment: usize,
    allocator: Allocator,
}

// SAFETY: the memory is owned, like a `Vec<u8>`.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `size` initialized bytes are owned.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.size) }
    }

    /// The bytes, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.size) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.size == 0 {
            return;
        }
        self.allocator
            .counters
            .held
            .fetch_sub(self.size as u64, Ordering::Relaxed);
        match self.allocator.host {
            // SAFETY: the pointer came from this allocator with this size and alignment.
            Some(host) => unsafe {
                (host.free)(
                    host.user_data,
                    self.memory.as_ptr().cast(),
                    self.size,
                    self.alignment,
                );
            },
            // SAFETY: the layout is the one of the allocation.
            None => unsafe {
                let layout = std::alloc::Layout::from_size_align_unchecked(self.size, self.alignment);
                std::alloc::dealloc(self.memory.as_ptr(), layout);
            },
        }
    }
}

/// Bytes seen as values of `T`; the length must divide evenly and the start be aligned, or the result is empty-safe `None`.
pub fn cast<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    let size = size_of::<T>();
    if !bytes.len().is_multiple_of(size) || !bytes.as_ptr().addr().is_multiple_of(align_of::<T>()) {
        return None;
    }
    // SAFETY: aligned, long enough, any bit pattern is valid for `Plain`.
    Some(unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size) })
}

/// Like [`cast`], to write.
pub fn cast_mut<T: Plain>(bytes: &mut [u8]) -> Option<&mut [T]> {
    let size = size_of::<T>();
    if !bytes.len().is_multiple_of(size) || !bytes.as_ptr().addr().is_multiple_of(align_of::<T>()) {
        return None;
    }
    // SAFETY: as in `cast`, and the bytes are borrowed mutably.
    Some(unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / size) })
}
