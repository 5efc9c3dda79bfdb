# SPDX-License-Identifier: Apache-2.0
"""Persimmon: GPT-NeoX's matrices one after the other instead of side by side, squared ReLU, norms of queries and keys."""

from slm.families.architecture import Architecture
from slm.families.config import read_config
from slm.families.layout import MLP, NORMS, PRE_NORMS, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles

HEAD_NORMS = {"q_norm": "self_attn.q_layernorm", "k_norm": "self_attn.k_layernorm"}
LAYER = PRE_NORMS | {
    "qkv_proj": "self_attn.query_key_value", "o_proj": "self_attn.dense", "up_proj": "mlp.dense_h_to_4h",
    "down_proj": "mlp.dense_4h_to_h",
}  # fmt: skip
MODEL = {"embed_tokens": "embed_tokens", "norm": "final_layernorm"}


def describe(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, norm_kind="layer", hidden_act="relu2")
    positions = read_rope(files, config, context, theta=25_000.0, partial=0.5)
    head_norms = HEAD_NORMS if files.bool("qk_layernorm", True) else {}
    layout = Layout(LAYER | head_norms, MODEL, biases(("q_proj", "o_proj", *MLP, *NORMS, *head_norms)), by_head=True)
    return build(files, config | positions.fields, layout, contexts=positions.contexts)
