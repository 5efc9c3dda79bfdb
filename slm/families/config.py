# SPDX-License-Identifier: Apache-2.0
"""What the configurations of all families have in common: fields of config.json -> fields of slm_config."""

import math
from collections.abc import Callable
from typing import Any

from slm.errors import quoted
from slm.formats.model_files import ModelFiles
from slm.formats.report import REQUIRED

MAX_VOCAB = 1 << 20
MAX_HEADS = 1024
MAX_HEAD_DIM = 1024
MAX_CONTEXT = 1 << 24
EPS = {"rms": "rms_norm_eps", "layer": "layer_norm_eps"}

# Names of functions in Transformers -> slm_activation; a family's files may name any of them, GGUF files name none.
ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh", "relu2": "relu2",
}  # fmt: skip


def read_config(
    files: ModelFiles,
    *,
    norm_kind: str = "rms",
    hidden_act: str = "silu",
    kv_heads: int | None = None,
    mlp_factor: int | None = None,
) -> dict[str, Any]:
    """The fields of slm_config that all families have, without those of rope. Of files that do not say: hidden_act; kv_heads,
    None for as many as queries have; mlp_factor, how many times hidden_size the MLP is wide."""
    heads = files.uint("num_attention_heads", 1, MAX_HEADS)
    hidden_size = files.uint("hidden_size", 1, 1 << 16)
    kv_heads = files.uint("num_key_value_heads", 1, MAX_HEADS, kv_heads or heads)
    if heads % kv_heads:
        raise files.bad("num_key_value_heads", f"a divisor of {heads}", kv_heads)
    head_dim = files.uint("head_dim", 1, MAX_HEAD_DIM, None)
    if head_dim is None:
        if hidden_size % heads:
            raise files.bad("num_attention_heads", f"a divisor of hidden_size {hidden_size}", heads)
        head_dim = hidden_size // heads
    if head_dim % 2:
        raise files.unsupported("head_dim", "an even head_dim", head_dim)
    value_dim = files.uint("value_head_dim", 1, MAX_HEAD_DIM, head_dim) if files.is_gguf else head_dim
    if value_dim != head_dim:
        raise files.unsupported("value_head_dim", f"head_dim {head_dim}", value_dim)
    return {
        "vocab_size": files.uint("vocab_size", 1, MAX_VOCAB),
        "hidden_size": hidden_size,
        "intermediate_size": files.uint("intermediate_size", 1, 1 << 18, mlp_factor * hidden_size if mlp_factor else REQUIRED),
        "num_hidden_layers": files.uint("num_hidden_layers", 1, 1024),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": files.uint("max_position_embeddings", 1, MAX_CONTEXT),
        "norm_kind": norm_kind,
        "norm_eps": files.float(EPS[norm_kind], 0, 0.1),
        "hidden_act": read_activation(files, hidden_act),
        "rope_style": "half",
        "attention_scale": 1.0 / math.sqrt(head_dim),
    }


def read_activation(files: ModelFiles, default: str) -> str:
    name = files.string("hidden_act", default)
    if name not in ACTIVATIONS:
        raise files.unsupported("hidden_act", ", ".join(map(repr, ACTIVATIONS)), quoted(name))
    return ACTIVATIONS[name]


def one_plus_norms(files: ModelFiles) -> dict[str, Any]:
    """Norm weights w act as 1 + w; GGUF files hold the sum."""
    return {"norm_offset": 0.0 if files.is_gguf else 1.0}


def stated(files: ModelFiles, name: str, default: bool = False) -> bool | None:
    """Whether there are biases of some kind; None where only the tensors tell."""
    return None if files.is_gguf else files.bool(name, default)


def stated_or_there(files: ModelFiles, name: str, tensor: str) -> bool:
    """Whether there is what a config.json states; of GGUF files, whether the first layer has the tensor of this field."""
    if files.is_gguf:
        return f"{files.tensor_name(tensor, 0, '')}.weight" in files.tensors
    return bool(files.bool(name, False))


# ---- layers that differ ----------------------------------------------------------------------------------------------------


def read_window(files: ModelFiles, default: int = 0) -> int:
    """How many positions a layer with a window sees; 0: all. default: of a config.json that has no such field."""
    if files.is_null("sliding_window"):
        return 0
    return files.uint("sliding_window", 0, MAX_CONTEXT, 0 if files.is_gguf else default)


def local_layers(files: ModelFiles, n_layers: int, default: Callable[[int], bool]) -> list[bool]:
    """Which layers see only a window: as layer_types says, else `default` of the index."""
    types = files.strings("layer_types", n_layers, None)
    if types is None:
        return [default(i) for i in range(n_layers)]
    for name in types:
        if name not in ("full_attention", "sliding_attention"):
            raise files.unsupported("layer_types", "'full_attention' or 'sliding_attention'", quoted(name))
    return [name == "sliding_attention" for name in types]


def optional_windows(files: ModelFiles, n_layers: int) -> list[dict[str, int]]:
    """sliding_window of each layer, of families that have one only if use_sliding_window says so, from max_window_layers on."""
    if files.is_gguf:  # whose architectures of this kind have none
        return [{"sliding_window": 0}] * n_layers
    wanted, window = files.bool("use_sliding_window", False), read_window(files)
    first = files.uint("max_window_layers", 0, 1 << 20, 28)
    local = local_layers(files, n_layers, lambda i: wanted and i >= first)
    if any(local) and not wanted:
        raise files.unsupported("use_sliding_window", "true, as layer_types names layers with a window", "false")
    return [{"sliding_window": window if is_local else 0} for is_local in local]
