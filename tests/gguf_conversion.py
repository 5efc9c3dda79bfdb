# SPDX-License-Identifier: Apache-2.0
"""What converters of published GGUF files do to the tensors of a Hugging Face model, in NumPy."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


def convert(arrays: Mapping[str, np.ndarray], names: Mapping[str, str], changes: Sequence[Sequence[Any]]) -> Arrays:
    """names: modules without their prefix -> names of GGUF. changes: (function of this module, arguments ...) in turn."""
    renamed = {gguf_name(name, names): array for name, array in arrays.items()}
    for function, *arguments in changes:
        renamed = CHANGES[function](renamed, *arguments)
    return renamed


def gguf_name(parameter: str, names: Mapping[str, str]) -> str:
    """model.layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight"""
    parts = parameter.split(".")
    kind, parts = parts[-1], parts[:-1]
    number = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if number is None:
        return f"{names[parts[-1]]}.{kind}"
    return f"blk.{parts[number]}.{names['.'.join(parts[number + 1 :])]}.{kind}"


def pairs_together(arrays: Arrays, n_heads: int, n_kv_heads: int) -> Arrays:
    """Rows of q and k so that rope pairs (i, i + n/2) become (2i, 2i + 1)."""
    for name, array in arrays.items():
        for part, heads in ((".attn_q.", n_heads), (".attn_k.", n_kv_heads)):
            if part in name:
                arrays[name] = array.reshape(heads, 2, -1, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    return arrays


def one_plus_norms(arrays: Arrays) -> Arrays:
    return {name: array + 1 if "norm" in name and name.endswith("weight") else array for name, array in arrays.items()}


def transposed(arrays: Arrays) -> Arrays:
    kinds = (".attn_qkv.weight", ".attn_output.weight", ".ffn_up.weight", ".ffn_down.weight")
    return {name: array.T if name.endswith(kinds) else array for name, array in arrays.items()}


def heads_apart(arrays: Arrays, n_heads: int) -> Arrays:
    """[head][q, k, v] rows become all q, all k, all v."""
    for name, array in arrays.items():
        if "attn_qkv" in name:
            arrays[name] = array.reshape(n_heads, 3, -1, *array.shape[1:]).swapaxes(0, 1).reshape(array.shape)
    return arrays


def norms_together(arrays: Arrays) -> Arrays:
    """The rows of blk.0.attn_q_norm are blk.0.attn_q_norm.0, .1 and so on."""
    joined: Arrays = {name: array for name, array in arrays.items() if not re.search(r"_norm\.\d", name)}
    rows = sorted(arrays.keys() - joined.keys(), key=lambda name: int(name.split(".")[3]))
    for name in rows:
        whole = re.sub(r"_norm\.\d+", "_norm", name)
        joined[whole] = np.concatenate([joined.get(whole, np.empty((0, arrays[name].size), arrays[name].dtype)), [arrays[name]]])
    return joined


def qkv_together(arrays: Arrays) -> Arrays:
    """attn_q, attn_k and attn_v one below the other in attn_qkv, as some files of Phi 2 have it."""
    joined: Arrays = {}
    for name, array in arrays.items():
        if ".attn_q." in name:
            joined[name.replace(".attn_q.", ".attn_qkv.")] = np.concatenate(
                [array, arrays[name.replace("_q.", "_k.")], arrays[name.replace("_q.", "_v.")]]
            )
        elif ".attn_k." not in name and ".attn_v." not in name:
            joined[name] = array
    return joined


CHANGES = {f.__name__: f for f in (pairs_together, one_plus_norms, transposed, heads_apart, norms_together, qkv_together)}
