# SPDX-License-Identifier: Apache-2.0
"""What `import slm` takes beside `import numpy`, which it contains: each in fresh processes, in turn, from cached bytecode.

python benchmarks/importing.py [--rounds 21]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import machine
import report

HERE = Path(__file__).parent
MODULES = ("numpy", "slm")
TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(module: str, environment: dict[str, str]) -> float:
    command = [sys.executable, "-c", TIMED.format(module)]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="default: 21")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results (default: benchmarks/results)")
    args = parser.parse_args()
    here = machine.describe()
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        rounds = [[1000 * seconds(module, environment) for module in MODULES] for _ in range(args.rounds + 1)]
    rounds.pop(0)  # it wrote the bytecode
    lines = [
        f"# Import, {here['date']}",
        "",
        f"{here['cpu']}, Python {here['python']}, commit {here['commit']}: median of {args.rounds} processes each, in turn, the "
        "start of the interpreter not counted.",
        "",
        "| | ms | least |",
        "| --- | ---: | ---: |",
    ]
    for module, times in zip(MODULES, zip(*rounds, strict=True), strict=True):
        lines.append(f"| `import {module}` | {median(times):.0f} | {min(times):.0f} |")
    lines.append(f"| slm more than numpy, within a round | {median(slm - numpy for numpy, slm in rounds):.0f} | |")
    target = f"{str(here['date'])[:10]}-importing-{machine.slug(str(here['cpu']))}"
    report.publish(args.out, target, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
