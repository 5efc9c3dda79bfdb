# SPDX-License-Identifier: Apache-2.0
"""From samples to the table that people read."""

import json
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple


def publish(folder: Path, name: str, text: str, result: dict[str, Any] | None = None) -> None:
    """Print a table, and write it to folder/name.md, its figures to name.json."""
    folder.mkdir(parents=True, exist_ok=True)
    if result is not None:
        (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(text, end="")


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


def bandwidth_share(engine: dict[str, Any]) -> str:
    """Of engines that read all weights of the file: the share of the read rate that decode at depth 0 makes of them."""
    shares = engine.get("bandwidth_share")
    return f"{100 * median(shares):.0f} % ({100 * min(shares):.0f} to {100 * max(shares):.0f} %)" if shares else ""


def state(result: dict[str, Any]) -> str:
    """What the probes saw, and which runs they spoke against."""
    probes = [probe for run in result["runs"] for probe in run["probes"]]
    units = {"bandwidth": 1e9, "compute": 1e9, "barrier": 1e-9}
    seen = {name: [probe[name] / unit for probe in probes] for name, unit in units.items()}
    ranges = {name: f"{min(x):.0f} to {max(x):.0f}, median {median(x):.0f}" for name, x in seen.items()}
    dropped = sum(engine["dropped"] for engine in result["engines"].values())
    text = f"Between the runs the pool read {ranges['bandwidth']} GB/s, NumPy's f32 product ran at "
    text += f"{ranges['compute']} GFLOP/s, and a barrier of the pool took {ranges['barrier']} ns. "
    text += f"Runs left out as unsteady: {dropped}."
    restless = [name for name, engine in result["engines"].items() if not engine["steady"]]
    return text + (f" **The machine was not steady** for {', '.join(restless)}: all their runs count." if restless else "")


def is_own(name: str) -> bool:
    return name.split(",")[0] == "slm"


def ratio(runs: list[dict[str, Any]], peer: str, name: str) -> float:
    """slm against a peer within a round, above 1 slm is ahead; median over those in which both were steady, if any were."""
    own, other = ({run["round"]: run for run in runs if run["engine"] == engine} for engine in ("slm", peer))
    both = [(own[i], other[i]) for i in own if i in other]
    calm = [pair for pair in both if all(run["steady"] for run in pair)]
    figures = [[median(run["found"]["samples"][name]) for run in pair] for pair in calm or both]
    return median(a / b if metric(name).larger else b / a for a, b in figures)


def ratios(result: dict[str, Any]) -> list[str]:
    """slm against the peer, of all variants, whose median is the best, per metric."""
    engines = result["engines"]
    peers = [name for name in engines if not is_own(name)]
    if not peers or "slm" not in engines:
        return []
    cells = []
    for name in engines["slm"]["samples"]:
        medians = {peer: median(engines[peer]["samples"][name]) for peer in peers}
        best = (max if metric(name).larger else min)(peers, key=medians.__getitem__)
        cells.append(f"{ratio(result['runs'], best, name):.2f}")
    return [f"| **slm against the best peer, by round** | {' | '.join(cells)} | |"]


def markdown(result: dict[str, Any]) -> str:
    machine = result["machine"]
    names = list(next(iter(result["engines"].values()))["samples"])
    compared = ratios(result)
    last_row = (
        "The last row compares slm with the peer whose median is the best in the column: the ratio within each round, and the "
        "median over the rounds in which both were steady, or all where there are none; above 1 slm is ahead. "
    )
    lines = [
        f"# {result['model']}, {result['threads']} threads, {machine['date']}",
        "",
        f"{machine['cpu']}, {machine['cpus']} CPUs, {machine['system']}, Python {machine['python']}. "
        f"slm at commit {machine['commit']} runs its {machine['slm']['isa']} kernels. "
        f"A token reads {result['weight_bytes'] / 1e6:.1f} MB of the file.",
        "",
        f"Best (median) of {min(engine['runs'] for engine in result['engines'].values())} or more interleaved runs of "
        f"{result['repeats']} repeats each; of the share of the read rate the median and the range. "
        f"{last_row if compared else ''}{state(result)} "
        f"Load average before the run: {machine['load_average']:.1f}.",
        "",
        f"| engine | {' | '.join(metric(name).heading for name in names)} | share of read rate |",
        f"| --- |{' ---: |' * (len(names) + 1)}",
    ]
    for name, engine in result["engines"].items():
        cells = [cell(what, samples) for what, samples in engine["samples"].items()]
        lines.append(f"| {name} | {' | '.join(cells)} | {bandwidth_share(engine)} |")
    lines += compared
    lines += ["", *(f"- {name}: {engine['version']}; {engine['text']!r}" for name, engine in result["engines"].items())]
    lines += [f"- {name}: left out, {reason}" for name, reason in result["left_out"].items()]
    return "\n".join(lines) + "\n"
