# SPDX-License-Identifier: Apache-2.0
"""The element and block formats of GGUF files, in NumPy: an encoder and a decoder that share nothing with the C core.

F32, F16 and BF16 (the upper half of an F32) are elements. The others cut a row into blocks of 32 or 256 elements, little-endian:

    Q8_0    f16 d, i8 q[32]                                                  x = d q
    Q4_0    f16 d, u4 q[32]                                                  x = d (q - 8)
    Q4_1    f16 d, f16 m, u4 q[32]                                           x = d q + m
    Q5_0    f16 d, u1 h[32], u4 q[32]                                        x = d (q + 16 h - 16)
    Q5_1    f16 d, f16 m, u1 h[32], u4 q[32]                                 x = d (q + 16 h) + m
    Q2_K    u4 s[16] with u4 t[16], u2 q[256], f16 d, f16 m                  x = d s q - m t
    Q3_K    u1 h[256], u2 q[256], u6 s[16], f16 d                            x = d (s - 32) (q + 4 h - 4)
    Q4_K    f16 d, f16 m, u6 s[8] with u6 t[8], u4 q[256]                    x = d s q - m t
    Q5_K    f16 d, f16 m, u6 s[8] with u6 t[8], u1 h[256], u4 q[256]         x = d s (q + 16 h) - m t
    Q6_K    u4 q[256], u2 h[256], i8 s[16], f16 d                            x = d s (q + 16 h - 32)
    IQ4_NL  f16 d, u4 q[32]                                                  x = d V[q]
    IQ4_XS  f16 d, u6 s[8], u4 q[256]                                        x = d (s - 32) V[q]

s and t belong to 16 or 32 consecutive elements (256 / their number). Arrays of less than a byte lie in runs of bytes: field j of
byte i of a run, counted from the low bits, is element i + j * (bytes of the run). The runs are in FORMATS, the 6-bit scales in
`scales_of`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

V = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])


@dataclass(frozen=True)
class Format:
    block: int  # elements
    size: int  # bytes
    group: int = 0  # elements that share a scale; 0: the elements are floats themselves
    d: int = 0  # where in a block
    m: int | None = None  # where, or there is none
    planes: tuple[tuple[int, int, int, int], ...] = ()  # of the codes: where, bits, bytes of a run, lowest bit in the code
    offset: int = 0

    @property
    def bits(self) -> int:
        return sum(bits for _, bits, _, _ in self.planes)

    @property
    def halves(self) -> list[int]:
        """Where the f16 fields are."""
        return [self.d] if self.m is None else [self.d, self.m]


FORMATS = {
    "F32": Format(1, 4),
    "F16": Format(1, 2),
    "BF16": Format(1, 2),
    "Q8_0": Format(32, 34, 32, planes=((2, 8, 32, 0),)),
    "Q4_0": Format(32, 18, 32, planes=((2, 4, 16, 0),), offset=8),
    "Q4_1": Format(32, 20, 32, m=2, planes=((4, 4, 16, 0),)),
    "Q5_0": Format(32, 22, 32, planes=((6, 4, 16, 0), (2, 1, 1, 4)), offset=16),
    "Q5_1": Format(32, 24, 32, m=2, planes=((8, 4, 16, 0), (4, 1, 1, 4))),
    "Q2_K": Format(256, 84, 16, d=80, m=82, planes=((16, 2, 32, 0),)),
    "Q3_K": Format(256, 110, 16, d=108, planes=((32, 2, 32, 0), (0, 1, 32, 2)), offset=4),
    "Q4_K": Format(256, 144, 32, m=2, planes=((16, 4, 32, 0),)),
    "Q5_K": Format(256, 176, 32, m=2, planes=((48, 4, 32, 0), (16, 1, 32, 4))),
    "Q6_K": Format(256, 210, 16, d=208, planes=((0, 4, 64, 0), (128, 2, 32, 4)), offset=32),
    "IQ4_NL": Format(32, 18, 32, planes=((2, 4, 16, 0),)),
    "IQ4_XS": Format(256, 136, 32, planes=((8, 4, 16, 0),)),
}
BLOCK_TYPES = [name for name, fmt in FORMATS.items() if fmt.group]


def take(raw: Bytes, bits: int, run: int) -> Bytes:
    """The fields [n, elements] of bytes [n, bytes], in the order of the elements."""
    runs = raw.reshape(len(raw), -1, 1, run)
    return (runs >> np.arange(0, 8, bits, np.uint8)[:, None] & np.uint8((1 << bits) - 1)).reshape(len(raw), -1)


def put(fields: Bytes, bits: int, run: int) -> Bytes:
    """The inverse of take."""
    runs = fields.reshape(len(fields), -1, 8 // bits, run)
    return np.bitwise_or.reduce(runs << np.arange(0, 8, bits, np.uint8)[:, None], axis=2).reshape(len(fields), -1)


def scales_of(name: str, raw: Bytes) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
    """(s, t), each [blocks, groups of a block], with Q3_K's and IQ4_XS's 32 taken off; ones and no t where there is one level."""
    if FORMATS[name].block == 32:
        return np.ones((len(raw), 1), np.int32), None
    if name == "Q2_K":
        s, t = raw[:, :16] & 15, raw[:, :16] >> 4
    elif name in ("Q4_K", "Q5_K"):  # the first four of s and t in the low six bits of 8 bytes, the others' high bits above them
        low, rest = raw[:, 4:12], raw[:, 12:16]
        s = np.concatenate([low[:, :4] & 63, (rest & 15) | low[:, :4] >> 6 << 4], axis=1)
        t = np.concatenate([low[:, 4:] & 63, rest >> 4 | low[:, 4:] >> 6 << 4], axis=1)
    else:
        t = None
        if name == "Q6_K":
            s = raw[:, 192:208].view(np.int8)
        elif name == "Q3_K":
            s = np.int32(take(raw[:, 96:104], 4, 8) | take(raw[:, 104:108], 2, 4) << 4) - 32
        else:
            s = np.int32(take(raw[:, 4:8], 4, 1) | take(raw[:, 2:4], 2, 1) << 4) - 32
    return np.int32(s), None if t is None else np.int32(t)


def put_scales(name: str, s: NDArray[np.int32], t: NDArray[np.int32], raw: Bytes) -> None:
    """The inverse of scales_of, into blocks with two levels."""
    if name == "Q2_K":
        raw[:, :16] = s | t << 4
    elif name in ("Q4_K", "Q5_K"):
        raw[:, 4:8], raw[:, 8:12] = s[:, :4] | s[:, 4:] >> 4 << 6, t[:, :4] | t[:, 4:] >> 4 << 6
        raw[:, 12:16] = s[:, 4:] & 15 | (t[:, 4:] & 15) << 4
    elif name == "Q6_K":
        raw[:, 192:208] = s.astype(np.int8).view(np.uint8)
    else:
        s = (s + 32).astype(np.uint8)
        if name == "Q3_K":
            raw[:, 96:104], raw[:, 104:108] = put(s & 15, 4, 8), put(s >> 4, 2, 4)
        else:
            raw[:, 4:8], raw[:, 2:4] = put(s & 15, 4, 1), put(s >> 4, 2, 1)


def fields(name: str, data: bytes | Bytes, rows: int, cols: int) -> tuple[NDArray[np.int32], Floats, Floats | None]:
    """The parts of block types: whole numbers [rows, cols], d and m (None: no such field) [rows, groups]: x = d * number + m."""
    fmt = FORMATS[name]
    raw = np.frombuffer(data, np.uint8).reshape(rows * cols // fmt.block, fmt.size)
    codes = np.zeros((len(raw), fmt.block), np.int32)
    for at, bits, run, lowest in fmt.planes:
        codes |= np.int32(take(raw[:, at : at + fmt.block * bits // 8], bits, run)) << lowest
    if name == "Q8_0":
        codes = np.int32(codes.astype(np.uint8).view(np.int8))
    codes = V[codes] if name.startswith("IQ4") else codes - fmt.offset
    s, t = scales_of(name, raw)
    halves = [np.float32(raw[:, at : at + 2].copy().view("<f2")) for at in fmt.halves]
    d = halves[0] * np.float32(s)
    m = None if fmt.m is None else halves[1] if t is None else -(halves[1] * np.float32(t))
    return codes.reshape(rows, cols), d.reshape(rows, -1), None if m is None else m.reshape(rows, -1)


def decode(name: str, data: bytes | Bytes, rows: int, cols: int) -> Floats:
    """The exact values [rows, cols] of a matrix in file order, rounded once to float32 where the format needs it."""
    if name == "F32":
        return np.frombuffer(data, "<f4").reshape(rows, cols)
    if name == "F16":
        return np.frombuffer(data, "<f2").reshape(rows, cols).astype(np.float32)
    if name == "BF16":
        return (np.frombuffer(data, "<u2").reshape(rows, cols).astype(np.uint32) << 16).view(np.float32)
    group = FORMATS[name].group
    codes, d, m = fields(name, data, rows, cols)
    values = np.repeat(d, group, axis=1) * np.float32(codes)  # at most 24 bits: exact
    return values if m is None else values + np.repeat(m, group, axis=1)


def nearest_codes(name: str, blocks: Floats, d: Floats, m: Floats | None) -> Bytes:
    """Codes [n, group] whose values come nearest to blocks [n, group]; d and m: [n, 1]."""
    fmt = FORMATS[name]
    shifted = blocks - (0 if m is None else m)
    numbers = np.divide(shifted, d, out=np.zeros_like(blocks), where=d != 0)
    if name.startswith("IQ4"):
        return np.abs(numbers[..., None] - V).argmin(axis=2).astype(np.uint8)
    if name == "Q8_0":
        return np.clip(np.rint(numbers), -127, 127).astype(np.int8).view(np.uint8)
    return np.clip(np.rint(numbers) + fmt.offset, 0, (1 << fmt.bits) - 1).astype(np.uint8)


def encode(name: str, values: Floats) -> Bytes:
    """Blocks of values [rows, cols], as bytes [rows, bytes of a row]: the scales that just hold each group, and then the nearest
    codes to the scales as stored. No search for better scales, so quantizers of others lose less."""
    fmt = FORMATS[name]
    rows = values.shape[0]
    if name == "F32":
        raw = values.astype("<f4").view(np.uint8)
    elif name == "F16":
        raw = values.astype("<f2").view(np.uint8)
    elif name == "BF16":
        raw = round_bf16(values).view(np.uint8).reshape(-1, 4)[:, 2:]
    else:
        raw = encode_blocks(name, values.astype(np.float32).reshape(-1, fmt.group))
    return np.ascontiguousarray(raw).reshape(rows, -1)


def encode_blocks(name: str, groups: Floats) -> Bytes:
    fmt = FORMATS[name]
    low, high = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    largest = np.where(-low > high, low, high)  # with its sign: codes reach -offset, but not +offset
    two_level = fmt.block == 256
    if fmt.m is None:
        least = -127 if name in ("Q8_0", "IQ4_NL", "IQ4_XS") else -fmt.offset
        d, m = (np.abs(largest) / 127 if name == "Q8_0" else largest / least), None
    else:
        low = np.minimum(low, 0) if two_level else low  # a subtracted minimum is not negative
        d, m = (high - low) / ((1 << fmt.bits) - 1), low
    raw = np.zeros((len(groups) * fmt.group // fmt.block, fmt.size), np.uint8)

    def store(at: int, numbers: Floats) -> Floats:
        """What f16 makes of one number per block."""
        halves = numbers.astype("<f2").reshape(len(raw), 1)
        raw[:, at : at + 2] = halves.view(np.uint8)
        return np.float32(halves)

    if two_level:
        most = {"Q2_K": 15, "Q4_K": 63, "Q5_K": 63, "Q6_K": 127}.get(name, 31)
        per_block = [x if x is None else x.reshape(len(raw), -1) for x in (d, m)]
        factors, stored = [], []
        for at, wanted in zip(fmt.halves, per_block, strict=False):
            unit = store(at, np.abs(wanted).max(axis=1) / most)
            factors.append(np.rint(np.divide(wanted, unit, out=np.zeros_like(wanted), where=unit != 0)).clip(-most, most))
            stored.append((unit * factors[-1]).reshape(-1, 1))
        s, t = np.int32(factors[0]), np.abs(np.int32(factors[-1]))
        put_scales(name, s, t, raw)
        d, m = stored if fmt.m is not None else (stored[0], None)
    else:
        d = store(fmt.d, d)
        m = None if m is None else store(fmt.m, m)
    codes = nearest_codes(name, groups, d, m).reshape(len(raw), fmt.block)
    for at, bits, run, lowest in fmt.planes:
        raw[:, at : at + fmt.block * bits // 8] = put(codes >> lowest & np.uint8((1 << bits) - 1), bits, run)
    return raw


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
    dtype, exponent, lowest = {"F32": ("<u4", 0x7F800000, 0x00800000), "BF16": ("<u2", 0x7F80, 0x0080)}.get(
        name, ("<u2", 0x7C00, 0x0400)
    )
    for at in fmt.halves:
        words = raw[:, at : at + np.dtype(dtype).itemsize].copy().view(dtype)
        words[words & exponent == exponent] ^= lowest  # neither infinity nor NaN
        raw[:, at : at + np.dtype(dtype).itemsize] = words.view(np.uint8)
    return raw.reshape(rows, -1)


def adversarial_bytes(name: str, rows: int, cols: int, rng: np.random.Generator) -> Bytes:
    """Blocks of edge scales (subnormal, zero, largest, both signs) with extreme codes; float types hold the edge values."""
    fmt = FORMATS[name]
    n_blocks = rows * cols // fmt.block
    if fmt.group == 0:
        edges = EDGE_SCALES.view("<f2")
        if name == "F16":
            values = rng.choice(edges, n_blocks)
        else:
            extremes = np.array([0x00000001, 0x007FFFFF, 0x00800000, 0x7F7F0000], "<u4").view("<f4")
            values = rng.choice(np.concatenate([edges.astype(np.float32), extremes, -extremes]), n_blocks)
            if name == "BF16":
                return values.astype("<f4").view(np.uint8).reshape(rows, cols, 4)[:, :, 2:].reshape(rows, -1).copy()
        return values.view(np.uint8).reshape(rows, -1)
    edges = np.array([0x00, 0x0F, 0xF0, 0xFF, 0x7F, 0x80, 0x88, 0x78], np.uint8)
    raw = rng.choice(edges, (n_blocks, fmt.size))
    for at in fmt.halves:
        raw[:, at : at + 2] = rng.choice(EDGE_SCALES, n_blocks)[:, None].view(np.uint8)
    return raw.reshape(rows, -1)
