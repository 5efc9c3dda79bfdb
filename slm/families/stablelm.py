# SPDX-License-Identifier: Apache-2.0
"""StableLM: Llama's blocks under layer norms, rope on part of a head, in some models attention and MLP side by side."""

from slm.families.architecture import Architecture
from slm.families.keys import Keys, read_config, read_rope
from slm.families.layout import ATTENTION, GATED_MLP, MODEL_WITH_BIAS, PRE_NORM_BIASES, PRE_NORMS, QKV_BIAS, build

QKV = ATTENTION | {field: f"{name}?" for field, name in QKV_BIAS.items()}
ONE_NORM = {"input_layernorm": "attn_norm.weight", "input_layernorm_bias": "attn_norm.bias"}


def describe(keys: Keys) -> Architecture:
    config = read_config(keys, norm_kind="layer")
    parallel = keys.bool("use_parallel_residual", default=False)
    config |= read_rope(keys, config) | {"parallel_residual": parallel}
    norms = ONE_NORM if parallel else PRE_NORMS | PRE_NORM_BIASES
    return build(keys, config, norms | QKV | GATED_MLP, MODEL_WITH_BIAS)
