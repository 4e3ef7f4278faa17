//! ------------------------------------------------------------------------------------------------
//! Version, build, processor
//! ------------------------------------------------------------------------------------------------

use std::ffi::{CStr, c_char};

/// Version of this header. The library's own is mantle_version().
pub const MANTLE_VERSION_MAJOR: u32 = 0;
/// See MANTLE_VERSION_MAJOR.
pub const MANTLE_VERSION_MINOR: u32 = 1;
/// See MANTLE_VERSION_MAJOR.
pub const MANTLE_VERSION_PATCH: u32 = 0;
/// Generation of the binary interface: the number in the shared library's soname, libmantle.so.0.
/// Within one generation a program never has to be rebuilt.
pub const MANTLE_ABI_VERSION: u32 = 0;

/// The library's version: major * 1000000 + minor * 1000 + patch. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mantle_version() -> u32 {
    MANTLE_VERSION_MAJOR * 1_000_000 + MANTLE_VERSION_MINOR * 1_000 + MANTLE_VERSION_PATCH
}

/// The library's MANTLE_ABI_VERSION. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mantle_abi_version() -> u32 {
    MANTLE_ABI_VERSION
}

/// Version, target, profile and compiler of the library in one line, such as "libmantle 0.1.0
/// x86_64-unknown-linux-gnu release rustc 1.95.0". For people; closed by NUL, valid for ever. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mantle_build_info() -> *const c_char {
    const TEXT: &str = concat!(
        "libmantle ",
        env!("CARGO_PKG_VERSION"),
        " ",
        env!("MANTLE_TARGET"),
        " ",
        env!("MANTLE_PROFILE"),
        " ",
        env!("MANTLE_COMPILER"),
        "\0"
    );
    CStr::from_bytes_with_nul(TEXT.as_bytes())
        .unwrap_or(c"libmantle")
        .as_ptr()
}

/// x86: SSE with fused multiply-add on 256-bit vectors (AVX2, FMA, F16C).
pub const MANTLE_CPU_AVX2: u64 = 1 << 0;
/// x86: 8-bit dot products on 256-bit vectors (AVX-VNNI).
pub const MANTLE_CPU_AVXVNNI: u64 = 1 << 1;
/// x86: 512-bit vectors (AVX-512 F, BW, DQ, VL).
pub const MANTLE_CPU_AVX512: u64 = 1 << 2;
/// x86: 8-bit dot products on 512-bit vectors (AVX-512 VNNI).
pub const MANTLE_CPU_AVX512VNNI: u64 = 1 << 3;
/// x86: bfloat16 dot products on 512-bit vectors (AVX-512 BF16).
pub const MANTLE_CPU_AVX512BF16: u64 = 1 << 4;
/// x86: tiles of 8-bit integers (AMX-INT8).
pub const MANTLE_CPU_AMX_INT8: u64 = 1 << 5;
/// Arm: 128-bit vectors (Advanced SIMD).
pub const MANTLE_CPU_NEON: u64 = 1 << 16;
/// Arm: 8-bit dot products (FEAT_DotProd).
pub const MANTLE_CPU_NEON_DOTPROD: u64 = 1 << 17;
/// Arm: 8-bit matrix products (FEAT_I8MM).
pub const MANTLE_CPU_NEON_I8MM: u64 = 1 << 18;
/// Arm: bfloat16 products (FEAT_BF16).
pub const MANTLE_CPU_NEON_BF16: u64 = 1 << 19;

/// What this processor and operating system offer: MANTLE_CPU_* bits. The instruction set that a
/// runtime really uses is in mantle_runtime_info. Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn mantle_cpu_features() -> u64 {
    let mut features = 0;
    for (present, bit) in processor() {
        if present {
            features |= bit;
        }
    }
    features
}

#[cfg(target_arch = "x86_64")]
fn processor() -> [(bool, u64); 6] {
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    [
        (
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c"),
            MANTLE_CPU_AVX2,
        ),
        (is_x86_feature_detected!("avxvnni"), MANTLE_CPU_AVXVNNI),
        (avx512, MANTLE_CPU_AVX512),
        (
            avx512 && is_x86_feature_detected!("avx512vnni"),
            MANTLE_CPU_AVX512VNNI,
        ),
        (
            avx512 && is_x86_feature_detected!("avx512bf16"),
            MANTLE_CPU_AVX512BF16,
        ),
        (has_amx_int8(), MANTLE_CPU_AMX_INT8),
    ]
}

/// CPUID leaf 7, EDX bit 25 (Intel SDM volume 2, CPUID): std's name for it is not stable.
#[cfg(target_arch = "x86_64")]
fn has_amx_int8() -> bool {
    raw_cpuid::CpuId::new()
        .get_extended_feature_info()
        .is_some_and(|features| features.has_amx_int8())
}

#[cfg(target_arch = "aarch64")]
fn processor() -> [(bool, u64); 4] {
    use std::arch::is_aarch64_feature_detected;
    [
        (is_aarch64_feature_detected!("neon"), MANTLE_CPU_NEON),
        (is_aarch64_feature_detected!("dotprod"), MANTLE_CPU_NEON_DOTPROD),
        (is_aarch64_feature_detected!("i8mm"), MANTLE_CPU_NEON_I8MM),
        (is_aarch64_feature_detected!("bf16"), MANTLE_CPU_NEON_BF16),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn processor() -> [(bool, u64); 0] {
    []
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_version_is_the_crates() {
        let version = format!("{MANTLE_VERSION_MAJOR}.{MANTLE_VERSION_MINOR}.{MANTLE_VERSION_PATCH}");
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        assert_eq!(mantle_version(), 1_000);
        // SAFETY: the text is static and closed by NUL.
        let info = unsafe { CStr::from_ptr(mantle_build_info()) }.to_str().unwrap();
        assert!(info.starts_with(&format!("libmantle {version} ")), "{info}");
        assert!(info.contains("rustc 1."), "{info}");
    }
}
