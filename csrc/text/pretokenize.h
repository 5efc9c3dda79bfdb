/* SPDX-License-Identifier: Apache-2.0
 * pretokenize.h: cuts text into the words inside which merging happens, by a list of splits. Scanners written by hand for the
 * regular expressions of slm_split: no backtracking, no recursion, time in proportion to the text for each split of the list. */
#ifndef SLM_TEXT_PRETOKENIZE_H
#define SLM_TEXT_PRETOKENIZE_H

#include "slm.h"

typedef struct slm_splits { /* each cuts the pieces of the one before; none: a text is one word */
    slm_split_step steps[SLM_MAX_SPLITS];
    int count;
} slm_splits;

/* What one split has left of the piece it was given: bytes [at, end) of the text. No match begins in [at, next); at `next` begins
 * one of `match` bytes or, if `part`, matches of so many characters each. */
typedef struct slm_words_level {
    size_t at, next, end, match; /* match 0: what comes from `next` on is not known */
    unsigned part;
} slm_words_level;

/* The words of a text, one after the other. */
typedef struct slm_words {
    const slm_splits *splits;
    const uint8_t *text;
    int depth; /* levels behind it have nothing left */
    slm_words_level levels[SLM_MAX_SPLITS];
} slm_words;

/* The text ends where it ends: what follows (an added token, say) is not looked at. Splits and text stay the caller's. */
void slm_words_start(slm_words *words, const slm_splits *splits, const uint8_t *text, size_t size);
/* Bytes [*start, *end) of the text, not empty. False: there are no more. */
bool slm_words_next(slm_words *words, size_t *start, size_t *end);

/* How many bytes of white space text begins with, and of anything else. */
size_t slm_pretokenize_white_space(const uint8_t *text, size_t size);
size_t slm_pretokenize_until_white_space(const uint8_t *text, size_t size);

#endif
