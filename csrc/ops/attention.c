/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/attention.h"

#include <math.h>
#include <string.h>

#include "base/arith.h"

enum { SEGMENT = SLM_SEGMENT_POSITIONS, ROWS = SLM_ATTENTION_ROWS };

/* Queries of `n_heads` heads from `head` on, all of one KV head, at tokens token .. token + n_tokens - 1 of a span. Row = token,
 * then head. */
typedef struct block {
    const slm_kv_span *span;
    int64_t kv_head, head, n_heads, token, n_tokens;
} block;

/* K of the block's head in the page that holds a position; V follows at k_bytes. */
static const uint8_t *page_of(const slm_attention *a, const block *b, int64_t position) {
    const uint8_t *page = b->span->pages[position / SLM_PAGE_POSITIONS * a->shape->n_layers + a->layer];
    return page + (size_t)b->kv_head * a->shape->head_bytes;
}

/* A row sees the positions from .. to - 1. */
static int64_t seen_to(const slm_attention *a, const block *b, int64_t row) {
    return a->bidirectional ? b->span->n_tokens : b->span->first_position + b->token + row / b->n_heads + 1;
}

static int64_t seen_from(const slm_attention *a, const block *b, int64_t row) {
    return a->window ? slm_max64(0, seen_to(a, b, row) - a->window) : 0;
}

/* Scores of rows row .. n_rows - 1 against the panels first .. n_panels - 1 of the segment that begins at `begin`. */
static void score_segment(const slm_kernels *kernels, const slm_attention *a, const block *b, int64_t row, int64_t n_rows,
                          int64_t begin, int64_t first, int64_t n_panels, const slm_attention_scratch *scratch) {
    const slm_kv_shape *shape = a->shape;
    for (int64_t panel = first; panel < n_panels; panel++) {
        int64_t position = begin + panel * 16;
        const uint8_t *k = page_of(a, b, position) + (size_t)(position % SLM_PAGE_POSITIONS / 16) * shape->panel_bytes;
        kernels->attention_scores(scratch->q + row * shape->width, shape->width, n_rows - row, k, shape->bf16, shape->head_dim,
                                  scratch->scores + row * SEGMENT + panel * 16, SEGMENT);
    }
    for (int64_t r = row; a->soft_cap > 0 && r < n_rows; r++) {
        kernels->soft_cap(scratch->scores + r * SEGMENT + first * 16, a->soft_cap, (n_panels - first) * 16);
    }
}

static void sum_values(const slm_kernels *kernels, const slm_attention *a, const block *b, int64_t row, int64_t n_rows,
                       int64_t begin, int64_t from, int64_t end, const slm_attention_scratch *scratch) {
    const slm_kv_shape *shape = a->shape;
    memset(scratch->segment, 0, (size_t)(n_rows * shape->width) * sizeof(float));
    for (int64_t position = begin + (from - begin) / SLM_PAGE_POSITIONS * SLM_PAGE_POSITIONS; position < end;
         position += SLM_PAGE_POSITIONS) {
        const uint8_t *v = page_of(a, b, position) + shape->k_bytes;
        int64_t n = slm_min64(SLM_PAGE_POSITIONS, end - position);
        kernels->attention_values(scratch->scores + row * SEGMENT + (position - begin), SEGMENT, n_rows - row, v, shape->bf16, n,
                                  shape->width, scratch->segment + row * shape->width, shape->width);
    }
}

static void run_block(const slm_kernels *kernels, slm_team *team, const slm_attention *a, const block *b,
                      const slm_attention_scratch *scratch) {
    const slm_kv_shape *shape = a->shape;
    int64_t n_rows = b->n_tokens * b->n_heads, width = shape->width, head_dim = shape->head_dim;
    int64_t first_token = b->span->first_token + b->token;
    float max[ROWS], sum[ROWS];
    for (int64_t r = 0; r < n_rows; r++) {
        const float *q = a->q + (first_token + r / b->n_heads) * a->ldq + (b->head + r % b->n_heads) * head_dim;
        memcpy(scratch->q + r * width, q, (size_t)head_dim * sizeof *q);
        max[r] = -INFINITY;
        sum[r] = 0;
    }
    memset(scratch->out, 0, (size_t)(n_rows * width) * sizeof(float));
    int64_t seen = seen_to(a, b, n_rows - 1);
    for (int64_t begin = seen_from(a, b, 0) / SEGMENT * SEGMENT, row = 0; begin < seen; begin += SEGMENT) {
        if (slm_team_cancelled(team)) return;
        int64_t end = slm_min64(begin + SEGMENT, seen), n_panels = slm_div_up(end - begin, 16), last = n_rows;
        while (seen_to(a, b, row) <= begin) row++;             /* the first rows may end before this segment */
        while (seen_from(a, b, last - 1) >= end) last--;       /* the windows of the last rows may begin after it */
        int64_t from = slm_max64(begin, seen_from(a, b, row)); /* before it every probability is 0 */
        score_segment(kernels, a, b, row, last, begin, (from - begin) / 16, n_panels, scratch);
        float segment_max[ROWS], segment_sum[ROWS];
        for (int64_t r = row; r < last; r++) {
            int64_t first = slm_max64(seen_from(a, b, r) - begin, 0), valid = slm_min64(seen_to(a, b, r), end) - begin;
            kernels->attention_softmax(scratch->scores + r * SEGMENT, first, valid, n_panels * 16, shape->bf16, &segment_max[r],
                                       &segment_sum[r]);
        }
        sum_values(kernels, a, b, row, last, begin, from, end, scratch);
        for (int64_t r = row; r < last; r++) {
            kernels->attention_merge(&max[r], &sum[r], scratch->out + r * width, segment_max[r], segment_sum[r],
                                     scratch->segment + r * width, width);
        }
    }
    for (int64_t r = 0; r < n_rows; r++) {
        kernels->scale(scratch->out + r * width, 1.0f / sum[r], width);
        float *out = a->out + (first_token + r / b->n_heads) * a->ldo + (b->head + r % b->n_heads) * head_dim;
        memcpy(out, scratch->out + r * width, (size_t)head_dim * sizeof *out);
    }
}

/* How the queries of a span fall into blocks: `parts` of a group's heads, blocks of `tokens`. */
typedef struct division {
    int64_t group, heads, parts, tokens, n_blocks;
} division;

static division divide(const slm_attention *a, const slm_kv_span *span, int n_threads) {
    division d = {.group = a->n_heads / a->shape->n_kv_heads};
    /* One token alone: a group's heads are shared out too, else few KV heads would leave threads idle. */
    int64_t wanted = a->n_spans == 1 && span->n_tokens == 1 ? slm_div_up(d.group, n_threads) : d.group;
    d.heads = slm_min64(wanted, ROWS);
    d.parts = slm_div_up(d.group, d.heads);
    d.tokens = slm_max64(1, ROWS / d.heads);
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

void slm_attention_run(const slm_kernels *kernels, slm_team *team, const slm_attention *a, const slm_attention_scratch *scratch) {
    int64_t item = slm_team_take(team);
    for (int64_t i = 0, before = 0; i < a->n_spans; i++) { /* blocks of earlier spans come before */
        division d = divide(a, &a->spans[i], team->count);
        for (; item - before < d.n_blocks && !slm_team_cancelled(team); item = slm_team_take(team)) {
            block b = block_at(a, &a->spans[i], &d, item - before);
            run_block(kernels, team, a, &b, scratch);
        }
        before += d.n_blocks;
    }
}
