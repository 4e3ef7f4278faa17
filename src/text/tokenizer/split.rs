//! The patterns that cut text into words before byte pair merging, by the name that GGUF files
//! give them in `tokenizer.ggml.pre`.
//!
//! Each pattern is the one in the `tokenizer.json` of the model family. The patterns end with
//! `\s+(?!\S)|\s+`, which asks for a look ahead, and so for a backtracking engine whose stack
//! overflows on long runs of spaces. Here the alternatives are separate patterns of a linear
//! time engine, and the look ahead is the rule in [`shorten`].

use crate::base::error::{Error, Result};
use regex_automata::meta::Regex;
use regex_automata::{Input, PatternID};

/// How a family of models cuts text, and what else its name says.
pub(super) struct PreTokenizer {
    /// The names in `tokenizer.ggml.pre`.
    pub names: &'static [&'static str],
    /// Each step cuts the pieces that the step before it left: matches, and what lies between.
    steps: &'static [&'static [&'static str]],
    /// Text is brought to Unicode normalization form C first.
    pub compose: bool,
    /// A word that is a token is that token, whatever the merges say.
    pub whole_words: bool,
    /// A beginning-of-sequence token is added when the file does not say.
    pub add_bos: bool,
}

/// Stands for the two alternatives `\s+(?!\S)|\s+`; always the last of a step.
const SPACES: &str = r"\s+";

const GPT2: &[&str] = &[
    r"'s|'t|'re|'ve|'m|'ll|'d",
    r" ?\p{L}+",
    r" ?\p{N}+",
    r" ?[^\s\p{L}\p{N}]+",
    SPACES,
];
const LLAMA3: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    SPACES,
];
const QWEN2: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"\p{N}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    SPACES,
];
const QWEN35: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r"\p{N}",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    SPACES,
];
const TEKKEN: &[&str] = &[
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"\p{N}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    SPACES,
];
const GPT4O: &[&str] = &[
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    SPACES,
];
const DEEPSEEK3: &[&str] = &[
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    r"\s*[\r\n]+",
    SPACES,
];
const DIGIT: &[&str] = &[r"\p{N}"];
const DIGITS: &[&str] = &[r"\p{N}+"];
const THREE_ASCII_DIGITS: &[&str] = &[r"[0-9][0-9][0-9]"];
const UP_TO_THREE_DIGITS: &[&str] = &[r"\p{N}{1,3}"];
const CHINESE_JAPANESE: &[&str] = &[r"[一-龥\x{3040}-ゟ゠-ヿ]+"];
const BLOOM: &[&str] = &[r" ?[^(\s|.,!?…。，、।۔،)]+"];

const fn family(names: &'static [&'static str], steps: &'static [&'static [&'static str]]) -> PreTokenizer {
    PreTokenizer {
        names,
        steps,
        compose: false,
        whole_words: false,
        add_bos: false,
    }
}

/// Every name that is known. The first name of a row is the family's.
static KNOWN: &[PreTokenizer] = &[
    family(
        &["gpt-2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de"],
        &[GPT2],
    ),
    PreTokenizer {
        // GPT-NeoX and its descendants normalize to form C.
        compose: true,
        ..family(&["mpt", "olmo", "modern-bert"], &[GPT2])
    },
    family(
        &["smollm", "starcoder", "refact", "codeshell", "minerva-7b"],
        &[DIGIT, GPT2],
    ),
    PreTokenizer {
        compose: true,
        ..family(&["command-r"], &[DIGIT, GPT2])
    },
    // What llama.cpp means by "default": the pattern of the first Falcon files.
    family(
        &["default"],
        &[&[r"[\p{P}$+<=>^~|]+"], GPT2, DIGITS, THREE_ASCII_DIGITS],
    ),
    PreTokenizer {
        whole_words: true,
        add_bos: true,
        ..family(&["llama-bpe", "llama3", "llama-v3", "falcon3", "lfm2"], &[LLAMA3])
    },
    family(&["dbrx", "glm4", "chatglm-bpe"], &[LLAMA3]),
    PreTokenizer {
        compose: true,
        ..family(&["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2"], &[QWEN2])
    },
    family(&["grok-2"], &[QWEN2]),
    PreTokenizer {
        compose: true,
        ..family(&["qwen35"], &[QWEN35])
    },
    PreTokenizer {
        whole_words: true,
        add_bos: true,
        ..family(&["tekken"], &[TEKKEN])
    },
    family(&["gpt-4o", "llama4"], &[GPT4O]),
    family(
        &["deepseek-coder"],
        &[
            &[r"[\r\n]"],
            &[r"\s?\p{L}+"],
            &[r"\s?\p{P}+"],
            &[r"[一-龥ࠀ-一가-\x{D7FF}]+"],
            DIGIT,
        ],
    ),
    family(
        &["deepseek-v3"],
        &[UP_TO_THREE_DIGITS, CHINESE_JAPANESE, DEEPSEEK3],
    ),
    family(&["bloom", "gpt3-finnish", "poro-chat"], &[BLOOM]),
];

/// The family of the name `pre`; an unknown name is an error that lists the known ones.
pub(super) fn known(key: &str, pre: &str) -> Result<&'static PreTokenizer> {
    KNOWN
        .iter()
        .find(|family| family.names.contains(&pre))
        .ok_or_else(|| {
            Error::unsupported(format!(
                "{key} names the splitting pattern {pre:?}, which is not known; known are {}",
                known_names()
            ))
        })
}

/// All names, for error messages.
pub(super) fn known_names() -> String {
    let mut names: Vec<&str> = KNOWN.iter().flat_map(|f| f.names).copied().collect();
    names.sort_unstable();
    names.join(", ")
}

/// Compiled patterns.
pub(super) struct Splitter {
    steps: Vec<Step>,
}

struct Step {
    regex: Regex,
    /// The pattern that stands for `\s+(?!\S)|\s+`, if the step has it.
    spaces: Option<PatternID>,
}

impl Splitter {
    /// Compiles the patterns of a family.
    pub fn new(family: &PreTokenizer) -> Result<Splitter> {
        let compile = |patterns: &&[&str]| {
            let spaces = patterns.iter().position(|pattern| *pattern == SPACES);
            let regex = Regex::new_many(patterns).map_err(|error| {
                Error::unsupported(format!(
                    "the splitting pattern {} does not compile: {error}",
                    family.names[0]
                ))
            })?;
            Ok(Step {
                regex,
                spaces: spaces.map(PatternID::new_unchecked),
            })
        };
        let steps = family.steps.iter().map(compile).collect::<Result<_>>()?;
        Ok(Splitter { steps })
    }

    /// Calls `visit` with each word of `text`, in order; joined they are `text`.
    pub fn split(&self, text: &str, visit: &mut impl FnMut(&str)) {
        split_with(&self.steps, text, visit);
    }
}

fn split_with(steps: &[Step], text: &str, visit: &mut impl FnMut(&str)) {
    let Some((step, rest)) = steps.split_first() else {
        if !text.is_empty() {
            visit(text);
        }
        return;
    };
    let mut done = 0;
    while let Some((start, end)) = step.find(text, done) {
        if start > done {
            split_with(rest, &text[done..start], visit);
        }
        split_with(rest, &text[start..end], visit);
        done = end;
    }
    if done < text.len() {
        split_with(rest, &text[done..], visit);
    }
}

impl Step {
    /// The next match at or after `from`.
    fn find(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let found = self.regex.search(&Input::new(text).range(from..))?;
        let (start, mut end) = (found.start(), found.end());
        if self.spaces == Some(found.pattern()) {
            end = shorten(text, start, end);
        }
        // No pattern matches nothing, but a loop must not hang on it.
        (end > start).then_some((start, end))
    }
}

/// Where `\s+(?!\S)|\s+` ends in place of `\s+`: a run of spaces before a word leaves its last
/// space to the word, unless it is the only one.
fn shorten(text: &str, start: usize, end: usize) -> usize {
    if end == text.len() {
        return end;
    }
    match text[start..end].char_indices().next_back() {
        Some((last, _)) if last > 0 => start + last,
        _ => end,
    }
}
