/* SPDX-License-Identifier: Apache-2.0
 * bpe_scores.c: BPE by a vocabulary with scores. Two neighbours merge when their text together is a piece, the piece of the
 * highest score first: its rank is its place in that order. (Kudo, Richardson 2018, arXiv:1808.06226.)
 *
 * A table of all pairs would hold about four of them for each piece, and take longer to make than all else in loading; most are
 * never met. So a pair is looked up by its text among the pieces. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

slm_status slm_bpe_load_scores(const double *scores, slm_bpe *bpe, slm_error *error) {
    const slm_vocabulary *v = bpe->vocabulary;
    scored *order = slm_alloc_array((size_t)v->size, sizeof *order);
    bpe->ranks = slm_alloc_array((size_t)v->size, sizeof *bpe->ranks);
    slm_status status = order && bpe->ranks ? SLM_OK : slm_fail_memory(error);
    size_t n = 0;
    bool sorted = true; /* as most files are written */
    for (int32_t id = 0; id < v->size && !status; id++) {
        if (isnan(scores[id])) status = slm_fail(error, SLM_BAD_DATA, id, "scores[%d]: expected a number, found NaN", (int)id);
        bpe->ranks[id] = SLM_NO_MERGE;
        if (v->tokens[id].spelling != SLM_SPELLING_BYTES) continue;
        order[n++] = (scored){.score = scores[id], .id = id};
        sorted = sorted && (n == 1 || best_first(&order[n - 2], &order[n - 1]) < 0);
    }
    if (!status && !sorted) qsort(order, n, sizeof *order, best_first);
    if (!status) status = slm_bpe_allocate(bpe, n, error);
    for (size_t rank = 0; rank < n && !status; rank++) {
        bpe->results[rank] = order[rank].id;
        bpe->ranks[order[rank].id] = (uint32_t)rank;
    }
    slm_free(order);
    return status;
}

/* Different pairs of one text share its rank, so that the leftmost pair goes first, whatever its parts. */
uint32_t slm_bpe_rank_by_text(const slm_bpe *bpe, int32_t left, int32_t right) {
    const slm_vocabulary *v = bpe->vocabulary;
    if (bpe->ranks[left] == SLM_NO_MERGE || bpe->ranks[right] == SLM_NO_MERGE) return SLM_NO_MERGE;
    uint8_t joined[2 * SLM_PIECE_MAX];
    size_t n_left, n_right;
    const uint8_t *left_bytes = slm_vocabulary_bytes(v, left, &n_left);
    const uint8_t *right_bytes = slm_vocabulary_bytes(v, right, &n_right);
    if (n_left + n_right > v->longest) return SLM_NO_MERGE;
    memcpy(joined, left_bytes, n_left);
    memcpy(joined + n_left, right_bytes, n_right);
    int32_t result = slm_vocabulary_find(v, SLM_SPELLING_BYTES, joined, n_left + n_right);
    return result < 0 ? SLM_NO_MERGE : bpe->ranks[result];
}
