/* SPDX-License-Identifier: Apache-2.0 */
#include "text/aligned.h"

#include "base/alloc.h"
#include "base/arith.h"
#include "base/status.h"

enum { SMALLEST = 256 };

void slm_aligned_free(slm_aligned *text) {
    slm_free(text->bytes);
    slm_free(text->origins);
    *text = (slm_aligned){0};
}

slm_status slm_aligned_reserve(slm_aligned *text, size_t extra, slm_error *error) {
    size_t needed;
    if (!slm_add_size(text->size, extra, &needed)) return slm_fail_memory(error);
    if (text->limit && needed > text->limit)
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "text: expected normalizers to make at most %zu bytes of it, found more",
                        text->limit);
    if (needed <= text->capacity) return SLM_OK;
    size_t capacity = text->capacity + text->capacity / 2;
    if (capacity < needed) capacity = needed;
    if (capacity < SMALLEST) capacity = SMALLEST;
    if (text->traced) {
        slm_span *origins = slm_realloc_array(text->origins, capacity, sizeof *origins);
        if (!origins) return slm_fail_memory(error);
        text->origins = origins;
    }
    uint8_t *bytes = slm_realloc_array(text->bytes, capacity, 1);
    if (!bytes) return slm_fail_memory(error);
    text->bytes = bytes;
    text->capacity = capacity;
    return SLM_OK;
}
