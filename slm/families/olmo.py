# SPDX-License-Identifier: Apache-2.0
"""OLMo 2: a block reads the residual stream as it is and norms what it gives; queries and keys are normed whole."""

from slm.families.architecture import Architecture
from slm.families.keys import Keys, read_config, read_rope
from slm.families.layout import ATTENTION, GATED_MLP, HEAD_NORMS, OUTPUT_NORMS, build


def describe_2(keys: Keys) -> Architecture:
    config = read_config(keys)
    config |= read_rope(keys, config, theta=500_000.0)
    widths = {
        "q_norm": (config["num_attention_heads"] * config["head_dim"],),
        "k_norm": (config["num_key_value_heads"] * config["head_dim"],),
    }
    return build(keys, config, ATTENTION | GATED_MLP | OUTPUT_NORMS | HEAD_NORMS, shapes=widths)
