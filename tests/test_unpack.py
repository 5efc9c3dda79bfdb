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
ROWS = [1, 2, 15, 16, 17, 31, 33, 50]  # around the panel of 16 rows
GENERATORS = {"random": block_formats.random_bytes, "adversarial": block_formats.adversarial_bytes}


def column_counts(name: str) -> list[int]:
    """Every number of blocks up to 11, and one that is longer than any tile."""
    block = block_formats.FORMATS[name].block
    return [block * n for n in (*range(1, 12), 1536 // block + 1)]


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


@every_type
def test_encoding_keeps_what_the_format_can_hold(name):
    rng = np.random.default_rng(2)
    values = (rng.standard_normal((7, 96)) * np.exp2(rng.integers(-10, 4, (7, 1)))).astype(np.float32)
    values[3, :32] = 0
    decoded = block_formats.decode(name, block_formats.encode(name, values), *values.shape)
    largest = np.abs(values.reshape(7, -1, 32)).max(axis=2, keepdims=True)
    # half a step of codes, as a share of the largest element of a block (Q4_1's range may reach from -largest to largest)
    share = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 0.51 / 127, "Q4_0": 0.51 / 4, "Q4_1": 1.02 / 15}[name]
    assert (np.abs(decoded - values).reshape(7, -1, 32) <= share * largest).all()
    np.testing.assert_array_equal(decoded[3, :32], 0)


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
        np.testing.assert_array_equal(bits(unpacked), bits(decode_by_gguf(name, data)), f"{rows} x {cols}")


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_1"])
def test_unpack_of_every_code_and_scale(name):
    """All 65,024 finite scales, each with every code."""
    fmt = block_formats.FORMATS[name]
    scales = np.arange(1 << 16, dtype=np.uint16)
    scales = scales[np.isfinite(scales.view(np.float16))]
    n_codes = 256 if name == "Q8_0" else 16
    codes = np.arange(n_codes, dtype=np.uint8) if name == "Q8_0" else np.arange(16, dtype=np.uint8) * 17
    codes = codes.reshape(-1, fmt.size - 2 * fmt.n_scales) if name == "Q8_0" else codes[None]
    rows, blocks_per_row = len(scales), len(codes)
    data = np.empty((rows, blocks_per_row, fmt.size), np.uint8)
    data[..., : 2 * fmt.n_scales] = np.tile(scales[:, None], fmt.n_scales).view(np.uint8)[:, None]
    data[..., 2 * fmt.n_scales :] = codes
    cols = blocks_per_row * fmt.block
    unpacked = _core.unpack(name, data.tobytes(), rows, cols)
    np.testing.assert_array_equal(bits(unpacked), bits(decode_by_gguf(name, data.reshape(rows, -1))))


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
