//! The table of kernels: one for each instruction set, chosen once, when a runtime is made.

use super::affine::RowCodesFn;
use super::attention::AttentionFn;
use super::gemm::GemmFn;
use super::matmul::{MatmulFn, Tuning};
use super::vector::VectorKernels;
use crate::base::error::{Error, Result};
use crate::format::dtype::DataType;

/// An instruction set that has a table, the slowest of an architecture first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Isa {
    /// Plain Rust: the reference.
    Scalar = 0,
    /// AVX2, FMA and F16C.
    Avx2 = 1,
    /// AVX2 with the 256-bit `vpdpbusd`.
    AvxVnni = 2,
    /// AVX-512 (F, BW, DQ, VL), with VNNI and BF16 where the CPU has them.
    Avx512 = 3,
    /// NEON, as every aarch64 has it.
    Neon = 4,
    /// NEON with `sdot` (dotprod).
    NeonDotprod = 5,
    /// NEON with `usdot` (i8mm).
    NeonI8mm = 6,
}

impl Isa {
    /// Every instruction set, the slowest of an architecture first.
    pub const ALL: &[Isa] = &[
        Isa::Scalar,
        Isa::Avx2,
        Isa::AvxVnni,
        Isa::Avx512,
        Isa::Neon,
        Isa::NeonDotprod,
        Isa::NeonI8mm,
    ];

    /// The name, as in `MANTLE_ISA`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Neon => "neon",
            Isa::NeonDotprod => "neon-dotprod",
            Isa::NeonI8mm => "neon-i8mm",
        }
    }

    /// The instruction set of a name.
    pub fn from_name(name: &str) -> Result<Isa> {
        Isa::ALL
            .iter()
            .copied()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| {
                let known: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
                Error::invalid(format!(
                    "instruction set \"{name}\" is not known; expected one of {}",
                    known.join(", ")
                ))
            })
    }

    /// Whether this CPU has it.
    pub fn is_available(self) -> bool {
        Kernels::of(self).is_some()
    }

    /// The fastest that this CPU has.
    pub fn best() -> Isa {
        Isa::best_up_to(None)
    }

    /// The fastest that this CPU has, at most `cap`; of another architecture than the cap's only scalar is.
    pub fn best_up_to(cap: Option<Isa>) -> Isa {
        let allowed = |isa: Isa| cap.is_none_or(|cap| isa <= cap && isa.is_arm() == cap.is_arm());
        Isa::ALL
            .iter()
            .rev()
            .copied()
            .find(|&isa| allowed(isa) && isa.is_available())
            .unwrap_or(Isa::Scalar)
    }

    fn is_arm(self) -> bool {
        self >= Isa::Neon
    }
}

/// A quantization kernel: see [`super::quantize::quantize_row`].
pub(super) type QuantizeFn = unsafe fn(*const f32, usize, *mut u8);

/// The matmul kernels of the types that are stored as codes.
pub(super) type CodeKernels = [(DataType, MatmulFn); 31];

/// The kernels of one instruction set. Their safe fronts are methods in `kernels/mod.rs`.
#[derive(Clone)]
pub struct Kernels {
    pub(super) isa: Isa,
    pub(super) tuning: Tuning,
    pub(super) matmul_f32: MatmulFn,
    pub(super) matmul_f16: MatmulFn,
    pub(super) matmul_bf16: MatmulFn,
    /// Types of codes.
    pub(super) matmul_codes: CodeKernels,
    /// Keys and values: f32 f32, f32 f16, f16 f32, f16 f16.
    pub(super) attention: [AttentionFn; 4],
    pub(super) store_key: unsafe fn(*const f32, usize, usize, *mut u8, bool),
    pub(super) store_value: unsafe fn(*const f32, usize, *mut u8, bool),
    pub(super) quantize_row: QuantizeFn,
    pub(super) bf16_row: unsafe fn(*const f32, usize, *mut u16),
    pub(super) rms_norm: unsafe fn(*const f32, *const f32, usize, f32, *mut f32),
    pub(super) add_rms_norm: unsafe fn(*const f32, *const f32, usize, f32, *mut f32),
    pub(super) layer_norm: unsafe fn(*const f32, *const f32, *const f32, usize, f32, *mut f32),
    /// By [`super::activation::Activation`].
    pub(super) map: [unsafe fn(*const f32, usize, *mut f32); 6],
    /// By [`super::activation::Activation`].
    pub(super) gate: [unsafe fn(*const f32, *const f32, usize, *mut f32); 6],
    pub(super) vector: VectorKernels,
    pub(super) gemm: GemmFn,
    /// By [`super::affine::RowCodes`].
    pub(super) row_codes: [RowCodesFn; 3],
    pub(super) rotate_halves: unsafe fn(*mut f32, usize, usize, usize, *const f32, *const f32),
    pub(super) exp: unsafe fn(*mut f32),
    pub(super) silu: unsafe fn(*mut f32),
}

impl Kernels {
    /// The table of `isa`, when this CPU has its instructions.
    pub fn of(isa: Isa) -> Option<&'static Kernels> {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
                && is_x86_feature_detected!("bmi2");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let vnni = is_x86_feature_detected!("avx512vnni");
            match isa {
                Isa::Scalar => Some(&super::scalar::SCALAR),
                Isa::Avx2 => avx2.then_some(&super::avx2::WITHOUT_VNNI),
                Isa::AvxVnni => {
                    (avx2 && is_x86_feature_detected!("avxvnni")).then_some(&super::avx2::WITH_VNNI)
                }
                Isa::Avx512 if !vnni => avx512.then_some(&super::avx512::WITHOUT_VNNI),
                Isa::Avx512 if is_x86_feature_detected!("avx512bf16") => {
                    avx512.then_some(&super::avx512::WITH_BF16)
                }
                Isa::Avx512 => avx512.then_some(&super::avx512::WITHOUT_BF16),
                _ => None,
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            use std::arch::is_aarch64_feature_detected;
            let neon = is_aarch64_feature_detected!("neon");
            match isa {
                Isa::Scalar => Some(&super::scalar::SCALAR),
                Isa::Neon => neon.then_some(&super::neon::BASE),
                Isa::NeonDotprod => {
                    (neon && is_aarch64_feature_detected!("dotprod")).then_some(&super::neon::WITH_DOTPROD)
                }
                Isa::NeonI8mm => {
                    (neon && is_aarch64_feature_detected!("i8mm")).then_some(&super::neon::WITH_I8MM)
                }
                _ => None,
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        (isa == Isa::Scalar).then_some(&super::scalar::SCALAR)
    }

    /// Every table that this CPU can run, with its name: those of [`Kernels::of`], and those it passes over because the
    /// CPU has better. They must all give the same bits, which the tests check.
    pub fn every() -> Vec<(&'static str, &'static Kernels)> {
        let chosen = Isa::ALL
            .iter()
            .filter_map(|&isa| Some((isa.name(), Kernels::of(isa)?)));
        #[cfg(not(target_arch = "x86_64"))]
        return chosen.collect();
        #[cfg(target_arch = "x86_64")]
        {
            let vnni = Kernels::of(Isa::Avx512).is_some() && is_x86_feature_detected!("avx512vnni");
            let bf16 = vnni && is_x86_feature_detected!("avx512bf16");
            let passed_over = [
                (vnni, "avx512 without VNNI", &super::avx512::WITHOUT_VNNI),
                (bf16, "avx512 without BF16", &super::avx512::WITHOUT_BF16),
            ];
            let passed_over = passed_over.into_iter().filter(|(has_better, ..)| *has_better);
            chosen
                .chain(passed_over.map(|(_, name, table)| (name, table)))
                .collect()
        }
    }

    /// The same kernels, which cut their work as `tuning` says.
    pub fn tuned(&self, tuning: Tuning) -> Kernels {
        Kernels {
            tuning,
            ..self.clone()
        }
    }

    /// How the work is cut.
    pub fn tuning(&self) -> Tuning {
        self.tuning
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The matmul kernel of a packed type.
    pub(super) fn matmul_of(&self, dtype: DataType) -> Option<MatmulFn> {
        match dtype {
            DataType::F32 => Some(self.matmul_f32),
            DataType::F16 => Some(self.matmul_f16),
            DataType::BF16 => Some(self.matmul_bf16),
            _ => {
                let found = self.matmul_codes.iter().find(|(kind, _)| *kind == dtype);
                found.map(|(_, kernel)| *kernel)
            }
        }
    }
}

/// The shells of one instruction set: each wraps a body, so that the whole body is compiled with its instructions.
macro_rules! kernel_table {
    ($name:ident: $simd:ty, $isa:expr, $codes:expr $(, #[$features:meta])?) => {
        #[doc = concat!("The kernels of `", stringify!($simd), "`.")]
        #[allow(clippy::undocumented_unsafe_blocks)] // Each shell hands on its caller's promise.
        pub(super) static $name: $crate::kernels::table::Kernels = {
            use $crate::kernels::attention::{self, AttentionArgs};
            use $crate::kernels::matmul::{self, F16Rows, F32Rows, MatmulArgs};
            use $crate::kernels::{activation, affine, gemm, math, norm, quantize, simd::Simd};
            type S = $simd;
            macro_rules! shell {
                ($shell:ident($arguments:ident: $kind:ty) = $body:expr) => {
                    $(#[$features])?
                    unsafe fn $shell($arguments: $kind) {
                        unsafe { $body($arguments) }
                    }
                };
            }
            shell!(matmul_f32(args: &MatmulArgs) = matmul::matmul_floats::<S, F32Rows>);
            shell!(matmul_f16(args: &MatmulArgs) = matmul::matmul_floats::<S, F16Rows>);
            shell!(matmul_bf16(args: &MatmulArgs) = matmul::matmul_bf16::<S>);
            shell!(attention_f32_f32(args: &AttentionArgs) = attention::attention::<S, F32Rows, F32Rows>);
            shell!(attention_f32_f16(args: &AttentionArgs) = attention::attention::<S, F32Rows, F16Rows>);
            shell!(attention_f16_f32(args: &AttentionArgs) = attention::attention::<S, F16Rows, F32Rows>);
            shell!(attention_f16_f16(args: &AttentionArgs) = attention::attention::<S, F16Rows, F16Rows>);
            $(#[$features])?
            unsafe fn store_key(key: *const f32, length: usize, position: usize, panel: *mut u8, half: bool) {
                unsafe { attention::store_key::<S>(key, length, position, panel, half) }
            }
            $(#[$features])?
            unsafe fn store_value(value: *const f32, length: usize, to: *mut u8, half: bool) {
                unsafe { attention::store_value::<S>(value, length, to, half) }
            }
            $(#[$features])?
            unsafe fn quantize_row(x: *const f32, length: usize, to: *mut u8) {
                unsafe { quantize::quantize_row::<S>(x, length, to) }
            }
            $(#[$features])?
            unsafe fn bf16_row(x: *const f32, length: usize, to: *mut u16) {
                unsafe { math::bf16_row::<S>(x, length, to) }
            }
            $(#[$features])?
            unsafe fn rms_norm(x: *const f32, weight: *const f32, length: usize, epsilon: f32, y: *mut f32) {
                unsafe { math::rms_norm::<S>(x, weight, length, epsilon, y) }
            }
            $(#[$features])?
            unsafe fn add_rms_norm(y: *const f32, weight: *const f32, length: usize, epsilon: f32, x: *mut f32) {
                unsafe { norm::add_rms_norm::<S>(y, weight, length, epsilon, x) }
            }
            $(#[$features])?
            unsafe fn layer_norm(x: *const f32, weight: *const f32, bias: *const f32, length: usize, epsilon: f32, y: *mut f32) {
                unsafe { norm::layer_norm::<S>(x, weight, bias, length, epsilon, y) }
            }
            macro_rules! activations {
                ($map:ident, $gate:ident: $function:ty) => {
                    $(#[$features])?
                    unsafe fn $map(x: *const f32, length: usize, y: *mut f32) {
                        unsafe { activation::map::<S, $function>(x, length, y) }
                    }
                    $(#[$features])?
                    unsafe fn $gate(gate: *const f32, up: *const f32, length: usize, y: *mut f32) {
                        unsafe { activation::gate::<S, $function>(gate, up, length, y) }
                    }
                };
            }
            activations!(map_silu, gate_silu: activation::Silu);
            activations!(map_gelu_tanh, gate_gelu_tanh: activation::GeluTanh);
            activations!(map_gelu_erf, gate_gelu_erf: activation::GeluErf);
            activations!(map_exp, gate_exp: activation::Exp);
            activations!(map_tanh, gate_tanh: activation::Tanh);
            activations!(map_erf, gate_erf: activation::Erf);
            shell!(gemm_floats(args: &gemm::GemmArgs) = gemm::gemm::<S>);
            macro_rules! row_codes {
                ($shell:ident: $bits:literal, $affine:literal) => {
                    $(#[$features])?
                    unsafe fn $shell(x: *const f32, length: usize, codes: *mut u8) -> (f32, f32) {
                        unsafe { affine::row_codes::<S, $bits, $affine>(x, length, codes) }
                    }
                };
            }
            row_codes!(symmetric_8: 8, false);
            row_codes!(affine_8: 8, true);
            row_codes!(affine_4: 4, true);
            $crate::kernels::vector::vector_table!(VECTOR: $simd $(, #[$features])?);
            $(#[$features])?
            unsafe fn rotate_halves(x: *mut f32, count: usize, stride: usize, half: usize, cosine: *const f32, sine: *const f32) {
                unsafe { math::rotate_halves::<S>(x, count, stride, half, cosine, sine) }
            }
            $(#[$features])?
            unsafe fn exp(x: *mut f32) {
                unsafe { S::store(x, math::exp::<S>(S::load(x))) }
            }
            $(#[$features])?
            unsafe fn silu(x: *mut f32) {
                unsafe { S::store(x, math::silu::<S>(S::load(x))) }
            }
            $crate::kernels::table::Kernels {
                isa: $isa,
                tuning: matmul::Tuning::of($crate::base::caches::Caches::ASSUMED),
                matmul_f32,
                matmul_f16,
                matmul_bf16,
                matmul_codes: $codes,
                attention: [attention_f32_f32, attention_f32_f16, attention_f16_f32, attention_f16_f16],
                store_key,
                store_value,
                quantize_row,
                bf16_row,
                rms_norm,
                add_rms_norm,
                layer_norm,
                map: [map_silu, map_gelu_tanh, map_gelu_erf, map_exp, map_tanh, map_erf],
                gate: [gate_silu, gate_gelu_tanh, gate_gelu_erf, gate_exp, gate_tanh, gate_erf],
                vector: VECTOR,
                gemm: gemm_floats,
                row_codes: [symmetric_8, affine_8, affine_4],
                rotate_halves,
                exp,
                silu,
            }
        };
    };
}
/// The shells of the matmul kernels of codes. They are apart because instruction sets that differ in other things
/// only can share them.
macro_rules! code_table {
    ($name:ident: $simd:ty $(, #[$features:meta])?) => {
        #[doc = concat!("The matmul kernels of codes of `", stringify!($simd), "`.")]
        #[allow(clippy::undocumented_unsafe_blocks)] // Each shell hands on its caller's promise.
        const $name: $crate::kernels::table::CodeKernels = {
            use $crate::format::dtype::DataType;
            use $crate::kernels::codes::{self, Group, GroupFn};
            use $crate::kernels::decode::{Floats, Weights, Whole, types};
            use $crate::kernels::matmul::MatmulArgs;
            type S = $simd;
            macro_rules! shell {
                ($shell:ident: $weights:ty, $group:ident) => {
                    $(#[$features])?
                    unsafe fn $shell(args: &MatmulArgs) {
                        const GROUP: GroupFn<<$weights as Weights>::Unpacked> = $group();
                        unsafe { codes::matmul_codes::<S, $weights>(args, GROUP) }
                    }
                };
                ($group:ident: $shell:ident = $weights:ty) => {
                    $(#[$features])?
                    unsafe fn $shell(group: &Group<'_>) {
                        unsafe { codes::group::<S, $weights>(group) }
                    }
                    const fn $group() -> GroupFn<$weights> {
                        GroupFn::new($shell)
                    }
                };
            }
            shell!(group_symmetric: multiply_symmetric = (Whole<true>, Floats<1, 0>));
            shell!(group_halves: multiply_halves = (Whole<true>, Floats<2, 0>));
            shell!(group_with_minimum: multiply_with_minimum = (Whole<false>, Floats<1, 1>));
            shell!(group_with_minima: multiply_with_minima = (Whole<false>, Floats<1, 2>));
            shell!(matmul_q8_0: types::Q8_0, group_symmetric);
            shell!(matmul_q4_0: types::Q4_0, group_symmetric);
            shell!(matmul_q4_1: types::Q4_1, group_with_minimum);
            shell!(matmul_q5_0: types::Q5_0, group_symmetric);
            shell!(matmul_q5_1: types::Q5_1, group_with_minimum);
            shell!(matmul_q2_k: types::Q2_K, group_with_minima);
            shell!(matmul_q3_k: types::Q3_K, group_symmetric);
            shell!(matmul_q4_k: types::Q4_K, group_with_minimum);
            shell!(matmul_q5_k: types::Q5_K, group_with_minimum);
            shell!(matmul_q6_k: types::Q6_K, group_halves);
            shell!(matmul_iq4_nl: types::IQ4_NL, group_symmetric);
            shell!(matmul_iq4_xs: types::IQ4_XS, group_symmetric);
            shell!(matmul_iq1_s: types::IQ1_S, group_symmetric);
            shell!(matmul_iq1_m: types::IQ1_M, group_halves);
            shell!(matmul_iq2_xxs: types::IQ2_XXS, group_symmetric);
            shell!(matmul_iq2_xs: types::IQ2_XS, group_halves);
            shell!(matmul_iq3_xxs: types::IQ3_XXS, group_symmetric);
            shell!(matmul_iq3_s: types::IQ3_S, group_symmetric);
            shell!(matmul_tq2_0: types::TQ2_0, group_symmetric);
            shell!(matmul_q1_0: types::Q1_0, group_symmetric);
            shell!(matmul_q2_0: types::Q2_0, group_symmetric);
            shell!(matmul_mxfp4: types::MXFP4, group_symmetric);
            shell!(matmul_nvfp4: types::NVFP4, group_halves);
            shell!(matmul_k6: types::K6, group_symmetric);
            shell!(matmul_k4: types::K4, group_symmetric);
            shell!(matmul_k3: types::K3, group_symmetric);
            shell!(matmul_k2: types::K2, group_symmetric);
            [
                (DataType::Q8_0, matmul_q8_0),
                (DataType::Q4_0, matmul_q4_0),
                (DataType::Q4_1, matmul_q4_1),
                (DataType::Q5_0, matmul_q5_0),
                (DataType::Q5_1, matmul_q5_1),
                (DataType::Q2_K, matmul_q2_k),
                (DataType::Q3_K, matmul_q3_k),
                (DataType::Q4_K, matmul_q4_k),
                (DataType::Q5_K, matmul_q5_k),
                (DataType::Q6_K, matmul_q6_k),
                (DataType::IQ4_NL, matmul_iq4_nl),
                (DataType::IQ4_XS, matmul_iq4_xs),
                (DataType::IQ1_S, matmul_iq1_s),
                (DataType::IQ1_M, matmul_iq1_m),
                (DataType::IQ2_XXS, matmul_iq2_xxs),
                (DataType::IQ2_XS, matmul_iq2_xs),
                (DataType::IQ2_S, matmul_iq2_xs),
                (DataType::IQ3_XXS, matmul_iq3_xxs),
                (DataType::IQ3_S, matmul_iq3_s),
                (DataType::TQ2_0, matmul_tq2_0),
                (DataType::TQ1_0, matmul_tq2_0),
                (DataType::Q1_0, matmul_q1_0),
                (DataType::Q2_0, matmul_q2_0),
                (DataType::MXFP4, matmul_mxfp4),
                (DataType::NVFP4, matmul_nvfp4),
                (DataType::Q8, matmul_q8_0),
                (DataType::Q4, matmul_q4_0),
                (DataType::K6, matmul_k6),
                (DataType::K4, matmul_k4),
                (DataType::K3, matmul_k3),
                (DataType::K2, matmul_k2),
            ]
        };
    };
}
pub(super) use {code_table, kernel_table};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_one_instruction_set() {
        for &isa in Isa::ALL {
            assert_eq!(Isa::from_name(isa.name()).unwrap(), isa);
        }
        let message = Isa::from_name("mmx").unwrap_err().to_string();
        for &isa in Isa::ALL {
            assert!(message.contains(isa.name()), "{message}");
        }
    }

    #[test]
    fn the_best_stays_below_its_cap_and_on_its_architecture() {
        for &cap in Isa::ALL {
            let found = Isa::best_up_to(Some(cap));
            assert!(found.is_available() && found <= cap, "{found:?} for {cap:?}");
            let foreign = cap.is_arm() != cfg!(target_arch = "aarch64") && cap != Isa::Scalar;
            assert!(!foreign || found == Isa::Scalar, "{found:?} for {cap:?}");
            assert!(!cap.is_available() || found == cap, "{found:?} for {cap:?}");
        }
        assert!(
            Isa::ALL
                .iter()
                .all(|&isa| !isa.is_available() || isa <= Isa::best())
        );
    }
}
