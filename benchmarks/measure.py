# SPDX-License-Identifier: Apache-2.0
"""One engine, measured in a process of its own: `python measure.py '<JSON of a Task>'` prints one line of JSON."""

import importlib
import json
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

CONTEXT = 1024
DECODE_TOKENS = 128
DEPTH = 512


@dataclass(frozen=True)
class Task:
    module: str
    options: dict[str, Any]
    path: str
    threads: int
    repeats: int


def peak_megabytes() -> float:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def measure(task: Task) -> dict[str, Any]:
    """Samples of every metric. Imports are not part of the load time; the first run after the load is part of no rate."""
    prompt = np.random.default_rng(0).integers(0, 1000, DEPTH).tolist()  # ids that every vocabulary has; the text does not matter
    engine_class = importlib.import_module(f"engines.{task.module}").Engine
    start = time.perf_counter()
    engine = engine_class(task.path, task.threads, CONTEXT, **task.options)
    load = time.perf_counter() - start
    first = engine.run(prompt[:32], 1)
    samples: dict[str, list[float]] = {name: [] for name in ("prefill_32", "prefill_512", "decode_0", "decode_512")}
    for _ in range(task.repeats):
        samples["prefill_32"].append(32 / engine.run(prompt[:32], 1).prefill_seconds)
        shallow = engine.run(prompt[:1], DECODE_TOKENS + 1)
        deep = engine.run(prompt, DECODE_TOKENS + 1)
        for timing in (shallow, deep):
            if len(timing.tokens) != DECODE_TOKENS + 1:
                raise RuntimeError(f"{task.module} made {len(timing.tokens)} of {DECODE_TOKENS + 1} tokens")
        samples["decode_0"].append(DECODE_TOKENS / shallow.decode_seconds)
        samples["prefill_512"].append(DEPTH / deep.prefill_seconds)
        samples["decode_512"].append(DECODE_TOKENS / deep.decode_seconds)
    return {
        "version": engine.version,
        "settings": engine.settings,
        "bytes_per_token": engine.bytes_per_token,
        "samples": samples | {"load": [load], "first_token": [load + first.prefill_seconds], "peak_memory": [peak_megabytes()]},
    }


if __name__ == "__main__":
    print(json.dumps(measure(Task(**json.loads(sys.argv[1])))))
