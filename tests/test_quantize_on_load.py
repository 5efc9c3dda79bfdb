# SPDX-License-Identifier: Apache-2.0
"""slm.load(quantize=...): the same bits as loading a file whose matrices the `gguf` package has quantized."""

import gguf
import gguf_writer
import numpy as np
import pytest
from gguf.quants import quantize

import slm
from slm import _core, loader

IDS = list(range(0, 259, 7))


def adversarial(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of all sizes, blocks of zeros, of one value, of one element, of halves that must be rounded, and subnormal halves."""
    x = rng.normal(0, 0.1, shape) * np.exp2(rng.integers(-4, 3, (shape[0], 1)))
    blocks = x.reshape(-1, 32)
    kinds = rng.integers(0, 12, len(blocks))
    blocks[kinds == 0] = 0
    blocks[kinds == 1] = 0.03
    blocks[kinds == 2, 1:] = 0
    blocks[kinds == 3] = rng.integers(-31, 32, (int((kinds == 3).sum()), 32)) / 256
    blocks[kinds == 4] *= 1e-6
    return x.astype(np.float32)


def model(shape_seed: int = 0) -> tuple[dict, dict[str, np.ndarray]]:
    metadata, tensors = gguf_writer.tiny_llama(layers=2, hidden=64, intermediate=96, tied=bool(shape_seed))
    rng = np.random.default_rng(shape_seed)
    arrays = {name: adversarial(rng, shape) if len(shape) == 2 else data for name, (_, shape, data) in tensors.items()}
    return metadata, arrays


def logits(path, **options) -> np.ndarray:
    core = loader.open_model(path, **options).core
    return core.session().forward(IDS, "all")


@pytest.mark.parametrize("source", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("name", _core.encodes())
def test_the_same_bits_as_a_quantized_file(name, source, tmp_path):
    metadata, arrays = model(int(source == "F16"))
    floats, blocks = {}, {}
    kind = gguf.GGMLQuantizationType[name]
    for key, array in arrays.items():
        if array.ndim == 1:
            floats[key] = blocks[key] = ("F32", array.shape, array)
            continue
        stored = gguf.quants.quantize(array, gguf.GGMLQuantizationType[source])
        floats[key] = (source, array.shape, stored)
        widened = gguf.quants.dequantize(stored, gguf.GGMLQuantizationType[source]).astype(np.float32)
        blocks[key] = (name, array.shape, quantize(widened, kind))
    gguf_writer.write_gguf(tmp_path / "floats.gguf", metadata, floats)
    gguf_writer.write_gguf(tmp_path / "blocks.gguf", metadata, blocks)
    expected = logits(tmp_path / "blocks.gguf")
    for threads in (1, 2):
        found = logits(tmp_path / "floats.gguf", quantize=name, threads=threads)
        np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
    plain, quantized = (loader.open_model(tmp_path / "floats.gguf", quantize=q).core.stats() for q in (None, name))
    assert quantized["weight_bytes"] < 0.7 * plain["weight_bytes"]
    assert quantized["weight_bytes"] == loader.open_model(tmp_path / "blocks.gguf").core.stats()["weight_bytes"]
    assert quantized["kv"] == "bf16"


def test_what_is_quantized_already_stays(tmp_path):
    metadata, arrays = model()
    kind = gguf.GGMLQuantizationType.Q8_0
    tensors = {
        key: ("Q8_0", array.shape, quantize(array, kind)) if "ffn" in key and array.ndim == 2 else ("F32", array.shape, array)
        for key, array in arrays.items()
    }
    gguf_writer.write_gguf(tmp_path / "mixed.gguf", metadata, tensors)
    tensors |= {
        key: ("Q4_0", array.shape, quantize(array, gguf.GGMLQuantizationType.Q4_0))
        for key, array in arrays.items()
        if array.ndim == 2 and tensors[key][0] == "F32"
    }
    gguf_writer.write_gguf(tmp_path / "expected.gguf", metadata, tensors)
    found = logits(tmp_path / "mixed.gguf", quantize="Q4_0")
    np.testing.assert_array_equal(found.view(np.uint32), logits(tmp_path / "expected.gguf").view(np.uint32))


def test_columns_that_are_no_whole_blocks_stay_floats(tmp_path):
    metadata, tensors = gguf_writer.tiny_llama(hidden=48, intermediate=96)
    gguf_writer.write_gguf(tmp_path / "odd.gguf", metadata, tensors)
    stats = [loader.open_model(tmp_path / "odd.gguf", quantize=q).core.stats()["weight_bytes"] for q in (None, "Q8_0")]
    assert 48 * 96 * 2.8 < stats[0] - stats[1] < 48 * 96 * 3  # ffn_down alone has columns of 96


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
@pytest.mark.parametrize("name", _core.encodes())
def test_numbers_that_no_block_holds(name, value, tmp_path):
    metadata, tensors = gguf_writer.tiny_llama(layers=2)
    tensors["blk.1.ffn_up.weight"][2][5, 3] = value
    gguf_writer.write_gguf(tmp_path / "x.gguf", metadata, tensors)
    with pytest.raises(slm.FormatError, match=f"up_proj of layer 1: it cannot become {name}"):
        slm.load(tmp_path / "x.gguf", quantize=name.lower())


def test_info_tells_the_types_that_are_held(tmp_path):
    metadata, tensors = gguf_writer.tiny_llama(layers=2, hidden=64, intermediate=96)
    gguf_writer.write_gguf(tmp_path / "x.gguf", metadata, tensors)
    vectors = sum(data.size for _, shape, data in tensors.values() if len(shape) == 1)
    plain, quantized = slm.inspect(tmp_path / "x.gguf"), slm.inspect(tmp_path / "x.gguf", quantize="q8_0")
    assert plain.quantization == {"F32": plain.parameters}
    assert quantized.quantization == {"Q8_0": plain.parameters - vectors, "F32": vectors}
    with slm.load(tmp_path / "x.gguf", quantize="q8_0") as model:
        assert model.info.quantization == quantized.quantization
        assert ", Q8_0 100 %, " in repr(model.info)


def test_what_would_change_nothing_is_said(tmp_path):
    metadata, arrays = model()
    kind = gguf.GGMLQuantizationType.Q4_0
    blocks = {k: ("Q4_0", a.shape, quantize(a, kind)) if a.ndim == 2 else ("F32", a.shape, a) for k, a in arrays.items()}
    gguf_writer.write_gguf(tmp_path / "blocks.gguf", metadata, blocks)
    gguf_writer.write_gguf(tmp_path / "odd.gguf", *gguf_writer.tiny_llama(hidden=48, intermediate=80))
    for name, types in (("blocks", "Q4_0"), ("odd", "F32")):
        for call in (slm.load, slm.inspect):
            with pytest.raises(ValueError, match=rf"quantize='q8_0' would change nothing in '.*': its matrices are {types}, and"):
                call(tmp_path / f"{name}.gguf", quantize="q8_0")
