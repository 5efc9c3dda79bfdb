# SPDX-License-Identifier: Apache-2.0
"""How a configuration says that positions are rotated: fields of rope_parameters -> angles, and how far they reach."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from slm.errors import quoted
from slm.families import rope
from slm.families.config import MAX_CONTEXT, MAX_HEAD_DIM
from slm.formats.model_files import ModelFiles
from slm.formats.report import REQUIRED

KINDS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")
SYNONYMS = {"none": "default", "su": "longrope"}  # GGUF's word; the first published one
MAX_FACTOR = 1e3  # of cosines and sines
GLOBAL, LOCAL = "full_attention", "sliding_attention"


class Positions(NamedTuple):
    """fields: of slm_config. contexts: the one to load without being asked, and the longest that may be asked for."""

    fields: dict[str, Any]
    contexts: tuple[int, int]


class Scaled(NamedTuple):
    table: rope.Rope
    contexts: tuple[int, int]


def no_rope() -> dict[str, Any]:
    return {"rotary_dim": 0, "rope_inv_freq": np.zeros(0, np.float32)}


def read_rope(
    files: ModelFiles, config: Mapping[str, Any], context: int | None, *, theta: float = 10_000.0, partial: float = 1.0
) -> Positions:
    """Of families with one kind of rope. context: positions wanted, None for the default. theta, partial: of a config.json that
    does not say."""
    dim = read_rotary_dim(files, config, "rope_parameters", partial)
    scaled = read_scaled(files, config, context, "rope_parameters", theta, dim)
    return Positions({"rotary_dim": dim, **fields_of(scaled.table)}, scaled.contexts)


def read_two_ropes(
    files: ModelFiles, config: Mapping[str, Any], context: int | None, *, theta: float, local_theta: float
) -> Positions:
    """Table 0 for layers that see everything, table 1 for those with a window."""
    dims = [read_rotary_dim(files, config, f"rope_parameters.{kind}", 1.0) for kind in (GLOBAL, LOCAL)]
    if dims[0] != dims[1]:
        raise files.unsupported(f"rope_parameters.{LOCAL}.partial_rotary_factor", f"{dims[0]} rotated elements", dims[1])
    scaled = read_scaled(files, config, context, f"rope_parameters.{GLOBAL}", theta, dims[0])
    local = read_scaled(files, config, context, f"rope_parameters.{LOCAL}", local_theta, dims[0])
    if local.table.factor != scaled.table.factor:
        raise files.unsupported(f"rope_parameters.{LOCAL}.rope_type", "the factor of the other layers", local.table.factor)
    return Positions({"rotary_dim": dims[0], **fields_of(scaled.table, local.table)}, scaled.contexts)


def fields_of(*tables: rope.Rope) -> dict[str, Any]:
    return {"rope_inv_freq": np.concatenate([table.inv_freq for table in tables]), "rope_factor": tables[0].factor}


def read_rotary_dim(files: ModelFiles, config: Mapping[str, Any], place: str, partial: float) -> int:
    head_dim = config["head_dim"]
    dim = files.uint("rotary_dim", 2, MAX_HEAD_DIM, head_dim) if files.is_gguf else None
    name = "rotary_dim" if files.is_gguf else f"{place}.partial_rotary_factor"
    if dim is None:
        dim = int(head_dim * files.float(name, 0, 1, partial))
    if dim % 2 or not 2 <= dim <= head_dim:
        raise files.bad(name, f"an even number of elements, at most head_dim {head_dim}", dim)
    return dim


def read_scaled(files: ModelFiles, config: Mapping[str, Any], context: int | None, place: str, theta: float, dim: int) -> Scaled:
    """The angles as rope_type wants them, all of them finite."""
    scaled = read_any(files, config, context, place, theta, dim)
    if not (np.isfinite(scaled.table.inv_freq).all() and 0 < scaled.table.factor < MAX_FACTOR):
        raise files.bad(f"{place}.rope_type", "parameters that give finite angles", "others")
    return scaled


def read_any(files: ModelFiles, config: Mapping[str, Any], context: int | None, place: str, theta: float, dim: int) -> Scaled:
    def number(name: str, default: Any = REQUIRED, low: float = 1e-6, high: float = 1e6) -> Any:
        return files.float(f"{place}.{name}", low, high, default)

    trained = config["max_position_embeddings"]
    theta = number("rope_theta", theta, 1.0, 1e12)
    plain = rope.default(theta, dim)
    factors = files.floats(f"{place}.factors", dim // 2, None) if files.is_gguf else None  # no such field in a config.json
    short, long = (files.floats(f"{place}.{name}_factor", dim // 2, None) for name in ("short", "long"))
    kind = files.string(f"{place}.rope_type", "default" if long is None else "longrope")
    kind = SYNONYMS.get(kind, kind)
    if kind not in KINDS or (factors is not None and kind != "default") or (long is not None and kind != "longrope"):
        raise files.unsupported(f"{place}.rope_type", ", ".join(map(repr, KINDS)), quoted(kind))
    # Some name it where it means nothing.
    original = files.uint(f"{place}.original_max_position_embeddings", 1, MAX_CONTEXT, trained)
    if kind == "default":
        table = plain if factors is None else rope.Rope(plain.inv_freq / factors)
        return Scaled(table, (trained, trained))
    if kind == "linear":
        return Scaled(rope.linear(theta, dim, number("factor")), (trained, trained))
    if kind == "dynamic":
        factor = number("factor", low=0.999)
        if dim < 4:
            raise files.unsupported(f"{place}.rope_type", "at least 4 rotated elements for 'dynamic'", dim)
        table = rope.dynamic(theta, dim, factor, trained, context or trained)
        return Scaled(table, (trained, int(trained * factor)))
    attention_factor = number("attention_factor", None)
    if original < 2 or theta < 1.001:
        raise files.bad(f"{place}.original_max_position_embeddings", "at least 2, and rope_theta above 1", original)
    if kind == "longrope":
        if short is None or long is None:
            found = "'longrope' without one of them"
            raise files.unsupported(f"{place}.rope_type", "short and long factors for each pair with 'longrope'", found)
        scale = number("factor", trained / original)
        chosen = long if (context or original) > original else short
        table = rope.longrope(theta, dim, chosen, scale=scale, original=original, attention_factor=attention_factor)
        return Scaled(table, (original, trained))
    factor = number("factor")
    longest = max(trained, int(original * factor))
    if kind == "llama3":
        low, high = number("low_freq_factor"), number("high_freq_factor")
        if low >= high:
            raise files.bad(f"{place}.high_freq_factor", f"above low_freq_factor {low}", high)
        table = rope.llama3(theta, dim, factor, original, low, high)
        return Scaled(table, (trained, longest))
    betas = {"beta_fast": number("beta_fast", 32.0), "beta_slow": number("beta_slow", 1.0)}
    mscale, mscale_all_dim = number("mscale", None, -1e-9), number("mscale_all_dim", None, -1e-9)
    if attention_factor is None and mscale and mscale_all_dim:
        attention_factor = rope.yarn_factor(factor, mscale) / rope.yarn_factor(factor, mscale_all_dim)
    if files.is_gguf and attention_factor is not None:  # which means it on top of the usual one
        attention_factor *= rope.yarn_factor(factor)
    truncate = files.bool(f"{place}.truncate", True)
    table = rope.yarn(theta, dim, factor, original, **betas, attention_factor=attention_factor, truncate=truncate)
    return Scaled(table, (trained, longest))
