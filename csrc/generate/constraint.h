/* SPDX-License-Identifier: Apache-2.0
 * constraint.h: an automaton over a vocabulary: which tokens may come next. */
#ifndef SLM_GENERATE_CONSTRAINT_H
#define SLM_GENERATE_CONSTRAINT_H

#include "generate/automaton.h"
#include "text/token_trie.h"

typedef struct slm_token_set slm_token_set;

struct slm_constraint {
    atomic_llong references;
    slm_automaton *automaton;
    slm_tokenizer *tokenizer;
    const slm_token_trie *trie; /* the tokenizer's */
    /* [automaton's n_states] what may come in each; NULL: not asked for yet. Threads that find the same set at once keep one. */
    _Atomic(slm_token_set *) *sets;
    atomic_size_t set_bytes; /* of all sets: beyond a limit they are found anew each time */
};

/* SLM_UNSUPPORTED for a vocabulary whose tokens do not spell the text. */
slm_status slm_constraint_check(const slm_tokenizer *tokenizer, slm_error *error);
/* The first `most` of n_words * 64 bits that are set, ascending, as ids [most]; how many, or `most` + 1: there are more. */
int64_t slm_list_bits(const uint64_t *bits, int64_t n_words, int64_t most, int32_t *ids);
/* Sets the bits of the tokens of text that may come in a state: bits [vocabulary / 64 + 1], zeros. */
slm_status slm_constraint_allowed(slm_constraint *constraint, uint32_t state, uint64_t *bits, slm_error *error);
/* Where the text can go on in one way only, and no token reaches past that: the longest token on the way; else -1. */
int32_t slm_constraint_forced(const slm_constraint *constraint, uint32_t state);
/* The state behind a token that may come. */
uint32_t slm_constraint_advance(const slm_constraint *constraint, uint32_t state, int32_t token);

#endif
