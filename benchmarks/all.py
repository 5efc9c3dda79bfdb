# SPDX-License-Identifier: Apache-2.0
"""The whole evidence in order: every measurement by its own script, tables to results/, and the chart of the README.

    python benchmarks/all.py --model smollm2-135m [--model FILE ...] [STEP ...]

Needs the peers, convert.py's conversions of each model, and what the tests need. Says what each command took; one that fails is
named at the end.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import convert
from engines import SCREENING, VARIANTS

import slm
from slm import hub

HERE = Path(__file__).parent
Command = list[str | Path]
SYNTHETIC = convert.DEFAULT_CACHE / "synthetic"
THREADS = slm.cpu_info()["threads"]
# What bars are held against, and OpenVINO as exact as slm. With all others a model may take half an hour, and not a quarter.
FASTEST = (
    "slm",
    SCREENING,
    "llama.cpp",
    "OpenVINO GenAI, int8",
    "OpenVINO GenAI, int8, groups of 32",
    "CTranslate2, int8",
)
DEPTHS = ("--depths", "0", "512", "2048")


def run(model: Path, engines: Iterable[str], *options: str) -> Command:
    return ["run.py", "--model", model, *(f"--only={name}" for name in engines), "--repeats", "1", *options]


def whole(models: list[Path]) -> list[Command]:
    return [run(model, FASTEST, *DEPTHS) for model in models]


def peers(models: list[Path]) -> list[Command]:
    """Those that `whole` leaves out."""
    others = [name for name in VARIANTS if name not in FASTEST]
    return [run(model, ["slm", *others], *DEPTHS, "--rounds", "2", "--label", "peers") for model in models]


def deep(models: list[Path]) -> list[Command]:
    return [run(model, ("slm", "llama.cpp"), *DEPTHS, "8000", "--rounds", "2", "--label", "deep") for model in models]


def one_thread(models: list[Path]) -> list[Command]:
    engines = ("slm", "llama.cpp", "OpenVINO GenAI, int8")
    return [run(model, engines, *DEPTHS, "8000", "--threads", "1", "--rounds", "2") for model in models]


def time_split(models: list[Path]) -> list[Command]:
    return [["time_split.py", "--model", model, "--threads", str(n)] for model in models for n in (1, THREADS)]


def synthetic(_: list[Path]) -> Iterator[Command]:
    """The second script measures what the first one has made."""
    yield ["synthetic.py", "--folder", SYNTHETIC]
    for file in sorted(SYNTHETIC.glob("*.gguf")):
        yield run(file, ("slm", "llama.cpp"), "--depths", "0", "512", "--rounds", "2")


def chart(models: list[Path]) -> list[Command]:
    """Of the newest result of each model that has one; dates are what names begin with."""
    found = [sorted((HERE / "results").glob(f"????-??-??-{model.stem}-{THREADS}-threads-*.json"))[-1:] for model in models]
    results = [result for newest in found for result in newest]
    return [["chart.py", *results, "--out", HERE / "results" / "chart.svg"]]


STEPS: dict[str, Callable[[list[Path]], Iterable[Command]]] = {
    "whole": whole,
    "peers": peers,
    "deep": deep,
    "one-thread": one_thread,
    "synthetic": synthetic,
    "accuracy": lambda models: [["accuracy.py", "--model", model] for model in models],
    "time-split": time_split,
    "batch": lambda models: [["batch.py", "--model", models[0]]],
    "lookup": lambda models: [["lookup.py", "--model", models[0]]],
    "importing": lambda _: [["importing.py"]],
    "kernels": lambda _: [["kernels.py", *(f"--tier={tier}" for tier in slm.cpu_info()["supported"] if tier != "scalar")]],
    "scoring": lambda models: [["scoring.py", "--model", models[0]]],
    "constraints": lambda models: [["constraints.py", "--model", models[0]]],
    "tokenizing": lambda _: [["tokenizing.py"]],
    "chart": chart,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help="a GGUF file or a name; may come several times")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default: all)")
    args = parser.parse_args()
    if unknown := set(args.steps) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    models = [Path(hub.resolve(name).path) for name in args.model or ["smollm2-135m"]]
    failed = []
    for step in args.steps or STEPS:
        for script, *options in STEPS[step](models):
            line = " ".join(map(str, [script, *options]))
            print(f"== {step}: {line}", file=sys.stderr)
            start = time.monotonic()
            if subprocess.run([sys.executable, HERE / script, *options]).returncode:
                failed.append(line)
            print(f"== {time.monotonic() - start:.0f} s", file=sys.stderr)
    sys.exit("failed:\n" + "\n".join(failed) if failed else 0)


if __name__ == "__main__":
    main()
