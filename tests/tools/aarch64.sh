#!/bin/sh
# Builds the Rust tests for aarch64 and runs them in qemu-user on three CPUs: one with plain NEON, one with dotprod, one
# with i8mm. Each runs every table of kernels that it has (so the last runs all) and lacks the instructions of the others.
#
#   tests/tools/aarch64.sh                      the kernels: bits against scalar, and their machine code
#   tests/tools/aarch64.sh --test llama_bits    what `cargo test` is to run instead, on each of the CPUs
#
# Needs Rust's aarch64-unknown-linux-gnu target, a cross gcc, and qemu; as root on Debian or Ubuntu it brings what is
# missing. Times under qemu say nothing about speed. CARGO and CARGO_TARGET_DIR are respected.
set -eu
cd "$(dirname "$0")/../.."
cargo=${CARGO:-cargo}
target=aarch64-unknown-linux-gnu

missing=
command -v aarch64-linux-gnu-gcc >/dev/null || missing="gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
command -v aarch64-linux-gnu-objdump >/dev/null || missing="$missing binutils-aarch64-linux-gnu"
command -v qemu-aarch64 >/dev/null || missing="$missing qemu-user"
if [ -n "$missing" ]; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        apt-get update -qq
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
    else
        echo "missing; on Debian or Ubuntu: apt-get install $missing" >&2
        exit 1
    fi
fi
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    rustup target add "$target"
fi

# Variables of the environment are how cargo is told of a linker and a runner without a file in the user's folders.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export OBJDUMP=aarch64-linux-gnu-objdump
if [ $# -eq 0 ]; then
    for test in kernels_math kernels_matmul kernels_types kernels_attention kernels_encoder kernels_packed_layout disassembly; do
        set -- "$@" --test "$test"
    done
fi
# The newest CPU first: it finds most of what can be wrong.
for cpu in max cortex-a76 cortex-a53; do
    echo "== aarch64 $cpu"
    export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -cpu $cpu -L /usr/aarch64-linux-gnu"
    "$cargo" test --release --target "$target" "$@"
done
