# SPDX-License-Identifier: Apache-2.0
"""The Llama family: Llama, TinyLlama, SmolLM, Mistral and all that were published in its form.

Pre-norm with RMS norm, rotary positions, grouped-query attention, SiLU-gated MLP.
"""

from slm.families.architecture import Architecture
from slm.families.config import pairs_of_neighbours, read_config, read_window, stated
from slm.families.layout import MLP, QKV, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles


def describe(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files) | pairs_of_neighbours(files)
    positions = read_rope(files, config, context)
    attention, mlp = stated(files, "attention_bias"), stated(files, "mlp_bias")
    layout = Layout(biases=biases((*QKV, "o_proj"), attention) | biases(MLP, mlp))
    window = read_window(files) if files.is_gguf else 0  # its files hold Mistral as well
    per_layer = [{"sliding_window": window}] * config["num_hidden_layers"]
    return build(files, config | positions.fields, layout, per_layer=per_layer, contexts=positions.contexts)


def describe_mistral(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files)
    positions = read_rope(files, config, context)
    per_layer = [{"sliding_window": read_window(files)}] * config["num_hidden_layers"]
    return build(files, config | positions.fields, per_layer=per_layer, contexts=positions.contexts)
