//! The house rules that a compiler does not check: floors import only from floors below, `unsafe` stays on
//! the floors that may hold it, files and functions stay short enough to read.

use std::path::{Path, PathBuf};

/// The floors from the ground up; those of one line stand side by side and must not import each other.
const FLOORS: &[&[&str]] = &[
    &["base"],
    &["format"],
    &["quant"],
    &["kernels"],
    &["ops"],
    &["model"],
    &["text", "pack"],
    &["ffi"],
];

/// Floors that may contain `unsafe`.
const UNSAFE_FLOORS: &[&str] = &["ffi", "kernels", "base"];

const MAX_FILE_LINES: usize = 600;
const MAX_FUNCTION_LINES: usize = 120;

#[test]
fn the_source_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut problems = Vec::new();
    let files = rust_files(&root);
    assert!(files.len() > 10, "no source under {}", root.display());
    for path in files {
        let code = std::fs::read_to_string(&path).unwrap();
        let name = path
            .strip_prefix(&root)
            .unwrap()
            .to_string_lossy()
            .replace('\\', "/");
        problems.extend(check(&name, &code));
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// Every broken rule of one file; `name` is its path under `src`.
fn check(name: &str, code: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let plain = without_comments_and_strings(code);
    let floor = name.split('/').next().unwrap_or("").trim_end_matches(".rs");
    let line_of = |position: usize| plain[..position].matches('\n').count() + 1;
    if floor != "lib" {
        let Some(height) = height_of(floor) else {
            return vec![format!("src/{name}: {floor} is no floor; known are {FLOORS:?}")];
        };
        for (position, target) in imports(&plain) {
            if target != floor && height_of(&target).is_some_and(|other| other >= height) {
                problems.push(format!(
                    "src/{name}:{}: {floor} imports {target}, which does not lie below it",
                    line_of(position)
                ));
            }
        }
    }
    if !UNSAFE_FLOORS.contains(&floor) {
        for position in words(&plain, "unsafe") {
            problems.push(format!(
                "src/{name}:{}: unsafe outside {UNSAFE_FLOORS:?}",
                line_of(position)
            ));
        }
    }
    let lines = code.lines().count();
    if lines > MAX_FILE_LINES {
        problems.push(format!("src/{name}: {lines} lines, at most {MAX_FILE_LINES}"));
    }
    for (function, position, lines) in functions(&plain) {
        if lines > MAX_FUNCTION_LINES {
            problems.push(format!(
                "src/{name}:{}: fn {function} has {lines} lines, at most {MAX_FUNCTION_LINES}",
                line_of(position)
            ));
        }
    }
    problems
}

fn height_of(floor: &str) -> Option<usize> {
    FLOORS
        .iter()
        .position(|side_by_side| side_by_side.contains(&floor))
}

/// The floors that a file names: the first part of each path from `crate::` or from a chain of `super::`
/// that leaves the floor, with the position of the path.
fn imports(plain: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for start in ["crate", "super"] {
        for position in words(plain, start) {
            if plain[..position].trim_end().ends_with("::") {
                continue; // Not the beginning of its path.
            }
            let mut rest = &plain[position..];
            while let Some(inner) = rest.strip_prefix("super").or_else(|| rest.strip_prefix("crate")) {
                match inner.trim_start().strip_prefix("::") {
                    Some(inner) => rest = inner.trim_start(),
                    None => break,
                }
            }
            for first in first_names(rest) {
                found.push((position, first));
            }
        }
    }
    found
}

/// The names with which a path (or each path of a group in braces) begins.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = path.strip_prefix('{') else {
        return vec![name(path)];
    };
    let (mut depth, mut start, mut names) = (0, 0, Vec::new());
    for (position, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..position]));
                start = position + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// The positions at which `word` stands as a whole word.
fn words(plain: &str, word: &str) -> Vec<usize> {
    let part_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    plain
        .match_indices(word)
        .filter(|(position, _)| {
            !plain[..*position].ends_with(part_of_a_name)
                && !plain[position + word.len()..].starts_with(part_of_a_name)
        })
        .map(|(position, _)| position)
        .collect()
}

/// Name, position and number of lines of every function with a body.
fn functions(plain: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for position in words(plain, "fn") {
        let name: String = plain[position + 2..]
            .trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let Some(open) = plain[position..].find(['{', ';']).map(|offset| position + offset) else {
            continue;
        };
        if name.is_empty() || plain[open..].starts_with(';') {
            continue; // A function pointer type, or a declaration without a body.
        }
        let mut depth = 0;
        for (offset, c) in plain[open..].char_indices() {
            depth += i32::from(c == '{') - i32::from(c == '}');
            if depth == 0 {
                let lines = plain[position..open + offset].matches('\n').count() + 1;
                found.push((name, position, lines));
                break;
            }
        }
    }
    found
}

/// The code with comments, strings and character literals blanked out; lines and positions stay.
fn without_comments_and_strings(code: &str) -> String {
    let bytes = code.as_bytes();
    let mut plain = bytes.to_vec();
    let mut i = 0;
    while i < bytes.len() {
        let end = end_of_literal(bytes, i);
        for byte in &mut plain[i..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        i = end.max(i + 1);
    }
    String::from_utf8(plain).unwrap()
}

/// Where the comment or literal that begins at `i` ends; `i` when none begins there.
fn end_of_literal(bytes: &[u8], i: usize) -> usize {
    let rest = &bytes[i..];
    let find = |from: usize, what: &[u8]| {
        rest[from..]
            .windows(what.len())
            .position(|window| window == what)
            .map_or(rest.len(), |p| from + p)
    };
    let in_a_name = i > 0 && (bytes[i - 1].is_ascii_alphanumeric() || bytes[i - 1] == b'_');
    let length = if rest.starts_with(b"//") {
        find(0, b"\n")
    } else if rest.starts_with(b"/*") {
        let (mut depth, mut at) = (0, 0);
        loop {
            if rest[at..].starts_with(b"/*") {
                (depth, at) = (depth + 1, at + 2);
            } else if rest[at..].starts_with(b"*/") {
                (depth, at) = (depth - 1, at + 2);
            } else {
                at += 1;
            }
            if depth == 0 || at >= rest.len() {
                break at.min(rest.len());
            }
        }
    } else if rest[0] == b'"' {
        quoted(rest, b'"')
    } else if !in_a_name && (rest.starts_with(b"r\"") || rest.starts_with(b"r#") || rest.starts_with(b"br")) {
        let marks = rest
            .iter()
            .skip_while(|b| b"br".contains(b))
            .take_while(|b| **b == b'#')
            .count();
        let quote = rest.iter().position(|b| !b"br#".contains(b)).unwrap_or(0);
        if rest.get(quote) != Some(&b'"') {
            return i; // A name, or a raw identifier such as r#type.
        }
        let closing = [&b"\""[..], &vec![b'#'; marks]].concat();
        (find(quote + 1, &closing) + closing.len()).min(rest.len())
    } else if rest[0] == b'\'' && rest.len() > 2 && (rest[1] == b'\\' || is_char_literal(rest)) {
        quoted(rest, b'\'')
    } else {
        0
    };
    i + length
}

/// Whether a quote begins a character and not a lifetime: one character stands between two quotes.
fn is_char_literal(rest: &[u8]) -> bool {
    let length = match rest[1] {
        byte if byte < 0x80 => 1,
        byte if byte < 0xe0 => 2,
        byte if byte < 0xf0 => 3,
        _ => 4,
    };
    rest.get(1 + length) == Some(&b'\'')
}

/// Length of a literal between quotes, escapes respected.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn upward_imports_are_found_however_they_are_written() {
    for (name, code, expected) in [
        (
            "quant/blocks.rs",
            "use crate::kernels::table::Kernels;",
            "imports kernels",
        ),
        (
            "quant/blocks.rs",
            "use crate::{base::error, ops::{linear, rope}};",
            "imports ops",
        ),
        (
            "quant/blocks.rs",
            "use crate::{\n    base::error,\n    model,\n};",
            "src/quant/blocks.rs:1",
        ),
        (
            "format/gguf.rs",
            "fn f() { crate::ffi::status::of(1) }",
            "imports ffi",
        ),
        (
            "format/gguf.rs",
            "use super::super::quant::blocks;",
            "imports quant",
        ),
        ("text/bpe.rs", "use crate::pack::writer;", "imports pack"),
        ("odd/file.rs", "", "odd is no floor"),
    ] {
        let problems = check(name, code);
        assert!(
            problems.len() == 1 && problems[0].contains(expected),
            "{code}: {problems:?}"
        );
    }
    for (name, code) in [
        (
            "quant/blocks.rs",
            "use crate::base::error::{Error, Result};\nuse crate::format::dtype;",
        ),
        (
            "quant/blocks.rs",
            "//! See [`crate::kernels`].\n/* crate::ffi */ const A: &str = \"crate::ops\";",
        ),
        (
            "kernels/table.rs",
            "use super::scalar; use crate::kernels::avx2; use crate::quant;",
        ),
        ("lib.rs", "pub mod ffi; use crate::ffi;"),
    ] {
        assert_eq!(check(name, code), Vec::<String>::new(), "{code}");
    }
}

#[test]
fn unsafe_and_long_pieces_are_found() {
    assert!(
        check("model/llama.rs", "fn f() {\n unsafe { g() }\n}")[0].contains("src/model/llama.rs:2: unsafe")
    );
    assert!(check("kernels/avx2.rs", "unsafe fn f() {}").is_empty());
    assert!(
        check(
            "model/llama.rs",
            "#![deny(unsafe_code)] // unsafe\nlet a = 'u'; let b = \"unsafe\";"
        )
        .is_empty()
    );
    let long = format!(
        "pub fn long() {{\n{}}}\nfn short() {{ '{{'; }}\n",
        "    a();\n".repeat(120)
    );
    let problems = check("ops/norm.rs", &long);
    assert!(
        problems.len() == 1 && problems[0].contains("fn long has 122 lines"),
        "{problems:?}"
    );
    let problems = check("ops/norm.rs", &"// a\n".repeat(601));
    assert!(
        problems.len() == 1 && problems[0].contains("601 lines"),
        "{problems:?}"
    );
}

#[test]
fn literals_and_comments_are_blanked() {
    for (code, plain) in [
        ("a /* b /* c */ d */ e", "a                   e"),
        ("x(\"\\\"y\", r#\"z\"z\"#) // w", "x(     ,         )     "),
        ("f::<'a>('\"', b'\\'')", "f::<'a>(   , b    )"),
        ("r#type + br", "r#type + br"),
    ] {
        assert_eq!(without_comments_and_strings(code), plain, "{code}");
    }
}
