/* SPDX-License-Identifier: Apache-2.0
 * workspace.h: the activations of one step of up to max_tokens tokens. Rows are padded to 16 elements with zeros. */
#ifndef SLM_MODEL_WORKSPACE_H
#define SLM_MODEL_WORKSPACE_H

#include "model/model.h"
#include "ops/attention.h"
#include "ops/head.h"
#include "ops/linear.h"

/* The residual stream of tokens, and what blocks and linears read of it. */
typedef struct slm_stream {
    float *hidden;   /* [n_tokens, hidden_ld] */
    float *normed;   /* [n_tokens, hidden_ld] */
    float *delta;    /* [hidden_ld] of a single token, to be scaled or normalised */
    float *queries;  /* [q_ld] of a single token, as scores take them */
    float *rope;     /* [n_tokens, n_rope_tables, rotary_dim / 2, 2] cosines and sines */
    float *rounded;  /* [n_tokens, widest ld] */
    slm_codes codes; /* room for [n_tokens, widest k] */
    float *low;      /* [n_tokens, low_ld of the model] what addends make of an input */
} slm_stream;

typedef struct slm_workspace {
    int64_t max_tokens; /* 0: nothing allocated */
    int threads;
    int64_t hidden_ld, q_ld, kv_ld, inner_ld; /* widths rounded up to 16 */
    slm_stream *streams;                      /* [threads] room for max_tokens in the first one, for one token in the others */
    float *q;                                 /* [max_tokens, q_ld] */
    float *k, *v;                             /* [max_tokens, kv_ld] */
    float *attended;                          /* [max_tokens, q_ld] */
    float *product;                           /* [max_tokens, inner_ld] what down_proj reads, */
    slm_codes product_codes;                  /* or room for [max_tokens, inner_ld] of it, quantized */
    float *delta;                             /* [max_tokens, hidden_ld] what a block adds to the stream */
    int32_t *tokens;                          /* room for [max_tokens] */
    slm_kv_span *spans;                       /* room for [max_tokens] */
    slm_kv_span *output_spans;                /* [n_output_spans], room for [max_tokens] */
    int64_t n_output_spans;
    int64_t *outputs;                 /* room for [max_tokens] */
    float *limits;                    /* [slm_head_limits] where the output layer is screened; else NULL */
    slm_linear_scratch *linear;       /* [threads] */
    slm_attention_scratch *attention; /* [threads] */
    slm_attention_partials partials;
    void **blocks; /* what to free */
    int n_blocks;
    size_t bytes; /* of all blocks */
} slm_workspace;

/* On failure the workspace is empty. */
slm_status slm_workspace_create(slm_workspace *workspace, const slm_model *model, int64_t max_tokens, int threads,
                                slm_error *error);
/* The bytes that such a workspace takes. */
slm_status slm_workspace_measure(const slm_model *model, int64_t max_tokens, int threads, size_t *bytes, slm_error *error);
void slm_workspace_release(slm_workspace *workspace);

#endif
