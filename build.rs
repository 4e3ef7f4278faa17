//! Generates the C headers from `src/ffi` and names the shared library.
//!
//! Each file below is one section of the header, in this order: its module comment becomes the
//! section's introduction, then follow its constants, types and functions as cbindgen writes them.
//! The result goes to `OUT_DIR`; `tests/abi_header.rs` compares it with the committed `include/`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Sections of `mantle.h`.
const STABLE: &[&str] = &[
    "version",
    "status",
    "dtype",
    "runtime",
    "cancel",
    "tokenizer",
    "model",
    "arena",
    "session",
    "model_info",
    "generate",
    "embed",
    "profile",
    "matrix",
    "gemm",
    "rows",
    "vector",
];

/// Sections of `mantle_experimental.h`.
const EXPERIMENTAL: &[&str] = &["activations", "limits", "measure"];

fn main() {
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(variable("OUT_DIR"));
    for input in ["build.rs", "cbindgen.toml", "Cargo.toml", "src/ffi"] {
        println!("cargo:rerun-if-changed={input}");
    }
    // `make header` asks to write the committed headers anew.
    println!("cargo:rerun-if-env-changed=MANTLE_WRITE_HEADER");
    let write = std::env::var_os("MANTLE_WRITE_HEADER").is_some();
    for (name, file, sections) in [
        ("MANTLE_GENERATED_HEADER", "mantle.h", STABLE),
        (
            "MANTLE_GENERATED_EXPERIMENTAL_HEADER",
            "mantle_experimental.h",
            EXPERIMENTAL,
        ),
    ] {
        if sections.is_empty() {
            continue;
        }
        let path = out.join(file);
        let text = header(&root, file, sections);
        if let Err(error) = std::fs::write(&path, text) {
            fail(&format!("cannot write {}: {error}", path.display()));
        }
        println!("cargo:rustc-env={name}={}", path.display());
        if write {
            let committed = root.join("include").join(file);
            if let Err(error) = std::fs::copy(&path, &committed) {
                fail(&format!("cannot write {}: {error}", committed.display()));
            }
        }
    }

    // One soname per ABI generation: programs that were linked to .so.0 keep the layout they know.
    if variable("CARGO_CFG_TARGET_OS") == "linux" {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmantle.so.0");
    }
    println!("cargo:rustc-env=MANTLE_TARGET={}", variable("TARGET"));
    println!("cargo:rustc-env=MANTLE_PROFILE={}", variable("PROFILE"));
    println!("cargo:rustc-env=MANTLE_COMPILER={}", compiler());
}

/// One header: the introduction of `cbindgen.toml`'s kind, then a section per file.
fn header(root: &Path, file: &str, sections: &[&str]) -> String {
    let config = match cbindgen::Config::from_file(root.join("cbindgen.toml")) {
        Ok(config) => config,
        Err(error) => fail(&format!("cbindgen.toml: {error}")),
    };
    let guard = file.to_uppercase().replace('.', "_");
    let introduction = comment(&root.join("src/ffi").join(if file == "mantle.h" {
        "mod.rs"
    } else {
        "experimental.rs"
    }));
    let mut text = format!(
        "/* Generated from src/ffi by build.rs (cbindgen); do not edit: change src/ffi, then `make header`. */\n\
         #ifndef {guard}\n#define {guard}\n\n{introduction}\n"
    );
    if file == "mantle.h" {
        text.push_str(
            "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n\n\
             #if defined(__GNUC__)\n#define MANTLE_MUST_USE __attribute__((warn_unused_result))\n\
             #else\n#define MANTLE_MUST_USE\n#endif\n",
        );
    } else {
        text.push_str("#include \"mantle.h\"\n");
    }
    text.push_str("\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n");
    for section in sections {
        let source = root.join("src/ffi").join(format!("{section}.rs"));
        let bindings = cbindgen::Builder::new()
            .with_config(config.clone())
            .with_src(&source)
            .generate();
        let mut body = Vec::new();
        match bindings {
            Ok(bindings) => bindings.write(&mut body),
            Err(error) => fail(&format!("{}: {error}", source.display())),
        }
        let body = tidy(&String::from_utf8_lossy(&body));
        if *section != "experimental" {
            let _ = write!(text, "\n{}", comment(&source));
        }
        let _ = write!(text, "\n{}\n", body.trim());
    }
    text.push_str("\n#ifdef __cplusplus\n} /* extern \"C\" */\n#endif\n");
    let _ = writeln!(text, "\n#endif /* {guard} */");
    text
}

/// Closes up rows of constants, which cbindgen sets apart by empty lines, and puts negative numbers in
/// parentheses.
fn tidy(body: &str) -> String {
    let blocks: Vec<&str> = body.trim().split("\n\n").collect();
    let mut text = String::new();
    for (i, block) in blocks.iter().enumerate() {
        let constant = |block: &&str| {
            block
                .lines()
                .last()
                .is_some_and(|line| line.starts_with("#define "))
        };
        match block.rsplit_once(" -") {
            Some((name, number)) if constant(block) => {
                let _ = writeln!(text, "{name} (-{number})");
            }
            _ => {
                let _ = writeln!(text, "{block}");
            }
        }
        if !(constant(block) && blocks.get(i + 1).is_some_and(|next| constant(&next.trim()))) {
            text.push('\n');
        }
    }
    text
}

/// The module comment (`//!` lines) of a source file as a C comment.
fn comment(source: &Path) -> String {
    let code = match std::fs::read_to_string(source) {
        Ok(code) => code,
        Err(error) => fail(&format!("cannot read {}: {error}", source.display())),
    };
    let lines: Vec<&str> = code
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| line.trim_start_matches("//!"))
        .collect();
    let mut text = String::from("/*\n");
    for line in lines {
        let _ = writeln!(text, " *{line}");
    }
    text.push_str(" */\n");
    text
}

fn compiler() -> String {
    let output = std::process::Command::new(variable("RUSTC"))
        .arg("--version")
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    // "rustc 1.95.0 (hash date)": the number is what matters.
    let text = text.unwrap_or_default();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

fn variable(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) => value,
        Err(error) => fail(&format!("{name}: {error}")),
    }
}

fn fail(message: &str) -> ! {
    eprintln!("build.rs: {message}");
    std::process::exit(1);
}
