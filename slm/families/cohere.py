# SPDX-License-Identifier: Apache-2.0
"""Cohere: attention and MLP side by side under one layer norm without bias, and in large models norms of each head (1); layers
with windows, which alone rotate (2)."""

from typing import Any

from slm.families.architecture import Architecture
from slm.families.config import local_layers, read_config, read_window, stated, stated_or_there
from slm.families.layout import ATTENTION, GATED_MLP, HEAD_NORMS, QKV, Layout, biases, build, norms_by_head
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles


def cohere_config(files: ModelFiles) -> dict[str, Any]:
    scale = files.float("logit_scale", 0.0, 1e6, 0.0625)
    sides = {"parallel_residual": True, "rope_style": "interleaved", "logits_scale": scale}
    return read_config(files, norm_kind="layer") | sides


def cohere_layout(files: ModelFiles, head_norms: bool = False) -> Layout:
    layer = {"input_layernorm": "input_layernorm"} | ATTENTION | GATED_MLP | (HEAD_NORMS if head_norms else {})
    return Layout(layer, biases=biases((*QKV, "o_proj"), stated(files, "attention_bias")))


def describe_1(files: ModelFiles, context: int | None) -> Architecture:
    config = cohere_config(files)
    positions = read_rope(files, config, context, theta=500_000.0)
    head_norms = stated_or_there(files, "use_qk_norm", "q_norm")
    return build(
        files,
        config | positions.fields,
        cohere_layout(files, head_norms),
        tied=True,
        shapes=norms_by_head(config),
        contexts=positions.contexts,
    )


def describe_2(files: ModelFiles, context: int | None) -> Architecture:
    config = cohere_config(files)
    positions = read_rope(files, config, context)
    window, period = read_window(files, 4096), files.uint("sliding_window_pattern", 1, 1024, 4)
    local = local_layers(files, config["num_hidden_layers"], lambda i: (i + 1) % period != 0)
    per_layer = [{"sliding_window": window, "rope_table": 0} if is_local and window else {"rope_table": -1} for is_local in local]
    layout = cohere_layout(files)
    return build(files, config | positions.fields, layout, tied=True, per_layer=per_layer, contexts=positions.contexts)
