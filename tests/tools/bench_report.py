#!/usr/bin/env python3
"""Runs the tables of mantle-bench and writes them down: JSON, a roofline chart (SVG), and tables in docs/performance.md.

    bench_report.py [--programs build/bin] [--threads 2] [--milliseconds 100] [--types q8_0,...] [--docs docs]
    bench_report.py --from docs/bench.json     writes chart and tables anew from an earlier run

A roofline chart (Williams et al. 2009) puts each product at its operations per byte of weights, and at the operations per
second that it reaches. Left of the ridge the roof is what memory gives, right of it what the arithmetic gives.
No packages beyond Python's own are used.
"""

import argparse
import json
import math
import subprocess
import sys
from html import escape
from pathlib import Path

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
# Rows and columns that models have, from small to large.
SHAPES = "256x256,768x768,1152x768,576x1536,3072x1024,1024x3072,2048x2048,4096x4096,11008x4096,4096x11008"
COLORS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"]


def run(programs, *arguments):
    """The JSON lines of a command; its messages go to the screen."""
    command = [str(Path(programs) / "mantle-bench"), *map(str, arguments), "--json"]
    print(" ".join(command), file=sys.stderr)
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return [json.loads(line) for line in finished.stdout.splitlines()]


def measure(options):
    """Every table, as one list of lines."""
    common = ["-t", options.threads, "--milliseconds", options.milliseconds]
    chosen = ["--types", options.types] if options.types else []
    shapes = ["--shapes", options.shapes or SHAPES]
    few = ["--shapes", options.shapes] if options.shapes else []
    lines = run(options.programs, "limits", *common)
    lines += run(options.programs, "matvec", *common, *chosen, *shapes)
    lines += run(options.programs, "matmul", *common, *chosen, *shapes, "--tokens", "6,32,256")
    lines += run(options.programs, "gemm", *common, *few)
    lines += run(options.programs, "ops", *common)
    lines += run(options.programs, "crossover", *common, *chosen, *few)
    return lines


# ---- chart ----


def limits_of(lines):
    """The best of each limit, from the lines of `limits`; what was measured later is in the percentages."""
    found = {}
    for line in lines:
        if line["bench"] == "limits":
            rate = line.get("gops") or line["gbps"]
            found[line["limit"]] = max(rate, found.get(line["limit"], 0))
    return found


def products(lines):
    """Points of the chart: matrix products, with operations per byte of weights."""
    for line in lines:
        if line["bench"] in ("matvec", "matmul", "gemm"):
            yield line["operations"] / line["bytes"], line["gops"], line


class Chart:
    """Axes with powers of ten or two; everything is drawn into a list of SVG elements."""

    WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 600, 70, 190, 40, 60

    def __init__(self, xs, ys):
        self.x0, self.x1 = math.log2(min(xs) / 1.3), math.log2(max(xs) * 1.3)
        self.y0, self.y1 = math.log10(min(ys) / 1.5), math.log10(max(ys) * 1.3)
        self.parts = []

    def x(self, value):
        share = (math.log2(value) - self.x0) / (self.x1 - self.x0)
        return self.LEFT + share * (self.WIDTH - self.LEFT - self.RIGHT)

    def y(self, value):
        share = (math.log10(value) - self.y0) / (self.y1 - self.y0)
        return self.HEIGHT - self.BOTTOM - share * (self.HEIGHT - self.TOP - self.BOTTOM)

    def text(self, x, y, text, **style):
        style = {"font_size": 12, "fill": "#333", **style}
        attributes = " ".join(f'{name.replace("_", "-")}="{value}"' for name, value in style.items())
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, color="#ddd", width=1, dash=""):
        dash = f' stroke-dasharray="{dash}"' if dash else ""
        self.parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" stroke-width="{width}"{dash}/>'
        )

    def axes(self, title):
        left, right = self.LEFT, self.WIDTH - self.RIGHT
        top, bottom = self.TOP, self.HEIGHT - self.BOTTOM
        for power in range(math.ceil(self.x0), math.floor(self.x1) + 1):
            x = self.x(2.0**power)
            self.line(x, top, x, bottom)
            self.text(x, bottom + 18, f"{2.0**power:g}", text_anchor="middle")
        for power in range(math.floor(self.y0), math.ceil(self.y1) + 1):
            for digit in (1, 2, 5):
                value = digit * 10.0**power
                if self.y0 <= math.log10(value) <= self.y1:
                    y = self.y(value)
                    self.line(left, y, right, y)
                    self.text(left - 8, y + 4, f"{value:g}", text_anchor="end")
        self.text((left + right) / 2, self.HEIGHT - 15, "operations per byte of weights", text_anchor="middle", font_size=14)
        self.text(left, top - 15, title, font_size=14)

    def roof(self, name, gops, gbps, dash=""):
        """min(gbps * x, gops); without a name it has no label."""
        low, high = 2.0**self.x0, 2.0**self.x1
        ridge = min(max(gops / gbps, low), high)
        start = max(low, 10.0**self.y0 / gbps)
        if start < ridge:
            self.line(self.x(start), self.y(gbps * start), self.x(ridge), self.y(gbps * ridge), "#888", 2, dash)
        self.line(self.x(ridge), self.y(gops), self.x(high), self.y(gops), "#888", 2, dash)
        if name:
            self.text(self.x(high) + 6, self.y(gops) + 4, f"{name} {gops:.0f}", fill="#666")

    def svg(self):
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.WIDTH}" height="{self.HEIGHT}" '
            f'viewBox="0 0 {self.WIDTH} {self.HEIGHT}" font-family="sans-serif">'
        )
        background = '<rect width="100%" height="100%" fill="white"/>'
        return "\n".join([head, background, *self.parts, "</svg>"]) + "\n"


def roofline(lines):
    """The chart as SVG."""
    limits = limits_of(lines)
    points = list(products(lines))
    peaks = {name: limits[name] for name in ("vnni", "bf16", "fma") if limits.get(name)}
    chart = Chart([x for x, _, _ in points], [y for _, y, _ in points] + list(peaks.values()))
    threads = points[0][2]["threads"]
    chart.axes(f"Gop/s of matrix products, {threads} threads (roofs: arithmetic, and reading main memory or cache)")
    for name, gops in peaks.items():
        chart.roof(name, gops, limits["dram"])
    cached = limits.get("cache")
    if cached:
        chart.roof("", max(peaks.values()), cached, dash="4 3")
    types = list(dict.fromkeys(line["type"] for _, _, line in points))
    for x, y, line in points:
        index = types.index(line["type"])
        color = COLORS[index % len(COLORS)]
        hollow = line.get("where") == "dram"
        fill = "white" if hollow else color
        label = f'{line["type"]} {line["rows"]}x{line["cols"]}, {line["tokens"]} tokens, {line.get("op", line["bench"])} from {line["where"]}: {line["percent"]:.0f} % of {line["limit"]}'
        shape = (
            f'<circle cx="{chart.x(x):.1f}" cy="{chart.y(y):.1f}" r="4" fill="{fill}" stroke="{color}">'
            if index // len(COLORS) % 2 == 0
            else f'<rect x="{chart.x(x) - 3.5:.1f}" y="{chart.y(y) - 3.5:.1f}" width="7" height="7" fill="{fill}" stroke="{color}">'
            if index // len(COLORS) % 4 == 1
            else f'<path d="M{chart.x(x):.1f} {chart.y(y) - 5:.1f} l5 9 h-10 z" fill="{fill}" stroke="{color}">'
        )
        chart.parts.append(f"{shape}<title>{escape(label)}</title>{shape_end(shape)}")
    legend_x = chart.WIDTH - 95
    for index, name in enumerate(types):
        y = chart.TOP + 16 * index
        chart.text(legend_x, y, name, fill=COLORS[index % len(COLORS)], font_size=11, font_weight="bold")
    chart.text(legend_x, chart.TOP + 16 * len(types) + 8, "hollow: from", font_size=11)
    chart.text(legend_x, chart.TOP + 16 * len(types) + 22, "main memory", font_size=11)
    return chart.svg()


def shape_end(shape):
    return "</" + shape[1 : shape.index(" ")] + ">"


# ---- tables ----


def table(headings, rows):
    lines = ["| " + " | ".join(headings) + " |", "|" + " --- |" * len(headings)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def percent_range(values):
    """ "78", or "71 to 78" over several shapes."""
    low, high = min(values), max(values)
    return f"{high:.0f}" if f"{low:.0f}" == f"{high:.0f}" else f"{low:.0f} to {high:.0f}"


def types_table(lines):
    """Type x {matvec from memory, matvec cached, matmul 6 / 32 / 256 tokens} in percent of the limit, over all shapes."""
    columns = [("matvec", 1, "dram"), ("matvec", 1, "cache")]
    columns += [("matmul", tokens, "cache") for tokens in sorted({line["tokens"] for line in lines if line["bench"] == "matmul"})]
    cells = {}
    for line in lines:
        if line["bench"] in ("matvec", "matmul"):
            key = (line["bench"], line["tokens"], line["where"])
            cells.setdefault(line["type"], {}).setdefault(key, []).append(line["percent"])
    headings = ["type", "matvec, main memory", "matvec, cache"] + [f"{tokens} tokens" for _, tokens, _ in columns[2:]]
    rows = [[name] + [percent_range(found[key]) if key in found else "" for key in columns] for name, found in cells.items()]
    shapes = sorted({(line["rows"], line["cols"]) for line in lines if line["bench"] in ("matvec", "matmul")})
    text = ", ".join(f"{rows} x {columns}" for rows, columns in shapes)
    return [f"Percent of the limit (rows x columns: {text}; from the worst to the best of them):", ""] + table(headings, rows)


def row_of(line, name):
    return [
        name,
        f'{line["rows"]} x {line["cols"]}',
        f'{line["us"]:.2f}' if line["us"] < 100 else f'{line["us"]:.0f}',
        f'{line["gops"]:.0f}' if line["gops"] else "",
        f'{line["gbps"]:.1f}' if line["gbps"] else "",
        f'{line["percent"]:.0f} % of {line["limit"]}',
    ]


def crossover_table(lines):
    """From how many tokens on the library decodes in the cache, and how right it is."""
    found = {}
    for line in lines:
        if line["bench"] == "crossover":
            found.setdefault(line["type"], []).append(line)
    rows = []
    for name, cases in found.items():
        one_shape = [line for line in cases if (line["rows"], line["cols"]) == (cases[0]["rows"], cases[0]["cols"])]
        taken = [line["tokens"] for line in one_shape if line["taken"] == "cache"]
        faster = [line["tokens"] for line in one_shape if line["faster"] == "cache"]
        right = sum(line["percent"] >= 97 for line in cases)
        worst = min(cases, key=lambda line: line["percent"])
        rows.append(
            [
                name,
                f"{min(taken)}" if taken else "never",
                f"{min(faster)}" if faster else "never",
                f"{right} of {len(cases)}",
                f'{worst["percent"]:.0f} % ({worst["rows"]} x {worst["cols"]}, {worst["tokens"]} tokens)',
            ]
        )
    return table(["type", "cache taken from", "cache faster from", "right within 3 %", "worst, in percent of the faster"], rows)


def limits_table(lines):
    rows = []
    for line in lines:
        if line["bench"] == "limits":
            if "gbps" in line:
                size = line["bytes_per_thread"]
                text = f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
                rows.append([f'read, {text} per thread ({line["limit"]})', f'{line["gbps"]:.0f} GB/s'])
            else:
                rows.append([line["limit"], f'{line["gops"]:.0f} Gop/s'])
    return table(["limit", ""], rows)


def markdown(lines, chart_name):
    """The section of docs/performance.md."""
    threads = next(line["threads"] for line in lines)
    text = [f"Made by `make report` ({threads} threads).", "", f"![Roofline chart]({chart_name})", "", "### Limits", ""]
    text += limits_table(lines) + ["", "### Matrix products of every type", ""] + types_table(lines)
    gemm = [row_of(line, f'{line["type"]} {line["op"]}, {line["tokens"]} rows') for line in lines if line["bench"] == "gemm"]
    ops = [row_of(line, line["op"]) for line in lines if line["bench"] == "ops"]
    headings = ["what", "size", "us", "Gop/s", "GB/s", "reached"]
    text += ["", "### Products of floats", ""] + table(headings, gemm)
    text += ["", "### Between the products", ""] + table(headings, ops)
    text += ["", "### Decoding in registers or in the cache", ""] + crossover_table(lines)
    return "\n".join(text)


def put_between_markers(page, section):
    """The page with `section` between the markers; they are added at the end where the page has none."""
    if BEGIN not in page:
        page = page.rstrip("\n") + f"\n\n## Tables\n\n{BEGIN}\n{END}\n"
    before, rest = page.split(BEGIN, 1)
    if END not in rest:
        raise SystemExit(f"the page has {BEGIN} but no {END} behind it")
    after = rest.split(END, 1)[1]
    return f"{before}{BEGIN}\n{section}\n{END}{after}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", default="build/bin", help="folder of mantle-bench")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--milliseconds", type=int, default=100, help="time for each figure")
    parser.add_argument("--types", help="weight types (default: all)")
    parser.add_argument("--shapes", help=f"ROWSxCOLUMNS[,..] of the products (default: {SHAPES})")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of performance.md")
    parser.add_argument("--from", dest="earlier", type=Path, help="JSON of an earlier run; nothing is measured")
    options = parser.parse_args()
    if options.earlier:
        lines = json.loads(options.earlier.read_text(encoding="utf-8"))
    else:
        lines = measure(options)
    options.docs.mkdir(parents=True, exist_ok=True)
    text = "[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n"
    (options.docs / "bench.json").write_text(text, encoding="utf-8")
    (options.docs / "roofline.svg").write_text(roofline(lines), encoding="utf-8")
    page = options.docs / "performance.md"
    old = page.read_text(encoding="utf-8") if page.exists() else "# Performance\n"
    page.write_text(put_between_markers(old, markdown(lines, "roofline.svg")), encoding="utf-8")


if __name__ == "__main__":
    main()
