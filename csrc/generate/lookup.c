/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/lookup.h"

#include "base/arith.h"

enum {
    LEAST_MATCH = 2, /* tokens that must have stood together before */
    MOST_MATCH = 16, /* a longer match is as good */
    ENOUGH = 16,     /* guesses before their record counts */
    LEAST_PERCENT = 30,
};

/* How many tokens before position i are the same as those before n, where a draft begins. */
static int64_t match_length(const int32_t *ids, int64_t i, int64_t n) {
    int64_t length = 0, most = slm_min64(i, MOST_MATCH);
    while (length < most && ids[i - 1 - length] == ids[n - 1 - length]) length++;
    return length;
}

static bool pays(const slm_lookup *l) {
    return l->n_tried < ENOUGH || __builtin_popcountll(l->right) * 100 >= l->n_tried * LEAST_PERCENT;
}

int64_t slm_lookup_draft(slm_lookup *l, int32_t *ids, int64_t n_ids, int64_t most) {
    int64_t best = 0, from = 0;
    for (int64_t i = n_ids - 1; i > 0 && best < MOST_MATCH; i--) { /* of equal matches the latest */
        int64_t length = match_length(ids, i, n_ids);
        if (length > best) {
            best = length;
            from = i;
        }
    }
    l->guess = -1;
    if (best < LEAST_MATCH || most < 1) return 0;
    if (!pays(l)) {
        l->guess = ids[from];
        return 0;
    }
    /* The draft may run into itself: text that repeats goes on repeating. */
    for (int64_t i = 0; i < most; i++) ids[n_ids + i] = ids[from + i];
    return most;
}

static void record(slm_lookup *l, bool right) {
    l->right = l->right << 1 | right;
    if (l->n_tried < 64) l->n_tried++;
}

void slm_lookup_learn(slm_lookup *l, int64_t n_drafts, int64_t n_accepted, int32_t token) {
    for (int64_t i = 0; i < n_drafts; i++) record(l, i < n_accepted);
    if (!n_drafts && l->guess >= 0) record(l, l->guess == token);
    l->guess = -1;
    l->n_drafted += n_drafts;
    l->n_accepted += n_accepted;
}
