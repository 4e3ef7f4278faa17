//! The committed headers are what `src/ffi` says, and any C99 or C++11 compiler takes them without a word.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

fn same(generated: &str, committed: &str) {
    let expected = std::fs::read_to_string(generated).unwrap();
    let path = include().join(committed);
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    for (i, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
        assert_eq!(
            expected,
            found,
            "{}:{}: differs from src/ffi; run `make header` and commit the result",
            path.display(),
            i + 1
        );
    }
    assert_eq!(
        expected.lines().count(),
        found.lines().count(),
        "{} has not as many lines as src/ffi makes; run `make header` and commit the result",
        path.display()
    );
}

#[test]
fn the_committed_headers_are_the_generated_ones() {
    same(env!("MANTLE_GENERATED_HEADER"), "mantle.h");
    same(
        env!("MANTLE_GENERATED_EXPERIMENTAL_HEADER"),
        "mantle_experimental.h",
    );
}

/// Compiles `code` as `language` with every warning an error.
fn compile(compiler: &str, standard: &str, extension: &str, code: &str) {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("header-{standard}"));
    std::fs::create_dir_all(&scratch).unwrap();
    let source = scratch.join(format!("header.{extension}"));
    std::fs::write(&source, code).unwrap();
    let output = Command::new(compiler)
        .args([
            &format!("-std={standard}"),
            "-Wall",
            "-Wextra",
            "-pedantic",
            "-Werror",
            "-Wstrict-aliasing",
        ])
        .arg("-I")
        .arg(include())
        .arg("-c")
        .arg(&source)
        .arg("-o")
        .arg(scratch.join("header.o"))
        .output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {compiler}: {error}"));
    assert!(
        output.status.success(),
        "{compiler} -std={standard}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The headers alone, included twice.
fn headers() -> String {
    let mut code = String::new();
    for _ in 0..2 {
        for name in ["mantle_experimental.h", "mantle.h"] {
            if include().join(name).exists() {
                code.push_str(&format!("#include \"{name}\"\n"));
            }
        }
    }
    code
}

#[test]
fn the_headers_compile_as_c() {
    let code = headers() + "int main(void) { return mantle_version() == 0 ? 1 : MANTLE_OK; }\n";
    for standard in ["c99", "c11", "c17"] {
        compile("cc", standard, "c", &code);
    }
}

#[test]
fn the_headers_compile_as_cpp() {
    let code = headers() + "int main() { return mantle_version() == 0 ? 1 : MANTLE_OK; }\n";
    for standard in ["c++11", "c++17"] {
        compile("c++", standard, "cc", &code);
    }
}
