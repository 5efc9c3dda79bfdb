/* SPDX-License-Identifier: Apache-2.0
 * expression.h: regular expressions over bytes, and what is left of one behind a byte: its derivative. (Brzozowski 1964,
 * doi:10.1145/321239.321249.) Equal expressions are one node, so the derivatives of an expression are the states of an automaton,
 * and intersection and difference come at no cost of their own.
 *
 * Bytes that no expression tells apart form one class. */
#ifndef SLM_GENERATE_EXPRESSION_H
#define SLM_GENERATE_EXPRESSION_H

#include "base/status.h"

enum { SLM_NOTHING = 0, SLM_NOTHING_MORE = 1 }; /* the node that matches no text, and the one that matches the empty text only */

typedef struct slm_class_set {
    uint64_t bits[4];
} slm_class_set;

typedef struct slm_node {
    slm_class_set first; /* the classes that a text may begin with, perhaps more; of BYTES: which they are */
    uint32_t a, b; /* operands; of an alternation its [b] nodes at pool.lists[a]; of a repetition a, and b = how often at least */
    int32_t most;  /* of a repetition; -1: without end */
    uint32_t hash;
    uint32_t state; /* for the automaton's use; 0 at first */
    uint16_t depth; /* of the recursion that finds its derivative */
    uint8_t kind;   /* slm_expression_kind */
    bool nullable;  /* matches the empty text */
} slm_node;

typedef struct slm_node_pool { /* zero it first */
    slm_node *nodes;
    uint32_t n_nodes, capacity;
    uint32_t *lists; /* sorted nodes of alternations, behind each other */
    size_t n_lists, lists_capacity;
    uint32_t *slots; /* [slot_mask + 1] hash table of nodes; 0: empty */
    size_t slot_mask;
    uint32_t *stack; /* nodes of alternations in the making */
    size_t n_stack, stack_capacity;
    uint8_t class_of[256];
    int n_classes;
    slm_status status; /* sticky: after a failure every result is SLM_NOTHING */
    slm_error *error;
} slm_node_pool;

/* The node of the last of n expressions, which begin with those that it is made of. See the pool's status. */
uint32_t slm_node_pool_create(slm_node_pool *pool, const slm_expression *expressions, size_t n, slm_error *error);
void slm_node_pool_release(slm_node_pool *pool);

/* What must follow a byte of this class, for the whole to match `node`. */
uint32_t slm_node_derivative(slm_node_pool *pool, uint32_t node, int class);

static inline bool slm_class_set_has(const slm_class_set *set, int class) {
    return set->bits[class / 64] >> class % 64 & 1;
}

#endif
