# SPDX-License-Identifier: Apache-2.0
"""Every family against Transformers: small random models as GGUF files (tests/oracle/make_families.py), all positions at once and
token by token, over prompts longer than the windows; and the scalings of rotary positions."""

import json
from pathlib import Path
from typing import Any

import block_formats
import gguf_writer
import numpy as np
import pytest

import slm
from slm import UnsupportedError, loader
from slm.families import GGUF_FAMILIES, rope

FOLDER = Path(__file__).parent / "data" / "oracle"
NAMES = sorted(path.stem.removeprefix("family_") for path in FOLDER.glob("family_*.npz"))
every_family = pytest.mark.parametrize("name", NAMES)


def read(name: str) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Metadata, tensors, ids [n_tokens], logits [n_tokens, vocab_size]."""
    with np.load(FOLDER / f"family_{name}.npz") as file:
        arrays = {key: file[key] for key in file}
    metadata = {key: tuple(value) for key, value in json.loads(str(arrays.pop("metadata"))).items()}
    del arrays["made_with"]
    return metadata, arrays, arrays.pop("ids"), arrays.pop("logits")


def write(path: Path, metadata: dict[str, Any], arrays: dict[str, np.ndarray], type_name: str = "F32") -> Path:
    """Matrices as type_name, vectors as F32."""
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


def test_every_family_has_a_model():
    architectures = {read(name)[0]["general.architecture"][1] for name in NAMES}
    assert architectures == set(GGUF_FAMILIES)


@every_family
@pytest.mark.parametrize("type_name", ["F32", "F16"])  # F32: BLIS where the build has it; F16: always our packed kernel
def test_prefill_and_decoding_agree_with_transformers(name, type_name, tmp_path):
    metadata, arrays, ids, expected = read(name)
    path = write(tmp_path / "model.gguf", metadata, arrays, type_name)
    core = loader.open_model(path, kv="f32").core
    assert relative_error(core.session().forward(ids, "all"), expected) < 2e-5
    session = core.session()
    logits = np.concatenate([session.forward([token]) for token in ids.tolist()])
    assert relative_error(logits, expected) < 2e-5


@every_family
def test_high_precision_with_bf16_weights(name, tmp_path):
    """Against the same weights in F32, which the test above holds against Transformers."""
    metadata, arrays, ids, _ = read(name)
    rounded = {key: block_formats.round_bf16(a.astype(np.float32)) if a.ndim == 2 else a for key, a in arrays.items()}
    expected = loader.open_model(write(tmp_path / "f32.gguf", metadata, rounded)).core.session().forward(ids, "all")
    core = loader.open_model(write(tmp_path / "bf16.gguf", metadata, rounded, "BF16"), precision="high").core
    whole = core.session().forward(ids, "all")
    assert relative_error(whole, expected) < 2e-5
    for chunk, threads in ((1, 1), (5, 2), (33, 1)):
        np.testing.assert_array_equal(core.session().forward(ids, "all", threads, chunk), whole)


@every_family
def test_chunks_do_not_change_a_bit(name, tmp_path):
    """Packed kernels, a bf16 cache: chunks cut windows and pages anywhere."""
    metadata, arrays, ids, _ = read(name)
    core = loader.open_model(write(tmp_path / "model.gguf", metadata, arrays, "F16"), kv="bf16").core
    whole = core.session().forward(ids, "all")
    for chunk, threads in ((1, 1), (5, 2), (33, 1)):
        np.testing.assert_array_equal(core.session().forward(ids, "all", threads, chunk), whole)


@every_family
def test_an_unknown_key_is_refused(name, tmp_path):
    metadata, arrays, _, _ = read(name)
    key = f"{metadata['general.architecture'][1]}.attention.surprise"
    path = write(tmp_path / "model.gguf", metadata | {key: ("float32", 2.0)}, arrays)
    with pytest.raises(UnsupportedError, match="surprise"):
        slm.load(path)


def test_longrope_takes_the_long_factors_beyond_the_original_context(tmp_path):
    metadata, arrays, ids, expected = read("phi3_longrope")
    path = write(tmp_path / "model.gguf", metadata, arrays)
    with slm.load(path) as short, slm.load(path, context=129) as long:
        assert short.info.context == 128
        assert relative_error(short.forward(ids.tolist(), logits="all").logits, expected) < 2e-5
        assert relative_error(long.forward(ids.tolist(), logits="all").logits, expected) > 1e-3


# ---- rotary positions ----------------------------------------------------------------------------------------------

with np.load(FOLDER / "rope.npz") as rope_file:
    ROPES = {key: rope_file[key] for key in rope_file}
CASES = sorted(key.removesuffix(".factor") for key in ROPES if key.endswith(".factor"))


@pytest.mark.parametrize("case", CASES)
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
        found = rope.longrope(theta, dim, factors, trained=2048, original=original)
    assert found.inv_freq.dtype == np.float32
    np.testing.assert_allclose(found.inv_freq, ROPES[f"{case}.inv_freq"], rtol=1e-6)
    assert found.factor == pytest.approx(float(ROPES[f"{case}.factor"]), rel=1e-6)
