# SPDX-License-Identifier: Apache-2.0
"""The benchmark's one command runs to the end: on a small model of random weights, slm alone. Its figures decide nothing."""

import importlib
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from slm import _core

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import chart
import engines
import machine
import report
import run
import synthetic

BENCHMARKS = Path(chart.__file__).parent


@pytest.mark.parametrize("slow", [3, 4])  # of five runs: the usual state is not the one that most are in
def test_runs_beside_a_slow_barrier_do_not_count(slow: int) -> None:
    def measured(i: int, **probe: float) -> run.Run:
        seen = {"bandwidth": 3e10, "compute": 2e11, "barrier": 70e-9} | probe
        return run.Run("slm", i, (seen, seen), {})

    calm = [measured(i) for i in range(slow, 5)]
    assert run.steady([*(measured(i, barrier=300e-9) for i in range(slow)), *calm]) == calm
    assert run.steady([*calm, measured(5, bandwidth=2e10), measured(6, compute=1e11), measured(7, barrier=35e-9)])[:-1] == calm


def test_run_and_chart(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    synthetic.write(model, synthetic.llama(2, 256, 512, 4, 2, 2000), synthetic.TYPES["Q4_K"])
    options = ["--only", "slm", "--depths", "0", "40", "--rounds", "1", "--repeats", "1", "--out", str(tmp_path)]
    command = [sys.executable, str(BENCHMARKS / "run.py"), "--model", str(model), "--cache", str(tmp_path), *options]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "decode at 40 tok/s" in table
    assert "\n| slm | " in table
    result = json.loads(next(tmp_path.glob("*.json")).read_text(encoding="utf-8"))
    assert all(rate > 0 for samples in result["engines"]["slm"]["samples"].values() for rate in samples)
    # 4.5 bits a weight, and five norms; the input embedding does not count
    weights = 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 512 * 256) + 2000 * 256
    assert result["weight_bytes"] == weights * 4.5 / 8 + 5 * 256 * 4
    drawing = ElementTree.fromstring(chart.draw([result]))
    assert len(drawing.findall("{*}rect")) == len(chart.PANELS)


def result_of(figures: dict[str, list[tuple[float, bool]]], name: str = "decode_0") -> dict[str, Any]:
    """What report.py and chart.py read of a result: of each engine one figure a round, and whether it was steady then."""
    runs = [
        {"engine": engine, "round": i, "steady": steady, "found": {"samples": {name: [figure]}}}
        for engine, rounds in figures.items()
        for i, (figure, steady) in enumerate(rounds)
    ]
    samples = {engine: {"samples": {name: [figure for figure, _ in rounds]}} for engine, rounds in figures.items()}
    return {"engines": samples, "runs": runs}


def test_ratios_are_those_within_a_round() -> None:
    """The machine ran at half its speed in the second round, and the best peer was disturbed in the third."""
    figures = {
        "slm": [(100.0, True), (60.0, True), (100.0, True)],
        "llama.cpp": [(50.0, True), (20.0, True), (10.0, False)],
        "PyTorch, bf16": [(10.0, True), (11.0, True), (12.0, True)],
    }
    heading = "| **slm against the best peer, by round** |"
    assert report.ratios(result_of(figures)) == [f"{heading} 2.50 | |"]  # median of 2 and 3
    assert report.ratios(result_of(figures, "load")) == [f"{heading} 0.12 | |"]  # of 10 / 100, 11 / 60 and 12 / 100
    restless = figures | {"slm": [(figure, False) for figure, _ in figures["slm"]]}
    assert report.ratios(result_of(restless)) == [f"{heading} 3.00 | |"]  # of all: 2, 3 and 10
    assert report.ratios(result_of({"slm": figures["slm"]})) == []


def test_screening_has_a_bar_only_where_it_decodes() -> None:
    for name, engines_shown in (("decode_0", ["slm", engines.SCREENING]), ("prefill_512", ["slm"])):
        shown = chart.bars(result_of({"slm": [(1.0, True)], engines.SCREENING: [(2.0, True)]}, name), name)
        assert sorted(engine for engine, _ in shown) == engines_shown


def test_a_core_from_elsewhere_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_core, "__file__", str(tmp_path / "_core.so"))
    assert machine.commit() == "unknown"


def test_all_takes_every_measurement_but_one() -> None:
    """Each script that writes a table is in a step of all.py, quant_kl.py apart, as README.md says."""
    steps = importlib.import_module("all").STEPS
    taken = {command[0] for step in steps.values() for command in step([Path("model.gguf")])}
    writing = {path.name for path in BENCHMARKS.glob("*.py") if "report.publish(" in path.read_text(encoding="utf-8")}
    assert taken - {"chart.py"} == writing - {"quant_kl.py"}


def test_scoring(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    synthetic.write(model, synthetic.llama(2, 256, 512, 4, 2, 2000), synthetic.TYPES["Q4_K"])
    options = ["--only", "slm", "--items", "5", "--rounds", "1", "--out", str(tmp_path)]
    command = [sys.executable, str(BENCHMARKS / "scoring.py"), "--model", str(model), "--cache", str(tmp_path), *options]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^\| slm \S+ \| \d+\.\d\d \(\d+\.\d\d\) \| 1\.00 \| 0\.000 \|$", table, re.MULTILINE)
    result = json.loads(next(tmp_path.glob("*-scoring-model.json")).read_text(encoding="utf-8"))
    assert [len(scores) for scores in result["runs"]["slm"][0]["scores"]] == [4, 4, 4]
