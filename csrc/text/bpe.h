/* SPDX-License-Identifier: Apache-2.0
 * bpe.h: byte pair encoding of one word: as long as some neighbours have a merge, the pair of the lowest rank becomes one token,
 * the leftmost first. (Sennrich, Haddow, Birch 2016, arXiv:1508.07909; over bytes as in GPT-2, or over characters as in
 * SentencePiece.) */
#ifndef SLM_TEXT_BPE_H
#define SLM_TEXT_BPE_H

#include <stdatomic.h>

#include "base/call.h"
#include "text/vocabulary.h"

typedef struct slm_merge {
    int32_t left, right; /* ids; left -1: an empty slot */
    uint32_t rank;
} slm_merge;

typedef struct slm_bpe {
    const slm_vocabulary *vocabulary;
    bool by_characters; /* merging starts from characters; those without a piece are byte tokens or unk, which never merge */
    bool whole_text;    /* by characters: merges may cross from a word into the space behind it */
    int32_t unk;        /* by characters; -1: none */
    bool fuse_unk;
    int32_t byte_ids[256];      /* -1: the vocabulary has no piece for this byte */
    int32_t character_ids[256]; /* by characters: of the ASCII character; -1: none */
    slm_merge *merges;          /* [merge_mask + 1], at most half full, open addressing; NULL: there are ranks */
    size_t merge_mask;
    uint32_t *ranks;  /* [vocabulary size] of the merges that make the token, when scores decide; else NULL */
    int32_t *results; /* [n_merges] what the merge of each rank makes */
    size_t n_merges;
    bool ignore_merges;
    /* [vocabulary size] Does merging the token's bytes yield the token? Found out when first asked; every thread finds the same.
     */
    atomic_uchar *reachable;
} slm_bpe;

/* bpe: zeroed. The vocabulary must outlive it. SLM_BAD_DATA: error.index is the merge, or the piece where there are scores. */
slm_status slm_bpe_create(const slm_vocabulary *vocabulary, const slm_tokenizer_spec *spec, slm_bpe *bpe, slm_error *error);
void slm_bpe_destroy(slm_bpe *bpe); /* zeroed or half made is fine */

/* What long words need; reused from word to word. Zero it first. Its parts are private to bpe_long.c. */
typedef struct slm_bpe_scratch {
    struct slm_bpe_node *nodes;     /* [capacity], and behind them what the queue holds */
    struct slm_bpe_bucket *buckets; /* [n_merges] */
    size_t capacity;
} slm_bpe_scratch;
void slm_bpe_scratch_free(slm_bpe_scratch *scratch);

/* Appends the tokens of one word, 1 <= size < 2^31; bytes without a piece are left out and counted in tokens->dropped.
 * O(size log size), by scores times the longest piece. On failure tokens is as before. */
slm_status slm_bpe_encode(const slm_bpe *bpe, const uint8_t *word, size_t size, slm_bpe_scratch *scratch, slm_clock *clock,
                          slm_tokens *tokens, slm_error *error);

#endif
