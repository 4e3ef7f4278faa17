#!/bin/sh
# Runs the tests that go through the kernels once per instruction set of this machine: MANTLE_ISA
# forces the table, the expected answers stay the same.
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
has avx2 fma f16c && sets="$sets avx2"
has avx2 fma f16c avx_vnni && sets="$sets avxvnni"
has avx512f avx512bw avx512vl avx512_vnni && sets="$sets avx512"
has asimd asimddp && sets="$sets neon"

# Integration tests that make a runtime; those of the kernels compare all tables in one run.
tests=$(grep -lE 'Runtime|mantle_runtime' tests/*.rs 2>/dev/null | sed 's|tests/\(.*\)\.rs|--test \1|' || true)
for isa in $sets; do
    echo "== MANTLE_ISA=$isa"
    if [ -n "$tests" ]; then
        # shellcheck disable=SC2086 # a list of words
        MANTLE_ISA=$isa "$cargo" test --release $tests
    else
        MANTLE_ISA=$isa "$cargo" test --release --lib
    fi
done
