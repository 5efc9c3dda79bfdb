# SPDX-License-Identifier: Apache-2.0
"""What the machine is and what state it is in. As a script, in a process of its own: `python machine.py THREADS` prints JSON."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

BANDWIDTH_BYTES = 1 << 30
BANDWIDTH_SWEEPS = 5
PROBES = ("bandwidth", "compute")


def cpu_model() -> str:
    try:
        fields = dict(re.findall(r"^(.+?)\s*: (.*)$", Path("/proc/cpuinfo").read_text().split("\n\n")[0], re.MULTILINE))
    except OSError:
        return platform.processor() or platform.machine()
    name = fields.get("model name", platform.machine())
    return f"{name}, family {fields['cpu family']} model {fields['model']}" if "cpu family" in fields else name


def slug(name: str) -> str:
    """For a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def commit() -> str:
    """That the core and the package were built from, by the checkout of these scripts; with a plus if they differ from it."""
    git = ["git", "-C", str(Path(__file__).parent.parent)]
    try:
        found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    clean = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "csrc", "slm"]).returncode == 0
    return found if clean else f"{found}+"


def describe() -> dict[str, object]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": os.getloadavg()[0],  # of the last minute, before we add to it
    }


def compute_rate(threads: int) -> float:
    """Operations per second of NumPy's f32 matrix product, one to a thread: falls when two CPUs turn out to share a core."""
    import numpy as np

    n, count = 256, 400
    square = np.ones((n, n), np.float32)

    def work(_: int) -> None:
        out = np.empty_like(square)
        for _ in range(count):
            np.matmul(square, square, out=out)

    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(4):
            start = time.perf_counter()
            list(pool.map(work, range(threads)))
            best = min(best, time.perf_counter() - start)
    return threads * count * 2 * n**3 / best


def probe(threads: int) -> dict[str, object]:
    """The read rate of slm's own pool in bytes per second, the compute rate, and what slm says of the machine."""
    from slm import _core

    info = _core.cpu_info()
    threads = threads or info["threads"]
    bandwidth = _core.measure_bandwidth(BANDWIDTH_BYTES, BANDWIDTH_SWEEPS, threads)
    return {"bandwidth": bandwidth, "compute": compute_rate(threads), "threads": threads, "slm": info}


if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: its pool would hide what one CPU does
    print(json.dumps(probe(int(sys.argv[1]))))
