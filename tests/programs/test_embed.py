"""mantle-embed: the reference embeddings, every output form, and wrong input."""

import array
import json
import math
import os
import tempfile
import unittest
from pathlib import Path

from support import DATA, ProgramTest, cache_folder, run

PROGRAM = "mantle-embed"
GEMMA = str(DATA / "tiny-gemma-embedding-F32.gguf")


def reference(name):
    with open(DATA / name, encoding="utf-8") as file:
        return json.load(file)["cases"]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def ids(cases):
    return "\n".join(" ".join(map(str, case["ids"])) for case in cases)


class Embed(ProgramTest):
    def test_reference(self):
        cases = reference("tiny-gemma-embedding-F32.json")
        rows = self.succeed(PROGRAM, "-m", GEMMA, "--ids", stdin=ids(cases)).json_lines
        self.assertEqual(len(rows), len(cases))
        for row, case in zip(rows, cases):
            self.assertGreater(cosine(row, case["embedding"]), 0.999999)

    def test_every_form_holds_the_same_numbers(self):
        cases = reference("tiny-gemma-embedding-F32.json")
        rows = self.succeed(PROGRAM, "-m", GEMMA, "--ids", stdin=ids(cases)).json_lines
        flat = array.array("f", [value for row in rows for value in row])
        self.assertEqual(self.succeed(PROGRAM, "-m", GEMMA, "--ids", "--bin", stdin=ids(cases)).out, flat.tobytes())
        npy = self.succeed(PROGRAM, "-m", GEMMA, "--ids", "--npy", stdin=ids(cases)).out
        self.assertEqual(npy[:10], b"\x93NUMPY\x01\x00\x76\x00")
        header = eval(npy[10:128].decode(), {})  # A Python literal, as the format says.
        self.assertEqual(header, {"descr": "<f4", "fortran_order": False, "shape": (len(rows), 64)})
        self.assertEqual(npy[128:], flat.tobytes())

    def test_texts_in_order_from_a_file_and_with_any_number_of_threads(self):
        lines = [f"text number {i}" for i in range(700)] + [""]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "texts"
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            one = self.succeed(PROGRAM, "-m", GEMMA, "-t", 1, path)
            self.assertEqual(self.succeed(PROGRAM, "-m", GEMMA, "-t", 2, path).out, one.out)
        rows = one.json_lines
        self.assertEqual(len(rows), len(lines))
        for i in (0, 300, 700):
            alone = self.succeed(PROGRAM, "-m", GEMMA, stdin=lines[i] + "\n").json_lines
            self.assertEqual(alone, [rows[i]])
        self.assertEqual(self.succeed(PROGRAM, "-m", GEMMA, stdin="").out, b"")

    def test_records_may_hold_newlines(self):
        rows = self.succeed(PROGRAM, "-m", GEMMA, "-0", stdin=b"two\nlines\0one").json_lines
        self.assertEqual(len(rows), 2)

    def test_prompts(self):
        shown = self.succeed(PROGRAM, "-m", GEMMA, "--info").text
        self.assertIn('query: "task: search result | query: "', shown)
        self.assertIn("dense layers  2", shown)
        asked = self.succeed(PROGRAM, "-m", GEMMA, "--prompt", "document", stdin="abc\n").out
        written = self.succeed(PROGRAM, "-m", GEMMA, "--prompt", "none", stdin="title: none | text: abc\n").out
        self.assertEqual(asked, written)

    def test_cut_and_pooled(self):
        whole = self.succeed(PROGRAM, "-m", GEMMA, stdin="abc\n").json_lines[0]
        cut = self.succeed(PROGRAM, "-m", GEMMA, "--dims", 16, stdin="abc\n").json_lines[0]
        self.assertEqual(len(cut), 16)
        self.assertAlmostEqual(sum(value * value for value in cut), 1, places=5)
        self.assertAlmostEqual(cosine(cut, whole[:16]), 1, places=6)
        last = self.succeed(PROGRAM, "-m", GEMMA, "--pooling", "last", stdin="abc\n").json_lines[0]
        self.assertLess(cosine(last, whole), 0.9999)

    def test_similarity(self):
        lines = self.succeed(PROGRAM, "-m", GEMMA, "--similarity", stdin="one\ntwo\none\n").text.splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual(lines[1].split()[2:], lines[3].split()[2:])
        self.assertEqual(lines[1].split()[2], "1.000")

    def test_weights_can_be_converted(self):
        cases = reference("tiny-gemma-embedding-F32.json")
        for weights, least in (("bf16", 0.999), ("q8_0", 0.999)):
            rows = self.succeed(PROGRAM, "-m", GEMMA, "--ids", "-w", weights, stdin=ids(cases)).json_lines
            self.assertGreater(min(cosine(row, case["embedding"]) for row, case in zip(rows, cases)), least)


class MiniLM(ProgramTest):
    def test_reference(self):
        folder = Path(os.environ.get("MANTLE_MINILM") or cache_folder() / "minilm")
        if not (folder / "model.safetensors").is_file():
            self.skipTest("the model is not there: tests/tools/fetch_models.py minilm")
        cases = reference("minilm.json")
        records = b"".join(case["text"].encode() + b"\0" for case in cases)
        rows = self.succeed(PROGRAM, "-m", folder, "-0", stdin=records).json_lines
        for row, case in zip(rows, cases):
            self.assertGreater(cosine(row, case["embedding"]), 0.999999)


class WrongInput(ProgramTest):
    def test_usage(self):
        self.check_help(PROGRAM)
        self.fail_with(PROGRAM, code=2, says=["-m MODEL is missing"])
        self.fail_with(PROGRAM, "-m", "x", "--npy", "--bin", code=2, says=["--npy", "--bin"])
        self.fail_with(PROGRAM, "-m", "x", "--pooling", "max", code=2, says=["max", "mean, cls or last"])
        self.fail_with(PROGRAM, "-m", "x", "--ids", "-p", "query", code=2, says=["--prompt"])

    def test_models(self):
        self.fail_with(PROGRAM, "-m", "/nowhere.gguf", stdin="a", says=["/nowhere.gguf"])
        decoder = str(DATA / "tiny-qwen3-F32.gguf")
        result = run(PROGRAM, "-m", decoder, stdin="a")
        self.assertEqual(result.code, 1, result.err)
        with tempfile.TemporaryDirectory() as folder:
            self.fail_with(PROGRAM, "-m", folder, stdin="a", says=[folder, "model.safetensors"])
        self.fail_with(PROGRAM, "-m", GEMMA, "nowhere.txt", says=["nowhere.txt"])

    def test_records(self):
        self.fail_with(PROGRAM, "-m", GEMMA, "-p", "riddle", stdin="a", says=["riddle", "query"])
        self.fail_with(PROGRAM, "-m", GEMMA, "--dims", 65, stdin="a", says=["65", "64"])
        self.fail_with(PROGRAM, "-m", GEMMA, "--ids", stdin="1 2\n1 two\n", says=["record 2", "'two'"])
        self.fail_with(PROGRAM, "-m", GEMMA, "--ids", stdin="1 2\n\n", says=["record 2"])
        self.fail_with(PROGRAM, "-m", GEMMA, "--ids", stdin="512\n", says=["record 1", "512"])
        long = " ".join(["7"] * 2049)
        self.fail_with(PROGRAM, "-m", GEMMA, "--ids", stdin=long, says=["record 1", "2049", "2048"])
        self.succeed(PROGRAM, "-m", GEMMA, "--ids", "--truncate", stdin=long)

    def test_what_was_right_before_the_mistake_is_there(self):
        result = run(PROGRAM, "-m", GEMMA, stdin=b"fine\n\xff\n")
        self.assertEqual(result.code, 1)
        self.assertEqual(len(result.text.splitlines()), 1)
        self.assertIn("record 2", result.err)


if __name__ == "__main__":
    unittest.main()
