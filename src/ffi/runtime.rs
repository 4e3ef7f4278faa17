//! ------------------------------------------------------------------------------------------------
//! Runtime: threads, memory, log, instruction set
//! ------------------------------------------------------------------------------------------------

use super::boundary::{self, call};
use super::handle::{self, Handle, Opaque};
use super::status::{mantle_error, mantle_status};
use super::structure::{self, Structure};
use crate::base::caches::Caches;
use crate::base::error::{Error, Result};
use crate::base::memory::{Allocator, HostAllocator};
use crate::kernels::Isa;
use crate::ops::runtime::{LogFn, LogLevel, Runtime, RuntimeOptions};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

/// A pool of threads, the memory and the log that models and sessions share. A program needs one; several
/// do not disturb each other. Several threads may use one runtime at once: the pool then serves one of
/// them, and the others compute alone meanwhile.
pub struct mantle_runtime {
    handle: Handle<Arc<Runtime>>,
}

impl Opaque for mantle_runtime {
    type Value = Arc<Runtime>;
    const NAME: &'static str = "runtime";
    fn handle(&self) -> &Handle<Arc<Runtime>> {
        &self.handle
    }
}

/// As many threads as the process may use: its affinity mask and its cgroup's quota.
pub const MANTLE_THREADS_AUTO: u32 = 0xffff_ffff;
/// Words of mantle_runtime_options.cpus, 64 CPUs each.
pub const MANTLE_CPU_WORDS: usize = 16;

/// The best instruction set that the processor has.
pub const MANTLE_ISA_BEST: i32 = 0;
/// No vector instructions asked for: runs everywhere, slowly.
pub const MANTLE_ISA_SCALAR: i32 = 1;
/// x86 AVX2 and FMA.
pub const MANTLE_ISA_AVX2: i32 = 2;
/// x86 AVX2, FMA and AVX-VNNI.
pub const MANTLE_ISA_AVXVNNI: i32 = 3;
/// x86 AVX-512 (F, BW, DQ, VL), with VNNI and BF16 where the processor has them.
pub const MANTLE_ISA_AVX512: i32 = 4;
/// Arm NEON, as every aarch64 has it.
pub const MANTLE_ISA_NEON: i32 = 5;
/// Arm NEON with dot products of signed bytes (Armv8.2 dotprod).
pub const MANTLE_ISA_NEON_DOTPROD: i32 = 6;
/// Arm NEON with dot products of unsigned and signed bytes (Armv8.6 i8mm).
pub const MANTLE_ISA_NEON_I8MM: i32 = 7;

/// No messages.
pub const MANTLE_LOG_OFF: i32 = 0;
/// What failed in a way that no call could report.
pub const MANTLE_LOG_ERROR: i32 = 1;
/// What works, but probably not as intended.
pub const MANTLE_LOG_WARNING: i32 = 2;
/// What was chosen and how long it took: a few lines per model.
pub const MANTLE_LOG_INFO: i32 = 3;
/// Everything.
pub const MANTLE_LOG_DEBUG: i32 = 4;

/// Gets one message: its MANTLE_LOG_* level, the part of the library it comes from, and the text, both
/// UTF-8 and not closed by NUL. May be called from any thread, also from several at once.
pub type mantle_log_fn = Option<
    unsafe extern "C" fn(
        user_data: *mut c_void,
        level: i32,
        target: *const c_char,
        target_length: usize,
        message: *const c_char,
        message_length: usize,
    ),
>;

/// Gives `size` bytes aligned to `alignment` (a power of two, at most 2 MiB), or NULL. The contents do not
/// matter. May be called from any thread, also from several at once.
pub type mantle_allocate_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, size: usize, alignment: usize) -> *mut c_void>;

/// Takes back what mantle_allocate_fn gave, with the same size and alignment. From any thread.
pub type mantle_release_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, memory: *mut c_void, size: usize, alignment: usize)>;

/// How to make a runtime. Set the defaults with mantle_runtime_options_init.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_runtime_options {
    /// sizeof(mantle_runtime_options).
    pub struct_size: usize,
    /// Threads that compute, the calling one counted: 1 to 1024, or MANTLE_THREADS_AUTO (default). With 1 no
    /// thread is started.
    pub threads: u32,
    /// How long a thread without work spins before it sleeps, in microseconds. More makes short steps
    /// faster and costs power.
    pub spin_microseconds: u32,
    /// The most capable instruction set to use, MANTLE_ISA_*; default MANTLE_ISA_BEST. When the processor
    /// lacks it, the next lower one of the same architecture is used, at last MANTLE_ISA_SCALAR. The
    /// environment variable MANTLE_ISA (a name as of mantle_isa_name) goes before it and forces one. The
    /// results are the same bits with every one.
    pub isa: i32,
    /// Messages up to this MANTLE_LOG_* level go to `log`; default MANTLE_LOG_WARNING.
    pub log_level: i32,
    /// Bytes of a core's first- and second-level data caches, by which the work is cut; 0 (default): what the
    /// system says. At most 1 MiB and 64 MiB. They change the speed only.
    pub first_cache_bytes: u32,
    /// See `first_cache_bytes`.
    pub second_cache_bytes: u32,
    /// 1 (default): weights are fetched into the caches ahead of their use; 0: the hardware does it alone.
    pub prefetch: i32,
    /// 1 (default): large buffers are advised to the system as huge pages; 0: they are not.
    pub huge_pages: i32,
    /// CPUs to pin the started threads to: CPU i is bit i % 64 of word i / 64. All zero (default) pins none.
    pub cpus: [u64; MANTLE_CPU_WORDS],
    /// Gets the messages; NULL (default) for none.
    pub log: mantle_log_fn,
    /// Handed to `log`.
    pub log_user_data: *mut c_void,
    /// Gives the memory of weights, caches and scratch; NULL (default) for the system's. Small objects
    /// (handles, names, error texts) always come from the system.
    pub allocate: mantle_allocate_fn,
    /// Takes memory back; NULL exactly when `allocate` is NULL.
    pub release: mantle_release_fn,
    /// Handed to `allocate` and `release`.
    pub allocator_user_data: *mut c_void,
}

// SAFETY: repr(C), begins with its size; numbers, plain pointers and optional function pointers.
unsafe impl Structure for mantle_runtime_options {
    const NAME: &'static str = "mantle_runtime_options";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        let defaults = RuntimeOptions::default();
        mantle_runtime_options {
            struct_size: size_of::<Self>(),
            threads: MANTLE_THREADS_AUTO,
            spin_microseconds: defaults.spin_microseconds,
            isa: MANTLE_ISA_BEST,
            log_level: MANTLE_LOG_WARNING,
            first_cache_bytes: 0,
            second_cache_bytes: 0,
            prefetch: 1,
            huge_pages: 1,
            cpus: [0; MANTLE_CPU_WORDS],
            log: None,
            log_user_data: std::ptr::null_mut(),
            allocate: None,
            release: None,
            allocator_user_data: std::ptr::null_mut(),
        }
    }
}

/// What a runtime uses.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mantle_runtime_info {
    /// sizeof(mantle_runtime_info), set by the caller.
    pub struct_size: usize,
    /// Threads that compute, the calling one counted.
    pub threads: u32,
    /// The instruction set in use, MANTLE_ISA_*.
    pub isa: i32,
    /// Bytes of the first- and second-level data caches by which the work is cut.
    pub first_cache_bytes: u32,
    /// See `first_cache_bytes`.
    pub second_cache_bytes: u32,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_runtime_info {
    const NAME: &'static str = "mantle_runtime_info";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_runtime_info {
            struct_size: size_of::<Self>(),
            threads: 0,
            isa: 0,
            first_cache_bytes: 0,
            second_cache_bytes: 0,
        }
    }
}

/// Memory in bytes: held, or needed. Which fields are set depends on the function; the others are 0.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct mantle_memory {
    /// sizeof(mantle_memory), set by the caller.
    pub struct_size: usize,
    /// The sum of the fields below `peak`, or, of a runtime, everything its allocator gave out.
    pub total: u64,
    /// The largest `total` so far.
    pub peak: u64,
    /// Weights in the layout of the kernels.
    pub weights: u64,
    /// Keys and values of the sequences.
    pub cache: u64,
    /// Intermediate results of a forward pass.
    pub scratch: u64,
    /// Everything else: tables, metadata, vocabulary.
    pub other: u64,
}

// SAFETY: repr(C), begins with its size; numbers.
unsafe impl Structure for mantle_memory {
    const NAME: &'static str = "mantle_memory";
    const EARLIER_SIZES: &'static [usize] = &[];
    fn defaults() -> Self {
        mantle_memory {
            struct_size: size_of::<Self>(),
            ..mantle_memory::default()
        }
    }
}

/// Sets `options` to the defaults. `size` is sizeof(mantle_runtime_options). Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_runtime_options_init(
    options: *mut mantle_runtime_options,
    size: usize,
    error: *mut *mut mantle_error,
) -> mantle_status {
    // SAFETY: the caller's pointers, checked for NULL.
    unsafe { call(error, || structure::initialize(options, size)) }
}

/// Makes a runtime and starts its threads. `options` may be NULL for the defaults. Free it with
/// mantle_runtime_free. Any thread.
/// Errors: INVALID_ARGUMENT (0 threads or too many, an unknown number, an `allocate` without `release`),
/// UNSUPPORTED (MANTLE_ISA asks for what the processor lacks), IO (a thread could not be started).
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_runtime_new(
    options: *const mantle_runtime_options,
    out: *mut *mut mantle_runtime,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL is refused; otherwise the caller's pointer may be written.
        let out = unsafe { boundary::output_object(out, "out")? };
        // SAFETY: NULL, or as large as its struct_size says.
        let options = unsafe { structure::read(options)? };
        let runtime = Runtime::new(checked(&options)?)?;
        let handle = Handle::new(runtime);
        *out = handle::into_raw(mantle_runtime { handle });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells what the runtime uses. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_runtime_get_info(
    runtime: *const mantle_runtime,
    info: *mut mantle_runtime_info,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let info = unsafe { structure::output(info)? };
        info.write(mantle_runtime_info {
            threads: u32::try_from(runtime.threads()).unwrap_or(u32::MAX),
            isa: isa_number(runtime.isa()),
            first_cache_bytes: u32::try_from(runtime.caches().first).unwrap_or(u32::MAX),
            second_cache_bytes: u32::try_from(runtime.caches().second).unwrap_or(u32::MAX),
            ..mantle_runtime_info::defaults()
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Tells how much memory the runtime's allocator holds for weights, caches, scratch and arenas together:
/// `total` now, `peak` at most so far. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_runtime_memory(
    runtime: *const mantle_runtime,
    memory: *mut mantle_memory,
    error: *mut *mut mantle_error,
) -> mantle_status {
    let body = || {
        // SAFETY: NULL or a living object, as the header demands.
        let runtime = unsafe { handle::shared(runtime)? };
        // SAFETY: NULL is refused; otherwise as large as its struct_size says.
        let memory = unsafe { structure::output(memory)? };
        memory.write(mantle_memory {
            total: runtime.allocator().held(),
            peak: runtime.allocator().peak(),
            ..mantle_memory::defaults()
        });
        Ok(())
    };
    // SAFETY: NULL or the caller's pointer.
    unsafe { call(error, body) }
}

/// Frees the runtime. Models, sessions, arenas and matrices made with it stay usable; the threads end
/// with the last of them. NULL is accepted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mantle_runtime_free(runtime: *mut mantle_runtime) {
    // SAFETY: NULL or a living object that nobody uses afterwards, as the header demands.
    boundary::quietly(|| unsafe { handle::free(runtime) });
}

/// The name of an instruction set as MANTLE_ISA takes it, such as "avx512"; "unknown" for a number that
/// this library does not know. Closed by NUL, valid for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mantle_isa_name(isa: i32) -> *const c_char {
    ISAS.iter()
        .find(|(number, _)| *number == isa)
        .map_or(c"unknown", |(_, name)| *name)
        .as_ptr()
}

/// Numbers and names of the instruction sets; the names are those of `Isa::name`.
const ISAS: [(i32, &CStr); 7] = [
    (MANTLE_ISA_SCALAR, c"scalar"),
    (MANTLE_ISA_AVX2, c"avx2"),
    (MANTLE_ISA_AVXVNNI, c"avxvnni"),
    (MANTLE_ISA_AVX512, c"avx512"),
    (MANTLE_ISA_NEON, c"neon"),
    (MANTLE_ISA_NEON_DOTPROD, c"neon-dotprod"),
    (MANTLE_ISA_NEON_I8MM, c"neon-i8mm"),
];

fn isa_number(isa: Isa) -> i32 {
    ISAS.iter()
        .find(|(_, name)| name.to_bytes() == isa.name().as_bytes())
        .map_or(MANTLE_ISA_BEST, |(number, _)| *number)
}

fn isa_of(number: i32) -> Result<Option<Isa>> {
    if number == MANTLE_ISA_BEST {
        return Ok(None);
    }
    ISAS.iter()
        .find(|(known, _)| *known == number)
        .and_then(|(_, name)| Isa::from_name(name.to_str().ok()?).ok())
        .map(Some)
        .ok_or_else(|| Error::invalid(format!("isa is {number}, expected one of MANTLE_ISA_*")))
}

/// The options of the library for those of the caller.
fn checked(options: &mantle_runtime_options) -> Result<RuntimeOptions> {
    let mut checked = RuntimeOptions {
        threads: match options.threads {
            0 => {
                return Err(Error::invalid(
                    "threads is 0, expected 1 to 1024, or MANTLE_THREADS_AUTO for all that the process may use",
                ));
            }
            MANTLE_THREADS_AUTO => 0,
            threads => threads as usize,
        },
        spin_microseconds: options.spin_microseconds,
        cpus: cpus_of(&options.cpus),
        isa: isa_of(options.isa)?,
        log_level: level_of(options.log_level)?,
        caches: caches_of(options)?,
        prefetch: switch_of("prefetch", options.prefetch)?,
        ..RuntimeOptions::default()
    };
    checked.log = options.log.map(|log| log_of(log, options.log_user_data));
    checked.allocator = match (options.allocate, options.release) {
        (None, None) => Allocator::system(),
        (Some(allocate), Some(free)) => Allocator::host(HostAllocator {
            allocate,
            free,
            user_data: options.allocator_user_data,
        }),
        _ => {
            return Err(Error::invalid(
                "allocate and release must both be set, or both be NULL",
            ));
        }
    };
    if !switch_of("huge_pages", options.huge_pages)? {
        checked.allocator = checked.allocator.with_small_pages();
    }
    Ok(checked)
}

fn switch_of(name: &str, number: i32) -> Result<bool> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::invalid(format!("{name} is {number}, expected 0 or 1"))),
    }
}

/// The caches that the caller names, with what the system says for the others.
fn caches_of(options: &mantle_runtime_options) -> Result<Option<Caches>> {
    let (first, second) = (
        options.first_cache_bytes as usize,
        options.second_cache_bytes as usize,
    );
    if first == 0 && second == 0 {
        return Ok(None);
    }
    if first > 1 << 20 || second > 64 << 20 {
        return Err(Error::invalid(format!(
            "caches of {first} and {second} bytes: expected at most 1 MiB and 64 MiB"
        )));
    }
    let mut caches = Caches::detect();
    if first != 0 {
        caches.first = first;
    }
    if second != 0 {
        caches.second = second;
    }
    Ok(Some(caches))
}

fn cpus_of(words: &[u64; MANTLE_CPU_WORDS]) -> Vec<usize> {
    (0..words.len() * 64)
        .filter(|cpu| words[cpu / 64] >> (cpu % 64) & 1 != 0)
        .collect()
}

fn level_of(number: i32) -> Result<LogLevel> {
    match number {
        MANTLE_LOG_OFF => Ok(LogLevel::Off),
        MANTLE_LOG_ERROR => Ok(LogLevel::Error),
        MANTLE_LOG_WARNING => Ok(LogLevel::Warning),
        MANTLE_LOG_INFO => Ok(LogLevel::Info),
        MANTLE_LOG_DEBUG => Ok(LogLevel::Debug),
        _ => Err(Error::invalid(format!(
            "log_level is {number}, expected one of MANTLE_LOG_*"
        ))),
    }
}

fn level_number(level: LogLevel) -> i32 {
    match level {
        LogLevel::Off => MANTLE_LOG_OFF,
        LogLevel::Error => MANTLE_LOG_ERROR,
        LogLevel::Warning => MANTLE_LOG_WARNING,
        LogLevel::Info => MANTLE_LOG_INFO,
        LogLevel::Debug => MANTLE_LOG_DEBUG,
    }
}

type LogFunction = unsafe extern "C" fn(*mut c_void, i32, *const c_char, usize, *const c_char, usize);

/// A host's function with its first argument, which the header allows to be used from any thread.
struct HostLog {
    function: LogFunction,
    user_data: *mut c_void,
}

// SAFETY: the header demands that the function and its data serve any thread.
unsafe impl Send for HostLog {}
// SAFETY: as above, several at once.
unsafe impl Sync for HostLog {}

impl HostLog {
    fn write(&self, level: LogLevel, target: &str, message: &str) {
        // SAFETY: the host's function, with texts that live during the call.
        unsafe {
            (self.function)(
                self.user_data,
                level_number(level),
                target.as_ptr().cast(),
                target.len(),
                message.as_ptr().cast(),
                message.len(),
            );
        }
    }
}

fn log_of(function: LogFunction, user_data: *mut c_void) -> LogFn {
    let log = HostLog { function, user_data };
    Box::new(move |level, target, message| log.write(level, target, message))
}
