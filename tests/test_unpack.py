# SPDX-License-Identifier: Apache-2.0
"""Packing a matrix into the kernel layout and reading it back gives the exact values of the file.

The oracles are block_formats.py and the decoder of the `gguf` package; they are held against each other first.
"""

import block_formats
import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from slm import _core

every_type = pytest.mark.parametrize("name", list(block_formats.FORMATS))
ROWS = [1, 2, 7, 8, 9, 15, 16, 17, 24, 25, 31, 33, 50]  # around the panel of 16 rows and its half
GENERATORS = {"random": block_formats.random_bytes, "adversarial": block_formats.adversarial_bytes}


def column_counts(name: str) -> list[int]:
    """Every number of blocks up to 11 (5 of 256), and one that is longer than any tile."""
    block = block_formats.FORMATS[name].block
    return [block * n for n in (*range(1, 6 if block == 256 else 12), 1536 // block + 1)]


def bits(values: np.ndarray) -> np.ndarray:
    """Compare bits, not values: the sign of a zero counts."""
    assert values.dtype == np.float32
    return values.view(np.uint32)


def decode_by_gguf(name: str, data: np.ndarray) -> np.ndarray:
    data = data.view({"F32": np.float32, "F16": np.float16}.get(name, np.uint8))
    return dequantize(data, gguf.GGMLQuantizationType[name]).astype(np.float32)


@every_type
@pytest.mark.parametrize("generator", GENERATORS)
def test_the_oracles_agree(name, generator):
    rng = np.random.default_rng(1)
    for cols in column_counts(name):
        data = GENERATORS[generator](name, 33, cols, rng)
        expected = decode_by_gguf(name, data)
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(bits(block_formats.decode(name, data, 33, cols)), bits(expected))


# The largest error of a code, as a share of the largest element of a group; where minimums take a code's range, it may be twice
# as wide. Two levels round scales and minimums too.
ERRORS = {
    "F32": 0,
    "F16": 2**-11,
    "BF16": 2**-8,
    "Q8_0": 0.51 / 127,
    "Q4_0": 0.51 / 4,
    "Q4_1": 1.02 / 15,
    "Q5_0": 0.51 / 8,
    "Q5_1": 1.02 / 31,
    "IQ4_NL": 0.13,
    "Q2_K": 0.8,
    "Q3_K": 0.3,
    "Q4_K": 0.2,
    "Q5_K": 0.1,
    "Q6_K": 0.05,
    "IQ4_XS": 0.2,
}


@every_type
def test_encoding_keeps_what_the_format_can_hold(name):
    rng = np.random.default_rng(2)
    values = (rng.standard_normal((7, 512)) * np.exp2(rng.integers(-10, 4, (7, 1)))).astype(np.float32)
    values[3, :256] = 0
    decoded = block_formats.decode(name, block_formats.encode(name, values), *values.shape)
    largest = np.abs(values.reshape(7, -1, 32)).max(axis=2, keepdims=True)
    assert (np.abs(decoded - values).reshape(7, -1, 32) <= ERRORS[name] * largest).all()
    np.testing.assert_array_equal(decoded[3, :256], 0)


def test_the_core_knows_the_same_formats():
    assert _core.types() == {name: (fmt.block, fmt.size) for name, fmt in block_formats.FORMATS.items()}


@every_type
@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("rows", ROWS)
def test_unpack_is_exact(name, generator, rows):
    rng = np.random.default_rng(rows)
    for cols in column_counts(name):
        data = GENERATORS[generator](name, rows, cols, rng)
        unpacked = _core.unpack(name, data.tobytes(), rows, cols)
        assert unpacked.shape == (rows, cols)
        expected = decode_by_gguf(name, data)
        if name == "BF16":  # the core keeps what can be a factor of its products
            expected[np.abs(expected) < 2**-56] = 0
        np.testing.assert_array_equal(bits(unpacked), bits(expected), f"{rows} x {cols}")


@pytest.mark.parametrize("name", block_formats.BLOCK_TYPES)
def test_unpack_of_every_scale(name):
    """All 65,024 finite scales with all codes in turn (every fourth scale in blocks of 256)."""
    fmt = block_formats.FORMATS[name]
    scales = np.arange(0, 1 << 16, 1 if fmt.block == 32 else 4, dtype="<u2")
    scales = scales[np.isfinite(scales.view("<f2"))]
    data = np.resize(np.arange(256, dtype=np.uint8), (len(scales), fmt.size))  # sizes are no divisors of 256: bytes move on
    for at in fmt.halves:
        data[:, at : at + 2] = scales[:, None].view(np.uint8)
    unpacked = _core.unpack(name, data.tobytes(), len(scales), fmt.block)
    np.testing.assert_array_equal(bits(unpacked), bits(decode_by_gguf(name, data)))


@pytest.mark.parametrize(
    ("name", "size", "rows", "cols"),
    [
        ("Q4_0", 18, 1, 31),  # not whole blocks
        ("Q4_0", 17, 1, 32),  # a byte short
        ("Q4_0", 19, 1, 32),  # a byte too many
        ("F32", 4, 0, 1),
        ("F32", 4, 1, 0),
        ("F32", 4, -1, -1),
        ("F32", 4, 1 << 32, 1 << 32),  # the product overflows
        ("Q3_X", 18, 1, 32),
    ],
)
def test_unpack_refuses_what_does_not_fit(name, size, rows, cols):
    with pytest.raises(ValueError):  # noqa: PT011 (the message is the extension's own; tested there)
        _core.unpack(name, bytes(size), rows, cols)
