/* SPDX-License-Identifier: Apache-2.0
 * decoder.h: one step of a transformer decoder. */
#ifndef SLM_MODEL_DECODER_H
#define SLM_MODEL_DECODER_H

#include "model/workspace.h"
#include "ops/head.h"

typedef struct slm_step {
    const slm_model *model;
    slm_workspace *workspace;
    const int32_t *tokens; /* [n_tokens], all below vocab_size */
    int64_t n_tokens;
    const slm_kv_span *spans; /* [n_spans] where all tokens stand, in their order; pages are there and our own to write */
    int64_t n_spans;
    const int64_t *outputs; /* [n_outputs] tokens whose output is wanted, ascending */
    int64_t n_outputs;
    bool hidden;         /* hidden states instead of logits */
    float *output;       /* [n_outputs, vocab_size or hidden_size] */
    slm_choice *choices; /* [n_outputs], finished instead of output; or NULL */
    const slm_tap *taps; /* [n_taps] of slm_call; with some, all tokens run through all layers and the final norm */
    size_t n_taps;
    int64_t first_token; /* of this step among those of the call, of n_call_tokens: where captured rows go */
    int64_t n_call_tokens;
    slm_clock *clock;   /* whom edits are asked of */
    atomic_bool finite; /* set it first; false afterwards: an element of output, one of choices, or what a token without output
                           leaves in the cache, is NaN or infinite */
} slm_step;

/* A region body: every thread of the team runs it. Cancelled, it leaves output and the step's pages unusable. */
void slm_decoder_step(slm_step *step, slm_team *team);
/* The same for what a step does behind its last layer, with rows [n_tokens, hidden_size] of the stream; all are outputs. */
void slm_decoder_unembed(slm_step *step, const float *rows, slm_team *team);
/* After the step: are a token's residual stream (before the last layer, if its output was not wanted) and its keys and values of
 * the last layer finite? */
bool slm_step_is_finite(const slm_step *step, int64_t token);

#endif
