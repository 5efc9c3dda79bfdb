/* SPDX-License-Identifier: Apache-2.0
 * bpe_table.h: which pairs merge, for the files bpe*.c only. */
#ifndef SLM_TEXT_BPE_TABLE_H
#define SLM_TEXT_BPE_TABLE_H

#include "text/bpe.h"

#define SLM_NO_MERGE UINT32_MAX

/* Longer runs of occupied slots do not occur by chance in a table at most half full: a file that makes one is refused. */
enum { SLM_MERGE_LONGEST_PROBE = 1024 };

static inline size_t slm_merge_hash(int32_t left, int32_t right) {
    uint64_t hash = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 32) * 0xD6E8FEB86659FD93u;
    return (size_t)(hash >> 24);
}

/* The slot that holds the pair, or the empty one where it belongs; NULL: neither within the longest probe. */
static inline slm_merge *slm_merge_slot(const slm_bpe *bpe, int32_t left, int32_t right) {
    size_t hash = slm_merge_hash(left, right);
    for (size_t i = 0; i < SLM_MERGE_LONGEST_PROBE; i++) {
        slm_merge *slot = &bpe->merges[(hash + i) & bpe->merge_mask];
        if (slot->left < 0 || (slot->left == left && slot->right == right)) return slot;
    }
    return NULL;
}

/* Room for the results of n_merges merges of bpe->vocabulary, which is set. */
slm_status slm_bpe_allocate(slm_bpe *bpe, size_t n_merges, slm_error *error);

/* The ranks of pieces that follow from their scores, [vocabulary size]. SLM_BAD_DATA: error.index is the piece. */
slm_status slm_bpe_load_scores(const double *scores, slm_bpe *bpe, slm_error *error);

/* slm_bpe_rank where there are ranks of pieces. */
uint32_t slm_bpe_rank_by_text(const slm_bpe *bpe, int32_t left, int32_t right);

/* The rank of the pair's merge, or SLM_NO_MERGE. */
static inline uint32_t slm_bpe_rank(const slm_bpe *bpe, int32_t left, int32_t right) {
    if (bpe->ranks) return slm_bpe_rank_by_text(bpe, left, right);
    const slm_merge *slot = slm_merge_slot(bpe, left, right);
    return slot ? slot->rank : SLM_NO_MERGE;
}

/* ids: [*count] in, merged in place; *count out: how many are left. In O(n log n), for words of any length. */
slm_status slm_bpe_merge_long(const slm_bpe *bpe, slm_bpe_scratch *scratch, int32_t *ids, size_t *count, slm_clock *clock,
                              slm_error *error);

#endif
