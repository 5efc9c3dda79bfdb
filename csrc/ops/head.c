/* SPDX-License-Identifier: Apache-2.0
 * head.c: each thread runs its share of the rows in blocks that stay in the first cache and keeps the largest logits it has met;
 * what all threads kept is then merged in the order of ids, which no split into shares changes.
 *
 * A screened matrix is not read whole where one token or a few are to be chosen: the high halves of its codes and the residues
 * give a limit for the logits of each panel, and the panels that could hold one of the largest are then run as always. */
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

/* A row whose limit is further than this from its coarse product is not screened: below, no link of its chain overflows. */
#define MOST_SPREAD 0x1p80f

bool slm_head_finish(const slm_kernels *kernels, const slm_head *head, float *y, int64_t n) {
    for (int64_t i = 0; head->scale > 0 && i < n; i++) y[i] *= head->scale;
    if (head->cap > 0) kernels->soft_cap(y, head->cap, n);
    return kernels->all_finite(y, n);
}

void slm_head_mask(const uint64_t *mask, int64_t first, float *logits, int64_t n) {
    for (int64_t i = 0; i < n; i += ROWS) {
        uint64_t out = ~(mask[(first + i) / 64] >> (first + i) % 64) & ((1 << ROWS) - 1);
        for (; out; out &= out - 1) {
            int64_t at = i + __builtin_ctzll(out);
            if (at < n) logits[at] = -INFINITY;
        }
    }
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
        if (!(logit >= k->least) || logit == -INFINITY) return;
        float *heap = choice->leading + k->first;
        lead(heap, &k->n_leading, choice->top, logit);
        k->least = least_leading(choice, heap, k->n_leading);
    }
    choice->values[k->first + k->count] = logit;
    choice->ids[k->first + k->count++] = id;
}

/* The logits of rows id, id + 1, ...; id: a multiple of 16 where there is a mask. */
static void offer_all(const slm_kernels *kernels, kept *k, float *logits, int64_t n, int64_t id) {
    if (k->choice->mask) slm_head_mask(k->choice->mask, id, logits, n);
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
    float *y = scratch->y; /* no less than slm_linear_scratch_size(1) */
    kept k = keep(team, team->index, &head->dense->w, choice);
    int64_t i, end, unit = unit_panels(&head->dense->w) * ROWS, block = BLOCK_PANELS * ROWS, first = 0, last = 0;
    share(team, team->index, &head->dense->w, choice, &i, &end);
    for (int64_t n; i < end && !slm_team_cancelled(team); i += n) {
        int32_t id = choice->allowed[i];
        n = slm_run_length(choice->allowed + i, end - i);
        if (id >= last) { /* y holds rows first .. last - 1 */
            first = id / unit * unit;
            last = slm_min64(first + block, slm_div_up(id + n, unit) * unit);
            run_panels(kernels, input, head, first / ROWS, slm_div_up(last, ROWS), y, block, scratch);
        }
        n = slm_min64(n, last - id);
        if (!slm_head_finish(kernels, head, y + id - first, n)) k.finite = false;
        if (k.finite) offer_all(kernels, &k, y + id - first, n, id);
    }
    close_kept(&k);
}

/* ---- screening ----------------------------------------------------------------------------------------------------------- */

int64_t slm_head_limits(int64_t n_panels, int threads) {
    return n_panels + 1 + 2 * threads;
}

/* Where logits lie close together many panels are left over, and screening loses; with a third of them it still wins, by little.
 * After two steps in a row that left over more than two fifths it rests for so many, and is then tried once more. */
enum { REST = 16 };

/* What follows the limits of panels: 0 where the last step won, 1 where it lost; above 1, so many steps to rest and one. */
static float *rest_of(const slm_head *head) {
    return head->limits + head->dense->w.n_panels;
}

/* Of each thread: one of so many logits that no smaller one is wanted. */
static float *least_of(const slm_head *head) {
    return rest_of(head) + 1;
}

/* Of each thread: how many panels it ran. */
static float *ran_of(const slm_team *team, const slm_head *head) {
    return least_of(head) + team->count;
}

/* A step of one token, where the rest of the logit is monotone in the product, or nearly so, and finite with it. */
static bool can_screen(const slm_input *input, const slm_head *head, const slm_choice *choice) {
    return head->limits && !head->dense->bias && !head->dense->addends && head->scale < 0x1p20f && input->n_tokens == 1 &&
           !choice->allowed && choice->top <= SLM_MOST_SCREENED && input->precision == SLM_PRECISION_DEFAULT &&
           input->codes.group == SLM_GROUP;
}

/* The factors of the residues b in the limits of all rows, by groups of 32 columns. Of a row w with scales d and codes c - 128 =
 * h + r, where h = 16 * high - 120 and |r| <= 8, and of x = s * q, all in real numbers:
 *
 *     exact  E = sum of d s (h + r) q        coarse  C = sum of d s h q        E - C = sum of d s r q <= sum of |d| s |r| |q|
 *
 * with Euclidean norms (Cauchy and Schwarz). In f32 the codes' products are exact; each term is rounded once in d s and at most n
 * times in a chain of n links, so that both chains are off by at most e times the sum of |d| s 128 sqrt(32) |q|, where e =
 * (n + 1) u / (1 - (n + 1) u) and u = 2^-24. Hence the exact chain is at most the coarse one plus
 *
 *     sum of |d| s |q| (|r| + p), p = 2 e 128 sqrt(32)
 *
 * As b >= |r| UNITS and b >= LEAST, |r| + p <= b (1 / UNITS + p / LEAST). The chain that sums this is rounded itself, n + 3 times
 * with the factor and its product with d, for which n + 8 times 2^-23 is enough; what underflows, here and there, is less than
 * n 2^-110 in all, and the kernel begins at 2^-80. */
static void find_reach(const slm_codes *x, float *reach) {
    int64_t n = x->k / SLM_GROUP;
    double e = (double)(n + 1) * 0x1p-24, p = 2 * (e / (1 - e)) * 128 * sqrt(32);
    double unit = (1 / SLM_RESIDUE_UNITS + p / SLM_LEAST_RESIDUE) * (1 + (double)(n + 8) * 0x1p-23);
    for (int64_t g = 0; g < n; g++) {
        int32_t squares = 0;
        for (int64_t i = g * SLM_GROUP; i < (g + 1) * SLM_GROUP; i++) squares += x->codes[i] * x->codes[i];
        reach[g] = (float)(x->scales[g] * sqrt(squares) * unit);
    }
}

/* Panels that are likely to hold the largest logits: those with the largest coarse products. */
typedef struct likely {
    int64_t n, most;
    int64_t panels[SLM_MOST_SCREENED];
    float coarse[SLM_MOST_SCREENED]; /* falling */
} likely;

static void consider(likely *l, int64_t panel, float coarse) {
    if (l->n == l->most && !(coarse > l->coarse[l->n - 1])) return;
    int64_t at = l->n < l->most ? l->n++ : l->n - 1;
    for (; at && coarse > l->coarse[at - 1]; at--) {
        l->panels[at] = l->panels[at - 1];
        l->coarse[at] = l->coarse[at - 1];
    }
    l->panels[at] = panel;
    l->coarse[at] = coarse;
}

/* The limits of panels first .. last - 1, and which of them are likely. */
static void find_limits(const slm_kernels *kernels, const slm_input *input, const slm_head *head, const float *reach,
                        int64_t first, int64_t last, likely *l, float *coarse) {
    float margin = head->cap * 0x1p-20f; /* a cap is monotone but for its rounding, less than 8 u cap either way */
    kernels->screen(&head->dense->w, first, last, &input->codes, reach, MOST_SPREAD, coarse, head->limits + first);
    slm_head_finish(kernels, head, head->limits + first, last - first);
    for (int64_t p = first; p < last; p++) {
        head->limits[p] += margin;
        consider(l, p, coarse[p - first]);
    }
}

/* The exact logits of panels first .. last - 1 are offered. */
static void run_exactly(const slm_kernels *kernels, const slm_input *input, const slm_head *head, int64_t first, int64_t last,
                        kept *k, const slm_linear_scratch *scratch) {
    int64_t n = slm_min64(last * ROWS, k->choice->n_rows) - first * ROWS;
    run_panels(kernels, input, head, first, last, scratch->y, 0, scratch);
    if (!slm_head_finish(kernels, head, scratch->y, n)) k->finite = false;
    if (k->finite) offer_all(kernels, k, scratch->y, n, first * ROWS);
}

/* This thread's share of the rows, for one token. */
static void run_screened(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_head *head,
                         slm_choice *choice, const slm_linear_scratch *scratch) {
    const slm_matrix *w = &head->dense->w;
    float *least = least_of(head), most = -INFINITY, *reach = scratch->d;
    likely l = {.most = slm_max64(choice->top, 1)};
    int64_t begin, end, n_ran = 0;
    share(team, team->index, w, choice, &begin, &end);
    begin = slm_div_up(begin, ROWS);
    end = slm_div_up(end, ROWS);
    find_reach(&input->codes, reach);
    for (int64_t p = begin; p < end && !slm_team_cancelled(team); p += BLOCK_PANELS)
        find_limits(kernels, input, head, reach, p, slm_min64(p + BLOCK_PANELS, end), &l, scratch->y);
    kept k = keep(team, team->index, w, choice);
    for (int64_t i = 0; i < l.n; i++) run_exactly(kernels, input, head, l.panels[i], l.panels[i] + 1, &k, scratch);
    least[team->index] = k.least;
    slm_team_barrier(team);
    for (int i = 0; i < team->count; i++) most = least[i] > most ? least[i] : most;
    k = keep(team, team->index, w, choice);
    for (int64_t p = begin, next; p < end && !slm_team_cancelled(team); p = next) {
        next = p + 1;
        if (head->limits[p] < most) continue;
        while (next < end && next < p + BLOCK_PANELS && !(head->limits[next] < most)) next++;
        run_exactly(kernels, input, head, p, next, &k, scratch);
        n_ran += next - p;
    }
    ran_of(team, head)[team->index] = (float)n_ran;
    close_kept(&k);
}

/* After a step that was screened, or rested, and before the next. */
static void judge(const slm_team *team, const slm_head *head, bool screened) {
    float *rest = rest_of(head), n_ran = 0;
    if (!screened) {
        *rest -= 1;
        return;
    }
    for (int i = 0; i < team->count; i++) n_ran += ran_of(team, head)[i];
    bool lost = 5 * n_ran > 2 * (float)head->dense->w.n_panels;
    *rest = !lost ? 0 : *rest == 0 ? 1 : 1 + REST;
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
    if (some.low) some.low += first * input->low_ld;
    some.codes.codes += first * input->codes.k;
    some.codes.sums += first * groups;
    some.codes.scales += first * groups;
    some.codes.scaled_sums += first * groups;
    return some;
}

bool slm_head_choose(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_head *head,
                     slm_choice *choices, const slm_linear_scratch *scratch) {
    bool alone = head->dense->w.form == SLM_FORM_BLAS, may_screen = can_screen(input, head, choices);
    bool screened = may_screen && *rest_of(head) <= 1;
    for (int64_t t = 0, n; t < input->n_tokens; t += n) {
        for (n = 1; !alone && !choices[t].allowed && n < MOST_TOKENS && t + n < input->n_tokens && !choices[t + n].allowed;) n++;
        slm_input some = some_tokens(input, t, n);
        if (screened) {
            run_screened(kernels, team, &some, head, &choices[t], scratch);
        } else if (choices[t].allowed) {
            run_allowed(kernels, team, &some, head, &choices[t], scratch);
        } else {
            run_rows(kernels, team, &some, head, choices + t, scratch);
        }
    }
    slm_team_barrier(team);
    int64_t begin, end;
    slm_team_range(team, input->n_tokens, &begin, &end);
    bool finite = true;
    if (may_screen && begin < end) judge(team, head, screened);
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        merge(team, &head->dense->w, &choices[t]);
        finite = finite && choices[t].count;
    }
    return finite;
}
