# SPDX-License-Identifier: Apache-2.0
"""GLM: Llama with gate and up in one matrix and neighbours rotated in half of each head; norms on both sides of a block (4)."""

from slm.families.architecture import Architecture
from slm.families.config import read_config, stated
from slm.families.layout import ATTENTION, PRE_NORMS, QKV, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles

LAYER = PRE_NORMS | ATTENTION | {"gate_up_proj": "mlp.gate_up_proj", "down_proj": "mlp.down_proj"}
OUTPUT_NORMS = {"attn_output_norm": "post_self_attn_layernorm", "mlp_output_norm": "post_mlp_layernorm"}


def describe_1(files: ModelFiles, context: int | None) -> Architecture:
    return describe(files, context, LAYER)


def describe_4(files: ModelFiles, context: int | None) -> Architecture:
    return describe(files, context, LAYER | OUTPUT_NORMS)


def describe(files: ModelFiles, context: int | None, layer: dict[str, str]) -> Architecture:
    config = read_config(files) | {"rope_style": "interleaved"}
    positions = read_rope(files, config, context, partial=0.5)
    layout = Layout(layer, biases=biases(QKV, stated(files, "attention_bias", True)))
    return build(files, config | positions.fields, layout, contexts=positions.contexts)
