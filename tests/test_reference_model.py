# SPDX-License-Identifier: Apache-2.0
"""The executable specification against Transformers, and the C core against both, on small random Llama models."""

from dataclasses import replace
from fractions import Fraction

import block_formats
import numpy as np
import pytest
import reference
import tiny_models
from folder_writer import write_folder
from test_embed import BERT
from test_families import CASES, NAMES, context_of

import slm
from slm import _core

every_model = pytest.mark.parametrize("name", tiny_models.NAMES)


def relative_error(logits: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the largest logit."""
    assert logits.shape == expected.shape
    error = float(np.abs(logits - expected).max() / np.abs(expected).max())
    print(f"relative error {error:.2e}")
    return error


# ---- the specification itself --------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_specification_agrees_with_transformers(name, dtype):
    model = tiny_models.load(name)
    logits = reference.forward(model.config, model.weights, model.ids, dtype=dtype)
    assert logits.dtype == dtype
    assert relative_error(logits, model.logits) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_specification_of_every_family_agrees_with_transformers(name, tmp_path):
    case = CASES[name]
    config, weights = tiny_models.describe(write_folder(tmp_path / "model", case.config, case.arrays), context_of(case))
    assert relative_error(reference.forward(config, weights, case.ids), case.logits) < 1e-5


def test_specification_of_bidirectional_models_agrees_with_transformers(tmp_path):
    config, weights = tiny_models.describe(write_folder(tmp_path / "model", BERT.config, BERT.arrays))
    for text, mean, cls in zip(BERT.texts, BERT.pooled["mean"], BERT.pooled["cls"], strict=True):
        hidden = reference.forward(config, weights, np.array(text))
        assert relative_error(hidden.mean(axis=0), mean) < 1e-5
        assert relative_error(hidden[0], cls) < 1e-5


@every_model
def test_both_rope_styles_are_the_same_model_with_its_rows_in_another_order(name):
    model = tiny_models.load(name)
    config = replace(model.config, rope_style="interleaved")
    logits = reference.forward(config, tiny_models.interleaved(model), model.ids)
    assert relative_error(logits, model.logits) < 1e-5


def test_fma_rounds_the_exact_value_once():
    rng = np.random.default_rng(0)
    a, b, c = np.float32(rng.standard_normal((3, 4000)) * np.exp2(rng.integers(-12, 12, (3, 4000))))
    a[:1000] = np.float32(1) + rng.integers(0, 4096, 1000).astype(np.float32) * np.float32(2**-12)  # products that end on ties
    b[:1000] = np.float32(1) + rng.integers(0, 4096, 1000).astype(np.float32) * np.float32(2**-12)
    c[:500] = rng.choice(np.float32([2**-60, -(2**-60), 0]), 500)
    result = reference.fma(a, b, c)
    neighbours = np.stack([np.nextafter(result, np.float32(-np.inf)), np.nextafter(result, np.float32(np.inf))])
    for i in range(len(result)):
        exact = Fraction(float(a[i])) * Fraction(float(b[i])) + Fraction(float(c[i]))
        distance = abs(Fraction(float(result[i])) - exact)
        others = [abs(Fraction(float(n)) - exact) for n in neighbours[:, i]]
        assert distance < min(others) or (distance == min(others) and result[i].view(np.uint32) % 2 == 0), i


def test_quantized_linear_is_the_product_up_to_the_rounding_of_its_input():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((5, 512)).astype(np.float32)
    matrix = rng.standard_normal((33, 512)).astype(np.float32)
    x[2, 32:64] = 0
    for name in block_formats.BLOCK_TYPES:
        for group in (32, 16)[block_formats.FORMATS[name].group == 16 :]:
            data = block_formats.encode(name, matrix)
            values = block_formats.decode(name, data, *matrix.shape)
            result = reference.linear_int8(*block_formats.fields(name, data, *matrix.shape), x, group)
            step = np.repeat(np.abs(x.reshape(5, -1, group)).max(axis=2) / 127, group, axis=1)
            bound = 0.5001 * step @ np.abs(values).T + 1e-5
            assert (np.abs(result - x @ values.T) <= bound).all()


# ---- slm against Transformers --------------------------------------------------------------------------------------


@every_model
@pytest.mark.parametrize("type_name", ["F32", "F16"])  # F32: BLIS where the build has it; F16: always our packed kernel
def test_core_agrees_with_transformers(name, type_name, tmp_path):
    model = tiny_models.load(name)
    session = tiny_models.core_model(model, tmp_path / "weights", type_name, kv="f32").session()
    logits = session.forward(model.ids, "all")
    print(f"{type_name}, {_core.cpu_info()['blas']}")
    assert logits.dtype == np.float32
    assert relative_error(logits, model.logits) < 2e-5


@every_model
@pytest.mark.parametrize("type_name", ["F32", "F16"])
def test_decoding_token_by_token_agrees_with_transformers(name, type_name, tmp_path):
    model = tiny_models.load(name)
    session = tiny_models.core_model(model, tmp_path / "weights", type_name, kv="f32").session()
    logits = np.concatenate([session.forward([token]) for token in model.ids.tolist()])
    assert session.length == len(model.ids)
    assert relative_error(logits, model.logits) < 2e-5


@every_model
def test_gguf_file_agrees_with_transformers(name, tmp_path):
    """slm.load of a file as converters write it, the rows of q_proj and k_proj in interleaved order."""
    model = tiny_models.load(name)
    tiny_models.write_gguf(tmp_path / "model.gguf", model, "F32")
    with slm.load(tmp_path / "model.gguf") as loaded:
        logits = loaded.forward(model.ids.tolist(), logits="all").logits
    assert relative_error(logits, model.logits) < 2e-5


# ---- slm against the specification of its own arithmetic ------------------------------------------------------------

ARITHMETIC = [
    *(
        ("Q8_0", "f32", 32),
        ("Q4_0", "f32", 32),
        ("Q4_1", "f32", 32),
        ("Q8_0", "bf16", 16),
        ("Q4_0", "bf16", 16),
        ("Q4_1", "bf16", 16),
        ("Q5_0", "bf16", 32),
        ("Q5_1", "f32", 16),
        ("IQ4_NL", "bf16", 32),
        ("Q8_0", "int8", 16),
        ("F16", "int8", 32),
        ("F16", "bf16+int8", 32),
    ),
    *(("F32", "f32", 32), ("F32", "bf16", 32), ("F16", "bf16", 32), ("BF16", "f32", 32), ("BF16", "bf16", 32)),
]


BF16_KEYS = {"queries": block_formats.round_bf16, "keys": block_formats.round_bf16}
CACHES = {
    "f32": reference.Cache(),
    "bf16": reference.Cache(**BF16_KEYS, values=block_formats.round_bf16, weights=block_formats.round_bf16),
    "int8": reference.Cache(keys=reference.int8_heads, values=reference.int8_heads),
    "bf16+int8": reference.Cache(**BF16_KEYS, values=reference.int8_heads),  # int8, and the config asks for more of keys
}


@every_model
@pytest.mark.parametrize(("type_name", "kv", "down_proj_group"), ARITHMETIC)
def test_core_agrees_with_the_specification(name, type_name, kv, down_proj_group, tmp_path):
    """A last bit of exp or of a norm may differ and now and then move an activation to the next int8 or bf16 value, which all
    later positions see: so 20 sequences of 4 tokens, most of which meet no such step."""
    model = tiny_models.load(name)
    model = replace(model, config=replace(model.config, kv_f32="+" in kv))
    groups = {"down_proj": down_proj_group}
    is_quantized = block_formats.FORMATS[type_name].block > 1

    def blocks(matrix):
        return matrix.shape, block_formats.encode(type_name, matrix)

    def linear(name, matrix, x):
        (rows, cols), data = matrix
        if is_quantized:
            return reference.linear_int8(*block_formats.fields(type_name, data, rows, cols), x, groups.get(name, 32))
        x = block_formats.round_bf16(x) if type_name == "BF16" else x
        return x @ block_formats.decode(type_name, data, rows, cols).T

    def embed(matrix, rows):
        (n_rows, cols), data = matrix
        return block_formats.decode(type_name, data, n_rows, cols)[rows]

    weights = tiny_models.convert(model.weights, blocks)
    kv_type = kv.split("+")[-1]
    core = tiny_models.core_model(model, tmp_path / "weights", type_name, kv_type, down_proj_group=down_proj_group)
    assert core.stats()["kv"] == kv_type
    errors = []
    for ids in model.ids.reshape(-1, 4):
        expected = reference.forward(model.config, weights, ids, linear=linear, embed=embed, cache=CACHES[kv])
        errors.append(relative_error(core.session().forward(ids, "all"), expected))
    assert np.median(errors) < 1e-5
    assert max(errors) < 0.1


@pytest.mark.parametrize("head_dim", [80, 96, 320])
@pytest.mark.parametrize("kv", ["f32", "bf16", "int8"])
def test_core_agrees_with_the_specification_on_other_head_sizes(head_dim, kv, tmp_path):
    """Sizes that have code of their own, and one beyond; with an f32 cache, which rounds nothing, over more than a page, too."""
    config = reference.Config(
        vocab_size=131,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=head_dim,
        rotary_dim=head_dim,
        norm_eps=1e-5,
        max_position_embeddings=128,
        rope_inv_freq=reference.rope_inv_freq(10000.0, head_dim),
    )
    rng = np.random.default_rng(head_dim)
    weights, ids = tiny_models.random_weights(config, rng), rng.integers(0, config.vocab_size, 80)
    model = tiny_models.TinyModel(config, 10000.0, weights, ids, reference.forward(config, weights, ids))
    core = tiny_models.core_model(model, tmp_path / "weights", "F16", kv)
    errors = []
    for part in ids.reshape(-1, 4):
        expected = reference.forward(config, weights, part, cache=CACHES[kv])
        errors.append(relative_error(core.session().forward(part, "all"), expected))
    assert np.median(errors) < 1e-5
    assert max(errors) < 0.1
    if kv == "f32":
        session = core.session()
        steps = np.concatenate([session.forward([token]) for token in ids.tolist()])
        assert relative_error(steps, model.logits) < 2e-5
        assert relative_error(core.session().forward(ids, "all"), model.logits) < 2e-5


# Matrices that share an input have scales for groups of 32 and of 16: then all of them take activations in groups of 16.
MIXED = {"embed_tokens": "Q4_K", "lm_head": "Q6_K", "q_proj": "Q4_K", "k_proj": "IQ4_XS", "v_proj": "Q6_K", "o_proj": "Q5_K"} | {
    "gate_proj": "Q2_K",
    "up_proj": "IQ4_NL",
    "down_proj": "Q3_K",
}
MIXED_GROUPS = dict.fromkeys(("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj", "lm_head"), 16)


def test_core_agrees_with_the_specification_on_a_mixture_of_types(tmp_path):
    rng = np.random.default_rng(5)
    hidden, intermediate, vocab_size = 256, 512, 300
    config = reference.Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=64,
        rotary_dim=64,
        norm_eps=1e-5,
        max_position_embeddings=128,
        rope_inv_freq=reference.rope_inv_freq(10000.0, 64),
    )
    weights = tiny_models.random_weights(config, rng)
    weights["embed_tokens"] *= 16
    blocks = {
        "layers": [
            {name: (a.shape, block_formats.encode(MIXED[name], a)) if name in MIXED else a for name, a in layer.items()}
            for layer in weights["layers"]
        ]
    }
    for name in ("embed_tokens", "lm_head"):
        blocks[name] = weights[name].shape, block_formats.encode(MIXED[name], weights[name])

    def linear(name, matrix, x):
        shape, data = matrix
        return reference.linear_int8(*block_formats.fields(MIXED[name], data, *shape), x, MIXED_GROUPS.get(name, 32))

    def embed(matrix, rows):
        shape, data = matrix
        return block_formats.decode(MIXED["embed_tokens"], data, *shape)[rows]

    ids = rng.integers(0, vocab_size, 80)
    model = tiny_models.TinyModel(config, 10000.0, weights, ids, None)
    core = tiny_models.core_model(model, tmp_path / "weights", MIXED, "f32")
    errors = []
    for part in ids.reshape(-1, 4):
        expected = reference.forward(config, weights | blocks, part, linear=linear, embed=embed)
        errors.append(relative_error(core.session().forward(part, "all"), expected))
    assert np.median(errors) < 1e-5
    assert max(errors) < 0.1
    session, whole = core.session(), core.session().forward(ids, "all")
    steps = np.concatenate([session.forward([token]) for token in ids.tolist()])
    np.testing.assert_array_equal(steps.view(np.uint32), whole.view(np.uint32))
