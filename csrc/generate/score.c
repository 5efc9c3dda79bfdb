/* SPDX-License-Identifier: Apache-2.0
 * score.c: log-probabilities of given tokens. Texts are run as the trie that they make: what several begin with in common is a
 * branch that runs once; where they part its session is forked. Branches that are ready are columns of the same step. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/threads.h"
#include "generate/logprob.h"
#include "model/session.h"

enum {
    MOST_LOGITS = 16 << 20, /* of one step, but for one row at least */
};

/* Tokens that a group of texts has in common behind what its session held before. */
typedef struct branch {
    slm_session *session; /* holds `at` tokens of them */
    size_t first, end;    /* its texts in the order of the trie */
    int64_t at, to;       /* runs up to here */
    int64_t scored;       /* position of the first logits that a text of the group asks for */
    size_t kv_bytes;      /* that it may come to hold beside what it shares */
} branch;

typedef struct scoring {
    slm_model *model;
    const slm_call *call;
    slm_clock clock;
    slm_scored *texts, **order; /* [n]; order: as they lie in the trie */
    int64_t *shared;            /* [n] fed tokens that order[i] has in common with order[i - 1] */
    branch *open;    /* [n_open] complete ones from which groups are still to go on, the deepest last; `first`: the next */
    branch *running; /* [n_running] */
    slm_part *parts; /* [n_running] of this step */
    size_t n, n_open, n_running, n_ended;
    int64_t most_tokens, most_rows; /* of one step */
    float *logits;                  /* [most_rows, vocab_size] */
    slm_row *rows;                  /* [most_rows] */
    int64_t n_rows;
} scoring;

/* ---- the trie -------------------------------------------------------------------------------------------------------------- */

/* The last token of a text is not fed: nothing is asked behind it. */
static int64_t n_fed(const slm_scored *text) {
    return text->n_tokens - 1;
}

/* Where the logits stand that text->logprobs begins with. */
static int64_t first_scored(const slm_scored *text) {
    return n_fed(text) - text->n_scored;
}

/* Lexicographic by what is fed, the shorter first. */
static int compare(const void *a, const void *b) {
    const slm_scored *x = *(slm_scored *const *)a, *y = *(slm_scored *const *)b;
    int order = memcmp(x->tokens, y->tokens, (size_t)slm_min64(n_fed(x), n_fed(y)) * sizeof(int32_t));
    if (order) return order;
    if (n_fed(x) != n_fed(y)) return n_fed(x) < n_fed(y) ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int64_t common(const slm_scored *a, const slm_scored *b) {
    int64_t most = slm_min64(n_fed(a), n_fed(b)), n = 0;
    while (n < most && a->tokens[n] == b->tokens[n]) n++;
    return n;
}

static void put_in_order(scoring *s) {
    for (size_t i = 0; i < s->n; i++) s->order[i] = &s->texts[i];
    qsort(s->order, s->n, sizeof(slm_scored *), compare);
    s->shared[0] = 0;
    for (size_t i = 1; i < s->n; i++) s->shared[i] = common(s->order[i - 1], s->order[i]);
}

/* The group that goes on next from an open branch: texts with the same next token, and all tokens that they have in common. */
static branch next_group(const scoring *s, const branch *from) {
    const slm_scored *text = s->order[from->first];
    branch b = {.first = from->first, .end = from->first + 1, .at = from->at, .to = n_fed(text), .scored = first_scored(text)};
    for (; b.end < from->end && s->shared[b.end] > b.at; b.end++) {
        b.to = slm_min64(b.to, s->shared[b.end]);
        b.scored = slm_min64(b.scored, first_scored(s->order[b.end]));
    }
    b.kv_bytes = slm_session_kv_most(s->model, b.at % SLM_PAGE_POSITIONS + b.to - b.at);
    return b;
}

/* Is there room for a branch beside those that live? As in a batch: in what one full session or the weights take. */
static bool fits(const scoring *s, size_t bytes) {
    slm_model_stats stats;
    slm_model_describe(s->model, &stats);
    size_t most = stats.kv_bytes > stats.weight_bytes ? stats.kv_bytes : stats.weight_bytes;
    for (size_t i = 0; i < s->n_running; i++) {
        if (!slm_add_size(bytes, s->running[i].kv_bytes, &bytes)) return false;
    }
    for (size_t i = 0; i < s->n_open; i++) {
        if (!slm_add_size(bytes, s->open[i].kv_bytes, &bytes)) return false;
    }
    return bytes <= most;
}

/* Starts the next group of the deepest open branch, unless it has to wait; the last one takes the branch's session over. */
static slm_status let_start(scoring *s, bool *started, slm_error *error) {
    branch *from = &s->open[s->n_open - 1], b = next_group(s, from);
    *started = !s->n_running || fits(s, b.kv_bytes);
    if (!*started) return SLM_OK;
    if (b.end == from->end) {
        b.session = from->session;
        if (!slm_add_size(b.kv_bytes, from->kv_bytes, &b.kv_bytes)) b.kv_bytes = SIZE_MAX;
        s->n_open--;
    } else {
        slm_status status = slm_session_fork(from->session, &b.session, error);
        if (status) return status;
        from->first = b.end;
    }
    s->running[s->n_running++] = b;
    return SLM_OK;
}

/* All tokens of a branch have run: texts that end there are done, others go on. */
static void complete(scoring *s, branch b) {
    for (; b.first < b.end && n_fed(s->order[b.first]) == b.to; b.first++) s->n_ended++;
    if (b.first < b.end) {
        s->open[s->n_open++] = b;
    } else {
        slm_session_release(b.session);
    }
}

/* ---- one step ------------------------------------------------------------------------------------------------------------- */

/* The next tokens of a branch, as many as fit into the step; of none where there is no room for their logits. */
static slm_part part_of(const scoring *s, const branch *b, int64_t n_tokens) {
    slm_part part = {.session = b->session, .tokens = s->order[b->first]->tokens + b->at};
    part.n_tokens = slm_min64(s->most_tokens - n_tokens, b->to - b->at);
    part.n_outputs = slm_min64(part.n_tokens, slm_max64(0, b->at + part.n_tokens - b->scored));
    int64_t too_many = slm_max64(0, part.n_outputs - (s->most_rows - s->n_rows));
    part.n_tokens -= too_many;
    part.n_outputs -= too_many;
    return part;
}

/* The branches that run, in their order, and then new ones fill the step; says how many take part. */
static slm_status fill(scoring *s, int64_t *n_parts, slm_error *error) {
    int64_t n_tokens = 0;
    s->n_rows = 0;
    for (*n_parts = 0; n_tokens < s->most_tokens;) {
        if ((size_t)*n_parts == s->n_running) {
            bool started = false;
            slm_status status = s->n_open && s->n_rows < s->most_rows ? let_start(s, &started, error) : SLM_OK;
            if (status || !started) return status;
        }
        slm_part part = part_of(s, &s->running[*n_parts], n_tokens);
        if (!part.n_tokens) return SLM_OK;
        n_tokens += part.n_tokens;
        s->n_rows += part.n_outputs;
        s->parts[(*n_parts)++] = part;
    }
    return SLM_OK;
}

static void reduce_rows(void *scoring_, slm_team *team) {
    scoring *s = scoring_;
    int64_t begin, end, width = s->model->config.vocab_size;
    slm_team_range(team, s->n_rows, &begin, &end);
    for (int64_t i = begin; i < end && !slm_team_cancelled(team); i++)
        s->rows[i] = slm_row_reduce(s->model->kernels, s->logits + i * width, width);
}

/* What n rows, those of positions `first` on, say of the next tokens of a branch's texts. */
static void take(scoring *s, const branch *b, int64_t first_row, int64_t n, int64_t first) {
    for (size_t i = b->first; i < b->end; i++) {
        slm_scored *text = s->order[i];
        for (int64_t p = slm_max64(first, first_scored(text)); p < first + n; p++) {
            int64_t at = first_row + p - first;
            const slm_row *r = &s->rows[at];
            int32_t token = text->tokens[p + 1];
            double logit = s->logits[at * s->model->config.vocab_size + token];
            text->logprobs[p - first_scored(text)] = logit - r->most - r->total;
            text->greedy = text->greedy && token == r->best;
        }
    }
}

/* A step's error is about one branch, or all. */
static slm_status fail_for(const scoring *s, int64_t part, slm_error *error) {
    if (part < 0) return error->status;
    size_t index = (size_t)(s->order[s->running[part].first] - s->texts);
    char message[sizeof error->message];
    memcpy(message, error->message, sizeof message);
    snprintf(error->message, sizeof error->message, "text[%zu]: %.200s", index, message);
    return error->status;
}

static slm_status advance(scoring *s, slm_error *error) {
    int64_t n_parts, failed;
    slm_status status = fill(s, &n_parts, error);
    if (status) return status;
    slm_call call = s->call ? *s->call : (slm_call){0};
    call.prefill_chunk = s->most_tokens;
    status = slm_session_run(s->parts, n_parts, false, s->logits, NULL, &call, &s->clock, &failed, error);
    if (status) return fail_for(s, failed, error);
    if (s->n_rows) slm_threads_run(call.threads, &s->clock, reduce_rows, s);
    if (s->clock.cancelled) return slm_fail_cancelled(error);
    size_t n_left = 0, told = s->n_ended;
    for (int64_t i = 0, first_row = 0; i < (int64_t)s->n_running; i++) {
        branch b = s->running[i];
        if (i < n_parts) {
            const slm_part *part = &s->parts[i];
            b.at += part->n_tokens;
            take(s, &b, first_row, part->n_outputs, b.at - part->n_outputs);
            first_row += part->n_outputs;
        }
        if (b.at == b.to) {
            complete(s, b);
        } else {
            s->running[n_left++] = b;
        }
    }
    s->n_running = n_left;
    if (s->n_ended > told && slm_clock_ended(&s->clock, s->n_ended, s->n)) return slm_fail_cancelled(error);
    return SLM_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------- */

static slm_status check(const scoring *s, slm_error *error) {
    int64_t vocab_size = s->model->config.vocab_size;
    for (size_t i = 0; i < s->n; i++) {
        const slm_scored *t = &s->texts[i];
        if (t->n_scored < 1 || t->n_scored >= t->n_tokens) {
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i,
                            "text[%zu]: expected 1 to %lld tokens to score of its %lld, found %lld", i,
                            (long long)t->n_tokens - 1, (long long)t->n_tokens, (long long)t->n_scored);
        }
        for (int64_t at = 0; at < t->n_tokens; at++) { /* before they are fed: their logits are read one step earlier */
            if (t->tokens[at] >= 0 && t->tokens[at] < vocab_size) continue;
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i, "text[%zu]: tokens[%lld]: expected 0 to %lld, found %d", i,
                            (long long)at, (long long)vocab_size - 1, (int)t->tokens[at]);
        }
    }
    return SLM_OK;
}

static slm_status prepare(scoring *s, slm_error *error) {
    int64_t n_scored = 0, chunk = s->call ? s->call->prefill_chunk : 0;
    s->most_tokens = chunk > 0 ? chunk : SLM_PREFILL_CHUNK;
    for (size_t i = 0; i < s->n && n_scored < s->most_tokens; i++) n_scored += s->texts[i].n_scored;
    s->most_rows = slm_max64(1, MOST_LOGITS / s->model->config.vocab_size);
    s->most_rows = slm_min64(s->most_rows, slm_min64(s->most_tokens, n_scored));
    s->order = slm_alloc_array(s->n, sizeof(slm_scored *));
    s->shared = slm_alloc_array(s->n, sizeof *s->shared);
    s->open = slm_alloc_array(s->n, sizeof *s->open);
    s->running = slm_alloc_array(s->n, sizeof *s->running);
    s->parts = slm_alloc_array(s->n, sizeof *s->parts);
    s->rows = slm_alloc_array((size_t)s->most_rows, sizeof *s->rows);
    s->logits = slm_alloc_array((size_t)s->most_rows, (size_t)s->model->config.vocab_size * sizeof *s->logits);
    if (!s->order || !s->shared || !s->open || !s->running || !s->parts || !s->rows || !s->logits) return slm_fail_memory(error);
    put_in_order(s);
    for (size_t i = 0; i < s->n; i++) s->texts[i].greedy = true;
    s->open[0] = (branch){.end = s->n};
    slm_status status = slm_session_create(s->model, &s->open[0].session, error);
    s->n_open = !status;
    return status;
}

static void release(scoring *s) {
    for (size_t i = 0; i < s->n_open; i++) slm_session_release(s->open[i].session);
    for (size_t i = 0; i < s->n_running; i++) slm_session_release(s->running[i].session);
    slm_free(s->order);
    slm_free(s->shared);
    slm_free(s->open);
    slm_free(s->running);
    slm_free(s->parts);
    slm_free(s->rows);
    slm_free(s->logits);
}

slm_status slm_score(slm_model *model, slm_scored *texts, size_t n_texts, const slm_call *call, slm_error *error) {
    scoring s = {.model = model, .call = call, .texts = texts, .n = n_texts};
    if (!n_texts) return SLM_OK;
    slm_status status = check(&s, error);
    if (status) return status;
    slm_clock_start(&s.clock, call);
    status = prepare(&s, error);
    while (!status && (s.n_open || s.n_running)) status = advance(&s, error);
    release(&s);
    return status;
}
