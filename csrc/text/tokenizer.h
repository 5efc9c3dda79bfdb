/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.h: what a tokenizer is made of, for tokenizer.c and encode.c. */
#ifndef SLM_TEXT_TOKENIZER_H
#define SLM_TEXT_TOKENIZER_H

#include <stdatomic.h>

#include "text/added.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/pretokenize.h"
#include "text/token_trie.h"
#include "text/unigram.h"
#include "text/wordpiece.h"

struct slm_tokenizer {
    atomic_llong references;
    slm_tokenizer_model model;
    slm_vocabulary vocabulary;
    slm_normalizers normalizers;
    slm_added added, added_normalized; /* looked for in the text as it came, and normalized */
    slm_space_prefix space_prefix;
    slm_splits splits;
    bool space_words, drop_white_space; /* where pieces hold spaces: which of the splits there are */
    slm_bpe bpe;                        /* of these three the one that model says */
    slm_unigram unigram;
    slm_wordpiece wordpiece;
    int32_t *affixes; /* [n_prefix + n_suffix] what special tokens are put before a text, then what behind it */
    size_t n_prefix, n_suffix;
    bool strips_space;
    _Atomic(slm_token_trie *) trie; /* made when it is first asked for */
};

#endif
