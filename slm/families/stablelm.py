# SPDX-License-Identifier: Apache-2.0
"""StableLM: Llama's blocks under layer norms, rope on part of a head; in some models attention and MLP side by side, or norms of
each head."""

from slm.families.architecture import Architecture
from slm.families.config import read_config, stated, stated_or_there
from slm.families.layout import ATTENTION, GATED_MLP, NORMS, PRE_NORMS, QKV, Layout, biases, build, norms_by_head
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles

ONE_NORM = {"input_layernorm": "input_layernorm"}
HEAD_NORMS = {"q_norm": "self_attn.q_layernorm.norms.{row}", "k_norm": "self_attn.k_layernorm.norms.{row}"}


def describe(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files, norm_kind="layer")
    positions = read_rope(files, config, context, partial=0.25)
    parallel = files.bool("use_parallel_residual", False)
    config |= positions.fields | {"parallel_residual": parallel}
    head_norms = HEAD_NORMS if stated_or_there(files, "qk_layernorm", "q_norm") else {}
    layout = Layout(
        (ONE_NORM if parallel else PRE_NORMS) | ATTENTION | GATED_MLP | head_norms,
        biases=biases(QKV, stated(files, "use_qkv_bias")) | biases(NORMS),
    )
    return build(files, config, layout, shapes=norms_by_head(config), contexts=positions.contexts)
