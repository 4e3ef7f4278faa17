//! Generates text: a prompt in, token after token out.

use super::tokenizer::{StreamDecoder, Tokenizer};
use crate::base::cancel::Cancel;
use crate::base::error::{Error, Result, Status};
use crate::model::session::{Entries, Session, Want};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct GenerateOptions {
    /// Most tokens to generate; `None` for as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Go on when the model ends its answer.
    pub ignore_end: bool,
}

/// Why generation stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model ended its answer.
    End,
    /// As many tokens as asked for.
    MaxTokens,
    /// The sequence has as many tokens as the session's context holds.
    ContextFull,
    /// The callback said so.
    Callback,
}

/// What was done and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct Generation {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated; one that ends the answer is not counted.
    pub tokens: usize,
    /// Forward passes of one token, which gave all tokens but the first.
    pub passes: usize,
    /// Time for the prompt, up to the first token.
    pub prompt_time: Duration,
    /// Time for the passes after the prompt, without the callbacks.
    pub generation_time: Duration,
    /// Why it stopped.
    pub stop: Stop,
}

/// Takes a generated token (`None` for what an incomplete character leaves at the end) and the text that
/// became whole with it, which may be empty; returns false to stop.
pub type OnToken<'a> = dyn FnMut(Option<u32>, &str) -> bool + 'a;

/// Appends `prompt` to `sequence`, then generates greedily: each token is the one with the highest logit, the
/// lowest id among equals.
///
/// Afterwards the sequence holds the prompt and all generated tokens but the last, which no pass has read yet.
/// `cancel` is looked at in every pass. When the prompt fails, the sequence is cut back to what it was.
///
/// Errors: those of [`Session::forward`]; [`Status::ContextFull`] before anything is computed when the prompt
/// does not fit.
pub fn generate(
    session: &mut Session,
    tokenizer: &Arc<dyn Tokenizer>,
    sequence: i32,
    prompt: &[u32],
    options: &GenerateOptions,
    cancel: Option<&Cancel>,
    on_token: &mut OnToken<'_>,
) -> Result<Generation> {
    let before = session.sequence_length(sequence)? as usize;
    let context = session.context();
    check_prompt(prompt.len(), before, context)?;

    let start = Instant::now();
    if let Err(error) = read_prompt(session, sequence, prompt, cancel) {
        session.truncate(sequence, before as u32)?;
        return Err(error);
    }
    let mut next = greedy(session.logits(0)?)?;
    let mut generation = Generation {
        prompt_tokens: prompt.len(),
        tokens: 0,
        passes: 0,
        prompt_time: start.elapsed(),
        generation_time: Duration::ZERO,
        stop: Stop::MaxTokens,
    };

    let mut text = StreamDecoder::new(Arc::clone(tokenizer), true);
    generation.stop = loop {
        if !options.ignore_end && tokenizer.is_end_of_generation(next) {
            break Stop::End;
        }
        generation.tokens += 1;
        if !on_token(Some(next), &text.push(next)?) {
            break Stop::Callback;
        }
        if options.max_tokens.is_some_and(|most| generation.tokens >= most) {
            break Stop::MaxTokens;
        }
        if before + prompt.len() + generation.passes >= context {
            break Stop::ContextFull;
        }
        let start = Instant::now();
        forward(session, sequence, &[next], Want::Last, cancel)?;
        next = greedy(session.logits(0)?)?;
        generation.generation_time += start.elapsed();
        generation.passes += 1;
    };
    let rest = text.finish();
    if !rest.is_empty() && !on_token(None, &rest) {
        generation.stop = Stop::Callback;
    }
    Ok(generation)
}

/// The prompt must be there and fit before any of it is computed.
fn check_prompt(prompt: usize, before: usize, context: usize) -> Result<()> {
    if prompt == 0 {
        return Err(Error::invalid("the prompt is empty, expected at least one token"));
    }
    if prompt > context.saturating_sub(before) {
        let held = if before > 0 {
            format!(", and the sequence has {before} already")
        } else {
            String::new()
        };
        return Err(Error::new(
            Status::ContextFull,
            format!("the prompt has {prompt} tokens{held}; the session's context holds {context}"),
        ));
    }
    Ok(())
}

/// Appends the prompt in parts that fit a forward pass, so that a cancellation is seen between them. Only the
/// last part needs logits.
fn read_prompt(session: &mut Session, sequence: i32, prompt: &[u32], cancel: Option<&Cancel>) -> Result<()> {
    let part = session.batch_tokens().max(1);
    let mut rest = prompt;
    while rest.len() > part {
        let (now, later) = rest.split_at(part);
        forward(session, sequence, now, Want::None, cancel)?;
        rest = later;
    }
    forward(session, sequence, rest, Want::Last, cancel)
}

fn forward(
    session: &mut Session,
    sequence: i32,
    tokens: &[u32],
    want: Want,
    cancel: Option<&Cancel>,
) -> Result<()> {
    let entries = Entries {
        sequences: &[sequence],
        tokens,
        offsets: &[0, tokens.len()],
    };
    session.forward(&entries, want, cancel)
}

/// The token with the highest logit, the lowest id among equals. NaN never wins.
fn greedy(logits: &[f32]) -> Result<u32> {
    let mut best = None;
    let mut highest = f32::NEG_INFINITY;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > highest || (best.is_none() && logit == highest) {
            highest = logit;
            best = Some(id as u32);
        }
    }
    best.ok_or_else(|| {
        Error::format(format!(
            "all {} logits are NaN: the model's weights are damaged or out of range",
            logits.len()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_logit_wins_and_the_lowest_id_among_equals() {
        assert_eq!(greedy(&[0.0, 2.0, 1.0, 2.0]), Ok(1));
        assert_eq!(greedy(&[f32::NAN, -3.0, f32::NAN]), Ok(1));
        assert_eq!(greedy(&[f32::NAN, f32::NEG_INFINITY]), Ok(1));
        assert_eq!(greedy(&[f32::NAN; 2]).unwrap_err().status(), Status::Format);
    }

    #[test]
    fn a_prompt_that_does_not_fit_is_refused_with_its_numbers() {
        assert!(check_prompt(8, 0, 8).is_ok());
        assert_eq!(
            check_prompt(9, 0, 8).unwrap_err().message(),
            "the prompt has 9 tokens; the session's context holds 8"
        );
        assert_eq!(
            check_prompt(2, 7, 8).unwrap_err().message(),
            "the prompt has 2 tokens, and the sequence has 7 already; the session's context holds 8"
        );
        assert_eq!(
            check_prompt(0, 0, 8).unwrap_err().status(),
            Status::InvalidArgument
        );
    }
}
