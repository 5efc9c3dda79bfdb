/* SPDX-License-Identifier: Apache-2.0
 * unicode_tables.h: what tokenizers ask about a code point. Classes are from Unicode 16.0.0; how text is normalized, and BERT's
 * own classes, are as Hugging Face's tokenizers 0.23 has them, whose tables are older.
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
    SLM_UNICODE_WORD = 1 << 8,        /* \w */

    SLM_UNICODE_BERT_PUNCTUATION = 1 << 9,
    SLM_UNICODE_BERT_CONTROL = 1 << 10, /* left out of clean text */
    SLM_UNICODE_BERT_MARK = 1 << 11,    /* \p{Mn} */
    SLM_UNICODE_ACCENT = 1 << 12,       /* \p{M} */

    SLM_UNICODE_DECOMPOSES = 1 << 13, /* in NFKD, perhaps also in NFD */
    SLM_UNICODE_LOWERCASES = 1 << 14, /* differs from its lower case */
    SLM_UNICODE_COMBINES = 1 << 15,   /* has a combining class, or composes with what is before it */

    SLM_UNICODE_EXTENDS = 1 << 16,  /* goes with the character before it: Grapheme_Cluster_Break Extend, ZWJ, SpacingMark */
    SLM_UNICODE_PREPENDS = 1 << 17, /* and behind it: Prepend */
    SLM_UNICODE_BREAKS = 1 << 18,   /* with neither: Control, CR, LF */

    SLM_UNICODE_DIGIT = 1 << 19,   /* \p{Nd} */
    SLM_UNICODE_HAN = 1 << 20,     /* \p{Han} */
    SLM_UNICODE_BOUNDED = 1 << 21, /* \w of Oniguruma, whose edges are \b: without joiners, with the numbers of Latin 1 */
};

extern const uint8_t slm_unicode_blocks[]; /* [0x110000 / 256] which block of flags */
extern const uint32_t slm_unicode_flags[]; /* [blocks, 256]; the first block is code points 0 to 255 */

/* code_point <= 0x10ffff. */
static inline uint32_t slm_unicode_class(uint32_t code_point) {
    return slm_unicode_flags[(uint32_t)slm_unicode_blocks[code_point >> 8] << 8 | (code_point & 0xff)];
}

/* from[i] becomes to[starts[i]] .. to[starts[i + 1] - 1]. */
typedef struct slm_unicode_mapping {
    const uint32_t *from; /* [count], ascending */
    const uint16_t *starts;
    const uint32_t *to;
    int count;
} slm_unicode_mapping;

/* Whole decompositions; compatible: where NFKD differs from NFD. Hangul syllables are in none. */
extern const slm_unicode_mapping slm_unicode_canonical, slm_unicode_compatible, slm_unicode_lowercase;

typedef struct slm_unicode_class_range {
    uint32_t first, last;
    uint8_t class;
} slm_unicode_class_range;
extern const slm_unicode_class_range slm_unicode_classes[]; /* canonical combining classes but 0, ascending */
extern const int slm_unicode_n_classes;

typedef struct slm_unicode_pair {
    uint32_t first, second, composed;
} slm_unicode_pair;
extern const slm_unicode_pair slm_unicode_pairs[]; /* canonical compositions, ascending */
extern const int slm_unicode_n_pairs;

#endif
