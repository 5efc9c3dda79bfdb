# SPDX-License-Identifier: Apache-2.0
"""Regular expressions by which published tokenizer.json files cut text into words -> the splits of csrc/slm.h.

Only what slm does exactly is here. COVERING: those whose matches leave nothing between them.
"""

from collections.abc import Mapping

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

BARE = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{LINES}"
POSSESSIVE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"

# The letters of alphabets with case that DeepSeek LLM lists. Those that NFC would replace are escaped.
CASED_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ"
    "-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰"
    "-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"

COVERING: Mapping[str, str] = {
    GPT2: "gpt2_words",
    line_words(r"\p{N}"): "line_words_1",
    line_words(r"\p{N}{1,3}"): "line_words_3",
    line_words(r"\p{N}+"): "line_words",
    MARKS: "line_words_marks",
    BARE: "line_words_bare",
    POSSESSIVE: "line_words_1",
    cased_words("", r"\p{N}"): "cased_words_1",
    cased_words(rf"{CONTRACTION}?", r"\p{N}{1,3}"): "cased_words_3",
    r"[^\n]+|[\n]+": "lines",
}
PATTERNS: Mapping[str, str] = {
    **COVERING,
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{LINES}": "symbol_words",
    r" ?[^(\s|.,!?…。，、।۔،)]+": "phrases",
    r" ?[^(\s|[.,!?…。，、।۔،])]+": "phrases",
    r"\s?\p{L}+": "letters",
    rf"\s?[{CASED_LETTERS}]+": "cased_letters",
    r"\s?\p{P}+": "signs",
    "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+": "listed_signs",
    "[一-龥\u3040-ゟ゠-ヿ]+": "kana_or_han",
    ASIAN: "east_of_arabic",
    r"\p{N}": "number",
    r"\p{N}{1,3}": "numbers_3",
    r"\p{N}+": "numbers",
    "[0-9][0-9][0-9]": "three_digits",
    "[\r\n]": "newline",
    r"[\r\n]": "newline",
    r"\s+$": "white_space_at_end",
}
