/* SPDX-License-Identifier: Apache-2.0
 * trie.h: strings -> numbers, looked up byte by byte: a double array. (Aoe 1989, doi:10.1109/32.31365.) */
#ifndef SLM_TEXT_TRIE_H
#define SLM_TEXT_TRIE_H

#include "base/call.h"

typedef struct slm_trie_node {
    uint32_t base;   /* the child for byte b is node base + b */
    uint32_t parent; /* whose child this is; SLM_TRIE_NONE: a free node */
    int32_t value;   /* of the string that ends here; -1: none does */
} slm_trie_node;

#define SLM_TRIE_NONE UINT32_MAX

typedef struct slm_trie {
    slm_trie_node *nodes; /* [count]; 0 is the root */
    size_t count;
} slm_trie;

typedef struct slm_trie_key {
    const uint8_t *bytes; /* [size], size > 0 */
    uint32_t size;
    int32_t value; /* >= 0 */
} slm_trie_key;

/* Sorts keys. Of equal ones the last in the order of values stays. trie: zeroed. */
slm_status slm_trie_create(slm_trie_key *keys, size_t count, slm_trie *trie, slm_error *error);
void slm_trie_destroy(slm_trie *trie);

/* The child of a node, or SLM_TRIE_NONE. */
static inline uint32_t slm_trie_child(const slm_trie *trie, uint32_t node, uint8_t byte) {
    uint32_t child = trie->nodes[node].base + byte;
    return child < trie->count && trie->nodes[child].parent == node ? child : SLM_TRIE_NONE;
}

#endif
