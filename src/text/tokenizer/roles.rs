//! Which tokens play which role, where files leave it to the text of the token.

use super::Special;

/// The ids of tokens with a role, by [`Special`].
pub(super) type Roles = [Option<u32>; Special::COUNT];

/// Tokens that end a turn or a message, whatever the file says of them: many files name only one of several.
const END_OF_TURN: &[&str] = &["<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|endoftext|>"];
const END_OF_MESSAGE: &[&str] = &["<|eom_id|>"];
const END_OF_GENERATION: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "<EOT>",
    "<｜end▁of▁sentence｜>",
];

/// Completes the roles that end a turn or a message by the texts of tokens, and returns the ids that end the
/// generation of text, in ascending order. `id` gives the id of a text that is a token.
pub(super) fn complete(roles: &mut Roles, id: impl Fn(&str) -> Option<u32>) -> Vec<u32> {
    let first = |texts: &[&str]| texts.iter().find_map(|text| id(text));
    for (which, texts) in [(Special::Eot, END_OF_TURN), (Special::Eom, END_OF_MESSAGE)] {
        let role = &mut roles[which as usize];
        *role = role.or_else(|| first(texts));
    }
    // In the harmony format <|end|> ends a message, and more messages follow.
    let harmony = id("<|return|>").is_some() && id("<|call|>").is_some();
    let by_text = END_OF_GENERATION
        .iter()
        .filter(|text| !(harmony && **text == "<|end|>"));
    let by_role = [Special::Eos, Special::Eot, Special::Eom].map(|which| roles[which as usize]);
    let mut ids: Vec<u32> = by_text
        .filter_map(|text| id(text))
        .chain(by_role.into_iter().flatten())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
