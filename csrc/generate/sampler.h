/* SPDX-License-Identifier: Apache-2.0
 * sampler.h: from logits to a token. The order is Transformers': temperature, top-k, top-p, min-p, typical-p, draw. */
#ifndef SLM_GENERATE_SAMPLER_H
#define SLM_GENERATE_SAMPLER_H

#include "model/model.h"

typedef struct slm_sampler {
    const slm_kernels *kernels;
    float temperature; /* 0: the largest logit, ties to the lowest id; nothing else is used then */
    int32_t top_k;     /* keeps the k largest logits and all equal to the k-th; 0, or more than there are: off */
    float top_p;       /* then keeps a token while those before it, in falling order, hold less than this mass; 1: off */
    float min_p;       /* then keeps what is at least this times as likely as the likeliest; 0: off */
    float typical_p;   /* then keeps a token while those whose information is nearer to the entropy hold less; 1: off */
    int64_t n;         /* logits, at most */
    float *weights;    /* [n, padded to 16] scratch */
    float *keys;       /* [n] scratch */
    int32_t *order;    /* [n] scratch */
} slm_sampler;

/* Checks and copies what it needs of the options. On failure there is nothing to release. */
slm_status slm_sampler_create(slm_sampler *sampler, const slm_kernels *kernels, const slm_generate_options *options, int64_t n,
                              slm_error *error);
void slm_sampler_release(slm_sampler *sampler);

/* logits: [n >= 1] finite or -infinity, which is never drawn, in the order of ids: those of all tokens, or of all that top_k
 * keeps. uniform: in [0, 1). Gives the index of one; -1 where all are -infinity. */
int64_t slm_sampler_draw(const slm_sampler *sampler, const float *logits, int64_t n, double uniform);

#endif
