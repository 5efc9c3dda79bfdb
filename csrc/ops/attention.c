/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/attention.h"

#include <math.h>
#include <string.h>

#include "base/arith.h"

enum {
    SEGMENT = SLM_SEGMENT_POSITIONS,
    ROWS = SLM_ATTENTION_ROWS,
    PAGE_PANELS = SLM_PAGE_POSITIONS / 16,
    SPLIT_TOKENS = 8 /* more give enough blocks for all threads */
};

/* Queries of `n_heads` heads from `head` on, all of one KV head, at tokens token .. token + n_tokens - 1 of a span. Row = token,
 * then head. */
typedef struct block {
    const slm_kv_span *span;
    int64_t kv_head, head, n_heads, token, n_tokens;
    int64_t ahead; /* positions from a segment to the one that its thread is likely to run next, which is asked for; 0: none is */
} block;

/* K of the block's head in the page that holds a position; V follows at k_bytes. */
static const uint8_t *page_of(const slm_attention *a, const block *b, int64_t position) {
    const uint8_t *page = b->span->pages[position / SLM_PAGE_POSITIONS * a->shape->n_layers + a->layer];
    return page + (size_t)b->kv_head * a->shape->head_bytes;
}

/* A token of a span sees the positions from .. to - 1. */
static int64_t seen_to(const slm_attention *a, const slm_kv_span *span, int64_t token) {
    return a->bidirectional ? span->n_tokens : span->first_position + token + 1;
}

static int64_t seen_from(const slm_attention *a, const slm_kv_span *span, int64_t token) {
    return a->window ? slm_max64(0, seen_to(a, span, token) - a->window) : 0;
}

/* The segments that tokens token .. token + n_tokens - 1 see: *first .. *end - 1. */
static void segments_of(const slm_attention *a, const slm_kv_span *span, int64_t token, int64_t n_tokens, int64_t *first,
                        int64_t *end) {
    *first = seen_from(a, span, token) / SEGMENT;
    *end = slm_div_up(seen_to(a, span, token + n_tokens - 1), SEGMENT);
}

/* Few queries read pages faster than they come from memory, which would rest during each op that reads none: values are asked for
 * while scores are computed, and the next segment's keys while values are summed. */
static void ask_for(const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i += 64) __builtin_prefetch(bytes + i, 0, 2);
}

/* Scores of n_rows rows from `row` on against the panels first .. n_panels - 1 of the segment that begins at `begin`. */
static void score_segment(const slm_kernels *kernels, const slm_attention *a, const block *b, int64_t row, int64_t n_rows,
                          int64_t begin, int64_t first, int64_t n_panels, const slm_attention_scratch *scratch) {
    const slm_kv_shape *shape = a->shape;
    for (int64_t panel = first, n; panel < n_panels; panel += n) {
        int64_t in_page = panel % PAGE_PANELS;
        n = slm_min64(PAGE_PANELS - in_page, n_panels - panel);
        const uint8_t *k = page_of(a, b, begin + panel * 16);
        if (b->ahead) ask_for(k + shape->k_bytes, shape->head_bytes - shape->k_bytes);
        kernels->attention_scores(scratch->q + row * shape->width, shape->width, n_rows, k + (size_t)in_page * shape->panel_bytes,
                                  shape->keys, shape->head_dim, n, scratch->scores + row * SEGMENT + panel * 16, SEGMENT);
    }
    for (int64_t r = row; a->soft_cap > 0 && r < row + n_rows; r++) {
        kernels->soft_cap(scratch->scores + r * SEGMENT + first * 16, a->soft_cap, (n_panels - first) * 16);
    }
}

static void sum_values(const slm_kernels *kernels, const slm_attention *a, const block *b, int64_t row, int64_t n_rows,
                       int64_t begin, int64_t from, int64_t end, const slm_attention_scratch *scratch) {
    const slm_kv_shape *shape = a->shape;
    float *out = scratch->segment + row * shape->width;
    memset(out, 0, (size_t)(n_rows * shape->width) * sizeof *out);
    for (int64_t position = from / SLM_PAGE_POSITIONS * SLM_PAGE_POSITIONS; position < end; position += SLM_PAGE_POSITIONS) {
        const uint8_t *v = page_of(a, b, position) + shape->k_bytes;
        if (b->ahead && position + b->ahead < seen_to(a, b->span, b->token))
            ask_for(page_of(a, b, position + b->ahead), shape->k_bytes);
        int64_t n = slm_min64(SLM_PAGE_POSITIONS, end - position);
        kernels->attention_values(scratch->scores + row * SEGMENT + (position - begin), SEGMENT, n_rows, v, shape->values, n,
                                  shape->width, out, shape->width);
    }
}

static void gather_queries(const slm_attention *a, const block *b, const slm_attention_scratch *scratch) {
    int64_t head_dim = a->shape->head_dim, first_token = b->span->first_token + b->token;
    for (int64_t r = 0; r < b->n_tokens * b->n_heads; r++) {
        const float *q = a->q + (first_token + r / b->n_heads) * a->ldq + (b->head + r % b->n_heads) * head_dim;
        memcpy(scratch->q + r * a->shape->width, q, (size_t)head_dim * sizeof *q);
    }
}

/* The softmax of one segment for the rows that see some of it, *row .. *end_row - 1: max[r], sum[r] and row r of
 * scratch->segment. */
static void run_segment(const slm_kernels *kernels, const slm_attention *a, const block *b, int64_t segment, int64_t *row,
                        int64_t *end_row, float *max, float *sum, const slm_attention_scratch *scratch) {
    int64_t begin = segment * SEGMENT, first_token = b->token, last_token = b->token + b->n_tokens - 1;
    int64_t end = slm_min64(begin + SEGMENT, seen_to(a, b->span, last_token)), n_panels = slm_div_up(end - begin, 16);
    while (seen_to(a, b->span, first_token) <= begin) first_token++; /* the first tokens may end before this segment */
    while (seen_from(a, b->span, last_token) >= end) last_token--;   /* the windows of the last ones may begin after it */
    *row = (first_token - b->token) * b->n_heads;
    *end_row = (last_token + 1 - b->token) * b->n_heads;
    int64_t n_rows = *end_row - *row, from = slm_max64(begin, seen_from(a, b->span, first_token)); /* no probability before it */
    bool bf16 = a->shape->values == SLM_KV_BF16;
    score_segment(kernels, a, b, *row, n_rows, begin, (from - begin) / 16, n_panels, scratch);
    for (int64_t r = *row; r < *end_row; r++) {
        int64_t token = b->token + r / b->n_heads, first = slm_max64(seen_from(a, b->span, token) - begin, 0);
        int64_t valid = slm_min64(seen_to(a, b->span, token), end) - begin;
        kernels->attention_softmax(scratch->scores + r * SEGMENT, first, valid, n_panels * 16, bf16, &max[r], &sum[r]);
    }
    sum_values(kernels, a, b, *row, n_rows, begin, from, end, scratch);
}

/* The output of one head at one token of the step, from its sums over all segments. */
static void finish(const slm_kernels *kernels, const slm_attention *a, int64_t token, int64_t head, float sum, float *values) {
    int64_t head_dim = a->shape->head_dim;
    kernels->scale(values, 1.0f / sum, a->shape->width);
    memcpy(a->out + token * a->ldo + head * head_dim, values, (size_t)head_dim * sizeof *values);
}

/* ---- many queries: a thread runs all segments of a block ------------------------------------------------------------- */

static void run_block(const slm_kernels *kernels, slm_team *team, const slm_attention *a, const block *b,
                      const slm_attention_scratch *scratch) {
    int64_t n_rows = b->n_tokens * b->n_heads, width = a->shape->width, segment, end;
    float max[ROWS], sum[ROWS], segment_max[ROWS], segment_sum[ROWS];
    gather_queries(a, b, scratch);
    for (int64_t r = 0; r < n_rows; r++) max[r] = -INFINITY, sum[r] = 0;
    memset(scratch->out, 0, (size_t)(n_rows * width) * sizeof(float));
    for (segments_of(a, b->span, b->token, b->n_tokens, &segment, &end); segment < end; segment++) {
        if (slm_team_cancelled(team)) return;
        int64_t row, end_row;
        run_segment(kernels, a, b, segment, &row, &end_row, segment_max, segment_sum, scratch);
        for (int64_t r = row; r < end_row; r++) {
            kernels->attention_merge(&max[r], &sum[r], scratch->out + r * width, segment_max[r], segment_sum[r],
                                     scratch->segment + r * width, width);
        }
    }
    for (int64_t r = 0; r < n_rows; r++) {
        finish(kernels, a, b->span->first_token + b->token + r / b->n_heads, b->head + r % b->n_heads, sum[r],
               scratch->out + r * width);
    }
}

/* ---- few queries: a thread runs one segment of a block; when a wave of segments is done, they are merged --------------- */

/* Segments first .. first + n - 1, whose partials are held at one time; those of a span may begin later or end before. */
typedef struct wave {
    int64_t first, n;
} wave;

/* Of head `head` at token `token` of the step: 0 is what has been merged, 1 + i segment i of the wave. */
static int64_t partial_of(const slm_attention *a, const wave *w, int64_t token, int64_t head, int64_t i) {
    return (token * a->n_heads + head) * (1 + w->n) + i;
}

static void run_partial(const slm_kernels *kernels, const slm_attention *a, const wave *w, const block *b, int64_t segment,
                        const slm_attention_scratch *scratch) {
    const slm_attention_partials *p = a->partials;
    int64_t width = a->shape->width, row, end_row, first, end;
    float max[ROWS], sum[ROWS];
    segments_of(a, b->span, b->token, b->n_tokens, &first, &end);
    if (segment < first || segment >= end) return; /* other tokens of the span see it */
    gather_queries(a, b, scratch);
    run_segment(kernels, a, b, segment, &row, &end_row, max, sum, scratch);
    for (int64_t r = row; r < end_row; r++) {
        int64_t token = b->span->first_token + b->token + r / b->n_heads, head = b->head + r % b->n_heads;
        int64_t at = partial_of(a, w, token, head, 1 + segment - w->first);
        p->max[at] = max[r];
        p->sum[at] = sum[r];
        memcpy(p->out + at * width, scratch->segment + r * width, (size_t)width * sizeof(float));
    }
}

/* Merges what the segments of the wave gave one head at one token. */
static void merge_partials(const slm_kernels *kernels, const slm_attention *a, const wave *w, const slm_kv_span *span,
                           int64_t token, int64_t head) {
    const slm_attention_partials *p = a->partials;
    int64_t width = a->shape->width, first, end, at = partial_of(a, w, span->first_token + token, head, 0);
    float *out = p->out + at * width;
    segments_of(a, span, token, 1, &first, &end);
    for (int64_t segment = slm_max64(first, w->first); segment < slm_min64(end, w->first + w->n); segment++) {
        int64_t from = at + 1 + segment - w->first;
        if (segment == first) {
            p->max[at] = -INFINITY;
            p->sum[at] = 0;
            memset(out, 0, (size_t)width * sizeof *out);
        }
        kernels->attention_merge(&p->max[at], &p->sum[at], out, p->max[from], p->sum[from], p->out + from * width, width);
        if (segment == end - 1) finish(kernels, a, span->first_token + token, head, p->sum[at], out);
    }
}

/* ---- the split over threads -------------------------------------------------------------------------------------------- */

/* How the queries of a span fall into blocks: `parts` of a group's heads, blocks of `tokens`. */
typedef struct division {
    int64_t group, heads, parts, tokens, n_blocks;
} division;

static division divide(const slm_attention *a, const slm_kv_span *span, int64_t least_parts) {
    division d = {.group = a->n_heads / a->shape->n_kv_heads};
    d.heads = slm_min64(slm_div_up(d.group, least_parts), ROWS);
    d.parts = slm_div_up(d.group, d.heads);
    d.tokens = slm_max64(1, ROWS / d.heads);
    while (d.tokens > 1 && d.tokens * d.heads % 4) d.tokens--; /* kernels run four rows at once */
    d.n_blocks = slm_div_up(span->n_tokens, d.tokens) * a->shape->n_kv_heads * d.parts;
    return d;
}

/* The longest blocks come first, so that no thread is left with one at the end. */
static block block_at(const slm_attention *a, const slm_kv_span *span, const division *d, int64_t item) {
    int64_t token_block = (d->n_blocks - 1 - item) / (a->shape->n_kv_heads * d->parts), token = token_block * d->tokens;
    int64_t kv_head = item / d->parts % a->shape->n_kv_heads, head = item % d->parts * d->heads;
    return (block){.span = span,
                   .kv_head = kv_head,
                   .head = kv_head * d->group + head,
                   .n_heads = slm_min64(d->heads, d->group - head),
                   .token = token,
                   .n_tokens = slm_min64(d->tokens, span->n_tokens - token)};
}

static void run_blocks(const slm_kernels *kernels, slm_team *team, const slm_attention *a, const slm_attention_scratch *scratch) {
    /* Where blocks are few, a group's heads are shared out too, else threads would be idle; of one token alone among all. */
    int64_t n_blocks = 0, item = slm_team_take(team, 0);
    for (int64_t i = 0; i < a->n_spans; i++) n_blocks += divide(a, &a->spans[i], 1).n_blocks;
    bool single = a->n_spans == 1 && a->spans->n_tokens == 1;
    int64_t least_parts = single ? team->count : slm_div_up(team->count, n_blocks);
    for (int64_t i = 0, before = 0; i < a->n_spans; i++) { /* blocks of earlier spans come before */
        division d = divide(a, &a->spans[i], least_parts);
        for (; item - before < d.n_blocks && !slm_team_cancelled(team); item = slm_team_take(team, 0)) {
            block b = block_at(a, &a->spans[i], &d, item - before);
            if (b.n_tokens == 1) b.ahead = SEGMENT;
            run_block(kernels, team, a, &b, scratch);
        }
        before += d.n_blocks;
    }
}

static void run_wave(const slm_kernels *kernels, slm_team *team, const slm_attention *a, const wave *w,
                     const slm_attention_scratch *scratch) {
    int64_t item = slm_team_take(team, 0);
    for (int64_t i = 0, before = 0; i < a->n_spans; i++) {
        const slm_kv_span *span = &a->spans[i];
        division d = divide(a, span, 1);
        int64_t first, end;
        segments_of(a, span, 0, span->n_tokens, &first, &end);
        first = slm_max64(first, w->first);
        int64_t n_segments = slm_max64(0, slm_min64(end, w->first + w->n) - first), n_items = n_segments * d.n_blocks;
        for (; item - before < n_items && !slm_team_cancelled(team); item = slm_team_take(team, 0)) {
            block b = block_at(a, span, &d, (item - before) / n_segments);
            b.ahead = team->count * SEGMENT; /* threads take turns */
            run_partial(kernels, a, w, &b, first + (item - before) % n_segments, scratch);
        }
        before += n_items;
    }
    slm_team_barrier(team);
    int64_t begin, end, n_tokens = 0;
    for (int64_t i = 0; i < a->n_spans; i++) n_tokens += a->spans[i].n_tokens;
    slm_team_range(team, n_tokens * a->n_heads, &begin, &end);
    for (int64_t i = begin; i < end && !slm_team_cancelled(team); i++) {
        const slm_kv_span *span = a->spans;
        while (i / a->n_heads >= span->first_token + span->n_tokens) span++;
        merge_partials(kernels, a, w, span, i / a->n_heads - span->first_token, i % a->n_heads);
    }
}

void slm_attention_run(const slm_kernels *kernels, slm_team *team, const slm_attention *a, const slm_attention_scratch *scratch) {
    int64_t n_tokens = 0, first_segment = INT64_MAX, end_segment = 0;
    for (int64_t i = 0; i < a->n_spans; i++) {
        int64_t first, end;
        segments_of(a, &a->spans[i], 0, a->spans[i].n_tokens, &first, &end);
        n_tokens += a->spans[i].n_tokens;
        first_segment = slm_min64(first_segment, first);
        end_segment = slm_max64(end_segment, end);
    }
    if (n_tokens > SPLIT_TOKENS || end_segment - first_segment == 1) {
        run_blocks(kernels, team, a, scratch);
        return;
    }
    for (wave w = {first_segment, SLM_ATTENTION_PARTIALS / n_tokens - 1}; w.first < end_segment; w.first += w.n) {
        if (w.first > first_segment) slm_team_barrier(team); /* the last wave's partials have been merged */
        run_wave(kernels, team, a, &w, scratch);
    }
}

/* ---- probabilities, on request ------------------------------------------------------------------------------------------ */

/* Scores of one query against what it sees become their softmax. */
static void normalize(const slm_kernels *kernels, float *scores, int64_t n) {
    float top = kernels->largest(scores, n);
    double total = 0;
    for (int64_t i = 0; i < n; i++) total += scores[i] = expf(scores[i] - top);
    for (int64_t i = 0; i < n; i++) scores[i] = (float)(scores[i] / total);
}

void slm_attention_weights(const slm_kernels *kernels, slm_team *team, const slm_attention *a,
                           const slm_attention_scratch *scratch, float *weights, int64_t ld, int64_t n_keys) {
    const slm_kv_span *span = a->spans;
    int64_t begin, end, group = a->n_heads / a->shape->n_kv_heads;
    slm_team_range(team, span->n_tokens * a->n_heads, &begin, &end);
    for (int64_t i = begin; i < end && !slm_team_cancelled(team); i++) {
        int64_t token = i / a->n_heads, head = i % a->n_heads, segment, end_segment;
        int64_t from = seen_from(a, span, token), to = seen_to(a, span, token);
        block b = {.span = span, .kv_head = head / group, .head = head, .n_heads = 1, .token = token, .n_tokens = 1};
        float *row = weights + head * ld + token * n_keys;
        memset(row, 0, (size_t)n_keys * sizeof *row);
        gather_queries(a, &b, scratch);
        for (segments_of(a, span, token, 1, &segment, &end_segment); segment < end_segment; segment++) {
            int64_t start = segment * SEGMENT, first = slm_max64(from - start, 0), n = slm_min64(to - start, SEGMENT);
            score_segment(kernels, a, &b, 0, 1, start, first / 16, slm_div_up(n, 16), scratch);
            memcpy(row + start + first, scratch->scores + first, (size_t)(n - first) * sizeof *row);
        }
        normalize(kernels, row + from, to - from);
    }
}
