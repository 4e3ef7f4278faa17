//! ------------------------------------------------------------------------------------------------
//! Arena: the memory of one session, taken once
//! ------------------------------------------------------------------------------------------------

use super::boundary::{self, call};
use super::handle::{self, Handle, Opaque};
use super::runtime::mantle_runtime;
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use crate::base::error::{Error, Result, Status};
use crate::base::memory::{ALIGNMENT, Allocator, Buffer, HostAllocator};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A block of memory that serves one session at a time. mantle_session_bytes tells how much a session
/// needs. When its session is freed, the arena may serve another one, so that a program can take all its
/// memory at the start.
pub struct mantle_arena {
    handle: Handle<Arc<Block>>,
}

impl Opaque for mantle_arena {
    type Value = Arc<Block>;
    const NAME: &'static str = "arena";
    fn handle(&self) -> &Handle<Arc<Block>> {
        &self.handle
    }
}

/// The memory of an arena; a session that uses it holds it alive.
pub struct Block {
    start: NonNull<u8>,
    bytes: usize,
    lent: AtomicBool,
    used: AtomicU64,
    peak: AtomicU64,
    /// Holds the memory, unless it is the caller's.
    _owned: Option<Buffer>,
}

// SAFETY: the memory is reached only through the one buffer that `lend` gives at a time.
unsafe impl Send for Block {}
// SAFETY: as above; the flags are atomic.
unsafe impl Sync for Block {}

/// What an arena holds and how much of it is used.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_arena_info {
    /// sizeof(mantle_arena_info), set by the caller.
    pub struct_size: usize,
    /// Size of the arena in bytes.
    pub bytes: u64,
    /// Bytes that the session in it uses; 0 when there is none.
    pub used: u64,
    /// The largest `used` so far.
    pub peak: u64,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_arena_info {
    const NAME: &'static str = "mantle_arena_info";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_arena_info {
            struct_size: size_of::<Self>(),
            bytes: 0,
            used: 0,
            peak: 0,
        }
    }
}

/// Makes an arena of `bytes` bytes from the runtime's allocator. Free it with mantle_arena_free. Any thread.
/// Errors: INVALID_ARGUMENT (0 bytes), NO_MEMORY.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_arena_new(
    runtime: *const mantle_runtime,
    bytes: usize,
    out: *mut *mut mantle_arena,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        if bytes == 0 {
            return Err(Error::invalid(
                "bytes is 0, expected what mantle_session_bytes tells",
            ));
        }
        let mut buffer = runtime.allocator().buffer(bytes)?;
        let start = NonNull::from(buffer.bytes_mut()).cast::<u8>();
        *out = handle::into_raw(mantle_arena::new(start, bytes, Some(buffer)));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Makes an arena of the caller's memory: `bytes` bytes at `memory`, aligned to 64. The memory must stay
/// until the arena and the session in it are freed; nothing else may touch it meanwhile. Free the arena with
/// mantle_arena_free, which leaves the memory alone. Any thread.
/// Errors: INVALID_ARGUMENT (0 bytes, memory not aligned).
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_arena_wrap(
    memory: *mut c_void,
    bytes: usize,
    out: *mut *mut mantle_arena,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        let start = NonNull::new(memory.cast::<u8>()).ok_or_else(|| Error::invalid("memory is NULL"))?;
        if bytes == 0 || bytes > isize::MAX.unsigned_abs() {
            return Err(Error::invalid(format!(
                "bytes is {bytes}, expected what mantle_session_bytes tells"
            )));
        }
        if !start.addr().get().is_multiple_of(ALIGNMENT) {
            return Err(Error::invalid(format!(
                "memory is not aligned to {ALIGNMENT} bytes"
            )));
        }
        *out = handle::into_raw(mantle_arena::new(start, bytes, None));
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells size and use of the arena. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_arena_get_info(
    arena: *const mantle_arena,
    info: *mut mantle_arena_info,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let arena = unsafe { handle::shared(arena)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let info = unsafe { structure::output(info)? };
        info.write(mantle_arena_info {
            bytes: arena.bytes as u64,
            used: arena.used.load(Ordering::Relaxed),
            peak: arena.peak.load(Ordering::Relaxed),
            ..mantle_arena_info::defaults()
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Frees the arena. A session in it goes on: its memory is released with it. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_arena_free(arena: *mut mantle_arena) {
    // SAFETY: NULL or a living object that nobody uses afterwards, as the header demands.
    boundary::quietly(|| unsafe { handle::free(arena) });
}

impl mantle_arena {
    fn new(start: NonNull<u8>, bytes: usize, owned: Option<Buffer>) -> mantle_arena {
        mantle_arena {
            handle: Handle::new(Arc::new(Block {
                start,
                bytes,
                lent: AtomicBool::new(false),
                used: AtomicU64::new(0),
                peak: AtomicU64::new(0),
                _owned: owned,
            })),
        }
    }
}

/// The whole block as a buffer, until that is dropped. Busy when it is lent already.
pub(super) fn lend(block: &Arc<Block>) -> Result<Buffer> {
    if block.lent.swap(true, Ordering::Acquire) {
        return Err(Error::new(
            Status::Busy,
            "the arena holds another session; free that first, or make a second arena",
        ));
    }
    // A buffer knows one way back to where it came from: an allocator. This one has a single piece to give.
    let user_data = Arc::into_raw(Arc::clone(block)).cast_mut().cast::<c_void>();
    let allocator = Allocator::host(HostAllocator {
        allocate: give,
        free: take_back,
        user_data,
    });
    allocator.buffer(block.bytes).inspect_err(|_| {
        // SAFETY: `give` cannot fail, so the failure came before it was called, and `take_back` never will be.
        unsafe { take_back(user_data, std::ptr::null_mut(), 0, 0) };
    })
}

/// Notes how many bytes the session in the block uses.
pub(super) fn note_use(block: &Block, bytes: u64) {
    block.used.store(bytes, Ordering::Relaxed);
    block.peak.fetch_max(bytes, Ordering::Relaxed);
}

unsafe extern "C" fn give(block: *mut c_void, _size: usize, _alignment: usize) -> *mut c_void {
    // SAFETY: `lend` made the pointer from an `Arc` that is still held.
    unsafe { (*block.cast::<Block>()).start.as_ptr().cast() }
}

unsafe extern "C" fn take_back(block: *mut c_void, _memory: *mut c_void, _size: usize, _alignment: usize) {
    // SAFETY: `lend` made the pointer from an `Arc`; the one buffer is dropped once.
    let block = unsafe { Arc::from_raw(block.cast::<Block>().cast_const()) };
    block.used.store(0, Ordering::Relaxed);
    block.lent.store(false, Ordering::Release);
}
