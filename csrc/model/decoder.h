/* SPDX-License-Identifier: Apache-2.0
 * decoder.h: one step of a transformer decoder. */
#ifndef SLM_MODEL_DECODER_H
#define SLM_MODEL_DECODER_H

#include "model/workspace.h"

typedef struct slm_step {
    const slm_model *model;
    slm_workspace *workspace;
    slm_kv_cache *cache;   /* reserved up to first_position + n_tokens */
    const int32_t *tokens; /* [n_tokens], all below vocab_size */
    int64_t n_tokens, first_position;
    int64_t n_outputs; /* of the last so many tokens; 0: none */
    bool hidden;       /* hidden states instead of logits */
    float *output;     /* [n_outputs, vocab_size or hidden_size] */
    atomic_bool
        finite; /* set it first; false afterwards: an element of output, or a hidden state without one, is NaN or infinite */
} slm_step;

/* A region body: every thread of the team runs it. Cancelled, it leaves output and the step's pages unusable. */
void slm_decoder_step(slm_step *step, slm_team *team);

#endif
