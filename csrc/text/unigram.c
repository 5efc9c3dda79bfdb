/* SPDX-License-Identifier: Apache-2.0 */
#include "text/unigram.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "text/buffers.h"
#include "text/utf8.h"

enum { SMALLEST = 256, STEPS_PER_TICK = 1 << 14, LONGEST_CHARACTER = 4, UNREACHED = -2 };

/* How much less than the worst piece a character that is none is worth. */
static const double UNK_PENALTY = 10.0;

/* The best way found to where the node stands. */
typedef struct slm_unigram_node {
    double score;
    int32_t id; /* of its last piece; -1: a character that is none; UNREACHED */
    uint32_t start;
    int32_t next_id; /* on the best way through the word: the piece that begins here, and its end */
    uint32_t next;
} slm_unigram_node;

/* Byte tokens are found by their name, too: "<0x0A>" in a text is that token. */
static slm_status build_trie(const slm_vocabulary *v, slm_unigram *u, slm_error *error) {
    enum { NAME = 6 };
    u->longest = LONGEST_CHARACTER;
    slm_trie_key *keys = slm_alloc_array((size_t)v->size, sizeof *keys);
    char *names = slm_alloc_array((size_t)v->size, NAME + 1);
    size_t count = 0;
    slm_status status = keys && names ? SLM_OK : slm_fail_memory(error);
    for (int32_t id = 0; id < v->size && !status; id++) {
        size_t size;
        const uint8_t *bytes = slm_vocabulary_bytes(v, id, &size);
        slm_spelling spelling = (slm_spelling)v->tokens[id].spelling;
        if (spelling == SLM_SPELLING_PLAIN || size == 0) continue;
        if (spelling == SLM_SPELLING_BYTE) {
            char *name = names + (size_t)id * (NAME + 1);
            snprintf(name, NAME + 1, "<0x%02X>", (unsigned)bytes[0]);
            bytes = (const uint8_t *)name;
            size = NAME;
        }
        keys[count++] = (slm_trie_key){.bytes = bytes, .size = (uint32_t)size, .value = id};
        if (size > u->longest) u->longest = size;
    }
    if (!status) status = slm_trie_create(keys, count, &u->trie, error);
    slm_free(names);
    slm_free(keys);
    return status;
}

slm_status slm_unigram_create(const slm_vocabulary *v, const slm_tokenizer_spec *spec, slm_unigram *u, slm_error *error) {
    if (!spec->scores) return slm_fail(error, SLM_BAD_DATA, -1, "scores: expected one for each piece, found none");
    u->vocabulary = v;
    u->unk = spec->unk;
    u->fuse_unk = spec->fuse_unk;
    u->scores = slm_alloc_array((size_t)v->size, sizeof *u->scores);
    if (!u->scores) return slm_fail_memory(error);
    double least = INFINITY;
    for (int32_t id = 0; id < v->size; id++) {
        if (!isfinite(spec->scores[id]))
            return slm_fail(error, SLM_BAD_DATA, id, "scores[%d]: expected a number, found %g", (int)id, spec->scores[id]);
        u->scores[id] = spec->scores[id];
        if (u->scores[id] < least) least = u->scores[id];
    }
    u->unk_score = least - UNK_PENALTY;
    for (int byte = 0; byte < 256; byte++) {
        uint8_t text = (uint8_t)byte;
        u->byte_ids[byte] = spec->byte_fallback ? slm_vocabulary_find(v, SLM_SPELLING_BYTE, &text, 1) : -1;
    }
    return build_trie(v, u, error);
}

void slm_unigram_destroy(slm_unigram *u) {
    slm_trie_destroy(&u->trie);
    slm_free(u->scores);
    *u = (slm_unigram){0};
}

void slm_unigram_scratch_free(slm_unigram_scratch *scratch) {
    slm_free(scratch->nodes);
    *scratch = (slm_unigram_scratch){0};
}

static slm_status reserve(slm_unigram_scratch *scratch, size_t count, slm_error *error) {
    if (count <= scratch->capacity) return SLM_OK;
    size_t capacity = scratch->capacity ? scratch->capacity : SMALLEST;
    while (capacity < count) capacity *= 2;
    slm_free(scratch->nodes);
    scratch->nodes = slm_alloc_array(capacity, sizeof *scratch->nodes);
    scratch->capacity = scratch->nodes ? capacity : 0;
    return scratch->nodes ? SLM_OK : slm_fail_memory(error);
}

static inline void offer(slm_unigram_node *node, double score, int32_t id, size_t start) {
    if (node->id == UNREACHED || score > node->score)
        *node = (slm_unigram_node){.score = score, .id = id, .start = (uint32_t)start};
}

/* Offers every piece that begins at `at`, and the character there if it is none. Returns the character's length. */
static size_t offer_pieces(const slm_unigram *u, const uint8_t *word, size_t size, size_t at, slm_unigram_node *nodes) {
    double here = nodes[at].score;
    size_t length = 1;
    bool is_piece = false;
    if (word[at] >= 0x80) slm_utf8_read(word + at, size - at, &length);
    uint32_t trie = 0;
    for (size_t end = at; end < size;) {
        trie = slm_trie_child(&u->trie, trie, word[end++]);
        if (trie == SLM_TRIE_NONE) break;
        int32_t id = u->trie.nodes[trie].value;
        if (id < 0) continue;
        offer(&nodes[end], u->scores[id] + here, id, at);
        is_piece = is_piece || end - at == length;
    }
    if (!is_piece) offer(&nodes[at + length], u->unk_score + here, u->unk, at);
    return length;
}

/* The token, the byte tokens, or the unk token of word [start, end), which the best way passes. */
static slm_status put(const slm_unigram *u, const uint8_t *word, size_t start, size_t end, int32_t id, slm_tokens *tokens,
                      slm_error *error) {
    slm_status status = slm_tokens_reserve(tokens, end - start, error);
    if (status) return status;
    if (id < 0 || id == u->unk) { /* several characters that are no piece may be one together */
        int32_t whole = slm_vocabulary_find(u->vocabulary, SLM_SPELLING_BYTES, word + start, end - start);
        if (whole >= 0) id = whole;
    }
    bool bytes = id < 0 || id == u->unk;
    for (size_t i = start; i < end; i++) bytes = bytes && u->byte_ids[word[i]] >= 0;
    if (bytes) {
        for (size_t i = start; i < end; i++) slm_tokens_put(tokens, u->byte_ids[word[i]], start, end);
    } else if (id >= 0) {
        slm_tokens_put(tokens, id, start, end);
    } else {
        tokens->dropped += end - start;
    }
    return SLM_OK;
}

slm_status slm_unigram_encode(const slm_unigram *u, const uint8_t *word, size_t size, slm_unigram_scratch *scratch,
                              slm_clock *clock, slm_tokens *tokens, slm_error *error) {
    slm_status status = reserve(scratch, size + 1, error);
    if (status) return status;
    slm_unigram_node *nodes = scratch->nodes;
    nodes[0] = (slm_unigram_node){.id = UNREACHED};
    size_t count = tokens->count, dropped = tokens->dropped, steps = 0, ready = 1;
    for (size_t at = 0; at < size;) {
        for (; ready <= size && ready <= at + u->longest; ready++) nodes[ready].id = UNREACHED;
        at += offer_pieces(u, word, size, at, nodes);
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
    }
    for (size_t end = size; end; end = nodes[end].start) {
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        nodes[nodes[end].start].next_id = nodes[end].id;
        nodes[nodes[end].start].next = (uint32_t)end;
    }
    for (size_t start = 0; start < size && !status;) {
        size_t end = nodes[start].next;
        int32_t id = nodes[start].next_id;
        if (id == u->unk && u->fuse_unk)
            while (end < size && nodes[end].next_id == u->unk) end = nodes[end].next;
        status = put(u, word, start, end, id, tokens, error);
        start = end;
        if (!status && ++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) status = slm_fail_cancelled(error);
    }
    if (status) {
        tokens->count = count;
        tokens->dropped = dropped;
    }
    return status;
}
