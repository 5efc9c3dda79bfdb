# SPDX-License-Identifier: Apache-2.0
"""The Llama family: Llama, TinyLlama, SmolLM, Mistral and all that were published in its form.

Pre-norm with RMS norm, rotary positions, grouped-query attention, SiLU-gated MLP.
"""

from slm.families.architecture import Architecture
from slm.families.keys import MAX_CONTEXT, Keys, read_config, read_rope
from slm.families.layout import ATTENTION, GATED_MLP, PRE_NORMS, QKV_BIAS, build

BIASES = {field: f"{name}?" for field, name in QKV_BIAS.items()} | {"o_proj_bias": "attn_output.bias?"}
LAYER = PRE_NORMS | ATTENTION | BIASES | GATED_MLP


def describe(keys: Keys) -> Architecture:
    # GGUF writers of this family reorder the rows of q and k so that pairs are neighbours.
    config = read_config(keys, rope_style="interleaved")
    config |= read_rope(keys, config)
    window = keys.uint("attention.sliding_window", 0, MAX_CONTEXT, default=0)
    return build(keys, config, LAYER, per_layer=[{"sliding_window": window}] * config["num_hidden_layers"])
