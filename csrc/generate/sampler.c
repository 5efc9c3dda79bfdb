/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/sampler.h"

#include <math.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/status.h"

static slm_status check(const slm_generate_options *o, slm_error *error) {
    if (!(o->temperature >= 0) || !isfinite(o->temperature)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "temperature: expected a finite number >= 0, found %g",
                        (double)o->temperature);
    }
    if (o->top_k < 0) return slm_fail(error, SLM_BAD_ARGUMENT, -1, "top_k: expected a number >= 0, found %d", (int)o->top_k);
    if (!(o->top_p > 0 && o->top_p <= 1)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "top_p: expected a number in (0, 1], found %g", (double)o->top_p);
    }
    if (!(o->min_p >= 0 && o->min_p <= 1)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "min_p: expected a number in [0, 1], found %g", (double)o->min_p);
    }
    if (!(o->typical_p >= 0 && o->typical_p <= 1)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "typical_p: expected a number in [0, 1], found %g", (double)o->typical_p);
    }
    return SLM_OK;
}

slm_status slm_sampler_create(slm_sampler *s, const slm_kernels *kernels, const slm_generate_options *o, int64_t n,
                              slm_error *error) {
    slm_status status = check(o, error);
    if (status) return status;
    *s = (slm_sampler){.kernels = kernels,
                       .temperature = o->temperature,
                       .top_k = o->top_k,
                       .top_p = o->top_p,
                       .min_p = o->min_p,
                       .typical_p = o->typical_p > 0 ? o->typical_p : 1,
                       .n = n};
    if (s->temperature == 0) return SLM_OK;
    s->weights = slm_alloc_array((size_t)slm_round_up(n, 16), sizeof *s->weights);
    s->keys = s->typical_p < 1 ? slm_alloc_array((size_t)n, sizeof *s->keys) : NULL;
    s->order = slm_alloc_array((size_t)n, sizeof *s->order);
    if (s->weights && s->order && (s->keys || s->typical_p == 1)) return SLM_OK;
    slm_sampler_release(s);
    return slm_fail_memory(error);
}

void slm_sampler_release(slm_sampler *s) {
    slm_free(s->weights);
    slm_free(s->keys);
    slm_free(s->order);
    *s = (slm_sampler){0};
}

/* In falling order of keys, ties to the lower index. */
static bool before(const float *keys, int32_t a, int32_t b) {
    return keys[a] > keys[b] || (keys[a] == keys[b] && a < b);
}

static void sift_down(const float *keys, int32_t *heap, int64_t n, int64_t at) {
    int32_t moved = heap[at];
    for (int64_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(keys, heap[child + 1], heap[child])) child++;
        if (!before(keys, heap[child], moved)) break;
        heap[at] = heap[child];
    }
    heap[at] = moved;
}

static void make_heap(const float *keys, int32_t *heap, int64_t n) {
    for (int64_t i = n / 2; i-- > 0;) sift_down(keys, heap, n, i);
}

/* The first of *n is taken off the heap and put behind it. */
static int32_t pop(const float *keys, int32_t *heap, int64_t *n) {
    int32_t top = heap[0];
    heap[0] = heap[--*n];
    heap[*n] = top;
    if (*n) sift_down(keys, heap, *n, 0);
    return top;
}

static bool top_k_cuts(const slm_sampler *s, int64_t n) {
    return s->top_k && s->top_k <= n;
}

/* weights[i] = exp((logits[i] - most) / temperature), 0 where that is below exp(-87); their sum. */
static double weigh(const slm_sampler *s, const float *logits, int64_t n, float most) {
    double sums[8] = {0}, total = 0;
    float largest, sum;
    for (int64_t i = 0; i < n; i++) s->weights[i] = (logits[i] - most) / s->temperature;
    s->kernels->attention_softmax(s->weights, 0, n, slm_round_up(n, 16), false, &largest, &sum);
    for (int64_t i = 0; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; j++) sums[j] += s->weights[i + j];
    }
    for (int64_t i = n / 8 * 8; i < n; i++) total += s->weights[i];
    for (int j = 0; j < 8; j++) total += sums[j];
    return total;
}

/* order = those of at least this weight, the last one first; how many. */
static int64_t gather(const slm_sampler *s, int64_t n, double least) {
    int64_t count = 0;
    for (int64_t i = n; i-- > 0;) {
        s->order[count] = (int32_t)i;
        count += s->weights[i] > 0 && s->weights[i] >= least;
    }
    return count;
}

/* What top_k, top_p and min_p keep of n is order[result .. *end - 1], the first to be counted last. total: of the n weights. */
static int64_t keep_likeliest(const slm_sampler *s, const float *logits, int64_t n, double total, int64_t *end) {
    const float *weights = s->weights;
    int32_t *order = s->order;
    double kept = 0;
    /* A heap gives tokens in falling order, as many as are kept; they gather behind it. */
    if (top_k_cuts(s, n)) {
        int64_t left = *end = gather(s, n, 0), first;
        make_heap(logits, order, left);
        for (total = 0; left && (*end - left < s->top_k || logits[order[0]] == logits[order[left]]);) {
            total += weights[pop(logits, order, &left)];
        }
        for (first = left, left = *end; left > first && kept < s->top_p * total && weights[order[left - 1]] >= s->min_p;) {
            kept += weights[order[--left]];
        }
        return left;
    }
    /* All that are less likely than this do not make up half of what top_p leaves over: they need no place in the heap. */
    double least = (1 - s->top_p) * total / (2 * (double)n);
    int64_t left = *end = gather(s, n, least > s->min_p ? least : s->min_p);
    if (s->top_p == 1) return 0;
    make_heap(logits, order, left);
    while (left && kept < s->top_p * total) kept += weights[pop(logits, order, &left)];
    return left;
}

/* What typical_p keeps of order[first .. n - 1] is order[result .. n - 1]. An index whose key is 0 is as typical as can be. */
static int64_t keep_typical(const slm_sampler *s, const float *logits, float largest_logit, int64_t first, int64_t n) {
    double total = 0, entropy = 0, kept = 0;
    for (int64_t i = first; i < n; i++) total += s->weights[s->order[i]];
    double log_total = log(total);
    for (int64_t i = first; i < n; i++) {
        int32_t at = s->order[i];
        double information = log_total - (logits[at] - largest_logit) / s->temperature;
        s->keys[at] = (float)information;
        entropy += s->weights[at] / total * information;
    }
    for (int64_t i = first; i < n; i++) {
        float *key = &s->keys[s->order[i]];
        *key = -(float)fabs(*key - entropy);
    }
    int32_t *heap = s->order + first;
    int64_t left = n - first;
    make_heap(s->keys, heap, left);
    while (left && (kept < s->typical_p * total || s->keys[heap[0]] == s->keys[heap[left]])) {
        kept += s->weights[pop(s->keys, heap, &left)];
    }
    return first + left;
}

int64_t slm_sampler_draw(const slm_sampler *s, const float *logits, int64_t n, double uniform) {
    float most = s->kernels->largest(logits, n);
    int64_t best = 0;
    if (most == -INFINITY) return -1;
    while (logits[best] != most) best++;
    if (s->temperature == 0) return best;
    double total = weigh(s, logits, n, most), mass = 0;

    /* No truncation: every token counts, in the order of ids. */
    if (!top_k_cuts(s, n) && s->top_p == 1 && s->min_p == 0 && s->typical_p == 1) {
        double target = uniform * total;
        for (int64_t i = 0; i < n; i++) {
            mass += s->weights[i];
            if (mass > target) return i;
        }
        return best; /* rounding took the last crumb */
    }

    int64_t end, first = keep_likeliest(s, logits, n, total, &end);
    if (s->typical_p < 1) first = keep_typical(s, logits, most, first, end);
    double kept = 0;
    for (int64_t i = end; i-- > first;) kept += s->weights[s->order[i]];
    double target = uniform * kept;
    for (int64_t i = end; i-- > first;) {
        mass += s->weights[s->order[i]];
        if (mass > target) return s->order[i];
    }
    return s->order[end - 1];
}
