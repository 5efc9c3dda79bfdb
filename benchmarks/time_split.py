# SPDX-License-Identifier: Apache-2.0
"""Where the time of a decoded token goes, and what Model.generate costs over the token loop in C.

    python benchmarks/time_split.py [--model NAME] [--threads N] [--depths 0 512]

The split: slm._core linked once more, by setup.py, with the linker's --wrap putting a clock around the ops of the core
(time_split.c). Its speed is compared with the product's, so the table says what the clocks cost. Needs nm, and GNU ld or lld.
"""

import argparse
import ctypes
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import machine
import report

HERE = Path(__file__).parent
ROOT = HERE.parent
TOKENS = 128
SOURCE = HERE / "time_split.c"
PARTS = (
    "Python",
    "token loop",
    "start and end of the region",
    "rest of the step",
    "matrices",
    "attention",
    "norm, rope, quantize",
    "output layer",
    "barriers",
    "draw and text",
)


def build(folder: Path) -> Path:
    """The extension module with clocks, made again when a source is newer."""
    module = folder / "slm" / "_core.abi3.so"
    sources = [SOURCE, *(p for p in (ROOT / "csrc").rglob("*") if p.is_file())]
    if module.exists() and module.stat().st_mtime >= max(p.stat().st_mtime for p in sources):
        return module
    folder.mkdir(parents=True, exist_ok=True)
    clocks = folder / "time_split.o"
    flags = ["-std=c11", "-O3", "-fPIC", "-D_GNU_SOURCE", f"-I{ROOT / 'csrc'}"]
    subprocess.run([os.environ.get("CC", "cc"), *flags, "-c", SOURCE, "-o", clocks], check=True)
    symbols = subprocess.run(["nm", clocks], stdout=subprocess.PIPE, check=True, text=True).stdout
    linked = [str(clocks), *(f"-Wl,--wrap={name}" for name in re.findall(r" T __wrap_(\w+)", symbols))]
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", folder, "--build-temp", folder / "objects"]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"LDFLAGS": " ".join(linked)})
    return module


class InPlaceOfCore(importlib.abc.MetaPathFinder):
    """Finds slm._core in another file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        return importlib.util.spec_from_file_location(name, self.path) if name == "slm._core" else None


def measure(path: str, module: str | None, threads: int, depths: list[int], repeats: int) -> dict[str, Any]:
    """Of the product, or of the module with clocks: at each depth seconds a token, and of the whole call over the loop's own."""
    if module:
        sys.meta_path.insert(0, InPlaceOfCore(module))
        read = ctypes.CDLL(module).slm_time_split
    import numpy as np

    import slm

    prompt = np.random.default_rng(0).integers(0, 1000, max(*depths, 1)).tolist()
    parts = (ctypes.c_double * len(PARTS))()
    found: dict[str, Any] = {}
    with slm.load(path, threads=threads, context=max(depths) + TOKENS + 1) as model:
        for depth in [depths[0], *depths * repeats]:  # the first is not counted
            start = time.perf_counter()
            output = model.generate(prompt[: max(depth, 1)], max_tokens=TOKENS + 1, ignore_eos=True)
            seconds = time.perf_counter() - start
            if module:
                read(parts)
            sample = {
                "token": output.timings.decode_seconds / TOKENS,
                "over_loop": seconds / (output.timings.prefill_seconds + output.timings.decode_seconds) - 1,
                "parts": [part / TOKENS for part in parts],
            }
            found.setdefault(str(depth), []).append(sample)
    found[str(depths[0])].pop(0)
    return found


def child(*arguments: Any) -> dict[str, Any]:
    command = [sys.executable, __file__, "measure", json.dumps(arguments)]
    environment = os.environ | {"SLM_SCREENING": os.environ.get("SLM_SCREENING", "0")}
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment).stdout)


def table(result: dict[str, Any]) -> str:
    depths = list(result["clocks"])
    lines = [
        f"# A token's time, {result['model']}, {result['machine']['date']}",
        "",
        f"{result['machine']['cpu']}, {result['threads']} threads, commit {result['machine']['commit']}: "
        f"{TOKENS} tokens after a prompt of 1 or of the depth, greedy, "
        f"screening {'off' if result['screening'] == '0' else 'on'}; medians of {result['repeats']} runs. Microseconds a token "
        "of the calling thread, in parts that exclude each other: its waiting for others is in the barriers. Below the sum: "
        "a token as the product without clocks times it, and by how much the call of Model.generate exceeds the token loop in C.",
        "",
        f"| part | {' | '.join(f'depth {depth}, us | share' for depth in depths)} |",
        f"| --- |{' ---: |' * 2 * len(depths)}",
    ]
    totals = {depth: sum(result["clocks"][depth]["parts"]) for depth in depths}
    for i, part in enumerate(PARTS):
        times = {depth: result["clocks"][depth]["parts"][i] for depth in depths}
        cells = (f"{1e6 * times[depth]:.1f} | {times[depth] / totals[depth]:.1%}" for depth in depths)
        lines.append(f"| {part} | {' | '.join(cells)} |")
    lines.append(f"| sum | {' | '.join(f'{1e6 * totals[depth]:.1f} | ' for depth in depths)} |")
    for heading, key, unit in (("token, without clocks", "token", 1e6), ("generate over the loop, %", "over_loop", 100)):
        cells = (f"{unit * result['product'][depth][key]:.1f} | " for depth in depths)
        lines.append(f"| {heading} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def medians(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """The parts are those of the run whose token took the median time, so that they add up."""
    middle = sorted(samples, key=lambda sample: sum(sample["parts"]) or sample["token"])[len(samples) // 2]
    found = {key: median(sample[key] for sample in samples) for key in ("token", "over_loop")}
    return found | {"parts": middle["parts"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that slm fetches (default: smollm2-135m)")
    parser.add_argument("--threads", type=int, default=0, help="default: slm's choice")
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 512], help="default: 0 512")
    parser.add_argument("--repeats", type=int, default=5, help="default: 5")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "time_split", help="folder of the module with clocks")
    parser.add_argument("--build-only", action="store_true", help="and measure later, on a quiet machine")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    module = build(args.build)
    if args.build_only:
        return
    from slm import _core, hub

    path, threads = hub.resolve(args.model).path, args.threads or _core.cpu_info()["threads"]
    runs = {
        name: child(str(path), which, threads, args.depths, args.repeats)
        for name, which in (("product", None), ("clocks", str(module)))
    }
    result = {
        "model": path.name,
        "machine": machine.describe(),
        "threads": threads,
        "screening": os.environ.get("SLM_SCREENING", "0"),
        "repeats": args.repeats,
        **{name: {depth: medians(samples) for depth, samples in run.items()} for name, run in runs.items()},
    }
    text = table(result)
    kind = "time-split" if result["screening"] == "0" else "time-split-screening"
    cpu = machine.slug(result["machine"]["cpu"])
    target = f"{result['machine']['date'][:10]}-{kind}-{path.stem}-{threads}-threads-{cpu}"
    report.publish(args.out, target, text, result)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(measure(*json.loads(sys.argv[2]))))
    else:
        main()
