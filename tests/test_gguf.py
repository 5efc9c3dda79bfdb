# SPDX-License-Identifier: Apache-2.0
"""Files that are GGUF are read as the `gguf` package reads them; what a model's file says becomes its description."""

import os
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf as oracle
import numpy as np
import pytest
from gguf_writer import SCALARS, TENSOR_TYPES, tiny_llama, write_gguf

from slm import _core, loader
from slm.errors import FormatError
from slm.families import registry
from slm.formats.gguf import GGUF
from slm.formats.gguf_model import GGUFModel
from slm.formats.gguf_types import NUMBERS, VALUE_NAMES
from slm.formats.gguf_types import TENSOR_TYPES as KNOWN_TYPES

VOCABULARIES = sorted((Path(__file__).parent / "data" / "vocab").glob("*.gguf"))
TOKENS = "tokenizer.ggml.tokens"
KINDS = "tokenizer.ggml.token_type"
MERGES = "tokenizer.ggml.merges"


def describe(path: Path) -> registry.Architecture:
    """What loading reads before the weights."""
    with GGUFModel(path) as files:
        registry.vocabulary_of(files)
        return registry.describe(files)


def lowest_free_descriptor() -> int:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor


# ---- agreement with an independent reader -------------------------------------------------------------------------------------


def assert_same_reading(path: Path) -> None:
    reader = oracle.GGUFReader(path)
    with GGUF(path) as ours:
        assert ours.version == reader.fields["GGUF.version"].contents()
        theirs = {name: entry for name, entry in reader.fields.items() if not name.startswith("GGUF.")}
        assert list(ours.metadata) == list(theirs)
        for name, entry in theirs.items():
            value = ours.metadata[name].value
            expected = entry.contents()
            if ours.metadata[name].type == "array of string":
                joined, offsets = value
                value = [joined[a:b].decode() for a, b in pairwise(offsets.tolist())]
            elif isinstance(value, np.ndarray):
                value = value.tolist()
            elif isinstance(value, bytes):
                value = value.decode()
            assert value == expected, name
            assert ours.metadata[name].offset == entry.offset
        assert list(ours.tensors) == [tensor.name for tensor in reader.tensors]
        for tensor in reader.tensors:
            info = ours.tensors[tensor.name]
            assert info.shape == tuple(reversed(tensor.shape.tolist()))
            assert info.type.name == tensor.tensor_type.name
            assert (info.offset, info.size) == (tensor.data_offset, tensor.n_bytes)
            assert info.elements == tensor.n_elements


def every_value_type() -> dict[str, tuple[str, Any]]:
    values = {"float32": 1.5, "float64": -2.5, "bool": True}
    metadata: dict[str, tuple[str, Any]] = {f"one.{kind}": (kind, values.get(kind, 100)) for kind in SCALARS}
    metadata |= {f"many.{kind}": (f"array of {kind}", [values.get(kind, 100)] * 3) for kind in SCALARS}
    return metadata | {
        "one.string": ("string", "a\0b é\n"),
        "many.string": ("array of string", ["", "a\0b", "é" * 300]),
        "signed": ("array of int32", [-(2**31), -1, 0, 2**31 - 1]),
        "wide": ("uint64", 2**64 - 1),
    }


@pytest.mark.parametrize("version", [2, 3])
def test_agrees_with_the_gguf_package_on_a_model(tmp_path, version):
    write_gguf(tmp_path / "model.gguf", *tiny_llama(layers=2, tied=False), version=version)
    assert_same_reading(tmp_path / "model.gguf")


def test_agrees_with_the_gguf_package_on_every_value_type(tmp_path):
    metadata = every_value_type()
    assert {kind for kind, _ in metadata.values() if not kind.startswith("array")} == set(VALUE_NAMES.values()) - {"array"}
    write_gguf(tmp_path / "values.gguf", metadata, {})
    assert_same_reading(tmp_path / "values.gguf")


@pytest.mark.parametrize("alignment", [8, 64, 65_536])
def test_agrees_with_the_gguf_package_on_alignments_and_ranks(tmp_path, alignment):
    tensors = {f"rank {n}": ("F32", (2, 1, 3, 5)[-n:], bytes(4 * int(np.prod((2, 1, 3, 5)[-n:])))) for n in (1, 2, 3, 4)}
    write_gguf(tmp_path / "a.gguf", {"general.alignment": ("uint32", alignment)}, tensors, alignment=alignment)
    assert_same_reading(tmp_path / "a.gguf")


@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem)
def test_agrees_with_the_gguf_package_on_a_vocabulary(path):
    assert_same_reading(path)


def test_agrees_with_the_gguf_package_on_smollm2(smollm2_path):
    assert_same_reading(smollm2_path)


def test_tensor_types_are_those_of_the_gguf_package():
    theirs = {int(number): (number.name, *sizes) for number, sizes in oracle.GGML_QUANT_SIZES.items()}
    # The package still has the size that Q8_1, which no file holds, had with f32 scales; ggml stores them as f16.
    theirs[9] = ("Q8_1", 32, 2 + 2 + 32)
    ours = {number: tuple(kind) for number, kind in KNOWN_TYPES.items()}
    assert {number: ours.get(number) for number in theirs} == theirs


def test_types_of_the_core_are_those_of_the_format():
    sizes = {kind.name: (kind.block, kind.block_bytes) for kind in KNOWN_TYPES.values()}
    assert _core.types() == {name: sizes[name] for name in _core.types()}
    assert {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"} <= set(_core.types())


def test_string_arrays_longer_than_one_read(tmp_path):
    """The buffer must grow in the middle of a string, and in the middle of its length."""
    rng = np.random.default_rng(0)
    strings = ["x" * int(n) for n in rng.integers(0, 40_000, 200)]
    write_gguf(tmp_path / "long.gguf", {"many": ("array of string", strings), "after": ("uint32", 7)}, {})
    with GGUF(tmp_path / "long.gguf") as gguf:
        joined, offsets = gguf.get_strings("many")
        assert joined.decode() == "".join(strings)
        assert np.diff(offsets).tolist() == [len(s) for s in strings]
        assert gguf.get_uint("after") == 7


# ---- the Llama family ---------------------------------------------------------------------------------------------------------


def test_config_and_weights_of_a_model(tmp_path):
    path = tmp_path / "x.gguf"
    metadata, tensors = tiny_llama(layers=2, tied=False)
    file = write_gguf(path, metadata, tensors)
    with GGUFModel(path) as files:
        architecture = registry.describe(files)
        config = dict(architecture.config)
        np.testing.assert_array_equal(config.pop("rope_inv_freq"), np.float32([1, 0.1, 0.01, 0.001]))
        assert config == {
            "vocab_size": 259,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 128,
            "norm_eps": float(np.float32(1e-5)),
            "norm_kind": "rms",
            "hidden_act": "silu",
            "rope_style": "interleaved",
            "rotary_dim": 8,
            "rope_factor": 1.0,
            "attention_scale": pytest.approx(8**-0.5),
        }
        fd = files.gguf.fileno()
        weights = architecture.weights
        assert weights["embed_tokens"] == ("F32", fd, file.at["data token_embd.weight"], 259, 32)
        assert weights["norm"] == ("F32", fd, file.at["data output_norm.weight"], 1, 32)
        assert weights["lm_head"] == ("F32", fd, file.at["data output.weight"], 259, 32)
        assert len(weights["layers"]) == 2
        layer = weights["layers"][1]
        assert layer["k_proj"] == ("F32", fd, file.at["data blk.1.attn_k.weight"], 16, 32)
        assert layer["down_proj"] == ("F32", fd, file.at["data blk.1.ffn_down.weight"], 32, 64)
        assert layer["down_proj_group"] == 16
        stored = np.frombuffer(os.pread(fd, 4 * 32 * 64, layer["down_proj"][2]), np.float32).reshape(32, 64)
        np.testing.assert_array_equal(stored, tensors["blk.1.ffn_down.weight"][2])
    assert architecture.family == "llama"
    assert architecture.context_length == 128


def test_values_that_change_nothing_are_accepted(tmp_path):
    metadata, tensors = tiny_llama()
    metadata |= {
        "llama.expert_count": ("uint32", 0),
        "llama.rope.scaling.type": ("string", "none"),
        "llama.rope.dimension_count": ("uint32", 4),
        "llama.context_length": ("uint64", 10_000_000),  # H4: pages are taken as they are needed
        "other.block_count": ("uint32", 9),
    }
    write_gguf(tmp_path / "x.gguf", metadata, tensors)
    architecture = describe(tmp_path / "x.gguf")
    assert architecture.config["rotary_dim"] == 4
    assert architecture.context_length == 10_000_000
    assert architecture.weights["lm_head"] is None
    assert architecture.longest_context == 10_000_000


def test_rope_frequencies_are_within_a_bit_of_the_exact_ones(tmp_path):
    metadata, tensors = tiny_llama(hidden=256, heads=2, kv_heads=2)
    write_gguf(tmp_path / "x.gguf", metadata | {"llama.rope.freq_base": ("float32", 500_000.0)}, tensors)
    found = describe(tmp_path / "x.gguf").config["rope_inv_freq"]
    assert found.dtype == np.float32
    exact = 500_000.0 ** (-np.arange(0, 128, 2) / 128.0)
    np.testing.assert_allclose(found, exact, rtol=3e-7)


def test_vocabulary_of_a_model(tmp_path):
    metadata, tensors = tiny_llama()
    tokens = metadata[TOKENS][1]
    tokens[-1] = "<|im_end|>"
    tokens[-2] = "<|im_end|>x"
    metadata[KINDS][1][-2:] = [3, 3]
    tokens[5] = "</s>"  # a normal token by that name ends nothing
    metadata |= {"tokenizer.ggml.eot_token_id": ("uint32", 7), "tokenizer.ggml.padding_token_id": ("int32", 3)}
    metadata["tokenizer.chat_template"] = ("string", "{{ messages }}")
    metadata["tokenizer.chat_template.tool_use"] = ("string", "{{ tools }}")
    metadata["tokenizer.chat_templates"] = ("array of string", ["tool_use"])
    write_gguf(tmp_path / "x.gguf", metadata, tensors)
    with GGUF(tmp_path / "x.gguf") as gguf:
        vocabulary = registry.read_vocabulary(gguf)
    assert vocabulary.end_tokens == (0, 7, 258)
    assert vocabulary.special_ids == {"bos_token": 0, "eos_token": 0, "pad_token": 3}
    assert vocabulary.chat_templates == {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    assert vocabulary.splits == ("number", "gpt2_words")
    assert (vocabulary.model, vocabulary.prefix, vocabulary.suffix) == ("byte_bpe", (), ())
    joined, offsets = vocabulary.pieces
    assert [joined[a:b].decode() for a, b in pairwise(offsets)] == tokens
    assert not {"special_ids", "end_tokens", "chat_templates"} & set(vocabulary.core_arguments())


def test_a_model_without_vocabulary(tmp_path):
    metadata, tensors = tiny_llama()
    bare = {name: value for name, value in metadata.items() if not name.startswith("tokenizer.")}
    write_gguf(tmp_path / "x.gguf", bare, tensors)
    architecture = describe(tmp_path / "x.gguf")
    with GGUF(tmp_path / "x.gguf") as gguf:
        assert registry.read_vocabulary(gguf) is None
    assert architecture.config["vocab_size"] == 259
    with pytest.raises(FormatError, match="expected a vocabulary"):
        loader.load_tokenizer(tmp_path / "x.gguf")


def test_a_vocabulary_without_model():
    gpt2 = next(path for path in VOCABULARIES if "gpt-2" in path.name)
    with pytest.raises(FormatError, match=r"missing: token_embd\.weight"):
        describe(gpt2)
    assert loader.load_tokenizer(gpt2).vocab_size == 50_257


# ---- the record ---------------------------------------------------------------------------------------------------------------


def test_inspect_a_model(tmp_path):
    file = write_gguf(tmp_path / "x.gguf", *tiny_llama(layers=2))
    info = loader.inspect(tmp_path / "x.gguf")
    # embedding + norm + 2 x (2 norms, q and o, k and v, MLP)
    parameters = 259 * 32 + 32 + 2 * (2 * 32 + 2 * 32 * 32 + 2 * 16 * 32 + 3 * 32 * 64)
    assert (info.name, info.family, info.parameters, info.context) == ("tiny", "llama", parameters, 128)
    assert info.quantization == {"F32": parameters}
    assert info.file_bytes == len(file.bytes)
    assert info.weight_bytes == 4 * (parameters + (272 - 259) * 32)  # rows of the embedding are padded to 16
    assert info.kv_bytes == 128 * 2 * 2 * (8 + 16) * 4  # values are padded to 16
    assert info.fits is True
    assert info.unsupported == ()
    assert loader.inspect(tmp_path / "x.gguf", context=64).kv_bytes == info.kv_bytes / 2
    assert "\n" not in repr(info)
    assert repr(info).startswith("Info('tiny', 'llama', ")
    for context in (0, 129):
        with pytest.raises(ValueError, match=r"context: expected 1 to 128"):
            loader.inspect(tmp_path / "x.gguf", context=context)


def test_inspect_says_why_a_model_cannot_run(tmp_path):
    metadata, tensors = tiny_llama()
    write_gguf(tmp_path / "x.gguf", metadata | {"general.architecture": ("string", "mamba\n")}, tensors)
    info = loader.inspect(tmp_path / "x.gguf")
    assert info.kv_bytes is None
    assert info.fits is None
    assert "the architecture is not supported" in info.unsupported[0]
    assert "\n" not in repr(info)


def test_inspect_smollm2(smollm2_path):
    info = loader.inspect(smollm2_path)
    assert (info.family, info.parameters, info.context) == ("llama", 134_515_008, 8192)
    assert list(info.quantization) == ["Q4_1", "Q8_0", "F32"]
    assert info.kv_bytes == 8192 * 2 * 30 * 3 * 64 * 2


def test_open_a_model(tmp_path):
    path = tmp_path / "x.gguf"
    write_gguf(path, *tiny_llama(hidden=64))
    free = lowest_free_descriptor()
    opened = loader.open_model(path, threads=1)
    stats = opened.core.stats()
    assert opened.info.context == stats["context"] == 128
    assert opened.info.weight_bytes == stats["weight_bytes"]
    assert opened.info.kv_bytes == loader.inspect(path).kv_bytes == stats["kv_bytes"]
    assert opened.tokenizer.vocab_size == stats["vocab_size"] == 259
    assert np.isfinite(opened.core.session().forward([1, 2, 3])).all()
    assert lowest_free_descriptor() == free
    assert loader.open_model(path, context=4, kv="bf16").core.stats()["context"] == 4
    with pytest.raises(ValueError, match="context"):
        loader.open_model(path, context=129)


@pytest.mark.parametrize("open_it", [loader.open_model, loader.load_tokenizer])
def test_a_vocabulary_that_contradicts_itself_names_the_file(tmp_path, open_it):
    metadata, tensors = tiny_llama()
    write_gguf(tmp_path / "x.gguf", metadata | {MERGES: ("array of string", ["t h", "q zz"])}, tensors)
    with pytest.raises(FormatError, match=r"x\.gguf: .*merges\[1\].*\[GGUF_VOCABULARY\]") as caught:
        open_it(tmp_path / "x.gguf")
    assert caught.value.index == 1


def test_numbers_of_the_format():
    """The tables of reader and writer were made apart and must agree."""
    assert {name: number for number, (name, _) in NUMBERS.items()} == {name: number for name, (number, _) in SCALARS.items()}
    assert {name: dtype.itemsize for name, dtype in NUMBERS.values()} == {
        name: struct.calcsize(f"<{layout}") for name, (_, layout) in SCALARS.items()
    }
    assert {name: number for number, (name, *_) in KNOWN_TYPES.items() if name in TENSOR_TYPES} == TENSOR_TYPES
