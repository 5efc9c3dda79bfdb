/* SPDX-License-Identifier: Apache-2.0
 * added.h: finds added tokens in text, before anything else is cut. Of the tokens that begin first the longest wins, as in
 * Hugging Face's tokenizers. Control tokens exist only where the caller lets them: where they do not, their text is text. */
#ifndef SLM_TEXT_ADDED_H
#define SLM_TEXT_ADDED_H

#include "base/call.h"
#include "text/vocabulary.h"

typedef struct slm_added_token {
    const uint8_t *bytes; /* [size], in the vocabulary */
    uint32_t size;
    int32_t id;
    bool control;
} slm_added_token;

typedef struct slm_added {
    slm_added_token *tokens; /* [count], sorted by bytes */
    size_t count;
    size_t first[257]; /* tokens that begin with byte b: first[b] to first[b + 1] - 1 */
} slm_added;

/* added: zeroed. The vocabulary must outlive it. */
slm_status slm_added_create(const slm_vocabulary *vocabulary, slm_added *added, slm_error *error);
void slm_added_destroy(slm_added *added);

/* One walk over a text. Set the first five fields, the others to zero. */
typedef struct slm_added_search {
    const slm_added *added;
    const uint8_t *text; /* [size] */
    size_t size;
    const slm_encode_options *options; /* parse_special, guards */
    slm_clock *clock;
    size_t at;         /* where to go on; behind the match once one is found */
    size_t next_guard; /* index of the first guard behind the position looked at */
    size_t steps;      /* since the clock was last asked */
} slm_added_search;

/* The next added token from search->at on: text [*start, search->at) is token *id. false: there is none, or search->clock says
 * cancelled. */
bool slm_added_next(slm_added_search *search, size_t *start, int32_t *id);

#endif
