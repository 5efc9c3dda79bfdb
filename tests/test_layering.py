# SPDX-License-Identifier: Apache-2.0
"""The room table of ARCHITECTURE.md, held against the source as text: who may include whom, and which words live where."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
C_FILES = sorted(p for p in CSRC.rglob("*") if p.suffix in (".c", ".h", ".inc"))
PY_FILES = sorted((ROOT / "slm").rglob("*.py"))

# Each room may include itself and these; slm.h is everybody's.
MAY_INCLUDE = {
    "base": set(),
    "quant": {"base"},
    "blas": {"base"},
    "kernels": {"base", "quant", "blas"},
    "ops": {"base", "quant", "kernels", "blas"},
    "model": {"base", "quant", "kernels", "blas", "ops"},
    "text": {"base"},
    "generate": {"base", "model", "text"},
    "python": {"base", "kernels/layout.h", "text"},
}

# A word, and the only files where it may stand.
C_WORDS = [
    (r"\bPy(Object|_|Array|Err|Mem|Gil)\w*|<Python\.h>", r"python/"),
    (
        r"\b(_mm\d*_\w+|__m(128|256|512)\w*|v(ld|st|dot|fma|add|mul)\w*q_\w+|(u?int|float)\d+x\d+_t|immintrin\.h|arm_neon\.h)",
        r"kernels/(avx2|avx512|neon)/",
    ),
    (r"\bbli_\w+|\bBLIS_[A-Z]\w+|<blis\.h>", r"blas\.c"),
    (r"\bpthread_\w+", r"base/threads\.c"),
    (r"\b(malloc|calloc|realloc|aligned_alloc|strdup|free|mmap|munmap)\s*\(", r"base/alloc\.c|blas\.c"),
    (r"\bgetenv\s*\(", r"python/module\.c|blas\.c"),
    (r"\b(printf|fprintf|puts|abort|exit|_exit|longjmp|assert)\s*\(", r"(?!)"),
    (r"(?i)\b(llama|smollm|qwen|gemma|phi|mistral|tinyllama)\d*\b", r"(?!)"),
    (r"#\s*include\s*<(numpy/\w+)", r"python/arrays\.c"),
    (r"\b(pread|pwrite|lseek|fread|fwrite)\s*\(", r"model/load\.c"),
    (r"\b(fopen|open)\s*\(", r"base/cpu\.c"),
]

PYTHON_WORDS = [
    (r"\bprint\s*\(", r"cli/"),
    (r"(?i)\b(llama|smollm\d*|qwen\d*|gemma\d*|tinyllama|mistral)\b", r"families/|hub\.py|__init__\.py"),
    (r"\b(struct\.unpack|os\.pread|int\.from_bytes)\b|b\"GGUF\"", r"formats/"),
    (r"\bargparse\b|\bsys\.argv\b", r"cli/"),
    (r"\beval\(|\bexec\(|\bpickle\b|\bmmap\b", r"(?!)"),
    (r"errors\s*=\s*[\"']ignore", r"(?!)"),
]


def misplaced(words: list[tuple[str, str]], code: str, name: str) -> list[str]:
    found = ((m.group(0), rooms) for word, rooms in words for m in re.finditer(word, code))
    return [f"{word!r} belongs to {rooms}" for word, rooms in found if not re.match(rooms, name)]


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


def python_code(path: Path) -> str:
    """The source without docstrings and comments."""
    return ast.unparse(
        ast.fix_missing_locations(
            DropDocstrings().visit(ast.parse(path.read_text(encoding="utf-8"))),
        )
    )


class DropDocstrings(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [n for n in body if not (isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))]
            node.body = kept or [ast.Pass()]
        return node


def room_of(path: Path) -> str:
    relative = path.relative_to(CSRC)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize("path", C_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_c_file(path: Path) -> None:
    raw = path.read_text(encoding="utf-8")
    code, name = without_comments(raw), str(path.relative_to(CSRC))
    assert "SPDX-License-Identifier: Apache-2.0" in raw.splitlines()[0]
    wrong = [
        f"{m.group(0)!r} belongs to {rooms}"
        for word, rooms in C_WORDS
        for m in re.finditer(word, code)
        if not re.match(rooms, name)
    ]
    room = room_of(path)
    if room != "slm":
        for include in re.findall(r'#\s*include\s*"([^"]+)"', code):
            target = include.split("/")[0].removesuffix(".h") if "/" not in include else include.split("/")[0]
            if include not in ("slm.h", *MAY_INCLUDE[room]) and target not in (room, *MAY_INCLUDE[room]):
                wrong.append(f"includes {include}")
        if room == "kernels" and (tier := re.match(r"kernels/(\w+)/", name)):
            others = {"scalar", "avx2", "avx512", "neon"} - {tier.group(1)}
            wrong += [f"includes {i}" for i in re.findall(r'#\s*include\s*"kernels/(\w+)/', code) if i in others]
    assert not wrong


@pytest.mark.parametrize("path", PY_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_python_file(path: Path) -> None:
    code, name = python_code(path), str(path.relative_to(ROOT / "slm"))
    wrong = [
        f"{m.group(0)!r} belongs to {rooms}"
        for word, rooms in PYTHON_WORDS
        for m in re.finditer(word, code)
        if not re.match(rooms, name)
    ]
    if name.startswith("formats/") and re.search(r"from slm(\.| import )families", code):
        wrong.append("formats must not know families")
    assert not wrong


def test_no_library_is_called_for_what_slm_is_for() -> None:
    """Tokenizers, formats and arithmetic are our own: no other engine is imported by the package."""
    imports = {
        (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else alias.name.split(".")[0]
        for path in PY_FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not imports & {"torch", "transformers", "tokenizers", "gguf", "safetensors", "llama_cpp", "scipy"}
