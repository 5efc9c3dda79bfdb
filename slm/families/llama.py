# SPDX-License-Identifier: Apache-2.0
"""The Llama family: Llama, TinyLlama, SmolLM, Mistral and all that were published in its form, with other biases or activations.

Pre-norm with RMS norm, rotary positions, grouped-query attention, SiLU-gated MLP.
"""

from typing import Any

from slm.families.architecture import Architecture
from slm.families.config import local_layers, read_config, read_window, stated
from slm.families.layout import LAYER, MLP, QKV, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles

NEIGHBOURS = {"rope_style": "interleaved"}  # whose models are rotated so in Hugging Face's form, too
NO_GATE = {field: module for field, module in LAYER.items() if field != "gate_proj"}


def describe(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files)
    window = read_window(files) if files.is_gguf else 0  # its files hold Mistral as well
    return finish(files, context, config, usual_layout(files), windows=[window] * config["num_hidden_layers"])


def describe_mistral(files: ModelFiles, context: int | None) -> Architecture:
    """Ministral as well, where some layers may see everything."""
    config, window = read_config(files), read_window(files, 4096)
    local = local_layers(files, config["num_hidden_layers"], lambda i: True)
    return finish(files, context, config, Layout(), windows=[window if is_local else 0 for is_local in local])


def describe_arcee(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, hidden_act="relu2")
    return finish(files, context, config, usual_layout(files, NO_GATE))


def describe_helium(files: ModelFiles, context: int | None) -> Architecture:
    layout = Layout(biases=biases(QKV, stated(files, "attention_bias")) | biases(MLP, stated(files, "mlp_bias")))
    return finish(files, context, read_config(files) | NEIGHBOURS, layout, theta=100_000.0)


def describe_ernie(files: ModelFiles, context: int | None) -> Architecture:
    layout = Layout(biases=biases((*QKV, "o_proj", *MLP), stated(files, "use_bias")))
    return finish(files, context, read_config(files) | NEIGHBOURS, layout, theta=500_000.0, tied=True)


def describe_seed(files: ModelFiles, context: int | None) -> Architecture:
    attention, out, mlp = stated(files, "attention_bias", True), stated(files, "attention_out_bias"), stated(files, "mlp_bias")
    layout = Layout(biases=biases(QKV, attention) | {"o_proj": out} | biases(MLP, mlp))
    return finish(files, context, read_config(files), layout)


def usual_layout(files: ModelFiles, layer: dict[str, str] | None = None) -> Layout:
    attention, mlp = stated(files, "attention_bias"), stated(files, "mlp_bias")
    return Layout(layer or LAYER, biases=biases((*QKV, "o_proj"), attention) | biases(MLP, mlp), neighbours=True)


def finish(
    files: ModelFiles,
    context: int | None,
    config: dict[str, Any],
    layout: Layout,
    *,
    theta: float = 10_000.0,
    tied: bool = False,
    windows: list[int] | None = None,
) -> Architecture:
    positions = read_rope(files, config, context, theta=theta)
    per_layer = [{"sliding_window": window} for window in windows] if windows else None
    return build(files, config | positions.fields, layout, tied=tied, per_layer=per_layer, contexts=positions.contexts)
