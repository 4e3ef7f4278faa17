//! A small pool of threads that divides one step at a time into chunks.
//!
//! The thread that calls [`Pool::run`] works too. A step costs two cache-line transfers when the
//! workers are awake: one to publish it, one to learn that it is done. Workers spin for a bounded
//! time and then park.
//!
//! A ticket holds the step's number in its upper and the chunks that are left in its lower half. A worker
//! claims a chunk by a compare-and-swap on the whole ticket, so a worker that wakes late can never
//! take a chunk of another step, and the caller never waits for a worker that took none. What is left has
//! to stand in the ticket itself: a count beside it would be the next step's while the ticket is still the last one's.

use super::error::{Error, Result};
use super::matrix::{Divide, Pieces};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// A cache line of its own, so that neighbours do not slow each other down.
#[repr(align(128))]
struct Line<T>(T);

struct Shared {
    ticket: Line<AtomicU64>,
    pending: Line<AtomicUsize>,
    /// Points at the caller's `&Body`, alive while `pending` is above zero.
    body: AtomicPtr<()>,
    chunks: AtomicUsize,
    /// Where a caller sleeps. Not `park`: naming the host's thread to Rust would take memory.
    caller: Mutex<()>,
    finished: Condvar,
    caller_parked: AtomicBool,
    panicked: AtomicBool,
    stop: AtomicBool,
    spin: Duration,
}

struct Worker {
    parked: Arc<AtomicBool>,
    handle: JoinHandle<()>,
}

/// A pool of `threads() - 1` threads and the caller.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
    /// Held by the caller whose step runs; the value is the number of the last step.
    turn: Mutex<u32>,
}

impl Pool {
    /// A pool of `threads` threads, the caller counted. Workers spin for `spin` before they park.
    /// Worker `i` is pinned to `cpus[i % cpus.len()]` when `cpus` is not empty.
    pub fn new(threads: usize, spin: Duration, cpus: &[usize]) -> Result<Pool> {
        if threads == 0 || threads > MAX_THREADS {
            return Err(Error::invalid(format!(
                "{threads} threads: expected 1 to {MAX_THREADS}"
            )));
        }
        let shared = Arc::new(Shared {
            ticket: Line(AtomicU64::new(0)),
            pending: Line(AtomicUsize::new(0)),
            body: AtomicPtr::new(std::ptr::null_mut()),
            chunks: AtomicUsize::new(0),
            caller: Mutex::new(()),
            finished: Condvar::new(),
            caller_parked: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            spin,
        });
        let mut pool = Pool {
            shared,
            workers: Vec::new(),
            turn: Mutex::new(0),
        };
        for index in 1..threads {
            let parked = Arc::new(AtomicBool::new(false));
            let (shared, flag) = (pool.shared.clone(), parked.clone());
            let cpu = if cpus.is_empty() {
                None
            } else {
                Some(cpus[index % cpus.len()])
            };
            let handle = std::thread::Builder::new()
                .name(format!("mantle-{index}"))
                .spawn(move || {
                    if let Some(cpu) = cpu {
                        pin(cpu);
                    }
                    work(&shared, &flag, index);
                })
                .map_err(|error| Error::io("cannot start a thread", &error))?;
            pool.workers.push(Worker { parked, handle });
        }
        Ok(pool)
    }

    /// Number of threads that work on a step, the caller counted.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(chunk, worker)` once for every chunk below `chunks`, on all threads, and returns when all are done.
    /// `worker` is below [`Pool::threads`], and no two chunks run under one worker number at a time.
    ///
    /// When another thread's step is running, or the work is one chunk, the caller does all of it alone.
    /// A panic in `body` is raised again here, after the step.
    pub fn run(&self, chunks: usize, body: &Body<'_>) {
        let turn = if chunks > 1 && chunks <= u32::MAX as usize && !self.workers.is_empty() {
            self.turn.try_lock().ok()
        } else {
            None
        };
        let Some(mut turn) = turn else {
            (0..chunks).for_each(|chunk| body(chunk, 0));
            return;
        };
        let shared = &*self.shared;
        *turn = turn.wrapping_add(1);
        shared
            .body
            .store((&raw const body).cast_mut().cast(), Ordering::Relaxed);
        shared.chunks.store(chunks, Ordering::Relaxed);
        shared.pending.0.store(chunks, Ordering::Relaxed);
        shared
            .ticket
            .0
            .store(u64::from(*turn) << 32 | chunks as u64, Ordering::SeqCst);
        for worker in &self.workers {
            if worker.parked.load(Ordering::SeqCst) {
                worker.handle.thread().unpark();
            }
        }
        shared.take_chunks(*turn, 0);
        shared.wait_for_the_end();
        if shared.panicked.swap(false, Ordering::AcqRel) {
            drop(turn);
            panic!("a chunk of a parallel step panicked");
        }
    }

    /// Like [`Pool::run`], and hands each chunk its part of `output`.
    pub fn divide<D: Divide>(&self, chunks: usize, output: D, body: impl Fn(usize, D::Part) + Sync) {
        self.divide_with::<D, u8>(chunks, output, &mut [], |chunk, part, _| body(chunk, part));
    }

    /// Like [`Pool::divide`], and lends each worker its own piece of `scratch`, which is cut into [`Pool::threads`]
    /// equal pieces. A chunk finds what the worker's last chunk left there.
    pub fn divide_with<D: Divide, T: Send>(
        &self,
        chunks: usize,
        output: D,
        scratch: &mut [T],
        body: impl Fn(usize, D::Part, &mut [T]) + Sync,
    ) {
        let length = scratch.len() / self.threads();
        let pieces = Pieces::new(&mut *scratch, length);
        self.run(chunks, &|chunk, worker| {
            // SAFETY: `run` gives every chunk to one worker, once, so parts of `output` are taken once; a worker
            // runs one chunk at a time, and the closure cannot keep its scratch beyond its call.
            let (part, own) = unsafe { (output.part(chunk), pieces.part(worker)) };
            body(chunk, part, own);
        });
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.handle.thread().unpark();
            // A worker catches every panic, so joining cannot fail; a failure would have no one to tell.
            let _ = worker.handle.join();
        }
    }
}

/// More threads than any machine has; a larger number is a mistake of the caller.
pub const MAX_THREADS: usize = 1024;

impl Shared {
    /// Claims and runs chunks of step `turn` until none is left.
    fn take_chunks(&self, turn: u32, worker: usize) {
        loop {
            let ticket = self.ticket.0.load(Ordering::Acquire);
            let left = (ticket & 0xffff_ffff) as usize;
            if (ticket >> 32) as u32 != turn || left == 0 {
                return;
            }
            // Read before the claim: a claim that succeeds proves that the step was alive, so these were its own.
            let chunk = self.chunks.load(Ordering::Relaxed).wrapping_sub(left);
            let body = self.body.load(Ordering::Relaxed);
            if self
                .ticket
                .0
                .compare_exchange_weak(ticket, ticket - 1, Ordering::AcqRel, Ordering::Acquire)
                .is_err()
            {
                continue;
            }
            // SAFETY: `body` points at the `&Body` of the caller of `run`, which waits until `pending` is zero;
            // the claimed chunk is still pending.
            let body = unsafe { *body.cast::<&Body<'_>>() };
            if catch_unwind(AssertUnwindSafe(|| body(chunk, worker))).is_err() {
                self.panicked.store(true, Ordering::Release);
            }
            if self.pending.0.fetch_sub(1, Ordering::AcqRel) == 1 && worker != 0 {
                self.wake_the_caller();
            }
        }
    }

    fn wake_the_caller(&self) {
        // Pairs with the fence in `wait_for_the_end`: either the caller sees zero, or this sees the flag.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.caller_parked.load(Ordering::SeqCst) {
            // Locked, so that the caller is either before its look at `pending` or asleep already.
            drop(self.caller.lock().unwrap_or_else(PoisonError::into_inner));
            self.finished.notify_one();
        }
    }

    fn wait_for_the_end(&self) {
        if spin_until(self.spin, || self.pending.0.load(Ordering::Acquire) == 0) {
            return;
        }
        let mut asleep = self.caller.lock().unwrap_or_else(PoisonError::into_inner);
        self.caller_parked.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        while self.pending.0.load(Ordering::Acquire) != 0 {
            asleep = self.finished.wait(asleep).unwrap_or_else(PoisonError::into_inner);
        }
        drop(asleep);
        self.caller_parked.store(false, Ordering::SeqCst);
    }
}

/// The life of a worker.
fn work(shared: &Shared, parked: &AtomicBool, index: usize) {
    let mut seen = 0u32;
    let turn = || (shared.ticket.0.load(Ordering::SeqCst) >> 32) as u32;
    while !shared.stop.load(Ordering::SeqCst) {
        if !spin_until(shared.spin, || {
            turn() != seen || shared.stop.load(Ordering::Relaxed)
        }) {
            parked.store(true, Ordering::SeqCst);
            while turn() == seen && !shared.stop.load(Ordering::SeqCst) {
                std::thread::park();
            }
            parked.store(false, Ordering::SeqCst);
        }
        seen = turn();
        shared.take_chunks(seen, index);
    }
}

/// Spins until `done`, at most for `limit`; says whether it is done.
fn spin_until(limit: Duration, done: impl Fn() -> bool) -> bool {
    // Reading the clock costs as much as a hundred looks.
    for _ in 0..200 {
        if done() {
            return true;
        }
        std::hint::spin_loop();
    }
    let start = Instant::now();
    while start.elapsed() < limit {
        for _ in 0..100 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
    }
    done()
}

/// Pins the calling thread to one processor; a refusal costs speed only.
pub fn pin(cpu: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: a zeroed set is an empty set; CPU_SET checks its range; the call changes this thread only.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu < 8 * size_of::<libc::cpu_set_t>() {
            libc::CPU_SET(cpu, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = cpu;
}

/// The processors that the calling thread may run on; empty where the system does not say.
pub fn allowed_cpus() -> Vec<usize> {
    #[cfg(target_os = "linux")]
    // SAFETY: a zeroed set is an empty set of the size that is passed; CPU_ISSET is asked within its range.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) == 0 {
            let every = 0..8 * size_of::<libc::cpu_set_t>();
            return every.filter(|&cpu| libc::CPU_ISSET(cpu, &set)).collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::super::matrix::MatrixMut;
    use super::*;

    #[test]
    fn every_chunk_runs_once() {
        for threads in 1..=4 {
            for spin in [0, 50] {
                let pool = Pool::new(threads, Duration::from_micros(spin), &[]).unwrap();
                for chunks in [0, 1, 2, 3, 17, 100] {
                    let counts: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
                    for _ in 0..50 {
                        pool.run(chunks, &|chunk, worker| {
                            assert!(worker < threads);
                            counts[chunk].fetch_add(1, Ordering::Relaxed);
                        });
                    }
                    assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 50));
                }
            }
        }
    }

    /// A worker that is late in a short step must not claim a chunk of the longer step that follows it.
    #[test]
    fn no_chunk_of_a_longer_step_is_claimed_by_the_step_before() {
        let pool = Pool::new(4, Duration::from_micros(5), &[]).unwrap();
        let counts: Vec<AtomicUsize> = (0..64).map(|_| AtomicUsize::new(0)).collect();
        for step in 1..=100_000 {
            pool.run(2, &|_, _| {});
            pool.run(counts.len(), &|chunk, _| {
                counts[chunk].fetch_add(1, Ordering::Relaxed);
            });
            let wrong = counts
                .iter()
                .position(|count| count.load(Ordering::Relaxed) != step);
            assert_eq!(wrong, None, "step {step}: {counts:?}");
        }
    }

    /// Steps of different lengths right behind each other: a worker that looks at the end of one step while the next is
    /// being published must not claim from either.
    #[test]
    fn steps_that_follow_at_once_do_not_mix() {
        let pool = Pool::new(3, Duration::from_micros(20), &[]).unwrap();
        let counts: Vec<AtomicUsize> = (0..64).map(|_| AtomicUsize::new(0)).collect();
        for round in 0..100_000usize {
            let chunks = 2 + round * 7919 % 61;
            pool.run(chunks, &|chunk, _| {
                counts[chunk].fetch_add(1, Ordering::Relaxed);
            });
            for (chunk, count) in counts.iter().enumerate() {
                assert_eq!(
                    count.swap(0, Ordering::Relaxed),
                    usize::from(chunk < chunks),
                    "chunk {chunk} of {chunks}"
                );
            }
        }
    }

    #[test]
    fn parts_are_apart() {
        let pool = Pool::new(3, Duration::from_micros(20), &[]).unwrap();
        let mut values = vec![0usize; 5 * 64];
        let mut scratch = vec![0usize; 3];
        let matrix = MatrixMut::new(&mut values, 5, 64, 64).unwrap();
        pool.divide_with(16, matrix.by_columns(4), &mut scratch, |chunk, mut part, own| {
            own[0] += 1;
            for row in 0..5 {
                part.row(row).fill(chunk);
            }
        });
        assert_eq!(scratch.iter().sum::<usize>(), 16);
        assert!(values.iter().enumerate().all(|(i, &value)| value == i % 64 / 4));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives() {
        let pool = Pool::new(2, Duration::from_micros(20), &[]).unwrap();
        for bad in 0..8 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.run(8, &|chunk, _| assert_ne!(chunk, bad));
            }));
            assert!(result.is_err());
            pool.run(8, &|_, _| {});
        }
    }

    #[test]
    fn steps_of_several_callers_do_not_mix() {
        let pool = Pool::new(3, Duration::from_micros(20), &[]).unwrap();
        std::thread::scope(|scope| {
            for caller in 0..4usize {
                let pool = &pool;
                scope.spawn(move || {
                    for _ in 0..200 {
                        let mut values = vec![0usize; 100];
                        pool.divide(10, Pieces::new(&mut values, 10), |_, part| part.fill(caller + 1));
                        assert!(values.iter().all(|&value| value == caller + 1));
                    }
                });
            }
        });
    }

    #[test]
    fn zero_threads_is_an_error() {
        assert!(Pool::new(0, Duration::ZERO, &[]).is_err());
        assert!(Pool::new(MAX_THREADS + 1, Duration::ZERO, &[]).is_err());
    }
}
