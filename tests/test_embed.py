# SPDX-License-Identifier: Apache-2.0
"""Model.embed: BERT, random and real, against Transformers (tests/oracle/make_bert.py), and decoders against their own logits."""

import json
import os
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import block_formats
import gguf_conversion
import gguf_writer
import numpy as np
import pytest
from folder_writer import write_folder
from test_windows import signal_after

import slm
from slm import UnsupportedError

FOLDER = Path(__file__).parent / "data" / "oracle"
POOLS = ("mean", "cls", "last")


class Case(NamedTuple):
    """arrays: of a folder, under Hugging Face's names; texts: token ids; pooled: per kind [n_texts, hidden_size]."""

    arrays: dict[str, np.ndarray]
    config: dict[str, Any]
    gguf: dict[str, Any]
    texts: list[list[int]]
    pooled: dict[str, np.ndarray]


def read(name: str) -> Case:
    with np.load(FOLDER / f"embedding_{name}.npz") as file:
        arrays = {key: file[key] for key in file}
    del arrays["made_with"]
    config, gguf = (json.loads(str(arrays.pop(key, "{}"))) for key in ("config", "gguf"))
    ids, lengths = arrays.pop("ids"), arrays.pop("lengths").tolist()
    texts = [ids[end - n : end].tolist() for n, end in zip(lengths, accumulate(lengths), strict=True)]
    return Case(arrays, config, gguf, texts, {pool: arrays.pop(pool) for pool in POOLS})


BERT = read("bert")


def write_gguf(path: Path, type_name: str, **more: tuple[str, Any]) -> Path:
    """Matrices as type_name, vectors as F32, the pooler left out, as converters do. more: metadata, __ for a dot."""
    arrays = {name: array for name, array in BERT.arrays.items() if not name.startswith("pooler")}
    types = {name: type_name if array.ndim == 2 else "F32" for name, array in arrays.items()}
    tensors = {}
    for name, array in arrays.items():
        data = block_formats.encode(types[name], np.ascontiguousarray(array, np.float32).reshape(-1, array.shape[-1]))
        tensors[gguf_conversion.gguf_name(name, BERT.gguf["names"])] = (types[name], array.shape, data)
    metadata = {key: tuple(value) for key, value in BERT.gguf["metadata"].items()}
    metadata |= {f"bert.{key.replace('__', '.')}": value for key, value in more.items()}
    gguf_writer.write_gguf(path, metadata, tensors)
    return path


def check(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Largest difference as a share of the largest value."""
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    print(f"relative error {error:.2e}")
    assert error < tolerance


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


# F32: BLIS where the build has it; F16: always our packed kernel
@pytest.mark.parametrize("form", ["folder F32", "folder F16", "GGUF F32", "GGUF F16"])
def test_bert_agrees_with_transformers(form, tmp_path):
    kind, type_name = form.split()
    if kind == "GGUF":
        path = write_gguf(tmp_path / "model.gguf", type_name)
    else:
        types = [type_name if array.ndim == 2 else "F32" for array in BERT.arrays.values()]
        path = write_folder(tmp_path / "model", BERT.config, BERT.arrays, types)
    with slm.load(path, kv="f32") as model:
        assert (model.info.family, model.context, model.hidden_size) == ("bert", 320, 64)
        for pool in POOLS:
            check(model.embed(BERT.texts, pool=pool, normalize=False), BERT.pooled[pool])
            check(model.embed(BERT.texts, pool=pool), unit(BERT.pooled[pool]))


@pytest.mark.parametrize("kv", ["f32", "bf16"])
def test_a_vector_does_not_depend_on_threads_and_neighbours(kv, tmp_path):
    path = write_gguf(tmp_path / "model.gguf", "F16")
    with slm.load(path, kv=kv, threads=1) as one, slm.load(path, kv=kv, threads=2) as two:
        expected = one.embed(BERT.texts)
        np.testing.assert_array_equal(two.embed(BERT.texts[::-1])[::-1], expected)
        for text, vector in zip(BERT.texts, expected, strict=True):
            np.testing.assert_array_equal(one.embed(text), vector[None])
            np.testing.assert_array_equal(one.embed([np.array(text)]), vector[None])
        # Every token sees every other one: another last token changes the first vector.
        changed = [*BERT.texts[4][:-1], (BERT.texts[4][-1] + 1) % 83]
        assert (one.embed([changed], pool="cls") != one.embed([BERT.texts[4]], pool="cls")).all()
        # A chunk is never shorter than the text.
        whole = one._core.session().forward(BERT.texts[4], "hidden_all")
        np.testing.assert_array_equal(one._core.session().forward(BERT.texts[4], "hidden_all", 2, 7), whole)


def test_a_model_that_embeds_does_not_generate(tmp_path):
    with slm.load(write_gguf(tmp_path / "model.gguf", "F16")) as model:
        for call in (model.generate, model.stream, model.chat, model.forward):
            with pytest.raises(UnsupportedError, match=rf"{call.__name__}\(\) is not for this model: it embeds"):
                call([1, 2, 3])
        with pytest.raises(UnsupportedError, match="session"):
            model.session()
        session = model._core.session()
        for output in ("last", "all"):
            with pytest.raises(UnsupportedError, match="no logits"):
                session.forward([1, 2, 3], output)
        session.forward([1, 2, 3], "hidden_all")
        with pytest.raises(ValueError, match="position 0, not at 3"):
            session.forward([1, 2, 3], "hidden_all")


def test_arguments(tmp_path):
    with slm.load(write_gguf(tmp_path / "model.gguf", "F16")) as model:
        assert model.embed([]).shape == (0, 64)
        assert model.embed(np.array([[1, 2], [3, 4]])).shape == (2, 64)
        with pytest.raises(slm.ContextLengthError, match=r"texts\[1\] has 321 tokens and the context 320") as caught:
            model.embed([[1], [1] * 321])
        assert (caught.value.n_prompt, caught.value.n_ctx) == (321, 320)
        for texts, error, match in (
            ("text", ValueError, "texts is text, and the model has no tokenizer"),
            ([[1], [83]], ValueError, r"texts\[1\]"),
            ([[1], []], ValueError, r"texts\[1\] is empty"),
            ([[1], 2], TypeError, r"texts\[1\]"),
            (3, TypeError, "texts"),
            ([{"role": "user"}], TypeError, "texts is a list of mappings"),
        ):
            with pytest.raises(error, match=match):
                model.embed(texts)
        with pytest.raises(ValueError, match="pool must be 'mean', 'cls' or 'last', not 'max'"):
            model.embed([1], pool="max")
        with pytest.raises(TypeError, match="normalize"):
            model.embed([1], normalize=1)
    with pytest.raises(slm.ClosedError):
        model.embed([1])


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"attention__causal": ("bool", True)}, "attention.causal"),
        ({"pooling_type": ("uint32", 4)}, "pooling_type"),
        ({"surprise": ("uint32", 4)}, "surprise"),
    ],
)
def test_what_a_file_says_otherwise_is_refused(more, match, tmp_path):
    with pytest.raises(UnsupportedError, match=match):
        slm.load(write_gguf(tmp_path / "model.gguf", "F16", **more))


@pytest.mark.parametrize(
    "more", [{"is_decoder": True}, {"position_embedding_type": "relative_key"}, {"surprise": 1}, {"add_cross_attention": True}]
)
def test_what_a_config_says_otherwise_is_refused(more, tmp_path):
    with pytest.raises(UnsupportedError, match=next(iter(more))):
        slm.load(write_folder(tmp_path / "model", BERT.config | more, BERT.arrays))


def test_an_interrupt_in_the_middle_of_a_text_leaves_the_model_whole(tmp_path):
    with slm.load(write_gguf(tmp_path / "model.gguf", "F16")) as model:
        expected = model.embed(BERT.texts)
        for seconds in (0.003, 0.01, 0.02, 0.03):
            with signal_after(seconds), pytest.raises(KeyboardInterrupt):
                model.embed([BERT.texts[4]] * 5000)
            np.testing.assert_array_equal(model.embed(BERT.texts), expected)


# ---- the real model --------------------------------------------------------------------------------------------------


def test_the_real_model_by_ids(minilm_path, tmp_path):
    """Without the files of its tokenizer."""
    for name in ("config.json", "model.safetensors"):
        os.symlink(minilm_path / name, tmp_path / name)
    case = read("minilm")
    with slm.load(tmp_path) as model:
        assert model.tokenizer is None
        for pool in POOLS:
            check(model.embed(case.texts, pool=pool, normalize=False), case.pooled[pool])


def test_the_real_model_by_text(minilm_path):
    case = read("minilm")
    texts = case.arrays["texts"].tolist()
    with slm.load(minilm_path) as model:
        assert [model.tokenizer.encode(text) for text in texts] == case.texts
        for pool in POOLS:
            check(model.embed(texts, pool=pool, normalize=False), case.pooled[pool])
        check(model.embed(texts[1]), unit(case.pooled["mean"])[1:2])
        assert model.embed("").shape == (1, 384)  # the tokens around a text are always there
        with pytest.raises(slm.ContextLengthError, match="texts has 602 tokens and the context 512"):
            model.embed("word " * 600)
        same, other = model.embed(["A cat sits on the mat.", "The dog barks."]) @ model.embed("A kitten lies on a rug.")[0]
        assert same > other + 0.2


# ---- decoders --------------------------------------------------------------------------------------------------------


def test_a_decoder_embeds_what_its_output_matrix_reads(tmp_path):
    metadata, tensors = gguf_writer.tiny_llama(layers=2)
    gguf_writer.write_gguf(tmp_path / "model.gguf", metadata, tensors)
    ids = np.random.default_rng(0).integers(1, 259, 100).tolist()
    with slm.load(tmp_path / "model.gguf") as model:
        logits = model.forward(ids).logits
        matrix = tensors["token_embd.weight"][2]  # tied
        hidden = np.concatenate([model.embed(ids[: n + 1], pool="last", normalize=False) for n in range(100)])
        check(hidden @ matrix.T, logits)
        check(model.embed(ids, pool="cls", normalize=False), hidden[:1])
        check(model.embed(ids, normalize=False), hidden.mean(axis=0, keepdims=True))
        check(model.embed([ids, ids[:5]], pool="last"), unit(hidden[[99, 4]]))
        text = "the cat"
        np.testing.assert_array_equal(model.embed(text), model.embed([model.tokenizer.encode(text)]))
        np.testing.assert_array_equal(model.embed([text, text])[1], model.embed(text)[0])
