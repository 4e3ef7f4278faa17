"""The tools for developers that need numpy: without it these tests are skipped, and nothing else misses it."""

import importlib.util
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from support import BUILD, DATA, ROOT, ProgramTest

TOOLS = ROOT / "tests" / "tools"
HAS_NUMPY = importlib.util.find_spec("numpy") is not None


@unittest.skipUnless(HAS_NUMPY, "numpy is not installed")
class WriteModel(ProgramTest):
    def write(self, *arguments):
        subprocess.run([sys.executable, TOOLS / "write_model.py", *arguments], check=True)

    def test_a_file_is_whole_and_the_same_each_time(self):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("one.gguf", "two.gguf")]
            for path in paths:
                self.write("minilm-l6", "Q8_0", path)
            self.assertEqual(paths[0].read_bytes(), paths[1].read_bytes())
            self.assertEqual(sorted(Path(folder).iterdir()), paths)
            shown = self.succeed("mantle-inspect", paths[0], "--json").json
            self.assertEqual((shown["layers"], shown["embedding"], shown["vocabulary"]), (6, 384, 30522))
            rows = self.succeed("mantle-embed", "-m", paths[0], stdin="one text\nanother\n").json_lines
            self.assertEqual([len(row) for row in rows], [384, 384])
            # Activations of a sane size: two texts neither agree nor are they opposites.
            self.assertLess(abs(sum(a * b for a, b in zip(*rows))), 0.95)

    def test_decoders(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.gguf"
            self.write("smollm2-135m", "Q4_1", path)
            ids = self.succeed("mantle-tokenize", "-m", path, stdin="Hello you\n").text.split()
            self.assertGreater(len(ids), 1)
            self.succeed("mantle-generate", "-m", path, "-n", "2", "-p", "Hello")


@unittest.skipUnless(HAS_NUMPY, "numpy is not installed")
class Reference(unittest.TestCase):
    def compare(self, name, least):
        command = [sys.executable, TOOLS / "embedding_reference.py", DATA / name, "--least", least]
        command += ["--program", BUILD / "bin" / "mantle-embed"]
        return subprocess.run(list(map(str, command)), capture_output=True, check=False, text=True)

    def test_the_library_is_as_near_as_it_says(self):
        for name, least in (("tiny-gemma-embedding-F32.gguf", 0.999999), ("tiny-gemma-embedding-Q8_0.gguf", 0.9995)):
            finished = self.compare(name, least)
            self.assertEqual(finished.returncode, 0, finished.stdout + finished.stderr)

    def test_it_fails_below_what_was_asked(self):
        finished = self.compare("tiny-gemma-embedding-Q8_0.gguf", 0.9999999)
        self.assertEqual(finished.returncode, 1)
        self.assertIn("expected at least", finished.stderr)


if __name__ == "__main__":
    unittest.main()
