# SPDX-License-Identifier: Apache-2.0
"""The executable specification of slm's decoder: what a forward pass computes, in NumPy and nothing else.

A config has the fields of slm_config in csrc/slm.h, weights are mappings with the fields of slm_weights and slm_layer_weights;
what is not there is absent. A matrix is [out, in] and multiplies from the left; a layer's bias is "<name>_bias".
Read it top to bottom: ops, blocks, decoder, and below the line the integer arithmetic of quantized linears, bit for bit.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating]
Weights = Mapping[str, Any]
# (name of the matrix such as "q_proj", matrix [m, k], activations [n_tokens, k]) -> [n_tokens, m]
Linear = Callable[[str, Any, Array], Array]


@dataclass(frozen=True, kw_only=True)
class Config:
    """A factor or cap of 0 is absent."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    norm_kind: str = "rms"  # or "layer"
    norm_eps: float
    norm_offset: float = 0.0  # what files left off norm weights
    hidden_act: str = "silu"
    rope_inv_freq: Array  # [n_rope_tables * rotary_dim / 2]; layers choose a table
    rotary_dim: int
    rope_style: str = "half"  # or "interleaved"
    rope_factor: float = 0.0
    attention_scale: float | None = None  # None: 1 / sqrt(head_dim)
    attention_softcap: float = 0.0
    logits_softcap: float = 0.0
    logits_scale: float = 0.0
    embedding_scale: float = 0.0
    residual_scale: float = 0.0
    parallel_residual: bool = False
    norm_after_residual: bool = False
    bidirectional: bool = False
    kv_f32: bool = False  # of the core: what its cache is, where the caller does not choose


@dataclass(frozen=True, kw_only=True)
class Cache:
    """What the type of the KV cache makes of queries, keys [n_tokens, n_heads, head_dim], values and the weights of attention."""

    queries: Callable[[Array], Array] = lambda x: x
    keys: Callable[[Array], Array] = lambda x: x
    values: Callable[[Array], Array] = lambda x: x
    weights: Callable[[Array], Array] = lambda x: x


EXACT = Cache()


# ---- ops ---------------------------------------------------------------------------------------------------------------------


def matmul(name: str, matrix: Array, x: Array) -> Array:
    return x @ matrix.T.astype(x.dtype)


def norm(config: Config, weights: Weights, name: str, x: Array) -> Array:
    """Over the last dimension; x itself where there is no such norm.

    rms: x / sqrt(mean(x^2) + eps) * weight, Zhang and Sennrich 2019, arXiv 1910.07467.
    layer: (x - mean) / sqrt(variance + eps) * weight + bias, Ba, Kiros and Hinton 2016, arXiv 1607.06450.
    """
    weight, bias = weights.get(name), weights.get(f"{name}_bias")
    if weight is None:
        return x
    if config.norm_kind == "layer":
        x = x - np.mean(x, axis=-1, keepdims=True)
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
    y = x / np.sqrt(mean_square + x.dtype.type(config.norm_eps)) * (weight + np.float32(config.norm_offset)).astype(x.dtype)
    return y if bias is None else y + bias.astype(x.dtype)


def silu(x: Array) -> Array:
    """x * sigmoid(x), without overflow in exp."""
    small = np.exp(-np.abs(x))
    return x * np.where(x >= 0, 1, small) / (1 + small)


def gelu(x: Array) -> Array:
    """x * P(N(0, 1) <= x). Hendrycks and Gimpel 2016, arXiv 1606.08415."""
    return x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2))) / 2


def gelu_tanh(x: Array) -> Array:
    """The approximation of gelu in the same paper."""
    return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + x.dtype.type(0.044715) * x**3))) / 2


def relu2(x: Array) -> Array:
    return np.square(np.maximum(x, 0))


ACTIVATIONS = {"silu": silu, "gelu": gelu, "gelu_tanh": gelu_tanh, "relu2": relu2}


def soft_cap(x: Array, cap: float) -> Array:
    return x.dtype.type(cap) * np.tanh(x / x.dtype.type(cap)) if cap else x


def scaled(x: Array, factor: float) -> Array:
    return x * x.dtype.type(factor) if factor else x


def rope_inv_freq(theta: float, rotary_dim: int) -> Array:
    """Angle per position of each pair: theta ** (-2 i / rotary_dim). Su et al. 2021, RoFormer, arXiv 2104.09864."""
    return theta ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)


def rope(x: Array, inv_freq: Array, style: str, factor: float = 0.0) -> Array:
    """Turn pair i of each head of x [n_tokens, n_heads, head_dim] by position * inv_freq[i]; the position is the row.

    half: pairs (i, i + n / 2); interleaved: pairs (2 i, 2 i + 1), of the first n = 2 len(inv_freq) elements; the rest stays.
    """
    n = 2 * len(inv_freq)
    first, second = {
        "half": (slice(0, n // 2), slice(n // 2, n)),
        "interleaved": (slice(0, n, 2), slice(1, n, 2)),
    }[style]
    angles = np.outer(np.arange(len(x)), inv_freq)[:, None, :]  # [n_tokens, 1, n / 2]
    cos, sin = (scaled(f(angles).astype(x.dtype), factor) for f in (np.cos, np.sin))
    out = x.copy()
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., second] * cos + x[..., first] * sin
    return out


def attention(q: Array, k: Array, v: Array, seen: NDArray[np.bool_], cap: float, cache: Cache) -> Array:
    """Grouped-query attention: q [n_tokens, n_heads, head_dim], scaled; k and v [n_tokens, n_kv_heads, head_dim].

    Head h reads the keys and values of head h // (n_heads / n_kv_heads). Ainslie et al. 2023, arXiv 2305.13245.
    seen: [query, key], which keys a query sees.
    """
    q, k, v = cache.queries(q), cache.keys(k), cache.values(v)
    group = q.shape[1] // k.shape[1]
    out = np.empty_like(q)
    for head in range(q.shape[1]):
        scores = np.where(seen, soft_cap(q[:, head] @ k[:, head // group].T, cap), -np.inf)
        weights = cache.weights(np.exp(scores - scores.max(axis=-1, keepdims=True)))  # softmax, divided after the sum
        out[:, head] = weights @ v[:, head // group] / weights.sum(axis=-1, keepdims=True)
    return out


def seen_keys(n_tokens: int, window: int, bidirectional: bool) -> NDArray[np.bool_]:
    """[query, key]: a token sees itself and all before it, or the last `window` of those, or the whole text."""
    if bidirectional:
        return np.ones((n_tokens, n_tokens), bool)
    distance = np.subtract.outer(np.arange(n_tokens), np.arange(n_tokens))
    return (distance >= 0) & (distance < (window or n_tokens))


# ---- blocks ------------------------------------------------------------------------------------------------------------------


def project(linear: Linear, weights: Weights, name: str, x: Array) -> Array:
    y, bias = linear(name, weights[name], x), weights.get(f"{name}_bias")
    return y if bias is None else y + bias.astype(y.dtype)


def attention_block(config: Config, layer: Weights, x: Array, linear: Linear, cache: Cache) -> Array:
    n_tokens, head_dim = len(x), config.head_dim
    q, k, v = (project(linear, layer, name, x) for name in ("q_proj", "k_proj", "v_proj"))
    heads = []
    for name, y in (("q_norm", q), ("k_norm", k)):
        width = y.shape[1] if layer.get(name) is None else layer[name].shape[-1]  # of one head, or of all
        heads.append(norm(config, layer, name, y.reshape(n_tokens, -1, width)).reshape(n_tokens, -1, head_dim))
    table = layer.get("rope_table", 0)
    if config.rotary_dim and table >= 0:
        inv_freq = config.rope_inv_freq.reshape(-1, config.rotary_dim // 2)[table]
        heads = [rope(y, inv_freq, config.rope_style, config.rope_factor) for y in heads]
    q, k = heads
    scale = head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    seen = seen_keys(n_tokens, layer.get("sliding_window", 0), config.bidirectional)
    out = attention(q * q.dtype.type(scale), k, v.reshape(k.shape), seen, config.attention_softcap, cache)
    return project(linear, layer, "o_proj", out.reshape(n_tokens, -1))


def mlp_block(config: Config, layer: Weights, x: Array, linear: Linear) -> Array:
    """Gated linear unit, Shazeer 2020, arXiv 2002.05202; without gate_proj two layers."""
    act, up = ACTIVATIONS[config.hidden_act], project(linear, layer, "up_proj", x)
    gated = layer.get("gate_proj") is not None
    return project(linear, layer, "down_proj", act(project(linear, layer, "gate_proj", x)) * up if gated else act(up))


def add(config: Config, layer: Weights, name: str, x: Array, delta: Array) -> Array:
    """What a block gives joins the residual stream; its norm is of the one or of the sum."""
    if config.norm_after_residual:
        return norm(config, layer, name, x + scaled(delta, config.residual_scale))
    return x + scaled(norm(config, layer, name, delta), config.residual_scale)


# ---- decoder -----------------------------------------------------------------------------------------------------------------


def forward(
    config: Config,
    weights: Weights,
    tokens: NDArray[np.integer],
    *,
    dtype: DTypeLike = np.float32,
    linear: Linear = matmul,
    embed: Callable[[Any, NDArray[np.integer]], Array] = lambda matrix, rows: matrix[rows],
    cache: Cache = EXACT,
) -> Array:
    """Logits [n_tokens, vocab_size] of a sequence that begins at position 0; hidden states [n_tokens, hidden_size] of a
    bidirectional model, which has no others.

    linear and embed say how a matrix is applied and how its rows are read.
    """
    x = scaled(embed(weights["embed_tokens"], tokens).astype(dtype), config.embedding_scale)  # [n_tokens, hidden_size]
    if weights.get("position_embeddings") is not None:
        x = x + embed(weights["position_embeddings"], np.arange(len(tokens))).astype(dtype)
    if weights.get("token_type_embedding") is not None:
        x = x + weights["token_type_embedding"].astype(dtype)
    x = norm(config, weights, "embedding_norm", x)
    for layer in weights["layers"]:
        read = norm(config, layer, "input_layernorm", x)
        delta = attention_block(config, layer, read, linear, cache)
        if config.parallel_residual and layer.get("post_attention_layernorm") is not None:
            read = norm(config, layer, "post_attention_layernorm", x)
        x = add(config, layer, "attn_output_norm", x, delta)
        if not config.parallel_residual:
            read = norm(config, layer, "post_attention_layernorm", x)
        x = add(config, layer, "mlp_output_norm", x, mlp_block(config, layer, read, linear))
    x = norm(config, weights, "norm", x)
    if config.bidirectional:
        return x
    tied = weights.get("lm_head") is None
    logits = project(linear, weights | {"lm_head": weights["embed_tokens"]} if tied else weights, "lm_head", x)
    return soft_cap(scaled(logits, config.logits_scale), config.logits_softcap)


# ---- the arithmetic of quantized linears ---------------------------------------------------------------------------


def fma(a: Array, b: Array, c: Array) -> NDArray[np.float32]:
    """float32 a * b + c, rounded once.

    The product is exact in float64. Its sum with c is rounded to odd there (an inexact sum takes the neighbour whose last
    bit is set), after which rounding to float32 is as if from the exact value. Boldo and Melquiond 2008, IEEE TC 57(4).
    """
    p, c = np.float64(a) * np.float64(b), np.float64(c)
    s = p + c
    part = s - p
    error = (p - (s - part)) + (c - part)  # Knuth's two-sum: s + error is exact
    even = np.asarray(s).view(np.int64) & 1 == 0
    return np.where((error != 0) & even, np.nextafter(s, np.copysign(np.inf, error)), s).astype(np.float32)


def quantize_activations(x: NDArray[np.float32], group: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """int8 codes [n_tokens, k] and float32 scales [n_tokens, k / group] with x ~ scale * code.

    scale = largest magnitude of the group / 127; code = x * (127 / largest magnitude), to nearest even.
    """
    groups = x.reshape(len(x), -1, group)
    largest = np.abs(groups).max(axis=2)
    inverse = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=largest != 0)
    codes = np.rint(groups * inverse[..., None])
    return codes.astype(np.int32).reshape(x.shape), largest / np.float32(127)


def int8_heads(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keys or values [n_tokens, n_heads, head_dim] as an int8 cache holds them: in groups of 32, the last of a head with less."""
    head_dim = x.shape[-1]
    padded = np.pad(x.reshape(-1, head_dim), ((0, 0), (0, -head_dim % 32)))
    codes, scales = quantize_activations(padded, 32)
    return (codes * np.repeat(scales, 32, axis=1))[:, :head_dim].astype(np.float32).reshape(x.shape)


def linear_int8(
    codes: NDArray[np.integer],
    d: NDArray[np.float32],
    minimum: NDArray[np.float32] | None,
    x: NDArray[np.float32],
    group: int = 32,
) -> NDArray[np.float32]:
    """Weights d * code (+ minimum) in groups of 32 or 16 times x [n_tokens, k] in groups of `group`: [n_tokens, rows].

    codes: [rows, k] with the format's offset already taken off; d, minimum: [rows, groups]. One chain per output, groups in
    ascending order: acc = fma(integer dot, d * dx, acc), then acc = fma(minimum, dx * integer sum, acc).
    """
    own_group = x.shape[1] // d.shape[1]
    group = min(group, own_group)
    xq, dx = quantize_activations(x, group)
    acc = np.zeros((len(x), len(codes)), np.float32)
    for g in range(x.shape[1] // group):
        span, block = slice(g * group, (g + 1) * group), g * group // own_group
        dot = xq[:, span] @ codes[:, span].T.astype(np.int32)
        acc = fma(dot.astype(np.float32), dx[:, g, None] * d[:, block], acc)
        if minimum is not None:
            total = xq[:, span].sum(axis=1, dtype=np.int32).astype(np.float32)
            acc = fma(minimum[:, block], (dx[:, g] * total)[:, None], acc)
    return acc
