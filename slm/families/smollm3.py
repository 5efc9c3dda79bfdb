# SPDX-License-Identifier: Apache-2.0
"""SmolLM3: Llama, but every fourth layer leaves its queries and keys unrotated."""

from slm.families.architecture import Architecture
from slm.families.keys import Keys, read_config, read_rope
from slm.families.layout import build

PERIOD = 4  # no key of the file states it


def describe(keys: Keys) -> Architecture:
    config = read_config(keys, rope_style="interleaved")  # its files reorder q and k as Llama's do
    config |= read_rope(keys, config, theta=5_000_000.0)
    layers = range(config["num_hidden_layers"])
    return build(keys, config, per_layer=[{"rope_table": -1 if i % PERIOD == PERIOD - 1 else 0} for i in layers])
