# SPDX-License-Identifier: Apache-2.0
"""Measure slm and the peers that are installed on one model file; README.md in this folder says how and what it means."""

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from statistics import median_low
from typing import Any, NamedTuple

import convert
import machine
import report
from engines import SCREENING, VARIANTS, Variant

import slm
from slm import hub
from slm.formats.gguf import GGUF

HERE = Path(__file__).parent
TEXT = "The three primary colours are"
PROSE = HERE / "held_out.txt"


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


class Run(NamedTuple):
    """One engine, once, and the state of the machine right before and after it."""

    engine: str
    round: int
    probes: tuple[dict[str, float], dict[str, float]]
    found: dict[str, Any]  # what measure.py prints


def steady(runs: list[Run]) -> list[Run]:
    """Those with no rate right before or after them that is too far from the median of all, and no slow barrier."""
    probes = [probe for run in runs for probe in run.probes]
    usual = {name: median_low(probe[name] for probe in probes) for name in machine.RATES}
    slow = machine.SLOW_BARRIER * min((probe["barrier"] for probe in probes), default=0)

    def is_usual(probe: dict[str, float]) -> bool:
        near = (abs(probe[name] / usual[name] - 1) <= apart for name, apart in machine.RATES.items())
        return probe["barrier"] < slow and all(near)

    return [run for run in runs if all(map(is_usual, run.probes))]


def run_rounds(
    tasks: dict[str, dict[str, Any]], threads: int, wanted: int, prefix: list[str], left_out: dict[str, str]
) -> list[Run]:
    """Rounds of all engines in turn; after `wanted` of them as many again, but only of engines that lack runs in a steady state.
    A peer that fails is left out."""
    runs: list[Run] = []
    probe = child("machine.py", str(threads), prefix)
    for round_ in range(2 * wanted):
        for name, task in tasks.items():
            if name in left_out:
                continue
            if round_ >= wanted and sum(run.engine == name for run in steady(runs)) >= wanted:
                continue
            print(f"round {round_ + 1}: {name}", file=sys.stderr)
            before = probe
            try:
                found = child("measure.py", json.dumps(task | {"seed": round_}), prefix, VARIANTS[name].environment)
            except subprocess.CalledProcessError as error:
                if report.is_own(name):
                    raise
                left_out[name] = f"it failed with status {error.returncode}"
                continue
            probe = child("machine.py", str(threads), prefix)
            states = tuple({what: state[what] for what in (*machine.RATES, "barrier")} for state in (before, probe))
            runs.append(Run(name, round_, states, found))
    return runs


def summarize(runs: list[Run], wanted: int, n_bytes: int) -> dict[str, dict[str, Any]]:
    """Per engine the samples of its steady runs together; of all where too few were steady, and the report says so."""
    engines: dict[str, dict[str, Any]] = {}
    counted = steady(runs)
    for name in dict.fromkeys(run.engine for run in runs):
        own = [run for run in runs if run.engine == name]
        kept = [run for run in own if run in counted]
        enough = len(kept) >= wanted
        kept = kept if enough else own
        samples = {what: [x for run in kept for x in run.found["samples"][what]] for what in own[0].found["samples"]}
        engines[name] = own[0].found | {"samples": samples, "runs": len(kept), "dropped": len(own) - len(kept), "steady": enough}
        if VARIANTS[name].form is None and name != SCREENING and "decode_0" in samples:  # it reads what the file has
            engines[name]["bandwidth_share"] = [
                rate * n_bytes / max(probe["bandwidth"] for probe in run.probes)
                for run in kept
                for rate in run.found["samples"]["decode_0"]
            ]
    return engines


def is_screened(path: Path) -> bool:
    """Whether slm screens the output layer of this file: it packs more for it then."""
    packed = set()
    for variant in ("slm", SCREENING):
        os.environ.update(VARIANTS[variant].environment)  # which children get anew
        packed.add(slm.inspect(path).weight_bytes)
    return len(packed) > 1


def choose(variants: dict[str, Variant], path: Path, cache: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Which of these engines can run, with the path it loads, and why the others cannot."""
    paths, left_out = {}, {}
    for name, variant in variants.items():
        file = convert.folder_of(cache, path, variant.form) if variant.form else path
        if importlib.util.find_spec(variant.package) is None:
            left_out[name] = f"the package {variant.package} is not installed"
        elif not file.exists():
            left_out[name] = f"there are no weights in the form {variant.form}, which convert.py makes"
        elif name == SCREENING and not is_screened(path):
            left_out[name] = "the output layer is too small to be screened"
        else:
            paths[name] = str(file)
    return paths, left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that slm fetches (default: smollm2-135m)")
    parser.add_argument("--threads", type=int, default=0, help="of every engine (default: slm's choice)")
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 512], help="to decode at (default: 0 512)")
    parser.add_argument("--rounds", type=int, default=3, help="and runs of an engine that must be steady (default: 3)")
    parser.add_argument("--repeats", type=int, default=2, help="of each measurement within a round (default: 2)")
    parser.add_argument("--only", action="append", choices=list(VARIANTS), help="measure this engine; may be given several times")
    parser.add_argument("--cache", type=Path, default=convert.DEFAULT_CACHE, help="of convert.py (default: %(default)s)")
    parser.add_argument("--label", help="a word in the names of the results, which a run of the same day would else overwrite")
    parser.add_argument("--run-under", type=shlex.split, default=[], metavar="PREFIX", help="a command that runs each engine")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    if args.threads < 0 or args.rounds < 1 or args.repeats < 1 or min(args.depths) < 0:
        parser.error("--threads and --depths must be at least 0, --rounds and --repeats at least 1")

    described = machine.describe()
    model = Path(hub.resolve(args.model).path)
    probe = child("machine.py", str(args.threads), args.run_under)
    paths, left_out = choose({name: VARIANTS[name] for name in args.only or VARIANTS}, model, args.cache)
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
            "prose": tokenizer.encode(PROSE.read_text(encoding="utf-8")),
            "text": tokenizer.encode(TEXT),
        }
        for name, path in paths.items()
    }
    runs = run_rounds(tasks, probe["threads"], args.rounds, args.run_under, left_out)
    n_bytes = weight_bytes(str(model))
    engines, counted = summarize(runs, args.rounds, n_bytes), steady(runs)
    for engine in engines.values():
        engine["text"] = tokenizer.decode(engine["text"])
    result = {
        "model": model.name,
        "weight_bytes": n_bytes,
        "threads": probe["threads"],
        "repeats": args.repeats,
        "machine": described | {"slm": probe["slm"]},
        "left_out": left_out,
        "engines": engines,
        "runs": [run._asdict() | {"steady": run in counted} for run in runs],
    }
    label = f"-{args.label}" if args.label else ""
    cpu = machine.slug(result["machine"]["cpu"])
    target = f"{result['machine']['date'][:10]}-{model.stem}{label}-{result['threads']}-threads-{cpu}"
    report.publish(args.out, target, report.markdown(result), result)


if __name__ == "__main__":
    main()
