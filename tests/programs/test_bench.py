"""mantle-bench: a short run of each command. What is measured must be whole and possible; how fast is no test."""

import unittest

from support import ProgramTest, smollm2

PROGRAM = "mantle-bench"
FIELDS = {"bench", "type", "rows", "cols", "tokens", "threads", "us", "limit", "percent"}
QUICK = ["--milliseconds", 5, "--json"]


class Bench(ProgramTest):
    def lines(self, *arguments):
        lines = self.succeed(PROGRAM, *arguments).json_lines
        self.assertGreater(len(lines), 0)
        for line in lines:
            self.assertLessEqual(FIELDS, set(line), line)
            self.assertEqual(line["bench"], arguments[0])
            self.assertGreater(line["percent"], 0)
        return lines

    def test_limits(self):
        lines = self.lines("limits", "-t", "1,2", "--json")
        for threads in (1, 2):
            mine = [line for line in lines if line["threads"] == threads]
            self.assertLessEqual({"vnni", "fma", "cache", "dram"}, {line["limit"] for line in mine})
            sizes = [line["bytes_per_thread"] for line in mine if "bytes_per_thread" in line]
            self.assertEqual(sizes, sorted(sizes))

    def test_matvec(self):
        lines = self.lines("matvec", "--types", "q8_0,Q4_1,f32", "--shapes", "512x1024,1024x2048", "-t", 1, *QUICK)
        found = {(line["type"], line["rows"], line["cols"], line["limit"]) for line in lines}
        self.assertEqual(len(found), 3 * 2 * 2)
        for line in lines:
            self.assertEqual((line["tokens"], line["threads"]), (1, 1))
            operations = 2 * line["rows"] * line["cols"] / line["us"] / 1e3
            self.assertAlmostEqual(line["gops"], operations, delta=0.05 * operations + 0.01)

    def test_matmul(self):
        lines = self.lines("matmul", "--shapes", "64x256", "--tokens", "3,40", "-t", 2, *QUICK)
        types = {line["type"] for line in lines}
        self.assertLessEqual({"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"}, types)
        self.assertEqual(len(lines), 2 * len(types))
        for line in lines:
            self.assertIn(line["limit"], ("vnni", "fma", "bf16"))

    def test_model(self):
        lines = self.lines("model", "-m", smollm2(), "-p", "12,40", "-n", 4, "-t", 2, *QUICK)
        phases = [(line["phase"], line["tokens"], line["limit"]) for line in lines]
        self.assertEqual(phases, [("prompt", 12, "vnni"), ("prompt", 40, "vnni"), ("generation", 4, "dram")])
        for line in lines:
            self.assertGreater(line["tokens_per_second"], 1)

    def test_tables(self):
        arguments = ["matvec", "--types", "q8_0", "--shapes", "64x64", "--where", "cache", "--milliseconds", 5]
        shown = self.succeed(PROGRAM, *arguments).text
        self.assertIn("% of cache", shown)
        self.assertNotIn("% of dram", shown)
        self.assertIn("GB/s", self.succeed(PROGRAM, "limits", "-t", 1).text)


class WrongInput(ProgramTest):
    def test_usage(self):
        self.check_help(PROGRAM)
        for arguments, says in [
            ([], ["command is missing"]),
            (["fly"], ["'fly'"]),
            (["model"], ["-m FILE"]),
            (["matvec", "--types", "q8_0,q99"], ["'q99'"]),
            (["matvec", "--shapes", "12"], ["ROWSxCOLUMNS"]),
            (["matvec", "--shapes", "12x0"], ["ROWSxCOLUMNS"]),
            (["matvec", "--where", "tape"], ["'tape'"]),
            (["matmul", "--tokens", "1,,2"], ["--tokens"]),
            (["limits", "-t", "0"], ["--threads"]),
        ]:
            self.fail_with(PROGRAM, *arguments, code=2, says=says)

    def test_what_cannot_be_measured(self):
        self.fail_with(PROGRAM, "matvec", "--types", "q8_0", "--shapes", "8x33", says=["33"])
        self.fail_with(PROGRAM, "model", "-m", "/nowhere.gguf", says=["/nowhere.gguf"])


if __name__ == "__main__":
    unittest.main()
