# SPDX-License-Identifier: Apache-2.0
"""GPT-2 (learned positions) and GPT-NeoX with Pythia (rope on part of a head, attention and MLP side by side)."""

from slm.families.architecture import Architecture
from slm.families.keys import Keys, no_rope, read_config, read_rope
from slm.families.layout import (
    FUSED_ATTENTION,
    FUSED_QKV_BIAS,
    MODEL_WITH_BIAS,
    PLAIN_MLP,
    PRE_NORM_BIASES,
    PRE_NORMS,
    build,
)  # fmt: skip

LAYER = PRE_NORMS | PRE_NORM_BIASES | FUSED_ATTENTION | FUSED_QKV_BIAS | {"o_proj_bias": "attn_output.bias"} | PLAIN_MLP


def describe_2(keys: Keys) -> Architecture:
    config = read_config(keys, norm_kind="layer", hidden_act="gelu_tanh") | no_rope()
    return build(keys, config, LAYER, MODEL_WITH_BIAS | {"position_embeddings": "position_embd.weight"})


def describe_neox(keys: Keys) -> Architecture:
    config = read_config(keys, norm_kind="layer", hidden_act="gelu")
    config |= read_rope(keys, config) | {"parallel_residual": keys.bool("use_parallel_residual", default=True)}
    return build(keys, config, LAYER, MODEL_WITH_BIAS)
