"""tests/tools/bench_report.py: a short run writes chart, JSON and tables, and leaves the rest of the page alone."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from xml.etree import ElementTree

from support import BUILD, ROOT

SCRIPT = ROOT / "tests" / "tools" / "bench_report.py"
PAGE = "# Performance\n\nWritten by hand.\n\n<!-- bench:begin -->\nold\n<!-- bench:end -->\n\nBehind it.\n"


class Report(unittest.TestCase):
    def report(self, folder, *arguments):
        command = [sys.executable, str(SCRIPT), "--docs", str(folder), *map(str, arguments)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        self.assertEqual(finished.returncode, 0, finished.stderr)

    def test_chart_and_tables(self):
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "performance.md"
            page.write_text(PAGE, encoding="utf-8")
            self.report(folder, "--programs", BUILD / "bin", "--types", "q8_0,f32", "--shapes", "64x256", "--threads", 1,
                        "--milliseconds", 1)
            text = page.read_text(encoding="utf-8")
            self.assertTrue(text.startswith("# Performance\n\nWritten by hand.\n") and text.endswith("\nBehind it.\n"))
            self.assertNotIn("old", text)
            for word in ("roofline.svg", "| Q8_0 |", "| F32 |", "| fork_join |", "| vnni |", "32 tokens"):
                self.assertIn(word, text)
            lines = json.loads((Path(folder) / "bench.json").read_text(encoding="utf-8"))
            self.assertLessEqual({"limits", "matvec", "matmul", "gemm", "ops", "crossover"}, {line["bench"] for line in lines})
            self.check_chart(Path(folder) / "roofline.svg", lines)
            # The same from the JSON: nothing is added twice.
            self.report(folder, "--from", Path(folder) / "bench.json")
            self.assertEqual(page.read_text(encoding="utf-8"), text)

    def check_chart(self, path, lines):
        """A point for each product, inside of the picture."""
        root = ElementTree.parse(path).getroot()
        space = "{http://www.w3.org/2000/svg}"
        titles = [title.text for title in root.iter(f"{space}title")]
        self.assertEqual(len(titles), sum(line["bench"] in ("matvec", "matmul", "gemm") for line in lines))
        for circle in root.iter(f"{space}circle"):
            self.assertTrue(0 < float(circle.get("cx")) < float(root.get("width")))
            self.assertTrue(0 < float(circle.get("cy")) < float(root.get("height")))

    def test_a_page_without_markers_gets_them(self):
        sys.path.insert(0, str(SCRIPT.parent))
        import bench_report  # pylint: disable=import-outside-toplevel

        page = bench_report.put_between_markers("# Performance\n", "first")
        self.assertIn("first", page)
        self.assertEqual(bench_report.put_between_markers(page, "second"), page.replace("first", "second"))
        with self.assertRaises(SystemExit):
            bench_report.put_between_markers(bench_report.BEGIN, "third")


if __name__ == "__main__":
    unittest.main()
