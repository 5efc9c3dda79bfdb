# SPDX-License-Identifier: Apache-2.0
"""The benchmark's one command runs to the end: on a small model of random weights, slm alone. Its figures decide nothing."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import chart
import synthetic

BENCHMARKS = Path(chart.__file__).parent


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


def test_scoring(tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    synthetic.write(model, synthetic.llama(2, 256, 512, 4, 2, 2000), synthetic.TYPES["Q4_K"])
    options = ["--only", "slm", "--items", "5", "--rounds", "1", "--out", str(tmp_path)]
    command = [sys.executable, str(BENCHMARKS / "scoring.py"), "--model", str(model), "--cache", str(tmp_path), *options]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^\| slm \S+ \| \d+\.\d\d \(\d+\.\d\d\) \| 1\.00 \| 0\.000 \|$", table, re.MULTILINE)
    result = json.loads(next(tmp_path.glob("*-scoring-model.json")).read_text(encoding="utf-8"))
    assert [len(scores) for scores in result["runs"]["slm"][0]["scores"]] == [4, 4, 4]
