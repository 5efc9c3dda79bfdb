# SPDX-License-Identifier: Apache-2.0
"""Every kind of pre-tokenizer against `tokenizers` with the pattern as published, and the published vectors.

The vocabulary holds every byte and every pair of bytes, merged in random order: where a word ends shows in the ids.
"""

import random
from functools import cache
from pathlib import Path

import pytest
import texts
import tokenizers
from test_tokenizer_core import VOCAB, alphabet, strings
from tokenizers import pre_tokenizers

import slm
from slm import _core
from slm.families.pretokenizers import PRETOKENIZERS
from slm.families.split_patterns import CASED_LETTERS

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = [rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"]
CASED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SYMBOL_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PHRASES = r" ?[^(\s|[.,!?…。，、।۔،])]+"
ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"
LISTED_SIGNS = "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")


def line_words(numbers: str) -> str:
    return rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}|{TAIL}"


# Name -> steps of the published tokenizer.json: regular expressions, or a pre-tokenizer of another kind. ByteLevel ends them.
PATTERNS = {
    "gpt-2": [GPT2],
    "smollm": [pre_tokenizers.Digits(True), GPT2],
    "qwen2": [line_words(r"\p{N}")],
    "qwen35": [CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"],
    "llama-bpe": [line_words(r"\p{N}{1,3}")],
    "tekken": [rf"{CASED[0]}|{CASED[1]}|\p{{N}}|{CASED_TAIL}"],
    "seed-coder": [
        rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
    ],
    "bailingmoe": [r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"],
    "gpt-4o": [rf"{CASED[0]}{CONTRACTIONS}?|{CASED[1]}{CONTRACTIONS}?|\p{{N}}{{1,3}}|{CASED_TAIL}"],
    "deepseek-v3": [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", SYMBOL_WORDS],
    "deepseek-llm": ["[\r\n]", rf"\s?[{CASED_LETTERS}]+", LISTED_SIGNS, r"\s+$", ASIAN, pre_tokenizers.Digits(True)],
    "deepseek-coder": ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", ASIAN, pre_tokenizers.Digits(True)],
    "falcon": [
        pre_tokenizers.Punctuation("contiguous"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        pre_tokenizers.Digits(False),
        "[0-9][0-9][0-9]",
    ],
    "bloom": [PHRASES],
    "viking": [PHRASES, pre_tokenizers.Digits(True)],
    "laguna": [r"[^\n]+|[\n]+", line_words(r"\p{N}")],
    "minicpm5": [r"\p{N}{1,3}", line_words(r"\p{N}+")],
}


def sequence(steps: list) -> pre_tokenizers.PreTokenizer:
    made = [split(step) if isinstance(step, str) else step for step in steps]
    return pre_tokenizers.Sequence(made if steps and steps[-1] == "[0-9][0-9][0-9]" else [*made, BYTES])


@pytest.fixture(scope="module")
def pairs() -> tuple[list[str], list[str]]:
    """Pieces, and merges in random order."""
    letters = sorted({*alphabet().values(), "í"})  # the letter of 0xED
    merges = [f"{a} {b}" for a in letters for b in letters]
    random.Random(40).shuffle(merges)
    return [*letters, *(merge.replace(" ", "") for merge in merges)], merges


ADDED = [
    tokenizers.AddedToken("<|end|>", special=True, normalized=False),
    tokenizers.AddedToken("<tool>", normalized=False),
    tokenizers.AddedToken("<|left|>", special=True, normalized=False, lstrip=True),
    tokenizers.AddedToken("<|right|>", special=True, normalized=False, rstrip=True),
]


@pytest.fixture(scope="module")
def theirs(pairs) -> tokenizers.Tokenizer:
    """Its pre-tokenizer is put in by each test."""
    pieces, merges = pairs
    model = tokenizers.models.BPE({p: i for i, p in enumerate(pieces)}, [tuple(m.split(" ")) for m in merges])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_tokens(ADDED)
    return tokenizer


@cache
def with_added(count: int) -> list[str]:
    """Strings that hold added tokens, at the ends and inside of words and of white space."""
    rng = random.Random(70)
    result = []
    for text in texts.strings(count, seed=71):
        start = rng.randrange(len(text))
        text = text[start : start + 16]
        at = rng.randrange(len(text) + 1)
        result.append(text[:at] + rng.choice(ADDED).content + text[at:])
    return result


@pytest.mark.parametrize("added", [False, True], ids=["plain", "added"])
@pytest.mark.parametrize("name", PATTERNS)
def test_words_are_cut_as_published(pairs, theirs, name, added):
    pieces, merges = pairs
    theirs.pre_tokenizer = sequence(PATTERNS[name])
    pieces = [*pieces, *(token.content for token in ADDED)]
    kinds = b"\1" * (len(pieces) - len(ADDED)) + bytes(3 if token.special else 4 for token in ADDED)
    flags = bytes(len(pieces) - len(ADDED)) + bytes(token.lstrip + 2 * token.rstrip for token in ADDED)
    splits = PRETOKENIZERS[name].splits
    ours = _core.Tokenizer("byte_bpe", strings(pieces), kinds, splits, merges=strings(merges), flags=flags)
    inputs = with_added(100_000) if added else texts.strings(100_000)
    found = ours.encode_batch(inputs, parse_special=added)
    for text, ids, expected in zip(inputs, found, theirs.encode_batch_fast(inputs), strict=True):
        assert ids == expected.ids, repr(text)


def test_every_kind_of_rules_is_compared():
    tested = [PRETOKENIZERS[name].splits for name in PATTERNS]
    assert all(pretokenizer.splits in tested for pretokenizer in PRETOKENIZERS.values())


STEPS = [
    GPT2, line_words(r"\p{N}+"), rf"{CASED[0]}|{CASED[1]}|\p{{N}}|{CASED_TAIL}", SYMBOL_WORDS, PHRASES, r"[^\n]+|[\n]+", "[\r\n]",
    r"\s?\p{L}+", rf"\s?[{CASED_LETTERS}]+", r"\s?\p{P}+", LISTED_SIGNS, r"\s+$", ASIAN, "[一-龥\u3040-ゟ゠-ヿ]+", r"\p{N}",
    r"\p{N}{1,3}", r"\p{N}+", "[0-9][0-9][0-9]", pre_tokenizers.Digits(True), pre_tokenizers.Digits(False),
    *(pre_tokenizers.Punctuation(behavior) for behavior in ("isolated", "contiguous", "removed")),
    pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit(), pre_tokenizers.BertPreTokenizer(),
]  # fmt: skip
AFTER_BYTES = [pre_tokenizers.Digits(True), pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")]


@pytest.mark.parametrize("seed", range(24))
def test_any_sequence_of_known_steps(theirs, tmp_path, seed):
    rng = random.Random(seed)
    steps = [split(step) if isinstance(step, str) else step for step in rng.choices(STEPS, k=rng.randrange(1, 6))]
    behind = rng.choices(AFTER_BYTES, k=rng.choice((0, 0, 1, 2)))
    theirs.pre_tokenizer = pre_tokenizers.Sequence([*steps, BYTES, *behind])
    path = tmp_path / "tokenizer.json"
    theirs.save(str(path))
    ours = slm.load_tokenizer(path)
    inputs = texts.strings(6000, seed=seed)
    found = ours.encode_batch(inputs, add_special_tokens=False)
    for text, ids, expected in zip(inputs, found, theirs.encode_batch_fast(inputs), strict=True):
        assert ids == expected.ids, (repr(text), str(theirs.pre_tokenizer))


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
        ours = _core.Tokenizer("byte_bpe", strings([*pieces, "abcde"]), kinds, ("gpt2_words",), **arguments)
        assert len(ours.encode("abcde")) == count
        assert len(ours.encode("abcdef")) > 1
