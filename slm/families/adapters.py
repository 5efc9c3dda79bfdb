# SPDX-License-Identifier: Apache-2.0
"""Which linears of a model an adapter changes, whichever kind of files either came in: modules -> fields of slm_layer_weights.

A matrix that holds several fields has one A for all of them, and in B the rows of each. B follows the rows of the model's own
matrix: where GGUF files have these in another order than Hugging Face, so does a GGUF adapter.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from slm.errors import quoted
from slm.families.architecture import Architecture, labelled
from slm.families.layout import GROUPS, MLP, QKV, usual_shapes
from slm.families.registry import FAMILIES
from slm.formats.adapter_files import AdapterFiles, Pair
from slm.formats.gguf_names import TENSORS
from slm.formats.report import listed
from slm.formats.tensors import TensorInfo

LINEARS = frozenset((*QKV, "o_proj", *MLP, *GROUPS))
# How the names of modules begin in classes of Hugging Face: with a head or without, and of the text part of larger models.
PREFIXES = ("", "model.", "language_model.", "language_model.model.", "model.language_model.")
FLOATS = ("F32", "F16", "BF16")
# What GGUF files call models of these families, which have there the architecture of another one.
ALIASES = {"gemma3": "gemma3", "ministral": "llama", "mistral": "llama"}
Entry = tuple[str, int, tuple[Any, ...], tuple[Any, ...] | list[tuple[Any, ...]], float]  # of _core.Model.adapt


class Linear(NamedTuple):
    """A module that an adapter can change: the fields that lie in it, their rows, and its columns; of an embedding its tokens and
    their width. n_heads: how often the fields follow each other, a share of each at a time."""

    fields: Sequence[str]
    layer: int | None
    counts: Sequence[int]
    columns: int
    n_heads: int = 1


def linears_of(architecture: Architecture, in_gguf: bool) -> dict[str, Linear]:
    """By the names of an adapter: of tensors in GGUF, else of modules without their prefix."""
    layout, config = architecture.layout, architecture.config
    shape_of, named = usual_shapes(config), dict[str, Linear]()
    modules = {owner: module for owner, module in layout.layer.items() if owner in LINEARS}
    if in_gguf:  # where attention may be one matrix or three, whatever it is in the model
        modules = {owner: TENSORS[owner][0] for owner in (*modules, *QKV, "qkv_proj")}
    for layer in range(config["num_hidden_layers"]):
        for owner, module in modules.items():
            fields = GROUPS.get(owner, (owner,))
            n_heads = config["num_key_value_heads"] if layout.by_head and owner == "qkv_proj" and not in_gguf else 1
            name = f"blk.{layer}.{module}.weight" if in_gguf else f"{layout.layers}.{layer}.{module}"
            named[name] = Linear(fields, layer, [shape_of[f][0] for f in fields], shape_of[fields[0]][1], n_heads)
    ends = {"embed_tokens": layout.model["embed_tokens"]} | ({"lm_head": layout.head} if layout.head else {})
    for field, module in ends.items():
        name = f"{TENSORS[field][0]}.weight" if in_gguf else module
        named[name] = Linear((field,), None, shape_of[field][:1], shape_of[field][1])
    return named


def place(adapter: AdapterFiles, architecture: Architecture, scale: float) -> list[Entry]:
    """What _core.Model.adapt takes. scale: multiplies all that the adapter adds.

    Raises FormatError for an adapter of another model, UnsupportedError for tensors that are not of floats.
    """
    check_architecture(adapter, architecture)
    known = linears_of(architecture, adapter.is_gguf)
    prefixes = ("",) if adapter.is_gguf else sorted({*PREFIXES, architecture.layout.prefix}, key=len)
    found: dict[str, tuple[str, Pair]] = {}
    unknown, mismatched = [], []
    for module, pair in adapter.pairs.items():
        names = (module.removeprefix(prefix) for prefix in prefixes if module.startswith(prefix))
        name = next((name for name in names if name in known), None)
        embeds = name is not None and known[name].fields == ("embed_tokens",)
        if name is None or embeds != pair.embeds or name in found:
            unknown.append(quoted(pair.a.name))
            continue
        found[name] = module, pair
        expected = shapes(known[name], pair, adapter.is_gguf)
        mismatched += [
            f"{quoted(tensor.name)} {list(tensor.shape)} instead of {list(shape)}"
            for tensor, shape in zip((pair.a, pair.b), expected, strict=True)
            if tensor.shape != shape
        ]
    problems = [labelled("of the wrong shape", mismatched), labelled("of no linear layer of the model", unknown)]
    if any(problems):
        raise adapter.report.bad("TENSORS", None, "tensors", None, "; ".join(filter(None, problems)))
    check_types(adapter)
    reordered = architecture.layout.neighbours and adapter.is_gguf != architecture.is_gguf
    return [
        entry
        for name, (_, pair) in found.items()
        for entry in entries(known[name], pair, scale, adapter.is_gguf, architecture if reordered else None)
    ]


def check_architecture(adapter: AdapterFiles, architecture: Architecture) -> None:
    if adapter.architecture is None:
        return
    names = {family.model_type: family.architecture for family in FAMILIES} | ALIASES
    expected = architecture.family if architecture.is_gguf else names.get(architecture.family)
    if adapter.architecture != expected:
        wanted = quoted(expected) if expected else f"a PEFT folder, as slm reads no GGUF files of {quoted(architecture.family)}"
        found = quoted(adapter.architecture)
        raise adapter.report.bad("FOREIGN", None, "general.architecture", wanted, found)


def check_types(adapter: AdapterFiles) -> None:
    wrong = [tensor for pair in adapter.pairs.values() for tensor in (pair.a, pair.b) if tensor.type.name not in FLOATS]
    if wrong:
        found = listed([f"{quoted(tensor.name)} of {tensor.type.name}" for tensor in wrong])
        raise adapter.report.unsupported("TYPES", wrong[0].header_offset, "tensors", ", ".join(FLOATS), found)


def shapes(linear: Linear, pair: Pair, in_gguf: bool) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of A and B, with the rank that A has."""
    rows = sum(linear.counts)
    if not pair.embeds:
        return (pair.a.shape[0], linear.columns), (rows, pair.a.shape[0])
    rank = pair.a.shape[1 if in_gguf else 0]
    return (rows, rank) if in_gguf else (rank, rows), (linear.columns, rank)


def entries(linear: Linear, pair: Pair, scale: float, in_gguf: bool, reordered: Architecture | None) -> Iterator[Entry]:
    """reordered: the model whose rows of q and k have another order than those of B."""
    layer, factor, rank = linear.layer or 0, pair.factor * scale, pair.b.shape[1]
    if pair.embeds:
        tokens = sum(linear.counts)
        ld = () if in_gguf else (tokens,)
        a = (pair.a.type.name, pair.a.file.fileno(), pair.a.offset, tokens, rank, *ld)
        yield linear.fields[0], layer, a, rows_of(pair.b, 0, linear.columns), factor
        return
    counts = [count // linear.n_heads for count in linear.counts]
    for i, field in enumerate(linear.fields):
        starts = [head * sum(counts) + sum(counts[:i]) for head in range(linear.n_heads)]
        if reordered and field in ("q_proj", "k_proj"):
            pieces = [rows_of(pair.b, row, 1) for row in in_order(reordered, starts[0], counts[i])]
        else:
            pieces = [rows_of(pair.b, start, counts[i]) for start in starts]
        yield field, layer, rows_of(pair.a, 0, pair.a.shape[0]), pieces, factor


def in_order(architecture: Architecture, start: int, count: int) -> Iterator[int]:
    """Rows of heads as the model has them: rope pairs as neighbours in GGUF files, else half a head apart."""
    head_dim = architecture.config["head_dim"]
    half = head_dim // 2
    for head in range(start, start + count, head_dim):
        if architecture.is_gguf:
            yield from (head + side * half + i for i in range(half) for side in (0, 1))
        else:
            yield from (head + 2 * i + side for side in (0, 1) for i in range(half))


def rows_of(tensor: TensorInfo, start: int, count: int) -> tuple[Any, ...]:
    """(type, file descriptor, byte offset, rows, cols)"""
    row_bytes = tensor.size // tensor.shape[0]
    return (tensor.type.name, tensor.file.fileno(), tensor.offset + start * row_bytes, count, tensor.shape[1])
