/* SPDX-License-Identifier: Apache-2.0
 * logprob.h: what logits say as log-probabilities: the same bits on every tier. */
#ifndef SLM_GENERATE_LOGPROB_H
#define SLM_GENERATE_LOGPROB_H

#include "model/model.h"

/* What a row of logits comes down to: ln p = logit - most - total. */
typedef struct slm_row {
    float most;   /* the largest */
    int32_t best; /* its index, the lowest of several */
    double total; /* ln of the sum of exp(logit - most) */
} slm_row;

slm_row slm_row_reduce(const slm_kernels *kernels, const float *logits, int64_t n);
/* The k largest of n logits of that row, falling, ties to the lower index; id -1 where fewer are above -infinity. ids: [n],
 * or NULL: indices. */
void slm_row_likeliest(const slm_row *row, const float *logits, const int32_t *ids, int64_t n, int64_t k, slm_logprob *out);

#endif
