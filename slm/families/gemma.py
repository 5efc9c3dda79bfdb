# SPDX-License-Identifier: Apache-2.0
"""Gemma 1, 2 and 3: scaled embeddings, GELU-gated MLP; norms on both sides of a block, soft caps and windows in some.

The largest models scale scores by hidden_size / heads, not by head_dim: a config.json says so in query_pre_attn_scalar.
"""

import math
from dataclasses import replace
from typing import Any

from slm.families.architecture import Architecture
from slm.families.config import local_layers, one_plus_norms, read_config, read_window, stated
from slm.families.layout import ATTENTION, GATED_MLP, HEAD_NORMS, LAYER, QKV, Layout, biases, build
from slm.families.positions import read_rope, read_two_ropes
from slm.formats.model_files import ModelFiles

LARGEST_2, LARGEST_3 = 46, 62  # layers of the 27B models
VISION_FIELDS = ("vision_config", "mm_tokens_per_image", "image_token_index", "boi_token_index", "eoi_token_index")
VISION_TENSORS = ("vision_tower.", "multi_modal_projector.", "language_model.lm_head.")
# Of a text_config, which may state only what differs.
TEXT_DEFAULTS = {
    "vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 131_072, "sliding_window": 4096,
}  # fmt: skip
NORMS_OF_BOTH_SIDES = {
    "input_layernorm": "input_layernorm", "attn_output_norm": "post_attention_layernorm",
    "post_attention_layernorm": "pre_feedforward_layernorm", "mlp_output_norm": "post_feedforward_layernorm",
}  # fmt: skip


def gemma_config(files: ModelFiles, largest: int | None = None) -> dict[str, Any]:
    """largest: layers of the model that scales scores in another way, where the files do not say it."""
    config = read_config(files, hidden_act="gelu_pytorch_tanh") | one_plus_norms(files)
    scaled_by = config["head_dim"]
    if config["num_hidden_layers"] == largest and files.is_gguf:
        scaled_by = config["hidden_size"] / config["num_attention_heads"]
    elif largest:
        scaled_by = files.float("query_pre_attn_scalar", 0.0, 1e6, 256.0 if not files.is_gguf else scaled_by)
    return config | {"embedding_scale": math.sqrt(config["hidden_size"]), "attention_scale": scaled_by**-0.5}


def read_cap(files: ModelFiles, name: str, default: float) -> float:
    """0: none."""
    return 0.0 if files.is_null(name) else files.float(name, -1e-9, 1e6, default)


def gemma_layout(files: ModelFiles, layer: dict[str, str]) -> Layout:
    return Layout(layer, biases=biases((*QKV, "o_proj"), stated(files, "attention_bias")))


def describe_1(files: ModelFiles, context: int | None) -> Architecture:
    files.string("hidden_activation", None)
    config = gemma_config(files) | {"hidden_act": "gelu_tanh"}  # also where hidden_act is "gelu": Transformers corrects it, too
    positions = read_rope(files, config, context)
    return build(files, config | positions.fields, gemma_layout(files, LAYER), tied=True, contexts=positions.contexts)


def describe_2(files: ModelFiles, context: int | None, norms: dict[str, str] | None = None) -> Architecture:
    config = gemma_config(files, LARGEST_2)
    positions = read_rope(files, config, context)
    config |= positions.fields | {
        "attention_softcap": read_cap(files, "attn_logit_softcapping", 50.0),
        "logits_softcap": read_cap(files, "final_logit_softcapping", 30.0),
    }
    window = read_window(files, 4096)
    local = local_layers(files, config["num_hidden_layers"], lambda i: i % 2 == 0)
    per_layer = [{"sliding_window": window if is_local else 0} for is_local in local]
    layout = gemma_layout(files, (norms or NORMS_OF_BOTH_SIDES) | ATTENTION | GATED_MLP)
    return build(files, config, layout, tied=True, per_layer=per_layer, contexts=positions.contexts)


def describe_vault(files: ModelFiles, context: int | None) -> Architecture:
    """Gemma 2 without norms of what a block gives."""
    return describe_2(
        files, context, {"input_layernorm": "input_layernorm", "post_attention_layernorm": "pre_feedforward_layernorm"}
    )


def describe_3_text(files: ModelFiles, context: int | None) -> Architecture:
    """The text part of a model that also sees: it takes no images here."""
    from slm.formats.folder import Folder  # which no GGUF file needs

    assert isinstance(files, Folder)
    files.enter("text_config", TEXT_DEFAULTS, VISION_FIELDS, VISION_TENSORS)
    return describe_3(files, context, prefix="language_model.model.")


def describe_3(files: ModelFiles, context: int | None, prefix: str = "model.") -> Architecture:
    """Five layers with a window and the local rope, then one that sees everything with the global one."""
    config = gemma_config(files, LARGEST_3)
    positions = read_two_ropes(files, config, context, theta=1_000_000.0, local_theta=10_000.0)
    config |= positions.fields | {"logits_softcap": read_cap(files, "final_logit_softcapping", 0.0)}
    window = read_window(files)
    period = files.uint("sliding_window_pattern", 1, 1024, 6)
    local = local_layers(files, config["num_hidden_layers"], lambda i: i % period != period - 1)
    per_layer = [{"sliding_window": window if is_local else 0, "rope_table": int(is_local)} for is_local in local]
    layout = replace(gemma_layout(files, NORMS_OF_BOTH_SIDES | ATTENTION | GATED_MLP | HEAD_NORMS), prefix=prefix)
    return build(files, config, layout, tied=True, per_layer=per_layer, contexts=positions.contexts)
