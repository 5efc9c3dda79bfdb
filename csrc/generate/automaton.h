/* SPDX-License-Identifier: Apache-2.0
 * automaton.h: a regular expression as a table: which state each byte leads to. Every state leads to one that accepts. */
#ifndef SLM_GENERATE_AUTOMATON_H
#define SLM_GENERATE_AUTOMATON_H

#include <stdatomic.h>

#include "base/status.h"

enum { SLM_DEAD = 0, SLM_START = 1 }; /* states: nothing that goes on here can match; nothing has been read */

enum { SLM_ENDS = -1, SLM_BRANCHES = -2 }; /* instead of a byte: none can follow; several can, or the text may end as well */

struct slm_automaton {
    atomic_llong references;
    uint32_t n_states, n_classes;
    uint32_t *next;  /* [n_states, n_classes] */
    bool *accepts;   /* [n_states] */
    int16_t *forced; /* [n_states] the one byte that can follow; SLM_ENDS; SLM_BRANCHES */
    uint8_t class_of[256];
};

static inline uint32_t slm_automaton_next(const slm_automaton *a, uint32_t state, uint8_t byte) {
    return a->next[(size_t)state * a->n_classes + a->class_of[byte]];
}

#endif
