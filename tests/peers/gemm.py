#!/usr/bin/env python3
"""Products of f32 matrices (n x n) by libmantle, OpenBLAS and the Rust crate gemm, in turns, in one process.

    PYTHON tests/peers/gemm.py build/lib/libmantle.so [--sizes 256 1024] [--threads 1 2] [--rounds 10] [--no-crate]

PYTHON has numpy, whose OpenBLAS is taken with its AVX-512 kernel (OPENBLAS_CORETYPE=SkylakeX unless set). A C compiler and
cargo are needed; what they make goes to a temporary folder. Each line tells the best of all rounds, in GFLOP/s and in percent
of what the machine's fused multiply-adds reached in the same rounds; the results of all engines are compared.
"""
import argparse
import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile

if "OPENBLAS_CORETYPE" not in os.environ:
    # The library reads its environment before Python can set it: start anew.
    os.execve(sys.executable, [sys.executable, *sys.argv], dict(os.environ, OPENBLAS_CORETYPE="SkylakeX"))
import numpy  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
FUSED_MULTIPLY_ADD = 1
CRATE = """
#[no_mangle]
pub unsafe extern "C" fn sgemm(n: usize, a: *const f32, b: *const f32, c: *mut f32, threads: usize) {
    let parallelism = if threads == 1 { gemm::Parallelism::None } else { gemm::Parallelism::Rayon(threads) };
    let n = n as isize;
    let s = n as usize;
    // B is read transposed: its columns are rows in memory.
    gemm::gemm(s, s, s, c, 1, n, false, a, 1, n, b, n, 1, 0f32, 1f32, false, false, false, parallelism)
}
"""
MANIFEST = """[package]
name = "sgemm"
version = "0.1.0"
edition = "2021"
[lib]
crate-type = ["cdylib"]
[dependencies]
gemm = { version = "0.19", features = ["x86-v4"] }
"""


def build_timer(folder):
    """What the C library has: the function that makes the calls, and the size of the runtime's options."""
    path = folder / "timer.so"
    source = ROOT / "tests/peers/gemm_timer.c"
    subprocess.run(["cc", "-std=c99", "-O2", "-shared", "-fPIC", "-I", ROOT / "include", source, "-o", path], check=True)
    library = ctypes.CDLL(str(path))
    timer = library.best_time
    library.options_size.restype = ctypes.c_size_t
    timer.restype = ctypes.c_double
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    timer.argtypes = [ctypes.c_int, pointer, pointer, size, pointer, pointer, pointer, size, ctypes.c_double]
    return timer, library.options_size()


def build_crate(folder):
    """The crate as a C function."""
    (folder / "src").mkdir()
    (folder / "Cargo.toml").write_text(MANIFEST)
    (folder / "src/lib.rs").write_text(CRATE)
    environment = dict(os.environ, CARGO_TARGET_DIR=str(folder / "target"))
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=folder, env=environment, check=True)
    return ctypes.CDLL(str(folder / "target/release/libsgemm.so")).sgemm


def open_blas():
    """cblas_sgemm and the function that sets the number of threads, out of numpy's own library."""
    folder = pathlib.Path(numpy.__file__).resolve().parents[1] / "numpy.libs"
    for path in sorted(folder.glob("*openblas*")):
        library = ctypes.CDLL(str(path))
        return library.scipy_cblas_sgemm64_, library.scipy_openblas_set_num_threads64_
    raise SystemExit(f"no OpenBLAS in {folder}")


class Mantle:
    """libmantle: a runtime for each number of threads, and the machine's limit."""

    def __init__(self, path, options_size):
        self.library = ctypes.CDLL(path)
        self.options_size = options_size
        self.matmul = self.library.mantle_matmul_f32

    def runtime(self, threads):
        """A runtime of so many threads; its options begin with struct_size and threads."""
        options = ctypes.create_string_buffer(self.options_size)
        runtime = ctypes.c_void_p()
        self.check(self.library.mantle_runtime_options_init(options, ctypes.c_size_t(self.options_size), None))
        ctypes.c_uint32.from_buffer(options, 8).value = threads
        self.check(self.library.mantle_runtime_new(options, ctypes.byref(runtime), None))
        return runtime

    def peak(self, threads):
        """GFLOP/s of fused multiply-adds, now."""
        rate = ctypes.c_double()
        measure = self.library.mantle_measure_limit
        self.check(measure(FUSED_MULTIPLY_ADD, threads, ctypes.c_size_t(0), 20, ctypes.byref(rate), None))
        return rate.value / 1e9

    @staticmethod
    def check(status):
        """Ends the program on a failure."""
        if status != 0:
            raise SystemExit(f"libmantle answered with status {status}")


def measure(arguments, mantle, timer, crate):
    """One table."""
    sgemm, set_threads = open_blas()
    engines = [("libmantle", 0, mantle.matmul), ("OpenBLAS", 1, sgemm)]
    engines += [("crate gemm", 2, crate)] if crate else []
    print(f"| size | threads | peak GFLOP/s | {' | '.join(name for name, _, _ in engines)} |")
    print("| --- | --- | --- |" + " --- |" * len(engines))
    generator = numpy.random.default_rng(1)
    for n in arguments.sizes:
        a, b = (generator.standard_normal((n, n)).astype(numpy.float32) for _ in range(2))
        expected = a.astype(numpy.float64) @ b.astype(numpy.float64).T
        c = numpy.zeros((n, n), numpy.float32)
        for threads in arguments.threads:
            set_threads(threads)
            runtime = mantle.runtime(threads)
            peak, best = 0, [0] * len(engines)
            for _ in range(arguments.rounds):
                peak = max(peak, mantle.peak(threads))
                for i, (name, number, function) in enumerate(engines):
                    c.fill(0)
                    pointers = (ctypes.c_void_p(x.ctypes.data) for x in (a, b, c))
                    seconds = timer(number, ctypes.cast(function, ctypes.c_void_p), runtime, n, *pointers, threads,
                                    arguments.budget)
                    best[i] = max(best[i], 2e-9 * n**3 / seconds)
                    error = numpy.abs(c - expected).max()
                    if not error < 1e-5 * n:
                        raise SystemExit(f"{name} is off by {error} at {n}")
            cells = (f"{rate:.0f} ({100 * rate / peak:.0f} %)" for rate in best)
            print(f"| {n} | {threads} | {peak:.0f} | {' | '.join(cells)} |", flush=True)
            mantle.library.mantle_runtime_free(runtime)


def main():
    """The program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", help="libmantle.so")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=0.04, help="seconds of a turn")
    parser.add_argument("--no-crate", action="store_true", help="leave the crate gemm out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        timer, options_size = build_timer(folder)
        crate = None if arguments.no_crate else build_crate(folder)
        measure(arguments, Mantle(arguments.library, options_size), timer, crate)


if __name__ == "__main__":
    main()
