/* SPDX-License-Identifier: Apache-2.0
 * session.h: what the token loop needs to know of a session. */
#ifndef SLM_MODEL_SESSION_H
#define SLM_MODEL_SESSION_H

#include "base/call.h"
#include "model/model.h"
#include "ops/head.h"

/* Tokens that a session takes, and whose output is wanted. */
typedef struct slm_part {
    slm_session *session;
    const int32_t *tokens; /* [n_tokens] */
    int64_t n_tokens;
    int64_t n_outputs; /* of the last so many of them */
    int64_t n_drafts;  /* the last so many, but not all, may be taken back by slm_session_rewind and leave no trace */
} slm_part;

/* Runs the parts of n_parts > 0 different sessions of one model, together and in steps of as many tokens as the call says: the
 * columns of the same linears. output: [n_outputs of all parts, vocab_size, or with `hidden` hidden_size], in the order of parts;
 * or choices, as many, which are finished instead. All sessions go on by their tokens, or on failure none of them. *failed: the
 * part that an error is about; -1: all. */
slm_status slm_session_run(const slm_part *parts, int64_t n_parts, bool hidden, float *output, slm_choice *choices,
                           const slm_call *call, slm_clock *clock, int64_t *failed, slm_error *error);

/* The most bytes that keys and values of `n_positions` take. */
size_t slm_session_kv_most(const slm_model *model, int64_t n_positions);

#endif
