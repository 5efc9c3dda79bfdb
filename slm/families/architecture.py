# SPDX-License-Identifier: Apache-2.0
"""What every family produces, and the one way all of them match the tensors of a model against what it needs."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from slm import _core
from slm.errors import quoted
from slm.formats.model_files import ModelFiles
from slm.formats.report import listed
from slm.formats.tensors import TensorInfo

if TYPE_CHECKING:
    from slm.families.layout import Layout


@dataclass(frozen=True)
class Architecture:
    """One model, ready for `_core.Model(config, weights, ...)`.

    config, weights: the fields of slm_config and slm_weights in csrc/slm.h by name; the weights point into open files.
    context_length: positions the model was trained for. default_context: what a session holds unless asked otherwise;
    less than context_length where rope has other factors for more (longrope).
    longest_context: what may be asked for, where the scaling of positions reaches further than training did.
    layout: where the weights stood, in files of which is_gguf says the kind: what adapters are matched with.
    """

    family: str
    config: Mapping[str, Any]
    weights: Mapping[str, Any]
    context_length: int
    default_context: int
    longest_context: int
    is_gguf: bool
    layout: "Layout"


class Expected(NamedTuple):
    """A tensor that the model needs. shape: row-major."""

    shape: tuple[int, ...]
    optional: bool = False


class Tensors:
    """The tensors of a model, matched against the whole list of expected ones before the first is used."""

    def __init__(self, files: ModelFiles, expected: Mapping[str, Expected], unused: Collection[str]) -> None:
        """unused: tensors that may be there but are not needed.

        Raises FormatError that lists all missing, mismatched and unexpected tensors; UnsupportedError when all there is
        against the files are tensors that the family does not know, or types that the core cannot pack."""
        self._files = files
        self._check_names(expected, unused)
        check_types(files, (tensor for name, tensor in files.tensors.items() if name in expected))

    def rows(self, name: str, start: int, count: int, transposed: bool = False) -> tuple[Any, ...] | None:
        """(type, file descriptor, byte offset, rows, cols) of some rows of a matrix, or elements of a vector, which is one row;
        None for an optional tensor that is not there. transposed: rows are columns in the file, as the sixth element says."""
        info = self._files.tensors.get(name)
        if info is None:
            return None
        if len(info.shape) == 1:
            place, shape = start * info.size // info.shape[0], tuple[int, ...]((1, count))
        elif transposed:
            place, shape = start * info.type.block_bytes, (count, info.shape[0], info.shape[1])
        else:
            place, shape = start * (info.size // info.shape[0]), (count, info.shape[1])
        return (info.type.name, info.file.fileno(), info.offset + place, *shape)

    def _check_names(self, expected: Mapping[str, Expected], unused: Collection[str]) -> None:
        found, files = self._files.tensors, self._files
        missing = [f"{name} {list(e.shape)}" for name, e in expected.items() if name not in found and not e.optional]
        mismatched = [
            f"{name} {list(found[name].shape)} instead of {list(e.shape)}"
            for name, e in expected.items()
            if name in found and found[name].shape != e.shape
        ]
        unexpected = [quoted(name) for name in found if name not in expected and name not in unused and not files.is_known(name)]
        problems = [labelled("missing", missing), labelled("of the wrong shape", mismatched), labelled("unexpected", unexpected)]
        if any(problems):
            build = files.report.bad if missing or mismatched else files.report.unsupported
            raise build("TENSORS", None, "tensors", None, "; ".join(filter(None, problems)))


def check_types(files: ModelFiles, tensors: Iterable[TensorInfo]) -> None:
    """Raises UnsupportedError that lists those whose type the core cannot pack."""
    wrong = unsupported_tensors(tensors)
    if wrong:
        found = listed([f"{quoted(tensor.name)} of {tensor.type.name}" for tensor in wrong])
        raise files.report.unsupported("TYPES", wrong[0].header_offset, "tensors", ", ".join(_core.types()), found)


def unsupported_tensors(tensors: Iterable[TensorInfo]) -> list[TensorInfo]:
    """Those whose type the core cannot pack."""
    known = _core.types()
    return [tensor for tensor in tensors if tensor.type.name not in known]


def labelled(label: str, items: Sequence[str]) -> str:
    """ "label: a, b and 3 more", or "" for no items."""
    return f"{label}: {listed(items)}" if items else ""
