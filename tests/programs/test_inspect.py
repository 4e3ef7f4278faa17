"""mantle-inspect: what it shows of a model, as tables and as JSON."""

import os
import tempfile
import unittest
from pathlib import Path

from support import DATA, ProgramTest, smollm2

PROGRAM = "mantle-inspect"


class Inspect(ProgramTest):
    def test_json(self):
        shown = self.succeed(PROGRAM, smollm2(), "--json").json
        self.assertEqual(shown["architecture"], "llama")
        self.assertEqual((shown["layers"], shown["embedding"], shown["heads"], shown["kv_heads"]), (30, 576, 9, 3))
        self.assertEqual((shown["vocabulary"], shown["feed_forward"], shown["head_size"]), (49152, 1536, 64))
        self.assertEqual(shown["file_bytes"], os.path.getsize(smollm2()))
        self.assertEqual(shown["metadata"]["general.architecture"], "llama")
        self.assertEqual(len(shown["metadata"]["tokenizer.ggml.tokens"]), 49152)
        tensors = {tensor["name"]: tensor for tensor in shown["tensors"]}
        self.assertEqual(len(tensors), 272)
        self.assertEqual(tensors["blk.0.attn_k.weight"]["shape"], [576, 192])
        self.assertEqual(tensors["blk.0.attn_norm.weight"]["bits_per_weight"], 32)
        last = max(shown["tensors"], key=lambda tensor: tensor["offset"])
        self.assertEqual(last["offset"] + last["bytes"], shown["file_bytes"])
        q4_1 = next(tensor for tensor in shown["tensors"] if tensor["type"] == "Q4_1")
        self.assertEqual(q4_1["bits_per_weight"], 5)
        self.assertGreater(len(shown["memory"]), 1)
        for need in shown["memory"]:
            self.assertEqual(need["total"], need["session"] + need["weights"])
        self.assertEqual(shown["memory"][-1]["context"], shown["context"])

    def test_encoders_have_embedders(self):
        path = DATA / "tiny-gemma-embedding-F32.gguf"
        shown = self.succeed(PROGRAM, path, "--json").json
        for need in shown["memory"]:
            self.assertEqual(need["total"], need["embedder"] + need["weights"])
        self.assertIn("embedder", self.succeed(PROGRAM, path).text)

    def test_tables(self):
        shown = self.succeed(PROGRAM, smollm2()).text
        for word in (
            "llama",
            "30 layers of 576",
            "metadata (",
            "(49152 values)",
            "tensors (272)",
            "blk.29.ffn_down.weight",
            "Q4_1",
            "bits/weight",
            "memory needed",
        ):
            self.assertIn(word, shown)
        self.assertLess(max(map(len, shown.splitlines())), 160)
        self.assertGreater(len(self.succeed(PROGRAM, smollm2(), "--all").text), 100_000)

    def test_wrong_input(self):
        self.check_help(PROGRAM)
        self.fail_with(PROGRAM, code=2, says=["MODEL is missing"])
        self.fail_with(PROGRAM, "/nowhere.gguf", says=["/nowhere.gguf"])
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "text.gguf"
            file.write_text("no model", encoding="utf-8")
            self.fail_with(PROGRAM, file, says=["text.gguf"])
            self.fail_with(PROGRAM, name, says=[name, "folder"])


if __name__ == "__main__":
    unittest.main()
