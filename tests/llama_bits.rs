//! The same bits for any instruction set, number of threads, chunk of the prompt and neighbour in the batch.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod models;

use mantle::kernels::Isa;
use mantle::model::model::Model;
use mantle::model::session::{Entries, Session, SessionOptions, Want};
use models::{open_smollm2, runtime};
use std::sync::Arc;

const LENGTH: usize = 40;

fn prompt(seed: u32) -> Vec<u32> {
    (0..LENGTH as u32)
        .map(|i| (i * 1237 + seed * 7919) % 49_000)
        .collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|logit| logit.to_bits()).collect()
}

/// Logits behind the prompt, which goes in `chunk` tokens at a time.
fn run(model: &Arc<Model>, tokens: &[u32], chunk: usize, batch: u32) -> Vec<u32> {
    let options = SessionOptions {
        max_context: 64,
        max_batch_tokens: batch,
        ..SessionOptions::default()
    };
    let mut session = Session::new(model, &options, None).unwrap();
    for part in tokens.chunks(chunk) {
        let entries = Entries {
            sequences: &[0],
            tokens: part,
            offsets: &[0, part.len()],
        };
        session.forward(&entries, Want::Last, None).unwrap();
    }
    bits(session.logits(0).unwrap())
}

#[test]
fn threads_chunks_and_instruction_sets_do_not_matter() {
    let tokens = prompt(1);
    let expected = run(&open_smollm2(&runtime(1, Isa::best())), &tokens, LENGTH, 0);
    assert!(expected.iter().any(|&bits| bits != 0));
    for threads in [2, 3] {
        let model = open_smollm2(&runtime(threads, Isa::best()));
        for (chunk, batch) in [(LENGTH, 0), (1, 0), (7, 0), (LENGTH, 16), (LENGTH, 1)] {
            assert!(
                run(&model, &tokens, chunk, batch) == expected,
                "{threads} threads, chunks of {chunk}, batch {batch}"
            );
        }
    }
    for isa in Isa::ALL.iter().copied().filter(|isa| isa.is_available()) {
        let model = open_smollm2(&runtime(2, isa));
        assert!(run(&model, &tokens, LENGTH, 0) == expected, "{}", isa.name());
    }
}

#[test]
fn neighbours_in_the_batch_do_not_matter() {
    let model = open_smollm2(&runtime(2, Isa::best()));
    let alone: Vec<Vec<u32>> = (0..3).map(|seed| run(&model, &prompt(seed), LENGTH, 0)).collect();
    let options = SessionOptions {
        max_context: 64,
        max_sequences: 4,
        max_batch_tokens: 50,
        ..SessionOptions::default()
    };
    let mut session = Session::new(&model, &options, None).unwrap();
    // The sequences go in together, out of order and at different speeds.
    let prompts: Vec<Vec<u32>> = (0..3).map(prompt).collect();
    let cuts = [[0, 10, 11, LENGTH], [0, 30, 31, LENGTH], [0, 1, 39, LENGTH]];
    for step in 0..3 {
        let parts: Vec<&[u32]> = (0..3)
            .map(|i| &prompts[i][cuts[i][step]..cuts[i][step + 1]])
            .collect();
        let order = [[2usize, 0, 1], [1, 2, 0], [0, 2, 1]][step];
        let tokens: Vec<u32> = order.iter().flat_map(|&i| parts[i].to_vec()).collect();
        let mut offsets = vec![0];
        for &i in &order {
            offsets.push(offsets.last().unwrap() + parts[i].len());
        }
        let sequences: Vec<i32> = order.iter().map(|&i| i as i32 + 1).collect();
        session
            .forward(
                &Entries {
                    sequences: &sequences,
                    tokens: &tokens,
                    offsets: &offsets,
                },
                Want::Last,
                None,
            )
            .unwrap();
        if step == 2 {
            for (row, &i) in order.iter().enumerate() {
                assert!(bits(session.logits(row).unwrap()) == alone[i], "sequence {i}");
            }
        }
    }
}

/// Logits of every token, and those of the last one when it was appended after a cut.
#[test]
fn truncation_and_all_rows_give_the_same_bits() {
    let model = open_smollm2(&runtime(2, Isa::best()));
    let tokens = prompt(4);
    let expected = run(&model, &tokens, LENGTH, 0);
    let options = SessionOptions {
        max_context: 64,
        max_logits: LENGTH as u32,
        ..SessionOptions::default()
    };
    let mut session = Session::new(&model, &options, None).unwrap();
    let all = |tokens: &[u32], session: &mut Session| {
        let entries = Entries {
            sequences: &[0],
            tokens,
            offsets: &[0, tokens.len()],
        };
        session.forward(&entries, Want::All, None).unwrap();
    };
    all(&tokens, &mut session);
    assert_eq!(session.rows(), LENGTH);
    assert!(bits(session.logits(LENGTH - 1).unwrap()) == expected);
    session.truncate(0, 20).unwrap();
    all(&prompt(9)[20..], &mut session);
    session.truncate(0, 20).unwrap();
    all(&tokens[20..], &mut session);
    assert_eq!(session.sequence_length(0).unwrap(), LENGTH as u32);
    assert!(bits(session.logits(LENGTH - 21).unwrap()) == expected);
}
