# SPDX-License-Identifier: Apache-2.0
"""Writes csrc/text/unicode_tables.c: what the tokenizers ask about a code point, and how it decomposes, composes and lower-cases.

    pip install unicodedata2==16.0.0 regex tokenizers==0.23.3
    python tools/make_unicode_tables.py

The version of the classes is pinned because ids depend on it: 16.0.0 is what the regular expressions of Hugging Face's
`tokenizers` 0.21 to 0.23 use. Its digit splitter uses a newer one, which adds 13 digits; text in them splits differently.
Its normalizers and its BERT rules keep tables of their own, from Unicode 8 to 11, which vocabularies were made with: those are
asked of the library itself, code point by code point, and written down here.
"""

from itertools import pairwise
from pathlib import Path

import regex
import unicodedata2 as unicodedata
from tokenizers import normalizers, pre_tokenizers

UNICODE_VERSION = "16.0.0"
TARGET = Path(__file__).parent.parent / "csrc" / "text" / "unicode_tables.c"
BLOCK = 256
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)  # composed and decomposed by arithmetic

# The order of the bits is that of enum slm_unicode_flag in unicode_tables.h.
LETTER, NUMBER, SPACE, MARK, PUNCTUATION, SYMBOL, UPPER, LOWER, WORD = (1 << bit for bit in range(9))
BERT_PUNCTUATION, BERT_CONTROL, BERT_MARK, COMBINING_MARK = (1 << bit for bit in range(9, 13))
DECOMPOSES, LOWERCASES, COMBINES, EXTENDS, PREPENDS, BREAKS = (1 << bit for bit in range(13, 19))
DIGIT, HAN, BOUNDED = (1 << bit for bit in range(19, 22))
MAJOR = {"L": LETTER, "N": NUMBER, "M": MARK, "P": PUNCTUATION, "S": SYMBOL}
CASE = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER}
# White_Space of PropList.txt outside the categories Zs, Zl and Zp: the controls that regular expressions count as \s.
SPACE_CONTROLS = {0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85}
# \w beyond letters, marks, Nd, Nl and Pc: Join_Control, and the symbols that are Alphabetic.
WORDS = {0x200C, 0x200D, *range(0x24B6, 0x24EA), *range(0x1F130, 0x1F14A), *range(0x1F150, 0x1F16A), *range(0x1F170, 0x1F18A)}
# What Oniguruma's \w and \b, which know no joiners, take for parts of a word though they are \p{No}: those of Latin 1.
LATIN_NUMBERS = {0xB2, 0xB3, 0xB9, 0xBC, 0xBD, 0xBE}
GRAPHEME_BREAKS = {
    EXTENDS: regex.compile(r"[\p{GCB=Extend}\p{GCB=ZWJ}\p{GCB=SpacingMark}]"),
    PREPENDS: regex.compile(r"\p{GCB=Prepend}"),
    BREAKS: regex.compile(r"[\p{GCB=Control}\p{GCB=CR}\p{GCB=LF}]"),
}
IDEOGRAPH = regex.compile(r"\p{Han}")

nfd, nfkd = normalizers.NFD().normalize_str, normalizers.NFKD().normalize_str
lowercase = normalizers.Lowercase().normalize_str
strip_marks = normalizers.StripAccents().normalize_str
strip_accents = normalizers.BertNormalizer(False, False, True, False).normalize_str
clean = normalizers.BertNormalizer(True, False, False, False).normalize_str
bert_words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str


def changed(function) -> dict[int, list[int]]:
    found = ((c, function(chr(c))) for c in CODE_POINTS)
    return {c: list(map(ord, text)) for c, text in found if text != chr(c)}


DECOMPOSITIONS = {c: to for c, to in changed(nfd).items() if c not in HANGUL}
COMPATIBLE = {c: to for c, to in changed(nfkd).items() if c not in HANGUL and DECOMPOSITIONS.get(c) != to}
LOWERCASE = changed(lowercase)
# U+0345 has the highest class: whatever has one goes in front of it.
CLASSES = {
    c: unicodedata.combining(chr(c))
    for c in CODE_POINTS
    if unicodedata.combining(chr(c)) and (c == 0x345 or nfd(f"\u0345{chr(c)}") != f"\u0345{chr(c)}")
}
PAIRS = {
    tuple(int(part, 16) for part in unicodedata.decomposition(chr(c)).split()): c
    for c in DECOMPOSITIONS
    if len(unicodedata.decomposition(chr(c)).split()) == 2 and unicodedata.normalize("NFC", chr(c)) == chr(c)
}
SECONDS = {second for _, second in PAIRS}


def combines(code_point: int) -> bool:
    """Does it, or what it decomposes to begins with, have a class or compose with what is before it?"""
    firsts = [to[code_point][0] for to in (DECOMPOSITIONS, COMPATIBLE) if code_point in to]
    return any(c in CLASSES or c in SECONDS or 0x1160 <= c < 0x1200 for c in (code_point, *firsts))


def flags(code_point: int) -> int:
    text = chr(code_point)
    category = unicodedata.category(text)
    if category == "Cs":
        return 0
    result = MAJOR.get(category[0], 0) | CASE.get(category, 0)
    space = category[0] == "Z" or code_point in SPACE_CONTROLS
    letter = category[0] in "LM" or category in ("Nd", "Nl", "Pc") or code_point in WORDS
    answers = {
        SPACE: space,
        WORD: letter,
        DIGIT: category == "Nd",
        HAN: category != "Cn" and bool(IDEOGRAPH.match(text)),
        BOUNDED: (letter and category != "Cf") or code_point in LATIN_NUMBERS,
        BERT_PUNCTUATION: len(bert_words(f"a{text}a")) == 3,
        BERT_CONTROL: clean(text) == "",
        BERT_MARK: text not in strip_accents(f"{text}a") and nfd(text) == text,
        COMBINING_MARK: strip_marks(text) == "",
        DECOMPOSES: code_point in DECOMPOSITIONS or code_point in COMPATIBLE or code_point in HANGUL,
        LOWERCASES: code_point in LOWERCASE,
        COMBINES: combines(code_point),
    }
    answers |= {flag: bool(pattern.match(text)) for flag, pattern in GRAPHEME_BREAKS.items()}
    for flag, answer in answers.items():
        result |= flag * answer
    return result


def rows(values, per_line: int = 24, form=str) -> str:
    values = list(values)
    lines = (values[i : i + per_line] for i in range(0, len(values), per_line))
    return "\n".join("    " + " ".join(f"{form(value)}," for value in line) for line in lines)


def mapping(name: str, table: dict[int, list[int]]) -> str:
    """code points, ascending; where each one's text begins; the texts."""
    starts = [0]
    for to in table.values():
        starts.append(starts[-1] + len(to))
    assert all(a < b for a, b in pairwise(table))
    return f"""
static const uint32_t {name}_from[{len(table)}] = {{
{rows(table, 16, hex)}
}};

static const uint16_t {name}_starts[{len(starts)}] = {{
{rows(starts)}
}};

static const uint32_t {name}_to[{starts[-1]}] = {{
{rows((c for to in table.values() for c in to), 16, hex)}
}};

const slm_unicode_mapping slm_unicode_{name} = {{{name}_from, {name}_starts, {name}_to, {len(table)}}};
"""


def main() -> None:
    if unicodedata.unidata_version != UNICODE_VERSION:
        found = unicodedata.unidata_version
        raise SystemExit(f"expected Unicode {UNICODE_VERSION}, found {found}: install unicodedata2=={UNICODE_VERSION}")
    numbers: dict[tuple[int, ...], int] = {}
    index = []
    for start in range(0, 0x110000, BLOCK):
        block = tuple(flags(code_point) for code_point in range(start, start + BLOCK))
        index.append(numbers.setdefault(block, len(numbers)))
    assert len(numbers) <= 256
    assert numbers[next(iter(numbers))] == 0
    pairs = sorted((first, second, c) for (first, second), c in PAIRS.items())
    TARGET.write_text(
        f"""/* SPDX-License-Identifier: Apache-2.0
 * Written by tools/make_unicode_tables.py from Unicode {UNICODE_VERSION}: do not edit. */
#include "text/unicode_tables.h"

/* clang-format off */
const uint8_t slm_unicode_blocks[{len(index)}] = {{
{rows(index)}
}};

const uint32_t slm_unicode_flags[{len(numbers) * BLOCK}] = {{
{rows(value for block in numbers for value in block)}
}};
{mapping("canonical", DECOMPOSITIONS)}{mapping("compatible", COMPATIBLE)}{mapping("lowercase", LOWERCASE)}
const slm_unicode_class_range slm_unicode_classes[] = {{
{rows(ranges(CLASSES), 8, lambda r: "{" + f"{r[0]:#x}, {r[1]:#x}, {r[2]}" + "}")}
}};
const int slm_unicode_n_classes = {len(ranges(CLASSES))};

const slm_unicode_pair slm_unicode_pairs[] = {{
{rows(pairs, 6, lambda p: "{" + ", ".join(map(hex, p)) + "}")}
}};
const int slm_unicode_n_pairs = {len(pairs)};
/* clang-format on */
"""
    )


def ranges(classes: dict[int, int]) -> list[tuple[int, int, int]]:
    result: list[tuple[int, int, int]] = []
    for code_point, value in classes.items():
        if result and result[-1][1] == code_point - 1 and result[-1][2] == value:
            result[-1] = (result[-1][0], code_point, value)
        else:
            result.append((code_point, code_point, value))
    return result


if __name__ == "__main__":
    main()
