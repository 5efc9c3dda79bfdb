/* SPDX-License-Identifier: Apache-2.0
 * token_trie.h: the bytes of all tokens that are text, as a trie whose nodes lie in the order in which a walk meets them: one
 * pass over an array visits it, and what cannot match is skipped with all that begins so. */
#ifndef SLM_TEXT_TOKEN_TRIE_H
#define SLM_TEXT_TOKEN_TRIE_H

#include "slm.h"

typedef struct slm_token_node {
    uint32_t skip;  /* the first node behind those below this one */
    uint32_t first; /* its tokens are ids[first] .. ids[first of the next node - 1] */
    uint16_t depth; /* 1: the first byte of a token */
    uint8_t byte;
} slm_token_node;

typedef struct slm_token_trie {
    slm_token_node *nodes; /* [count + 1] in the order of the bytes; the last one only ends the others */
    uint32_t count;
    int32_t *ids; /* of tokens, in the order of their bytes; several may have the same */
} slm_token_trie;

/* Made at the first call and kept with the tokenizer. Without control tokens, unknown and unused ones, and those without bytes.
 */
slm_status slm_tokenizer_trie(slm_tokenizer *tokenizer, const slm_token_trie **trie, slm_error *error);
void slm_token_trie_release(slm_token_trie *trie); /* NULL is fine */

#endif
