/* SPDX-License-Identifier: Apache-2.0
 * bpe_load.c: from published merges, pairs of pieces as text, to a table of ids. */
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "text/bpe_table.h"

slm_status slm_bpe_allocate(slm_bpe *bpe, size_t n_merges, slm_error *error) {
    if (n_merges >= SLM_NO_MERGE / 4)
        return slm_fail(error, SLM_BAD_DATA, -1, "merges: expected fewer than 2^30 of them, found %zu", n_merges);
    bpe->n_merges = n_merges;
    bpe->results = slm_alloc_array(n_merges, sizeof *bpe->results);
    bpe->reachable = slm_alloc_array((size_t)bpe->vocabulary->size, sizeof *bpe->reachable);
    if (!bpe->results || !bpe->reachable) return slm_fail_memory(error);
    for (int32_t id = 0; id < bpe->vocabulary->size; id++) atomic_init(&bpe->reachable[id], 0);
    return SLM_OK;
}

/* All slots empty. */
static slm_status allocate_table(slm_bpe *bpe, slm_error *error) {
    size_t n_slots = 16;
    while (n_slots < 2 * bpe->n_merges) n_slots *= 2;
    bpe->merge_mask = n_slots - 1;
    bpe->merges = slm_alloc_array(n_slots, sizeof *bpe->merges);
    if (!bpe->merges) return slm_fail_memory(error);
    for (size_t i = 0; i < n_slots; i++) bpe->merges[i] = (slm_merge){.left = -1, .right = -1, .rank = SLM_NO_MERGE};
    return SLM_OK;
}

/* A piece as published and, where it is of the byte alphabet, the bytes it stands for. */
typedef struct part {
    const char *what;
    const uint8_t *piece, *bytes; /* [size], [n_bytes] */
    size_t size, n_bytes;
    bool is_bytes;
} part;

/* Nearly all are spelled in the byte alphabet: that look-up comes first. */
static slm_status find_part(const slm_bpe *bpe, size_t i, const part *p, int32_t *id, slm_error *error) {
    *id = p->is_bytes ? slm_vocabulary_find(bpe->vocabulary, SLM_SPELLING_BYTES, p->bytes, p->n_bytes) : -1;
    if (*id < 0) *id = slm_vocabulary_find(bpe->vocabulary, SLM_SPELLING_PLAIN, p->piece, p->size);
    if (*id < 0) return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "merges[%zu]: its %s is not among the pieces", i, p->what);
    if (slm_vocabulary_kind(bpe->vocabulary, *id) == SLM_TOKEN_CONTROL)
        return slm_fail(error, SLM_BAD_DATA, (int64_t)i,
                        "merges[%zu]: its %s is pieces[%d], a control token, which text must not become", i, p->what, (int)*id);
    return SLM_OK;
}

static slm_status add_merge(slm_bpe *bpe, size_t i, const uint8_t *text, uint64_t size, slm_error *error) {
    uint8_t piece[SLM_PIECE_MAX], bytes[SLM_PIECE_MAX];
    if (size > SLM_PIECE_MAX + 1)
        return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "merges[%zu]: expected at most %d bytes, found %llu", i,
                        SLM_PIECE_MAX + 1, (unsigned long long)size);
    const uint8_t *space = size ? memchr(text, ' ', (size_t)size) : NULL;
    size_t n_left = space ? (size_t)(space - text) : 0, n_right = space ? (size_t)size - n_left - 1 : 0;
    if (n_left == 0 || n_right == 0 || memchr(space + 1, ' ', n_right))
        return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "merges[%zu]: expected two pieces with one space between them", i);
    memcpy(piece, text, n_left);
    memcpy(piece + n_left, space + 1, n_right);

    part l = {.what = "left part", .piece = piece, .bytes = bytes, .size = n_left};
    l.is_bytes = slm_vocabulary_decode_piece(bpe->vocabulary, l.piece, l.size, bytes, &l.n_bytes);
    part r = {.what = "right part", .piece = piece + n_left, .bytes = bytes + l.n_bytes, .size = n_right};
    r.is_bytes = slm_vocabulary_decode_piece(bpe->vocabulary, r.piece, r.size, bytes + l.n_bytes, &r.n_bytes);
    part both = {.what = "result",
                 .piece = piece,
                 .bytes = bytes,
                 .size = n_left + n_right,
                 .n_bytes = l.n_bytes + r.n_bytes,
                 .is_bytes = l.is_bytes && r.is_bytes};
    int32_t left, right, result;
    slm_status status = find_part(bpe, i, &l, &left, error);
    if (!status) status = find_part(bpe, i, &r, &right, error);
    if (!status) status = find_part(bpe, i, &both, &result, error);
    if (status) return status;
    slm_merge *slot = slm_merge_slot(bpe, left, right);
    if (!slot)
        return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "merges[%zu]: is one of %d or more with colliding hashes", i,
                        SLM_MERGE_LONGEST_PROBE);
    if (slot->left >= 0)
        return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "merges[%zu]: is the same as merges[%u]", i, (unsigned)slot->rank);
    *slot = (slm_merge){.left = left, .right = right, .rank = (uint32_t)i};
    bpe->results[i] = result;
    return SLM_OK;
}

/* Does some piece hold a space behind another character? */
static bool a_piece_crosses_words(const slm_vocabulary *v) {
    for (int32_t id = 0; id < v->size; id++) {
        size_t size;
        const uint8_t *bytes = slm_vocabulary_bytes(v, id, &size);
        if (v->tokens[id].spelling != SLM_SPELLING_BYTES) continue;
        for (size_t i = 1; i < size; i++)
            if (bytes[i] == ' ' && bytes[i - 1] != ' ') return true;
    }
    return false;
}

static void find_bytes(const slm_tokenizer_spec *spec, slm_bpe *bpe) {
    slm_spelling spelling = bpe->by_characters ? SLM_SPELLING_BYTE : SLM_SPELLING_BYTES;
    for (int byte = 0; byte < 256; byte++) {
        uint8_t text = (uint8_t)byte;
        bool wanted = !bpe->by_characters || spec->byte_fallback;
        bpe->byte_ids[byte] = wanted ? slm_vocabulary_find(bpe->vocabulary, spelling, &text, 1) : -1;
        bpe->character_ids[byte] = byte < 0x80 ? slm_vocabulary_find(bpe->vocabulary, SLM_SPELLING_BYTES, &text, 1) : -1;
    }
}

slm_status slm_bpe_create(const slm_vocabulary *vocabulary, const slm_tokenizer_spec *spec, slm_bpe *bpe, slm_error *error) {
    bpe->vocabulary = vocabulary;
    bpe->by_characters = spec->model == SLM_TOKENIZER_BPE;
    bpe->whole_text = bpe->by_characters && a_piece_crosses_words(vocabulary);
    bpe->ignore_merges = spec->ignore_merges;
    bpe->unk = spec->unk;
    bpe->fuse_unk = spec->fuse_unk;
    find_bytes(spec, bpe);
    if (spec->scores) return slm_bpe_load_scores(spec->scores, bpe, error);
    const slm_strings *merges = &spec->merges;
    slm_status status = slm_bpe_allocate(bpe, merges->count, error);
    if (!status) status = allocate_table(bpe, error);
    for (size_t i = 0; i < merges->count && !status; i++) {
        const uint64_t *offset = merges->offsets + i;
        status = add_merge(bpe, i, (const uint8_t *)merges->bytes + offset[0], offset[1] - offset[0], error);
    }
    return status;
}

void slm_bpe_destroy(slm_bpe *bpe) {
    slm_free(bpe->reachable);
    slm_free(bpe->results);
    slm_free(bpe->ranks);
    slm_free(bpe->merges);
    *bpe = (slm_bpe){0};
}
