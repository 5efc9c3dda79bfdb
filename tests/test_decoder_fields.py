# SPDX-License-Identifier: Apache-2.0
"""What the fixtures of families are too small for, or cannot express: windows across segments of attention, tensors in pieces,
fields that nobody asked for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import tiny_models

from slm import _core

N_TOKENS = 700  # three segments of 256 positions


def long_model() -> tiny_models.TinyModel:
    model = tiny_models.load("llama_gqa_tied")
    ids = np.random.default_rng(5).integers(0, model.config.vocab_size, N_TOKENS)
    return replace(model, config=replace(model.config, max_position_embeddings=N_TOKENS), ids=ids)


@pytest.mark.parametrize("window", [1, 5, 64, 200, 256, 257, 300, 699])
@pytest.mark.parametrize("kv", ["f32", "bf16", "int8"])
def test_windows_of_any_size(window, kv, tmp_path):
    model = long_model()
    with tiny_models.open_tensors(model.weights, "F16", tmp_path / "weights") as tensors:
        layers = [tensors["layers"][0] | {"sliding_window": window}, tensors["layers"][1]]
        core = _core.Model(tiny_models.core_config(model.config), tensors | {"layers": layers}, N_TOKENS, kv=kv)
    whole = core.session().forward(model.ids, "all")
    for chunk in (7, 64, 300):
        np.testing.assert_array_equal(core.session().forward(model.ids, "all", 2, chunk), whole)
    if kv == "f32":
        layers = [model.weights["layers"][0] | {"sliding_window": window}, model.weights["layers"][1]]
        expected = reference.forward(model.config, model.weights | {"layers": layers}, model.ids)
        assert np.abs(whole - expected).max() < 5e-5 * np.abs(expected).max()


def rewritten(core_tensors: dict[str, Any], path: Path, arrays: dict[str, np.ndarray], file: Any) -> dict[str, Any]:
    """q_proj as heads in reverse order on disk, gate_proj and up_proj as columns of one transposed matrix."""
    q, gate, up = arrays["q_proj"], arrays["gate_proj"], arrays["up_proj"]
    both = np.ascontiguousarray(np.concatenate([gate, up]).T)  # [hidden, 2 * intermediate]
    data = q.reshape(-1, 16, q.shape[1])[::-1].tobytes() + both.tobytes()
    path.write_bytes(data)
    heads, row_bytes = len(q) // 16, 4 * q.shape[1]
    pieces = [("F32", file.fileno(), (heads - 1 - i) * 16 * row_bytes, 16, q.shape[1]) for i in range(heads)]
    inner, ld = len(gate), 2 * len(gate)
    columns = [("F32", file.fileno(), q.nbytes + 4 * first, inner, gate.shape[1], ld) for first in (0, inner)]
    return core_tensors | {"q_proj": pieces, "gate_proj": columns[0], "up_proj": [columns[1]]}


def test_tensors_in_pieces_and_transposed(tmp_path):
    model = tiny_models.load("llama_gqa_tied")
    other = tmp_path / "pieces"
    other.touch()
    with tiny_models.open_tensors(model.weights, "F32", tmp_path / "weights") as tensors, open(other, "rb") as file:
        config = tiny_models.core_config(model.config)
        plain = _core.Model(config, tensors, 128, kv="f32").session().forward(model.ids, "all")
        layers = [rewritten(tensors["layers"][0], other, model.weights["layers"][0], file), tensors["layers"][1]]
        pieces = _core.Model(config, tensors | {"layers": layers}, 128, kv="f32").session().forward(model.ids, "all")
        np.testing.assert_array_equal(pieces, plain)
        wrong = [layers[0] | {"q_proj": layers[0]["q_proj"][1:]}, layers[1]]
        with pytest.raises(ValueError, match=r"q_proj: expected 96 rows, found 80"):
            _core.Model(config, tensors | {"layers": wrong}, 128, kv="f32")


def test_vectors_in_pieces(tmp_path):
    """Pieces of a bias in any order on disk; together as long as the vector, and none transposed."""
    model = tiny_models.load("llama_gqa_tied")
    bias = np.linspace(-1, 1, 96, dtype=np.float32)
    (tmp_path / "bias").write_bytes(bias.tobytes() + bias[48:].tobytes() + bias[:48].tobytes())
    with tiny_models.open_tensors(model.weights, "F32", tmp_path / "weights") as tensors, open(tmp_path / "bias", "rb") as file:
        config, fd = tiny_models.core_config(model.config), file.fileno()

        def logits(place: Any) -> np.ndarray:
            layers = [tensors["layers"][0] | {"q_proj_bias": place}, tensors["layers"][1]]
            return _core.Model(config, tensors | {"layers": layers}, 128, kv="f32").session().forward(model.ids, "all")

        halves = [("F32", fd, 4 * 144, 1, 48), ("F32", fd, 4 * 96, 1, 48)]
        np.testing.assert_array_equal(logits(halves), logits(("F32", fd, 0, 1, 96)))
        for wrong in (
            halves[:1],
            [*halves, halves[0]],
            [halves[0], ("F32", fd, 0, 1, 48, 1)],
            [halves[0], ("F16", fd, 0, 1, 48)],
        ):
            with pytest.raises(ValueError, match=r"q_proj: expected \[1, 96\]"):
                logits(wrong)


@pytest.mark.parametrize("where", ["config", "weights", "layers"])
def test_a_field_that_nobody_asked_for_is_an_error(where, tmp_path):
    model = tiny_models.load("llama_gqa_tied")
    with tiny_models.open_tensors(model.weights, "F32", tmp_path / "weights") as tensors:
        config = tiny_models.core_config(model.config)
        if where == "config":
            config["surprise"] = 1
        elif where == "weights":
            tensors["surprise"] = None
        else:
            tensors["layers"][1]["surprise"] = None
        with pytest.raises(ValueError, match=f"{where}: 1 of its .* not known"):
            _core.Model(config, tensors, 128, kv="f32")


# hidden_size, intermediate_size, heads, KV heads, head_dim, rotary_dim, vocab_size
ODD_SHAPES = [
    (20, 13, 3, 1, 2, 2, 5),
    (17, 1, 1, 1, 6, 4, 3),
    (40, 24, 40, 1, 10, 6, 17),  # more heads on one KV head than queries share a read
    (48, 50, 12, 12, 18, 18, 33),
    (33, 16, 66, 33, 8, 0, 16),
    (16, 31, 2, 1, 258, 2, 31),
    (24, 8, 1, 1, 1024, 1024, 50),
]


@pytest.mark.parametrize("shape", ODD_SHAPES)
def test_shapes_that_are_no_multiple_of_anything(shape, tmp_path):
    hidden, inner, heads, kv_heads, head_dim, rotary_dim, vocab = shape
    rng = np.random.default_rng(list(shape))

    def matrix(rows: int, cols: int) -> np.ndarray:
        return rng.normal(0, 1.5 * cols**-0.5, (rows, cols)).astype(np.float16).astype(np.float32)

    config = reference.Config(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=head_dim, max_position_embeddings=200, norm_eps=1e-5, rotary_dim=rotary_dim,
        rope_inv_freq=reference.rope_inv_freq(100.0, rotary_dim).astype(np.float32),
    )  # fmt: skip
    shapes = {
        "q_proj": (heads * head_dim, hidden), "o_proj": (hidden, heads * head_dim),
        "k_proj": (kv_heads * head_dim, hidden), "v_proj": (kv_heads * head_dim, hidden),
        "gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner),
    }  # fmt: skip
    layers = [
        {name: matrix(*shape) for name, shape in shapes.items()}
        | {name: rng.uniform(0.5, 1.5, hidden).astype(np.float32) for name in tiny_models.LAYER_NORMS}
        for _ in range(2)
    ]
    for name, n_heads in (("q_norm", heads), ("k_norm", kv_heads)):  # of each head's own, in the second layer
        layers[1][name] = rng.uniform(0.5, 1.5, (n_heads, head_dim)).astype(np.float32)
    weights = {"embed_tokens": matrix(vocab, hidden), "lm_head": None, "norm": np.ones(hidden, np.float32)}
    fields = {"sliding_window": 70, "rope_table": 0 if rotary_dim else -1}
    ids = rng.integers(0, vocab, 170)
    with tiny_models.open_tensors(weights | {"layers": layers}, "F16", tmp_path / "weights") as tensors:
        first, second = tensors["layers"]
        layers_given = [first | fields, second | {"rope_table": fields["rope_table"]}]
        given = tiny_models.core_config(config), tensors | {"layers": layers_given}, 200
        exact, *rounded = (_core.Model(*given, kv=kv) for kv in ("f32", "bf16", "int8"))
    expected = reference.forward(config, weights | {"layers": [layers[0] | fields, layers[1]]}, ids)
    whole = exact.session().forward(ids, "all")
    assert np.abs(whole - expected).max() < 5e-5 * np.abs(expected).max()
    for model in (exact, *rounded):
        whole = model.session().forward(ids, "all")
        for chunk, threads in ((1, 2), (33, 1), (64, 2)):
            np.testing.assert_array_equal(model.session().forward(ids, "all", threads, chunk), whole)
