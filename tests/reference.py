# SPDX-License-Identifier: Apache-2.0
"""The executable specification of slm's decoder: what a forward pass computes, in NumPy and nothing else.

Names are those of csrc/slm.h. A config has its fields as attributes; weights are a mapping with `embed_tokens`, `norm`,
`lm_head` (None: tied to embed_tokens) and `layers`, a list of mappings. A matrix is [out, in] and multiplies from the left.
Read it top to bottom: ops, decoder, and below the line the integer arithmetic of quantized linears, bit for bit.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[np.floating]
# (name of the matrix such as "q_proj", matrix [m, k], activations [n_tokens, k]) -> [n_tokens, m]
Linear = Callable[[str, Any, Array], Array]


@dataclass(frozen=True, kw_only=True)
class Config:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    norm_eps: float
    rope_inv_freq: Array  # [rotary_dim / 2]
    rotary_dim: int
    rope_style: str = "half"  # or "interleaved"
    hidden_act: str = "silu"
    attention_scale: float | None = None  # None: 1 / sqrt(head_dim)


def rope_inv_freq(theta: float, rotary_dim: int) -> Array:
    """Angle per position of each pair: theta ** (-2 i / rotary_dim). Su et al. 2021, RoFormer, arXiv 2104.09864."""
    return theta ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim)


def matmul(name: str, matrix: Array, x: Array) -> Array:
    return x @ matrix.T.astype(x.dtype)


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension. Zhang and Sennrich 2019, arXiv 1910.07467."""
    mean_square = np.mean(np.square(x), axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + x.dtype.type(eps)) * weight.astype(x.dtype)


def silu(x: Array) -> Array:
    """x * sigmoid(x), without overflow in exp."""
    small = np.exp(-np.abs(x))
    return x * np.where(x >= 0, 1, small) / (1 + small)


def rope(x: Array, inv_freq: Array, style: str) -> Array:
    """Turn pair i of each head of x [n_tokens, n_heads, head_dim] by position * inv_freq[i]; the position is the row.

    half: pairs (i, i + n / 2); interleaved: pairs (2 i, 2 i + 1), of the first n = 2 len(inv_freq) elements; the rest stays.
    """
    n = 2 * len(inv_freq)
    first, second = {
        "half": (slice(0, n // 2), slice(n // 2, n)),
        "interleaved": (slice(0, n, 2), slice(1, n, 2)),
    }[style]
    angles = np.outer(np.arange(len(x)), inv_freq)[:, None, :]  # [n_tokens, 1, n / 2]
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    out = x.copy()
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., second] * cos + x[..., first] * sin
    return out


def attention(q: Array, k: Array, v: Array, scale: float, cached: Callable[[Array], Array], window: int = 0) -> Array:
    """Causal grouped-query attention: q [n_tokens, n_heads, head_dim], k and v [n_tokens, n_kv_heads, head_dim].

    A query sees its own position and all before it, or only the last `window` of them.

    Head h reads the keys and values of head h // (n_heads / n_kv_heads). Ainslie et al. 2023, arXiv 2305.13245.
    """
    q, k, v = cached(q * q.dtype.type(scale)), cached(k), cached(v)
    n_tokens, n_heads, _ = q.shape
    group = n_heads // k.shape[1]
    hidden = np.triu(np.ones((n_tokens, n_tokens), bool), 1)
    if window:
        hidden |= np.tril(np.ones((n_tokens, n_tokens), bool), -window)
    out = np.empty_like(q)
    for head in range(n_heads):
        scores = q[:, head] @ k[:, head // group].T
        scores[hidden] = -np.inf
        weights = cached(np.exp(scores - scores.max(axis=-1, keepdims=True)))  # softmax, divided after the sum
        out[:, head] = weights @ v[:, head // group] / weights.sum(axis=-1, keepdims=True)
    return out


def forward(
    config: Config,
    weights: Mapping[str, Any],
    tokens: NDArray[np.integer],
    *,
    dtype: DTypeLike = np.float32,
    linear: Linear = matmul,
    embed: Callable[[Any, NDArray[np.integer]], Array] = lambda matrix, rows: matrix[rows],
    cached: Callable[[Array], Array] = lambda x: x,
    windows: Sequence[int] | None = None,
) -> Array:
    """Logits [n_tokens, vocab_size] of a sequence that begins at position 0.

    linear and embed say how a matrix is applied and how its rows are read; cached, to what the type of the KV cache rounds
    queries, keys, values and the weights of attention; windows, how many positions each layer sees, 0 for all.
    """
    n_heads, n_kv_heads, head_dim = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    scale = head_dim**-0.5 if config.attention_scale is None else config.attention_scale
    n_tokens = len(tokens)
    x = embed(weights["embed_tokens"], tokens).astype(dtype)  # [n_tokens, hidden_size]
    for layer, window in zip(weights["layers"], windows or [0] * config.num_hidden_layers, strict=True):
        h = rms_norm(x, layer["input_layernorm"], config.norm_eps)
        q = linear("q_proj", layer["q_proj"], h).reshape(n_tokens, n_heads, head_dim)
        k = linear("k_proj", layer["k_proj"], h).reshape(n_tokens, n_kv_heads, head_dim)
        v = linear("v_proj", layer["v_proj"], h).reshape(n_tokens, n_kv_heads, head_dim)
        q, k = (rope(z, config.rope_inv_freq, config.rope_style) for z in (q, k))
        h = attention(q, k, v, scale, cached, window).reshape(n_tokens, n_heads * head_dim)
        x = x + linear("o_proj", layer["o_proj"], h)
        h = rms_norm(x, layer["post_attention_layernorm"], config.norm_eps)
        h = silu(linear("gate_proj", layer["gate_proj"], h)) * linear("up_proj", layer["up_proj"], h)
        x = x + linear("down_proj", layer["down_proj"], h)
    x = rms_norm(x, weights["norm"], config.norm_eps)
    head = weights["embed_tokens"] if weights["lm_head"] is None else weights["lm_head"]
    return linear("lm_head", head, x)


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
