/* SPDX-License-Identifier: Apache-2.0
 * splits.h: what each split of slm_split matches. For pretokenize.c. */
#ifndef SLM_TEXT_SPLITS_H
#define SLM_TEXT_SPLITS_H

#include "slm.h"

/* Code points first to last. */
typedef struct slm_code_points {
    uint32_t first, last;
} slm_code_points;

typedef struct slm_split_rule slm_split_rule;

typedef struct slm_split_match { /* 16 bytes, which are returned in registers */
    uint64_t gap;                /* a match begins behind so many bytes; ... */
    uint64_t size : 48;          /* ... and has so many; 0: none begins in the first `gap` bytes, gap >= 1 */
    uint64_t part : 16;          /* 0, or these are matches of so many characters each, the last of at most so many */
} slm_split_match;

/* scan: finds the first match in a text of size >= 1 bytes. The text ends where it ends; nothing around it is looked at. */
struct slm_split_rule {
    slm_split_match (*scan)(const slm_split_rule *rule, const uint8_t *text, size_t size);

    unsigned flags; /* of run: the characters of any of these flags, */
    const slm_code_points *ranges;
    const uint8_t *classes;              /* [n_ranges] of class_run: which class has the range; from 1 */
    int n_ranges;                        /* and of these ranges; */
    bool complement;                     /* or all others; */
    bool bytes;                          /* a byte is a character; */
    unsigned longest;                    /* of run, and of the numbers of line_word: at most so many characters; 0: no limit */
    const char *before, *behind;         /* of enclosed_run: what stands around it */
    bool after_space, after_white_space; /* of run: takes a space, or any white space, in front of it */

    bool contractions, contractions_at_end, marks_are_letters, cased_words, han_apart, phrases; /* of line_word */
    bool slashes_at_end, one_line_end, bare_symbols, space_blocks; /* of line_word; bare_symbols also of symbol_word */
    bool bounded;                                                  /* of digit_groups: no letter or the like comes next */
};

extern const slm_split_rule slm_split_rules[]; /* [slm_split], but for SLM_SPLIT_SPACE_WORDS */

#endif
