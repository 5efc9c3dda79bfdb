# SPDX-License-Identifier: Apache-2.0
"""StableLM: Llama's blocks under layer norms, rope on part of a head, in some models attention and MLP side by side."""

from slm.families.architecture import Architecture
from slm.families.config import read_config, stated
from slm.families.layout import ATTENTION, GATED_MLP, NORMS, PRE_NORMS, QKV, Layout, biases, build
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles

ONE_NORM = {"input_layernorm": "input_layernorm"}


def describe(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, norm_kind="layer")
    positions = read_rope(files, config, context, partial=0.25)
    parallel = files.bool("use_parallel_residual", False)
    config |= positions.fields | {"parallel_residual": parallel}
    layout = Layout(
        (ONE_NORM if parallel else PRE_NORMS) | ATTENTION | GATED_MLP,
        biases=biases(QKV, stated(files, "use_qkv_bias")) | biases(NORMS),
    )
    return build(files, config, layout, contexts=positions.contexts)
