"""mantle-tokenize: the reference ids, round trips, and wrong input."""

import unittest

from support import ProgramTest, golden, run, smollm2

PROGRAM = "mantle-tokenize"


class Tokenize(ProgramTest):
    def test_reference_ids(self):
        texts = golden()["tokens"]
        self.assertGreater(len(texts), 20)
        records = b"".join(entry["text"].encode() + b"\0" for entry in texts)
        lines = self.succeed(PROGRAM, "-m", smollm2(), "-0", stdin=records).text.split("\n")
        self.assertEqual(lines.pop(), "")
        self.assertEqual([[int(word) for word in line.split()] for line in lines], [entry["ids"] for entry in texts])

    def test_a_line_in_a_line_of_ids_out(self):
        self.assertEqual(self.succeed(PROGRAM, "-m", smollm2(), stdin="Hello world\n\na").text, "19556 905\n\n81\n")
        self.assertEqual(self.succeed(PROGRAM, "-m", smollm2(), stdin="").out, b"")
        self.assertEqual(self.succeed(PROGRAM, "-m", smollm2(), "-0", stdin="\n").text, "198\n")

    def test_round_trip(self):
        texts = [entry["text"] for entry in golden()["tokens"]] + ["two\nlines", "\n", "tab\there"]
        records = b"".join(text.encode() + b"\0" for text in texts)
        ids = self.succeed(PROGRAM, "-m", smollm2(), "-0", stdin=records)
        self.assertEqual(self.succeed(PROGRAM, "-m", smollm2(), "-0", "--decode", stdin=ids.out).out, records)
        lines = "19556,905\n\n81\n"
        self.assertEqual(self.succeed(PROGRAM, "-m", smollm2(), "--decode", stdin=lines).text, "Hello world\n\na\n")

    def test_a_long_record(self):
        text = "The quick brown fox. " * 20_000
        ids = self.succeed(PROGRAM, "-m", smollm2(), stdin=text)
        self.assertEqual(self.succeed(PROGRAM, "-m", smollm2(), "-d", stdin=ids.out).text, text + "\n")

    def test_special_tokens(self):
        as_text = self.succeed(PROGRAM, "-m", smollm2(), stdin="<|im_start|>").text
        special = self.succeed(PROGRAM, "-m", smollm2(), "--special", stdin="<|im_start|>").text
        self.assertGreater(len(as_text.split()), 1)
        self.assertEqual(len(special.split()), 1)
        self.assertEqual(self.succeed(PROGRAM, "-m", smollm2(), "-d", stdin=special).text, "<|im_start|>\n")
        self.assertEqual(self.succeed(PROGRAM, "-m", smollm2(), "-d", "--plain", stdin=special).text, "\n")


class WrongInput(ProgramTest):
    def test_usage(self):
        self.check_help(PROGRAM)
        self.fail_with(PROGRAM, code=2, says=["-m MODEL is missing"])
        self.fail_with(PROGRAM, "-m", "x", "y", code=2, says=["unexpected argument 'y'"])

    def test_input_that_cannot_be_converted(self):
        self.fail_with(PROGRAM, "-m", smollm2(), stdin=b"fine\xff\n", says=["UTF-8", "4"])
        self.fail_with(PROGRAM, "-m", smollm2(), "-d", stdin="1 2\n1 two\n", says=["line 2", "'two'"])
        self.fail_with(PROGRAM, "-m", smollm2(), "-d", stdin="49152\n", says=["49152"])
        self.fail_with(PROGRAM, "-m", smollm2(), "-d", stdin="1\x002\n", says=["line 1", "NUL"])
        self.fail_with(PROGRAM, "-m", "/nowhere.gguf", stdin="a", says=["/nowhere.gguf"])

    def test_what_was_right_before_the_mistake_is_there(self):
        result = run(PROGRAM, "-m", smollm2(), stdin=b"Hello world\n\xff\n")
        self.assertEqual((result.code, result.out), (1, b"19556 905\n"))


if __name__ == "__main__":
    unittest.main()
