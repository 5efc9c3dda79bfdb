# SPDX-License-Identifier: Apache-2.0
"""The memory promise: what `inspect` says from the header is what the core takes, and what the process then has resident."""

import sys
from pathlib import Path

import gguf_writer
import pytest

import slm
from slm import _core, loader
from slm.info import Info

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
import synthetic

SMALL = synthetic.llama(4, 1024, 2816, 16, 4, 32_000)
WITH_BIASES = synthetic.phi2(3, 1280, 5120, 16, 32, 20_000)
SIZES = ("weight_bytes", "load_bytes", "kv_bytes", "workspace_bytes")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
@pytest.mark.parametrize("size", [SMALL, WITH_BIASES], ids=lambda size: size.architecture)
def test_peak_memory_is_what_inspect_promised(size, tmp_path):
    synthetic.write(tmp_path / "model.gguf", size)
    found = synthetic.run(tmp_path / "model.gguf")
    print(synthetic.table({size.architecture: found}))
    assert found["weight"] > 40e6
    # The promise is for a prompt of the whole context, the prompt half of it; so small a model shows that.
    assert 0.92 * found["promised"] < found["peak"] < 1.05 * found["promised"]
    assert found["peak_loaded"] < 1.05 * (found["process"] + found["weight"] + found["load"])


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_quantizing_while_loading_never_holds_the_floats(tmp_path):
    size = {"layers": 3, "hidden": 1024, "heads": 16, "kv_heads": 4, "intermediate": 4096}
    gguf_writer.write_gguf(tmp_path / "floats.gguf", *gguf_writer.tiny_llama(**size))
    found = synthetic.run(tmp_path / "floats.gguf", quantize="q4_0")
    print(synthetic.table({"q4_0": found}))
    assert found["weight"] < found["file"] / 7  # 18 bytes for 32 x 4
    assert 0.9 * found["promised"] < found["peak"] < 1.1 * found["promised"] < found["file"]  # most of it is Python


OPTIONS = [{}, {"quantize": "Q8_0"}, {"precision": "high"}, {"kv": "f32"}, {"kv": "int8"}, {"context": 70}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("tied", [True, False])
def test_inspect_and_load_agree(options, tied, tmp_path):
    gguf_writer.write_gguf(tmp_path / "x.gguf", *gguf_writer.tiny_llama(layers=2, hidden=64, intermediate=96, tied=tied))
    inspected = loader.inspect(tmp_path / "x.gguf", **options)
    opened = loader.open_model(tmp_path / "x.gguf", **options)
    stats = opened.core.stats()
    assert [getattr(inspected, name) for name in SIZES] == [getattr(opened.info, name) for name in SIZES]
    assert (inspected.weight_bytes, inspected.kv_bytes, inspected.kv) == (stats["weight_bytes"], stats["kv_bytes"], stats["kv"])
    session = opened.core.session()
    session.forward([1] * inspected.context, "none")
    assert session.kv_bytes == inspected.kv_bytes


def test_tied_embeddings_count_once_and_options_count(tmp_path):
    paths = {tied: tmp_path / f"{tied}.gguf" for tied in (True, False)}
    for tied, path in paths.items():
        gguf_writer.write_gguf(path, *gguf_writer.tiny_llama(hidden=64, tied=tied))
    table_bytes = 272 * 64 * 4  # 259 rows, padded to panels of 16
    plain = slm.inspect(paths[True])
    assert slm.inspect(paths[False]).weight_bytes - plain.weight_bytes == table_bytes
    assert slm.inspect(paths[True], quantize="q8_0").weight_bytes < 0.3 * plain.weight_bytes
    assert slm.inspect(paths[True], kv="bf16").kv_bytes == plain.kv_bytes / 2
    assert slm.inspect(paths[True], kv="int8").kv_bytes == plain.kv_bytes * (16 + 4) / (16 * 4)  # heads of 16, a scale for each
    assert slm.inspect(paths[True], quantize="q8_0").kv == "bf16"
    assert slm.inspect(paths[True], quantize="q8_0", precision="high").kv == "f32"
    assert plain.memory_bytes == plain.process_bytes + plain.weight_bytes + max(
        plain.load_bytes, plain.kv_bytes + plain.workspace_bytes
    )


def test_what_does_not_fit(tmp_path):
    """Attention heads so many that a full context is larger than any machine."""
    metadata, tensors = gguf_writer.tiny_llama()
    metadata["llama.context_length"] = ("uint32", 1 << 24)
    gguf_writer.write_gguf(tmp_path / "x.gguf", metadata, tensors)
    info = loader.inspect(tmp_path / "x.gguf")
    assert info.fits is (info.memory_bytes - info.process_bytes <= info.available_bytes)
    assert loader.inspect(tmp_path / "x.gguf", context=64).fits
    small = Info(**{name: getattr(info, name) for name in Info.__dataclass_fields__} | {"available_bytes": info.kv_bytes})
    assert small.fits is False
    assert "does not fit into" in repr(small)


def test_the_trained_context_is_said_beside_the_one_in_use(tmp_path):
    gguf_writer.write_gguf(tmp_path / "x.gguf", *gguf_writer.tiny_llama())
    info = slm.inspect(tmp_path / "x.gguf", context=64)
    assert (info.context, info.trained_context) == (64, 128)
    assert "context 64 (trained 128)" in repr(info)
    with slm.load(tmp_path / "x.gguf", context=64) as model:
        assert (model.info.context, model.info.trained_context, model.context) == (64, 128, 64)


def test_all_reasons_at_once(tmp_path):
    """A tokenizer, a key and tensors of a type that slm does not know; and an architecture, a tokenizer and a type."""
    metadata, tensors = gguf_writer.tiny_llama()
    metadata |= {"tokenizer.ggml.pre": ("string", "klingon"), "llama.attention.surprise": ("float32", 2.0)}
    rows, cols = tensors["blk.0.ffn_up.weight"][1]
    tensors["blk.0.ffn_up.weight"] = ("MXFP4", (rows, cols), bytes(8 * rows * cols))
    gguf_writer.write_gguf(tmp_path / "x.gguf", metadata, tensors)
    info = slm.inspect(tmp_path / "x.gguf")
    found = " | ".join(info.unsupported)
    print(found)
    assert len(info.unsupported) == 3
    for word in ("klingon", "surprise", "blk.0.ffn_up.weight", "MXFP4"):
        assert word in found
    assert info.memory_bytes is None
    assert info.fits is None
    assert info.trained_context == 128
    with pytest.raises(slm.UnsupportedError):
        slm.load(tmp_path / "x.gguf")
    metadata["general.architecture"] = ("string", "mamba")
    gguf_writer.write_gguf(tmp_path / "y.gguf", metadata, tensors)
    found = " | ".join(slm.inspect(tmp_path / "y.gguf").unsupported)
    for word in ("mamba", "klingon", "MXFP4"):
        assert word in found


def test_measure_checks_what_load_checks(tmp_path):
    with pytest.raises(ValueError, match="quantize: 'Q9' is not known"):
        _core.Model.measure({}, {}, 1, quantize="Q9")
    with pytest.raises(ValueError, match="precision: 'best' is not known"):
        _core.Model.measure({}, {}, 1, precision="best")
    with pytest.raises(ValueError, match="missing"):
        _core.Model.measure({}, {}, 1)
