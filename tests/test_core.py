# SPDX-License-Identifier: Apache-2.0
"""Builds the C core without Python headers and runs the test programs of tests/core, on every kernel tier this machine has.

SLM_SANITIZE=1 builds it with AddressSanitizer and UBSan, as .ci/run does.
"""

import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from slm import _core

ROOT = Path(__file__).parent.parent
CORE = ROOT / "tests" / "core"
PRETENDED = CORE / "pretended_cpu.c"
PROGRAMS = sorted(CORE.glob("test_*.c"))
SANITIZE = os.environ.get("SLM_SANITIZE", "0") not in ("", "0")
TIERS = _core.cpu_info()["supported"]
# A program that reads SLM_ISA runs once per tier; the others go through all tiers themselves, or need none.
RUNS = [(p.stem, tier) for p in PROGRAMS for tier in (TIERS if "SLM_ISA" in p.read_text() else ["scalar"])]
OF_MODELS = [p.stem for p in PROGRAMS if '"tiny_model.h"' in p.read_text()]
if len(TIERS) > 1:  # minutes together; test_kernels goes through those tiers' kernels all the same
    LEFT_OUT = ["scalar", *([TIERS[-2]] if SANITIZE else [])]
    RUNS = [(name, tier) for name, tier in RUNS if name not in OF_MODELS or tier not in LEFT_OUT]
COMPILER = os.environ.get("CC", "cc")
WARNINGS = ["-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Werror"]
# Debug information takes long to make of what is unrolled; sanitizers need its lines alone.
OPTIMIZED = ["-O1", "-g1"] if SANITIZE else ["-O2"]
FLAGS = ["-std=c11", *OPTIMIZED, "-UNDEBUG", "-D_GNU_SOURCE", "-fno-math-errno", "-ffp-contract=off", *WARNINGS]
if SANITIZE:
    FLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]


def compile_object(source: Path, folder: Path, compiler: str) -> Path:
    """By way of assembly, which stays beside the object."""
    target = folder / ("_".join(source.relative_to(ROOT).parts) + ".o")
    assembly = target.with_suffix(".s")
    command = [compiler, *FLAGS, f"-I{ROOT / 'csrc'}", f"-I{CORE}", "-S", str(source)]
    done = subprocess.run([*command, "-o", str(assembly)], capture_output=True, text=True)
    assert done.returncode == 0, f"{source}:\n{done.stderr[-4000:]}"
    subprocess.run([compiler, "-c", str(assembly), "-o", str(target)], check=True)
    return target


def link(program: Path, objects: list[Path], compiler: str, *options: str) -> Path:
    command = [compiler, *FLAGS, *options, *map(str, objects), "-pthread", "-lm", "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def link_program(source: Path, folder: Path, objects: list[Path], compiler: str, *options: str) -> Path:
    return link(folder / source.stem, [compile_object(source, folder, compiler), *objects], compiler, *options)


def compile_core(folder: Path, compiler: str) -> list[Path]:
    """The whole core, without BLIS and without csrc/python."""
    sources = [p for p in sorted((ROOT / "csrc").rglob("*.c")) if p.parent.name != "python"]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda source: compile_object(source, folder, compiler), sources))


@pytest.fixture(scope="session")
def core_objects(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("core")
    return folder, compile_core(folder, COMPILER)


def run_program(program: Path, *arguments: str, **variables: str) -> str:
    environment = {**os.environ, "ASAN_OPTIONS": "allocator_may_return_null=1", **variables}
    done = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=900, env=environment)
    sys.stdout.write(done.stdout)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert re.search(r"^[1-9]\d* passed, 0 failed$", done.stdout, re.MULTILINE)
    return done.stdout


@pytest.mark.parametrize(("name", "tier"), RUNS)
def test_program(core_objects: tuple[Path, list[Path]], name: str, tier: str) -> None:
    folder, objects = core_objects
    program = folder / name
    if not program.exists():
        link_program(CORE / f"{name}.c", folder, objects, COMPILER)
    run_program(program, SLM_ISA=tier)


def check_benchmark(program: Path, tier: str, **variables: str) -> None:
    command = [str(program), "0.00001", "1", tier]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, env=os.environ | variables)
    figures = [line.split("\t") for line in done.stdout.splitlines()]
    assert {name for name, what, _ in figures if what == "GEMM MAC/cycle"} >= {"F32", "F16", "BF16", "Q8_0", "Q4_K", "IQ4_XS"}
    assert all(float(figure) > 0 for _, _, figure in figures)


def test_benchmark_of_kernels(core_objects: tuple[Path, list[Path]]) -> None:
    """The program of benchmarks/kernels.py runs every kernel it measures, if too briefly for its figures to mean anything."""
    folder, objects = core_objects
    check_benchmark(link_program(ROOT / "benchmarks" / "kernels.c", folder, objects, COMPILER), TIERS[-1])


def test_clocks_of_time_split_fit_the_core(tmp_path: Path) -> None:
    """What benchmarks/time_split.c puts in front of functions of the core is declared as their headers declare them."""
    compile_object(ROOT / "benchmarks" / "time_split.c", tmp_path, COMPILER)


# ---- tiers of x86-64 on a CPU that is not this one: kernels/select.c asks tests/core/pretended_cpu.c what it has -------------

on_x86 = pytest.mark.skipif((sys.platform, platform.machine()) != ("linux", "x86_64"), reason="tiers of x86-64")
# What a CPU has, and the tiers that run on it, fastest last.
CPUS = {
    "": "scalar",
    "avx2": "scalar avx2",
    "avx2 avx_vnni": "scalar avx2 avx2_vnni",
    "avx2 avx512_vnni": "scalar avx2 avx512",
    "avx2 avx_vnni avx512_vnni": "scalar avx2 avx2_vnni avx512",
    "avx2 avx_vnni avx512_vnni avx512_bf16": "scalar avx2 avx2_vnni avx512 avx512_bf16",
}
# Flags of /proc/cpuinfo that stand for what a tier needs.
NEEDS = {"scalar": set(), "avx2": {"avx2", "fma", "f16c"}}
NEEDS["avx2_vnni"] = NEEDS["avx2"] | {"avx_vnni"}
NEEDS["avx512"] = NEEDS["avx2"] | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"}
NEEDS["avx512_bf16"] = NEEDS["avx512"] | {"avx512_bf16"}


def in_evex(target: Path) -> Path:
    """The object again, with the instructions that ask for VEX in EVEX: vpdpbusd of AVX-VNNI as AVX-512 VNNI and VL know it."""
    assembly = target.with_suffix(".evex.s")
    assembly.write_bytes(target.with_suffix(".s").read_bytes().replace(b"{vex}", b"{evex}"))
    subprocess.run([COMPILER, "-c", str(assembly), "-o", str(assembly.with_suffix(".o"))], check=True)
    return assembly.with_suffix(".o")


def vnni_object(objects: list[Path]) -> Path:
    return next(target for target in objects if target.stem == "csrc_kernels_avx2_int8_vnni.c")


def pretending(source: Path, folder: Path, objects: list[Path]) -> Path:
    """The program, on a CPU that the variable CPU_HAS describes, where the tier avx2_vnni runs without AVX-VNNI."""
    vnni = vnni_object(objects)
    replaced = [in_evex(vnni), in_evex(compile_object(source, folder, COMPILER)), compile_object(PRETENDED, folder, COMPILER)]
    options = [f"-Wl,--wrap=slm_cpu_has_{name}" for name in ("avx2", "avx_vnni", "avx512_vnni", "avx512_bf16")]
    others = [target for target in objects if target != vnni]
    return link(folder / f"{source.stem}_pretending", [*replaced, *others], COMPILER, *options)


@on_x86
def test_the_fastest_tier_of_a_cpu_is_chosen(core_objects: tuple[Path, list[Path]]) -> None:
    program = pretending(CORE / "test_select.c", *core_objects)
    for features, tiers in CPUS.items():
        assert run_program(program, CPU_HAS=features).startswith(f"{tiers.split()[-1]} of: {tiers}\n")


@on_x86
def test_tiers_are_those_that_the_kernel_says_this_cpu_can_run() -> None:
    flags = set(re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split())
    assert [tier for tier, needs in NEEDS.items() if needs <= flags] == TIERS


@on_x86
def test_avx_vnni_without_avx512(core_objects: tuple[Path, list[Path]]) -> None:
    """The tier for CPUs without AVX-512 has none of its instructions, and what is tested instead differs in vpdpbusd alone."""

    def instructions(target: Path) -> list[tuple[str, str]]:
        command = ["objdump", "-d", str(target)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return re.findall(r"^ +[0-9a-f]+:\t([0-9a-f]{2}) [0-9a-f ]*\t(.*)$", text, re.MULTILINE)

    vnni = vnni_object(core_objects[1])
    shipped, tested = instructions(vnni), instructions(in_evex(vnni))
    dots = sum(text.startswith("{vex} vpdpbusd ") for _, text in shipped)
    assert dots > 0
    assert not [text for first, text in shipped if first == "62" or "zmm" in text]  # 62 begins EVEX
    assert [text.split()[0] for first, text in tested if first == "62"] == ["vpdpbusd"] * dots


@on_x86
@pytest.mark.skipif("avx512" not in TIERS, reason="needs AVX-512 VNNI, in whose encoding vpdpbusd of AVX-VNNI is run")
@pytest.mark.parametrize(
    ("name", "arguments"), [("test_kernels", ["avx2_vnni"]), *((name, ["Q4_0"]) for name in OF_MODELS), ("kernels", [])]
)
def test_avx_vnni_in_another_encoding(core_objects: tuple[Path, list[Path]], name: str, arguments: list[str]) -> None:
    source = ROOT / ("benchmarks" if name == "kernels" else "tests/core") / f"{name}.c"
    program, has = pretending(source, *core_objects), "avx2 avx_vnni"
    if name == "kernels":
        check_benchmark(program, "avx2_vnni", CPU_HAS=has)
    else:
        found = run_program(program, *arguments, CPU_HAS=has, SLM_ISA="avx2_vnni")
        assert name != "test_kernels" or re.search(r"^avx2_vnni: [1-9]\d* checks$", found, re.MULTILINE)
