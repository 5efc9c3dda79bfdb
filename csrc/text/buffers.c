/* SPDX-License-Identifier: Apache-2.0 */
#include "text/buffers.h"

#include "base/alloc.h"
#include "base/arith.h"
#include "base/status.h"

enum { SMALLEST = 64 };

/* Grows by half, so that appending n elements costs O(n). */
static bool grow(void **elements, size_t *capacity, size_t count, size_t extra, size_t element_size) {
    size_t needed;
    if (!slm_add_size(count, extra, &needed)) return false;
    if (needed <= *capacity && *elements) return true;
    size_t wanted = *capacity + *capacity / 2;
    if (wanted < needed) wanted = needed;
    if (wanted < SMALLEST) wanted = SMALLEST;
    void *grown = slm_realloc_array(*elements, wanted, element_size);
    if (!grown) return false;
    *elements = grown;
    *capacity = wanted;
    return true;
}

slm_status slm_text_reserve(slm_text *text, size_t extra, slm_error *error) {
    void *bytes = text->bytes;
    if (!grow(&bytes, &text->capacity, text->size, extra, 1)) return slm_fail_memory(error);
    text->bytes = bytes;
    return SLM_OK;
}

slm_status slm_tokens_reserve(slm_tokens *tokens, size_t extra, slm_error *error) {
    void *ids = tokens->ids, *spans = tokens->spans;
    size_t capacity = tokens->capacity;
    if (tokens->with_spans && !grow(&spans, &capacity, tokens->count, extra, sizeof(slm_span))) return slm_fail_memory(error);
    tokens->spans = spans;
    if (!grow(&ids, &tokens->capacity, tokens->count, extra, sizeof(int32_t))) return slm_fail_memory(error);
    tokens->ids = ids;
    return SLM_OK;
}

slm_status slm_text_too_large(size_t size, slm_error *error) {
    return slm_fail(error, SLM_BAD_ARGUMENT, -1, "text: expected fewer than 2^31 bytes, found %zu", size);
}

void slm_tokens_free(slm_tokens *tokens) {
    slm_free(tokens->ids);
    slm_free(tokens->spans);
    *tokens = (slm_tokens){0};
}

void slm_text_free(slm_text *text) {
    slm_free(text->bytes);
    *text = (slm_text){0};
}
