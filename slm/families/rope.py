# SPDX-License-Identifier: Apache-2.0
"""Rotary positions: every published way of scaling them, computed once into angles per position and a factor.

`dim` is the number of rotated elements of a head; inv_freq has dim / 2 entries, in float32 as published models were trained.
A factor multiplies cosines and sines. What depends on the length of the sequence is chosen once, by the context of the model.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rope(NamedTuple):
    inv_freq: NDArray[np.float32]  # [dim / 2]
    factor: float = 1.0


def wavelengths(theta: float, dim: int) -> NDArray[np.float32]:
    """[dim / 2]: theta ** (2i / dim), rounded to f32 as Transformers does it.

    The power is taken in f64 first: NumPy's own f32 power differs in the last bit from one CPU to the next.
    """
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    return np.array([math.pow(theta, exponent) for exponent in exponents.tolist()], np.float32)


def default(theta: float, dim: int) -> Rope:
    """Su et al. 2021, RoFormer, arXiv 2104.09864."""
    return Rope(np.float32(1) / wavelengths(theta, dim))


def linear(theta: float, dim: int, factor: float) -> Rope:
    """Position interpolation. Chen et al. 2023, arXiv 2306.15595."""
    return Rope(default(theta, dim).inv_freq / np.float32(factor))


def dynamic(theta: float, dim: int, factor: float, trained: int, context: int) -> Rope:
    """A larger base beyond the trained context ("NTK-aware")."""
    length = max(context, trained)
    return default(theta * (factor * length / trained - (factor - 1)) ** (dim / (dim - 2)), dim)


def yarn(
    theta: float,
    dim: int,
    factor: float,
    original: int,
    *,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    attention_factor: float | None = None,
    truncate: bool = True,
) -> Rope:
    """Fast pairs keep their angle, slow ones are interpolated. Peng et al. 2023, arXiv 2309.00071."""

    def pair_of(rotations: float) -> float:
        return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_of(beta_fast), pair_of(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    width = high - low if high != low else 0.001
    ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(width), 0, 1)
    keep = np.float32(1) - ramp
    lengths = wavelengths(theta, dim)
    inv_freq = np.float32(1) / (np.float32(factor) * lengths) * (1 - keep) + np.float32(1) / lengths * keep
    return Rope(inv_freq, yarn_factor(factor) if attention_factor is None else attention_factor)


def yarn_factor(factor: float, mscale: float = 1.0) -> float:
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def llama3(theta: float, dim: int, factor: float, original: int, low_freq_factor: float, high_freq_factor: float) -> Rope:
    """Three bands by wavelength: kept, smoothed, divided by factor. Llama 3.1 (Dubey et al. 2024, arXiv 2407.21783)."""
    inv_freq = default(theta, dim).inv_freq
    length = np.float32(2 * math.pi) / inv_freq
    smooth = (original / length - low_freq_factor) / (high_freq_factor - low_freq_factor)
    smoothed = (1 - smooth) * inv_freq / factor + smooth * inv_freq
    slow, fast = length > original / low_freq_factor, length < original / high_freq_factor
    return Rope(np.where(slow, inv_freq / factor, np.where(fast, inv_freq, smoothed)).astype(np.float32))


def longrope(
    theta: float,
    dim: int,
    factors: Sequence[float] | NDArray[np.float32],
    *,
    scale: float,
    original: int,
    attention_factor: float | None = None,
) -> Rope:
    """A factor per pair; `factors` are the long ones where the context exceeds `original`; scale: how many times that the model
    reaches. Ding et al. 2024, arXiv 2402.13753."""
    if attention_factor is None:
        attention_factor = math.sqrt(1 + math.log(scale) / math.log(original)) if scale > 1 else 1.0
    return Rope(np.float32(1) / (np.asarray(factors, np.float32) * wavelengths(theta, dim)), attention_factor)
