# SPDX-License-Identifier: Apache-2.0
"""From samples to the table that people read."""

from statistics import median
from typing import Any, NamedTuple


class Metric(NamedTuple):
    heading: str
    digits: int
    larger: bool  # is the better


def metric(name: str) -> Metric:
    kind, _, size = name.rpartition("_")
    if kind in ("prefill", "decode"):
        return Metric(f"{kind} {'at ' if kind == 'decode' else ''}{size} tok/s", 0 if kind == "prefill" else 1, True)
    return {
        "load": Metric("load s", 3, False),
        "first_token": Metric("first token s", 3, False),
        "peak_memory": Metric("peak MB", 0, False),
    }[name]


def cell(name: str, samples: list[float]) -> str:
    _, digits, larger = metric(name)
    return f"{(max if larger else min)(samples):.{digits}f} ({median(samples):.{digits}f})"


def bandwidth_share(result: dict[str, Any], engine: dict[str, Any]) -> str:
    """Best and median share of the read rate that decode at depth 0 makes of the file's weights; of engines that run the file."""
    if engine["form"] or "decode_0" not in engine["samples"]:
        return ""
    rates = engine["samples"]["decode_0"]
    best, middle = (rate * result["weight_bytes"] / result["bandwidth"] for rate in (max(rates), median(rates)))
    return f"{100 * best:.0f} % ({100 * middle:.0f} %)"


def is_own(name: str) -> bool:
    return name.split(",")[0] == "slm"


def ratios(result: dict[str, Any]) -> list[str]:
    """slm against the best that any variant of the peers reaches, medians, per metric; above 1 slm is ahead."""
    engines = result["engines"]
    peers = [name for name in engines if not is_own(name)]
    if not peers or "slm" not in engines:
        return []
    cells = []
    for name, samples in engines["slm"]["samples"].items():
        own, larger = median(samples), metric(name).larger
        peer = (max if larger else min)(median(engines[peer]["samples"][name]) for peer in peers)
        cells.append(f"{own / peer if larger else peer / own:.2f}")
    return [f"| **slm against the best peer, medians** | {' | '.join(cells)} | |"]


def markdown(result: dict[str, Any]) -> str:
    machine = result["machine"]
    names = list(next(iter(result["engines"].values()))["samples"])
    lines = [
        f"# {result['model']}, {result['threads']} threads, {machine['date']}",
        "",
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}. "
        f"slm runs its {machine['slm']['isa']} kernels; its pool reads {result['bandwidth'] / 1e9:.1f} GB/s. "
        f"A token reads {result['weight_bytes'] / 1e6:.1f} MB of the file.",
        "",
        f"Best (median) of {result['rounds']} interleaved rounds of {result['repeats']} repeats each. {result['state']} "
        f"Load average before the run: {machine['load_average']:.1f}.",
        "",
        f"| engine | {' | '.join(metric(name).heading for name in names)} | share of read rate |",
        f"| --- |{' ---: |' * (len(names) + 1)}",
    ]
    for name, engine in result["engines"].items():
        cells = [cell(what, samples) for what, samples in engine["samples"].items()]
        lines.append(f"| {name} | {' | '.join(cells)} | {bandwidth_share(result, engine)} |")
    lines += ratios(result)
    lines += ["", *(f"- {name}: {engine['version']}; {engine['text']!r}" for name, engine in result["engines"].items())]
    lines += [f"- {name}: left out, {reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines) + "\n"
