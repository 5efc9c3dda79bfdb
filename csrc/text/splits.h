/* SPDX-License-Identifier: Apache-2.0
 * splits.h: what each split of slm_split matches. For pretokenize.c. */
#ifndef SLM_TEXT_SPLITS_H
#define SLM_TEXT_SPLITS_H

#include "slm.h"

/* Code points first to last. */
typedef struct slm_code_points {
    uint32_t first, last;
} slm_code_points;

typedef enum slm_split_keep { SLM_SPLIT_KEEP_ALL, SLM_SPLIT_KEEP_MATCHES, SLM_SPLIT_KEEP_GAPS } slm_split_keep;

typedef struct slm_split_rule slm_split_rule;

typedef struct slm_split_match {
    size_t gap, size; /* a match of `size` bytes behind `gap` others; size 0: none begins in the first `gap` bytes, gap >= 1 */
} slm_split_match;

/* scan: finds the first match in a text of size >= 1 bytes. The text ends where it ends; nothing around it is looked at. */
struct slm_split_rule {
    slm_split_match (*scan)(const slm_split_rule *rule, const uint8_t *text, size_t size);
    slm_split_keep keep; /* what becomes a piece */

    unsigned flags; /* of run: the characters of any of these flags, */
    const slm_code_points *ranges;
    int n_ranges;                        /* and of these ranges; */
    bool complement;                     /* or all others; */
    bool bytes;                          /* a byte is a character; */
    unsigned longest;                    /* of run, and of the numbers of line_word: at most so many characters; 0: no limit */
    bool after_space, after_white_space; /* of run: takes a space, or any white space, in front of it */

    bool contractions, contractions_at_end, marks_are_letters, cased_words, slashes_at_end, bare_symbols; /* of line_word */
};

extern const slm_split_rule slm_split_rules[]; /* [slm_split], but for SLM_SPLIT_SPACE_WORDS */

#endif
