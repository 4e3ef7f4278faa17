"""Embeddings beside the peers: libmantle, onnxruntime, OpenVINO and llama.cpp on one machine, in one run, in turns.

    python3 tests/peers/embed_peers.py minilm FOLDER            libmantle, onnxruntime, OpenVINO
    python3 tests/peers/embed_peers.py gemma MODEL.gguf...      libmantle, llama.cpp

Every engine works in a process of its own that waits while the others work. Each round asks all engines for all
shapes; the best time of all rounds counts, and every figure stands beside libmantle's. Cosines are those with the reference
of tests/data/minilm.json, for all its texts, alone.

What it needs is in tests/peers/README.md. It is no test: `make test` does not run it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("MANTLE_BUILD", ROOT / "build"))

MINILM_SHAPES = [(1, 12), (1, 60), (1, 256), (96, 12), (96, 60)]
GEMMA_SHAPES = [(1, 12), (1, 60), (1, 256), (1, 512), (96, 12), (96, 60)]

# Threads of an engine that wait for more work still spin for a while: those of llama.cpp for 0.1 s.
PAUSE = 0.25


# ---- workers in Python: onnxruntime and OpenVINO ----


def ids(documents, tokens):
    import numpy as np

    return (1000 + np.arange(documents * tokens) * 7919 % 20000).reshape(documents, tokens).astype(np.int64)


def onnxruntime_engine(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, {"ids": given})[0]


def openvino_engine(path, threads, precision):
    import openvino

    core, made = openvino.Core(), {}
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}

    def run(given):
        # Shapes that are known in advance are faster.
        if given.shape not in made:
            model = core.read_model(path)
            model.reshape(list(given.shape))
            made[given.shape] = core.compile_model(model, "CPU", settings).create_infer_request()
        return next(iter(made[given.shape].infer({"ids": given}).values()))

    return run


def work(kind, path, threads):
    """Answers the same requests as the workers in C."""
    if kind.startswith("onnxruntime"):
        run = onnxruntime_engine(path, threads)
    else:
        run = openvino_engine(path, threads, kind.split("-")[1])
    for line in sys.stdin:
        words = line.split()
        if words[0] == "time":
            given = ids(int(words[1]), int(words[2]))
            run(given)
            best = 1e9
            for _ in range(int(words[3])):
                start = time.perf_counter()
                run(given)
                best = min(best, time.perf_counter() - start)
            print(f"{best:.9f}", flush=True)
        else:
            import numpy as np

            row = run(np.array([[int(word) for word in words[1:]]], np.int64))[0]
            print(" ".join(f"{value:.9g}" for value in row), flush=True)


# ---- the comparison ----


class Engine:
    """A worker: `time DOCUMENTS TOKENS RUNS` gives the best seconds, `embed ID...` an embedding."""

    before = []  # what runs the workers, such as chrt

    def __init__(self, name, command, environment=None):
        self.name = name
        self.process = subprocess.Popen(
            list(map(str, [*self.before, *command])),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def ask(self, request):
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"{self.name} ended")
        return [float(word) for word in answer.split()]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def compile_worker(name, folder, flags):
    program = Path(folder) / name
    command = [os.environ.get("CC", "cc"), "-O2", "-std=c11", HERE / f"{name}.c", "-o", program, *flags]
    subprocess.run(list(map(str, command)), check=True)
    return program


def mantle_worker(folder):
    library = BUILD / "lib"
    return compile_worker(
        "mantle_worker", folder, [f"-I{ROOT / 'include'}", f"-L{library}", "-lmantle", f"-Wl,-rpath,{library}"]
    )


def measure(engines, shapes, rounds, budget):
    """The best seconds of each engine and shape."""
    best = {(engine.name, shape): 1e9 for engine in engines for shape in shapes}
    for _ in range(rounds):
        for shape in shapes:
            for engine in engines:
                known = best[engine.name, shape]
                runs = 2 if known > 1e8 else max(2, min(50, int(budget / known)))
                seconds = engine.ask(f"time {shape[0]} {shape[1]} {runs}")[0]
                best[engine.name, shape] = min(known, seconds)
                time.sleep(PAUSE)
    return best


def print_table(engines, shapes, best, cosines=None):
    names = [f"{documents} x {tokens}" for documents, tokens in shapes]
    print(f"| engine | {' | '.join(names)} |{' cosine |' if cosines else ''}")
    print(f"| --- |{' --- |' * (len(shapes) + bool(cosines))}")
    for engine in engines:
        cells = [f"{d * t / best[engine.name, (d, t)]:,.0f}" for d, t in shapes]
        if cosines:
            cells.append(f"{cosines[engine.name]:.6f}")
        print(f"| {engine.name} | {' | '.join(cells)} |")


def print_ratios(ours, peer, shapes, best):
    cells = [f"{best[peer, shape] / best[ours, shape]:.2f}" for shape in shapes]
    print(f"| {ours} over {peer} | {' | '.join(cells)} |")


def smallest_cosine(engine, cases):
    smallest = 1.0
    for case in cases:
        row, expected = engine.ask("embed " + " ".join(map(str, case["ids"]))), case["embedding"]
        dot = sum(a * b for a, b in zip(row, expected))
        smallest = min(smallest, dot / (sum(a * a for a in row) * sum(b * b for b in expected)) ** 0.5)
    return smallest


def minilm(given, folder):
    from onnxruntime.quantization import QuantType, quantize_dynamic

    sys.path.insert(0, str(HERE))
    import bert_onnx

    onnx, quantized = Path(folder) / "f32.onnx", Path(folder) / "int8.onnx"
    bert_onnx.export(Path(given.models[0]), onnx)
    quantize_dynamic(onnx, quantized, weight_type=QuantType.QInt8)
    worker = mantle_worker(folder)
    this = [sys.executable, __file__, "work"]
    cases = json.loads((ROOT / "tests/data/minilm.json").read_text(encoding="utf-8"))["cases"]
    for threads in given.threads:
        model = given.models[0]
        engines = [
            Engine("libmantle F32", [worker, model, threads]),
            Engine("OpenVINO F32", [*this, "openvino-f32", onnx, threads]),
            Engine("onnxruntime F32", [*this, "onnxruntime-f32", onnx, threads]),
            Engine("libmantle BF16", [worker, model, threads, "bf16"]),
            Engine("OpenVINO bf16", [*this, "openvino-bf16", onnx, threads]),
            Engine("libmantle Q8_0", [worker, model, threads, "q8_0"]),
            Engine("onnxruntime int8", [*this, "onnxruntime-int8", quantized, threads]),
        ]
        cosines = {engine.name: smallest_cosine(engine, cases) for engine in engines}
        best = measure(engines, MINILM_SHAPES, given.rounds, given.budget)
        print(f"\n{Path(model).name}, {threads} threads, tokens/s\n")
        print_table(engines, MINILM_SHAPES, best, cosines)
        for ours, peer in (("F32", "OpenVINO F32"), ("BF16", "OpenVINO bf16"), ("Q8_0", "onnxruntime int8")):
            print_ratios(f"libmantle {ours}", peer, MINILM_SHAPES, best)
        for engine in engines:
            engine.close()


def gemma(given, folder):
    include, library = given.llama_include, given.llama_library
    if not include or not library:
        sys.exit("gemma needs --llama-include and --llama-library: see tests/peers/README.md")
    flags = [f"-I{path}" for path in include]
    found = [path for stem in ("libllama.", "libggml.", "libggml-base.") for path in sorted(Path(library).glob(f"{stem}*"))]
    llama = compile_worker("llama_worker", folder, [*flags, *found, f"-Wl,-rpath,{Path(library).resolve()}"])
    worker = mantle_worker(folder)
    for model in given.models:
        for threads in given.threads:
            environment = {"LLAMA_BACKENDS": str(Path(library).resolve())}
            engines = [
                Engine("libmantle", [worker, model, threads]),
                Engine("llama.cpp", [llama, model, threads, given.llama_batch], environment),
            ]
            best = measure(engines, GEMMA_SHAPES, given.rounds, given.budget)
            print(f"\n{Path(model).name}, {threads} threads, tokens/s\n")
            print_table(engines, GEMMA_SHAPES, best)
            print_ratios("libmantle", "llama.cpp", GEMMA_SHAPES, best)
            for engine in engines:
                engine.close()


def main():
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description="Measures embeddings beside onnxruntime, OpenVINO and llama.cpp.")
    parser.add_argument("what", choices=("minilm", "gemma"))
    parser.add_argument("models", nargs="+", help="folder of all-MiniLM-L6-v2, or GGUF files")
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=0.15, help="seconds of an engine's turn")
    parser.add_argument("--llama-include", nargs="+", help="folders of llama.h and ggml.h")
    parser.add_argument("--llama-library", help="folder of libllama, libggml and its backends")
    parser.add_argument("--llama-batch", type=int, default=512, help="tokens that llama.cpp takes at once")
    parser.add_argument("--before", default="", help="runs the workers, such as 'chrt --rr 1' on a machine that is not quiet")
    given = parser.parse_args()
    Engine.before = given.before.split()
    folder = tempfile.mkdtemp(prefix="mantle-peers-")
    try:
        {"minilm": minilm, "gemma": gemma}[given.what](given, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
