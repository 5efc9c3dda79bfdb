# SPDX-License-Identifier: Apache-2.0
"""StarCoder: GPT-2 with one key head for all queries (1); rotary positions and a window, two linear layers as MLP (2)."""

from dataclasses import replace

from slm.families.architecture import Architecture
from slm.families.config import read_config, read_window, stated
from slm.families.gpt import GPT2
from slm.families.layout import ATTENTION, MLP, NORMS, PRE_NORMS, QKV, Layout, biases, build
from slm.families.positions import no_rope, read_rope
from slm.formats.model_files import ModelFiles

LAYER_2 = PRE_NORMS | ATTENTION | {"up_proj": "mlp.c_fc", "down_proj": "mlp.c_proj"}


def describe_1(files: ModelFiles, context: int | None) -> Architecture:
    one_key = files.bool("multi_query", True)
    config = read_config(files, norm_kind="layer", hidden_act="gelu_pytorch_tanh", kv_heads=1 if one_key else None, mlp_factor=4)
    return build(files, config | no_rope(), replace(GPT2, transposed=False, by_head=not one_key), tied=True)


def describe_2(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, norm_kind="layer", hidden_act="gelu_pytorch_tanh")
    positions = read_rope(files, config, context)
    layout = Layout(LAYER_2, biases=biases((*QKV, "o_proj", *MLP), stated(files, "use_bias", True)) | biases(NORMS))
    per_layer = [{"sliding_window": read_window(files)}] * config["num_hidden_layers"]
    return build(files, config | positions.fields, layout, tied=True, per_layer=per_layer, contexts=positions.contexts)
