/* SPDX-License-Identifier: Apache-2.0
 * pretokenize.h: cuts text into the words inside which merging happens. Scanners written by hand for the regular expressions
 * that the rules of slm_pretokenizer stand for: one pass, no backtracking, no recursion. */
#ifndef SLM_TEXT_PRETOKENIZE_H
#define SLM_TEXT_PRETOKENIZE_H

#include "slm.h"

/* Bytes of the first word of text, 1 <= result <= size. size >= 1. The text ends where it ends: what follows (an added token,
 * say) is not looked at. Reads at most one character beyond the word, except for runs of white space. */
size_t slm_pretokenize_word(const slm_pretokenizer *rules, const uint8_t *text, size_t size);

/* How many bytes of white space text begins with, and of anything else. */
size_t slm_pretokenize_white_space(const uint8_t *text, size_t size);
size_t slm_pretokenize_until_white_space(const uint8_t *text, size_t size);

#endif
