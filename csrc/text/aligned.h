/* SPDX-License-Identifier: Apache-2.0
 * aligned.h: text on its way through the stages of a tokenizer, which remembers where its bytes came from. */
#ifndef SLM_TEXT_ALIGNED_H
#define SLM_TEXT_ALIGNED_H

#include <string.h>

#include "slm.h"

/* Zero it first; slm_aligned_free frees. */
typedef struct slm_aligned {
    uint8_t *bytes; /* [size] */
    size_t size, capacity;
    slm_span *origins; /* [size] of which characters of the caller's text each byte is made; NULL: nobody asked */
    bool traced;       /* set it before the first byte */
    size_t limit;      /* bytes that it may hold; 0: no limit */
} slm_aligned;

void slm_aligned_free(slm_aligned *text);
/* Room for `extra` more bytes; SLM_BAD_ARGUMENT: that is beyond the limit. On failure nothing has changed. */
slm_status slm_aligned_reserve(slm_aligned *text, size_t extra, slm_error *error);

/* The room must be there. */
static inline void slm_aligned_put(slm_aligned *text, const void *bytes, size_t size, slm_span origin) {
    memcpy(text->bytes + text->size, bytes, size);
    for (size_t i = 0; text->origins && i < size; i++) text->origins[text->size + i] = origin;
    text->size += size;
}

/* Copies a part of `from`; the room must be there. */
static inline void slm_aligned_copy(slm_aligned *text, const slm_aligned *from, size_t start, size_t size) {
    if (!size) return;
    memcpy(text->bytes + text->size, from->bytes + start, size);
    if (text->origins) memcpy(text->origins + text->size, from->origins + start, size * sizeof *text->origins);
    text->size += size;
}

static inline slm_span slm_aligned_origin(const slm_aligned *text, size_t at) {
    return text->origins ? text->origins[at] : (slm_span){0};
}

#endif
