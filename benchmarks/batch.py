# SPDX-License-Identifier: Apache-2.0
"""What a batch gives over one prompt at a time: tokens per second of all texts together, through Model.generate.

    python benchmarks/batch.py [--model NAME] [--threads N] [--sizes 8 16]

Prompts of 16 random tokens that begin differently, 128 tokens each; sizes take turns within a round. One prompt is bound by
the memory and a batch by the CPUs, so a round in which CPUs have different L3 caches, where memory may be faster, is left out.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import machine
import numpy as np
import report

import slm
from slm import hub

HERE = Path(__file__).parent
PROMPT_TOKENS = 16
TOKENS = 128


def rate(model: slm.Model, prompts: list[list[int]]) -> float:
    start = time.perf_counter()
    outputs = model.generate(prompts, max_tokens=TOKENS, ignore_eos=True)
    seconds = time.perf_counter() - start
    if any(len(output.tokens) != TOKENS for output in outputs):
        raise RuntimeError("a text ended early")
    return len(prompts) * TOKENS / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF file, or a name that slm fetches (default: smollm2-135m)")
    parser.add_argument("--threads", type=int, default=0, help="default: slm's choice")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16], help="default: 8 16")
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    path = hub.resolve(args.model).path
    here = machine.describe()
    starts = np.random.default_rng(0).permutation(1000)[: max(args.sizes)].tolist()
    tails = np.random.default_rng(1).integers(0, 1000, (max(args.sizes), PROMPT_TOKENS - 1)).tolist()
    prompts = [[start, *tail] for start, tail in zip(starts, tails, strict=True)]
    rates: dict[int, list[float]] = {n: [] for n in (1, *args.sizes)}
    barriers = []
    with slm.load(path, threads=args.threads or None, context=PROMPT_TOKENS + TOKENS) as model:
        threads = args.threads or slm.cpu_info()["threads"]
        rate(model, prompts[:1])
        for _ in range(args.rounds):
            before = machine.barrier_seconds(threads)
            for n, samples in rates.items():
                samples.append(rate(model, prompts[:n]))
            barriers.append(max(before, machine.barrier_seconds(threads)))
    kept = [i for i, barrier in enumerate(barriers) if barrier < machine.SLOW_BARRIER * min(barriers)]
    lines = [
        f"# Batches, {path.name}, {here['date']}",
        "",
        f"{here['cpu']}, {threads} threads, commit {here['commit']}: {PROMPT_TOKENS} tokens in and {TOKENS} out a prompt, "
        f"{len(kept)} of {args.rounds} rounds, whose barriers took {1e9 * min(barriers):.0f} to "
        f"{1e9 * max(barriers[i] for i in kept):.0f} ns. Medians, and the range of the ratio within a round.",
        "",
        "| prompts | tok/s of all, best (median) | times one prompt |",
        "| ---: | ---: | ---: |",
    ]
    for n, samples in rates.items():
        found, times = [samples[i] for i in kept], [samples[i] / rates[1][i] for i in kept]
        ratio = f"{median(times):.2f} ({min(times):.2f} to {max(times):.2f})" if n > 1 else ""
        lines.append(f"| {n} | {max(found):.0f} ({median(found):.0f}) | {ratio} |")
    text = "\n".join(lines) + "\n"
    target = f"{str(here['date'])[:10]}-batch-{path.stem}"
    result = {"model": path.name, "machine": here, "threads": threads, "rates": rates, "barriers": barriers, "kept": kept}
    report.publish(args.out, target, text, result)


if __name__ == "__main__":
    main()
