# SPDX-License-Identifier: Apache-2.0
"""SmolLM2 against an fp32 run of Transformers on the exactly dequantized weights, on every tier. kl.py says how.

The figures are printed: `pytest tests/test_accuracy.py -rA` shows them.
"""

import gguf
import kl
import numpy as np
import pytest
import tier_worker
from gguf.quants import dequantize
from gguf_writer import write_gguf

import slm
from slm import _core

NAME = "smollm2-135m-instruct-q4_1"
REFERENCES = kl.load(NAME)


# precision -> mean KL at most, share of positions with the same top token at least
BARS = {"default": (0.005, 0.95), "high": (0.0003, 0.99)}


@pytest.mark.parametrize("tier", _core.cpu_info()["supported"])
@pytest.mark.parametrize("precision", BARS)
def test_accuracy_on_every_tier(tier, precision, smollm2_path, tmp_path):
    tier_worker.run(tier, "teacher-forced", smollm2_path, NAME, precision, tmp_path / "logits.npz")
    with np.load(tmp_path / "logits.npz") as arrays:
        found = kl.agreement(REFERENCES, [arrays[r.id] for r in REFERENCES])
    print(f"{tier}, {precision}: {found}")
    most_kl, least_same = BARS[precision]
    assert found.n_positions == 354
    assert found.mean_kl <= most_kl
    assert found.same_top >= least_same
    assert found.same_top_clear >= 0.999


@pytest.mark.parametrize("r", REFERENCES, ids=lambda r: r.id)
def test_greedy_tokens_equal_the_reference_while_it_is_sure(smollm2, r):
    """Up to the first place where the reference's own margin between its two best tokens falls below 0.3 nat."""
    margins = r.margins[len(r.prompt_ids) - 1 : -1]  # of each greedy token
    n_sure = int(np.append(np.flatnonzero(margins < 0.3), len(margins))[0])
    tokens = smollm2.generate(r.prompt_ids, max_tokens=len(r.greedy_ids), ignore_eos=True).tokens
    assert len(tokens) == len(r.greedy_ids)
    n_equal = int(np.append(np.flatnonzero(np.array(tokens) != r.greedy_ids), len(tokens))[0])
    print(f"{r.id}: the reference is sure of {n_sure} tokens, equal are {n_equal} of {len(tokens)}")
    assert n_equal >= n_sure


@pytest.mark.parametrize("r", REFERENCES, ids=lambda r: r.id)
def test_token_ids_equal_the_reference(smollm2, r):
    """The chat prompt is the template's text, in which control tokens are meant."""
    assert smollm2.tokenizer.encode(r.text, parse_special=r.text != r.prompt) == r.prompt_ids


def test_f32_weights_are_nearly_exact(smollm2_path, tmp_path):
    """The model dequantized to F32: through BLIS where the build has it, with the f32 cache that F32 weights get."""
    reader = gguf.GGUFReader(smollm2_path)
    types = {gguf.GGUFValueType.STRING: "string", gguf.GGUFValueType.UINT32: "uint32", gguf.GGUFValueType.FLOAT32: "float32"}
    keys = [key for key in reader.fields if key == "general.architecture" or key.startswith("llama.")]
    metadata = {key: (types[reader.fields[key].types[0]], reader.fields[key].contents()) for key in keys}
    tensors = {
        tensor.name: ("F32", tuple(reversed(tensor.shape.tolist())), dequantize(tensor.data, tensor.tensor_type))
        for tensor in reader.tensors
    }
    path = tmp_path / "f32.gguf"
    write_gguf(path, metadata, tensors)
    with slm.load(path) as model:
        found = kl.agreement(REFERENCES, [model.forward(r.ids, logits="all").logits for r in REFERENCES])
    path.unlink()
    print(f"F32, {_core.cpu_info()['blas']}: {found}")
    assert found.mean_kl <= 1e-8
    assert found.same_top == 1
