# SPDX-License-Identifier: Apache-2.0
"""Regular expressions by which published tokenizer.json files cut text into words -> the splits of csrc/slm.h.

Only what slm does exactly is here, with the ends of lines escaped.
"""

from collections.abc import Mapping

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def plain_words(numbers: str, white_space: str = LINES) -> str:
    return rf"[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{numbers}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{white_space}"


def line_words(numbers: str, white_space: str = LINES) -> str:
    return f"{CONTRACTION}|{plain_words(numbers, white_space)}"


def cased_words(contraction: str, numbers: str, behind_signs: str = r"[\r\n/]*", but: str = "") -> str:
    upper, lower = (f"{letters[:-1]}{but}]" for letters in (UPPER, LOWER))
    word = rf"[^\r\n\p{{L}}\p{{N}}]?{upper}"
    return (
        rf"{word}*{lower}+{contraction}|{word}+{lower}*{contraction}|{numbers}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+{behind_signs}|{LINES}"
    )


MARKS = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{LINES}"

BARE = rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{LINES}"
POSSESSIVE = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|" + plain_words(r"\p{N}{1,3}", r"\s*[\r\n]|\s+(?!\S)|\s")
BLOCKS = r"\s*[\r\n]+|" + "".join(rf"\s{{{size}}}(?!\S)|" for size in (512, 256, 128, 64, 32, 16, 8, 4, "1,2")) + r"\s{1}"
LINE_PHRASES = (
    rf"{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"
)

# The letters of alphabets with case that DeepSeek LLM lists. Those that NFC would replace are escaped.
CASED_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ"
    "-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰"
    "-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"
EAST_ASIAN = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-\u303f︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u3040-ゟ゠-ヿ]+"
UNSPACED_SCRIPTS = (
    r"(?:[\u4E00-\u9FFF\u3040-\u309F\u30A0-\u30FF\u3400-\u4DBF\uf900-\uFAFF\uFF65-\uFF9F\u2F00-\u2FDF]+|[\u0E00-\u0E7F]+"
    r"|[\u0E80-\u0EFF]+|[\u1780-\u17FF]+|[\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF]+|[\uAC00-\uD7AF\u1100-\u11FF]+)"
)
SYMBOL_WORDS = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+"
)

PATTERNS: Mapping[str, str] = {
    GPT2: "gpt2_words",
    line_words(r"\p{N}"): "line_words_1",
    line_words(r"\p{N}{1,3}"): "line_words_3",
    line_words(r"\p{N}+"): "line_words",
    line_words(r"\p{N}{1,3}", BLOCKS): "line_words_blocks",
    plain_words(r"\p{N}"): "line_words_plain",
    CL100K: "line_words_3",
    LINE_PHRASES: "line_phrases",
    MARKS: "line_words_marks",
    BARE: "line_words_bare",
    POSSESSIVE: "line_words_1",
    cased_words("", r"\p{N}"): "cased_words_1",
    cased_words(rf"{CONTRACTION}?", r"\p{N}{1,3}"): "cased_words_3",
    cased_words(rf"{CONTRACTION}?", r"\p{N}"): "cased_words_tailed",
    r"[\p{Han}]+|" + cased_words(rf"{CONTRACTION}?", r"\p{N}{1,3}", r"[\r\n]*", r"&&[^\p{Han}]"): "han_or_cased_words",
    r"[^\n]+|[\n]+": "lines",
    rf"{SYMBOL_WORDS}[\r\n]*|{LINES}": "symbol_words",
    rf"{SYMBOL_WORDS}|[\r\n]|\s+(?!\S)|\s+": "symbol_words_bare",
    r" ?[^(\s|.,!?…。，、।۔،)]+": "phrases",
    r" ?[^(\s|[.,!?…。，、।۔،])]+": "phrases",
    r"\s?\p{L}+": "letters",
    rf"\s?[{CASED_LETTERS}]+": "cased_letters",
    r"\s?\p{P}+": "signs",
    "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+": "listed_signs",
    "[一-龥\u3040-ゟ゠-ヿ]+": "kana_or_han",
    ASIAN: "east_of_arabic",
    EAST_ASIAN: "east_asian",
    UNSPACED_SCRIPTS: "unspaced_scripts",
    r"\p{N}": "number",
    r"\p{N}{1,3}": "numbers_3",
    r"\p{N}+": "numbers",
    "[0-9][0-9][0-9]": "three_digits",
    r"\d{1,3}(?=(?:\d{3})*\b)": "bounded_groups",
    r"(?=(\d{3})+(?!\d))": "before_groups",
    r"([\t\n]|    |  )": "indents",
    "<sentinel:[0-9]+>": "sentinels",
    "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z": "image_codes",
    r"[\r\n]": "newline",
    r"\s+": "white_space",
    r"\s+$": "white_space_at_end",
}

# What tokenizer.json files make of several steps, where slm has one: first 510 digits at a time, lest the look-ahead of the
# second grow too long, then a head of one or two digits, then threes.
SEQUENCES: Mapping[tuple[str, ...], str] = {
    (
        r"\p{Nd}{1,510}(?=(?>\p{Nd}{510})*(?:\P{Nd}|$))|\G\p{Nd}{510}",
        r"\A\p{Nd}{1,2}(?=\p{Nd}{3}+\z)",
        r"\A\p{Nd}{3}|\G\p{Nd}{3}",
    ): "digit_groups",
}
