"""mantle-bench: a short run of each command. What is measured must be whole and possible; how fast is no test."""

import unittest

from support import DATA, ProgramTest, smollm2

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
            if line["limit"] is not None:
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

    def test_every_type_that_the_library_multiplies(self):
        lines = self.lines("matmul", "--shapes", "16x256", "--tokens", "2", "-t", 1, "--milliseconds", 1, "--json")
        types = {line["type"] for line in lines}
        classic = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
        small = {"IQ4_NL", "IQ4_XS", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"}
        others = {"F32", "F16", "BF16", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"}
        self.assertLessEqual(classic | small | others, types)

    def test_types_that_a_shape_does_not_fit_are_left_out_unless_named(self):
        lines = self.lines("matvec", "--shapes", "16x96", "--where", "cache", "-t", 1, "--milliseconds", 1, "--json")
        types = {line["type"] for line in lines}
        self.assertIn("Q8_0", types)
        self.assertNotIn("Q4_K", types)
        self.fail_with(PROGRAM, "matvec", "--types", "q4_k", "--shapes", "16x96", says=["96"])

    def test_gemm(self):
        lines = self.lines("gemm", "--shapes", "64x128", "--tokens", "5", "-t", 1, *QUICK)
        found = {(line["type"], line["op"]) for line in lines}
        self.assertEqual(found, {(dtype, op) for dtype in ("F32", "F16", "BF16") for op in ("matmul_f32", "matrix")})
        for line in lines:
            operations = 2 * 64 * 128 * 5 / line["us"] / 1e3
            self.assertAlmostEqual(line["gops"], operations, delta=0.05 * operations + 0.01)

    def test_crossover(self):
        arguments = ["crossover", "--types", "q4_0,q4_k", "--shapes", "64x256", "--tokens", "1,40", "-t", 1, "--milliseconds", 5]
        lines = self.lines(*arguments, "--json")
        self.assertEqual([(line["type"], line["tokens"]) for line in lines],
                         [("Q4_0", 1), ("Q4_0", 40), ("Q4_K", 1), ("Q4_K", 40)])
        for line in lines:
            ways = {"registers": line["us_registers"], "cache": line["us_cache"]}
            self.assertEqual(line["us"], ways[line["taken"]])
            self.assertEqual(min(ways.values()), ways[line["faster"]])
            self.assertLessEqual(line["percent"], 100)
        # Few tokens never pay for decoding to memory.
        self.assertEqual({line["taken"] for line in lines if line["tokens"] == 1}, {"registers"})
        self.assertIn("of 4 cases", self.succeed(PROGRAM, *arguments).text)

    def test_ops(self):
        lines = self.lines("ops", "-t", 2, "--milliseconds", 2, "--json")
        by_op = {(line["op"], line["rows"], line["cols"]): line for line in lines}
        self.assertEqual(by_op["fork_join", 1, 1]["limit"], "target")
        self.assertEqual(by_op["attention", 512, 512]["limit"], "fma")
        self.assertEqual(by_op["cached_attention", 1, 8192]["limit"], "dram")
        functions = {"softmax", "rms_norm", "layer_norm", "gelu_tanh", "gelu_erf", "silu", "geglu", "swiglu", "rope", "axpy"}
        self.assertLessEqual({"quantize"} | functions, {line["op"] for line in lines})

    def test_embed(self):
        model = DATA / "tiny-gemma-embedding-F32.gguf"
        shown = self.succeed(PROGRAM, "embed", "-m", model, "-t", 1, *QUICK)
        lines = [line for line in shown.json_lines if line["bench"] == "embed"]
        timings = [line for line in lines if line["phase"] != "memory"]
        found = [(line["phase"], line["documents"], line["words"]) for line in timings]
        self.assertEqual(found, [("latency", 1, 9), ("latency", 1, 49), ("latency", 1, 400), ("batch", 96, 9), ("batch", 96, 49)])
        for line in timings:
            self.assertLessEqual(FIELDS, set(line), line)
            self.assertGreater(line["percent"], 0)
            self.assertGreater(line["tokens"], line["documents"])
            self.assertLessEqual(line["best_us"], line["p50_us"])
            self.assertLessEqual(line["p50_us"], line["p95_us"])
            self.assertGreaterEqual(line["samples"], 3)
        memory = {line["when"]: line for line in lines if line["phase"] == "memory"}
        self.assertEqual(set(memory), {"idle", "after the batches"})
        for line in memory.values():
            self.assertGreater(line["anonymous_bytes"], 0)
            self.assertGreaterEqual(line["peak_bytes"], line["file_bytes"])
        self.check_profile(shown.json_lines, "document of 12 tokens", 12)
        self.check_profile(shown.json_lines, "document of 256 tokens", 256)

    def check_profile(self, lines, phase, tokens):
        """The ops add up to the calls' time, of which the tiny model's arithmetic is not all."""
        ops = {line["op"]: line for line in lines if line["bench"] == "profile" and line["phase"] == phase and line["layer"] < 0}
        self.assertLessEqual({"qkv", "attention", "attention_output", "gate_up", "down"}, set(ops))
        self.assertEqual({line["tokens"] for line in ops.values()}, {tokens})
        total = sum(line["percent"] for line in ops.values())
        self.assertTrue(50 < total <= 100.001, total)

    def test_profile_of_a_model(self):
        arguments = ["model", "-m", smollm2(), "-p", 40, "-n", 4, "-t", 2, "--profile", "--milliseconds", 5]
        lines = self.succeed(PROGRAM, *arguments, "--layers", "--json").json_lines
        self.check_profile(lines, "prompt of 40 tokens", 40)
        profile = [line for line in lines if line["bench"] == "profile" and line["phase"] == "prompt of 40 tokens"]
        self.assertEqual({line["layer"] for line in profile if line["op"] == "qkv"}, set(range(-1, 30)))
        self.assertIn("head", {line["op"] for line in profile if line["layer"] == -1})
        text = self.succeed(PROGRAM, *arguments).text
        self.assertIn("profile: generation", text)
        self.assertIn("attention_output", text)

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
            (["embed"], ["-m FILE"]),
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
