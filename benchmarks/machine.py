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

import programs

ROOT = Path(__file__).resolve().parent.parent
BANDWIDTH_BYTES = 1 << 30
BANDWIDTH_SWEEPS = 5
RATES = {"bandwidth": 0.2, "compute": 0.2}  # probes, and how far from the median of all they may be in the usual state
SLOW_BARRIER = 3  # times the least of all that a barrier takes where two CPUs have different L3 caches


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
    """Of the checkout of these scripts, with a plus if core or package differ from it; "unknown" if slm runs from elsewhere, or a
    core that is older than its sources."""
    from slm import _core

    built = Path(_core.__file__).resolve()
    if built.parent != ROOT / "slm" or built.stat().st_mtime < max(p.stat().st_mtime for p in (ROOT / "csrc").rglob("*.*")):
        return "unknown"
    git = ["git", "-C", str(ROOT)]
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


def barrier_seconds(threads: int) -> float:
    """Of the pool: several times as long when two CPUs turn out to have different L3 caches."""
    program = programs.build("barrier", programs.BUILD, "base")
    return 1e-9 * float(subprocess.run([program, str(threads)], stdout=subprocess.PIPE, check=True, text=True).stdout)


def probe(threads: int) -> dict[str, object]:
    """The read rate of slm's own pool in bytes per second, the compute rate, a barrier, and what slm says of the machine."""
    from slm import _core

    info = _core.cpu_info()
    threads = threads or info["threads"]
    bandwidth = _core.measure_bandwidth(BANDWIDTH_BYTES, BANDWIDTH_SWEEPS, threads)
    rates = {"bandwidth": bandwidth, "compute": compute_rate(threads), "barrier": barrier_seconds(threads)}
    return rates | {"threads": threads, "slm": info}


if __name__ == "__main__":
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy is imported: its pool would hide what one CPU does
    print(json.dumps(probe(int(sys.argv[1]))))
