/* SPDX-License-Identifier: Apache-2.0
 * penalties.h: what is added to logits and taken from them for the sake of the caller's wishes and of the text so far, before a
 * token is drawn. The order is Transformers': bias, repetition penalty, (presence and frequency penalty,) no-repeat n-grams. */
#ifndef SLM_GENERATE_PENALTIES_H
#define SLM_GENERATE_PENALTIES_H

#include "slm.h"

/* Logits to draw from, in the order of ids. */
typedef struct slm_candidates {
    float *logits;      /* [n] */
    const int32_t *ids; /* [n] ascending; NULL: 0 .. n - 1 */
    int64_t n;
} slm_candidates;

typedef struct slm_penalties {
    const slm_generate_options *options; /* borrowed */
    int32_t *counts;                     /* [vocab_size] zeros: of tokens in the window, while they are counted */
} slm_penalties;

/* Do these options change logits? */
bool slm_penalties_wanted(const slm_generate_options *options);
/* Checks. On failure there is nothing to release. */
slm_status slm_penalties_create(slm_penalties *penalties, const slm_generate_options *options, int64_t vocab_size,
                                slm_error *error);
void slm_penalties_release(slm_penalties *penalties); /* zeroed is fine */

/* Behind tokens [n_tokens]. A logit that may not be drawn becomes -infinity. */
void slm_penalties_apply(const slm_penalties *penalties, const int32_t *tokens, int64_t n_tokens,
                         const slm_candidates *candidates);

#endif
