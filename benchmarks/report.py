# SPDX-License-Identifier: Apache-2.0
"""From samples to the table that people read."""

from statistics import median
from typing import Any

# metric: (heading, digits, the larger is the better)
METRICS = {
    "load": ("load s", 3, False),
    "first_token": ("first token s", 3, False),
    "prefill_32": ("prefill 32 tok/s", 0, True),
    "prefill_512": ("prefill 512 tok/s", 0, True),
    "decode_0": ("decode at 0 tok/s", 1, True),
    "decode_512": ("decode at 512 tok/s", 1, True),
    "peak_memory": ("peak MB", 0, False),
}


def best(metric: str, samples: list[float]) -> float:
    return max(samples) if METRICS[metric][2] else min(samples)


def cell(metric: str, samples: list[float]) -> str:
    digits = METRICS[metric][1]
    return f"{best(metric, samples):.{digits}f} ({median(samples):.{digits}f})"


def bandwidth_share(engine: dict[str, Any], bandwidth: float) -> str:
    """Best and median share of the machine's read rate that the weights read by decode at depth 0 make up."""
    rates = engine["samples"]["decode_0"]
    best_share, median_share = (rate * engine["bytes_per_token"] / bandwidth for rate in (max(rates), median(rates)))
    return f"{100 * best_share:.0f} % ({100 * median_share:.0f} %)"


def ratios(result: dict[str, Any]) -> list[str]:
    """slm against the best that any variant of the peer reaches, medians, per metric; above 1 slm is ahead."""
    engines = result["engines"]
    peers = [name for name in engines if name != "slm"]
    if not peers or "slm" not in engines:
        return []
    cells = []
    for metric, (_, _, larger) in METRICS.items():
        own = median(engines["slm"]["samples"][metric])
        peer = (max if larger else min)(median(engines[name]["samples"][metric]) for name in peers)
        cells.append(f"{own / peer if larger else peer / own:.2f}")
    return [f"| **slm against the best peer, medians** | {' | '.join(cells)} | |"]


def markdown(result: dict[str, Any]) -> str:
    machine, bandwidth = result["machine"], result["bandwidth"]
    headings = [heading for heading, _, _ in METRICS.values()]
    lines = [
        f"# {result['model']}, {result['threads']} threads, {machine['date']}",
        "",
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}. "
        f"slm runs its {machine['slm']['isa']} kernels; its pool reads {bandwidth / 1e9:.1f} GB/s.",
        "",
        f"Best (median) of {result['rounds']} interleaved rounds of {result['repeats']} repeats each. {result['state']} "
        f"Load average before the run: {machine['load_average']:.1f}.",
        "",
        f"| engine | {' | '.join(headings)} | share of read rate |",
        f"| --- |{' ---: |' * (len(headings) + 1)}",
    ]
    for name, engine in result["engines"].items():
        cells = [cell(metric, engine["samples"][metric]) for metric in METRICS]
        lines.append(f"| {name} | {' | '.join(cells)} | {bandwidth_share(engine, bandwidth)} |")
    lines += ratios(result)
    lines += ["", *(f"- {name}: {engine['version']}" for name, engine in result["engines"].items())]
    lines += [f"- {name}: left out, the package {package} is not installed" for name, package in result["left_out"].items()]
    return "\n".join(lines) + "\n"
