/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/penalties.h"

#include <math.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/status.h"

/* Of repetition, presence, frequency: do they look at the last tokens? */
static bool wants_window(const slm_generate_options *o) {
    bool repetition = o->repetition_penalty != 0 && o->repetition_penalty != 1;
    return repetition || o->presence_penalty != 0 || o->frequency_penalty != 0;
}

bool slm_penalties_wanted(const slm_generate_options *o) {
    return o->n_bias || wants_window(o) || o->no_repeat_ngram;
}

static slm_status check(const slm_generate_options *o, int64_t vocab_size, slm_error *error) {
    for (size_t i = 0; i < o->n_bias; i++) {
        if (o->bias_ids[i] < 0 || o->bias_ids[i] >= vocab_size) {
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i, "logit_bias: expected token ids from 0 to %lld, found %d",
                            (long long)vocab_size - 1, (int)o->bias_ids[i]);
        }
        if (!(o->bias[i] < INFINITY)) {
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i, "logit_bias: expected a finite number or -inf, found %g",
                            (double)o->bias[i]);
        }
    }
    if (!(o->repetition_penalty >= 0) || !isfinite(o->repetition_penalty)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "repetition_penalty: expected a finite number >= 0, found %g",
                        (double)o->repetition_penalty);
    }
    if (!isfinite(o->presence_penalty) || !isfinite(o->frequency_penalty)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "%s_penalty: expected a finite number",
                        isfinite(o->presence_penalty) ? "frequency" : "presence");
    }
    if (o->penalty_window < 0 || (wants_window(o) && !o->penalty_window)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "penalty_window: expected a number >= 1, found %lld",
                        (long long)o->penalty_window);
    }
    if (o->no_repeat_ngram < 0) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "no_repeat_ngram: expected a number >= 0, found %lld",
                        (long long)o->no_repeat_ngram);
    }
    return SLM_OK;
}

slm_status slm_penalties_create(slm_penalties *p, const slm_generate_options *o, int64_t vocab_size, slm_error *error) {
    slm_status status = check(o, vocab_size, error);
    if (status) return status;
    *p = (slm_penalties){.options = o};
    if (!wants_window(o)) return SLM_OK;
    p->counts = slm_alloc_zero((size_t)vocab_size, sizeof *p->counts);
    return p->counts ? SLM_OK : slm_fail_memory(error);
}

void slm_penalties_release(slm_penalties *p) {
    slm_free(p->counts);
    *p = (slm_penalties){0};
}

/* NULL: no candidate. */
static float *logit_of(const slm_candidates *c, int32_t id) {
    if (!c->ids) return id < c->n ? &c->logits[id] : NULL;
    int64_t low = 0, high = c->n;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (c->ids[middle] < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < c->n && c->ids[low] == id ? &c->logits[low] : NULL;
}

static void penalize_window(const slm_penalties *p, const int32_t *tokens, int64_t n_tokens, const slm_candidates *c) {
    const slm_generate_options *o = p->options;
    float repetition = o->repetition_penalty ? o->repetition_penalty : 1;
    int64_t first = slm_max64(0, n_tokens - o->penalty_window);
    for (int64_t i = first; i < n_tokens; i++) p->counts[tokens[i]]++;
    for (int64_t i = first; i < n_tokens; i++) { /* each token once */
        int32_t count = p->counts[tokens[i]];
        float *logit = count ? logit_of(c, tokens[i]) : NULL;
        p->counts[tokens[i]] = 0;
        if (!logit) continue;
        *logit = *logit < 0 ? *logit * repetition : *logit / repetition;
        *logit -= o->presence_penalty + (float)count * o->frequency_penalty;
    }
}

/* What would complete n tokens that stand together in the text already. */
static void ban_ngrams(int64_t n, const int32_t *tokens, int64_t n_tokens, const slm_candidates *c) {
    for (int64_t i = 0; i + n <= n_tokens; i++) {
        int64_t same = 0;
        while (same < n - 1 && tokens[i + same] == tokens[n_tokens - n + 1 + same]) same++;
        float *logit = same == n - 1 ? logit_of(c, tokens[i + same]) : NULL;
        if (logit) *logit = -INFINITY;
    }
}

void slm_penalties_apply(const slm_penalties *p, const int32_t *tokens, int64_t n_tokens, const slm_candidates *c) {
    const slm_generate_options *o = p->options;
    for (size_t i = 0; i < o->n_bias; i++) {
        float *logit = logit_of(c, o->bias_ids[i]);
        if (logit) *logit += o->bias[i];
    }
    if (p->counts) penalize_window(p, tokens, n_tokens, c);
    if (o->no_repeat_ngram) ban_ngrams(o->no_repeat_ngram, tokens, n_tokens, c);
}
