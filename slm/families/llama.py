# SPDX-License-Identifier: Apache-2.0
"""The Llama family: Llama, TinyLlama, SmolLM and all that were published in its form.

Pre-norm with RMS norm, rotary positions, grouped-query attention without biases, SiLU-gated MLP.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slm.errors import quoted
from slm.families.architecture import Architecture, Expected, Tensors
from slm.families.vocabulary import MAX_VOCAB, Vocabulary
from slm.formats.gguf import GGUF, Value

MAX_HEADS = 1024
MAX_HEAD_DIM = 1024

# Field of slm_config -> (GGUF key, least, most). Below is a FormatError, above a LimitError.
BOUNDS: dict[str, tuple[str, int, int]] = {
    "num_hidden_layers": ("llama.block_count", 1, 1024),
    "max_position_embeddings": ("llama.context_length", 1, 1 << 24),
    "hidden_size": ("llama.embedding_length", 1, 1 << 16),
    "intermediate_size": ("llama.feed_forward_length", 1, 1 << 18),
    "num_attention_heads": ("llama.attention.head_count", 1, MAX_HEADS),
}
KEY_HEADS_KV = "llama.attention.head_count_kv"
KEY_HEAD_DIM = "llama.attention.key_length"
KEY_VALUE_DIM = "llama.attention.value_length"
KEY_ROTARY_DIM = "llama.rope.dimension_count"
KEY_THETA = "llama.rope.freq_base"
KEY_EPS = "llama.attention.layer_norm_rms_epsilon"
KEY_VOCAB = "llama.vocab_size"

# Keys with the value at which they change nothing; any other is a model that this family does not describe.
NEUTRAL: dict[str, Any] = {
    "llama.expert_count": 0,
    "llama.expert_used_count": 0,
    "llama.attention.causal": True,
    "llama.rope.scaling.type": b"none",
    "llama.tensor_data_layout": b"Meta AI original pth",  # rows of q and k in pairs, as in every file of this family
}
HANDLED = {key for key, *_ in BOUNDS.values()} | {
    KEY_HEADS_KV, KEY_HEAD_DIM, KEY_VALUE_DIM, KEY_ROTARY_DIM, KEY_THETA, KEY_EPS, KEY_VOCAB,
}  # fmt: skip

LAYER_TENSORS = {
    "input_layernorm": "attn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}


def describe(gguf: GGUF, vocabulary: Vocabulary | None) -> Architecture:
    """Raises FormatError, UnsupportedError (also for any llama.* key that would change the computation), LimitError."""
    refuse_unhandled(gguf)
    config = read_config(gguf, vocabulary)
    tensors = Tensors(gguf, expected_tensors(config))
    group = down_proj_group(config["hidden_size"])
    weights = {
        "embed_tokens": tensors["token_embd.weight"],
        "norm": tensors["output_norm.weight"],
        "lm_head": tensors["output.weight"],
        "layers": [
            {**{field: tensors[f"blk.{i}.{name}.weight"] for field, name in LAYER_TENSORS.items()}, "down_proj_group": group}
            for i in range(config["num_hidden_layers"])
        ],
    }
    return Architecture("llama", config, weights, config["max_position_embeddings"], vocabulary)


def refuse_unhandled(gguf: GGUF) -> None:
    """No key and no tensor that would change the result is ignored."""
    for key, entry in gguf.metadata.items():
        if not key.startswith("llama.") or key in HANDLED:
            continue
        if key not in NEUTRAL or entry.type.startswith("array") or entry.value != NEUTRAL[key]:
            neutral = f"no such key, or {NEUTRAL[key]!r}" if key in NEUTRAL else "no such key"
            raise gguf.report.unsupported("KEY_UNHANDLED", entry.offset, quoted(key), neutral, shown(entry))
    if "rope_freqs.weight" in gguf.tensors:
        info = gguf.tensors["rope_freqs.weight"]
        raise gguf.report.unsupported("KEY_UNHANDLED", info.header_offset, "rope_freqs.weight", "no such tensor", "a tensor")


def read_config(gguf: GGUF, vocabulary: Vocabulary | None) -> dict[str, Any]:
    config: dict[str, Any] = {field: gguf.get_uint(key, low, high) for field, (key, low, high) in BOUNDS.items()}
    heads, hidden_size = config["num_attention_heads"], config["hidden_size"]
    kv_heads = gguf.get_uint(KEY_HEADS_KV, 1, MAX_HEADS, default=heads)
    if heads % kv_heads:
        raise gguf.report.bad("KEY_RANGE", gguf.offset_of(KEY_HEADS_KV), KEY_HEADS_KV, f"a divisor of {heads}", kv_heads)
    if hidden_size % heads and KEY_HEAD_DIM not in gguf.metadata:
        key = BOUNDS["num_attention_heads"][0]
        raise gguf.report.bad("KEY_RANGE", gguf.offset_of(key), key, f"a divisor of hidden_size {hidden_size}", heads)
    head_dim = gguf.get_uint(KEY_HEAD_DIM, 1, MAX_HEAD_DIM, default=hidden_size // heads)
    if head_dim % 2:
        at = gguf.offset_of(KEY_HEAD_DIM)
        raise gguf.report.unsupported("KEY_UNHANDLED", at, KEY_HEAD_DIM, "an even head_dim", head_dim)
    value_dim = gguf.get_uint(KEY_VALUE_DIM, 1, MAX_HEAD_DIM, default=head_dim)
    if value_dim != head_dim:
        at = gguf.offset_of(KEY_VALUE_DIM)
        raise gguf.report.unsupported("KEY_UNHANDLED", at, KEY_VALUE_DIM, f"head_dim {head_dim}", value_dim)
    rotary_dim = gguf.get_uint(KEY_ROTARY_DIM, 2, MAX_HEAD_DIM, default=head_dim)
    if rotary_dim % 2 or rotary_dim > head_dim:
        expected = f"even and at most head_dim {head_dim}"
        raise gguf.report.bad("KEY_RANGE", gguf.offset_of(KEY_ROTARY_DIM), KEY_ROTARY_DIM, expected, rotary_dim)
    theta = gguf.get_float(KEY_THETA, 1.0, 1e12, default=10_000.0)
    return config | {
        "vocab_size": read_vocab_size(gguf, vocabulary),
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": gguf.get_float(KEY_EPS, 1e-20, 0.1),
        "hidden_act": "silu",
        "rope_style": "interleaved",  # GGUF writers of this family reorder the rows of q and k so
        "rotary_dim": rotary_dim,
        "rope_inv_freq": rope_inv_freq(theta, rotary_dim),
        "attention_scale": 1.0 / math.sqrt(head_dim),
    }


def read_vocab_size(gguf: GGUF, vocabulary: Vocabulary | None) -> int:
    """Rows of the embedding: as the vocabulary has it, with which the key must agree; else the key; else the tensor."""
    stated = gguf.get_uint(KEY_VOCAB, 1, MAX_VOCAB, default=None)
    if vocabulary is not None:
        if stated not in (None, vocabulary.size):
            expected = f"{vocabulary.size}, the size of the vocabulary"
            raise gguf.report.bad("KEY_RANGE", gguf.offset_of(KEY_VOCAB), KEY_VOCAB, expected, stated)
        return vocabulary.size
    if stated is not None:
        return stated
    embedding = gguf.tensors.get("token_embd.weight")
    if embedding is None:
        raise gguf.report.bad("KEY_MISSING", None, KEY_VOCAB, "a key, a vocabulary or an embedding to size it by", "none of them")
    return embedding.shape[0]


def expected_tensors(config: dict[str, Any]) -> dict[str, Expected]:
    """GGUF tensor name -> what it must be."""
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    q_rows = config["num_attention_heads"] * config["head_dim"]
    kv_rows = config["num_key_value_heads"] * config["head_dim"]
    shapes = {
        "input_layernorm": (hidden,),
        "q_proj": (q_rows, hidden),
        "k_proj": (kv_rows, hidden),
        "v_proj": (kv_rows, hidden),
        "o_proj": (hidden, q_rows),
        "post_attention_layernorm": (hidden,),
        "gate_proj": (intermediate, hidden),
        "up_proj": (intermediate, hidden),
        "down_proj": (hidden, intermediate),
    }
    expected = {
        "token_embd.weight": Expected((config["vocab_size"], hidden)),
        "output_norm.weight": Expected((hidden,)),
        "output.weight": Expected((config["vocab_size"], hidden), optional=True),  # absent: tied to the embedding
    }
    for i in range(config["num_hidden_layers"]):
        expected |= {f"blk.{i}.{name}.weight": Expected(shapes[field]) for field, name in LAYER_TENSORS.items()}
    return expected


def rope_inv_freq(theta: float, rotary_dim: int) -> NDArray[np.float32]:
    """[rotary_dim / 2]: 1 / theta ** (2i / rotary_dim), each step rounded to f32 as Transformers does it.

    The power is taken in f64 first: NumPy's own f32 power differs in the last bit from one CPU to the next.
    """
    exponents = np.arange(0, rotary_dim, 2, dtype=np.float32) / np.float32(rotary_dim)
    powers = np.array([math.pow(theta, exponent) for exponent in exponents.tolist()], np.float32)
    return np.float32(1.0) / powers


def down_proj_group(hidden_size: int) -> int:
    """Elements under one int8 scale of down_proj's input.

    The product of gate and up has outliers that drown their neighbours under a shared scale. In narrow models that shows in the
    output (hidden_size 576: mean KL 0.0035 with 32, 0.0030 with 16); the finer scales cost little where the matrix is small.
    """
    return 16 if hidden_size < 1024 else 32


def shown(entry: Value) -> str:
    if entry.type.startswith("array"):
        return entry.type
    return quoted(entry.value) if isinstance(entry.value, bytes) else repr(entry.value)
