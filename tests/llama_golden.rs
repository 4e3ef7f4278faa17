//! SmolLM2 against a float64 forward pass over the same file.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod models;

use mantle::kernels::Isa;
use mantle::model::session::{Entries, Session, SessionOptions, Want};
use models::{golden, ids, open_smollm2, runtime};

/// The id of the largest logit.
fn largest(logits: &[f32]) -> u32 {
    (0..logits.len())
        .max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)))
        .unwrap() as u32
}

fn append(session: &mut Session, tokens: &[u32]) {
    let entries = Entries {
        sequences: &[0],
        tokens,
        offsets: &[0, tokens.len()],
    };
    session.forward(&entries, Want::Last, None).unwrap();
}

/// The ten largest logits behind the prompt stay within 0.3, the first is the same, and the greedy continuation is
/// the same for at least 8 tokens; where it leaves the reference's before token 24, it does so at a near tie.
#[test]
fn logits_and_greedy_text_are_those_of_the_reference() {
    let model = open_smollm2(&runtime(2, Isa::best()));
    for cache in [
        mantle::format::dtype::DataType::F16,
        mantle::format::dtype::DataType::F32,
    ] {
        let options = SessionOptions {
            key_type: cache,
            value_type: cache,
            max_context: 64,
            ..SessionOptions::default()
        };
        let mut session = Session::new(&model, &options, None).unwrap();
        for case in golden("smollm2.json")["generate"].as_array().unwrap() {
            let prompt = &case["prompt"];
            session.truncate(0, 0).unwrap();
            append(&mut session, &ids(&case["ids"]));
            let logits = session.logits(0).unwrap();
            let top = case["top10_last"].as_array().unwrap();
            for pair in top {
                let (id, expected) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
                let difference = (f64::from(logits[id]) - expected).abs();
                assert!(
                    difference <= 0.3,
                    "{prompt}: logit {id} is {}, expected {expected}",
                    logits[id]
                );
            }
            assert_eq!(
                u64::from(largest(logits)),
                top[0][0].as_u64().unwrap(),
                "{prompt}"
            );
            let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            assert!(
                (sum.ln() - case["lse_last"].as_f64().unwrap()).abs() < 0.3,
                "{prompt}"
            );

            for (step, &expected) in ids(&case["greedy24"]).iter().enumerate() {
                let logits = session.logits(0).unwrap();
                let chosen = largest(logits);
                if chosen != expected {
                    let gap = logits[chosen as usize] - logits[expected as usize];
                    println!(
                        "{prompt}: leaves the reference at token {step}: {chosen} before {expected} by {gap}"
                    );
                    assert!(
                        step >= 8 && gap < 0.6,
                        "{prompt}: token {step} is {chosen}, expected {expected}, by {gap}"
                    );
                    break;
                }
                append(&mut session, &[chosen]);
            }
        }
    }
}
