# SPDX-License-Identifier: Apache-2.0
"""Make tests/data/oracle/sampling.npz: what Transformers (5 or later) makes of logits before it draws from them.

    pip install ".[oracle]" && python tests/oracle/make_sampling.py

`logits` [n_rows, vocab_size], `tokens` [n_rows, n_tokens] of the text before them; `cases`: options by slm's names, as JSON;
`scores` [n_cases, n_rows, vocab_size], -inf where a token is not to be drawn. Transformers itself puts its processors in order.
"""

import json

import numpy as np
import torch
import transformers
from make_families import OUT

VOCAB, TOKENS = 64, 24
ALL = 2**31 - 1  # Transformers' repetition penalty looks at all tokens
CASES = [
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 1.5, "top_k": 5},
    {"temperature": 1.5, "top_k": 200},
    {"temperature": 1.0, "top_p": 0.7},
    {"temperature": 0.8, "top_p": 0.02},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 2.0, "min_p": 1.0},
    {"temperature": 1.0, "typical_p": 0.6},
    {"temperature": 1.3, "typical_p": 0.95},
    {"temperature": 1.0, "typical_p": 0.001},
    {"temperature": 1.2, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.8},
    {"temperature": 0.9, "top_p": 0.95, "typical_p": 0.5},
    {"temperature": 1.0, "repetition_penalty": 1.3, "penalty_window": ALL},
    {"temperature": 1.0, "repetition_penalty": 0.7, "penalty_window": ALL, "top_k": 12},
    {"temperature": 1.0, "no_repeat_ngram": 1},
    {"temperature": 1.0, "no_repeat_ngram": 2, "top_p": 0.9},
    {"temperature": 1.0, "no_repeat_ngram": 3},
    {"temperature": 1.0, "no_repeat_ngram": 40},
    {"temperature": 1.0, "logit_bias": {"3": 2.5, "7": -2.0, "11": "-inf", "63": 4.0}},
    {
        "temperature": 0.7, "top_k": 30, "top_p": 0.97, "min_p": 0.001, "repetition_penalty": 1.5, "penalty_window": ALL,
        "no_repeat_ngram": 2, "logit_bias": {"0": 3.0, "1": "-inf", "2": -1.0},
    },
]  # fmt: skip
THEIRS = {"no_repeat_ngram": "no_repeat_ngram_size"}


def rows(rng: np.random.Generator) -> np.ndarray:
    return np.float32(
        [
            rng.normal(size=VOCAB) * 2,
            rng.integers(-3, 4, VOCAB),  # many are equal
            np.where(np.arange(VOCAB) == 9, 12, rng.normal(size=VOCAB)),
            np.zeros(VOCAB),
            rng.normal(size=VOCAB) * 50,
            -0.1 * np.arange(VOCAB),
        ]
    )


def config_of(case: dict) -> transformers.GenerationConfig:
    options = {THEIRS.get(name, name): value for name, value in case.items() if name not in ("penalty_window", "logit_bias")}
    options = {"top_k": 0, "top_p": 1.0} | options
    if "logit_bias" in case:
        options["sequence_bias"] = {(int(id),): float(bias) for id, bias in case["logit_bias"].items()}
    return transformers.GenerationConfig(do_sample=True, **options)


def main() -> None:
    rng = np.random.default_rng(5)
    logits, tokens = rows(rng), rng.integers(0, 9, (6, TOKENS))
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    model = transformers.LlamaForCausalLM(config)
    scores = []
    for case in CASES:
        processors = model._get_logits_processor(config_of(case), input_ids_seq_length=TOKENS)
        scores.append(processors(torch.tensor(tokens), torch.tensor(logits)).numpy())
    path = OUT / "sampling.npz"
    made_with = f"transformers {transformers.__version__}, torch {torch.__version__}"
    arrays = {"logits": logits, "tokens": np.int32(tokens), "scores": np.float32(scores), "cases": json.dumps(CASES)}
    np.savez_compressed(path, made_with=made_with, **arrays)
    print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
