//! The loops whose speed is a limit of the machine, in assembly, one set for each instruction set.
//!
//! A round of an arithmetic loop is one instruction (or the shortest sequence that does the same) on each
//! of twelve accumulators: more than the latency of any multiply-add times the two pipes that take it.

use super::limits::Limit;
use super::table::Isa;
use crate::base::error::{Error, Result};

/// The loops of one instruction set.
#[derive(Clone, Copy)]
pub(super) struct Loops {
    /// The name, as in `MANTLE_ISA`.
    pub isa: &'static str,
    pub integer_dot: Arithmetic,
    pub fused_multiply_add: Arithmetic,
    pub bf16_dot: Option<Arithmetic>,
    /// Reads every byte once.
    pub read: fn(&[u8]),
}

/// One arithmetic loop.
#[derive(Clone, Copy)]
pub(super) struct Arithmetic {
    /// Runs so many rounds.
    pub run: fn(&Operands, u64),
    pub operations_per_round: f64,
}

/// What the instructions work on: two factors and the start of the accumulators, 64 bytes each.
///
/// The values matter: multiplying zeros draws less power, so the clock could be higher than in real work.
#[repr(C, align(64))]
pub(super) struct Operands {
    factors: [[u8; 64]; 2],
    start: [u8; 64],
}

impl Operands {
    /// Operands for which `limit`'s instruction neither overflows to infinity nor meets denormals.
    pub fn of(limit: Limit) -> Operands {
        let floats = |value: f32| repeat(value.to_le_bytes());
        match limit {
            Limit::FusedMultiplyAdd => Operands {
                factors: [floats(0.999), floats(1e-3)],
                start: floats(1.5),
            },
            // 0x3f9e is 1.234 in bf16.
            Limit::Bf16Dot => Operands {
                factors: [repeat([0x9e, 0x3f, 0x9e, 0xbf]), repeat([0x9e, 0x3f, 0x9e, 0x3f])],
                start: floats(1.5),
            },
            Limit::IntegerDot | Limit::Read => Operands {
                factors: [repeat([0x5a, 0xc3, 0x17, 0x9e]), repeat([0x71, 0xa6, 0x3d, 0xe8])],
                start: repeat([1, 2, 3, 4]),
            },
        }
    }
}

fn repeat(word: [u8; 4]) -> [u8; 64] {
    std::array::from_fn(|i| word[i % 4])
}

impl Loops {
    /// The loops of the named instruction set, or of the best one of this machine.
    pub fn choose(isa: Option<&str>) -> Result<Loops> {
        let known: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
        let available = available();
        match isa {
            None => Ok(available[0]),
            Some(name) => available
                .iter()
                .find(|loops| loops.isa == name)
                .copied()
                .ok_or_else(|| {
                    if known.contains(&name) {
                        let names: Vec<&str> = available.iter().map(|loops| loops.isa).collect();
                        Error::unsupported(format!("this machine has no {name}: it has {}", names.join(", ")))
                    } else {
                        Error::invalid(format!(
                            "{name:?} is no instruction set: expected one of {}",
                            known.join(", ")
                        ))
                    }
                }),
        }
    }
}

/// The instruction sets of this machine, the best first; never empty.
fn available() -> Vec<Loops> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    x86::add_available(&mut found);
    #[cfg(target_arch = "aarch64")]
    arm::add_available(&mut found);
    found.push(portable::LOOPS);
    found
}

/// An instruction text once for each of the twelve accumulators, whose number goes between the parts.
macro_rules! twelve {
    ($a:expr, $b:expr) => {
        concat!(
            $a, 0, $b, "\n", $a, 1, $b, "\n", $a, 2, $b, "\n", $a, 3, $b, "\n", $a, 4, $b, "\n", $a, 5, $b,
            "\n", $a, 6, $b, "\n", $a, 7, $b, "\n", $a, 8, $b, "\n", $a, 9, $b, "\n", $a, 10, $b, "\n", $a,
            11, $b
        )
    };
    ($a:expr, $b:expr, $c:expr) => {
        concat!(
            $a, 0, $b, 0, $c, "\n", $a, 1, $b, 1, $c, "\n", $a, 2, $b, 2, $c, "\n", $a, 3, $b, 3, $c, "\n",
            $a, 4, $b, 4, $c, "\n", $a, 5, $b, 5, $c, "\n", $a, 6, $b, 6, $c, "\n", $a, 7, $b, 7, $c, "\n",
            $a, 8, $b, 8, $c, "\n", $a, 9, $b, 9, $c, "\n", $a, 10, $b, 10, $c, "\n", $a, 11, $b, 11, $c
        )
    };
}

/// What the compiler makes of plain code: the limit of the scalar tables, and of machines without others.
mod portable {
    use super::{Arithmetic, Loops, Operands};
    use std::hint::black_box;

    pub(super) const LOOPS: Loops = Loops {
        isa: "scalar",
        integer_dot: Arithmetic {
            run: integer_dot,
            operations_per_round: 2.0 * 48.0,
        },
        fused_multiply_add: Arithmetic {
            run: multiply_add,
            operations_per_round: 2.0 * 48.0,
        },
        bf16_dot: None,
        read,
    };

    fn integer_dot(operands: &Operands, rounds: u64) {
        let factor = |which: usize| std::array::from_fn(|i| i16::from(operands.factors[which][i]));
        let (x, y): ([i16; 48], [i16; 48]) = (factor(0), factor(1));
        let mut sums = [0i32; 48];
        for _ in 0..rounds {
            let (x, y) = (black_box(&x), &y);
            for i in 0..48 {
                sums[i] = sums[i].wrapping_add(i32::from(x[i]) * i32::from(y[i]));
            }
        }
        black_box(sums);
    }

    fn multiply_add(operands: &Operands, rounds: u64) {
        let mut sums: [f32; 48] = std::array::from_fn(|i| f32::from(operands.start[i]));
        let (x, y) = black_box((0.999f32, 1e-3f32));
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = *sum * x + y;
            }
        }
        black_box(sums);
    }

    fn read(bytes: &[u8]) {
        let (words, _) = black_box(bytes).as_chunks::<8>();
        let mut sums = [0u64; 16];
        let (lines, rest) = words.as_chunks::<16>();
        for line in lines {
            for (sum, word) in sums.iter_mut().zip(line) {
                *sum = sum.wrapping_add(u64::from_le_bytes(*word));
            }
        }
        black_box((sums, rest.len()));
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Arithmetic, Loops, Operands};
    use std::arch::asm;
    use std::is_x86_feature_detected as has;

    pub(super) fn add_available(found: &mut Vec<Loops>) {
        let avx2 = has!("avx2") && has!("fma");
        if avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
            let dot: fn(&Operands, u64) = if has!("avx512vnni") {
                integer_dot_vnni_512
            } else {
                integer_dot_512
            };
            let bf16 = Arithmetic {
                run: bf16_dot_512,
                operations_per_round: 12.0 * 64.0,
            };
            found.push(Loops {
                isa: "avx512",
                integer_dot: Arithmetic {
                    run: dot,
                    operations_per_round: 12.0 * 128.0,
                },
                fused_multiply_add: Arithmetic {
                    run: multiply_add_512,
                    operations_per_round: 12.0 * 32.0,
                },
                bf16_dot: has!("avx512bf16").then_some(bf16),
                read: read_512,
            });
        }
        let multiply_add = Arithmetic {
            run: multiply_add_256,
            operations_per_round: 12.0 * 16.0,
        };
        if avx2 && has!("avxvnni") {
            found.push(Loops {
                isa: "avxvnni",
                integer_dot: Arithmetic {
                    run: integer_dot_vnni_256,
                    operations_per_round: 12.0 * 64.0,
                },
                fused_multiply_add: multiply_add,
                bf16_dot: None,
                read: read_256,
            });
        }
        if avx2 {
            found.push(Loops {
                isa: "avx2",
                integer_dot: Arithmetic {
                    run: integer_dot_256,
                    operations_per_round: 12.0 * 64.0,
                },
                fused_multiply_add: multiply_add,
                bf16_dot: None,
                read: read_256,
            });
        }
    }

    /// `$name(operands, rounds)`: loads factors into registers 12 and 13 and the start into 0 to 11, then loops.
    /// `$before` sets register 15 to 16-bit ones, for the sequences without VNNI.
    macro_rules! arithmetic_loop {
        ($name:ident, $register:literal, $body:expr, $doc:literal $(, $before:expr)?) => {
            #[doc = $doc]
            fn $name(operands: &Operands, rounds: u64) {
                if rounds == 0 {
                    return;
                }
                // SAFETY: `add_available` hands this function out only where the instructions exist. It reads the
                // 192 bytes of `operands` and changes only the registers named; `rounds` is above zero.
                unsafe {
                    asm!(
                        concat!("vmovups ", $register, "12, [{operands}]"),
                        concat!("vmovups ", $register, "13, [{operands} + 64]"),
                        $($before,)?
                        twelve!(concat!("vmovups ", $register), ", [{operands} + 128]"),
                        "2:",
                        $body,
                        "dec {rounds}",
                        "jnz 2b",
                        "vzeroupper",
                        operands = in(reg) operands,
                        rounds = inout(reg) rounds => _,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                        out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                        out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
                        options(nostack, readonly),
                    );
                }
            }
        };
    }

    arithmetic_loop!(
        multiply_add_512,
        "zmm",
        twelve!("vfmadd213ps zmm", ", zmm12, zmm13"),
        "AVX-512 f32."
    );
    arithmetic_loop!(
        multiply_add_256,
        "ymm",
        twelve!("vfmadd213ps ymm", ", ymm12, ymm13"),
        "FMA f32."
    );
    arithmetic_loop!(
        integer_dot_vnni_512,
        "zmm",
        twelve!("vpdpbusd zmm", ", zmm12, zmm13"),
        "AVX-512 VNNI."
    );
    arithmetic_loop!(
        integer_dot_512,
        "zmm",
        twelve!(
            "vpmaddubsw zmm14, zmm12, zmm13\nvpmaddwd zmm14, zmm14, zmm15\nvpaddd zmm",
            ", zmm14, zmm",
            ""
        ),
        "AVX-512 without VNNI: as AVX2.",
        "vpternlogd zmm15, zmm15, zmm15, 255\nvpsrlw zmm15, zmm15, 15"
    );
    arithmetic_loop!(
        bf16_dot_512,
        "zmm",
        twelve!("vdpbf16ps zmm", ", zmm12, zmm13"),
        "AVX-512 BF16."
    );
    arithmetic_loop!(
        integer_dot_vnni_256,
        "ymm",
        twelve!("{{vex}} vpdpbusd ymm", ", ymm12, ymm13"),
        "AVX-VNNI."
    );
    arithmetic_loop!(
        integer_dot_256,
        "ymm",
        twelve!(
            "vpmaddubsw ymm14, ymm12, ymm13\nvpmaddwd ymm14, ymm14, ymm15\nvpaddd ymm",
            ", ymm14, ymm",
            ""
        ),
        "AVX2: bytes to 16 bits, 16 to 32 bits, add.",
        "vpcmpeqw ymm15, ymm15, ymm15\nvpsrlw ymm15, ymm15, 15"
    );

    /// `$name(bytes)`: loads every whole piece of eight registers.
    macro_rules! read_loop {
        ($name:ident, $register:literal, $width:literal) => {
            fn $name(bytes: &[u8]) {
                let whole = bytes.len() / (8 * $width) * (8 * $width);
                if whole == 0 {
                    return;
                }
                let range = bytes[..whole].as_ptr_range();
                // SAFETY: `add_available` hands this function out only where the instructions exist. It reads from
                // `start` to `end`, a multiple of the step apart and not empty, and changes only the registers named.
                unsafe {
                    asm!(
                        "2:",
                        concat!("vmovups ", $register, "0, [{start}]"),
                        concat!("vmovups ", $register, "1, [{start} + ", $width, "]"),
                        concat!("vmovups ", $register, "2, [{start} + 2*", $width, "]"),
                        concat!("vmovups ", $register, "3, [{start} + 3*", $width, "]"),
                        concat!("vmovups ", $register, "4, [{start} + 4*", $width, "]"),
                        concat!("vmovups ", $register, "5, [{start} + 5*", $width, "]"),
                        concat!("vmovups ", $register, "6, [{start} + 6*", $width, "]"),
                        concat!("vmovups ", $register, "7, [{start} + 7*", $width, "]"),
                        concat!("add {start}, 8*", $width),
                        "cmp {start}, {end}",
                        "jb 2b",
                        "vzeroupper",
                        start = inout(reg) range.start => _,
                        end = in(reg) range.end,
                        out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                        out("xmm6") _, out("xmm7") _,
                        options(nostack, readonly),
                    );
                }
            }
        };
    }

    read_loop!(read_512, "zmm", 64);
    read_loop!(read_256, "ymm", 32);
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::{Arithmetic, Loops, Operands};
    use std::arch::asm;
    use std::arch::is_aarch64_feature_detected as has;

    pub(super) fn add_available(found: &mut Vec<Loops>) {
        // Not `smmla` (i8mm), which does twice as much: its operands are tiles of 2 by 8, not our packed layout.
        let sets: [(bool, &str, fn(&Operands, u64)); 3] = [
            (has!("i8mm"), "neon-i8mm", integer_dot_i8mm),
            (has!("dotprod"), "neon-dotprod", integer_dot_dotprod),
            (true, "neon", integer_dot),
        ];
        let bf16 = Arithmetic {
            run: bf16_dot,
            operations_per_round: 12.0 * 16.0,
        };
        for (_, isa, run) in sets
            .into_iter()
            .filter(|(is_there, ..)| has!("neon") && *is_there)
        {
            found.push(Loops {
                isa,
                integer_dot: Arithmetic {
                    run,
                    operations_per_round: 12.0 * 32.0,
                },
                fused_multiply_add: Arithmetic {
                    run: multiply_add,
                    operations_per_round: 12.0 * 8.0,
                },
                bf16_dot: has!("bf16").then_some(bf16),
                read,
            });
        }
    }

    /// `$name(operands, rounds)`: loads factors into registers 12 and 13 and the start into 0 to 11, then loops.
    macro_rules! arithmetic_loop {
        ($name:ident, $body:expr, $doc:literal) => {
            #[doc = $doc]
            fn $name(operands: &Operands, rounds: u64) {
                if rounds == 0 {
                    return;
                }
                // SAFETY: `add_available` hands this function out only where the instructions exist. It reads the
                // 192 bytes of `operands` and changes only the registers named; `rounds` is above zero.
                unsafe {
                    asm!(
                        ".arch_extension dotprod",
                        ".arch_extension bf16",
                        ".arch_extension i8mm",
                        "ldr q12, [{operands}]",
                        "ldr q13, [{operands}, #64]",
                        twelve!("ldr q", ", [{operands}, #128]"),
                        "2:",
                        $body,
                        "subs {rounds}, {rounds}, #1",
                        "b.ne 2b",
                        operands = in(reg) operands,
                        rounds = inout(reg) rounds => _,
                        out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _,
                        out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _,
                        out("v14") _, out("v15") _,
                        options(nostack, readonly),
                    );
                }
            }
        };
    }

    arithmetic_loop!(
        multiply_add,
        twelve!("fmla v", ".4s, v12.4s, v13.4s"),
        "NEON f32."
    );
    arithmetic_loop!(
        integer_dot,
        twelve!(
            "smull v14.8h, v12.8b, v13.8b\nsmull2 v15.8h, v12.16b, v13.16b\naddp v14.8h, v14.8h, v15.8h\nsadalp v",
            ".4s, v14.8h"
        ),
        "NEON: bytes to 16 bits, 16 to 32 bits."
    );
    arithmetic_loop!(
        integer_dot_dotprod,
        twelve!("sdot v", ".4s, v12.16b, v13.16b"),
        "NEON dotprod."
    );
    arithmetic_loop!(
        integer_dot_i8mm,
        twelve!("usdot v", ".4s, v12.16b, v13.16b"),
        "NEON i8mm."
    );
    arithmetic_loop!(bf16_dot, twelve!("bfdot v", ".4s, v12.8h, v13.8h"), "NEON BF16.");

    fn read(bytes: &[u8]) {
        let whole = bytes.len() / 128 * 128;
        if whole == 0 {
            return;
        }
        let range = bytes[..whole].as_ptr_range();
        // SAFETY: NEON is part of every aarch64. It reads from `start` to `end`, a multiple of 128 bytes apart and
        // not empty, and changes only the registers named.
        unsafe {
            asm!(
                "2:",
                "ldp q0, q1, [{start}], #32",
                "ldp q2, q3, [{start}], #32",
                "ldp q4, q5, [{start}], #32",
                "ldp q6, q7, [{start}], #32",
                "cmp {start}, {end}",
                "b.lo 2b",
                start = inout(reg) range.start => _,
                end = in(reg) range.end,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                options(nostack, readonly),
            );
        }
    }
}
