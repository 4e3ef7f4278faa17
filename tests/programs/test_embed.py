"""mantle-embed: the reference embeddings, every output form, and wrong input."""

import array
import json
import math
import os
import pty
import select
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from support import BUILD, DATA, ProgramTest, cache_folder, run

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

    def test_decoders_embed_by_their_last_token(self):
        decoder = [PROGRAM, "-m", DATA / "tiny-qwen3-F32.gguf"]
        self.assertIn("pooling       last", self.succeed(*decoder, "--info").text)
        row = self.succeed(*decoder, "--ids", stdin="1 2 3\n").json_lines[0]
        each = self.succeed(*decoder, "--ids", "--pooling", "none", stdin="1 2 3\n").json_lines[0]
        self.assertAlmostEqual(cosine(row, each[2]), 1, places=6)
        self.assertEqual(len(self.succeed(*decoder, stdin="a text\n").json_lines), 1)

    def test_similarity(self):
        lines = self.succeed(PROGRAM, "-m", GEMMA, "--similarity", stdin="one\ntwo\none\n").text.splitlines()
        self.assertEqual(len(lines), 4)
        self.assertEqual(lines[1].split()[2:], lines[3].split()[2:])
        self.assertEqual(lines[1].split()[2], "1.000")
        self.assertEqual(self.succeed(PROGRAM, "-m", GEMMA, "--similarity", stdin="").out, b"")

    def test_weights_can_be_converted(self):
        cases = reference("tiny-gemma-embedding-F32.json")
        for weights, least in (("bf16", 0.999), ("q8_0", 0.999)):
            rows = self.succeed(PROGRAM, "-m", GEMMA, "--ids", "-w", weights, stdin=ids(cases)).json_lines
            self.assertGreater(min(cosine(row, case["embedding"]) for row, case in zip(rows, cases)), least)
        kept, f32 = (self.succeed(PROGRAM, "-m", GEMMA, "--ids", *w, stdin=ids(cases)).out for w in ([], ["-w", "f32"]))
        self.assertEqual(kept, f32)


def npy(data):
    """Shape and values of a NumPy file of 32-bit floats."""
    header = eval(data[10:128].decode(), {})  # A Python literal, as the format says.
    return header["shape"], array.array("f", data[128:])


class Streams(ProgramTest):
    def test_rows_of_tokens(self):
        cases = reference("tiny-gemma-embedding-F32.json")
        records = "\n".join(" ".join(map(str, case["ids"])) for case in cases)
        arrays = self.succeed(PROGRAM, "-m", GEMMA, "--ids", "--pooling", "none", stdin=records).json_lines
        self.assertEqual([len(rows) for rows in arrays], [len(case["ids"]) for case in cases])
        flat = array.array("f", [value for rows in arrays for row in rows for value in row])
        shape, values = npy(self.succeed(PROGRAM, "-m", GEMMA, "--ids", "--pooling", "none", "--npy", stdin=records).out)
        self.assertEqual((shape, values), ((len(flat) // 64, 64), flat))
        # Texts give the rows of their ids, prompt and closing tokens included.
        ids = self.succeed("mantle-tokenize", "-m", GEMMA, stdin="title: none | text: abc\n").text
        asked = self.succeed(PROGRAM, "-m", GEMMA, "--pooling", "none", "-p", "document", stdin="abc\n").out
        self.assertEqual(asked, self.succeed(PROGRAM, "-m", GEMMA, "--pooling", "none", "--ids", stdin=ids).out)
        self.fail_with(PROGRAM, "-m", GEMMA, "--pooling", "none", "-p", "riddle", stdin="a", says=["riddle"])
        self.fail_with(PROGRAM, "-m", GEMMA, "--pooling", "none", stdin=b"\xff\n", says=["record 1", "UTF-8"])

    def test_texts_are_cut_to_what_is_asked(self):
        text = "one two three four five six seven eight\n"
        for pooling in ("mean", "last", "none"):
            cut = [PROGRAM, "-m", GEMMA, "--max-tokens", 6, "--pooling", pooling]
            self.fail_with(*cut, stdin=text, says=["record 1", "6"])
            ids = self.succeed("mantle-tokenize", "-m", GEMMA, stdin=text).text.split()
            kept = " ".join(ids[:5] + ids[-1:])
            self.assertEqual(
                self.succeed(*cut, "--truncate", stdin=text).out,
                self.succeed(PROGRAM, "-m", GEMMA, "--ids", "--pooling", pooling, stdin=kept).out,
            )
        self.fail_with(PROGRAM, "-m", GEMMA, "--max-tokens", 2049, stdin="a", says=["2049", "2048"])

    def test_numpy_arrays_know_their_number_of_rows(self):
        """In a pipe, in a file, behind something in a file, and where standard output only appends."""
        lines = "".join(f"text {i}\n" for i in range(600))
        expected = self.succeed(PROGRAM, "-m", GEMMA, "--npy", stdin=lines).out
        self.assertEqual(npy(expected)[0], (600, 64))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows"
            for mode, before in (("wb", b""), ("wb", b"before"), ("ab", b""), ("ab", b"before")):
                path.write_bytes(b"")
                with open(path, mode) as out:
                    out.write(before)
                    out.flush()
                    command = [BUILD / "bin" / PROGRAM, "-m", GEMMA, "--npy"]
                    subprocess.run(command, input=lines.encode(), stdout=out, check=True)
                self.assertEqual(path.read_bytes(), before + expected, (mode, before))
            # Up to a broken record the array is whole.
            with open(path, "wb") as out:
                broken = (lines + "\xff\n").encode("latin-1")
                finished = subprocess.run(command, input=broken, stdout=out, stderr=subprocess.PIPE, check=False)
            self.assertEqual((finished.returncode, path.read_bytes()), (1, expected))
            self.assertIn(b"record 601", finished.stderr)
        self.assertEqual(npy(self.succeed(PROGRAM, "-m", GEMMA, "--npy", stdin="").out)[0], (0, 64))

    def test_answers_come_when_the_input_pauses(self):
        command = [BUILD / "bin" / PROGRAM, "-m", GEMMA]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
            for text in (b"first\n", b"second\nthird\n"):
                process.stdin.write(text)
                for _ in range(text.count(b"\n")):
                    ready, _, _ = select.select([process.stdout], [], [], 60)
                    self.assertTrue(ready, "no answer before the input ends")
                    row = process.stdout.readline()
                    self.assertEqual(len(json.loads(row)), 64)
            process.stdin.close()
            self.assertEqual(process.stdout.read(), b"")
        self.assertEqual(process.returncode, 0)

    def peak_memory(self, form, count):
        """Bytes that embedding `count` records of 1100 bytes held at most."""
        with tempfile.TemporaryDirectory() as folder:
            texts, path = Path(folder) / "texts", Path(folder) / "rows"
            texts.write_bytes((b"many words " * 100 + b"\n") * count)
            command = [BUILD / "bin" / PROGRAM, "-m", GEMMA, "--max-tokens", "4", "--truncate", form, texts]
            with open(path, "wb") as out:
                process = subprocess.Popen(list(map(str, command)), stdout=out)
                _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            self.assertEqual((process.returncode, len(path.read_bytes()) // 256), (0, count))
            return usage.ru_maxrss * 1024

    def test_memory_does_not_grow_with_the_input(self):
        for form in ("--bin", "--npy"):
            # 28 MB of text and 6 MB of rows.
            self.assertLess(self.peak_memory(form, 25000) - self.peak_memory(form, 2000), 4 << 20)

    def test_progress_is_shown_on_a_terminal(self):
        ours, theirs = pty.openpty()
        command = [BUILD / "bin" / PROGRAM, "-m", GEMMA]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=theirs, bufsize=0
        ) as process:
            os.close(theirs)
            process.stdin.write(b"one\n")
            process.stdout.readline()
            time.sleep(1.1)  # It shows from the second second on.
            process.stdin.write(b"two\n")
            process.stdout.readline()
            process.stdin.close()
            process.stdout.read()
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # The other end is closed.
                break
            if not part:
                break
            shown += part
        os.close(ours)
        self.assertIn(b"2 records", shown)
        # At the end the line is gone.
        self.assertTrue(shown.endswith(b"\r\x1b[K"), shown)


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
        self.fail_with(PROGRAM, "-m", "x", "--pooling", "max", code=2, says=["max", "mean, cls, last or none"])
        self.fail_with(PROGRAM, "-m", GEMMA, "--pooling", "none", "--similarity", stdin="a", code=2, says=["--similarity"])
        self.fail_with(PROGRAM, "-m", "x", "--ids", "-p", "query", code=2, says=["--prompt"])
        self.fail_with(PROGRAM, "-m", "x", "--weights", "q4_0", code=2, says=["q4_0", "f32, bf16 or q8_0"])

    def test_models(self):
        self.fail_with(PROGRAM, "-m", "/nowhere.gguf", stdin="a", says=["/nowhere.gguf"])
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
