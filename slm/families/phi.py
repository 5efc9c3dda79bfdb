# SPDX-License-Identifier: Apache-2.0
"""Phi 1.5 and 2 (parallel residual under one layer norm, biases everywhere), Phi 3 and 4-mini (fused matrices, longrope)."""

from typing import Any

from slm.errors import quoted
from slm.families import rope
from slm.families.architecture import Architecture
from slm.families.keys import (
    MAX_CONTEXT,
    Keys,
    read_config,
    read_rope,
    read_rotary_dim,
    read_theta,
    rope_fields,
)  # fmt: skip
from slm.families.layout import (
    ATTENTION,
    FUSED_ATTENTION,
    FUSED_QKV_BIAS,
    MODEL_WITH_BIAS,
    PLAIN_MLP,
    PRE_NORMS,
    QKV_BIAS,
    build,
)  # fmt: skip

MODEL_2 = MODEL_WITH_BIAS | {"lm_head": "output.weight", "lm_head_bias": "output.bias"}
LAYER_2 = {
    "input_layernorm": "attn_norm.weight", "input_layernorm_bias": "attn_norm.bias", "o_proj_bias": "attn_output.bias",
} | PLAIN_MLP  # fmt: skip
LAYER_3 = PRE_NORMS | FUSED_ATTENTION | {"gate_proj": "ffn_up.weight", "up_proj": "ffn_up.weight", "down_proj": "ffn_down.weight"}


def describe_2(keys: Keys) -> Architecture:
    config = read_config(keys, norm_kind="layer", hidden_act="gelu_tanh")
    config |= read_rope(keys, config) | {"parallel_residual": True}
    fused = "blk.0.attn_qkv.weight" in keys.gguf.tensors  # the order of both spellings of the published model
    attention = FUSED_ATTENTION | FUSED_QKV_BIAS if fused else ATTENTION | QKV_BIAS
    return build(keys, config, attention | LAYER_2, MODEL_2)


def describe_3(keys: Keys) -> Architecture:
    config = read_config(keys)
    original = keys.uint("rope.scaling.original_context_length", 1, MAX_CONTEXT, default=config["max_position_embeddings"])
    config |= {"rotary_dim": read_rotary_dim(keys, config)}
    default_context, fields = read_longrope(keys, config, original)
    window = keys.uint("attention.sliding_window", 0, MAX_CONTEXT, default=0)
    per_layer = [{"sliding_window": window}] * config["num_hidden_layers"]
    return build(keys, config | fields, LAYER_3, per_layer=per_layer, default_context=default_context)


def read_longrope(keys: Keys, config: dict[str, Any], original: int) -> tuple[int, dict[str, Any]]:
    """The context to load without being asked, and the angles: the short factors up to the original context, else the long."""
    dim, theta, trained = config["rotary_dim"], read_theta(keys, 10_000.0), config["max_position_embeddings"]
    short, long = (keys.vector(f"rope_factors_{name}.weight", dim // 2) for name in ("short", "long"))
    factor = keys.float("rope.scaling.attn_factor", 0.0, 1e3, default=None)
    kind = keys.string("rope.scaling.type", default="none")
    if short is None and long is None and kind == "none":
        return trained, rope_fields(rope.default(theta, dim))
    if short is None or long is None or kind not in ("none", "longrope"):
        expected = "'longrope', with rope_factors_short.weight and rope_factors_long.weight"
        raise keys.unsupported("rope.scaling.type", expected, quoted(kind))
    chosen = long if (keys.context or original) > original else short
    table = rope.longrope(theta, dim, chosen, trained=trained, original=original, attention_factor=factor)
    return original, rope_fields(table)
