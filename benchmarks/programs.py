# SPDX-License-Identifier: Apache-2.0
"""C programs of this folder over the core, compiled as setup.py compiles it, without Python and without BLIS."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "benchmarks"
CSRC = HERE.parent / "csrc"
FLAGS = ["-std=c11", "-O3", "-D_GNU_SOURCE", "-fno-math-errno", "-ffp-contract=off", f"-I{CSRC}"]  # setup.py's


def build(name: str, folder: Path, room: str = "") -> Path:
    """The program `name`.c over a room of the core or the whole, in `folder`, which keeps all of it until sources are newer."""
    folder.mkdir(parents=True, exist_ok=True)
    compiler = os.environ.get("CC", "cc")
    headers = [*CSRC.rglob("*.h"), *CSRC.rglob("*.inc"), *HERE.glob("*.h")]
    newest = max(p.stat().st_mtime for p in headers)

    def compiled(source: Path) -> str:
        target = folder / ("_".join(source.relative_to(HERE.parent).parts) + ".o")
        if not target.exists() or target.stat().st_mtime < max(newest, source.stat().st_mtime):
            subprocess.run([compiler, *FLAGS, "-c", source, "-o", target], check=True)
        return str(target)

    sources = [p for p in sorted((CSRC / room).rglob("*.c")) if p.parent.name != "python"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, [HERE / f"{name}.c", *sources]))
    program = folder / name
    if not program.exists() or program.stat().st_mtime < max(Path(p).stat().st_mtime for p in objects):
        subprocess.run([compiler, *objects, "-pthread", "-lm", "-o", program], check=True)
    return program
