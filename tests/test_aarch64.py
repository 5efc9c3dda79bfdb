# SPDX-License-Identifier: Apache-2.0
"""Cross-compiles the C core for aarch64 and runs programs of tests/core under qemu, on CPUs with and without what tiers need.

Needs what Debian calls qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross; in CI it is a failure not to have
them. Emulation is slow: programs run where tiers differ, and on few types.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from test_core import OF_MODELS, ROOT, compile_core, link_program

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
MISSING = [program for program in (COMPILER, EMULATOR) if not shutil.which(program)]
pytestmark = pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=f"needs {' and '.join(MISSING)}")
# A CPU that qemu knows, and the tiers that run on it, fastest last.
CPUS = {"cortex-a57": "scalar", "cortex-a76": "scalar neon", "max": "scalar neon neon_i8mm"}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aarch64")
    objects = compile_core(folder, COMPILER)
    for name in ("test_select", "test_kernels", "test_linear", "test_head", *OF_MODELS):
        link_program(ROOT / "tests" / "core" / f"{name}.c", folder, objects, COMPILER, "-static")
    return folder


def run(program: Path, *arguments: str, cpu: str = "max", tier: str = "") -> str:
    command = [EMULATOR, "-cpu", cpu, str(program), *arguments]
    done = subprocess.run(command, env=os.environ | {"SLM_ISA": tier}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert re.search(r"^[1-9]\d* passed, 0 failed$", done.stdout, re.MULTILINE)
    return done.stdout


@pytest.mark.parametrize(("cpu", "tiers"), CPUS.items())
def test_the_fastest_tier_of_a_cpu_is_chosen(programs: Path, cpu: str, tiers: str) -> None:
    assert run(programs / "test_select", cpu=cpu).startswith(f"{tiers.split()[-1]} of: {tiers}\n")


@pytest.mark.parametrize("name", ["test_kernels", "test_linear"])
def test_kernels_and_linears(programs: Path, name: str) -> None:
    found = run(programs / name, "neon", "neon_i8mm")
    assert re.findall(r"^(\w+): [1-9]\d* checks$", found, re.MULTILINE) == ["neon", "neon_i8mm"]


@pytest.mark.parametrize("tier", ["neon", "neon_i8mm"])
def test_tokens_are_chosen(programs: Path, tier: str) -> None:
    run(programs / "test_head", "Q8_0", "Q4_K", tier=tier)


@pytest.mark.parametrize(("name", "tier"), [("test_model", "neon"), *((name, "neon_i8mm") for name in OF_MODELS)])
def test_a_model(programs: Path, name: str, tier: str) -> None:
    run(programs / name, "Q4_0", tier=tier)
