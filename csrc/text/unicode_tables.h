/* SPDX-License-Identifier: Apache-2.0
 * unicode_tables.h: what pre-tokenizers ask about a code point, one byte of flags each, from Unicode 16.0.0.
 * The tables are written by tools/make_unicode_tables.py. */
#ifndef SLM_TEXT_UNICODE_TABLES_H
#define SLM_TEXT_UNICODE_TABLES_H

#include <stdint.h>

enum slm_unicode_flag {
    SLM_UNICODE_LETTER = 1 << 0,      /* \p{L} */
    SLM_UNICODE_NUMBER = 1 << 1,      /* \p{N} */
    SLM_UNICODE_SPACE = 1 << 2,       /* \s: the property White_Space */
    SLM_UNICODE_MARK = 1 << 3,        /* \p{M} */
    SLM_UNICODE_PUNCTUATION = 1 << 4, /* \p{P} */
    SLM_UNICODE_SYMBOL = 1 << 5,      /* \p{S} */
    SLM_UNICODE_UPPER = 1 << 6,       /* \p{Lu} and \p{Lt}; a letter that is neither upper nor lower is \p{Lm} or \p{Lo} */
    SLM_UNICODE_LOWER = 1 << 7,       /* \p{Ll} */
};

extern const uint8_t slm_unicode_blocks[]; /* [0x110000 / 256] which block of flags */
extern const uint8_t slm_unicode_flags[];  /* [blocks, 256]; the first block is code points 0 to 255 */

/* code_point <= 0x10ffff. Unassigned code points have no flag. */
static inline uint8_t slm_unicode_class(uint32_t code_point) {
    return slm_unicode_flags[slm_unicode_blocks[code_point >> 8] << 8 | (code_point & 0xff)];
}

#endif
