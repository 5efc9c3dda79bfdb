/* SPDX-License-Identifier: Apache-2.0 */
#include "text/added.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

enum { STEPS_PER_TICK = 1 << 16 };

static int by_bytes(const void *left, const void *right) {
    const slm_added_token *a = left, *b = right;
    int order = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

/* Replaces what tokens look for by what normalizers make of it. */
static slm_status normalize_tokens(const slm_normalizers *normalizers, slm_added *added, slm_error *error) {
    slm_aligned all = {0}, text = {0}, spare = {0};
    slm_clock clock;
    slm_clock_start(&clock, NULL);
    slm_status status = SLM_OK;
    for (size_t i = 0; i < added->count && !status; i++) {
        slm_added_token *token = &added->tokens[i];
        text.size = text.limit = 0;
        status = slm_aligned_reserve(&text, token->size, error);
        if (status) break;
        slm_aligned_put(&text, token->bytes, token->size, (slm_span){0});
        status = slm_normalize(normalizers, &text, &spare, &clock, error);
        if (!status && text.size > SLM_PIECE_MAX)
            status = slm_fail(error, SLM_BAD_DATA, token->id, "pieces[%d]: expected at most %d bytes once normalized, found %zu",
                              (int)token->id, SLM_PIECE_MAX, text.size);
        if (!status) status = slm_aligned_reserve(&all, text.size, error);
        if (status) break;
        token->size = (uint32_t)text.size;
        slm_aligned_copy(&all, &text, 0, text.size);
    }
    size_t at = 0, kept = 0;
    for (size_t i = 0; i < added->count && !status; i++) {
        slm_added_token token = added->tokens[i];
        token.bytes = all.bytes + at;
        at += token.size;
        if (token.size) added->tokens[kept++] = token;
    }
    if (!status) added->count = kept;
    added->bytes = all.bytes;
    slm_aligned_free(&text);
    slm_aligned_free(&spare);
    return status;
}

slm_status slm_added_create(const slm_vocabulary *v, const uint8_t *flags, const slm_normalizers *normalizers, bool normalized,
                            slm_added *added, slm_error *error) {
    size_t count = 0;
    for (int32_t id = 0; id < v->size; id++) count += slm_token_is_added(slm_vocabulary_kind(v, id));
    added->tokens = slm_alloc_array(count, sizeof *added->tokens);
    if (!added->tokens) return slm_fail_memory(error);
    for (int32_t id = 0; id < v->size; id++) {
        size_t size;
        const uint8_t *bytes = slm_vocabulary_bytes(v, id, &size);
        slm_token_kind kind = slm_vocabulary_kind(v, id);
        if (!slm_token_is_added(kind) || size == 0) continue; /* empty text is nowhere to be found */
        uint8_t flag = flags ? flags[id] : 0;
        if (((flag & SLM_TOKEN_NORMALIZED) != 0) != normalized) continue;
        added->tokens[added->count++] = (slm_added_token){
            .bytes = bytes, .size = (uint32_t)size, .id = id, .special = slm_token_is_special(kind), .flags = flag};
    }
    slm_status status = normalized ? normalize_tokens(normalizers, added, error) : SLM_OK;
    if (status) return status;
    qsort(added->tokens, added->count, sizeof *added->tokens, by_bytes);
    for (size_t byte = 0, i = 0; byte <= 256; byte++) {
        while (i < added->count && added->tokens[i].bytes[0] < byte) i++;
        added->first[byte] = i;
    }
    return SLM_OK;
}

void slm_added_destroy(slm_added *added) {
    slm_free(added->tokens);
    slm_free(added->bytes);
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
    if (!token->special) return true;
    if (!s->options->parse_special) return false;
    return s->next_guard == s->options->n_guards || s->options->guards[s->next_guard] >= s->base + s->at + token->size;
}

/* The longest allowed token at s->at: narrows the sorted tokens byte by byte. */
static bool cancelled(slm_added_search *s) {
    if (s->steps < STEPS_PER_TICK) return s->clock->cancelled;
    s->steps = 0;
    return slm_clock_tick(s->clock);
}

static const slm_added_token *longest_at(slm_added_search *s) {
    const slm_added *added = s->added;
    const slm_added_token *best = NULL;
    unsigned byte = s->text[s->at];
    size_t low = added->first[byte], high = added->first[byte + 1];
    for (size_t depth = 1; low < high; depth++) {
        s->steps++;
        for (; low < high && added->tokens[low].size == depth; low++)
            if (allowed(s, &added->tokens[low])) best = &added->tokens[low];
        if (s->at + depth == s->size) break;
        byte = s->text[s->at + depth];
        low = lower_bound(added, low, high, depth, byte);
        high = lower_bound(added, low, high, depth, byte + 1);
    }
    return best;
}

/* The start of the last character before `end`; end > 0. */
static size_t character_before(const uint8_t *text, size_t end) {
    size_t at = end - 1;
    while (at > 0 && end - at < 4 && (text[at] & 0xC0) == 0x80) at--;
    return at;
}

static bool is_class(const slm_added_search *s, size_t at, uint32_t flag, size_t *length) {
    return slm_unicode_class(slm_utf8_read(s->text + at, s->size - at, length)) & flag;
}

static bool is_single_word(const slm_added_search *s, const slm_added_token *token) {
    size_t end = s->at + token->size, length;
    if (s->at && is_class(s, character_before(s->text, s->at), SLM_UNICODE_WORD, &length)) return false;
    return end == s->size || !is_class(s, end, SLM_UNICODE_WORD, &length);
}

/* With the white space around it that the token takes along, as far as it belongs to no other. */
static slm_added_match widen(slm_added_search *s, const slm_added_token *token) {
    slm_added_match match = {.start = s->at, .end = s->at + token->size, .id = token->id};
    size_t length;
    if (token->flags & SLM_TOKEN_LSTRIP) {
        while (match.start > s->done) {
            size_t before = character_before(s->text, match.start);
            if (!is_class(s, before, SLM_UNICODE_SPACE, &length)) break;
            match.start = before;
            s->steps++;
            if (cancelled(s)) return match;
        }
    }
    if (token->flags & SLM_TOKEN_RSTRIP) {
        size_t start = match.end;
        if (start >= s->space_start && start < s->space_end) match.end = s->space_end;
        while (match.end < s->size && is_class(s, match.end, SLM_UNICODE_SPACE, &length)) {
            match.end += length;
            s->steps++;
            if (cancelled(s)) return match;
        }
        s->space_start = start;
        s->space_end = match.end;
    }
    return match;
}

bool slm_added_next(slm_added_search *s, slm_added_match *match) {
    const size_t *first = s->added->first;
    if (s->added->count == 0) return false;
    while (s->at < s->size) {
        if (first[s->text[s->at]] == first[s->text[s->at] + 1]) {
            s->at++;
            s->steps++;
            if (cancelled(s)) return false;
            continue;
        }
        while (s->next_guard < s->options->n_guards && s->options->guards[s->next_guard] <= s->base + s->at) s->next_guard++;
        const slm_added_token *found = longest_at(s);
        if (cancelled(s)) return false;
        if (!found) {
            s->at++;
            continue;
        }
        bool counts = !(found->flags & SLM_TOKEN_SINGLE_WORD) || is_single_word(s, found);
        if (counts) *match = widen(s, found);
        if (s->clock->cancelled) return false;
        s->at += found->size;
        if (!counts) continue;
        s->done = match->end;
        return true;
    }
    return false;
}
