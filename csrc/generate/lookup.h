/* SPDX-License-Identifier: Apache-2.0
 * lookup.h: drafts by prompt lookup: what followed the last tokens where they stood before. A draft is only a guess of what will
 * be drawn; whether to make one is decided by how many of the last guesses were right. */
#ifndef SLM_GENERATE_LOOKUP_H
#define SLM_GENERATE_LOOKUP_H

#include <stdbool.h>
#include <stdint.h>

enum { SLM_DRAFT_MOST = 7 /* tokens of one draft */ };

typedef struct slm_lookup { /* zero it first */
    uint64_t right;         /* the last n_tried drafted tokens, the latest in bit 0: was it the token that was drawn? */
    int n_tried;            /* at most 64 */
    int32_t guess;          /* while no drafts are run: the token that one would have begun with; -1: none */
    int64_t n_drafted, n_accepted;
} slm_lookup;

/* Writes up to `most` tokens behind ids [n_ids] that may follow; says how many. */
int64_t slm_lookup_draft(slm_lookup *lookup, int32_t *ids, int64_t n_ids, int64_t most);
/* What came of it: of a draft of n_drafts tokens the first n_accepted were drawn; without one, `token` was. */
void slm_lookup_learn(slm_lookup *lookup, int64_t n_drafts, int64_t n_accepted, int32_t token);

#endif
