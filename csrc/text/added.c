/* SPDX-License-Identifier: Apache-2.0 */
#include "text/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"

enum { STEPS_PER_TICK = 1 << 16 };

static int by_bytes(const void *left, const void *right) {
    const slm_added_token *a = left, *b = right;
    int order = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

slm_status slm_added_create(const slm_vocabulary *v, slm_added *added, slm_error *error) {
    size_t count = 0;
    for (int32_t id = 0; id < v->size; id++) count += slm_token_is_added(slm_vocabulary_kind(v, id));
    added->tokens = slm_alloc_array(count, sizeof *added->tokens);
    if (!added->tokens) return slm_fail_memory(error);
    for (int32_t id = 0; id < v->size; id++) {
        size_t size;
        const uint8_t *bytes = slm_vocabulary_bytes(v, id, &size);
        if (!slm_token_is_added(slm_vocabulary_kind(v, id)) || size == 0) continue; /* empty text is nowhere to be found */
        added->tokens[added->count++] = (slm_added_token){
            .bytes = bytes, .size = (uint32_t)size, .id = id, .control = slm_vocabulary_kind(v, id) == SLM_TOKEN_CONTROL};
    }
    qsort(added->tokens, added->count, sizeof *added->tokens, by_bytes);
    for (size_t byte = 0, i = 0; byte <= 256; byte++) {
        while (i < added->count && added->tokens[i].bytes[0] < byte) i++;
        added->first[byte] = i;
    }
    return SLM_OK;
}

void slm_added_destroy(slm_added *added) {
    slm_free(added->tokens);
    *added = (slm_added){0};
}

/* The first of the tokens [low, high), all longer than depth and equal before it, whose byte at depth is at least `byte`. */
static size_t lower_bound(const slm_added *added, size_t low, size_t high, size_t depth, unsigned byte) {
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (added->tokens[middle].bytes[depth] < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static bool allowed(const slm_added_search *s, const slm_added_token *token) {
    if (!token->control) return true;
    if (!s->options->parse_special) return false;
    return s->next_guard == s->options->n_guards || s->options->guards[s->next_guard] >= s->at + token->size;
}

/* The longest allowed token at s->at: narrows the sorted tokens byte by byte. */
static const slm_added_token *longest_at(slm_added_search *s) {
    const slm_added *added = s->added;
    const slm_added_token *best = NULL;
    unsigned byte = s->text[s->at];
    size_t low = added->first[byte], high = added->first[byte + 1];
    for (size_t depth = 1; low < high; depth++) {
        s->steps++;
        const slm_added_token *shortest = &added->tokens[low];
        if (shortest->size == depth) {
            if (allowed(s, shortest)) best = shortest;
            low++;
        }
        if (s->at + depth == s->size) break;
        byte = s->text[s->at + depth];
        low = lower_bound(added, low, high, depth, byte);
        high = lower_bound(added, low, high, depth, byte + 1);
    }
    return best;
}

bool slm_added_next(slm_added_search *s, size_t *start, int32_t *id) {
    const size_t *first = s->added->first;
    if (s->added->count == 0) return false;
    for (; s->at < s->size; s->at++) {
        if (first[s->text[s->at]] == first[s->text[s->at] + 1]) continue;
        while (s->next_guard < s->options->n_guards && s->options->guards[s->next_guard] <= s->at) s->next_guard++;
        const slm_added_token *found = longest_at(s);
        if (s->steps >= STEPS_PER_TICK) {
            s->steps = 0;
            if (slm_clock_tick(s->clock)) return false;
        }
        if (!found) continue;
        *start = s->at;
        *id = found->id;
        s->at += found->size;
        return true;
    }
    return false;
}
