# SPDX-License-Identifier: Apache-2.0
"""Measure slm and the peers that are installed on one model file; README.md in this folder says how and what it means."""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import machine
import report
from engines import VARIANTS

from slm import hub

HERE = Path(__file__).parent
STEADY = 0.2  # a round is not counted when a probe, before or after it, is further than this from the median of all rounds


def child(script: str, argument: str) -> dict[str, Any]:
    """The JSON that one of our scripts prints, run in a fresh process so that memory and caches are its own."""
    done = subprocess.run([sys.executable, HERE / script, argument], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def steady_rounds(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    usual = {name: median(probe[name] for round_ in rounds for probe in round_["probes"]) for name in machine.PROBES}
    return [
        round_
        for round_ in rounds
        if all(abs(probe[name] / usual[name] - 1) <= STEADY for probe in round_["probes"] for name in machine.PROBES)
    ]


def run_rounds(tasks: dict[str, dict[str, Any]], threads: int, wanted: int) -> list[dict[str, Any]]:
    """Rounds of all engines in turn, until `wanted` of them were steady or twice as many are done."""
    rounds: list[dict[str, Any]] = []
    while len(rounds) < 2 * wanted:
        probes = [child("machine.py", str(threads))]
        engines = {}
        for name, task in tasks.items():
            print(f"round {len(rounds) + 1}: {name}", file=sys.stderr)
            engines[name] = child("measure.py", json.dumps(task))
        probes.append(child("machine.py", str(threads)))
        rounds.append({"probes": [{name: probe[name] for name in machine.PROBES} for probe in probes], "engines": engines})
        if len(steady_rounds(rounds)) >= wanted:
            break
    return rounds


def summarize(rounds: list[dict[str, Any]], wanted: int) -> dict[str, Any]:
    """The samples of the steady rounds together; of all rounds where too few were steady, and the report says so."""
    steady = steady_rounds(rounds)
    state = f"Rounds left out as unsteady: {len(rounds) - len(steady)}."
    if len(steady) < wanted:
        steady = rounds
        state = "**The machine was not steady**, so all rounds count."
    rates = {name: [f"{probe[name] / 1e9:.0f}" for round_ in rounds for probe in round_["probes"]] for name in machine.PROBES}
    state += f" Before and after each round the pool read {', '.join(rates['bandwidth'])} GB/s, "
    state += f"and NumPy's f32 product ran at {', '.join(rates['compute'])} GFLOP/s."
    engines: dict[str, Any] = {}
    for name, first in steady[0]["engines"].items():
        parts = [round_["engines"][name]["samples"] for round_ in steady]
        engines[name] = first | {"samples": {metric: [x for part in parts for x in part[metric]] for metric in report.METRICS}}
    bandwidth = max(probe["bandwidth"] for round_ in steady for probe in round_["probes"])
    return {"engines": engines, "rounds": len(steady), "bandwidth": bandwidth, "state": state}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that slm fetches (default: smollm2-135m)")
    parser.add_argument("--threads", type=int, default=0, help="of every engine (default: slm's choice)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds that must be steady (default: 3)")
    parser.add_argument("--repeats", type=int, default=2, help="of each measurement within a round (default: 2)")
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="measure this engine; may be given several times")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    if args.threads < 0 or args.rounds < 1 or args.repeats < 1:
        parser.error("--threads must be at least 0, --rounds and --repeats at least 1")

    described = machine.describe()
    path = str(hub.resolve(args.model).path)
    probe = child("machine.py", str(args.threads))
    chosen = {name: variant for name, variant in VARIANTS.items() if not args.only or name in args.only}
    left_out = {name: variant.package for name, variant in chosen.items() if importlib.util.find_spec(variant.package) is None}
    tasks = {
        name: {
            "module": variant.module,
            "options": variant.options,
            "path": path,
            "threads": probe["threads"],
            "repeats": args.repeats,
        }
        for name, variant in chosen.items()
        if name not in left_out
    }
    rounds = run_rounds(tasks, probe["threads"], args.rounds)
    result = {
        "model": Path(path).name,
        "threads": probe["threads"],
        "repeats": args.repeats,
        "machine": described | {"slm": probe["slm"]},
        "left_out": left_out,
        **summarize(rounds, args.rounds),
        "all_rounds": rounds,
    }
    table = report.markdown(result)
    cpu = re.sub(r"[^a-z0-9]+", "-", result["machine"]["cpu"].lower()).strip("-")
    target = args.out / f"{result['machine']['date'][:10]}-{cpu}"
    args.out.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    target.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
