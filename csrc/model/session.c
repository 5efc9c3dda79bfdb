/* SPDX-License-Identifier: Apache-2.0 */
#include "model/session.h"

#include "base/alloc.h"
#include "base/arith.h"
#include "model/decoder.h"

/* A workspace for so many tokens stays with the session: decode, of a batch and with drafts too, allocates nothing but pages. */
enum { KEPT_TOKENS = 32 };

struct slm_session {
    slm_model *model;
    slm_kv_cache cache;
    int64_t length;
    slm_workspace workspace;
};

slm_status slm_session_create(slm_model *model, slm_session **out, slm_error *error) {
    slm_session *session = slm_alloc_zero(1, sizeof *session);
    if (!session) return slm_fail_memory(error);
    session->model = slm_model_retain(model);
    slm_kv_init(&session->cache, &model->kv_shape, &model->kv_slabs, model->sliding_windows);
    *out = session;
    return SLM_OK;
}

slm_status slm_session_fork(const slm_session *session, slm_session **out, slm_error *error) {
    slm_session *fork = NULL;
    slm_status status = slm_session_create(session->model, &fork, error);
    if (status) return status;
    status = slm_kv_fork(&session->cache, &fork->cache, error);
    if (status) {
        slm_session_release(fork);
        return status;
    }
    fork->length = session->length;
    *out = fork;
    return SLM_OK;
}

void slm_session_release(slm_session *session) {
    if (!session) return;
    slm_kv_release(&session->cache);
    slm_workspace_release(&session->workspace);
    slm_model_release(session->model);
    slm_free(session);
}

int64_t slm_session_length(const slm_session *session) {
    return session->length;
}

slm_model *slm_session_model(const slm_session *session) {
    return session->model;
}

size_t slm_session_kv_bytes(const slm_session *session) {
    return slm_kv_held(&session->cache);
}

size_t slm_session_kv_most(const slm_model *model, int64_t n_positions) {
    return slm_kv_most(&model->kv_shape, model->sliding_windows, n_positions, SLM_PREFILL_CHUNK);
}

int64_t slm_session_rewind_limit(const slm_session *session) {
    return slm_kv_rewind_limit(&session->cache);
}

slm_status slm_session_rewind(slm_session *session, int64_t n_tokens, slm_error *error) {
    int64_t limit = slm_session_rewind_limit(session);
    if (n_tokens < 0 || n_tokens > session->length) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "n_tokens: expected 0 to %lld, found %lld", (long long)session->length,
                        (long long)n_tokens);
    }
    if (n_tokens && n_tokens < limit) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1,
                        "n_tokens: expected 0 or %lld to %lld, found %lld: the windows of earlier positions have been dropped",
                        (long long)limit, (long long)session->length, (long long)n_tokens);
    }
    slm_kv_truncate(&session->cache, n_tokens);
    session->length = n_tokens;
    return SLM_OK;
}

void slm_session_save(const slm_session *session, slm_saved *saved, uint8_t *bytes) {
    *saved = (slm_saved){.length = session->length, .settled = session->cache.settled, .size = slm_kv_held(&session->cache)};
    if (bytes) slm_kv_copy(session->model->kernels, &session->cache, session->length, bytes);
}

slm_status slm_session_restore(slm_model *model, const slm_saved *saved, const uint8_t *bytes, slm_session **out,
                               slm_error *error) {
    if (saved->length < 0 || saved->length > model->context || saved->settled < 0 || saved->settled > model->context) {
        return slm_fail(error, SLM_BAD_DATA, -1, "expected 0 to %lld positions, found %lld, and %lld at most",
                        (long long)model->context, (long long)saved->length, (long long)saved->settled);
    }
    slm_session *session = NULL;
    slm_status status = slm_session_create(model, &session, error);
    if (status) return status;
    status = slm_kv_paste(&session->cache, saved->length, saved->settled, bytes, saved->size, error);
    if (status) {
        slm_session_release(session);
        return status;
    }
    session->length = saved->length;
    *out = session;
    return SLM_OK;
}

static slm_status check(const slm_part *part, bool hidden, slm_error *error) {
    const slm_session *session = part->session;
    int64_t vocab_size = session->model->config.vocab_size, context = session->model->context;
    bool bidirectional = session->model->config.bidirectional;
    if (bidirectional && part->n_outputs && !hidden)
        return slm_fail(error, SLM_UNSUPPORTED, -1, "the model embeds text, it does not generate: it has no logits");
    if (bidirectional && session->length) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "the model sees a text whole, so it takes one at position 0, not at %lld",
                        (long long)session->length);
    }
    if (part->n_tokens < 1)
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "tokens: expected at least one, found %lld", (long long)part->n_tokens);
    if (part->n_tokens > context - session->length) {
        return slm_fail(error, SLM_CONTEXT_FULL, -1, "%lld tokens after %lld do not fit into a context of %lld",
                        (long long)part->n_tokens, (long long)session->length, (long long)context);
    }
    for (int64_t i = 0; i < part->n_tokens; i++) {
        if (part->tokens[i] < 0 || part->tokens[i] >= vocab_size) {
            return slm_fail(error, SLM_BAD_ARGUMENT, i, "tokens[%lld]: expected 0 to %lld, found %d", (long long)i,
                            (long long)vocab_size - 1, (int)part->tokens[i]);
        }
    }
    return SLM_OK;
}

static slm_status check_taps(const slm_model *model, const slm_call *call, slm_error *error) {
    for (size_t i = 0; call && i < call->n_taps; i++) {
        const slm_tap *tap = &call->taps[i];
        bool of_layers = tap->site != SLM_SITE_EMBED && tap->site != SLM_SITE_FINAL_NORM;
        int64_t last = of_layers ? model->config.num_hidden_layers - 1 : 0;
        if (tap->layer < 0 || tap->layer > last) {
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i, "layer.%lld: the model has layers 0 to %lld",
                            (long long)tap->layer, (long long)last);
        }
        if (tap->site == SLM_SITE_ATTN_WEIGHTS && !tap->rows) {
            return slm_fail(error, SLM_UNSUPPORTED, (int64_t)i,
                            "layer.%lld.attn_weights can be captured, not edited: attention keeps no weights to change",
                            (long long)tap->layer);
        }
    }
    return SLM_OK;
}

/* A workspace for steps of n tokens. One for few tokens stays with the session, wider ones go after the call. */
static slm_status ensure_workspace(slm_session *session, int64_t n_tokens, int threads, slm_error *error) {
    slm_workspace *w = &session->workspace;
    if (w->max_tokens >= n_tokens && w->threads >= threads) return SLM_OK;
    slm_workspace_release(w);
    return slm_workspace_create(w, session->model, n_tokens, threads, error);
}

static bool output_is_finite(const slm_step *step, int64_t i) {
    const slm_config *c = &step->model->config;
    int64_t width = step->hidden ? c->hidden_size : c->vocab_size;
    return step->choices ? step->choices[i].count : step->model->kernels->all_finite(step->output + i * width, width);
}

static slm_status fail_not_a_number(const slm_step *step, int64_t *span, slm_error *error) {
    int64_t t = 0;
    for (int64_t i = 0; t < step->n_tokens - 1 && slm_step_is_finite(step, t); t++) {
        if (i < step->n_outputs && step->outputs[i] == t && !output_is_finite(step, i++)) break;
    }
    *span = 0;
    while (t >= step->spans[*span].first_token + step->spans[*span].n_tokens) ++*span;
    int64_t position = step->spans[*span].first_position + t - step->spans[*span].first_token;
    return slm_fail(error, SLM_NOT_A_NUMBER, position, "the model gave NaN or infinity at position %lld", (long long)position);
}

static void step_body(void *step, slm_team *team) {
    slm_decoder_step(step, team);
}

/* How far the parts have come: before token `at` of part `part`. */
typedef struct cursor {
    int64_t part, at;
} cursor;

/* Fills a step with the next tokens of parts and takes the cursor behind them. */
static slm_status fill_step(slm_step *step, const slm_part *parts, int64_t n_parts, int64_t most, cursor *c, slm_error *error) {
    slm_workspace *w = step->workspace;
    while (c->part < n_parts && step->n_tokens < most) {
        const slm_part *part = &parts[c->part];
        int64_t n = slm_min64(most - step->n_tokens, part->n_tokens - c->at), first = part->session->length + c->at;
        slm_status status = slm_kv_reserve(&part->session->cache, first, first + n, error);
        if (status) return status;
        w->spans[step->n_spans++] = (slm_kv_span){
            .pages = part->session->cache.pages, .first_token = step->n_tokens, .n_tokens = n, .first_position = first};
        for (int64_t i = 0; i < n; i++) {
            if (c->at + i >= part->n_tokens - part->n_outputs) w->outputs[step->n_outputs++] = step->n_tokens + i;
            w->tokens[step->n_tokens + i] = part->tokens[c->at + i];
        }
        step->n_tokens += n;
        c->at += n;
        if (c->at == part->n_tokens) *c = (cursor){.part = c->part + 1};
    }
    return SLM_OK;
}

slm_status slm_session_run(const slm_part *parts, int64_t n_parts, bool hidden, float *output, slm_choice *choices,
                           const slm_call *call, slm_clock *clock, int64_t *failed, slm_error *error) {
    slm_session *session = parts[0].session; /* its workspace serves all */
    slm_model *model = session->model;
    int64_t n_tokens = 0, n_drafts = 0, done = 0, width = hidden ? model->config.hidden_size : model->config.vocab_size;
    int threads = slm_threads_wanted(call ? call->threads : 0);
    slm_status status = check_taps(model, call, error);
    *failed = -1;
    for (int64_t i = 0; i < n_parts && !status; i++) {
        status = check(&parts[i], hidden, error);
        if (status) *failed = i;
        n_tokens += parts[i].n_tokens;
        n_drafts += parts[i].n_drafts;
    }
    if (status) return status;
    int64_t chunk = call && call->prefill_chunk > 0 ? call->prefill_chunk : SLM_PREFILL_CHUNK;
    if (model->config.bidirectional) chunk = n_tokens; /* keys and values of all tokens come before the first attention */
    status = ensure_workspace(session, slm_min64(chunk, n_tokens), threads, error);
    cursor next = {0};
    while (!status && next.part < n_parts) {
        const slm_part *first = &parts[next.part];
        int64_t at = next.at, span;
        slm_workspace *w = &session->workspace;
        slm_step step = {.model = model,
                         .workspace = w,
                         .tokens = w->tokens,
                         .spans = w->spans,
                         .outputs = w->outputs,
                         .hidden = hidden,
                         .output = output,
                         .choices = choices,
                         .taps = call ? call->taps : NULL,
                         .n_taps = call ? call->n_taps : 0,
                         .first_token = done,
                         .n_call_tokens = n_tokens,
                         .clock = clock,
                         .finite = true};
        status = fill_step(&step, parts, n_parts, chunk, &next, error);
        if (status) break;
        slm_threads_run(threads, clock, step_body, &step);
        done += step.n_tokens;
        if (output) output += step.n_outputs * width;
        if (choices) choices += step.n_outputs;
        bool decode = n_tokens - n_drafts == n_parts;
        if (clock->cancelled || (!decode && slm_clock_progress(clock, (uint64_t)done, (uint64_t)n_tokens))) {
            status = slm_fail_cancelled(error);
        } else if (!atomic_load(&step.finite)) {
            status = fail_not_a_number(&step, &span, error);
            *failed = first - parts + span;
        }
        for (int64_t i = 0; !status && i < step.n_spans; i++, at = 0) {
            int64_t start = first[i].session->length, sure = start + first[i].n_tokens - first[i].n_drafts;
            slm_kv_drop(&first[i].session->cache, start, slm_min64(start + at + step.spans[i].n_tokens, sure));
        }
    }
    for (int64_t i = 0; i < n_parts; i++) {
        slm_session *s = parts[i].session;
        if (status) {
            slm_kv_discard(s->model->kernels, &s->cache, s->length);
        } else {
            s->length += parts[i].n_tokens;
            slm_kv_drop(&s->cache, s->length - parts[i].n_drafts, s->length - parts[i].n_drafts);
        }
    }
    if (session->workspace.max_tokens > KEPT_TOKENS) slm_workspace_release(&session->workspace);
    return status;
}

slm_status slm_session_forward(slm_session *session, const int32_t *tokens, int64_t n_tokens, slm_output which, float *output,
                               const slm_call *call, slm_error *error) {
    slm_clock clock;
    int64_t failed;
    bool all = which == SLM_LOGITS_ALL || which == SLM_HIDDEN_ALL, hidden = which == SLM_HIDDEN_LAST || which == SLM_HIDDEN_ALL;
    slm_part part = {
        .session = session, .tokens = tokens, .n_tokens = n_tokens, .n_outputs = all ? n_tokens : which != SLM_NO_OUTPUT};
    slm_clock_start(&clock, call);
    return slm_session_run(&part, 1, hidden, output, NULL, call, &clock, &failed, error);
}
