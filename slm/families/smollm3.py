# SPDX-License-Identifier: Apache-2.0
"""SmolLM3: Llama, but every fourth layer leaves its queries and keys unrotated."""

from slm.families.architecture import Architecture
from slm.families.config import optional_windows, read_config, stated
from slm.families.layout import MLP, QKV, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles

PERIOD = 4  # no key of a GGUF file states it


def describe(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files)
    positions = read_rope(files, config, context, theta=2_000_000.0)
    n_layers = config["num_hidden_layers"]
    period = files.uint("no_rope_layer_interval", 1, 1024, PERIOD)
    rotated = files.uints("no_rope_layers", n_layers, 1, [int((i + 1) % period != 0) for i in range(n_layers)])
    windows = optional_windows(files, n_layers)
    per_layer = [window | {"rope_table": 0 if turn else -1} for window, turn in zip(windows, rotated, strict=True)]
    attention, mlp = stated(files, "attention_bias"), stated(files, "mlp_bias")
    layout = Layout(biases=biases((*QKV, "o_proj"), attention) | biases(MLP, mlp), neighbours=True)
    return build(files, config | positions.fields, layout, tied=True, per_layer=per_layer, contexts=positions.contexts)
