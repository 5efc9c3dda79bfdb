/* SPDX-License-Identifier: Apache-2.0
 * wordpiece.h: the longest piece a word begins with, then the longest that goes on, and so on; where none does the whole word is
 * unknown. (Devlin et al. 2019, arXiv:1810.04805.) */
#ifndef SLM_TEXT_WORDPIECE_H
#define SLM_TEXT_WORDPIECE_H

#include "base/call.h"
#include "text/trie.h"
#include "text/vocabulary.h"

typedef struct slm_wordpiece {
    slm_trie begin, go_on; /* pieces that begin a word; those inside one, without their prefix */
    int32_t unk;
    int32_t max_length; /* characters */
} slm_wordpiece;

/* wordpiece: zeroed. */
slm_status slm_wordpiece_create(const slm_vocabulary *vocabulary, const slm_tokenizer_spec *spec, slm_wordpiece *wordpiece,
                                slm_error *error);
void slm_wordpiece_destroy(slm_wordpiece *wordpiece);

/* Appends the tokens of one word, 1 <= size < 2^31. On failure tokens is as before. */
slm_status slm_wordpiece_encode(const slm_wordpiece *wordpiece, const uint8_t *word, size_t size, slm_clock *clock,
                                slm_tokens *tokens, slm_error *error);

#endif
