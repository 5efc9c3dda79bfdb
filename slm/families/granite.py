# SPDX-License-Identifier: Apache-2.0
"""Granite: Llama with a factor on embeddings, scores, residuals and logits."""

from slm.families.architecture import Architecture
from slm.families.keys import Keys, read_config, read_rope
from slm.families.layout import build


def describe(keys: Keys) -> Architecture:
    config = read_config(keys, rope_style="interleaved")  # its files reorder q and k as Llama's do
    config |= read_rope(keys, config) | {
        "embedding_scale": keys.float("embedding_scale", 0.0, 1e6, default=1.0),
        "residual_scale": keys.float("residual_scale", 0.0, 1e6, default=1.0),
        "attention_scale": keys.float("attention.scale", 0.0, 1e6, default=config["attention_scale"]),
        "logits_scale": 1.0 / keys.float("logit_scale", 0.0, 1e6, default=1.0),
    }
    return build(keys, config)
