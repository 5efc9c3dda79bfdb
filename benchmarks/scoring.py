# SPDX-License-Identifier: Apache-2.0
"""Multiple-choice questions behind one long beginning, scored by slm and by the peers that are installed: questions per second.

    python benchmarks/scoring.py [--model NAME] [--threads N] [--items 1000] [--run-under PREFIX]

256 tokens that all questions share (the examples of a few-shot prompt), 48 of each question, four choices of 1 to 6 tokens. Every
engine computes the shared beginning once and a question once, and the choices together; peers run fewer questions, behind a
beginning that they already hold. Token ids are random, the same for all. Engines take turns, each in a process of its own.
"""

import argparse
import importlib
import json
import shlex
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import convert
import machine
import numpy as np
import report
from engines import VARIANTS, Question
from run import HERE, child, choose

from slm import hub

SHARED, OWN, CHOICES, LONGEST = 256, 48, 4, 6
ENGINES = ("slm", "llama.cpp", "PyTorch, bf16")


def questions(n: int) -> list[Question]:
    rng = np.random.default_rng(0)
    shared = rng.integers(0, 1000, SHARED).tolist()
    return [
        Question(
            shared + rng.integers(0, 1000, OWN).tolist(),
            [rng.integers(0, 1000, rng.integers(1, LONGEST + 1)).tolist() for _ in range(CHOICES)],
        )
        for _ in range(n)
    ]


def measure(task: dict[str, Any]) -> dict[str, Any]:
    """In a child: a rate, and some scores to compare."""
    engine = importlib.import_module(f"engines.{task['module']}").Engine(task["path"], task["threads"], task["context"])
    asked = questions(task["n"])
    scores = engine.score(asked[:3])
    start = time.perf_counter()
    engine.score(asked)
    return {"rate": len(asked) / (time.perf_counter() - start), "scores": scores, "version": engine.version}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that slm fetches (default: smollm2-135m)")
    parser.add_argument("--threads", type=int, default=0, help="of every engine (default: slm's choice)")
    parser.add_argument("--items", type=int, default=1000, help="questions (default: 1000)")
    parser.add_argument("--peer-items", type=int, default=50, help="questions that a peer is asked (default: 50)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--only", action="append", choices=ENGINES, help="measure this engine; may be given several times")
    parser.add_argument("--cache", type=Path, default=convert.DEFAULT_CACHE, help="of convert.py (default: %(default)s)")
    parser.add_argument("--run-under", type=shlex.split, default=[], metavar="PREFIX", help="a command that runs each engine")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    path, here = Path(hub.resolve(args.model).path), machine.describe()
    threads = child("machine.py", str(args.threads), args.run_under)["threads"]
    paths, left_out = choose({name: VARIANTS[name] for name in args.only or ENGINES}, path, args.cache)
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in paths}
    for _ in range(args.rounds):
        for name, found in runs.items():
            task = {"module": VARIANTS[name].module, "path": paths[name], "threads": threads, "context": 2048}
            task["n"] = args.items if name == "slm" else args.peer_items
            found.append(child("scoring.py", json.dumps(task), args.run_under))
    lines = [
        f"# Scoring multiple-choice questions, {path.name}, {here['date']}",
        "",
        f"{here['cpu']}, {threads} threads, commit {here['commit']}, {args.rounds} rounds: "
        f"{SHARED} tokens that all share, {OWN} of each question, "
        f"{CHOICES} choices of 1 to {LONGEST} tokens; {args.items} questions by slm, {args.peer_items} by a peer.",
        "",
        "| engine | questions/s, best (median) | slm's median over its own | mean difference from slm's scores, nat |",
        "| --- | ---: | ---: | ---: |",
    ]
    ours = runs.get("slm")
    for found in runs.values():
        rates = [run["rate"] for run in found]
        ratio = f"{median(run['rate'] for run in ours) / median(rates):.2f}" if ours else ""
        apart = f"{np.abs(np.subtract(found[0]['scores'], ours[0]['scores'])).mean():.3f}" if ours else ""
        lines.append(f"| {found[0]['version']} | {max(rates):.2f} ({median(rates):.2f}) | {ratio} | {apart} |")
    lines += [f"\n{name}: left out, {reason}." for name, reason in left_out.items()]
    text = "\n".join(lines) + "\n"
    target = f"{str(here['date'])[:10]}-scoring-{path.stem}"
    result = {"model": path.name, "machine": here, "threads": threads, "items": args.items, "runs": runs}
    report.publish(args.out, target, text, result)


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):  # a child of ours
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main()
