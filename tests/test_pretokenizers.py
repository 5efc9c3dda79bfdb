# SPDX-License-Identifier: Apache-2.0
"""Every kind of pre-tokenizer against `tokenizers` with the pattern as published, and the published vectors.

The vocabulary holds every byte and every pair of bytes, merged in random order: where a word ends shows in the ids.
"""

import itertools
import json
import random
from functools import cache
from pathlib import Path

import pytest
import texts
import tokenizers
from gguf_writer import write_gguf
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
SIGNED_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+"
)
SYMBOL_WORDS = SIGNED_WORDS + r"[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SYMBOL_WORDS_BARE = SIGNED_WORDS + r"|[\r\n]|\s+(?!\S)|\s+"
PHRASES = r" ?[^(\s|[.,!?…。，、।۔،])]+"
ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"
KANA_OR_HAN = "[一-龥\u3040-ゟ゠-ヿ]+"
PLAIN_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + TAIL
BLOCKS = (
    rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s{{512}}(?!\S)"
    r"|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"
)
LINE_PHRASES = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)
UPPER_NOT_HAN, LOWER_NOT_HAN = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
HAN_OR_CASED = (
    rf"[\p{{Han}}]+|[^\r\n\p{{L}}\p{{N}}]?{UPPER_NOT_HAN}*{LOWER_NOT_HAN}+{CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER_NOT_HAN}+{LOWER_NOT_HAN}*{CONTRACTIONS}?|\p{{N}}{{1,3}}|{TAIL}"
)
EAST_ASIAN = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-\u303f︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+"
UNSPACED = (
    r"(?:[\u4E00-\u9FFF\u3040-\u309F\u30A0-\u30FF\u3400-\u4DBF\uf900-\uFAFF\uFF65-\uFF9F\u2F00-\u2FDF]+|[\u0E00-\u0E7F]+"
    r"|[\u0E80-\u0EFF]+|[\u1780-\u17FF]+|[\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF]+|[\uAC00-\uD7AF\u1100-\u11FF]+)"
)
DIGIT_GROUPS = [
    r"\p{Nd}{1,510}(?=(?>\p{Nd}{510})*(?:\P{Nd}|$))|\G\p{Nd}{510}",
    r"\A\p{Nd}{1,2}(?=\p{Nd}{3}+\z)",
    r"\A\p{Nd}{3}|\G\p{Nd}{3}",
]
BOUNDED_GROUPS, BEFORE_GROUPS = r"\d{1,3}(?=(?:\d{3})*\b)", r"(?=(\d{3})+(?!\d))"
CHAMELEON = ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", r"([\t\n]|    |  )"]
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
    "deepseek-v3": [r"\p{N}{1,3}", KANA_OR_HAN, SYMBOL_WORDS],
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
    "ufakzeka": [PLAIN_WORDS],
    "jais-2": [BLOCKS],
    "exaone-moe": [LINE_PHRASES],
    "spark2_5": [r"\p{N}{1,3}", KANA_OR_HAN, SYMBOL_WORDS_BARE, r"\p{N}"],
    "afmoe": [*DIGIT_GROUPS, UNSPACED, SYMBOL_WORDS],
    "superbpe": [r"\p{N}+", BEFORE_GROUPS],
    "chameleon": [*CHAMELEON, pre_tokenizers.Digits(True), pre_tokenizers.Punctuation(), GPT2],
    "tiny_aya": [BOUNDED_GROUPS, rf"{CASED[0]}{CONTRACTIONS}?|{CASED[1]}{CONTRACTIONS}?|\p{{N}}{{1,3}}|{CASED_TAIL}"],
    "youtu": [EAST_ASIAN, rf"{CASED[0]}{CONTRACTIONS}?|{CASED[1]}{CONTRACTIONS}?|\p{{N}}|{CASED_TAIL}"],
    "kimi-k2": [HAN_OR_CASED],
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


# fmt: off
EDGES = [
    "1", "12", "123", "1234", "٣", "٣٤", "०१२", "𝟙", "½", "²", "Ⅷ", "①", "Ⓐ", "_", "\u200d", "\u200c", "a", "B", "ǅ", "中",
    "⺀", "\U00016ff0", "〇", "々", "。", "，", "가", "ㄱ", "ㄅ", "ア", "：", "๐", "က", "ខ", "ລ", "\n", "\r", "\t", " ", "  ",
    "    ", "\u3000", "'s", "'LL", "'ſ", "/", "क\u094d", "\u0301", "ー", "﹏", "“”", "𠀀", "IMGIMG", "AZ", "IMGIMGABZ", "IMG",
    "IMGIMGABCDEZ", "<sentinel:", "<sentinel:12>", "0>",
]
# fmt: on
LENGTHS = [*range(1, 10), *(2**n + d for n in range(4, 11) for d in (-1, 0, 1)), *range(509, 515), *range(1019, 1027), 1530, 1537]


@cache
def edges() -> list[str]:
    """Runs around the lengths at which blocks and groups end, of characters that count as digits or may stand beside them."""
    rng = random.Random(72)
    mixed = ["".join(rng.choices(EDGES, k=rng.randrange(1, 20))) for _ in range(1500)]
    units = ("1", "1٣", " ", " \xa0", "a ")
    runs = [(unit * size)[:size] for unit, size in itertools.product(units, LENGTHS)]
    return mixed + [rng.choice(("", "a", "½")) + run + rng.choice(("", "x", "_", ".", "½", "\u200d", "中", "\n")) for run in runs]


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
    inputs = with_added(10_000) if added else texts.strings(50_000) + edges()
    found = ours.encode_batch(inputs, parse_special=added)
    for text, ids, expected in zip(inputs, found, theirs.encode_batch_fast(inputs), strict=True):
        assert ids == expected.ids, repr(text)


def test_every_kind_of_rules_is_compared():
    tested = [PRETOKENIZERS[name].splits for name in PATTERNS]
    assert all(pretokenizer.splits in tested for pretokenizer in PRETOKENIZERS.values())


BEHAVIORS = ("isolated", "contiguous", "removed", "merged_with_previous", "merged_with_next")
STEPS: list = [
    GPT2, line_words(r"\p{N}+"), rf"{CASED[0]}|{CASED[1]}|\p{{N}}|{CASED_TAIL}", SYMBOL_WORDS, PHRASES, r"[^\n]+|[\n]+", "[\r\n]",
    r"\s?\p{L}+", rf"\s?[{CASED_LETTERS}]+", r"\s?\p{P}+", LISTED_SIGNS, r"\s+$", ASIAN, KANA_OR_HAN, r"\p{N}",
    r"\p{N}{1,3}", r"\p{N}+", "[0-9][0-9][0-9]", pre_tokenizers.Digits(True), pre_tokenizers.Digits(False),
    *map(pre_tokenizers.Punctuation, BEHAVIORS), r"\s+",
    pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit(), pre_tokenizers.BertPreTokenizer(),
    PLAIN_WORDS, BLOCKS, LINE_PHRASES, HAN_OR_CASED, EAST_ASIAN, UNSPACED, SYMBOL_WORDS_BARE, DIGIT_GROUPS, BOUNDED_GROUPS,
    BEFORE_GROUPS, *CHAMELEON,
]  # fmt: skip
ALONE = (*DIGIT_GROUPS, BEFORE_GROUPS)  # of which slm has but "isolated"
AFTER_BYTES = [pre_tokenizers.Digits(True), pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")]


@pytest.mark.parametrize("seed", range(24))
def test_any_sequence_of_known_steps(theirs, tmp_path, seed):
    rng = random.Random(seed)
    chosen = [step if isinstance(step, list) else [step] for step in rng.choices(STEPS, k=rng.randrange(1, 6))]
    usual = rng.random() < 0.5
    steps = [
        pre_tokenizers.Split(
            tokenizers.Regex(step), "isolated" if usual or step in ALONE else rng.choice(BEHAVIORS), rng.random() < 0.5
        )
        if isinstance(step, str)
        else step
        for step in itertools.chain(*chosen)
    ]
    behind = rng.choices(AFTER_BYTES, k=rng.choice((0, 0, 1, 2)))
    theirs.pre_tokenizer = pre_tokenizers.Sequence([*steps, BYTES, *behind])
    path = tmp_path / "tokenizer.json"
    theirs.save(str(path))
    ours = slm.load_tokenizer(path)
    inputs = texts.strings(6000, seed=seed)
    found = ours.encode_batch(inputs, add_special_tokens=False)
    for text, ids, expected in zip(inputs, found, theirs.encode_batch_fast(inputs), strict=True):
        assert ids == expected.ids, (repr(text), str(theirs.pre_tokenizer))


def test_ends_of_lines_in_patterns_need_no_escapes(theirs, tmp_path):
    theirs.pre_tokenizer = sequence([line_words(r"\p{N}")])
    content = json.loads(theirs.to_str())
    regex = content["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    regex["Regex"] = regex["Regex"].replace(r"\r", "\r").replace(r"\n", "\n")
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    inputs = texts.strings(1000)
    found = slm.load_tokenizer(path).encode_batch(inputs, add_special_tokens=False)
    assert found == [encoding.ids for encoding in theirs.encode_batch_fast(inputs)]


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


def small_gguf(path: Path, pre: str) -> slm.Tokenizer:
    """Of single bytes, <s> and </s>."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>"]
    metadata = {
        "general.architecture": ("string", "llama"),
        "tokenizer.ggml.model": ("string", "gpt2"),
        "tokenizer.ggml.pre": ("string", pre),
        "tokenizer.ggml.tokens": ("array of string", pieces),
        "tokenizer.ggml.token_type": ("array of int32", [1] * 256 + [3, 3]),
        "tokenizer.ggml.merges": ("array of string", []),
        "tokenizer.ggml.bos_token_id": ("uint32", 256),
        "tokenizer.ggml.eos_token_id": ("uint32", 257),
    }
    write_gguf(path, metadata, {})
    return slm.load_tokenizer(path)


@pytest.mark.parametrize("pre", PRETOKENIZERS)
def test_what_a_name_settles_beside_splits(tmp_path, pre):
    """As published: NFC, and the tokens around a text."""
    tokenizer = small_gguf(tmp_path / "x.gguf", pre)
    composed = pre in ("qwen2", "f2llmv2", "gpt-neox", "mpt", "olmo", "modern-bert")
    assert len(tokenizer.encode("e\u0301", add_special_tokens=False)) == (2 if composed else 3)
    around = pre in ("roberta-bpe", "jina-v1-en", "jina-v2-code", "modern-bert")
    assert (tokenizer.encode("a", add_special_tokens=True)[-1] == 257) == around
