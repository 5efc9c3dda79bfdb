# SPDX-License-Identifier: Apache-2.0
"""Screening of the output layer changes no token and no logit of a real model, and what it takes is planned."""

from pathlib import Path

import numpy as np
import pytest
import real_models

import slm
from slm import loader

# Rows of the output layer and its columns, which are Q8_0: a residue for each row and 32 columns is what screening adds.
MODELS = {
    "gemma-3-270m-q4_k_m": (262_144, 640),
    "qwen2.5-coder-0.5b-instruct-q4_k_m": (151_936, 896),
}


def reverse(tokens: np.ndarray, logits: np.ndarray) -> None:
    """The least likely token becomes the likeliest."""
    logits *= -1


CALLS = [
    {"prompt": "def quicksort(items):\n    "},
    {"prompt": "The history of the gull is", "temperature": 0.8, "top_k": 8, "seed": 5, "top_p": 0.9},
    {"prompt": "The history of the gull is", "temperature": 0.8, "top_k": 40, "seed": 5},
    {"prompt": "The history of the gull is", "temperature": 0.8, "top_p": 0.9, "seed": 5, "max_tokens": 5},
    {"prompt": "The history of the gull is", "temperature": 0.8, "top_k": 8, "seed": 5, "logprobs": 3, "max_tokens": 5},
    {"prompt": "The history of the gull is", "processors": reverse, "max_tokens": 5},
    {"prompt": "The history of the gull is", "constrain": slm.regex("[^aeiou]*")},
]


def opened(path: Path, screening: str, monkeypatch: pytest.MonkeyPatch) -> slm.Model:
    monkeypatch.setenv("SLM_SCREENING", screening)
    model, info = slm.load(path), loader.inspect(path)
    sizes = ("weight_bytes", "load_bytes", "kv_bytes", "workspace_bytes")
    assert [getattr(model.info, name) for name in sizes] == [getattr(info, name) for name in sizes]
    assert model.info.weight_bytes == model._core.stats()["weight_bytes"]
    return model


@pytest.mark.parametrize("name", MODELS)
def test_the_same_tokens_and_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, (rows, cols) = real_models.path_or_skip(name), MODELS[name]
    with opened(path, "0", monkeypatch) as plain, opened(path, "1", monkeypatch) as screened:
        assert screened.info.weight_bytes - plain.info.weight_bytes == rows * cols // 32
        assert screened.info.workspace_bytes - plain.info.workspace_bytes == 4 * (rows // 16 + 1 + 2 * slm.cpu_info()["threads"])
        for call in CALLS:
            texts = [model.generate(**{"max_tokens": 12, "ignore_eos": True} | call) for model in (plain, screened)]
            assert texts[0].tokens == texts[1].tokens
            assert texts[0].logprobs == texts[1].logprobs
        ids = texts[0].tokens
        for count in (1, len(ids)):
            logits = [model._core.session().forward(ids[:count], "all") for model in (plain, screened)]
            assert np.array_equal(logits[0].view(np.uint32), logits[1].view(np.uint32))


def test_only_large_output_layers_are_screened(smollm2_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    for screening in ("0", "1"):
        monkeypatch.setenv("SLM_SCREENING", screening)
        sizes.append(loader.inspect(smollm2_path).weight_bytes)
    assert sizes[0] == sizes[1]
