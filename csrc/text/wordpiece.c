/* SPDX-License-Identifier: Apache-2.0 */
#include "text/wordpiece.h"

#include "base/alloc.h"
#include "base/status.h"
#include "text/buffers.h"
#include "text/utf8.h"

enum { STEPS_PER_TICK = 1 << 18 };

static slm_status build(const slm_vocabulary *v, slm_spelling spelling, slm_trie *trie, slm_error *error) {
    slm_trie_key *keys = slm_alloc_array((size_t)v->size, sizeof *keys);
    if (!keys) return slm_fail_memory(error);
    size_t count = 0;
    for (int32_t id = 0; id < v->size; id++) {
        size_t size;
        const uint8_t *bytes = slm_vocabulary_bytes(v, id, &size);
        if (v->tokens[id].spelling == spelling && size)
            keys[count++] = (slm_trie_key){.bytes = bytes, .size = (uint32_t)size, .value = id};
    }
    slm_status status = slm_trie_create(keys, count, trie, error);
    slm_free(keys);
    return status;
}

slm_status slm_wordpiece_create(const slm_vocabulary *v, const slm_tokenizer_spec *spec, slm_wordpiece *w, slm_error *error) {
    if (spec->unk < 0) return slm_fail(error, SLM_BAD_DATA, -1, "unk: WordPiece needs one, found none");
    if (spec->max_word_length < 1)
        return slm_fail(error, SLM_BAD_DATA, -1, "max_word_length: expected at least 1, found %d", (int)spec->max_word_length);
    w->unk = spec->unk;
    w->max_length = spec->max_word_length;
    slm_status status = build(v, SLM_SPELLING_BYTES, &w->begin, error);
    return status ? status : build(v, SLM_SPELLING_CONTINUING, &w->go_on, error);
}

void slm_wordpiece_destroy(slm_wordpiece *w) {
    slm_trie_destroy(&w->begin);
    slm_trie_destroy(&w->go_on);
}

static bool is_too_long(const slm_wordpiece *w, const uint8_t *word, size_t size, slm_clock *clock) {
    if (size <= (size_t)w->max_length) return false;
    int32_t characters = 0;
    size_t length;
    for (size_t at = 0; at < size; at += length) {
        slm_utf8_read(word + at, size - at, &length);
        if (++characters > w->max_length) return true;
        if (characters % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return true;
    }
    return false;
}

slm_status slm_wordpiece_encode(const slm_wordpiece *w, const uint8_t *word, size_t size, slm_clock *clock, slm_tokens *tokens,
                                slm_error *error) {
    bool unknown = is_too_long(w, word, size, clock);
    if (clock->cancelled) return slm_fail_cancelled(error);
    slm_status status = slm_tokens_reserve(tokens, unknown ? 1 : size, error);
    if (status) return status;
    size_t count = tokens->count, steps = 0;
    for (size_t start = 0; start < size && !unknown;) {
        const slm_trie *trie = start ? &w->go_on : &w->begin;
        size_t longest = 0;
        int32_t id = -1;
        uint32_t node = 0;
        for (size_t at = start; at < size;) {
            if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) {
                tokens->count = count;
                return slm_fail_cancelled(error);
            }
            node = slm_trie_child(trie, node, word[at++]);
            if (node == SLM_TRIE_NONE) break;
            if (trie->nodes[node].value < 0) continue;
            id = trie->nodes[node].value;
            longest = at;
        }
        if (id < 0) {
            unknown = true;
        } else {
            slm_tokens_put(tokens, id, start, longest);
            start = longest;
        }
    }
    if (unknown) {
        tokens->count = count;
        slm_tokens_put(tokens, w->unk, 0, size);
    }
    return SLM_OK;
}
