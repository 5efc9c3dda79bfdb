# SPDX-License-Identifier: Apache-2.0
"""Cross-compiles the C core for aarch64 and runs programs of tests/core under qemu, on CPUs with and without what tiers need.

Needs what Debian calls qemu-user, gcc-aarch64-linux-gnu and libc6-dev-arm64-cross; in CI it is a failure not to have
them. Emulation is slow: programs run where tiers differ, on few types, as many at once as there are processors.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from test_core import CORE, OF_MODELS, compile_core, link_program

COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
MISSING = [program for program in (COMPILER, EMULATOR) if not shutil.which(program)]
pytestmark = pytest.mark.skipif(bool(MISSING) and not os.environ.get("CI"), reason=f"needs {' and '.join(MISSING)}")
# A CPU that qemu knows, and the tiers that run on it, fastest last.
CPUS = {"cortex-a57": "scalar", "cortex-a76": "scalar neon", "max": "scalar neon neon_i8mm"}


class Run(NamedTuple):
    """Of a program of tests/core."""

    program: str
    arguments: tuple[str, ...] = ()
    cpu: str = "max"
    tier: str = ""

    def __call__(self, folder: Path) -> str:
        command = [EMULATOR, "-cpu", self.cpu, str(folder / self.program), *self.arguments]
        done = subprocess.run(command, env=os.environ | {"SLM_ISA": self.tier}, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        assert re.search(r"^[1-9]\d* passed, 0 failed$", done.stdout, re.MULTILINE)
        return done.stdout

    def __str__(self) -> str:
        return "-".join(filter(None, (self.program, self.cpu, self.tier)))


# The longest first.
MODELS = [*(Run(name, ("Q4_0",), tier="neon_i8mm") for name in OF_MODELS), Run("test_model", ("Q4_0",), tier="neon")]
KERNELS = [Run(name, ("neon", "neon_i8mm")) for name in ("test_kernels", "test_linear")]
HEADS = [Run("test_head", ("Q8_0", "Q4_K"), tier=tier) for tier in ("neon", "neon_i8mm")]
CHOICES = {Run("test_select", cpu=cpu): tiers for cpu, tiers in CPUS.items()}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[dict[Run, Future[str]]]:
    """Of the runs that the chosen tests ask for, all begun."""
    folder = tmp_path_factory.mktemp("aarch64")
    asked = {item.callspec.params["run"] for item in request.session.items if item.path == request.path}
    objects = compile_core(folder, COMPILER)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        programs = {run.program for run in asked}
        list(pool.map(lambda name: link_program(CORE / f"{name}.c", folder, objects, COMPILER, "-static"), programs))
        yield {run: pool.submit(run, folder) for run in [*MODELS, *KERNELS, *HEADS, *CHOICES] if run in asked}
        pool.shutdown(cancel_futures=True)  # what nobody waits for any more, after a failure with -x or Ctrl-C


@pytest.mark.parametrize("run", CHOICES, ids=str)
def test_the_fastest_tier_of_a_cpu_is_chosen(outputs: dict[Run, Future[str]], run: Run) -> None:
    tiers = CHOICES[run]
    assert outputs[run].result().startswith(f"{tiers.split()[-1]} of: {tiers}\n")


@pytest.mark.parametrize("run", KERNELS, ids=str)
def test_kernels_and_linears(outputs: dict[Run, Future[str]], run: Run) -> None:
    assert re.findall(r"^(\w+): [1-9]\d* checks$", outputs[run].result(), re.MULTILINE) == ["neon", "neon_i8mm"]


@pytest.mark.parametrize("run", [*HEADS, *MODELS], ids=str)
def test_program(outputs: dict[Run, Future[str]], run: Run) -> None:
    assert outputs[run].result()
