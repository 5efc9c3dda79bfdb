# SPDX-License-Identifier: Apache-2.0
"""Granite: Llama with a factor on embeddings, scores, residuals and logits."""

from slm.families.architecture import Architecture
from slm.families.config import read_config, stated
from slm.families.layout import MLP, QKV, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles


def describe(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files)
    positions = read_rope(files, config, context)
    usual_scale = config["attention_scale"] if files.is_gguf else 1.0
    config |= {
        "embedding_scale": files.float("embedding_multiplier", 0.0, 1e6, 1.0),
        "residual_scale": files.float("residual_multiplier", 0.0, 1e6, 1.0),
        "attention_scale": files.float("attention_multiplier", 0.0, 1e6, usual_scale),
        "logits_scale": 1.0 / files.float("logits_scaling", 1e-6, 1e6, 1.0),
    }
    attention, mlp = stated(files, "attention_bias"), stated(files, "mlp_bias")
    layout = Layout(biases=biases((*QKV, "o_proj"), attention) | biases(MLP, mlp), neighbours=True)
    return build(files, config | positions.fields, layout, contexts=positions.contexts)
