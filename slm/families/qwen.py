# SPDX-License-Identifier: Apache-2.0
"""Qwen 2, 2.5 and 3: as Llama, with biases on q, k and v (2), or norms of each query and key head (3)."""

from slm.families.architecture import Architecture
from slm.families.keys import Keys, read_config, read_rope
from slm.families.layout import HEAD_NORMS, LAYER, QKV_BIAS, build


def describe_2(keys: Keys) -> Architecture:
    config = read_config(keys)
    config |= read_rope(keys, config, theta=1_000_000.0)
    return build(keys, config, LAYER | QKV_BIAS)


def describe_3(keys: Keys) -> Architecture:
    config = read_config(keys)
    config |= read_rope(keys, config, theta=1_000_000.0)
    return build(keys, config, LAYER | HEAD_NORMS)
