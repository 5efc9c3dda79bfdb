# SPDX-License-Identifier: Apache-2.0
"""GPT-2 (learned positions) and GPT-NeoX with Pythia (rope on part of a head, attention and MLP side by side)."""

from slm.families.architecture import Architecture
from slm.families.config import read_config, stated
from slm.families.layout import MLP, NORMS, PRE_NORMS, Layout, biases, build
from slm.families.positions import no_rope, read_rope
from slm.formats.model_files import ModelFiles

GPT2 = Layout(
    {
        "input_layernorm": "ln_1", "qkv_proj": "attn.c_attn", "o_proj": "attn.c_proj", "post_attention_layernorm": "ln_2",
        "up_proj": "mlp.c_fc", "down_proj": "mlp.c_proj",
    },
    {"embed_tokens": "wte", "position_embeddings": "wpe", "norm": "ln_f"},
    biases(("q_proj", "o_proj", *MLP, *NORMS)),
    prefix="transformer.",
    layers="h",
    transposed=True,
)  # fmt: skip
NEOX_MODEL = {"embed_tokens": "embed_in", "norm": "final_layer_norm"}
NEOX_LAYER = PRE_NORMS | {
    "qkv_proj": "attention.query_key_value", "o_proj": "attention.dense", "up_proj": "mlp.dense_h_to_4h",
    "down_proj": "mlp.dense_4h_to_h",
}  # fmt: skip


def describe_2(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, norm_kind="layer", hidden_act="gelu_new", mlp_factor=4) | no_rope()
    return build(files, config, GPT2, tied=True)


def describe_neox(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, norm_kind="layer", hidden_act="gelu")
    positions = read_rope(files, config, context, partial=0.25)
    config |= positions.fields | {"parallel_residual": files.bool("use_parallel_residual", True)}
    attention = biases(("q_proj", "o_proj"), stated(files, "attention_bias", True))
    layout = Layout(
        NEOX_LAYER, NEOX_MODEL, attention | biases((*MLP, *NORMS)), prefix="gpt_neox.", head="embed_out", by_head=True
    )
    return build(files, config, layout, contexts=positions.contexts)
