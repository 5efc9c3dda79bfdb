/* SPDX-License-Identifier: Apache-2.0
 * buffers.h: growing the two results that callers own, slm_text and slm_tokens. */
#ifndef SLM_TEXT_BUFFERS_H
#define SLM_TEXT_BUFFERS_H

#include "slm.h"

/* Room for `extra` more elements. On failure nothing has changed. */
slm_status slm_text_reserve(slm_text *text, size_t extra, slm_error *error);
slm_status slm_tokens_reserve(slm_tokens *tokens, size_t extra, slm_error *error);

/* Appends one token, which is made of bytes [start, end) of a word; the room must be there. */
static inline void slm_tokens_put(slm_tokens *tokens, int32_t id, size_t start, size_t end) {
    if (tokens->with_spans) tokens->spans[tokens->count] = (slm_span){(uint32_t)start, (uint32_t)end};
    tokens->ids[tokens->count++] = id;
}

/* SLM_BAD_ARGUMENT: a text of `size` bytes cannot be addressed. */
slm_status slm_text_too_large(size_t size, slm_error *error);

#endif
