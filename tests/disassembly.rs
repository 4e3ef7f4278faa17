//! The instructions that the kernels owe their speed to are in the library, and their bodies are whole.
//!
//! A body that is not inlined into its `#[target_feature]` shell still gives the right answer: every
//! intrinsic becomes a call. Nothing but the machine code shows it.
#![cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), target_os = "linux"))]

use std::collections::BTreeMap;
use std::path::PathBuf;
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

/// The instructions of every function under `mantle::kernels::<file>`, by the function's name.
fn kernels(file: &str) -> BTreeMap<String, Vec<String>> {
    // A cross build has one of its own (tests/tools/aarch64.sh).
    let objdump = std::env::var("OBJDUMP").unwrap_or_else(|_| "objdump".to_string());
    let output = Command::new(&objdump)
        .args(["--disassemble", "--demangle", "--no-show-raw-insn", "--wide"])
        .arg(library())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {objdump} (install binutils): {error}"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let mut functions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        // "0000000000012340 <mantle::kernels::avx512::WITH_BF16::matmul_q8_0>:"
        if let Some(name) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            let name = name.1;
            current = name
                .contains(&format!("kernels::{file}::"))
                .then(|| name.to_string());
        } else if let Some(name) = &current
            && let Some((_, instruction)) = line.split_once(":\t")
        {
            functions
                .entry(name.clone())
                .or_default()
                .push(instruction.to_string());
        }
    }
    assert!(
        !functions.is_empty(),
        "no function of kernels::{file} in {}",
        library().display()
    );
    functions
}

/// Some version of `function` has `instruction` on registers of that width.
fn assert_has(functions: &BTreeMap<String, Vec<String>>, function: &str, instruction: &str, register: &str) {
    let named = |name: &&String| name.contains(&format!("::{function}"));
    let versions: Vec<&String> = functions.keys().filter(named).collect();
    assert!(!versions.is_empty(), "no {function} among {:?}", functions.keys());
    let has = |name: &&String| {
        functions[*name]
            .iter()
            .any(|line| line.contains(instruction) && line.contains(register))
    };
    assert!(
        versions.iter().any(has),
        "no {instruction} on {register} in {versions:?}"
    );
}

/// No kernel calls an intrinsic or a piece of its own body.
fn assert_whole(functions: &BTreeMap<String, Vec<String>>) {
    for (name, instructions) in functions {
        for line in instructions {
            let branches: &[&str] = if cfg!(target_arch = "x86_64") {
                &["call", "jmp"]
            } else {
                &["bl", "b"]
            };
            let mnemonic = line.split_whitespace().next().unwrap_or_default();
            let calls = branches.iter().any(|branch| mnemonic.starts_with(branch));
            let body = [
                "core_arch",
                "kernels::simd",
                "kernels::decode",
                "kernels::matmul",
                "as mantle::kernels::simd::Simd",
            ];
            let target = line.split_once('<').map_or("", |(_, target)| target);
            let inside = target.starts_with(name.as_str());
            assert!(
                !calls || inside || !body.iter().any(|part| target.contains(part)),
                "{name} is not one piece: {line}"
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn avx512_kernels_use_512_bit_dot_products() {
    let functions = kernels("avx512");
    for function in ["matmul_q8_0", "matmul_q4_0", "matmul_q4_1"] {
        assert_has(&functions, function, "vpdpbusd", "%zmm");
    }
    for function in ["matmul_q8_0", "matmul_q4_1", "multiply_symmetric"] {
        let function = format!("CODES_WITHOUT_VNNI::{function}");
        assert_has(&functions, &function, "vpmaddubsw", "%zmm");
    }
    for (name, instructions) in &functions {
        let vnni = instructions.iter().find(|line| line.contains("vpdp"));
        let may = !name.contains("WITHOUT_VNNI") || vnni.is_none();
        assert!(may, "{name} needs VNNI: {vnni:?}");
    }
    assert_has(&functions, "matmul_bf16", "vdpbf16ps", "%zmm");
    assert_has(&functions, "matmul_f32", "vfmadd", "%zmm");
    assert_has(&functions, "matmul_f16", "vcvtph2ps", "%zmm");
    assert_whole(&functions);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn avx2_kernels_use_256_bit_dot_products() {
    let functions = kernels("avx2");
    for function in ["matmul_q8_0", "matmul_q4_0", "matmul_q4_1"] {
        assert_has(&functions, function, "vpdpbusd", "%ymm");
        // Without VNNI: codes of 8 bits are widened first, since vpmaddubsw would saturate.
        let widening = if function == "matmul_q8_0" {
            "vpmaddwd"
        } else {
            "vpmaddubsw"
        };
        assert_has(&functions, function, widening, "%ymm");
    }
    assert_has(&functions, "matmul_f32", "vfmadd", "%ymm");
    assert_whole(&functions);
    for (name, instructions) in &functions {
        let wide = instructions.iter().find(|line| line.contains("%zmm"));
        assert!(wide.is_none(), "{name} needs AVX-512: {}", wide.unwrap());
    }
}

/// What each tier of NEON multiplies with, and that none needs what a higher one brings.
#[cfg(target_arch = "aarch64")]
#[test]
fn neon_kernels_use_the_dot_products_of_their_tier() {
    let functions = kernels("neon");
    let tier = |table: &str| -> BTreeMap<String, Vec<String>> {
        let table = format!("::{table}::");
        let of_tier = functions.iter().filter(|(name, _)| name.contains(&table));
        of_tier
            .map(|(name, lines)| (name.clone(), lines.clone()))
            .collect()
    };
    let (base, dotprod, i8mm) = (tier("CODES"), tier("CODES_WITH_DOTPROD"), tier("CODES_WITH_I8MM"));
    for function in ["matmul_q8_0", "matmul_q4_0", "matmul_q4_1", "multiply_symmetric"] {
        assert_has(&base, function, "smull", "v");
        assert_has(&base, function, "sadalp", "v");
        assert_has(&dotprod, function, "sdot", "v");
        assert_has(&i8mm, function, "usdot", "v");
    }
    for (name, instructions) in base.iter().chain(&tier("BASE")) {
        let dot = instructions.iter().find(|line| line.contains("dot\t"));
        assert!(dot.is_none(), "{name} needs dotprod: {}", dot.unwrap());
    }
    for (name, instructions) in &dotprod {
        let mixed = instructions.iter().find(|line| line.contains("usdot"));
        assert!(mixed.is_none(), "{name} needs i8mm: {}", mixed.unwrap());
    }
    let whole = tier("BASE");
    assert_has(&whole, "matmul_f32", "fmla", ".4s");
    assert_has(&whole, "matmul_f16", "fcvtl", ".4s");
    assert_whole(&functions);
}

/// The sums of a tile stay in registers while the tile is multiplied: those of the outer products may rest on the stack
/// for the length of a block, 32 products of four bytes for each of its tokens.
#[cfg(target_arch = "aarch64")]
#[test]
fn neon_tiles_fit_the_registers() {
    let functions = kernels("neon");
    for (name, instructions) in functions.iter().filter(|(name, _)| name.contains("multiply_")) {
        let count = |matches: fn(&String) -> bool| instructions.iter().filter(|line| matches(line)).count();
        let products = count(|line| line.starts_with("sadalp") || line.contains("dot\t"));
        let on_stack = count(|line| {
            let moves = line.starts_with("st") || line.starts_with("ld");
            moves && line.contains("\tq") && line.contains("[sp")
        });
        println!("{name}: {on_stack} loads and stores of the stack, {products} products");
        // Counted in the code, where tiles of one and two tokens weigh as much as the large one: more than this means that the
        // sums of the inner loop are on the stack, too.
        assert!(
            products > 50 && on_stack < 2 * products,
            "{name} spills: {on_stack} for {products}"
        );
    }
}
