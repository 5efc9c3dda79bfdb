# SPDX-License-Identifier: Apache-2.0
"""Gemma 1, 2 and 3: scaled embeddings, GELU-gated MLP; norms on both sides of a block, soft caps and windows in some.

Norm weights w act as 1 + w; GGUF files hold the sum. The largest models scale scores by hidden_size / heads, not by head_dim.
"""

import math
from typing import Any

from slm.families.architecture import Architecture
from slm.families.keys import (
    MAX_CONTEXT,
    Keys,
    read_config,
    read_rope,
    read_rotary_dim,
    read_theta,
    rope_fields,
    scaled_rope,
)  # fmt: skip
from slm.families.layout import HEAD_NORMS, LAYER, OUTPUT_NORMS, build
from slm.families.rope import default

LARGEST_2, LARGEST_3 = 46, 62  # layers of the 27B models
LOCAL_THETA = 10_000.0  # of the window layers of Gemma 3, which no key of most files states


def gemma_config(keys: Keys) -> dict[str, Any]:
    config = read_config(keys, hidden_act="gelu_tanh")
    return config | {"embedding_scale": math.sqrt(config["hidden_size"])}


def largest_scale(config: dict[str, Any]) -> dict[str, Any]:
    return {"attention_scale": (config["hidden_size"] / config["num_attention_heads"]) ** -0.5}


def describe_1(keys: Keys) -> Architecture:
    config = gemma_config(keys)
    config |= read_rope(keys, config)
    return build(keys, config)


def describe_2(keys: Keys) -> Architecture:
    config = gemma_config(keys)
    config |= read_rope(keys, config)
    config |= {
        "attention_softcap": keys.float("attn_logit_softcapping", 0.0, 1e6, default=50.0),
        "logits_softcap": keys.float("final_logit_softcapping", 0.0, 1e6, default=30.0),
    }
    n_layers = config["num_hidden_layers"]
    if n_layers == LARGEST_2:
        config |= largest_scale(config)
    window = keys.uint("attention.sliding_window", 1, MAX_CONTEXT, default=4096)
    per_layer = [{"sliding_window": window if i % 2 == 0 else 0} for i in range(n_layers)]
    return build(keys, config, LAYER | OUTPUT_NORMS, per_layer=per_layer)


def describe_3(keys: Keys) -> Architecture:
    """Five layers with a window and the local rope, then one that sees everything with the global one."""
    config = gemma_config(keys)
    dim, theta = read_rotary_dim(keys, config), read_theta(keys, 1_000_000.0)
    local = keys.float("rope.freq_base_swa", 1.0, 1e12, default=LOCAL_THETA)
    config |= {"rotary_dim": dim, **rope_fields(scaled_rope(keys, config, theta, dim), default(local, dim))}
    config |= {"logits_softcap": keys.float("final_logit_softcapping", -1.0, 1e6, default=0.0)}
    n_layers = config["num_hidden_layers"]
    if n_layers == LARGEST_3:
        config |= largest_scale(config)
    window = keys.uint("attention.sliding_window", 1, MAX_CONTEXT)
    period = keys.uint("attention.sliding_window_pattern", 1, 1024, default=6)
    per_layer = [
        {"sliding_window": 0, "rope_table": 0} if i % period == period - 1 else {"sliding_window": window, "rope_table": 1}
        for i in range(n_layers)
    ]
    return build(keys, config, LAYER | OUTPUT_NORMS | HEAD_NORMS, per_layer=per_layer)
