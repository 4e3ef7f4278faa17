//! After the first call, a forward pass allocates nothing, on any thread.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod models;

use mantle::kernels::Isa;
use mantle::model::session::{Entries, Session, SessionOptions, Want};
use models::{open_smollm2, runtime};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static CALLS: AtomicUsize = AtomicUsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[test]
fn forward_does_not_touch_the_allocator() {
    let model = open_smollm2(&runtime(2, Isa::best()));
    let options = SessionOptions {
        max_context: 512,
        max_sequences: 3,
        max_batch_tokens: 64,
        ..SessionOptions::default()
    };
    let mut session = Session::new(&model, &options, None).unwrap();
    let tokens: Vec<u32> = (0..150).collect();
    let mut forward = |sequences: &[i32], offsets: &[usize], tokens: &[u32]| {
        let entries = Entries {
            sequences,
            tokens,
            offsets,
        };
        session.forward(&entries, Want::Last, None).unwrap();
        assert!(session.logits(0).unwrap()[0].is_finite());
    };
    forward(&[0], &[0, 5], &tokens[..5]);
    let before = CALLS.load(Ordering::Relaxed);
    forward(&[0], &[0, 150], &tokens);
    forward(&[2, 1], &[0, 70, 150], &tokens);
    for token in 0..20 {
        forward(&[0, 1, 2], &[0, 1, 2, 3], &[token, token + 1, token + 2]);
    }
    assert_eq!(
        CALLS.load(Ordering::Relaxed) - before,
        0,
        "allocations in forward passes"
    );
    drop(session);
    assert!(CALLS.load(Ordering::Relaxed) > before, "the counter counts");
}
