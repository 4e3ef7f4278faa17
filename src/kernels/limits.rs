//! What this machine can do: peaks of arithmetic and of reading memory, measured.
//!
//! A benchmark that gives only a time says little; these are the other side of its percentage, and they
//! are measured in the same run because a shared machine is not the same a minute later.
//!
//! Each arithmetic peak is a loop in assembly of one instruction on twelve independent accumulators, so
//! no optimizer can shorten it and no instruction waits for another. Reading is a loop of nothing but
//! loads, forwards through a buffer of each thread's own. Threads are pinned and start each slice of
//! about two milliseconds together; a slice's rate is all its work over the time from the first start to
//! the last end, and the result is the best slice.

use super::limits_loops::{Loops, Operands};
use crate::base::error::{Error, Result};
use crate::base::memory::Allocator;
use crate::base::threads::{self, MAX_THREADS};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// 8-bit integer multiply-adds into 32 bits (`vpdpbusd`, `sdot`, ...): operations/s, two per multiply-add.
    IntegerDot,
    /// Fused multiply-adds of f32: operations/s, two per multiply-add.
    FusedMultiplyAdd,
    /// bf16 multiply-adds into f32 (`vdpbf16ps`): operations/s, two per multiply-add.
    Bf16Dot,
    /// Reading memory: bytes/s.
    Read,
}

/// The longest time to spend on one figure.
pub const MAX_MILLISECONDS: u32 = 60_000;

/// Measures one limit with `threads` threads at once, for about `milliseconds`: what all of them reach together.
///
/// `isa` is a name that `MANTLE_ISA` takes, or `None` for the best of the machine. For [`Limit::Read`] each
/// thread reads a buffer of `bytes_per_thread` (rounded up to 4 KiB); the other limits ignore it. The result is
/// 0 where the instruction set has no such instruction. Errors: a number out of range, an instruction set that
/// is unknown or that this machine lacks, no memory.
pub fn measure(
    limit: Limit,
    threads: usize,
    isa: Option<&str>,
    bytes_per_thread: usize,
    milliseconds: u32,
) -> Result<f64> {
    if threads == 0 || threads > MAX_THREADS {
        return Err(Error::invalid(format!(
            "{threads} threads: expected 1 to {MAX_THREADS}"
        )));
    }
    if milliseconds == 0 || milliseconds > MAX_MILLISECONDS {
        return Err(Error::invalid(format!(
            "{milliseconds} milliseconds: expected 1 to {MAX_MILLISECONDS}"
        )));
    }
    let loops = Loops::choose(isa)?;
    let arithmetic = match limit {
        Limit::IntegerDot => Some(loops.integer_dot),
        Limit::FusedMultiplyAdd => Some(loops.fused_multiply_add),
        Limit::Bf16Dot => match loops.bf16_dot {
            Some(found) => Some(found),
            None => return Ok(0.0),
        },
        Limit::Read => None,
    };
    if let Some(loop_of) = arithmetic {
        return race(threads, milliseconds, || {
            let operands = Operands::of(limit);
            Ok(move |rounds: u64| {
                (loop_of.run)(&operands, rounds);
                rounds as f64 * loop_of.operations_per_round
            })
        });
    }
    let bytes = bytes_per_thread
        .max(1)
        .checked_next_multiple_of(4096)
        .ok_or_else(|| Error::invalid(format!("{bytes_per_thread} bytes per thread are too many")))?;
    race(threads, milliseconds, || {
        // Allocated, and so first written, by the thread that reads it: on its own memory node.
        let buffer = Allocator::system().buffer(bytes)?;
        let mut position = 0;
        Ok(move |rounds: u64| {
            // A buffer that outgrows the caches is walked in pieces, on from the last end.
            let span = bytes.min(READ_SPAN);
            let mut read = 0;
            for _ in 0..rounds {
                let end = (position + span).min(bytes);
                (loops.read)(&buffer.bytes()[position..end]);
                read += end - position;
                position = end % bytes;
            }
            read as f64
        })
    })
}

/// The longest piece of one call of a read loop.
const READ_SPAN: usize = 256 << 10;

/// Bytes of the last-level cache; 32 MiB where the system does not say.
pub fn last_level_cache() -> usize {
    let size_of_level = |index: usize| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        let text = std::fs::read_to_string(path).ok()?;
        let kib: usize = text.trim().strip_suffix('K')?.parse().ok()?;
        kib.checked_mul(1024)
    };
    (0..8).filter_map(size_of_level).max().unwrap_or(32 << 20)
}

/// How long a thread works between two meetings, in nanoseconds.
const SLICE: u64 = 2_000_000;

/// Runs the work of each thread in slices that start together, and returns the rate of the best slice.
///
/// `prepare` is called on each thread and gives its work: a function from a number of rounds to the work done.
fn race<W: FnMut(u64) -> f64>(
    threads: usize,
    milliseconds: u32,
    prepare: impl Fn() -> Result<W> + Sync,
) -> Result<f64> {
    let (cpus, epoch) = (threads::allowed_cpus(), Instant::now());
    let slices = (milliseconds as usize / 2).max(3);
    let (meeting, rounds) = (Meeting::new(threads), AtomicU64::new(0));
    let runner = |thread: usize| -> Result<Vec<Slice>> {
        let _leave = Leave(&meeting);
        if !cpus.is_empty() {
            threads::pin(cpus[thread % cpus.len()]);
        }
        let mut work = prepare()?;
        if !meeting.wait() {
            return Ok(Vec::new());
        }
        if thread == 0 {
            rounds.store(rounds_of_a_slice(&mut work), Ordering::SeqCst);
        }
        let mut result = Vec::with_capacity(slices);
        while result.len() < slices && meeting.wait() {
            let rounds = rounds.load(Ordering::SeqCst);
            let start = epoch.elapsed().as_nanos() as u64;
            let done = work(rounds);
            let end = epoch.elapsed().as_nanos() as u64;
            result.push(Slice { start, end, done });
        }
        Ok(result)
    };
    let results = on_threads(threads, &runner, &meeting)?;
    let rate = |slice: usize| {
        let of_slice = || results.iter().filter_map(|thread| thread.get(slice));
        let start = of_slice().map(|s| s.start).min().unwrap_or(0);
        let end = of_slice().map(|s| s.end).max().unwrap_or(0);
        of_slice().map(|s| s.done).sum::<f64>() / (end - start).max(1) as f64 * 1e9
    };
    Ok((0..slices).map(rate).fold(0.0, f64::max))
}

/// When one thread began and ended a slice (nanoseconds), and the work it did.
struct Slice {
    start: u64,
    end: u64,
    done: f64,
}

/// Runs `runner(i)` on `threads` threads and collects what they return.
fn on_threads<T: Send>(
    threads: usize,
    runner: &(impl Fn(usize) -> Result<T> + Sync),
    meeting: &Meeting,
) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let mut handles = Vec::with_capacity(threads);
        for thread in 0..threads {
            let spawned = std::thread::Builder::new()
                .name(format!("mantle-limits-{thread}"))
                .spawn_scoped(scope, move || runner(thread));
            match spawned {
                Ok(handle) => handles.push(handle),
                Err(error) => {
                    meeting.abandon();
                    return Err(Error::io("cannot start a thread", &error));
                }
            }
        }
        let join = |handle: std::thread::ScopedJoinHandle<'_, Result<T>>| {
            handle
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        handles.into_iter().map(join).collect()
    })
}

/// A place where all threads wait for each other, again and again; spinning, so that they leave together.
struct Meeting {
    threads: usize,
    arrived: AtomicUsize,
    abandoned: AtomicBool,
}

impl Meeting {
    fn new(threads: usize) -> Meeting {
        Meeting {
            threads,
            arrived: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
        }
    }

    /// Waits for all threads; false when one of them will never come.
    fn wait(&self) -> bool {
        let before = self.arrived.fetch_add(1, Ordering::SeqCst);
        let all = (before / self.threads + 1) * self.threads;
        let mut looks = 0u32;
        while self.arrived.load(Ordering::SeqCst) < all {
            if self.abandoned.load(Ordering::SeqCst) {
                // Whoever left may have come here before.
                return self.arrived.load(Ordering::SeqCst) >= all;
            }
            looks += 1;
            if looks > 2000 {
                std::thread::yield_now(); // More threads than processors.
            } else {
                std::hint::spin_loop();
            }
        }
        true
    }

    fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
    }
}

/// Tells the others when a thread leaves, by its end, an error or a panic.
struct Leave<'a>(&'a Meeting);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

/// How many rounds take about [`SLICE`] when nothing disturbs; also warms caches and clocks up.
fn rounds_of_a_slice(work: &mut impl FnMut(u64) -> f64) -> u64 {
    let mut time = |rounds: u64| {
        let start = Instant::now();
        work(rounds);
        start.elapsed().as_nanos() as u64
    };
    let mut rounds = 1;
    // The quickest of three: an interruption must not make every slice short.
    while (0..3).map(|_| time(rounds)).min().unwrap_or(0) < SLICE / 4 && rounds < 1 << 40 {
        rounds *= 2;
    }
    let took = (0..3).map(|_| time(rounds)).min().unwrap_or(0).max(1);
    (rounds as f64 * SLICE as f64 / took as f64).max(1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_every_instruction_set_is_a_rate() {
        for isa in super::super::table::Isa::ALL.iter().map(|isa| isa.name()) {
            for limit in [
                Limit::IntegerDot,
                Limit::FusedMultiplyAdd,
                Limit::Bf16Dot,
                Limit::Read,
            ] {
                match measure(limit, 2, Some(isa), 100_000, 4) {
                    // No machine does less than 10 million or more than 10^18 of anything per second.
                    Ok(rate) => assert!(
                        (1e7..1e18).contains(&rate) || (rate == 0.0 && limit == Limit::Bf16Dot),
                        "{isa} {limit:?} {rate}"
                    ),
                    Err(error) => {
                        assert_ne!(isa, "scalar", "{error}");
                        assert!(error.message().contains(isa), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn wrong_arguments_are_errors() {
        let call = |threads, isa, bytes, milliseconds| {
            measure(Limit::Read, threads, isa, bytes, milliseconds)
                .unwrap_err()
                .to_string()
        };
        assert!(call(0, None, 1, 1).contains("0 threads"));
        assert!(call(MAX_THREADS + 1, None, 1, 1).contains("threads"));
        assert!(call(1, None, 1, 0).contains("0 milliseconds"));
        assert!(call(1, None, 1, u32::MAX).contains("milliseconds"));
        assert!(call(1, Some("mmx"), 1, 1).contains("mmx"));
        assert!(call(1, None, usize::MAX, 1).contains("too many"));
        // An allocation that no machine grants ends all threads with an error.
        assert!(call(2, None, 1 << 60, 1).contains("cannot allocate"));
    }
}
