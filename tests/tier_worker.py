# SPDX-License-Identifier: Apache-2.0
"""Work for a process whose kernel tier is forced by SLM_ISA: tests call `run`, the process runs `main`."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import kl
import numpy as np
import reference
import tiny_models

from slm.activations import LAYER_SITES

HASH_CASES = [
    (name, *form)
    for name in tiny_models.NAMES
    for form in [
        *(("Q4_1", "bf16"), ("Q4_0", "bf16"), ("Q8_0", "f32"), ("F16", "bf16"), ("F16", "f32"), ("BF16", "bf16")),
        *(("Q5_0", "bf16"), ("Q4_1", "bf16", "high"), ("Q8_0", "f32", "high"), ("BF16", "bf16", "high"), ("F16", "int8")),
    ]
]
N_TOKENS = 600  # several cache pages of 64 and attention segments of 256


def run(tier: str, command: str, *arguments: str | Path) -> list[str]:
    """The lines that `main` prints in a process where only this tier's kernels run."""
    environment = os.environ | {"SLM_ISA": tier}
    done = subprocess.run(
        [sys.executable, __file__, command, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    return done.stdout.splitlines()


def long_model(name: str) -> tiny_models.TinyModel:
    """A tiny model with room for N_TOKENS, and as many ids."""
    model = tiny_models.load(name)
    ids = np.random.default_rng(3).integers(0, model.config.vocab_size, N_TOKENS)
    return replace(model, config=replace(model.config, max_position_embeddings=N_TOKENS + 40), ids=ids)


def wide_model() -> tiny_models.TinyModel:
    """One layer of random weights, wide enough that every block of a matrix multiplication has whole tiles and remainders."""
    sizes = {"vocab_size": 1031, "hidden_size": 416, "intermediate_size": 1184, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 13, "num_key_value_heads": 13, "head_dim": 32, "rotary_dim": 32}
    config = reference.Config(
        **sizes, **heads, max_position_embeddings=512, norm_eps=1e-5, rope_inv_freq=reference.rope_inv_freq(10000.0, 32)
    )
    rng = np.random.default_rng(4)
    weights = tiny_models.random_weights(config, rng, tied=True)
    ids = rng.integers(0, config.vocab_size, 150)
    return tiny_models.TinyModel(config, 10000.0, weights, ids, reference.forward(config, weights, ids))


def hash_logits(folder: str) -> None:
    """One line per case: its name and a hash of the logits of a long prompt and 8 steps."""
    for case in HASH_CASES:
        name, *form = case
        model = long_model(name)
        session = tiny_models.core_model(model, Path(folder) / "weights", *form, down_proj_group=16).session()
        logits = np.concatenate([session.forward(model.ids[:-8], "all"), *(session.forward([token]) for token in model.ids[-8:])])
        print(*case, hashlib.sha256(logits.tobytes()).hexdigest() if np.isfinite(logits).all() else "not finite")


ACTIVATION_CASES = [("llama_gqa_tied", "Q4_1", "bf16"), ("llama_mqa_wide_heads", "Q8_0", "int8")]


def hash_activations(folder: str) -> None:
    """One line per case: its name and a hash of all that a pass and a step behind it capture. Neither that nor edits that change
    nothing may change a bit of the logits, and neither threads nor chunks one of what is captured."""
    for name, *form in ACTIVATION_CASES:
        model = long_model(name)
        ids, more = model.ids[:260], model.ids[260:261]
        core = tiny_models.core_model(model, Path(folder) / "weights", *form)
        session = core.session()
        expected = [session.forward(ids, "all"), session.fork().forward(more)]
        hashes = []
        for threads, chunk in ((1, 0), (2, 7)):
            again, arrays = core.session(), []
            for tokens, logits in zip((ids, more), expected, strict=True):
                taps = all_taps(core, len(tokens), again.length + len(tokens))
                found = again.forward(tokens, "all", threads, chunk, taps)
                np.testing.assert_array_equal(found.view(np.uint32), logits.view(np.uint32))
                arrays += [target for _, _, target in taps if isinstance(target, np.ndarray)]
            hashes.append(hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest())
        assert len({*hashes}) == 1
        last = core.session().forward(ids, "last", 2, 0, all_taps(core, len(ids), len(ids)))
        np.testing.assert_array_equal(last, expected[0][-1:])
        print(name, *form, hashes[0])


def all_taps(core: Any, n_tokens: int, n_keys: int) -> tuple[tuple[str, int, Any], ...]:
    """Each site captured, and edited but for attention weights by a function that gives its rows back."""
    stats = core.stats()
    rows = (n_tokens, stats["hidden_size"])
    layers = [(site, i) for i in range(stats["num_hidden_layers"]) for site in LAYER_SITES]
    taps: list[tuple[str, int, Any]] = []
    for site, layer in [("embed", 0), *layers, ("final_norm", 0)]:
        weights = site == "attn_weights"
        if not weights:
            taps.append((site, layer, lambda rows, positions: rows.copy()))
        shape = (stats["num_attention_heads"], n_tokens, n_keys) if weights else rows
        taps.append((site, layer, np.full(shape, np.nan, np.float32)))
    return tuple(taps)


def wide_f32_error(folder: str) -> None:
    """BLIS's configuration, then the largest errors of a prefill and of single steps, as shares of the largest logit."""
    from slm import _core

    model = wide_model()
    session = tiny_models.core_model(model, Path(folder) / "weights").session()
    prefill = session.forward(model.ids, "all")
    session.rewind(0)
    steps = np.concatenate([session.forward([token]) for token in model.ids])
    errors = [np.abs(logits - model.logits).max() / np.abs(model.logits).max() for logits in (prefill, steps)]
    print(_core.cpu_info()["blas_arch"])
    print(*errors)


def teacher_forced(path: str, name: str, precision: str, out: str, *ids: str) -> None:
    """The logits of every position of the recorded prompts `ids`, by the file `path`, saved as <prompt id> in the .npz `out`."""
    import slm

    with slm.load(path, precision=precision) as model:
        np.savez(out, **{r.id: model.forward(r.ids, logits="all").logits for r in kl.load(name) if r.id in ids})


def main(command: str, *arguments: str) -> None:
    commands = {
        "hash": hash_logits,
        "activations": hash_activations,
        "wide-f32": wide_f32_error,
        "teacher-forced": teacher_forced,
    }
    commands[command](*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
