# SPDX-License-Identifier: Apache-2.0
"""Strings to compare tokenizers on: real text in many scripts, code, random Unicode, adversarial runs. Always the same ones."""

import argparse
import random
import statistics
import textwrap
import unicodedata
from functools import cache
from pathlib import Path

from test_tokenizer_core import CODE, PARAGRAPHS, WHITE_SPACE

DATA = Path(__file__).parent / "data"

# What scanners, normalizers and added tokens have cases for.
# fmt: off
PARTS = [
    *"aAbBzZéÉßǅʰªº日あ́̈1٣½²Ⅳ!'.-_/\\\"\u200d🦙¡€İΣςſK$|<>#",
    *WHITE_SPACE,
    "  ", "   ", "    ", "\r\n", "\n\n", "\u0085", "\x1c", "\u200b", "'s", "'S", "'ſ", "'re", "'RE", "'lL", "'D",
    "'t", "'M", " the", "The", "NASA", "iPhone", "//", "!?", "...", "123", "1234567", "é", "e\u0301\u0323", "คำ",
    "हिन्दी", "שָׁלוֹם", "عربى", " \u0301", "\u0301A", "한국", "ᄒ", "ᅡ", "ᆫ", "Ça", "▁", "▁▁", " ▁", "ﬁ", "㊿", "ﷺ",
    "Å", "Å", "か\u3099", "ｶﾞ", "Ａ", "\0", "\ufffd", "\u00ad", "①", "``", "''", "<0x41>", "…", "👩\u200d🚀",
]
# fmt: on
SINGLES = [*"a \n\t1!.é日´'", "  a", "ab", "\u0301", "▁", "🦙", "\u200d", "=", "\r\n", "ﬁ"]


@cache
def assigned() -> list[str]:
    return [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs", "Co")]


def random_string(rng: random.Random) -> str:
    """Of one neighbourhood of Unicode, or of all of it."""
    characters = assigned()
    length = rng.randrange(1, 24)
    if rng.random() < 0.3:
        return "".join(rng.choices(characters, k=length))
    start = rng.randrange(len(characters) - 200) if rng.random() < 0.7 else rng.randrange(3000)
    return "".join(rng.choices([*characters[start : start + 200], " ", "a"], k=length))


def cut(rng: random.Random, text: str) -> str:
    start = rng.randrange(len(text))
    return text[start : start + rng.randrange(1, 48)]


@cache
def corpus() -> list[str]:
    """Longer texts: the paragraphs, and source files of Python."""
    files = [Path(module.__file__).read_text(encoding="utf-8") for module in (random, argparse, textwrap, statistics)]
    return [*PARAGRAPHS, *CODE, *(text[i : i + 4000] for text in files for i in range(0, len(text), 4000))]


@cache
def strings(count: int, seed: int = 60) -> list[str]:
    """A quarter each: real text and code, mixtures of PARTS, random Unicode, mixtures of the first two; and runs."""
    rng = random.Random(seed)
    real = [*PARAGRAPHS, *CODE] * 3 + corpus()
    result = [unit * n + end for unit in SINGLES for n in (1, 2, 3, 15, 16, 47, 48, 49, 300) for end in ("", " ", "x")]
    while len(result) < count:
        kind = len(result) % 4
        if kind == 0:
            result.append(cut(rng, rng.choice(real)))
        elif kind == 1:
            result.append("".join(rng.choices(PARTS, k=rng.randrange(1, 16))))
        elif kind == 2:
            result.append(random_string(rng))
        else:
            result.append(
                cut(rng, rng.choice(real)) + "".join(rng.choices(PARTS, k=rng.randrange(1, 6))) + random_string(rng)[:6]
            )
    return result
