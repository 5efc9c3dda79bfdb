/* SPDX-License-Identifier: Apache-2.0
 * unigram.h: of all ways to cut a word into pieces the one whose scores have the largest sum. (Kudo 2018, arXiv:1804.10959; what
 * is no piece, and which of equals wins, as in Hugging Face's tokenizers.) */
#ifndef SLM_TEXT_UNIGRAM_H
#define SLM_TEXT_UNIGRAM_H

#include "base/call.h"
#include "text/trie.h"
#include "text/vocabulary.h"

typedef struct slm_unigram {
    const slm_vocabulary *vocabulary;
    slm_trie trie;
    size_t longest;        /* bytes of the longest piece, or character */
    size_t window;         /* more than longest; a power of two */
    double *scores;        /* [vocabulary size] */
    double unk_score;      /* of one character that is no piece */
    int32_t byte_ids[256]; /* -1: none */
    int32_t unk;
    bool fuse_unk;
} slm_unigram;

/* unigram: zeroed. The vocabulary must outlive it. SLM_BAD_DATA: error.index is the piece. */
slm_status slm_unigram_create(const slm_vocabulary *vocabulary, const slm_tokenizer_spec *spec, slm_unigram *unigram,
                              slm_error *error);
void slm_unigram_destroy(slm_unigram *unigram);

typedef struct slm_unigram_scratch { /* zero it first */
    struct slm_unigram_node *nodes;  /* [capacity] */
    double *scores;                  /* [window] of the nodes that a piece may still reach */
    size_t capacity;
} slm_unigram_scratch;
void slm_unigram_scratch_free(slm_unigram_scratch *scratch);

/* Appends the tokens of one word, 1 <= size < 2^31. O(size * the longest piece), and
 * 8 bytes for each of the word. On failure tokens is as before. */
slm_status slm_unigram_encode(const slm_unigram *unigram, const uint8_t *word, size_t size, slm_unigram_scratch *scratch,
                              slm_clock *clock, slm_tokens *tokens, slm_error *error);

#endif
