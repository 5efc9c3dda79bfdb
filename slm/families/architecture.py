# SPDX-License-Identifier: Apache-2.0
"""What every family produces, and the one way all of them match a file's tensors against what the model needs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from slm import _core
from slm.errors import quoted
from slm.families.vocabulary import Vocabulary
from slm.formats.gguf import GGUF
from slm.formats.tensors import TensorInfo

MAX_LISTED = 8  # of each kind of problem in one message


@dataclass(frozen=True)
class Architecture:
    """One model, ready for `_core.Model(config, weights, ...)`.

    config, weights: the fields of slm_config and slm_weights in csrc/slm.h by name; the weights point into an open file.
    context_length: positions the model was trained for. vocabulary: None when the file holds no tokenizer. default_context: what
    a session holds unless asked otherwise.
    """

    family: str
    config: Mapping[str, Any]
    weights: Mapping[str, Any]
    context_length: int
    vocabulary: Vocabulary | None
    default_context: int


class Expected(NamedTuple):
    """A tensor that the model needs. shape: row-major; a vector [n] crosses the boundary as one row."""

    shape: tuple[int, ...]
    optional: bool = False


class Tensors:
    """The tensors of one GGUF file, matched against the whole list of expected ones before the first is used."""

    def __init__(self, gguf: GGUF, expected: Mapping[str, Expected]) -> None:
        """Raises FormatError that lists all missing, mismatched and unexpected tensors; UnsupportedError when all there is
        against the file are tensors that the family does not know, or types that the core cannot pack."""
        self._gguf = gguf
        self._check_names(expected)
        self._check_types()

    def rows(self, name: str, start: int, count: int) -> tuple[str, int, int, int, int] | None:
        """(type, file descriptor, byte offset, rows, cols) of some rows of a matrix, or elements of a vector, which is one row;
        None for an optional tensor that is not there."""
        info = self._gguf.tensors.get(name)
        if info is None:
            return None
        offset = info.offset + start * (info.size // info.shape[0])
        rows, cols = (count, info.shape[1]) if len(info.shape) > 1 else (1, count)
        return info.type.name, info.file.fileno(), offset, rows, cols

    def _check_names(self, expected: Mapping[str, Expected]) -> None:
        found = self._gguf.tensors
        missing = [f"{name} {list(e.shape)}" for name, e in expected.items() if name not in found and not e.optional]
        mismatched = [
            f"{name} {list(found[name].shape)} instead of {list(e.shape)}"
            for name, e in expected.items()
            if name in found and found[name].shape != e.shape
        ]
        unexpected = [quoted(name) for name in found if name not in expected]
        problems = [listed("missing", missing), listed("of the wrong shape", mismatched), listed("unexpected", unexpected)]
        if any(problems):
            build = self._gguf.report.bad if missing or mismatched else self._gguf.report.unsupported
            raise build("TENSORS", None, "tensors", None, "; ".join(filter(None, problems)))

    def _check_types(self) -> None:
        wrong = unsupported_tensors(self._gguf.tensors.values())
        if wrong:
            found = listed("", [f"{quoted(tensor.name)} of {tensor.type.name}" for tensor in wrong])
            raise wrong[0].file.report.unsupported("TYPES", wrong[0].header_offset, "tensors", ", ".join(_core.types()), found)


def unsupported_tensors(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    """Those whose type the core cannot pack."""
    known = _core.types()
    return [tensor for tensor in tensors if tensor.type.name not in known]


def listed(label: str, items: Sequence[str]) -> str:
    """ "label: a, b and 3 more", or "" for no items."""
    if not items:
        return ""
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return f"{label}{': ' if label else ''}{', '.join(items[:MAX_LISTED])}{more}"
