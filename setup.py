# SPDX-License-Identifier: Apache-2.0
"""Builds slm._core: the C core and its Python boundary in one abi3 extension module.

Environment switches: SLM_SANITIZE=1 (ASan and UBSan), SLM_COVERAGE=1 (gcov), SLM_DEBUG=1 (-O0 -g), SLM_BLIS=0 (do not link BLIS).
"""

import os
import platform
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
MACHINES = {("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")}


def switch(name: str, default: str = "0") -> bool:
    return os.environ.get(name, default) not in ("", "0")


def find_blis() -> tuple[Path, Path] | None:
    """The static archive and header of BLIS without threads of its own (Debian: libblis-serial-dev)."""
    if not switch("SLM_BLIS", "1"):
        return None
    multiarch = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    for lib, include in (
        (Path("/usr/lib") / multiarch / "blis-serial", Path("/usr/include") / multiarch / "blis-serial"),
        (Path("/opt/homebrew/lib"), Path("/opt/homebrew/include/blis")),
        (Path("/usr/local/lib"), Path("/usr/local/include/blis")),
    ):
        if (lib / "libblis.a").exists() and (include / "blis.h").exists():
            return lib / "libblis.a", include
    return None


def extension() -> Extension:
    compile_args = ["-std=c11", "-O3", "-fno-math-errno", "-ffp-contract=off", "-fvisibility=hidden"]
    compile_args += ["-Wall", "-Wextra", "-Wshadow", "-Wvla", "-Wstrict-prototypes", "-Wmissing-prototypes", "-Werror=implicit"]
    link_args: list[str] = []
    macros = [("Py_LIMITED_API", "0x030b0000"), ("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION"), ("_GNU_SOURCE", None)]
    include_dirs = [str(ROOT / "csrc"), numpy.get_include()]
    if switch("SLM_WERROR"):
        compile_args += ["-Werror"]
    if switch("SLM_DEBUG"):
        compile_args += ["-O0", "-g", "-UNDEBUG"]
    if switch("SLM_SANITIZE"):
        flags = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
        compile_args += [*flags, "-UNDEBUG"]
        link_args += flags
    if switch("SLM_COVERAGE"):
        compile_args += ["-O0", "-g", "--coverage", "-UNDEBUG"]
        link_args += ["--coverage"]
    blis = find_blis()
    extra_objects = []
    if blis:
        macros.append(("SLM_HAVE_BLIS", "1"))
        compile_args += ["-isystem", str(blis[1])]  # its header does not build without warnings
        extra_objects.append(str(blis[0]))
    sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.c"))
    return Extension(
        "slm._core",
        sources=sources,
        depends=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*") if p.suffix in (".h", ".inc")),
        include_dirs=include_dirs,
        define_macros=macros,
        extra_objects=extra_objects,
        extra_compile_args=compile_args,
        extra_link_args=[*link_args, "-pthread", "-lm"],
        py_limited_api=True,
    )


class BuildFilesTogether(build_ext):
    """Compiles as many files at once as there are processors; setuptools compiles the files of one extension in turn."""

    def build_extension(self, ext: Extension) -> None:
        compile_in_turn = self.compiler.compile

        def compile_together(sources: list[str], **arguments: object) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = list(pool.map(lambda source: compile_in_turn([source], **arguments), sources))
            return [name for names in objects for name in names]

        self.compiler.compile = compile_together
        super().build_extension(ext)


if (sys.platform, platform.machine()) not in MACHINES:
    sys.exit(f"slm builds on Linux x86-64 and aarch64 and on macOS arm64; this is {sys.platform} {platform.machine()}")

# force: objects of a build with other switches would look up to date.
setup(
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildFilesTogether},
    options={"bdist_wheel": {"py_limited_api": "cp311"}, "build_ext": {"force": True}},
)
