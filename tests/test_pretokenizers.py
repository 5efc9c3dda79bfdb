# SPDX-License-Identifier: Apache-2.0
"""Every kind of pre-tokenizer against `tokenizers` with the pattern as published, and the published vectors.

The vocabulary holds every byte and every pair of bytes, merged in random order: where a word ends shows in the ids.
"""

import random
from pathlib import Path

import pytest
import texts
import tokenizers
from test_tokenizer_core import VOCAB, alphabet, strings

import slm
from slm import _core
from slm.families.pretokenizers import PRETOKENIZERS
from slm.families.split_patterns import SYMBOL_STEPS

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = [rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"]
CASED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "smollm": (r"\p{N}", r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"),
    "qwen2": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{TAIL}",
    "qwen35": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "llama-bpe": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{TAIL}",
    "tekken": rf"{CASED[0]}|{CASED[1]}|\p{{N}}|{CASED_TAIL}",
    "seed-coder": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "bailingmoe": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "deepseek-v3": SYMBOL_STEPS,
    "gpt-4o": rf"{CASED[0]}{CONTRACTIONS}?|{CASED[1]}{CONTRACTIONS}?|\p{{N}}{{1,3}}|{CASED_TAIL}",
}


@pytest.fixture(scope="module")
def pairs() -> tuple[list[str], list[str]]:
    """Pieces, and merges in random order."""
    letters = sorted({*alphabet().values(), "í"})  # the letter of 0xED
    merges = [f"{a} {b}" for a in letters for b in letters]
    random.Random(40).shuffle(merges)
    return [*letters, *(merge.replace(" ", "") for merge in merges)], merges


@pytest.mark.parametrize("name", PATTERNS)
def test_words_are_cut_as_published(pairs, name):
    pieces, merges = pairs
    model = tokenizers.models.BPE({p: i for i, p in enumerate(pieces)}, [tuple(m.split(" ")) for m in merges])
    theirs = tokenizers.Tokenizer(model)
    patterns = PATTERNS[name] if isinstance(PATTERNS[name], tuple) else (PATTERNS[name],)
    splits = [tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in patterns]
    level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([*splits, level])
    rules = PRETOKENIZERS[name].rules
    ours = _core.Tokenizer("byte_bpe", strings(pieces), b"\1" * len(pieces), rules, merges=strings(merges))
    inputs = texts.strings(100_000)
    found = ours.encode_batch(inputs)
    for text, ids, expected in zip(inputs, found, theirs.encode_batch_fast(inputs), strict=True):
        assert ids == expected.ids, repr(text)


def test_every_kind_of_rules_is_compared():
    tested = [PRETOKENIZERS[name].rules for name in PATTERNS]
    assert all(pretokenizer.rules in tested for pretokenizer in PRETOKENIZERS.values())


@pytest.mark.parametrize("name", ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2"])
def test_published_vectors(name):
    path = VOCAB / f"ggml-vocab-{name}.gguf"
    tokenizer = slm.load_tokenizer(path)
    inputs = Path(f"{path}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    outputs = Path(f"{path}.out").read_text().splitlines()
    assert len(inputs) == len(outputs) + 1 > 40
    for text, line in zip(inputs[:-1], outputs, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert ids == [int(id) for id in line.split()], repr(text)
        assert tokenizer.decode(ids) == text


def test_a_word_that_is_a_piece_need_not_come_of_merges(pairs):
    pieces, merges = pairs
    for ignore_merges, count in ((True, 1), (False, 3)):
        arguments = {"merges": strings(merges), "ignore_merges": ignore_merges}
        kinds = b"\1" * (len(pieces) + 1)
        ours = _core.Tokenizer("byte_bpe", strings([*pieces, "abcde"]), kinds, {"gpt2_words": True}, **arguments)
        assert len(ours.encode("abcde")) == count
        assert len(ours.encode("abcdef")) > 1


@pytest.mark.parametrize("name", ["cased_words", "number_length"])
def test_wrong_rules(pairs, name):
    with pytest.raises((TypeError, ValueError), match=name):
        _core.Tokenizer("byte_bpe", strings(["a"]), b"\1", {name: 256})
