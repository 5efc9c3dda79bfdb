# SPDX-License-Identifier: Apache-2.0
"""OLMo 2: a block reads the residual stream as it is and norms what it gives; queries and keys are normed whole."""

from slm.families.architecture import Architecture
from slm.families.config import read_config, stated
from slm.families.layout import ATTENTION, GATED_MLP, HEAD_NORMS, QKV, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles

OUTPUT_NORMS = {"attn_output_norm": "post_attention_layernorm", "mlp_output_norm": "post_feedforward_layernorm"}


def describe_2(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files)
    positions = read_rope(files, config, context)
    widths = {
        "q_norm": (config["num_attention_heads"] * config["head_dim"],),
        "k_norm": (config["num_key_value_heads"] * config["head_dim"],),
    }
    layout = Layout(
        ATTENTION | GATED_MLP | OUTPUT_NORMS | HEAD_NORMS, biases=biases((*QKV, "o_proj"), stated(files, "attention_bias"))
    )
    return build(files, config | positions.fields, layout, shapes=widths, contexts=positions.contexts)
