#!/bin/sh
# Prints the path of a cmake that can build this project. When the machine has none, or an older one,
# pip brings it into the cache (outside the source tree; nothing is installed on the machine).
set -eu

needed_major=3 needed_minor=16
brought=3.31.6

new_enough() {
    version=$("$1" --version 2>/dev/null | sed -n '1s/^cmake version \([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
    [ -n "$version" ] || return 1
    major=${version% *} minor=${version#* }
    [ "$major" -gt $needed_major ] || { [ "$major" -eq $needed_major ] && [ "$minor" -ge $needed_minor ]; }
}

# MANTLE_CMAKE=none skips the machine's own cmake, so that the tests can reach the rest of this file.
candidate=${MANTLE_CMAKE:-$(command -v cmake || true)}
if [ -n "$candidate" ] && [ "$candidate" != none ] && new_enough "$candidate"; then
    echo "$candidate"
    exit 0
fi

tools=${MANTLE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/libmantle}/tools
# pip's --target needs no virtual environment, which some distributions ship apart from Python.
# The program inside the package runs by itself, from any place.
cmake=$tools/cmake-$brought/cmake/data/bin/cmake
if ! new_enough "$cmake"; then
    echo "cmake $needed_major.$needed_minor or newer is not on this machine: fetching $brought into $tools" >&2
    mkdir -p "$tools"
    work=$(mktemp -d "$tools/.cmake.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --no-deps --only-binary :all: --target "$work/new" "cmake==$brought" >&2 || {
        echo "pip could not fetch cmake $brought; install cmake with the system's package manager" >&2
        exit 1
    }
    # Another run may have finished first: then its copy stays, and a broken one is replaced.
    new_enough "$cmake" || { rm -rf "$tools/cmake-$brought" && mv "$work/new" "$tools/cmake-$brought"; }
fi
echo "$cmake"
