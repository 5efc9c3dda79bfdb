/* SPDX-License-Identifier: Apache-2.0
 * attention.h: grouped-query attention over pages of keys and values, causal or bidirectional.
 *
 * Positions fall into fixed segments of 256. Each segment gives (max, sum, out) of its own softmax, and segments are merged in
 * ascending order, so a query's result does not depend on which queries run with it or on how the work is split. */
#ifndef SLM_OPS_ATTENTION_H
#define SLM_OPS_ATTENTION_H

#include "base/threads.h"
#include "kernels/kernels.h"
#include "ops/kv_page.h"

enum {
    SLM_SEGMENT_POSITIONS = 256,
    SLM_ATTENTION_ROWS = 48,    /* queries that share one read of K and V */
    SLM_ATTENTION_PARTIALS = 40 /* per head, of one token; of n tokens a share each */
};

/* What single segments gave single heads, where a step of few tokens splits them over threads. n = PARTIALS * n_heads */
typedef struct slm_attention_partials {
    float *max, *sum; /* [n] */
    float *out;       /* [n, width] */
} slm_attention_partials;

typedef struct slm_attention {
    const slm_kv_shape *shape;
    int64_t layer;            /* whose pages are read */
    const slm_kv_span *spans; /* [n_spans] all tokens; the pages hold their keys and values */
    int64_t n_spans;
    int64_t n_heads;
    int64_t window;     /* a query sees so many positions, its own included; 0: all before it */
    bool bidirectional; /* a query sees all tokens of its span; then first_position and window are 0 */
    float soft_cap;     /* c: scores become c * tanh(score / c); 0: none */
    const float *q;     /* [n_tokens, ldq]: heads of head_dim, rotated, scaled, in bf16 where keys are */
    int64_t ldq;
    float *out; /* [n_tokens, ldo]: heads of head_dim */
    int64_t ldo;
    const slm_attention_partials *partials;
} slm_attention;

typedef struct slm_attention_scratch { /* of one thread */
    float *q;                          /* [ROWS, width] */
    float *scores;                     /* [ROWS, SEGMENT_POSITIONS] */
    float *segment;                    /* [ROWS, width] */
    float *out;                        /* [ROWS, width] */
} slm_attention_scratch;

/* All threads of the team call it, with the same spans; barriers before (K and V written) and after (out read). */
void slm_attention_run(const slm_kernels *kernels, slm_team *team, const slm_attention *attention,
                       const slm_attention_scratch *scratch);
/* The probabilities that such a run multiplies values with, but for rounding (one softmax over all positions), 0 for those that a
 * token does not see: weights[head * ld + token * n_keys + position]. One span. Called in the same way; q has been written. */
void slm_attention_weights(const slm_kernels *kernels, slm_team *team, const slm_attention *attention,
                           const slm_attention_scratch *scratch, float *weights, int64_t ld, int64_t n_keys);

#endif
