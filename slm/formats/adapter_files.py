# SPDX-License-Identifier: Apache-2.0
"""What readers of LoRA adapters produce: pairs of low-rank matrices by the modules that they change (Hu et al. 2021).

A module that gives y gives y + factor * B (A x) with the adapter. A is [rank, columns], B is [rows, rank]; of an embedding, whose
x picks one row, A has a row or a column for each token.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from slm.errors import quoted
from slm.formats.model_files import OpenFiles
from slm.formats.report import Report, listed
from slm.formats.tensors import TensorInfo

MAX_RANK = 1 << 16
MAX_ALPHA = 1e9


class Pair(NamedTuple):
    """a, b: the tensors; factor: alpha / rank, or as the files say; embeds: of an embedding."""

    a: TensorInfo
    b: TensorInfo
    factor: float
    embeds: bool


class AdapterFiles(OpenFiles):
    """An open adapter; a context manager. report: about the file that holds tensors; pairs: module, as the files name it -> Pair.

    name: a title. architecture: of the models that it is for, where the files say so. base: which model it was trained on, as the
    files say: a remark.
    """

    name: str
    base: str | None
    architecture: str | None = None
    pairs: Mapping[str, Pair]


def halves(
    tensors: Mapping[str, TensorInfo], suffixes: Sequence[tuple[str, str]], report: Report, hint: str
) -> dict[str, tuple[TensorInfo, TensorInfo, int]]:
    """module -> A, B and which of the suffixes their names have. hint: what an adapter holds, for the error about other tensors.

    Raises FormatError for a half without the other one, for matrices whose ranks differ and for what is no matrix;
    UnsupportedError for tensors that are none of an adapter's.
    """
    found: dict[str, dict[tuple[int, int], TensorInfo]] = {}
    others = []
    for name, tensor in tensors.items():
        ends = [(i, half) for i, pair in enumerate(suffixes) for half in (0, 1) if name.endswith(pair[half])]
        if not ends:
            others.append(quoted(name))
            continue
        found.setdefault(name.removesuffix(suffixes[ends[0][0]][ends[0][1]]), {})[ends[0]] = tensor
    if others:
        raise report.unsupported("TENSORS", None, "tensors", hint, listed(others))
    if not found:
        raise report.bad("TENSORS", None, "tensors", hint, "none")
    pairs = {}
    for module, parts in found.items():
        kinds = {kind for kind, _ in parts}
        kind = min(kinds)
        a_name, b_name = (quoted(module + suffix) for suffix in suffixes[kind])
        if len(parts) != 2 or len(kinds) != 1:
            names = " and ".join(quoted(tensor.name) for tensor in parts.values())
            raise report.bad("TENSORS", None, f"tensors of {quoted(module)}", f"{a_name} and {b_name}", f"only {names}")
        a, b = parts[kind, 0], parts[kind, 1]
        for tensor in (a, b):
            if len(tensor.shape) != 2 or 0 in tensor.shape:
                raise report.bad("TENSORS", tensor.header_offset, f"tensor {quoted(tensor.name)}", "a matrix", list(tensor.shape))
        pairs[module] = a, b, kind
    return pairs
