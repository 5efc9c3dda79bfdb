# SPDX-License-Identifier: Apache-2.0
"""Builds the C core without Python headers and runs the test programs of tests/core, on every kernel tier this machine has.

SLM_SANITIZE=1 builds it with AddressSanitizer and UBSan, as .ci/run does.
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slm import _core

ROOT = Path(__file__).parent.parent
PROGRAMS = sorted((ROOT / "tests" / "core").glob("test_*.c"))
SANITIZE = os.environ.get("SLM_SANITIZE", "0") not in ("", "0")
TIERS = _core.cpu_info()["supported"]
# A program that reads SLM_ISA runs once per tier; the others go through all tiers themselves, or need none.
RUNS = [(p.stem, tier) for p in PROGRAMS for tier in (TIERS if "SLM_ISA" in p.read_text() else ["scalar"])]
if len(TIERS) > 1:  # minutes each; test_kernels goes through those tiers' kernels all the same
    RUNS = [run for run in RUNS if run != ("test_model", "scalar") and (run != ("test_model", TIERS[-2]) or not SANITIZE)]
COMPILER = os.environ.get("CC", "cc")
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Werror"]
FLAGS = ["-std=c11", "-O2", "-g", "-UNDEBUG", "-D_GNU_SOURCE", "-fno-math-errno", "-ffp-contract=off", *WARNINGS]
if SANITIZE:
    FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def compile_object(source: Path, folder: Path, compiler: str) -> Path:
    target = folder / ("_".join(source.relative_to(ROOT).parts) + ".o")
    command = [compiler, *FLAGS, f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests' / 'core'}", "-c", str(source)]
    done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
    assert done.returncode == 0, f"{source}:\n{done.stderr[-4000:]}"
    return target


def link_program(source: Path, folder: Path, objects: list[Path], compiler: str, *options: str) -> Path:
    program = folder / source.stem
    main = compile_object(source, folder, compiler)
    command = [compiler, *FLAGS, *options, str(main), *map(str, objects), "-pthread", "-lm", "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def compile_core(folder: Path, compiler: str) -> list[Path]:
    """The whole core, without BLIS and without csrc/python."""
    sources = [p for p in sorted((ROOT / "csrc").rglob("*.c")) if p.parent.name != "python"]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda source: compile_object(source, folder, compiler), sources))


@pytest.fixture(scope="session")
def core_objects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("core")
    return folder, compile_core(folder, COMPILER)


@pytest.mark.parametrize(("name", "tier"), RUNS)
def test_program(core_objects: tuple[Path, list[Path]], name: str, tier: str) -> None:
    folder, objects = core_objects
    program = folder / name
    if not program.exists():
        link_program(ROOT / "tests" / "core" / f"{name}.c", folder, objects, COMPILER)
    environment = {**os.environ, "SLM_ISA": tier, "ASAN_OPTIONS": "allocator_may_return_null=1"}
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=900, env=environment)
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert re.search(r"^[1-9]\d* passed, 0 failed$", done.stdout, re.MULTILINE)


def test_benchmark_of_kernels(core_objects: tuple[Path, list[Path]]) -> None:
    """The program of benchmarks/kernels.py runs every kernel it measures, if too briefly for its figures to mean anything."""
    folder, objects = core_objects
    tier = _core.cpu_info()["supported"][-1]
    program = link_program(ROOT / "benchmarks" / "kernels.c", folder, objects, COMPILER)
    done = subprocess.run([str(program), "0.00001", "1", tier], capture_output=True, text=True, timeout=300, check=True)
    figures = [line.split("\t") for line in done.stdout.splitlines()]
    assert {name for name, what, _ in figures if what == "GEMM MAC/cycle"} >= {"F32", "F16", "BF16", "Q8_0", "Q4_K", "IQ4_XS"}
    assert all(float(figure) > 0 for _, _, figure in figures)
