# SPDX-License-Identifier: Apache-2.0
"""Every family against Transformers: small random models as Hugging Face folders and, where such files are published, as GGUF
(tests/oracle/make_families.py), all positions at once and token by token, over prompts longer than the windows; and the scalings
of rotary positions."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import block_formats
import gguf_conversion
import gguf_writer
import numpy as np
import pytest
import tier_worker
from folder_writer import write_folder

import slm
from slm import UnsupportedError, loader
from slm.families import rope
from slm.families.registry import FAMILIES

FOLDER = Path(__file__).parent / "data" / "oracle"


class Case(NamedTuple):
    """config: of a config.json. arrays: under Hugging Face's names. gguf: metadata, names and changes, see gguf_conversion.py;
    extra: tensors of the GGUF file beside them. ids [n_tokens], logits [n_tokens, vocab_size]."""

    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    gguf: dict[str, Any] | None
    extra: dict[str, np.ndarray]
    ids: np.ndarray
    logits: np.ndarray


def read(name: str) -> Case:
    with np.load(FOLDER / f"family_{name}.npz") as file:
        arrays = {key: file[key] for key in file}
    del arrays["made_with"]
    config, gguf = json.loads(str(arrays.pop("config"))), json.loads(str(arrays.pop("gguf", "null")))
    extra = {key.removeprefix("gguf."): arrays.pop(key) for key in [*arrays] if key.startswith("gguf.")}
    return Case(config, arrays, gguf, extra, ids=arrays.pop("ids"), logits=arrays.pop("logits"))


CASES = {path.stem.removeprefix("family_"): read(path.stem.removeprefix("family_")) for path in FOLDER.glob("family_*.npz")}
NAMES = sorted(CASES)
GGUF_NAMES = [name for name in NAMES if CASES[name].gguf]
every_family = pytest.mark.parametrize("name", NAMES)
every_gguf = pytest.mark.parametrize("name", GGUF_NAMES)


def write_gguf(path: Path, case: Case, type_name: str = "F32", **more: tuple[str, Any]) -> Path:
    """Matrices as type_name, vectors as F32. more: metadata, __ for a dot."""
    assert case.gguf
    metadata = {key: tuple(value) for key, value in case.gguf["metadata"].items()}
    metadata |= {f"{metadata['general.architecture'][1]}.{key.replace('__', '.')}": value for key, value in more.items()}
    arrays = gguf_conversion.convert(case.arrays, case.gguf["names"], case.gguf["changes"]) | case.extra
    types = {name: type_name if array.ndim == 2 else "F32" for name, array in arrays.items()}
    tensors = {}
    for name, array in arrays.items():
        rows = np.ascontiguousarray(array, np.float32).reshape(-1, array.shape[-1])
        data = block_formats.encode(types[name], rows)
        tensors[name] = (types[name], array.shape, data)
    gguf_writer.write_gguf(path, metadata, tensors)
    return path


def relative_error(logits: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the largest logit."""
    assert logits.shape == expected.shape
    error = float(np.abs(logits - expected).max() / np.abs(expected).max())
    print(f"relative error {error:.2e}")
    return error


def context_of(case: Case) -> int | None:
    """Beyond what the model was trained for, where the prompt is: dynamic scaling depends on it."""
    return len(case.ids) if len(case.ids) > case.config.get("max_position_embeddings", 128) else None


def check(path: Path, case: Case, kv: str = "f32", tolerance: float = 2e-5) -> None:
    """All positions at once, and token by token."""
    core = loader.open_model(path, kv=kv, context=context_of(case)).core
    assert relative_error(core.session().forward(case.ids, "all"), case.logits) < tolerance
    session = core.session()
    logits = np.concatenate([session.forward([token]) for token in case.ids.tolist()])
    assert relative_error(logits, case.logits) < tolerance


def test_every_family_has_a_model():
    embed = {"bert"}  # tests/test_embed.py
    architectures = embed | {CASES[name].gguf["metadata"]["general.architecture"][1] for name in GGUF_NAMES}
    assert architectures == {family.architecture for family in FAMILIES} - {None}
    assert embed | {case.config["model_type"] for case in CASES.values()} == {family.model_type for family in FAMILIES} - {None}


# F32: BLIS where the build has it; F16: always our packed kernel
@every_gguf
@pytest.mark.parametrize("type_name", ["F32", "F16"])
def test_gguf_agrees_with_transformers(name, type_name, tmp_path):
    check(write_gguf(tmp_path / "model.gguf", CASES[name], type_name), CASES[name])


@every_family
def test_high_precision_with_bf16_weights(name, tmp_path):
    """Against the same weights in F32, which the tests above hold against Transformers."""
    case = CASES[name]
    rounded = {key: block_formats.round_bf16(a.astype(np.float32)) if a.ndim == 2 else a for key, a in case.arrays.items()}
    options = {"context": context_of(case)}
    exact = loader.open_model(write_folder(tmp_path / "f32", case.config, rounded), **options).core
    expected = exact.session().forward(case.ids, "all")
    kinds = ["BF16" if array.ndim == 2 else "F32" for array in rounded.values()]
    core = loader.open_model(write_folder(tmp_path / "bf16", case.config, rounded, kinds), precision="high", **options).core
    whole = core.session().forward(case.ids, "all")
    assert relative_error(whole, expected) < 2e-5
    for chunk, threads in ((1, 3), (5, 2), (33, 1)):
        np.testing.assert_array_equal(core.session().forward(case.ids, "all", threads, chunk), whole)
        np.testing.assert_array_equal(core.session().forward(case.ids, "last", threads, chunk), whole[-1:])


@every_family
def test_a_folder_agrees_with_transformers(name, tmp_path):
    case = CASES[name]
    check(write_folder(tmp_path / "model", case.config, case.arrays), case)


@every_family
def test_a_folder_of_several_files_and_types(name, tmp_path):
    """Matrices are exact in F16; what is a vector stays F32."""
    case = CASES[name]
    kinds = ["F16" if array.ndim == 2 else "F32" for array in case.arrays.values()]
    check(write_folder(tmp_path / "model", case.config, case.arrays, kinds, n_files=3), case)


@every_family
@pytest.mark.parametrize("quantize", [None, "Q8_0"], ids=["F16", "Q8_0"])
def test_chunks_and_taps_do_not_change_a_bit(name, quantize, tmp_path):
    """Packed kernels, a bf16 cache: chunks cut windows and pages anywhere; with taps all tokens run through the whole last layer.
    With Q8_0 activations are quantized, those inside an MLP, of more than 16 tokens, where they are made."""
    case = CASES[name]
    kinds = ["F16" if array.ndim == 2 else "F32" for array in case.arrays.values()]
    path = tmp_path / "model"
    path = write_gguf(path, case, "F16") if case.gguf else write_folder(path, case.config, case.arrays, kinds)
    core = loader.open_model(path, kv="bf16", quantize=quantize, context=context_of(case)).core
    whole = core.session().forward(case.ids, "all")
    for chunk, threads in ((1, 3), (5, 2), (33, 1)):
        np.testing.assert_array_equal(core.session().forward(case.ids, "all", threads, chunk), whole)
        np.testing.assert_array_equal(core.session().forward(case.ids, "last", threads, chunk), whole[-1:])
    taps = tier_worker.all_taps(core, len(case.ids), len(case.ids))
    np.testing.assert_array_equal(core.session().forward(case.ids, "all", 2, 0, taps), whole)


@every_gguf
def test_an_unknown_key_is_refused(name, tmp_path):
    path = write_gguf(tmp_path / "model.gguf", CASES[name], attention__surprise=("float32", 2.0))
    with pytest.raises(UnsupportedError, match="surprise"):
        slm.load(path)


@every_family
def test_an_unknown_field_is_refused(name, tmp_path):
    case = CASES[name]
    path = write_folder(tmp_path / "model", case.config | {"attention_surprise": 2.0}, case.arrays)
    with pytest.raises(UnsupportedError, match=r"\$\.attention_surprise"):
        slm.load(path)


def test_longrope_takes_the_long_factors_beyond_the_original_context(tmp_path):
    case = CASES["phi3_longrope"]
    paths = [write_gguf(tmp_path / "model.gguf", case), write_folder(tmp_path / "model", case.config, case.arrays)]
    for path in paths:
        with slm.load(path) as short, slm.load(path, context=129) as long:
            assert (short.info.context, short.info.original_context, short.info.trained_context) == (128, 128, 1024)
            assert (long.info.context, long.info.original_context, long.info.trained_context) == (129, 128, 1024)
            assert relative_error(short.forward(case.ids.tolist(), logits="all").logits, case.logits) < 2e-5
            assert relative_error(long.forward(case.ids.tolist(), logits="all").logits, case.logits) > 1e-3


# ---- rotary positions ----------------------------------------------------------------------------------------------

with np.load(FOLDER / "rope.npz") as rope_file:
    ROPES = {key: rope_file[key] for key in rope_file}
ROPE_CASES = sorted(key.removesuffix(".factor") for key in ROPES if key.endswith(".factor"))


@pytest.mark.parametrize("case", ROPE_CASES)
def test_rope_scaling_agrees_with_transformers(case):
    name, length = case.split(".")
    kind, values = name.split("_")[0], json.loads(str(ROPES["ropes"]))[name]
    theta, dim = 20_000.0, 64
    original = values.pop("original_max_position_embeddings", None)
    if kind == "linear":
        found = rope.linear(theta, dim, values["factor"])
    elif kind == "dynamic":
        found = rope.dynamic(theta, dim, values["factor"], 2048, int(length))
    elif kind == "yarn":
        found = rope.yarn(theta, dim, values.pop("factor"), original, **values)
    elif kind == "llama3":
        found = rope.llama3(theta, dim, values["factor"], original, values["low_freq_factor"], values["high_freq_factor"])
    else:
        factors = values["long_factor" if int(length) > original else "short_factor"]
        found = rope.longrope(theta, dim, factors, scale=2048 / original, original=original)
    assert found.inv_freq.dtype == np.float32
    np.testing.assert_allclose(found.inv_freq, ROPES[f"{case}.inv_freq"], rtol=1e-6)
    assert found.factor == pytest.approx(float(ROPES[f"{case}.factor"]), rel=1e-6)
