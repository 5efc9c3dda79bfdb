# SPDX-License-Identifier: Apache-2.0
"""EXAONE 4: norms what a block gives, and each query and key head; of windows and layers without, only windows rotate."""

from slm.families.architecture import Architecture
from slm.families.config import local_layers, read_config, read_window
from slm.families.layout import ATTENTION, GATED_MLP, HEAD_NORMS, Layout, build
from slm.families.olmo import OUTPUT_NORMS
from slm.families.positions import read_rope
from slm.formats.model_files import ModelFiles


def describe_4(files: ModelFiles, context: int | None) -> Architecture:
    config = read_config(files)
    positions = read_rope(files, config, context)
    window, period = read_window(files, 4096), files.uint("sliding_window_pattern", 0, 1024, 4)
    local = local_layers(files, config["num_hidden_layers"], lambda i: window > 0 and period > 0 and (i + 1) % period != 0)
    per_layer = [
        {"sliding_window": window if is_local else 0, "rope_table": 0 if is_local or not window else -1} for is_local in local
    ]
    layout = Layout(ATTENTION | GATED_MLP | OUTPUT_NORMS | HEAD_NORMS)
    return build(files, config | positions.fields, layout, per_layer=per_layer, contexts=positions.contexts)
