/* SPDX-License-Identifier: Apache-2.0
 * generation.c: the token loop over one session: run, draw, text. */
#include "base/alloc.h"
#include "base/call.h"
#include "generate/sequence.h"

struct slm_generation {
    slm_session *session;
    slm_rules rules;
    slm_sequence sequence;
    double prefill_seconds, decode_seconds;
};

slm_status slm_generation_create(slm_session *session, slm_tokenizer *tokenizer, const int32_t *prompt, int64_t n_prompt,
                                 int64_t n_held, const slm_generate_options *options, slm_generation **out, slm_error *error) {
    slm_generation *g = slm_alloc_zero(1, sizeof *g);
    if (!g) return slm_fail_memory(error);
    g->session = session;
    int64_t n_rows = options->draft ? 1 + SLM_DRAFT_MOST : 1;
    slm_status status = SLM_OK;
    if (options->n > 1) status = slm_fail(error, SLM_BAD_ARGUMENT, -1, "n: one session takes one sample");
    if (!status) status = slm_rules_create(&g->rules, slm_session_model(session), tokenizer, options, n_rows, error);
    if (!status)
        status = slm_sequence_init(&g->sequence, prompt, n_prompt, n_held, slm_session_length(session), options->sample, error);
    for (int64_t i = 0; !status && i < n_held; i++) { /* the others are checked when they run */
        if (prompt[i] >= 0 && prompt[i] < g->rules.vocab_size) continue;
        status = slm_fail(error, SLM_BAD_ARGUMENT, i, "prompt[%lld]: expected 0 to %lld, found %d", (long long)i,
                          (long long)g->rules.vocab_size - 1, (int)prompt[i]);
    }
    if (status) {
        slm_generation_release(g);
        return status;
    }
    *out = g;
    return SLM_OK;
}

void slm_generation_release(slm_generation *g) {
    if (!g) return;
    slm_sequence_release(&g->sequence);
    slm_rules_release(&g->rules);
    slm_free(g);
}

/* The text has ended in tokens that had to come: runs all but the last, as if each had been drawn, for whoever goes on with the
 * session. */
static slm_status run_rest(slm_generation *g, const slm_call *call, slm_clock *clock, slm_error *error) {
    int64_t failed;
    slm_part part = slm_sequence_part(&g->sequence, g->session);
    part.n_outputs = 0;
    if (--part.n_tokens < 1) return SLM_OK;
    slm_status status = slm_session_run(&part, 1, false, NULL, NULL, call, clock, &failed, error);
    if (!status) g->sequence.n_run += part.n_tokens;
    return status;
}

/* One step: draws one token, with drafts or under a constraint perhaps some more, or finds the end. */
static slm_status advance(slm_generation *g, const slm_call *call, slm_clock *clock, slm_error *error) {
    slm_sequence *s = &g->sequence;
    slm_rules *rules = &g->rules;
    slm_status status = slm_sequence_prepare(s, rules, SLM_DRAFT_MOST, error);
    if (!status) status = slm_sequence_constrain(s, rules, clock, error);
    if (!status && s->finish) return run_rest(g, call, clock, error);
    if (!status) slm_sequence_limit(s, rules, 0);
    while (!status) {
        int64_t failed;
        slm_part part = slm_sequence_part(s, g->session);
        status = slm_session_run(&part, 1, false, rules->all ? rules->logits : NULL, rules->all ? NULL : rules->choices, call,
                                 clock, &failed, error);
        if (status != SLM_NOT_A_NUMBER || !s->n_drafts) break;
        s->n_drafts = 0; /* perhaps only a draft that nobody would have drawn gives NaN */
        status = SLM_OK;
    }
    return status ? status : slm_sequence_accept(s, rules, g->session, 0, clock, error);
}

void slm_generation_chunk(slm_generation *g, slm_chunk *chunk) {
    slm_sequence_chunk(&g->sequence, &g->rules, chunk);
    chunk->prefill_seconds = g->prefill_seconds;
    chunk->decode_seconds = g->decode_seconds;
}

slm_status slm_generation_next(slm_generation *g, bool whole, const slm_call *call, slm_chunk *chunk, slm_error *error) {
    slm_sequence *s = &g->sequence;
    if (s->broken) return slm_fail(error, s->broken, -1, "an earlier failure lost text of this generation");
    slm_clock clock;
    slm_clock_start(&clock, call);
    slm_status status = SLM_OK;
    double start = slm_seconds();
    while (!status && s->finish == SLM_FINISH_NONE && (whole || !slm_sequence_has_chunk(s, &g->rules))) {
        bool prefill = s->n_ids == s->n_prompt;
        status = slm_clock_tick(&clock) ? slm_fail_cancelled(error) : advance(g, call, &clock, error);
        double now = slm_seconds();
        *(prefill ? &g->prefill_seconds : &g->decode_seconds) += now - start;
        start = now;
    }
    if (!status) slm_generation_chunk(g, chunk);
    return status;
}
