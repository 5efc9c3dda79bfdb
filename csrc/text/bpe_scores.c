/* SPDX-License-Identifier: Apache-2.0
 * bpe_scores.c: from a vocabulary with scores to the same table of merges. Two neighbours merge when their text together is a
 * piece, the piece of the highest score first: its rank is its place in that order. (Kudo, Richardson 2018, arXiv:1808.06226.) */
#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/status.h"
#include "text/bpe_table.h"

typedef struct scored {
    double score;
    int32_t id;
} scored;

static int best_first(const void *left, const void *right) {
    const scored *a = left, *b = right;
    if (a->score != b->score) return a->score > b->score ? -1 : 1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Splits of a piece into two pieces. At most one per byte: what is stored is bounded by the bytes of the vocabulary. */
typedef struct splits {
    slm_merge *merges;
    size_t count, capacity;
} splits;

static slm_status add_splits(const slm_vocabulary *v, int32_t id, uint32_t rank, splits *found, slm_error *error) {
    size_t size;
    const uint8_t *bytes = slm_vocabulary_bytes(v, id, &size);
    for (size_t cut = 1; cut < size; cut++) {
        if ((bytes[cut] & 0xC0) == 0x80) continue;
        /* Beginnings of pieces are mostly pieces, ends are not. */
        int32_t right = slm_vocabulary_find(v, SLM_SPELLING_BYTES, bytes + cut, size - cut);
        if (right < 0) continue;
        int32_t left = slm_vocabulary_find(v, SLM_SPELLING_BYTES, bytes, cut);
        if (left < 0) continue;
        if (found->count == found->capacity) {
            size_t capacity = found->capacity ? 2 * found->capacity : 1024;
            slm_merge *grown = slm_realloc_array(found->merges, capacity, sizeof *grown);
            if (!grown) return slm_fail_memory(error);
            found->merges = grown;
            found->capacity = capacity;
        }
        found->merges[found->count++] = (slm_merge){.left = left, .right = right, .rank = rank};
    }
    return SLM_OK;
}

/* Different splits of one piece share its rank, so that the leftmost pair goes first, whatever its parts. */
static slm_status fill_table(slm_bpe *bpe, const splits *found, slm_error *error) {
    for (size_t i = 0; i < found->count; i++) {
        slm_merge *slot = slm_merge_slot(bpe, found->merges[i].left, found->merges[i].right);
        if (!slot)
            return slm_fail(error, SLM_BAD_DATA, bpe->results[found->merges[i].rank],
                            "pieces[%d]: is one of %d or more with colliding hashes", (int)bpe->results[found->merges[i].rank],
                            SLM_MERGE_LONGEST_PROBE);
        *slot = found->merges[i];
    }
    return SLM_OK;
}

slm_status slm_bpe_load_scores(const double *scores, slm_bpe *bpe, slm_error *error) {
    const slm_vocabulary *v = bpe->vocabulary;
    slm_status status = SLM_OK;
    scored *order = slm_alloc_array((size_t)v->size, sizeof *order);
    if (!order) return slm_fail_memory(error);
    size_t n = 0;
    for (int32_t id = 0; id < v->size && !status; id++) {
        if (isnan(scores[id])) status = slm_fail(error, SLM_BAD_DATA, id, "scores[%d]: expected a number, found NaN", (int)id);
        if (v->tokens[id].spelling == SLM_SPELLING_BYTES) order[n++] = (scored){.score = scores[id], .id = id};
    }
    splits found = {0};
    bool sorted = true; /* as most files are written */
    for (size_t i = 1; i < n && sorted; i++) sorted = best_first(&order[i - 1], &order[i]) < 0;
    if (!status && !sorted) qsort(order, n, sizeof *order, best_first);
    for (size_t i = 0; i < n && !status; i++) status = add_splits(v, order[i].id, (uint32_t)i, &found, error);
    if (!status) status = slm_bpe_allocate(bpe, found.count > n ? found.count : n, error);
    if (!status) {
        for (size_t i = 0; i < n; i++) bpe->results[i] = order[i].id;
        status = fill_table(bpe, &found, error);
    }
    slm_free(found.merges);
    slm_free(order);
    return status;
}
