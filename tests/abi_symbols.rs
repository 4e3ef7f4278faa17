//! The shared library exports what the headers declare, and nothing else.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The shared library that cargo built beside this test.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let dependencies = test.parent().unwrap();
    [dependencies, dependencies.parent().unwrap()]
        .iter()
        .map(|folder| folder.join("libmantle.so"))
        .find(|path| path.exists())
        .expect("libmantle.so stands beside the tests")
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).arg(library()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The functions that committed headers declare.
fn declared(headers: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in headers {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include").join(file);
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        for line in text.lines() {
            let declares = !line.starts_with([' ', '/', '#', '*']) && !line.starts_with("typedef");
            if let Some(open) = line.find('(')
                && declares
            {
                let name = line.get(..open).unwrap().rsplit([' ', '*']).next().unwrap();
                if name.starts_with("mantle_") {
                    names.insert(name.to_string());
                }
            }
        }
    }
    names
}

#[test]
fn the_declared_functions_are_exported_and_nothing_else() {
    let listing = run("nm", &["-D", "--defined-only"]);
    let exported: BTreeSet<String> = listing
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .map(str::to_string)
        .collect();
    let declared = declared(&["mantle.h", "mantle_experimental.h"]);
    assert!(
        declared.contains("mantle_version"),
        "the header was not understood"
    );
    let undeclared: Vec<_> = exported.difference(&declared).collect();
    assert!(
        undeclared.is_empty(),
        "exported, but in no header: {undeclared:?}"
    );
    let missing: Vec<_> = declared.difference(&exported).collect();
    assert!(missing.is_empty(), "in a header, but not exported: {missing:?}");
}

#[test]
fn the_soname_carries_the_abi_version() {
    let dynamic = run("readelf", &["-d"]);
    let header = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("include")
            .join("mantle.h"),
    )
    .unwrap();
    let version = header
        .lines()
        .find_map(|line| line.strip_prefix("#define MANTLE_ABI_VERSION "))
        .expect("the header states the ABI version");
    let soname = format!("[libmantle.so.{version}]");
    assert!(
        dynamic
            .lines()
            .any(|line| line.contains("SONAME") && line.contains(&soname)),
        "expected the soname {soname} in:\n{dynamic}"
    );
}

/// `tests/c/test_arguments.c` calls every function with arguments that are NULL or out of range.
#[test]
fn no_function_is_left_out_of_the_sweep_over_bad_arguments() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/test_arguments.c");
    let sweep = std::fs::read_to_string(path).unwrap();
    let missing: Vec<_> = declared(&["mantle.h"])
        .into_iter()
        .filter(|name| !sweep.contains(&format!("{name}(")))
        .collect();
    assert!(missing.is_empty(), "not in tests/c/test_arguments.c: {missing:?}");
}
