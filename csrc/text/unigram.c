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

/* A piece: the last on the best way to where the node stands, or, once the way is known, the one that begins there. A word of
 * many megabytes costs the memory that its nodes walk through, so the scores are not among them. */
typedef struct slm_unigram_node {
    int32_t id; /* -1: a character that is none; UNREACHED */
    uint32_t length;
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
    slm_status status = build_trie(v, u, error);
    u->window = 1;
    while (u->window <= u->longest) u->window *= 2;
    return status;
}

void slm_unigram_destroy(slm_unigram *u) {
    slm_trie_destroy(&u->trie);
    slm_free(u->scores);
    *u = (slm_unigram){0};
}

void slm_unigram_scratch_free(slm_unigram_scratch *scratch) {
    slm_free(scratch->nodes);
    slm_free(scratch->scores);
    *scratch = (slm_unigram_scratch){0};
}

static slm_status reserve(const slm_unigram *u, slm_unigram_scratch *scratch, size_t count, slm_error *error) {
    if (count > scratch->capacity) {
        /* Nothing in it is needed any more, so growing need not copy. */
        slm_free(scratch->nodes);
        size_t capacity = 2 * scratch->capacity;
        if (capacity < count) capacity = count;
        if (capacity < SMALLEST) capacity = SMALLEST;
        scratch->nodes = slm_alloc_array(capacity, sizeof *scratch->nodes);
        scratch->capacity = scratch->nodes ? capacity : 0;
    }
    if (!scratch->scores) scratch->scores = slm_alloc_array(u->window, sizeof *scratch->scores);
    return scratch->nodes && scratch->scores ? SLM_OK : slm_fail_memory(error);
}

static bool cancelled(slm_clock *clock, size_t *steps) {
    return ++*steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock);
}

static inline void offer(slm_unigram_node *node, double *best, double score, int32_t id, size_t length) {
    if (node->id != UNREACHED && score <= *best) return;
    *node = (slm_unigram_node){.id = id, .length = (uint32_t)length};
    *best = score;
}

/* Offers every piece that begins at `at`, and the character there if it is none. Returns the character's length. */
static size_t offer_pieces(const slm_unigram *u, const uint8_t *word, size_t size, size_t at, slm_unigram_node *nodes,
                           double *scores) {
    const size_t mask = u->window - 1;
    double here = scores[at & mask];
    size_t length = 1;
    bool is_piece = false;
    if (word[at] >= 0x80) slm_utf8_read(word + at, size - at, &length);
    uint32_t trie = 0;
    for (size_t end = at; end < size;) {
        trie = slm_trie_child(&u->trie, trie, word[end++]);
        if (trie == SLM_TRIE_NONE) break;
        int32_t id = u->trie.nodes[trie].value;
        if (id < 0) continue;
        offer(&nodes[end], &scores[end & mask], u->scores[id] + here, id, end - at);
        is_piece = is_piece || end - at == length;
    }
    const size_t end = at + length;
    if (!is_piece) offer(&nodes[end], &scores[end & mask], u->unk_score + here, u->unk, length);
    return length;
}

/* May the piece become byte tokens? */
static bool is_unknown(const slm_unigram *u, int32_t id) {
    return id < 0 || id == u->unk;
}

/* The best way to every node of the word, each as its last piece. */
static slm_status find_ways(const slm_unigram *u, const uint8_t *word, size_t size, slm_unigram_scratch *scratch,
                            slm_clock *clock, slm_error *error) {
    slm_unigram_node *nodes = scratch->nodes;
    size_t steps = 0, ready = 1;
    nodes[0] = (slm_unigram_node){.id = UNREACHED};
    scratch->scores[0] = 0;
    for (size_t at = 0; at < size;) {
        for (; ready <= size && ready <= at + u->longest; ready++) nodes[ready].id = UNREACHED;
        at += offer_pieces(u, word, size, at, nodes, scratch->scores);
        if (cancelled(clock, &steps)) return slm_fail_cancelled(error);
    }
    return SLM_OK;
}

/* Turns the way to the last node round: nodes on it say which piece begins there. *room: for as many tokens as it can make. */
static slm_status turn_round(const slm_unigram *u, size_t size, slm_unigram_node *nodes, size_t *room, slm_clock *clock,
                             slm_error *error) {
    size_t steps = 0;
    slm_unigram_node last = nodes[size];
    *room = 0;
    for (size_t at = size; at;) {
        at -= last.length;
        slm_unigram_node before = nodes[at];
        nodes[at] = last;
        *room += is_unknown(u, last.id) ? last.length : 1;
        last = before;
        if (cancelled(clock, &steps)) return slm_fail_cancelled(error);
    }
    return SLM_OK;
}

/* The token, the byte tokens, or the unk token of word [start, end), which the best way passes. There is room. */
static slm_status put(const slm_unigram *u, const uint8_t *word, size_t start, size_t end, int32_t id, size_t *steps,
                      slm_clock *clock, slm_tokens *tokens, slm_error *error) {
    bool bytes = is_unknown(u, id);
    if (bytes) { /* several characters that are no piece may be one together */
        int32_t whole = slm_vocabulary_find(u->vocabulary, SLM_SPELLING_BYTES, word + start, end - start);
        if (whole >= 0) id = whole;
        bytes = is_unknown(u, id);
    }
    for (size_t i = start; i < end && bytes; i++) {
        bytes = u->byte_ids[word[i]] >= 0;
        if (cancelled(clock, steps)) return slm_fail_cancelled(error);
    }
    if (bytes) {
        for (size_t i = start; i < end; i++) {
            slm_tokens_put(tokens, u->byte_ids[word[i]], start, end);
            if (cancelled(clock, steps)) return slm_fail_cancelled(error);
        }
    } else if (id >= 0) {
        slm_tokens_put(tokens, id, start, end);
    } else {
        tokens->dropped += end - start;
    }
    return SLM_OK;
}

slm_status slm_unigram_encode(const slm_unigram *u, const uint8_t *word, size_t size, slm_unigram_scratch *scratch,
                              slm_clock *clock, slm_tokens *tokens, slm_error *error) {
    size_t count = tokens->count, dropped = tokens->dropped, steps = 0, room = 0;
    slm_status status = reserve(u, scratch, size + 1, error);
    if (!status) status = find_ways(u, word, size, scratch, clock, error);
    const slm_unigram_node *nodes = scratch->nodes;
    if (!status) status = turn_round(u, size, scratch->nodes, &room, clock, error);
    if (!status) status = slm_tokens_reserve(tokens, room, error);
    for (size_t start = 0; start < size && !status;) {
        int32_t id = nodes[start].id;
        size_t end = start + nodes[start].length;
        while (id == u->unk && u->fuse_unk && end < size && nodes[end].id == u->unk && !status) {
            end += nodes[end].length;
            if (cancelled(clock, &steps)) status = slm_fail_cancelled(error);
        }
        if (!status && cancelled(clock, &steps)) status = slm_fail_cancelled(error);
        if (!status) status = put(u, word, start, end, id, &steps, clock, tokens, error);
        start = end;
    }
    if (status) {
        tokens->count = count;
        tokens->dropped = dropped;
    }
    return status;
}
