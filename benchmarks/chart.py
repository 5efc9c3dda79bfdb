# SPDX-License-Identifier: Apache-2.0
"""An SVG of what run.py measured: prefill and decode of every engine, one group of bars a model. Readable on light and on dark.

python benchmarks/chart.py benchmarks/results/A.json [benchmarks/results/B.json ...] --out chart.svg
"""

import argparse
import json
from html import escape
from pathlib import Path
from statistics import median
from typing import Any

import report
from engines import SCREENING

PANELS = {"decode_0": "Decode, tokens per second", "prefill_512": "Prefill of 512 tokens, tokens per second"}
NAMES, BARS, VALUES, GAP, ROW = 190, 300, 60, 40, 20  # widths and heights in pixels
PANEL = NAMES + BARS + VALUES
STYLE = """\
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.heading { font-weight: 600; font-size: 14px }
rect.own, text.own { fill: #0969da }
rect.peer { fill: #afb8c1 }
text.own { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  rect.own, text.own { fill: #4493f8 }
  rect.peer { fill: #57606a }
}"""


def bars(result: dict[str, Any], metric: str) -> list[tuple[str, float]]:
    """slm first, then the peers, the fastest first; of a peer's variants the fastest. Screening concerns decoding only."""
    rates: dict[str, float] = {}
    for name, engine in result["engines"].items():
        if name == SCREENING and not metric.startswith("decode"):
            continue
        peer = name if report.is_own(name) else name.split(",")[0]
        rates[peer] = max(rates.get(peer, 0), median(engine["samples"][metric]))
    return sorted(rates.items(), key=lambda item: (not report.is_own(item[0]), -item[1]))


def draw_model(result: dict[str, Any], metric: str, x: int, y: int) -> list[str]:
    rows = bars(result, metric)
    most = max(rate for _, rate in rows)
    lines = [f'<text x="{x}" y="{y}">{escape(Path(result["model"]).stem)}, {result["threads"]} threads</text>']
    for i, (name, rate) in enumerate(rows):
        top, width, kind = y + 8 + i * ROW, rate / most * BARS, "own" if report.is_own(name) else "peer"
        lines += [
            f'<text class="{kind}" x="{x + NAMES - 8}" y="{top + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{x + NAMES}" y="{top + 2}" width="{width:.1f}" height="{ROW - 5}" rx="2"/>',
            f'<text class="{kind}" x="{x + NAMES + width + 6:.1f}" y="{top + 13}">{rate:.0f}</text>',
        ]
    return lines


def draw(results: list[dict[str, Any]]) -> str:
    heights = [40 + ROW * max(len(bars(result, metric)) for metric in PANELS) for result in results]
    width, height = 2 * PANEL + GAP, 40 + sum(heights)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(' and '.join(PANELS.values()))}, medians, {escape(results[0]['machine']['cpu'])}</title>",
        f"<style>{STYLE}</style>",
    ]
    for column, (metric, heading) in enumerate(PANELS.items()):
        x, y = column * (PANEL + GAP), 60
        lines.append(f'<text class="heading" x="{x}" y="24">{heading}</text>')
        for result, needed in zip(results, heights, strict=True):
            lines += draw_model(result, metric, x, y)
            y += needed
    return "\n".join([*lines, "</svg>"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files that run.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="the SVG file")
    args = parser.parse_args()
    args.out.write_text(draw([json.loads(path.read_text(encoding="utf-8")) for path in args.results]), encoding="utf-8")


if __name__ == "__main__":
    main()
