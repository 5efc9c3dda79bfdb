# SPDX-License-Identifier: Apache-2.0
"""Patterns by which published tokenizer.json files cut text into words -> the fields of slm_pretokenizer in csrc/slm.h.

A key holds the steps in their order: the regular expression of a Split, or the word by which tokenizer_components.py names a
pre-tokenizer that has none. Only what slm does exactly is here.
"""

from collections.abc import Mapping

from slm.families.pretokenizers import (
    CASED_ONE_DIGIT,
    CASED_THREE_DIGITS,
    DIGITS_THEN_GPT2_WORDS,
    GPT2_WORDS,
    ONE_DIGIT,
    ONE_DIGIT_AND_MARKS,
    SYMBOLS,
    THREE_DIGITS,
)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def line_words(numbers: str) -> str:
    return rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{LINES}"


def cased_words(contraction: str, numbers: str) -> str:
    word = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}"
    return (
        rf"{word}*{LOWER}+{contraction}|{word}+{LOWER}*{contraction}|{numbers}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{LINES}"
    )


MARKS = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{LINES}"

SYMBOL_STEPS = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)

PATTERNS: Mapping[tuple[str, ...], Mapping[str, bool | int]] = {
    (): {},  # the whole text is one word
    ("BertPreTokenizer",): {"drop_white_space": True, "bert_punctuation": True},
    ("gpt2",): GPT2_WORDS.rules,
    (GPT2,): GPT2_WORDS.rules,
    ("digit", "gpt2"): DIGITS_THEN_GPT2_WORDS.rules,
    (line_words(r"\p{N}"),): ONE_DIGIT.rules,
    (line_words(r"\p{N}{1,3}"),): THREE_DIGITS.rules,
    SYMBOL_STEPS: SYMBOLS.rules,
    ("metaspace",): {"space_words": True},
    ("WhitespaceSplit", "metaspace"): {"drop_white_space": True, "space_words": True},
    (MARKS,): ONE_DIGIT_AND_MARKS.rules,
    (cased_words("", r"\p{N}"),): CASED_ONE_DIGIT.rules,
    (cased_words(rf"{CONTRACTION}?", r"\p{N}{1,3}"),): CASED_THREE_DIGITS.rules,
}
