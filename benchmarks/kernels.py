# SPDX-License-Identifier: Apache-2.0
"""Bytes that each GEMV reads and products that each GEMM makes per clock cycle, on one pinned thread, tier by tier.

    python benchmarks/kernels.py [--tier avx512] [--seconds 0.05] [--run-under 'PREFIX'] [--out FOLDER]

Builds kernels.c over the core (needs a C compiler), runs it and writes the table to `results/`.
"""

import argparse
import os
import shlex
import subprocess
from pathlib import Path

import machine
import programs
import report

from slm import _core

HERE = Path(__file__).parent
MEGABYTES = 128  # of a matrix that no L3 of ours holds
PASSES = 3  # over all types; the best figure counts, for a neighbour on the same core may slow a whole pass
NOTES = """\
One thread, pinned; commit {commit}.

A row is a type of tensors in files, in the form that it is packed into. Cycles are counted against a chain of
dependent additions in the same run ({ghz:.2f} GHz). The best of {passes} passes, each a median of nine.

- GEMV, L2 and memory: packed bytes per cycle, of a matrix of 512 KB again and again, and of one of {megabytes} MB. The share is
  of this thread's own pure read, {read:.1f} GB/s.
- 4, 8, 16 columns: the time of so many columns straight from the panels of the matrix in memory, one column's being 1.
- GEMM: products per cycle of two strips of 16 rows and {columns} columns of K = 1024, in L2; "with unpack" counts making it.
  The share is of what the tier's multiply instruction reaches on independent registers in the same run: vpdpbusd (avx512,
  avx2_vnni), vpmaddubsw (avx2), vdpbf16ps for BF16 (avx512_bf16), fma for other floats.
"""
COLUMNS = {  # heading: (figure, digits)
    "GEMV L2 B/cycle": ("L2 B/cycle", 1),
    "GEMV memory B/cycle": ("memory B/cycle", 1),
    "GB/s": ("memory GB/s", 1),
    "4 columns": ("4 columns", 2),
    "8 columns": ("8 columns", 2),
    "16 columns": ("16 columns", 2),
    "GEMM MAC/cycle": ("GEMM MAC/cycle", 1),
    "with unpack": ("with unpack", 1),
}
Figures = dict[str, dict[str, float]]  # figures[type][what], the more the better; type "-": of the machine and the tier


def measure(program: Path, seconds: float, tier: str, prefix: list[str]) -> Figures:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures: Figures = {}
    for _ in range(PASSES):
        command = [*prefix, program, str(seconds), str(MEGABYTES), tier]
        for line in subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines():
            name, what, value = line.split("\t")
            row = figures.setdefault(name, {})
            row[what] = max(row.get(what, 0), float(value))
    return figures


def share(value: float, of: float | None) -> str:
    return f"{value / of:.0%}" if of else ""


def table(tier: str, figures: Figures) -> str:
    whole = figures["-"]
    peaks = ", ".join(f"{name} {value:.1f} products per cycle" for name, value in whole.items() if "peak" in name)
    lines = [
        f"## {tier}",
        "",
        *([f"Measured {peaks}.", ""] if peaks else []),
        "| type | " + " | ".join(COLUMNS) + " | of pure read | of the peak |",
        "| --- |" + " ---: |" * (len(COLUMNS) + 2),
    ]
    for name, row in figures.items():
        if name == "-":
            continue
        # B/cycle of more columns than one become times
        values = {what: row["memory B/cycle"] / value if what.endswith("columns") else value for what, value in row.items()}
        cells = [f"{values[what]:.{digits}f}" if what in values else "" for what, digits in COLUMNS.values()]
        peak = whole.get(
            "int8 peak" if "with unpack" in row else "bf16 peak" if name == "BF16" else "f32 peak", whole.get("f32 peak")
        )
        cells += [share(row["memory GB/s"], whole["read GB/s"]), share(row["GEMM MAC/cycle"], peak)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", action="append", choices=_core.cpu_info()["supported"], help="default: all of this machine")
    parser.add_argument("--seconds", type=float, default=0.05, help="of each figure (default: 0.05)")
    parser.add_argument("--run-under", type=shlex.split, default=[], metavar="PREFIX", help="a command that runs the program")
    parser.add_argument("--build", type=Path, default=programs.BUILD, help="folder of the objects")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    described = machine.describe()
    program = programs.build("kernels", args.build)
    tiers = args.tier or list(reversed(_core.cpu_info()["supported"]))
    figures = {tier: measure(program, args.seconds, tier, args.run_under) for tier in tiers}
    whole = figures[tiers[0]]["-"]
    head = f"# Kernels, {described['cpu']}, {described['date']}\n\n"
    facts = {"commit": described["commit"], "ghz": whole["GHz"], "read": whole["read GB/s"], "columns": int(whole["columns"])}
    text = head + NOTES.format(**facts, megabytes=MEGABYTES, passes=PASSES) + "\n"
    text += "\n".join(table(tier, figures[tier]) for tier in tiers)
    target = f"{str(described['date'])[:10]}-kernels-{machine.slug(str(described['cpu']))}"
    result = {"machine": described, "tiers": figures}
    report.publish(args.out, target, text, result)


if __name__ == "__main__":
    main()
