# SPDX-License-Identifier: Apache-2.0
"""Where each weight stands in a GGUF file: fields of slm_weights and slm_layer_weights -> names of tensors.

    {"q_proj": "attn_q.weight", "q_proj_bias": "attn_q.bias?", ...}

A name that ends in "?" may be missing. Fields that name the same tensor share its rows, in the order of the mapping.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from slm.families.architecture import Architecture, Expected, Tensors
from slm.families.keys import Keys

MODEL = {"embed_tokens": "token_embd.weight", "norm": "output_norm.weight", "lm_head": "output.weight?"}  # absent: tied
MODEL_WITH_BIAS = MODEL | {"norm_bias": "output_norm.bias"}

ATTENTION = {"q_proj": "attn_q.weight", "k_proj": "attn_k.weight", "v_proj": "attn_v.weight", "o_proj": "attn_output.weight"}
QKV_BIAS = {"q_proj_bias": "attn_q.bias", "k_proj_bias": "attn_k.bias", "v_proj_bias": "attn_v.bias"}
FUSED_ATTENTION = dict.fromkeys(("q_proj", "k_proj", "v_proj"), "attn_qkv.weight") | {"o_proj": "attn_output.weight"}
FUSED_QKV_BIAS = dict.fromkeys(QKV_BIAS, "attn_qkv.bias")
GATED_MLP = {"gate_proj": "ffn_gate.weight", "up_proj": "ffn_up.weight", "down_proj": "ffn_down.weight"}
PLAIN_MLP = {
    "up_proj": "ffn_up.weight", "up_proj_bias": "ffn_up.bias", "down_proj": "ffn_down.weight", "down_proj_bias": "ffn_down.bias",
}  # fmt: skip
PRE_NORMS = {"input_layernorm": "attn_norm.weight", "post_attention_layernorm": "ffn_norm.weight"}
PRE_NORM_BIASES = {"input_layernorm_bias": "attn_norm.bias", "post_attention_layernorm_bias": "ffn_norm.bias"}
OUTPUT_NORMS = {"attn_output_norm": "post_attention_norm.weight", "mlp_output_norm": "post_ffw_norm.weight"}
HEAD_NORMS = {"q_norm": "attn_q_norm.weight", "k_norm": "attn_k_norm.weight"}
LAYER = PRE_NORMS | ATTENTION | GATED_MLP  # of most families


def build(
    keys: Keys,
    config: dict[str, Any],
    layer: Mapping[str, str] = LAYER,
    model: Mapping[str, str] = MODEL,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    per_layer: Sequence[Mapping[str, int]] | None = None,
    default_context: int | None = None,
) -> Architecture:
    """Match all tensors of the file at once. shapes: of fields that differ from the usual; per_layer: fields with numbers.

    Raises UnsupportedError for any key or tensor that was not used, FormatError for tensors that are missing or misshapen.
    """
    keys.refuse_unread()
    n_layers = config["num_hidden_layers"]
    shape_of = usual_shapes(config) | dict(shapes or {})
    layers = [{field: f"blk.{i}.{name}" for field, name in layer.items()} for i in range(n_layers)]
    expected = dict(keys.tensors)
    for names in (model, *layers):
        expected |= expect(names, shape_of)
    tensors = Tensors(keys.gguf, expected)
    weights = place(model, shape_of, tensors)
    numbers = {"down_proj_group": down_proj_group(config["hidden_size"]), "rope_table": 0 if config["rotary_dim"] else -1}
    rows = per_layer or [{}] * n_layers
    weights["layers"] = [place(names, shape_of, tensors) | numbers | dict(row) for names, row in zip(layers, rows, strict=True)]
    trained = config["max_position_embeddings"]
    return Architecture(keys.architecture, config, weights, trained, keys.vocabulary, default_context or trained)


def usual_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, intermediate, head_dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q_rows, kv_rows = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens": (config["vocab_size"], hidden),
        "position_embeddings": (config["max_position_embeddings"], hidden),
        "norm": (hidden,),
        "lm_head": (config["vocab_size"], hidden),
        "input_layernorm": (hidden,),
        "q_proj": (q_rows, hidden),
        "k_proj": (kv_rows, hidden),
        "v_proj": (kv_rows, hidden),
        "q_norm": (head_dim,),
        "k_norm": (head_dim,),
        "o_proj": (hidden, q_rows),
        "attn_output_norm": (hidden,),
        "post_attention_layernorm": (hidden,),
        "gate_proj": (intermediate, hidden),
        "up_proj": (intermediate, hidden),
        "down_proj": (hidden, intermediate),
        "mlp_output_norm": (hidden,),
    }
    return shapes | {f"{field}_bias": shape[:1] for field, shape in shapes.items()}


def expect(names: Mapping[str, str], shape_of: Mapping[str, tuple[int, ...]]) -> dict[str, Expected]:
    expected: dict[str, Expected] = {}
    for field, name in names.items():
        first, *rest = shape_of[field]
        name, optional = name.removesuffix("?"), name.endswith("?")
        if name in expected:
            first += expected[name].shape[0]
        expected[name] = Expected((first, *rest), optional)
    return expected


def place(names: Mapping[str, str], shape_of: Mapping[str, tuple[int, ...]], tensors: Tensors) -> dict[str, Any]:
    """field -> the range of its rows."""
    taken: dict[str, int] = {}
    places: dict[str, Any] = {}
    for field, name in names.items():
        name, first = name.removesuffix("?"), shape_of[field][0]
        places[field] = tensors.rows(name, taken.get(name, 0), first)
        taken[name] = taken.get(name, 0) + first
    return places


def down_proj_group(hidden_size: int) -> int:
    """Elements under one int8 scale of down_proj's input.

    The product of gate and up has outliers that drown their neighbours under a shared scale. In narrow models that shows in the
    output (hidden_size 576: mean KL 0.0035 with 32, 0.0030 with 16); the finer scales cost little where the matrix is small.
    """
    return 16 if hidden_size < 1024 else 32
