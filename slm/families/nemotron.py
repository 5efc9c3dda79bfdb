# SPDX-License-Identifier: Apache-2.0
"""Nemotron and Minitron: layer norms whose weights w act as 1 + w, squared ReLU without gate, rope on part of a head."""

from slm.families.architecture import Architecture
from slm.families.config import one_plus_norms, read_config, stated
from slm.families.layout import ATTENTION, MLP, NORMS, PRE_NORMS, QKV, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles

LAYER = PRE_NORMS | ATTENTION | {"up_proj": "mlp.up_proj", "down_proj": "mlp.down_proj"}


def describe(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, norm_kind="layer", hidden_act="relu2") | one_plus_norms(files)
    positions = read_rope(files, config, context, partial=0.5)
    attention, mlp = stated(files, "attention_bias"), stated(files, "mlp_bias")
    layout = Layout(LAYER, biases=biases((*QKV, "o_proj"), attention) | biases(MLP, mlp) | biases(NORMS))
    return build(files, config | positions.fields, layout, contexts=positions.contexts)
