# SPDX-License-Identifier: Apache-2.0
"""Named activations of a forward pass: which there are, what captures them, and what edits them."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slm.options import refuse_type, shown

if TYPE_CHECKING:
    from slm import _core

LAYER_SITES = ("attn_in", "attn_weights", "attn_out", "mlp_in", "mlp_out", "out")
SITES = ("embed", *(f"layer.<i>.{site}" for site in LAYER_SITES), "final_norm")

# A function of the rows of a site, [n, hidden_size] float32, that changes them in place or returns others. One that has a
# parameter named `positions` gets those too: int64 [n]
Edit = Callable[..., NDArray[np.floating] | None]
Activations = dict[str, NDArray[np.float32]]


def parse_site(parameter: str, name: Any) -> tuple[str, int]:
    """The site and its layer, 0 where it is of none."""
    if not isinstance(name, str):
        refuse_type(f"a site of {parameter}", "a str", name)
    if name in ("embed", "final_norm"):
        return name, 0
    match = re.fullmatch(r"layer\.(0|[1-9][0-9]{0,8})\.(\w+)", name, re.ASCII)
    if match and match[2] in LAYER_SITES:
        return match[2], int(match[1])
    near = get_close_matches(re.sub(r"[0-9]+", "<i>", name), SITES, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(SITES)}"
    raise ValueError(f"{parameter}: no site is named {shown(name)}; {hint}")


def check_capture(capture: Any) -> list[str]:
    names = [capture] if isinstance(capture, str) else capture
    if not isinstance(names, Iterable):
        refuse_type("capture", "names of sites", capture)
    names = list(names)
    for name in names:
        parse_site("capture", name)
    return list(dict.fromkeys(names))


def check_edit(edit: Any) -> dict[str, Edit]:
    if edit is None:
        return {}
    if not isinstance(edit, Mapping):
        refuse_type("edit", "a mapping of sites to functions", edit)
    for name, function in edit.items():
        if parse_site("edit", name)[0] == "attn_weights":
            from slm.errors import UnsupportedError

            raise UnsupportedError(f"edit: {name} can be captured, not edited: attention keeps no weights to change")
        if not callable(function):
            refuse_type(f"edit[{name!r}]", "a function of an array", function)
    return dict(edit)


def with_positions(function: Edit) -> Callable[[NDArray[np.float32], NDArray[np.int64]], Any]:
    try:
        wanted = "positions" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # builtin
        wanted = False
    return (lambda rows, positions: function(rows, positions=positions)) if wanted else lambda rows, positions: function(rows)


def edit_taps(edit: Mapping[str, Edit] | None) -> "tuple[_core.Tap, ...]":
    """As the core takes checked edits."""
    return tuple((*parse_site("edit", name), with_positions(function)) for name, function in (edit or {}).items())


def new_activations(names: Sequence[str], n_tokens: int, stats: "_core.Stats") -> Activations:
    """Arrays for what a forward pass over so many tokens captures."""
    if not names:
        return {}
    from slm.info import available_memory, short_bytes

    shapes, last = {}, stats["num_hidden_layers"] - 1
    for name in names:
        site, layer = parse_site("capture", name)
        if layer > last:
            raise ValueError(f"capture: there is no {name}; the model has layers 0 to {last}")
        weights = site == "attn_weights"
        shapes[name] = (stats["num_attention_heads"], n_tokens, n_tokens) if weights else (n_tokens, stats["hidden_size"])
    size = 4 * sum(int(np.prod(shape, dtype=object)) for shape in shapes.values())
    if size > (available := available_memory()):
        raise MemoryError(f"what capture asks for takes {short_bytes(size)}, and {short_bytes(available)} are available")
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def capture_taps(arrays: Activations) -> "tuple[_core.Tap, ...]":
    return tuple((*parse_site("capture", name), array) for name, array in arrays.items())
