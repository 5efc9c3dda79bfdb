/* SPDX-License-Identifier: Apache-2.0
 * batch.c: many texts at once. Prompts enter in lexicographic order, so that each shares with the one before it all that it
 * shares with any earlier one; a text that ends makes room for the next prompt. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "generate/sequence.h"

enum {
    LEAST_SHARED = 32, /* tokens: fewer cost less than a step of their own */
    MOST_ROWS = SLM_BATCH_MOST,
};

typedef struct text {
    slm_sequence sequence;
    int64_t shared;         /* tokens at the beginning that it has in common with the prompt that enters before it */
    int64_t n_shared;       /* those that had run when it entered */
    double entered, second; /* seconds of the batch: when it entered, and when its first token was there; 0: not yet */
    double ended;
} text;

typedef struct live {
    text *text;
    slm_session *session;
    int64_t branch;  /* the prompt stops here for one step, for the next one to go on from; 0: not any more */
    size_t kv_bytes; /* that it may come to hold */
} live;

struct slm_batch {
    slm_model *model;
    slm_rules rules;
    text *texts;  /* [n] as they were given: the samples of the first prompt, those of the second ... */
    text **order; /* [n] as they enter; the first `next` have entered */
    size_t n, next, n_samples;
    live live[SLM_BATCH_MOST];
    int64_t n_live;
    slm_session *trunk; /* the beginning of the prompt that entered last, as far as the next one may go on from it; or NULL */
    double seconds;     /* that all runs took so far */
    slm_status broken;  /* text was lost to this error: no going on */
};

/* ---- the order -------------------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b) {
    const text *x = *(text *const *)a, *y = *(text *const *)b;
    int64_t n = slm_min64(x->sequence.n_prompt, y->sequence.n_prompt);
    int order = memcmp(x->sequence.ids, y->sequence.ids, (size_t)n * sizeof(int32_t));
    if (order) return order;
    if (x->sequence.n_prompt != y->sequence.n_prompt) return x->sequence.n_prompt < y->sequence.n_prompt ? -1 : 1;
    return x < y ? -1 : x > y;
}

static int64_t common(const slm_sequence *a, const slm_sequence *b) {
    int64_t most = slm_min64(a->n_prompt, b->n_prompt), n = 0;
    while (n < most && a->ids[n] == b->ids[n]) n++;
    return n;
}

static void put_in_order(slm_batch *b) {
    for (size_t i = 0; i < b->n; i++) b->order[i] = &b->texts[i];
    if (b->n) qsort(b->order, b->n, sizeof *b->order, compare);
    for (size_t i = 1; i < b->n; i++) {
        text *t = b->order[i];
        /* At least its last token has to run, for its logits. */
        t->shared = slm_min64(common(&b->order[i - 1]->sequence, &t->sequence), t->sequence.n_prompt - 1);
    }
}

slm_status slm_batch_create(slm_model *model, slm_tokenizer *tokenizer, const slm_prompt *prompts, size_t n_prompts,
                            const slm_generate_options *options, slm_batch **out, slm_error *error) {
    slm_batch *b = slm_alloc_zero(1, sizeof *b);
    if (!b) return slm_fail_memory(error);
    b->model = slm_model_retain(model);
    b->n_samples = (size_t)slm_max64(1, options->n);
    size_t n;
    bool fits_size = slm_mul_size(n_prompts, b->n_samples, &n);
    b->texts = fits_size ? slm_alloc_zero(n, sizeof *b->texts) : NULL;
    b->order = fits_size ? slm_alloc_array(n, sizeof *b->order) : NULL;
    slm_status status = b->texts && b->order ? SLM_OK : slm_fail_memory(error);
    int64_t n_rows = options->draft || n > MOST_ROWS ? MOST_ROWS : (int64_t)n;
    if (!status) status = slm_rules_create(&b->rules, model, tokenizer, options, n_rows, error);
    for (; !status && b->n < n; b->n++) {
        size_t index = b->n / b->n_samples;
        const slm_prompt *p = &prompts[index];
        uint64_t sample = options->sample + b->n % b->n_samples;
        status = slm_sequence_init(&b->texts[b->n].sequence, p->tokens, p->n_tokens, 0, 0, sample, error);
        b->texts[b->n].sequence.index = b->n;
        if (status == SLM_BAD_ARGUMENT)
            slm_fail(error, status, (int64_t)index, "prompt[%zu]: expected at least one token", index);
    }
    if (status) {
        slm_batch_release(b);
        return status;
    }
    put_in_order(b);
    *out = b;
    return SLM_OK;
}

void slm_batch_release(slm_batch *b) {
    if (!b) return;
    for (int64_t i = 0; i < b->n_live; i++) slm_session_release(b->live[i].session);
    for (size_t i = 0; i < b->n; i++) slm_sequence_release(&b->texts[i].sequence);
    slm_session_release(b->trunk);
    slm_rules_release(&b->rules);
    slm_free(b->texts);
    slm_free(b->order);
    slm_model_release(b->model);
    slm_free(b);
}

/* ---- one enters ------------------------------------------------------------------------------------------------------- */

static size_t kv_bytes_of(const slm_batch *b, const text *t) {
    int64_t most = b->rules.context - t->sequence.n_prompt;
    int64_t positions = t->sequence.n_prompt + slm_max64(0, slm_min64(most, b->rules.options.max_tokens));
    return slm_session_kv_most(b->model, positions);
}

/* Is there room for `bytes` of keys and values beside those that live texts may come to hold? */
static bool fits(const slm_batch *b, size_t bytes) {
    slm_model_stats stats;
    slm_model_describe(b->model, &stats);
    size_t most = stats.kv_bytes > stats.weight_bytes ? stats.kv_bytes : stats.weight_bytes;
    for (int64_t i = 0; i < b->n_live; i++) {
        if (!slm_add_size(bytes, b->live[i].kv_bytes, &bytes)) return false;
    }
    return !b->n_live || bytes <= most;
}

/* A session that holds the tokens that the next prompt shares with the one before it, as far as that pays and windows still reach
 * back; what is left of the trunk serves the prompts after it. */
static slm_status branch_off(slm_batch *b, int64_t shared, slm_session **session, slm_error *error) {
    int64_t held = b->trunk ? slm_min64(shared, slm_session_length(b->trunk)) : 0;
    if (b->trunk && (held < LEAST_SHARED || held < slm_session_rewind_limit(b->trunk))) {
        slm_session_release(b->trunk);
        b->trunk = NULL;
    }
    if (!b->trunk) return slm_session_create(b->model, session, error);
    slm_status status = slm_session_rewind(b->trunk, held, error);
    return status ? status : slm_session_fork(b->trunk, session, error);
}

static slm_status enter(slm_batch *b, slm_error *error) {
    text *t = b->order[b->next];
    live *l = &b->live[b->n_live];
    *l = (live){.text = t, .kv_bytes = kv_bytes_of(b, t)};
    slm_status status = branch_off(b, t->shared, &l->session, error);
    if (status) return status;
    t->sequence.n_run = t->n_shared = slm_session_length(l->session);
    t->entered = b->seconds;
    b->n_live++;
    b->next++;
    int64_t shared = b->next < b->n ? b->order[b->next]->shared : 0;
    if (shared >= t->n_shared + LEAST_SHARED) l->branch = shared;
    return SLM_OK;
}

/* Those that go on from a prompt that has not come so far wait. */
static slm_status let_enter(slm_batch *b, slm_error *error) {
    slm_status status = SLM_OK;
    while (!status && b->next < b->n && b->n_live < SLM_BATCH_MOST && fits(b, kv_bytes_of(b, b->order[b->next]))) {
        if (b->n_live && b->live[b->n_live - 1].branch) break;
        status = enter(b, error);
    }
    return status;
}

/* ---- one step ----------------------------------------------------------------------------------------------------------- */

static slm_part part_of(const live *l) {
    slm_part part = slm_sequence_part(&l->text->sequence, l->session);
    if (l->branch && l->branch < l->text->sequence.n_ids) {
        part.n_tokens = l->branch - l->text->sequence.n_run;
        part.n_outputs = 0;
    }
    return part;
}

/* Takes what the step gave for one text. */
static slm_status take(slm_batch *b, live *l, const slm_part *part, int64_t first_row, slm_clock *clock, slm_error *error) {
    text *t = l->text;
    slm_sequence *s = &t->sequence;
    slm_status status = SLM_OK;
    if (l->branch) {
        slm_session_release(b->trunk);
        b->trunk = NULL;
        status = slm_session_fork(l->session, &b->trunk, error);
        if (status) return b->broken = status;
        s->n_run = l->branch;
        l->branch = 0;
    }
    if (part->n_outputs) status = slm_sequence_accept(s, &b->rules, l->session, first_row, clock, error);
    if (!t->second && (s->n_ids > s->n_prompt || s->finish)) t->second = b->seconds;
    t->ended = b->seconds;
    return b->broken = status;
}

static void leave(slm_batch *b) {
    int64_t n = 0;
    for (int64_t i = 0; i < b->n_live; i++) {
        slm_sequence *s = &b->live[i].text->sequence;
        if (s->finish) {
            slm_session_release(b->live[i].session);
            slm_free(s->allowed);
            s->allowed = NULL;
        } else {
            b->live[n++] = b->live[i];
        }
    }
    b->n_live = n;
}

static slm_status fail_for(const slm_batch *b, const live *l, slm_error *error) {
    size_t index = (size_t)(l->text - b->texts) / b->n_samples;
    char message[sizeof error->message];
    memcpy(message, error->message, sizeof message);
    snprintf(error->message, sizeof error->message, "prompt[%zu]: %.200s", index, message);
    return error->status;
}

/* Adds the tokens that constraints demand; texts that end so leave. */
static slm_status constrain(slm_batch *b, slm_clock *clock, slm_error *error) {
    for (int64_t i = 0; i < b->n_live; i++) {
        text *t = b->live[i].text;
        slm_status status = slm_sequence_constrain(&t->sequence, &b->rules, clock, error);
        if (status) {
            b->broken = t->sequence.broken;
            return status == SLM_CANCELLED ? status : fail_for(b, &b->live[i], error);
        }
        if (!t->second && t->sequence.finish) t->second = b->seconds;
        t->ended = b->seconds;
    }
    leave(b);
    return SLM_OK;
}

static slm_status advance(slm_batch *b, double before, double start, const slm_call *call, slm_clock *clock, slm_error *error) {
    slm_part parts[SLM_BATCH_MOST];
    slm_status status = constrain(b, clock, error);
    int64_t failed = -1;
    if (!status && !b->n_live) return SLM_OK;
    for (int64_t i = 0, rows = b->n_live; i < b->n_live && !status; i++) { /* every text has a row, and some their drafts */
        slm_sequence *s = &b->live[i].text->sequence;
        status = slm_sequence_prepare(s, &b->rules, (MOST_ROWS - rows) / (b->n_live - i), error);
        rows += s->n_drafts;
    }
    for (bool again = true; !status && again;) {
        again = false;
        for (int64_t i = 0, row = 0; i < b->n_live; row += parts[i++].n_outputs) {
            parts[i] = part_of(&b->live[i]);
            if (parts[i].n_outputs) slm_sequence_limit(&b->live[i].text->sequence, &b->rules, row);
        }
        float *logits = b->rules.all ? b->rules.logits : NULL;
        slm_choice *choices = b->rules.all ? NULL : b->rules.choices;
        status = slm_session_run(parts, b->n_live, false, logits, choices, call, clock, &failed, error);
        for (int64_t i = 0; status == SLM_NOT_A_NUMBER && i < b->n_live; i++) { /* perhaps only of a draft */
            again = again || b->live[i].text->sequence.n_drafts;
            b->live[i].text->sequence.n_drafts = 0;
        }
        if (again) status = SLM_OK;
    }
    if (status) return failed < 0 ? status : fail_for(b, &b->live[failed], error);
    b->seconds = before + slm_seconds() - start;
    for (int64_t i = 0, row = 0; i < b->n_live && !status; row += parts[i++].n_outputs) {
        status = take(b, &b->live[i], &parts[i], row, clock, error);
        if (status) status = fail_for(b, &b->live[i], error);
    }
    if (!status) leave(b);
    return status;
}

slm_status slm_batch_run(slm_batch *b, const slm_call *call, slm_error *error) {
    if (b->broken) return slm_fail(error, b->broken, -1, "an earlier failure lost text of this batch");
    slm_clock clock;
    slm_clock_start(&clock, call);
    double before = b->seconds, start = slm_seconds();
    slm_status status = let_enter(b, error);
    size_t told = 0;
    while (!status && b->n_live) {
        status = slm_clock_tick(&clock) ? slm_fail_cancelled(error) : advance(b, before, start, call, &clock, error);
        if (!status) status = let_enter(b, error);
        size_t ended = b->next - (size_t)b->n_live;
        if (!status && ended > told && slm_clock_ended(&clock, told = ended, b->n)) status = slm_fail_cancelled(error);
    }
    b->seconds = before + slm_seconds() - start;
    return status;
}

void slm_batch_chunk(slm_batch *b, size_t i, slm_chunk *chunk) {
    text *t = &b->texts[i];
    slm_sequence_chunk(&t->sequence, &b->rules, chunk);
    chunk->n_shared = t->n_shared;
    if (!t->second) return; /* cancelled before its first token */
    chunk->prefill_seconds = t->second - t->entered;
    chunk->decode_seconds = t->ended - t->second;
}
