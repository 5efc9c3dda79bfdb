# SPDX-License-Identifier: Apache-2.0
"""Three real models against fp32 runs of Transformers on the exactly dequantized weights, on every tier. kl.py says how.

The figures are printed: `pytest tests/test_accuracy.py -rA` shows them.
"""

import gguf
import kl
import numpy as np
import pytest
import real_models
import tier_worker
from gguf.quants import dequantize
from gguf_writer import write_gguf

import slm
from slm import _core

SMOLLM2 = "smollm2-135m-instruct-q4_1"  # Q4_1 and Q8_0
GEMMA3 = "gemma-3-270m-q4_k_m"  # Q5_0, Q8_0, Q4_K, Q6_K
QWEN2 = "qwen2.5-coder-0.5b-instruct-q4_k_m"  # Q5_0, Q8_0, Q4_K, Q6_K
REFERENCES = {name: kl.load(name) for name in (SMOLLM2, GEMMA3, QWEN2)}
TIERS = _core.cpu_info()["supported"]

# (model, precision) -> mean KL at most. In default precision no more than llama.cpp (llama-cpp-python 0.3.36, AVX2) has on these
# positions: 0.0028, 0.0041, 0.0007.
MOST_KL = {(SMOLLM2, "default"): 0.0028, (GEMMA3, "default"): 0.0041, (QWEN2, "default"): 0.0007, (SMOLLM2, "high"): 0.0003}
# Measured 0.0030, 0.0019 and 0.0016, with a bf16 cache 0.0025, 0.0017 and 0.0014 (Qwen as loaded, f32: 0.0004).
MOST_KL_INT8_CACHE = {SMOLLM2: 0.0035, GEMMA3: 0.0025, QWEN2: 0.002}
LEAST_SAME_TOP = {"default": 0.95, "high": 0.99}


@pytest.fixture(scope="module")
def paths(smollm2_path):
    """Name -> path of the model, fetched on demand."""
    return lambda name: smollm2_path if name == SMOLLM2 else real_models.path_or_skip(name)


@pytest.fixture(scope="module", params=REFERENCES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, paths):
    with slm.load(paths(name)) as model:
        yield model


def some_of(name, tier, precision):
    """Plain C is slow: it runs less where the model is larger, or in f32."""
    ids = {"plain"} if precision == "high" else {"plain", "unicode"}
    return [r for r in REFERENCES[name] if tier != "scalar" or (name, precision) == (SMOLLM2, "default") or r.id in ids]


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("name", "precision"), MOST_KL)
def test_accuracy_on_every_tier(tier, name, precision, paths, tmp_path):
    references = some_of(name, tier, precision)
    ids = [r.id for r in references]
    tier_worker.run(tier, "teacher-forced", paths(name), name, precision, tmp_path / "logits.npz", *ids)
    with np.load(tmp_path / "logits.npz") as arrays:
        found = kl.agreement(references, [arrays[r.id] for r in references])
    print(f"{name}, {tier}, {precision}: {found}")
    assert found.n_positions == sum(len(r.ids) for r in references) > 50
    assert found.mean_kl <= MOST_KL[name, precision]
    assert found.same_top >= LEAST_SAME_TOP[precision]
    assert found.same_top_clear >= 0.999


def test_accuracy_with_an_int8_cache(name, paths):
    with slm.load(paths(name), kv="int8") as model:
        found = kl.agreement(REFERENCES[name], [model.forward(r.ids, logits="all").logits for r in REFERENCES[name]])
    print(f"{name}, int8 cache: {found}")
    assert found.mean_kl <= MOST_KL_INT8_CACHE[name]
    assert found.same_top >= 0.95
    assert found.same_top_clear >= 0.999


def test_greedy_tokens_equal_the_reference_while_it_is_sure(model, name):
    """Up to the first place where the reference's own margin between its two best tokens falls below 0.3 nat."""
    for r in REFERENCES[name]:
        margins = r.margins[len(r.prompt_ids) - 1 : -1]  # of each greedy token
        n_sure = int(np.append(np.flatnonzero(margins < 0.3), len(margins))[0])
        tokens = model.generate(r.prompt_ids, max_tokens=len(r.greedy_ids), ignore_eos=True).tokens
        assert len(tokens) == len(r.greedy_ids)
        n_equal = int(np.append(np.flatnonzero(np.array(tokens) != r.greedy_ids), len(tokens))[0])
        print(f"{name}, {r.id}: the reference is sure of {n_sure} tokens, equal are {n_equal} of {len(tokens)}")
        assert n_equal >= n_sure


def test_token_ids_equal_the_reference(model, name):
    """The chat prompt is the template's text, in which control tokens are meant."""
    for r in REFERENCES[name]:
        assert model.tokenizer.encode(r.text, parse_special=r.text != r.prompt) == r.prompt_ids


@pytest.fixture(scope="module")
def dequantized(smollm2_path):
    """Metadata and tensors of the model in F32."""
    reader = gguf.GGUFReader(smollm2_path)
    types = {gguf.GGUFValueType.STRING: "string", gguf.GGUFValueType.UINT32: "uint32", gguf.GGUFValueType.FLOAT32: "float32"}
    keys = [key for key in reader.fields if key == "general.architecture" or key.startswith("llama.")]
    metadata = {key: (types[reader.fields[key].types[0]], reader.fields[key].contents()) for key in keys}
    tensors = {
        tensor.name: ("F32", tuple(reversed(tensor.shape.tolist())), dequantize(tensor.data, tensor.tensor_type))
        for tensor in reader.tensors
    }
    return metadata, tensors


def test_f32_weights_are_nearly_exact(dequantized, tmp_path):
    """Through BLIS where the build has it, with the f32 cache that F32 weights get."""
    path = tmp_path / "f32.gguf"
    write_gguf(path, *dequantized)
    with slm.load(path) as model:
        found = kl.agreement(REFERENCES[SMOLLM2], [model.forward(r.ids, logits="all").logits for r in REFERENCES[SMOLLM2]])
    path.unlink()
    print(f"F32, {_core.cpu_info()['blas']}: {found}")
    assert found.mean_kl <= 1e-8
    assert found.same_top == 1


def test_accuracy_with_an_adapter(dequantized, smollm2_path, tmp_path):
    """Of rank 16 on all linears of the quantized model, against F32 weights that hold its products."""
    metadata, tensors = dequantized
    rng = np.random.default_rng(0)
    adapter, merged = {}, dict(tensors)
    for name, (kind, shape, weights) in tensors.items():
        if not name.startswith("blk.") or len(shape) != 2:
            continue
        rows, cols = shape
        a, b = (np.float32(rng.normal(0, 0.02, shape)) for shape in ((16, cols), (rows, 16)))
        adapter |= {f"{name}.lora_a": (kind, a.shape, a), f"{name}.lora_b": (kind, b.shape, b)}
        merged[name] = kind, shape, weights + 2 * b @ a
    keys = {"general.architecture": ("string", "llama"), "general.type": ("string", "adapter")}
    keys |= {"adapter.type": ("string", "lora"), "adapter.lora.alpha": ("float32", 32.0)}
    write_gguf(tmp_path / "adapter.gguf", keys, adapter)
    write_gguf(tmp_path / "merged.gguf", metadata, merged)
    ids = [r.ids for r in REFERENCES[SMOLLM2] if r.id in ("plain", "unicode")]
    with slm.load(tmp_path / "merged.gguf") as model:
        expected = [kl.log_softmax(model.forward(i).logits) for i in ids]
    (tmp_path / "merged.gguf").unlink()
    for precision, most in (("default", 0.005), ("high", 0.0003)):
        with slm.load(smollm2_path, adapter=tmp_path / "adapter.gguf", precision=precision) as model:
            found = [kl.log_softmax(model.forward(i).logits) for i in ids]
        mean = np.concatenate([(np.exp(p) * (p - q)).sum(-1) for p, q in zip(expected, found, strict=True)]).mean()
        same = np.concatenate([p.argmax(-1) == q.argmax(-1) for p, q in zip(expected, found, strict=True)]).mean()
        print(f"{SMOLLM2} with an adapter, {precision}: mean KL {mean:.5f}, same top {same:.4f}")
        assert mean <= most
        assert same >= LEAST_SAME_TOP[precision]
