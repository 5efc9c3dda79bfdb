/* SPDX-License-Identifier: Apache-2.0
 * head.c: each thread runs its share of the rows in blocks that stay in the first cache and keeps the largest logits it has met;
 * what all threads kept is then merged in the order of ids, which no split into shares changes. */
#include "ops/head.h"

#include <math.h>

#include "base/arith.h"

enum {
    ROWS = SLM_PANEL_ROWS,
    MOST_TOKENS = 16,  /* that run together */
    BLOCK_PANELS = 64, /* of one token, or of several tokens so many in all */
    LOOK = 64,         /* logits whose largest is looked at before any single one */
    NOTHING = -1,      /* an id behind the last one kept */
};

bool slm_head_finish(const slm_kernels *kernels, const slm_head *head, float *y, int64_t n) {
    for (int64_t i = 0; head->scale > 0 && i < n; i++) y[i] *= head->scale;
    if (head->cap > 0) kernels->soft_cap(y, head->cap, n);
    return kernels->all_finite(y, n);
}

/* ---- what is kept ---------------------------------------------------------------------------------------------------- */

/* Of one choice by one thread: slots first .. end - 1 of its arrays, one for each of the thread's rows. */
typedef struct kept {
    slm_choice *choice;
    int64_t first, end;
    int64_t count;     /* values and ids */
    int64_t n_leading; /* a heap of the largest, at most choice->top, the smallest first */
    float least;       /* no smaller logit is wanted */
    bool finite;
} kept;

/* Puts x into a heap of at most `most` whose smallest is first; when it is full the smallest goes, which may be x. */
static void lead(float *heap, int64_t *n, int64_t most, float x) {
    int64_t at = 0;
    if (*n < most) {
        at = (*n)++;
        for (int64_t up; at && heap[up = (at - 1) / 2] > x; at = up) heap[at] = heap[up];
    } else {
        if (x <= heap[0]) return;
        for (int64_t child; (child = 2 * at + 1) < *n; at = child) {
            if (child + 1 < *n && heap[child + 1] < heap[child]) child++;
            if (heap[child] >= x) break;
            heap[at] = heap[child];
        }
    }
    heap[at] = x;
}

static float least_leading(const slm_choice *choice, const float *heap, int64_t n) {
    return n == choice->top ? heap[0] : -INFINITY;
}

static void offer(kept *k, float logit, int32_t id) {
    slm_choice *choice = k->choice;
    if (!choice->top) {
        if (!(logit > k->least)) return;
        k->least = logit;
        k->count = 0;
    } else {
        if (!(logit >= k->least)) return;
        float *heap = choice->leading + k->first;
        lead(heap, &k->n_leading, choice->top, logit);
        k->least = least_leading(choice, heap, k->n_leading);
    }
    choice->values[k->first + k->count] = logit;
    choice->ids[k->first + k->count++] = id;
}

/* The logits of rows id, id + 1, ... */
static void offer_all(const slm_kernels *kernels, kept *k, const float *logits, int64_t n, int64_t id) {
    for (int64_t i = 0; i < n; i += LOOK) {
        int64_t end = slm_min64(i + LOOK, n);
        if (kernels->largest(logits + i, end - i) < k->least) continue;
        for (int64_t j = i; j < end; j++) offer(k, logits[j], (int32_t)(id + j));
    }
}

/* Leaves word of where the kept ones end, or that a logit was not finite. */
static void close_kept(const kept *k) {
    slm_choice *choice = k->choice;
    int64_t at = k->first + k->count, leading = k->first + k->n_leading;
    if (at < k->end) choice->ids[at] = NOTHING;
    if (choice->top && leading < k->end) choice->leading[leading] = NAN;
    if (!k->finite && k->first < k->end) choice->values[k->first] = NAN, choice->ids[k->first] = 0;
}

/* ---- shares ------------------------------------------------------------------------------------------------------------ */

/* Panels that are only run together: of a matrix that BLIS runs, because its bits depend on it. */
static int64_t unit_panels(const slm_matrix *w) {
    return w->form == SLM_FORM_BLAS ? SLM_BLAS_PANELS : 1;
}

/* What thread `index` of the team runs: rows from *begin on up to *end, or so of the allowed ids. */
static void share(const slm_team *team, int index, const slm_matrix *w, const slm_choice *choice, int64_t *begin, int64_t *end) {
    slm_team member = {.index = index, .count = team->count};
    int64_t unit = unit_panels(w) * ROWS;
    slm_team_range(&member, choice->allowed ? choice->n_allowed : slm_div_up(w->rows, unit), begin, end);
    if (choice->allowed) return;
    *begin = slm_min64(*begin * unit, choice->n_rows);
    *end = slm_min64(*end * unit, choice->n_rows);
}

static kept keep(const slm_team *team, int index, const slm_matrix *w, slm_choice *choice) {
    kept k = {.choice = choice, .first = index, .end = index + 1, .least = -INFINITY, .finite = true};
    if (choice->top) share(team, index, w, choice, &k.first, &k.end);
    return k;
}

/* Panels from `first` on, before `last` or where its unit ends, for all tokens of the input: y [n_tokens, ldy]. */
static void run_panels(const slm_kernels *kernels, const slm_input *input, const slm_head *head, int64_t first, int64_t last,
                       float *y, int64_t ldy, const slm_linear_scratch *scratch) {
    int64_t unit = unit_panels(&head->dense->w);
    last = slm_min64(slm_div_up(last, unit) * unit, head->dense->w.n_panels);
    slm_linear_panels(kernels, input, head->dense, first, last, y, ldy, scratch);
}

/* This thread's share of the rows, for all tokens of the input at once. */
static void run_rows(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_head *head,
                     slm_choice *choices, const slm_linear_scratch *scratch) {
    float *y = scratch->y; /* no less than slm_linear_scratch_size(1) */
    kept all[MOST_TOKENS];
    int64_t block = BLOCK_PANELS / input->n_tokens * ROWS, first = INT64_MAX, last = 0;
    for (int64_t t = 0; t < input->n_tokens; t++) {
        int64_t begin, end;
        all[t] = keep(team, team->index, &head->dense->w, &choices[t]);
        share(team, team->index, &head->dense->w, &choices[t], &begin, &end);
        first = slm_min64(first, begin);
        last = slm_max64(last, end);
    }
    for (int64_t row = first; row < last && !slm_team_cancelled(team); row += block) {
        int64_t end = slm_min64(row + block, last);
        run_panels(kernels, input, head, row / ROWS, slm_div_up(end, ROWS), y, block, scratch);
        for (int64_t t = 0; t < input->n_tokens; t++) {
            int64_t n = slm_min64(end, choices[t].n_rows) - row;
            if (n <= 0) continue;
            if (!slm_head_finish(kernels, head, y + t * block, n)) all[t].finite = false;
            if (all[t].finite) offer_all(kernels, &all[t], y + t * block, n, row);
        }
    }
    for (int64_t t = 0; t < input->n_tokens; t++) close_kept(&all[t]);
}

/* This thread's share of the allowed ids, for one token: panels without any are not run. */
static void run_allowed(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_head *head,
                        slm_choice *choice, const slm_linear_scratch *scratch) {
    float *y = scratch->y;
    kept k = keep(team, team->index, &head->dense->w, choice);
    int64_t i, end, unit = unit_panels(&head->dense->w) * ROWS;
    share(team, team->index, &head->dense->w, choice, &i, &end);
    while (i < end && !slm_team_cancelled(team)) {
        int64_t row = choice->allowed[i] / unit * unit;
        run_panels(kernels, input, head, row / ROWS, row / ROWS + 1, y, unit, scratch);
        for (; i < end && choice->allowed[i] < row + unit; i++) {
            float *logit = &y[choice->allowed[i] - row];
            if (!slm_head_finish(kernels, head, logit, 1)) k.finite = false;
            if (k.finite) offer(&k, *logit, choice->allowed[i]);
        }
    }
    close_kept(&k);
}

/* ---- all threads ------------------------------------------------------------------------------------------------------- */

/* What all threads kept becomes one: the slots of a thread lie behind those of the ones before it, so all move down. */
static void merge(const slm_team *team, const slm_matrix *w, slm_choice *choice) {
    float least = -INFINITY;
    int64_t n_leading = 0;
    bool finite = true;
    for (int i = 0; choice->top && i < team->count; i++) {
        kept k = keep(team, i, w, choice);
        for (int64_t at = k.first; at < k.end && choice->leading[at] == choice->leading[at]; at++)
            lead(choice->leading, &n_leading, choice->top, choice->leading[at]);
        least = least_leading(choice, choice->leading, n_leading);
    }
    choice->count = 0;
    for (int i = 0; i < team->count; i++) {
        kept k = keep(team, i, w, choice);
        for (int64_t at = k.first; at < k.end && choice->ids[at] != NOTHING; at++) {
            float logit = choice->values[at];
            finite = finite && logit == logit;
            if (!choice->top && choice->count) { /* the same as in offer: the first of the largest stays */
                if (!(logit > choice->values[0])) continue;
                choice->count = 0;
            }
            if (!(logit >= least)) continue;
            choice->values[choice->count] = logit;
            choice->ids[choice->count++] = choice->ids[at];
        }
    }
    if (!finite) choice->count = 0;
}

/* Tokens first .. first + n - 1. */
static slm_input some_tokens(const slm_input *input, int64_t first, int64_t n) {
    slm_input some = *input;
    int64_t groups = input->codes.k / input->codes.group;
    some.n_tokens = n;
    some.x += first * input->ldx;
    some.rounded += first * input->ldx;
    some.codes.codes += first * input->codes.k;
    some.codes.sums += first * groups;
    some.codes.scales += first * groups;
    some.codes.scaled_sums += first * groups;
    return some;
}

bool slm_head_choose(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_head *head,
                     slm_choice *choices, const slm_linear_scratch *scratch) {
    bool alone = head->dense->w.form == SLM_FORM_BLAS;
    for (int64_t t = 0, n; t < input->n_tokens; t += n) {
        for (n = 1; !alone && !choices[t].allowed && n < MOST_TOKENS && t + n < input->n_tokens && !choices[t + n].allowed;) n++;
        slm_input some = some_tokens(input, t, n);
        if (choices[t].allowed) {
            run_allowed(kernels, team, &some, head, &choices[t], scratch);
        } else {
            run_rows(kernels, team, &some, head, choices + t, scratch);
        }
    }
    slm_team_barrier(team);
    int64_t begin, end;
    slm_team_range(team, input->n_tokens, &begin, &end);
    bool finite = true;
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        merge(team, &head->dense->w, &choices[t]);
        finite = finite && choices[t].count;
    }
    return finite;
}
