/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/sampler.h"

#include <math.h>

#include "base/alloc.h"

slm_status slm_sampler_create(slm_sampler *s, float temperature, int32_t top_k, float top_p, int64_t n, slm_error *error) {
    *s = (slm_sampler){.temperature = temperature, .top_k = top_k, .top_p = top_p, .n = n};
    if (!(temperature >= 0) || !isfinite(temperature)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "temperature: expected a finite number >= 0, found %g", (double)temperature);
    }
    if (top_k < 0) return slm_fail(error, SLM_BAD_ARGUMENT, -1, "top_k: expected a number >= 0, found %d", (int)top_k);
    if (!(top_p > 0 && top_p <= 1)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "top_p: expected a number in (0, 1], found %g", (double)top_p);
    }
    if (temperature == 0) return SLM_OK;
    s->weights = slm_alloc_array((size_t)n, sizeof *s->weights);
    s->order = slm_alloc_array((size_t)n, sizeof *s->order);
    if (s->weights && s->order) return SLM_OK;
    slm_sampler_release(s);
    return slm_fail_memory(error);
}

void slm_sampler_release(slm_sampler *s) {
    slm_free(s->weights);
    slm_free(s->order);
    s->weights = NULL;
    s->order = NULL;
}

static int32_t largest(const float *logits, int64_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return best;
}

/* In falling order of logits, ties to the lower id. */
static bool before(const float *logits, int32_t a, int32_t b) {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void sift_down(const float *logits, int32_t *heap, int64_t n, int64_t at) {
    int32_t moved = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(logits, heap[child + 1], heap[child])) child++;
        if (!before(logits, heap[child], moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

/* The first of *n is taken off the heap and put behind it. */
static int32_t pop(const float *logits, int32_t *heap, int64_t *n) {
    int32_t top = heap[0];
    heap[0] = heap[--*n];
    heap[*n] = top;
    if (*n) sift_down(logits, heap, *n, 0);
    return top;
}

int64_t slm_sampler_draw(const slm_sampler *s, const float *logits, int64_t n, double uniform) {
    int32_t best = largest(logits, n);
    if (s->temperature == 0) return best;
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += s->weights[i] = expf((logits[i] - logits[best]) / s->temperature);

    /* No truncation: every token counts, in the order of ids. */
    if (s->top_p == 1 && (s->top_k == 0 || s->top_k > n)) {
        double target = uniform * total, mass = 0;
        for (int32_t i = 0; i < n; i++) {
            mass += s->weights[i];
            if (mass > target) return i;
        }
        return best; /* rounding took the last crumb */
    }

    /* A heap gives tokens in falling order, as many as are kept; they gather behind it, the largest last. */
    int64_t left = n;
    for (int32_t i = 0; i < n; i++) s->order[i] = i;
    for (int64_t i = left / 2; i-- > 0;) sift_down(logits, s->order, left, i);
    double kept = 0;
    if (s->top_k && s->top_k <= n) {
        total = 0;
        while (left && (n - left < s->top_k || logits[s->order[0]] == logits[s->order[left]])) {
            total += s->weights[pop(logits, s->order, &left)];
        }
        int64_t n_top = n - left;
        left = n;
        while (left > n - n_top && kept < s->top_p * total) kept += s->weights[s->order[--left]];
    } else {
        while (left && kept < s->top_p * total) kept += s->weights[pop(logits, s->order, &left)];
    }
    double target = uniform * kept, mass = 0;
    for (int64_t i = n; i-- > left;) {
        mass += s->weights[s->order[i]];
        if (mass > target) return s->order[i];
    }
    return best;
}
