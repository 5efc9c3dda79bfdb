# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C in the middle of one long word, or of many ids, ends the call, whichever engine runs, and leaves the tokenizer whole."""

import numpy as np
import pytest
from test_tokenizer_core import VOCAB
from test_tokenizer_kinds import unigram_pair, wordpiece_pair
from test_windows import signal_after

import slm

WORD = "a" * (16 << 20)


def tokenizer_core(kind, minilm_path):
    if kind == "unigram":
        return unigram_pair("always")[0]
    if kind == "wordpiece":
        return wordpiece_pair(minilm_path)[0]
    return slm.load_tokenizer(VOCAB / f"ggml-vocab-{kind}.gguf")._core


@pytest.mark.parametrize("kind", ["gpt-2", "qwen2", "llama-bpe", "llama-spm", "unigram", "wordpiece"])
def test_an_interrupt_ends_a_long_word(minilm_path, kind):
    core = tokenizer_core(kind, minilm_path)
    expected = core.encode(WORD[:1000])
    for seconds in np.linspace(0.005, 0.05, 5):
        with signal_after(seconds), pytest.raises(KeyboardInterrupt):
            core.encode(WORD)
        assert core.encode(WORD[:1000]) == expected


@pytest.mark.parametrize("kind", ["gpt-2", "unigram", "wordpiece"])
def test_an_interrupt_ends_decoding(minilm_path, kind):
    core = tokenizer_core(kind, minilm_path)
    for ids in (np.full(1 << 25, 100), [100] * (1 << 24)):
        for seconds in np.linspace(0.005, 0.05, 5):
            with signal_after(seconds), pytest.raises(KeyboardInterrupt):
                core.decode(ids)
    assert core.decode(ids[:3]) == core.decode([100] * 3)
