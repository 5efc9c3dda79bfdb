# SPDX-License-Identifier: Apache-2.0
"""Writes csrc/text/unicode_tables.c: for every code point the classes that pre-tokenizers ask about, as one byte of flags.

    pip install unicodedata2==16.0.0        # not needed on a Python whose unicodedata is of that version
    python tools/make_unicode_tables.py

The version is pinned because ids depend on it: 16.0.0 is what the regular expressions of Hugging Face's `tokenizers` 0.21 to
0.23 use. Its digit splitter uses a newer one, which adds 13 digits; text in them splits differently.
"""

from pathlib import Path

try:
    import unicodedata2 as unicodedata
except ImportError:
    import unicodedata

UNICODE_VERSION = "16.0.0"
TARGET = Path(__file__).parent.parent / "csrc" / "text" / "unicode_tables.c"
BLOCK = 256
PER_LINE = 32

# The order of the bits is that of enum slm_unicode_flag in unicode_tables.h.
LETTER, NUMBER, SPACE, MARK, PUNCTUATION, SYMBOL, UPPER, LOWER = (1 << bit for bit in range(8))
MAJOR = {"L": LETTER, "N": NUMBER, "M": MARK, "P": PUNCTUATION, "S": SYMBOL}
CASE = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER}
# White_Space of PropList.txt outside the categories Zs, Zl and Zp: the controls that regular expressions count as \s.
SPACE_CONTROLS = {0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85}


def flags(code_point: int) -> int:
    category = unicodedata.category(chr(code_point))
    space = SPACE if category[0] == "Z" or code_point in SPACE_CONTROLS else 0
    return MAJOR.get(category[0], 0) | CASE.get(category, 0) | space


def rows(values: bytes) -> str:
    lines = (values[i : i + PER_LINE] for i in range(0, len(values), PER_LINE))
    return "\n".join("    " + " ".join(f"{value}," for value in line) for line in lines)


def main() -> None:
    if unicodedata.unidata_version != UNICODE_VERSION:
        found = unicodedata.unidata_version
        raise SystemExit(f"expected Unicode {UNICODE_VERSION}, found {found}: install unicodedata2=={UNICODE_VERSION}")
    numbers: dict[bytes, int] = {}
    index = bytearray()
    for start in range(0, 0x110000, BLOCK):
        block = bytes(flags(code_point) for code_point in range(start, start + BLOCK))
        index.append(numbers.setdefault(block, len(numbers)))
    TARGET.write_text(
        f"""/* SPDX-License-Identifier: Apache-2.0
 * Written by tools/make_unicode_tables.py from Unicode {UNICODE_VERSION}: do not edit. */
#include "text/unicode_tables.h"

/* clang-format off */
const uint8_t slm_unicode_blocks[{len(index)}] = {{
{rows(bytes(index))}
}};

const uint8_t slm_unicode_flags[{len(numbers) * BLOCK}] = {{
{rows(b"".join(numbers))}
}};
/* clang-format on */
"""
    )


if __name__ == "__main__":
    main()
