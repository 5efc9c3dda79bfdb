# SPDX-License-Identifier: Apache-2.0
"""Phi 1.5 and 2 (parallel residual under one layer norm, biases everywhere), Phi 3 and 4-mini (fused matrices, longrope)."""

from dataclasses import replace

from slm.families.architecture import Architecture
from slm.families.config import read_config, read_window
from slm.families.layout import MLP, PRE_NORMS, QKV, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles

PHI2 = Layout(
    {
        "input_layernorm": "input_layernorm", "q_proj": "self_attn.q_proj", "k_proj": "self_attn.k_proj",
        "v_proj": "self_attn.v_proj", "o_proj": "self_attn.dense", "up_proj": "mlp.fc1", "down_proj": "mlp.fc2",
    },
    {"embed_tokens": "embed_tokens", "norm": "final_layernorm"},
    biases((*QKV, "o_proj", *MLP, "input_layernorm", "norm")),
    head_bias=True,
)  # fmt: skip
HEAD_NORMS = {"q_norm": "self_attn.q_layernorm", "k_norm": "self_attn.k_layernorm"}
PHI3 = Layout(
    PRE_NORMS
    | {
        "qkv_proj": "self_attn.qkv_proj", "o_proj": "self_attn.o_proj", "gate_up_proj": "mlp.gate_up_proj",
        "down_proj": "mlp.down_proj",
    }
)  # fmt: skip


def describe_2(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, norm_kind="layer", hidden_act="gelu_new")
    positions = read_rope(files, config, context, partial=0.5)
    layout = PHI2
    if files.bool("qk_layernorm", False):
        layout = replace(PHI2, layer={**PHI2.layer, **HEAD_NORMS}, biases={**PHI2.biases, **biases(HEAD_NORMS)})
    return build(files, config | positions.fields | {"parallel_residual": True}, layout, contexts=positions.contexts)


def describe_3(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files)
    positions = read_rope(files, config, context)
    per_layer = [{"sliding_window": read_window(files)}] * config["num_hidden_layers"]
    return build(files, config | positions.fields, PHI3, per_layer=per_layer, contexts=positions.contexts)
