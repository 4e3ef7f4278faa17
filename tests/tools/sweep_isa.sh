#!/bin/sh
# Runs the tests that make a runtime once per instruction set of this machine: MANTLE_ISA forces the kernel table,
# the expected answers stay the same. (The kernel tests compare all tables with each other by themselves.)
#
#   tests/tools/sweep_isa.sh [cargo]
set -eu
cargo=${1:-cargo}

flags=" $(sed -n '/^flags\|^Features/{s/.*: //p;q;}' /proc/cpuinfo 2>/dev/null || true) "
has() {
    for flag; do
        case $flags in *" $flag "*) ;; *) return 1 ;; esac
    done
}

sets=scalar
has avx2 fma f16c bmi2 && sets="$sets avx2"
has avx2 fma f16c bmi2 avx_vnni && sets="$sets avxvnni"
has avx2 fma f16c bmi2 avx512f avx512bw avx512dq avx512vl && sets="$sets avx512"

# Integration tests that make a runtime, but those that compare the instruction sets by themselves.
tests=$(grep -lE 'Runtime|runtime\(' tests/*.rs | xargs grep -LE 'Isa::(Scalar|ALL)' | sed 's|tests/\(.*\)\.rs|--test \1|')
for isa in $sets; do
    echo "== MANTLE_ISA=$isa"
    # shellcheck disable=SC2086 # a list of words
    MANTLE_ISA=$isa "$cargo" test --release --lib $tests
done
