# SPDX-License-Identifier: Apache-2.0
"""The metadata of a GGUF file as its family reads it: what is read is remembered, and what nobody read is refused."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slm.errors import quoted
from slm.families import rope
from slm.families.architecture import Expected
from slm.families.vocabulary import MAX_VOCAB, Vocabulary
from slm.formats.gguf import GGUF, REQUIRED, Value

MAX_HEADS = 1024
MAX_HEAD_DIM = 1024
MAX_CONTEXT = 1 << 24
EPS = {"rms": "attention.layer_norm_rms_epsilon", "layer": "attention.layer_norm_epsilon"}

# Keys with the values at which they change nothing, in any family; without the name of the architecture in front.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "attention.causal": (True,),
    "tensor_data_layout": (b"Meta AI original pth",),  # rows of q and k in pairs, as in every file that says so
    "rope.scaling.type": (b"none",),
    "rope.scaling.finetuned": (True, False),  # a remark
}


class Keys:
    """Typed access to the keys of one architecture by their suffix, e.g. "block_count" for "llama.block_count".

    context: the positions that the caller asked for, None for the default. Methods raise FormatError, LimitError.
    """

    def __init__(self, gguf: GGUF, vocabulary: Vocabulary | None, context: int | None) -> None:
        self.gguf = gguf
        self.vocabulary = vocabulary
        self.context = context
        self.architecture = gguf.get_string("general.architecture")
        self.tensors: dict[str, Expected] = {}  # small tensors that were read as values
        self._read: set[str] = set()

    def key(self, suffix: str) -> str:
        name = f"{self.architecture}.{suffix}"
        self._read.add(name)
        return name

    def uint(self, suffix: str, low: int = 0, high: int = 2**63, default: Any = REQUIRED) -> Any:
        return self.gguf.get_uint(self.key(suffix), low, high, default)

    def float(self, suffix: str, low: float, high: float, default: Any = REQUIRED) -> Any:
        return self.gguf.get_float(self.key(suffix), low, high, default)

    def bool(self, suffix: str, default: Any = REQUIRED) -> Any:
        return self.gguf.get_bool(self.key(suffix), default)

    def string(self, suffix: str, default: Any = REQUIRED) -> Any:
        return self.gguf.get_string(self.key(suffix), default)

    def ignore(self, *suffixes: str) -> None:
        """Keys that say what the family already knows."""
        for suffix in suffixes:
            self.key(suffix)

    def bad(self, suffix: str, expected: str, found: Any) -> Exception:
        key = self.key(suffix)
        return self.gguf.report.bad("KEY_RANGE", self.gguf.offset_of(key), key, expected, found)

    def unsupported(self, suffix: str, expected: str, found: Any) -> Exception:
        key = self.key(suffix)
        return self.gguf.report.unsupported("KEY_UNHANDLED", self.gguf.offset_of(key), key, expected, found)

    def vector(self, name: str, count: int) -> NDArray[np.float32] | None:
        """The values of a small F32 tensor [count], None if there is none."""
        info = self.gguf.tensors.get(name)
        if info is None:
            return None
        if info.shape != (count,):
            raise self.gguf.report.bad("TENSORS", info.header_offset, name, [count], list(info.shape))
        if info.type.name != "F32":
            raise self.gguf.report.unsupported("TYPES", info.header_offset, name, "F32", info.type.name)
        self.tensors[name] = Expected((count,))
        values = self.gguf.read_f32(info)
        if not (np.isfinite(values) & (values > 0)).all():
            raise self.gguf.report.bad("TENSORS", info.header_offset, name, f"{count} finite numbers above 0", "others")
        return values

    def refuse_unread(self) -> None:
        """UnsupportedError for a key of this architecture that nobody has read: it might change the result."""
        for key, entry in self.gguf.metadata.items():
            if not key.startswith(f"{self.architecture}.") or key in self._read:
                continue
            neutral = NEUTRAL.get(key.removeprefix(f"{self.architecture}."), ())
            if entry.type.startswith("array") or entry.value not in neutral:
                expected = ", ".join(["no such key", *map(repr, neutral)])
                raise self.gguf.report.unsupported("KEY_UNHANDLED", entry.offset, quoted(key), expected, shown(entry))


def read_config(keys: Keys, *, norm_kind: str = "rms", rope_style: str = "half", hidden_act: str = "silu") -> dict[str, Any]:
    """The fields of slm_config that all families have, without rope_inv_freq."""
    heads = keys.uint("attention.head_count", 1, MAX_HEADS)
    hidden_size = keys.uint("embedding_length", 1, 1 << 16)
    kv_heads = keys.uint("attention.head_count_kv", 1, MAX_HEADS, default=heads)
    if heads % kv_heads:
        raise keys.bad("attention.head_count_kv", f"a divisor of {heads}", kv_heads)
    head_dim = keys.uint("attention.key_length", 1, MAX_HEAD_DIM, default=None)
    if head_dim is None:
        if hidden_size % heads:
            raise keys.bad("attention.head_count", f"a divisor of hidden_size {hidden_size}", heads)
        head_dim = hidden_size // heads
    if head_dim % 2:
        raise keys.unsupported("attention.key_length", "an even head_dim", head_dim)
    value_dim = keys.uint("attention.value_length", 1, MAX_HEAD_DIM, default=head_dim)
    if value_dim != head_dim:
        raise keys.unsupported("attention.value_length", f"head_dim {head_dim}", value_dim)
    return {
        "vocab_size": read_vocab_size(keys),
        "hidden_size": hidden_size,
        "intermediate_size": keys.uint("feed_forward_length", 1, 1 << 18),
        "num_hidden_layers": keys.uint("block_count", 1, 1024),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "max_position_embeddings": keys.uint("context_length", 1, MAX_CONTEXT),
        "norm_kind": norm_kind,
        "norm_eps": keys.float(EPS[norm_kind], 1e-20, 0.1),
        "hidden_act": hidden_act,
        "rope_style": rope_style,
        "attention_scale": 1.0 / math.sqrt(head_dim),
    }


def read_vocab_size(keys: Keys) -> int:
    """Rows of the embedding: as the vocabulary has it, with which the key must agree; else the key; else the tensor."""
    stated = keys.uint("vocab_size", 1, MAX_VOCAB, default=None)
    if keys.vocabulary is not None:
        if stated not in (None, keys.vocabulary.size):
            raise keys.bad("vocab_size", f"{keys.vocabulary.size}, the size of the vocabulary", stated)
        return keys.vocabulary.size
    if stated is not None:
        return stated
    embedding = keys.gguf.tensors.get("token_embd.weight")
    if embedding is None:
        needed = "a key, a vocabulary or an embedding to size it by"
        raise keys.gguf.report.bad("KEY_MISSING", None, keys.key("vocab_size"), needed, "none of them")
    return embedding.shape[0]


def no_rope() -> dict[str, Any]:
    return {"rotary_dim": 0, "rope_inv_freq": np.zeros(0, np.float32)}


def read_rope(keys: Keys, config: dict[str, Any], theta: float = 10_000.0) -> dict[str, Any]:
    """rotary_dim, rope_inv_freq and rope_factor of a family with one kind of rope. theta: of a file that does not say."""
    dim = read_rotary_dim(keys, config)
    return {"rotary_dim": dim, **rope_fields(scaled_rope(keys, config, read_theta(keys, theta), dim))}


def read_rotary_dim(keys: Keys, config: dict[str, Any]) -> int:
    head_dim = config["head_dim"]
    dim = keys.uint("rope.dimension_count", 2, MAX_HEAD_DIM, default=head_dim)
    if dim % 2 or dim > head_dim:
        raise keys.bad("rope.dimension_count", f"even and at most head_dim {head_dim}", dim)
    return dim


def read_theta(keys: Keys, default: float) -> float:
    return keys.float("rope.freq_base", 1.0, 1e12, default=default)


def rope_fields(*tables: rope.Rope) -> dict[str, Any]:
    return {"rope_inv_freq": np.concatenate([table.inv_freq for table in tables]), "rope_factor": tables[0].factor}


def scaled_rope(keys: Keys, config: dict[str, Any], theta: float, dim: int) -> rope.Rope:
    """As rope.scaling.* says, or the factors per pair in a tensor of the file."""
    factors = keys.vector("rope_freqs.weight", dim // 2)
    kind = keys.string("rope.scaling.type", default="none")
    if kind == "none":
        plain = rope.default(theta, dim)
        return plain if factors is None else rope.Rope(plain.inv_freq / factors)
    if kind not in ("linear", "yarn") or factors is not None:
        raise keys.unsupported("rope.scaling.type", "'none', 'linear' or 'yarn', without factors per pair", quoted(kind))
    factor = keys.float("rope.scaling.factor", 0.0, 1e6)
    if kind == "linear":
        return rope.linear(theta, dim, factor)
    trained = config["max_position_embeddings"]
    original = keys.uint("rope.scaling.original_context_length", 1, MAX_CONTEXT, default=trained)
    slow = keys.float("rope.scaling.yarn_beta_slow", 0.0, 1e6, default=1.0)
    fast = keys.float("rope.scaling.yarn_beta_fast", 0.0, 1e6, default=32.0)
    plain = rope.yarn(theta, dim, factor, original, beta_fast=fast, beta_slow=slow)
    return plain._replace(factor=plain.factor * keys.float("rope.scaling.attn_factor", 0.0, 1e3, default=1.0))


def shown(entry: Value) -> str:
    if entry.type.startswith("array"):
        return entry.type
    return quoted(entry.value) if isinstance(entry.value, bytes) else repr(entry.value)
