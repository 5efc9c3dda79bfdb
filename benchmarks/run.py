# SPDX-License-Identifier: Apache-2.0
"""Measure slm and the peers that are installed on one model file; README.md in this folder says how and what it means."""

import argparse
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import convert
import machine
import report
from engines import VARIANTS

import slm
from slm import hub
from slm.formats.gguf import GGUF

HERE = Path(__file__).parent
STEADY = 0.2  # a round is not counted when a probe, before or after it, is further than this from the median of all rounds
TEXT = "The three primary colours are"


def child(script: str, argument: str, prefix: list[str], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The JSON that one of our scripts prints, run in a fresh process so that memory and caches are its own."""
    command = [*prefix, sys.executable, str(HERE / script), argument]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=os.environ | (environment or {}))
    return json.loads(done.stdout.splitlines()[-1])


def weight_bytes(path: str) -> int:
    """Of the tensors that a token reads whole: an input embedding that is not the output layer too is not among them."""
    with GGUF(path) as file:
        tied = "output.weight" not in file.tensors
        return sum(tensor.size for name, tensor in file.tensors.items() if tied or name != "token_embd.weight")


def steady_rounds(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    usual = {name: median(probe[name] for round_ in rounds for probe in round_["probes"]) for name in machine.PROBES}
    return [
        round_
        for round_ in rounds
        if all(abs(probe[name] / usual[name] - 1) <= STEADY for probe in round_["probes"] for name in machine.PROBES)
    ]


def run_rounds(
    tasks: dict[str, dict[str, Any]], threads: int, wanted: int, prefix: list[str], left_out: dict[str, str]
) -> list[dict[str, Any]]:
    """Rounds of all engines in turn, until `wanted` were steady or twice as many are done. A peer that fails is left out."""
    rounds: list[dict[str, Any]] = []
    while len(rounds) < 2 * wanted:
        probes = [child("machine.py", str(threads), prefix)]
        engines = {}
        for name, task in tasks.items():
            if name in left_out:
                continue
            print(f"round {len(rounds) + 1}: {name}", file=sys.stderr)
            try:
                engines[name] = child("measure.py", json.dumps(task), prefix, VARIANTS[name].environment)
            except subprocess.CalledProcessError as error:
                if report.is_own(name):
                    raise
                left_out[name] = f"it failed with status {error.returncode}"
        probes.append(child("machine.py", str(threads), prefix))
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
    for name, first in rounds[-1]["engines"].items():  # what has not failed
        parts = [round_["engines"][name]["samples"] for round_ in steady]
        engines[name] = first | {"samples": {what: [x for part in parts for x in part[what]] for what in first["samples"]}}
    bandwidth = max(probe["bandwidth"] for round_ in steady for probe in round_["probes"])
    return {"engines": engines, "rounds": len(steady), "bandwidth": bandwidth, "state": state}


def choose(names: list[str], path: Path, cache: Path) -> tuple[dict[str, str], dict[str, str]]:
    """What of these engines can run, with the path it loads, and why the others cannot."""
    paths, left_out = {}, {}
    for name in names:
        variant = VARIANTS[name]
        file = convert.folder_of(cache, path, variant.form) if variant.form else path
        if importlib.util.find_spec(variant.package) is None:
            left_out[name] = f"the package {variant.package} is not installed"
        elif not file.exists():
            left_out[name] = f"there are no weights in the form {variant.form}, which convert.py makes"
        else:
            paths[name] = str(file)
    return paths, left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that slm fetches (default: smollm2-135m)")
    parser.add_argument("--threads", type=int, default=0, help="of every engine (default: slm's choice)")
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 512], help="to decode at (default: 0 512)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds that must be steady (default: 3)")
    parser.add_argument("--repeats", type=int, default=2, help="of each measurement within a round (default: 2)")
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="measure this engine; may be given several times")
    parser.add_argument("--cache", type=Path, default=convert.DEFAULT_CACHE, help="of convert.py (default: %(default)s)")
    parser.add_argument("--run-under", type=shlex.split, default=[], metavar="PREFIX", help="a command that runs each engine")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    if args.threads < 0 or args.rounds < 1 or args.repeats < 1 or min(args.depths) < 0:
        parser.error("--threads and --depths must be at least 0, --rounds and --repeats at least 1")

    described = machine.describe()
    model = Path(hub.resolve(args.model).path)
    probe = child("machine.py", str(args.threads), args.run_under)
    paths, left_out = choose(args.only or list(VARIANTS), model, args.cache)
    for name, reason in left_out.items():
        print(f"{name}: left out, {reason}", file=sys.stderr)
    tokenizer = slm.load_tokenizer(model)
    tasks = {
        name: {
            "module": VARIANTS[name].module,
            "options": VARIANTS[name].options,
            "path": path,
            "threads": probe["threads"],
            "repeats": args.repeats,
            "depths": args.depths,
            "text": tokenizer.encode(TEXT),
        }
        for name, path in paths.items()
    }
    rounds = run_rounds(tasks, probe["threads"], args.rounds, args.run_under, left_out)
    result = {
        "model": model.name,
        "weight_bytes": weight_bytes(str(model)),
        "threads": probe["threads"],
        "repeats": args.repeats,
        "machine": described | {"slm": probe["slm"]},
        "left_out": left_out,
        **summarize(rounds, args.rounds),
        "all_rounds": rounds,
    }
    for name, engine in result["engines"].items():
        engine.update(text=tokenizer.decode(engine["text"]), form=VARIANTS[name].form)
    table = report.markdown(result)
    cpu = re.sub(r"[^a-z0-9]+", "-", result["machine"]["cpu"].lower()).strip("-")
    target = args.out / f"{result['machine']['date'][:10]}-{model.stem}-{result['threads']}-threads-{cpu}"
    args.out.mkdir(parents=True, exist_ok=True)
    Path(f"{target}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    Path(f"{target}.md").write_text(table, encoding="utf-8")
    print(table, end="")


if __name__ == "__main__":
    main()
