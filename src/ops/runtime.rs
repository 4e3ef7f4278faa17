//! What every call shares: threads, kernels, memory and the log.

use crate::base::caches::Caches;
use crate::base::error::{Error, Result};
use crate::base::memory::{Allocator, Buffer};
use crate::base::threads::Pool;
use crate::kernels::{Isa, Kernels, Tuning};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How much is logged: a message is handed on when its level is at most the runtime's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LogLevel {
    /// Nothing.
    Off = 0,
    /// Something failed.
    Error = 1,
    /// Something works, but not as well as it could.
    Warning = 2,
    /// What was done, once per handle.
    Info = 3,
    /// What was chosen, and why.
    Debug = 4,
}

/// Takes a message: level, the part of the library that it comes from, and the text.
pub type LogFn = Box<dyn Fn(LogLevel, &str, &str) + Send + Sync>;

/// What a runtime is made of.
pub struct RuntimeOptions {
    /// Threads that work on a call, the caller counted; 0 for as many as the affinity mask and the cgroup's quota allow.
    pub threads: usize,
    /// How long an idle thread spins before it sleeps.
    pub spin_microseconds: u32,
    /// CPUs that the threads are pinned to, in turn; empty for no pinning. The caller's own thread is never pinned.
    pub cpus: Vec<usize>,
    /// The best instruction set to use; `None` for the best that the CPU has. The environment variable `MANTLE_ISA` overrides it.
    pub isa: Option<Isa>,
    /// A core's caches, by which work is cut; `None` for what the system says.
    pub caches: Option<Caches>,
    /// Whether weights are fetched into the caches ahead of their use.
    pub prefetch: bool,
    /// Where buffers come from.
    pub allocator: Allocator,
    /// Takes messages; `None` for silence.
    pub log: Option<LogFn>,
    /// Messages above this level are not made.
    pub log_level: LogLevel,
}

impl Default for RuntimeOptions {
    fn default() -> RuntimeOptions {
        RuntimeOptions {
            threads: 0,
            spin_microseconds: 100,
            cpus: Vec::new(),
            isa: None,
            caches: None,
            prefetch: true,
            allocator: Allocator::system(),
            log: None,
            log_level: LogLevel::Warning,
        }
    }
}

/// Threads, kernels, memory and log of any number of models. Share it freely; all methods may be called from any thread.
pub struct Runtime {
    pool: Pool,
    kernels: Kernels,
    caches: Caches,
    allocator: Allocator,
    /// Of the last call that needed some; kept, so that the next takes none.
    scratch: Mutex<Option<Buffer>>,
    log: Option<LogFn>,
    log_level: LogLevel,
}

impl Runtime {
    /// Starts the threads and chooses the kernels, once.
    pub fn new(options: RuntimeOptions) -> Result<Arc<Runtime>> {
        let threads = if options.threads == 0 {
            std::thread::available_parallelism().map_or(1, usize::from)
        } else {
            options.threads
        };
        let isa = choose_isa(options.isa)?;
        let kernels =
            Kernels::of(isa).ok_or_else(|| Error::unsupported(format!("this CPU has no {}", isa.name())))?;
        let caches = options.caches.unwrap_or_else(Caches::detect);
        let tuning = Tuning::of(caches);
        let kernels = kernels.tuned(if options.prefetch {
            tuning
        } else {
            tuning.without_fetching()
        });
        let spin = Duration::from_micros(options.spin_microseconds.into());
        let runtime = Runtime {
            pool: Pool::new(threads, spin, &options.cpus)?,
            kernels,
            caches,
            allocator: options.allocator,
            scratch: Mutex::new(None),
            log: options.log,
            log_level: options.log_level,
        };
        runtime.log(LogLevel::Info, "runtime", || {
            format!(
                "{threads} threads, instruction set {}, caches of {} and {} KiB",
                isa.name(),
                caches.first >> 10,
                caches.second >> 10
            )
        });
        Ok(Arc::new(runtime))
    }

    /// The threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Number of threads that work on a call, the caller counted.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// The kernels of the chosen instruction set.
    pub fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// The caches by which work is cut.
    pub fn caches(&self) -> Caches {
        self.caches
    }

    /// The chosen instruction set.
    pub fn isa(&self) -> Isa {
        self.kernels.isa()
    }

    /// Where buffers come from.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Runs `body` with at least `size` bytes of scratch memory: those of the last call, when they suffice and no other thread
    /// has them at this moment. Their contents are arbitrary.
    pub fn with_scratch<R>(&self, size: usize, body: impl FnOnce(&mut [u8]) -> R) -> Result<R> {
        let held = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = held().take().filter(|buffer| buffer.bytes().len() >= size);
        let mut buffer = match kept {
            Some(buffer) => buffer,
            None => self.allocator.buffer(size)?,
        };
        let result = body(buffer.bytes_mut());
        *held() = Some(buffer);
        Ok(result)
    }

    /// Hands a message to the log; it is made only when somebody takes it.
    pub fn log(&self, level: LogLevel, target: &str, message: impl FnOnce() -> String) {
        if let Some(log) = &self.log
            && level <= self.log_level
        {
            log(level, target, &message());
        }
    }
}

/// `MANTLE_ISA` where it is set, else the best up to `cap`. A forced set that the CPU lacks is an error, not a silent fallback.
fn choose_isa(cap: Option<Isa>) -> Result<Isa> {
    match std::env::var("MANTLE_ISA") {
        Ok(name) if !name.is_empty() => {
            let isa =
                Isa::from_name(&name).map_err(|error| error.within("environment variable MANTLE_ISA"))?;
            if !isa.is_available() {
                return Err(Error::unsupported(format!(
                    "MANTLE_ISA asks for {name}, which this CPU does not have"
                )));
            }
            Ok(isa)
        }
        _ => Ok(Isa::best_up_to(cap)),
    }
}
