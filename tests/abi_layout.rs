//! Sizes, offsets and numbers of the C ABI are pinned: programs that were compiled against an older header rely on
//! them. A structure may only grow at its end (then its old size goes to `EARLIER_SIZES`), and
//! `tests/data/abi_numbers.txt` may only get new lines.
#![cfg(target_pointer_width = "64")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may panic")]

use mantle::ffi::arena::mantle_arena_info;
use mantle::ffi::embed::{mantle_embed_options, mantle_embedder_options, mantle_embedding_info};
use mantle::ffi::gemm::mantle_gemm_options;
use mantle::ffi::generate::{mantle_generate_options, mantle_generation};
use mantle::ffi::matrix::mantle_matrix_info;
use mantle::ffi::model::mantle_model_options;
use mantle::ffi::model_info::{mantle_model_info, mantle_tensor_info};
use mantle::ffi::profile::{mantle_profile_entry, mantle_profile_info};
use mantle::ffi::runtime::{mantle_memory, mantle_runtime_info, mantle_runtime_options};
use mantle::ffi::session::mantle_session_options;
use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

/// Checks sizes and offsets in Rust; gives a C program whose compilation checks them in C.
macro_rules! pinned {
    ($($name:ident = $size:literal { $($field:ident = $offset:literal),* $(,)? })*) => {{
        let mut code = String::from("#include <stddef.h>\n#include <mantle.h>\n");
        let mut check = |condition: String| {
            let number = code.lines().count();
            code.push_str(&format!("typedef char check_{number}[({condition}) ? 1 : -1];\n"));
        };
        $(
            assert_eq!(size_of::<$name>(), $size, "the size of {}", stringify!($name));
            check(format!("sizeof({}) == {}", stringify!($name), $size));
            $(
                let place = concat!(stringify!($name), ".", stringify!($field));
                assert_eq!(offset_of!($name, $field), $offset, "the offset of {place}");
                check(format!("offsetof({}, {}) == {}", stringify!($name), stringify!($field), $offset));
            )*
        )*
        code
    }};
}

#[test]
fn structures_have_their_pinned_layout_in_rust_and_in_c() {
    let code = pinned! {
        mantle_runtime_options = 208 {
            struct_size = 0, threads = 8, spin_microseconds = 12, isa = 16, log_level = 20, first_cache_bytes = 24,
            second_cache_bytes = 28, prefetch = 32, huge_pages = 36, cpus = 40, log = 168, log_user_data = 176,
            allocate = 184, release = 192, allocator_user_data = 200,
        }
        mantle_runtime_info = 24 {
            struct_size = 0, threads = 8, isa = 12, first_cache_bytes = 16, second_cache_bytes = 20,
        }
        mantle_memory = 56 {
            struct_size = 0, total = 8, peak = 16, weights = 24, cache = 32, scratch = 40, other = 48,
        }
        mantle_model_options = 56 {
            struct_size = 0, load_mode = 8, flags = 12, memory_limit = 16, progress = 24, progress_user_data = 32,
            cancel = 40, weight_type = 48, reserved = 52,
        }
        mantle_embedder_options = 24 { struct_size = 0, max_tokens = 8, flags = 12, memory_limit = 16 }
        mantle_embed_options = 56 {
            struct_size = 0, pooling = 8, normalize = 12, dimensions = 16, flags = 20, prompt = 24,
            prompt_length = 32, progress = 40, progress_user_data = 48,
        }
        mantle_embedding_info = 32 {
            struct_size = 0, dimensions = 8, pooling = 12, normalize = 16, dense_layers = 20, prompts = 24,
            reserved = 28,
        }
        mantle_arena_info = 32 { struct_size = 0, bytes = 8, used = 16, peak = 24 }
        mantle_session_options = 48 {
            struct_size = 0, max_context = 8, max_batch_tokens = 12, max_sequences = 16, max_logits = 20,
            key_type = 24, value_type = 28, flags = 32, reserved = 36, memory_limit = 40,
        }
        mantle_model_info = 208 {
            struct_size = 0, architecture = 8, name = 72, capabilities = 136, layers = 140, embedding = 144,
            heads = 148, kv_heads = 152, head_size = 156, feed_forward = 160, vocabulary = 164, context = 168,
            reserved = 172, parameters = 176, file_bytes = 184, packed_bytes = 192, bytes_per_token = 200,
        }
        mantle_tensor_info = 80 {
            struct_size = 0, name = 8, name_length = 16, dtype = 24, dimensions = 28, shape = 32, offset = 64,
            bytes = 72,
        }
        mantle_generate_options = 16 { struct_size = 0, max_tokens = 8, flags = 12 }
        mantle_generation = 56 {
            struct_size = 0, prompt_tokens = 8, tokens = 16, prompt_nanoseconds = 24, generation_nanoseconds = 32,
            passes = 40, stop = 48, reserved = 52,
        }
        mantle_profile_info = 40 {
            struct_size = 0, ops = 8, layers = 12, calls = 16, tokens = 24, nanoseconds = 32,
        }
        mantle_profile_entry = 40 {
            struct_size = 0, calls = 8, nanoseconds = 16, operations = 24, bytes = 32,
        }
        mantle_gemm_options = 40 {
            struct_size = 0, a_type = 8, b_type = 12, alpha = 16, beta = 20, bias = 24, flags = 32, reserved = 36,
        }
        mantle_matrix_info = 40 {
            struct_size = 0, rows = 8, columns = 16, packed_bytes = 24, dtype = 32, reserved = 36,
        }
    };
    let header = read("include/mantle.h");
    for line in header.lines() {
        let name = line
            .strip_prefix("typedef struct ")
            .and_then(|rest| rest.strip_suffix(" {"));
        if let Some(name) = name {
            assert!(
                code.contains(&format!("sizeof({name})")),
                "{name} is not pinned here"
            );
        }
    }
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layout.c");
    std::fs::write(&scratch, code).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("cc")
        .args(["-std=c99", "-fsyntax-only", "-I"])
        .arg(root.join("include"))
        .arg(&scratch)
        .output()
        .expect("cc runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn numbers_are_never_changed_or_reused() {
    let header = read("include/mantle.h");
    let found: BTreeMap<&str, i64> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
        .filter(|(name, _)| !name.starts_with("MANTLE_VERSION_") && *name != "MANTLE_MUST_USE")
        .map(|(name, value)| (name, number(value)))
        .collect();
    let pinned_text = read("tests/data/abi_numbers.txt");
    let pinned: BTreeMap<&str, i64> = pinned_text
        .lines()
        .map(|line| line.split_once(' ').expect("a name and a number"))
        .map(|(name, value)| (name, number(value)))
        .collect();
    for (name, value) in &pinned {
        assert_eq!(found.get(name), Some(value), "{name} was removed or renumbered");
    }
    for (name, value) in &found {
        assert!(
            pinned.contains_key(name),
            "add \"{name} {value}\" to tests/data/abi_numbers.txt"
        );
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// A number as cbindgen writes it: `7`, `(-7)` or `(1 << 7)`.
fn number(text: &str) -> i64 {
    let text = text.trim().trim_start_matches('(').trim_end_matches(')');
    match text.split_once(" << ") {
        Some((one, bits)) => one.parse::<i64>().unwrap() << bits.parse::<u32>().unwrap(),
        None => text.parse().unwrap_or_else(|_| panic!("not a number: {text}")),
    }
}
