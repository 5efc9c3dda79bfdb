/* SPDX-License-Identifier: Apache-2.0
 * session.h: what the token loop needs to know of a session. */
#ifndef SLM_MODEL_SESSION_H
#define SLM_MODEL_SESSION_H

#include "base/call.h"
#include "model/model.h"
#include "ops/head.h"

/* slm_session_forward under a clock that the caller has started. choice: NULL, or what SLM_LOGITS_LAST finishes instead of
 * output.
 */
slm_status slm_session_run(slm_session *session, const int32_t *tokens, int64_t n_tokens, slm_output which, float *output,
                           slm_choice *choice, const slm_call *call, slm_clock *clock, slm_error *error);

#endif
