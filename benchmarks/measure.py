# SPDX-License-Identifier: Apache-2.0
"""One engine, measured in a process of its own: `python measure.py '<JSON of a Task>'` prints one line of JSON."""

import importlib
import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DECODE_TOKENS = 128
PREFILL_TOKENS = 512
TEXT_TOKENS = 24


@dataclass(frozen=True)
class Task:
    module: str
    options: dict[str, Any]
    path: str
    threads: int
    repeats: int
    depths: list[int]  # tokens in the cache when decoding starts; 0: a prompt of one
    prose: list[int]  # of which prompts are parts
    seed: int  # of the places where they begin
    text: list[int]  # a prompt whose continuation shows whether the engine works


def peak_megabytes() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def read_whole(path: Path) -> None:
    """The files are in the page cache when an engine loads them, whatever the system has done with it since the last round."""
    for file in [path] if path.is_file() else path.rglob("*"):
        if file.is_file():
            with file.open("rb", buffering=0) as stream:
                while stream.read(1 << 24):
                    pass


def measure(task: Task) -> dict[str, Any]:
    """Samples of every metric. Imports are not part of the load time; the first runs after the load are part of no rate."""
    deepest = max(PREFILL_TOKENS, *task.depths)
    rng = np.random.default_rng(task.seed)

    def prompt(n: int) -> list[int]:  # from another place each time, so that no cache of prefixes helps
        return np.resize(np.roll(task.prose, -rng.integers(len(task.prose))), n).tolist()

    engine_class = importlib.import_module(f"engines.{task.module}").Engine
    read_whole(Path(task.path))
    start = time.perf_counter()
    engine = engine_class(task.path, task.threads, -(-(deepest + DECODE_TOKENS + 1) // 256) * 256, **task.options)
    load = time.perf_counter() - start
    first = engine.run(prompt(32), 1)
    text = engine.run(task.text, TEXT_TOKENS).tokens
    samples: dict[str, list[float]] = {name: [] for name in ("prefill_32", "prefill_512")}
    for _ in range(task.repeats):
        for n in (32, PREFILL_TOKENS):
            samples[f"prefill_{n}"].append(n / engine.run(prompt(n), 1).prefill_seconds)
        for depth in task.depths:
            timing = engine.run(prompt(max(depth, 1)), DECODE_TOKENS + 1)
            if len(timing.tokens) != DECODE_TOKENS + 1:
                raise RuntimeError(f"{task.module} made {len(timing.tokens)} of {DECODE_TOKENS + 1} tokens")
            samples.setdefault(f"decode_{depth}", []).append(DECODE_TOKENS / timing.decode_seconds)
    return {
        "version": engine.version,
        "settings": engine.settings,
        "text": text,
        "samples": samples | {"load": [load], "first_token": [load + first.prefill_seconds], "peak_memory": [peak_megabytes()]},
    }


if __name__ == "__main__":
    print(json.dumps(measure(Task(**json.loads(sys.argv[1])))))
