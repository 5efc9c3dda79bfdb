# SPDX-License-Identifier: Apache-2.0
"""The element and block formats of GGUF files, in NumPy: an encoder and a decoder that share nothing with the C core.

Every format cuts a row into blocks of `block` elements, each stored in `size` bytes, little-endian:

    F32, F16, BF16  one element; BF16 is the upper half of an F32
    Q8_0            f16 d, i8 q[32]                x[i] = d * q[i]
    Q4_0            f16 d, u4 q[32] in 16 bytes    x[i] = d * (q[i] - 8)
    Q4_1            f16 d, f16 m, u4 q[32]         x[i] = d * q[i] + m

Byte j of the sixteen holds element j in its low four bits and element j + 16 in its high ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    block: int  # elements
    size: int  # bytes
    n_scales: int  # leading f16 fields of a block; 0: the elements are floats themselves


FORMATS = {
    "F32": Format(1, 4, 0),
    "F16": Format(1, 2, 0),
    "BF16": Format(1, 2, 0),
    "Q8_0": Format(32, 34, 1),
    "Q4_0": Format(32, 18, 1),
    "Q4_1": Format(32, 20, 2),
}


def fields(name: str, data: bytes | Bytes, rows: int, cols: int) -> tuple[NDArray[np.int8], Floats, Floats | None]:
    """The parts of quantized blocks: codes [rows, cols] with Q4_0's 8 taken off, d and m (None: no such field) [rows, blocks]."""
    fmt = FORMATS[name]
    raw = np.frombuffer(data, np.uint8).reshape(rows * cols // fmt.block, fmt.size)
    scales = raw[:, : 2 * fmt.n_scales].copy().view("<f2").astype(np.float32).reshape(rows, -1, fmt.n_scales)
    codes = raw[:, 2 * fmt.n_scales :]
    if name != "Q8_0":
        codes = np.concatenate([codes & 15, codes >> 4], axis=1)
    codes = codes.view(np.int8) - np.int8(8 if name == "Q4_0" else 0)
    return codes.reshape(rows, cols), scales[..., 0], scales[..., 1] if fmt.n_scales == 2 else None


def decode(name: str, data: bytes | Bytes, rows: int, cols: int) -> Floats:
    """The exact values [rows, cols] of a matrix in file order, rounded once to float32 where the format needs it."""
    fmt = FORMATS[name]
    if name == "F32":
        return np.frombuffer(data, "<f4").reshape(rows, cols)
    if name == "F16":
        return np.frombuffer(data, "<f2").reshape(rows, cols).astype(np.float32)
    if name == "BF16":
        return (np.frombuffer(data, "<u2").reshape(rows, cols).astype(np.uint32) << 16).view(np.float32)
    codes, d, m = fields(name, data, rows, cols)
    values = np.repeat(d, fmt.block, axis=1) * codes  # at most 11 bits times 8: exact
    return values if m is None else values + np.repeat(m, fmt.block, axis=1)


def encode(name: str, values: Floats) -> Bytes:
    """Blocks of values [rows, cols], as bytes [rows, bytes of a row]; codes are the nearest to the scales as stored."""
    fmt = FORMATS[name]
    rows = values.shape[0]
    if name == "F32":
        raw = values.astype("<f4").view(np.uint8)
    elif name == "F16":
        raw = values.astype("<f2").view(np.uint8)
    elif name == "BF16":
        raw = round_bf16(values).view(np.uint8).reshape(-1, 4)[:, 2:]
    else:
        blocks = values.astype(np.float32).reshape(-1, fmt.block)
        low, high = blocks.min(axis=1, keepdims=True), blocks.max(axis=1, keepdims=True)
        largest = np.where(-low > high, low, high)  # with its sign: Q4_0 reaches -8 but only +7
        if name == "Q8_0":
            d, m, bounds = np.abs(largest) / 127, None, (-127, 127)
        elif name == "Q4_0":
            d, m, bounds = largest / -8, None, (0, 15)
        else:
            d, m, bounds = (high - low) / 15, low.astype("<f2"), (0, 15)
        d = d.astype("<f2")
        offset = {"Q8_0": 0, "Q4_0": 8, "Q4_1": 0}[name]
        step = d.astype(np.float32)
        shifted = blocks - (0 if m is None else m.astype(np.float32))
        codes = np.divide(shifted, step, out=np.zeros_like(blocks), where=step != 0)
        codes = np.clip(np.rint(codes) + offset, *bounds).astype(np.int8).view(np.uint8)
        if name != "Q8_0":
            codes = codes[:, :16] | codes[:, 16:] << 4
        scales = [d.view(np.uint8)] + ([] if m is None else [m.view(np.uint8)])
        raw = np.concatenate([*scales, codes], axis=1)
    return np.ascontiguousarray(raw).reshape(rows, -1)


def round_bf16(values: Floats) -> Floats:
    """Finite values rounded to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.uint64)
    bits += 0x7FFF + (bits >> 16 & 1)
    return (bits & 0xFFFF0000).astype(np.uint32).view(np.float32)


# Zero of both signs, the smallest and largest subnormal, the smallest normal, one, the largest: as f16, with both signs.
EDGE_SCALES = np.array([0x0000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF], "<u2")
EDGE_SCALES = np.concatenate([EDGE_SCALES, EDGE_SCALES | 0x8000])


def random_bytes(name: str, rows: int, cols: int, rng: np.random.Generator) -> Bytes:
    """Any bytes that a file may hold, [rows, bytes of a row]: every code, every finite scale or element."""
    fmt = FORMATS[name]
    raw = rng.integers(0, 256, (rows * cols // fmt.block, fmt.size), np.uint8)
    n_float_bytes = 2 * fmt.n_scales or fmt.size
    dtype, exponent, lowest = {"F32": ("<u4", 0x7F800000, 0x00800000), "BF16": ("<u2", 0x7F80, 0x0080)}.get(
        name, ("<u2", 0x7C00, 0x0400)
    )
    words = raw[:, :n_float_bytes].copy().view(dtype)
    words[words & exponent == exponent] ^= lowest  # neither infinity nor NaN
    raw[:, :n_float_bytes] = words.view(np.uint8)
    return raw.reshape(rows, -1)


def adversarial_bytes(name: str, rows: int, cols: int, rng: np.random.Generator) -> Bytes:
    """Blocks of edge scales (subnormal, zero, largest, both signs) with extreme codes; float types hold the edge values."""
    fmt = FORMATS[name]
    n_blocks = rows * cols // fmt.block
    if fmt.n_scales == 0:
        edges = EDGE_SCALES.view("<f2")
        if name == "F16":
            values = rng.choice(edges, n_blocks)
        else:
            extremes = np.array([0x00000001, 0x007FFFFF, 0x00800000, 0x7F7F0000], "<u4").view("<f4")
            values = rng.choice(np.concatenate([edges.astype(np.float32), extremes, -extremes]), n_blocks)
            if name == "BF16":
                return values.astype("<f4").view(np.uint8).reshape(rows, cols, 4)[:, :, 2:].reshape(rows, -1).copy()
        return values.view(np.uint8).reshape(rows, -1)
    scales = rng.choice(EDGE_SCALES, (n_blocks, fmt.n_scales)).view(np.uint8)
    edges = np.array([0x00, 0x0F, 0xF0, 0xFF, 0x7F, 0x80, 0x88, 0x78], np.uint8)
    codes = rng.choice(edges, (n_blocks, fmt.size - 2 * fmt.n_scales))
    return np.concatenate([scales, codes], axis=1).reshape(rows, -1)
