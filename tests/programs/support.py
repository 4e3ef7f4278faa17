"""What the tests of the programs share: where things are, running a program, making small broken files."""

import json
import os
import struct
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("MANTLE_BUILD", ROOT / "build"))
DATA = ROOT / "tests" / "data"
SECONDS = 300


def cache_folder():
    """As tests/tools/fetch_models.py has it."""
    if os.environ.get("MANTLE_CACHE"):
        return Path(os.environ["MANTLE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "libmantle"


def smollm2():
    """The model file; without it a test fails, it does not pass by."""
    path = cache_folder() / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `make models`")
    return str(path)


def golden():
    """The reference answers for SmolLM2."""
    with open(DATA / "smollm2.json", encoding="utf-8") as file:
        return json.load(file)


class Result:
    """How a program ended: its exit code and what it wrote."""

    def __init__(self, finished):
        self.code, self.out, self.err = finished.returncode, finished.stdout, finished.stderr.decode(errors="replace")

    @property
    def text(self):
        return self.out.decode("utf-8")

    @property
    def json(self):
        return json.loads(self.text)

    @property
    def json_lines(self):
        return [json.loads(line) for line in self.text.splitlines()]


def run(program, *arguments, stdin=b"", environment=None):
    """Runs a program of build/bin."""
    finished = subprocess.run(
        [str(BUILD / "bin" / program), *map(str, arguments)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        timeout=SECONDS,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    return Result(finished)


class ProgramTest(unittest.TestCase):
    """Assertions on how programs end."""

    maxDiff = None

    def succeed(self, program, *arguments, **options):
        result = run(program, *arguments, **options)
        self.assertEqual((result.code, result.err), (0, ""), f"{program} {arguments}")
        return result

    def fail_with(self, program, *arguments, says, code=1, **options):
        """The program ends with a code and one sentence that holds each of the words in `says`."""
        result = run(program, *arguments, **options)
        self.assertEqual(result.code, code, f"{program} {arguments}: {result.err}")
        self.assertTrue(result.err.startswith(f"{program}: "), result.err)
        for word in says:
            self.assertIn(word, result.err, f"{program} {arguments}")
        if code == 1:
            self.assertEqual(result.err.count("\n"), 1, result.err)
        else:
            self.assertIn(f"usage: {program}", result.err)

    def check_help(self, program):
        """There is a help with examples, and an option that does not exist is named."""
        shown = self.succeed(program, "--help")
        for word in (f"usage: {program}", "options:", "examples:", "exit codes: 0 success, 1 error, 2 wrong usage"):
            self.assertIn(word, shown.text)
        self.assertEqual(self.succeed(program, "-h").out, shown.out)
        self.assertIn("libmantle ", self.succeed(program, "--version").text)
        self.fail_with(program, "--frobnicate", code=2, says=["--frobnicate"])


def gguf(metadata=(), version=3):
    """The bytes of a GGUF file without tensors: metadata is (key, text) pairs."""

    def string(text):
        return struct.pack("<Q", len(text)) + text.encode()

    out = b"GGUF" + struct.pack("<IQQ", version, 0, len(metadata))
    for key, text in metadata:
        out += string(key) + struct.pack("<I", 8) + string(text)
    return out
