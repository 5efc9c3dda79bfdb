/* SPDX-License-Identifier: Apache-2.0 */
#include "model/session.h"

#include "base/alloc.h"
#include "base/arith.h"
#include "model/decoder.h"

struct slm_session {
    slm_model *model;
    slm_kv_cache cache;
    int64_t length;
    slm_workspace workspace; /* kept between calls for one token: decode allocates nothing else than pages */
};

slm_status slm_session_create(slm_model *model, slm_session **out, slm_error *error) {
    slm_session *session = slm_alloc_zero(1, sizeof *session);
    if (!session) return slm_fail_memory(error);
    session->model = slm_model_retain(model);
    slm_kv_init(&session->cache, &model->kv_shape, model->sliding_windows);
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

static bool is_hidden(slm_output which) {
    return which == SLM_HIDDEN_LAST || which == SLM_HIDDEN_ALL;
}

static slm_status check(const slm_session *session, const int32_t *tokens, int64_t n_tokens, slm_output which, slm_error *error) {
    int64_t vocab_size = session->model->config.vocab_size, context = session->model->context;
    bool bidirectional = session->model->config.bidirectional;
    if (bidirectional && (which == SLM_LOGITS_LAST || which == SLM_LOGITS_ALL))
        return slm_fail(error, SLM_UNSUPPORTED, -1, "the model embeds text, it does not generate: it has no logits");
    if (bidirectional && session->length) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "the model sees a text whole, so it takes one at position 0, not at %lld",
                        (long long)session->length);
    }
    if (n_tokens < 1)
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "tokens: expected at least one, found %lld", (long long)n_tokens);
    if (n_tokens > context - session->length) {
        return slm_fail(error, SLM_CONTEXT_FULL, -1, "%lld tokens after %lld do not fit into a context of %lld",
                        (long long)n_tokens, (long long)session->length, (long long)context);
    }
    for (int64_t i = 0; i < n_tokens; i++) {
        if (tokens[i] < 0 || tokens[i] >= vocab_size) {
            return slm_fail(error, SLM_BAD_ARGUMENT, i, "tokens[%lld]: expected 0 to %lld, found %d", (long long)i,
                            (long long)vocab_size - 1, (int)tokens[i]);
        }
    }
    return SLM_OK;
}

/* A workspace for steps of n tokens. One for a single token stays with the session, wider ones go after the call. */
static slm_status ensure_workspace(slm_session *session, int64_t n_tokens, int threads, slm_error *error) {
    slm_workspace *w = &session->workspace;
    if (w->max_tokens >= n_tokens && w->threads >= threads) return SLM_OK;
    slm_workspace_release(w);
    return slm_workspace_create(w, session->model, n_tokens, threads, error);
}

static slm_status fail_not_a_number(const slm_step *step, slm_error *error) {
    const slm_config *c = &step->model->config;
    const slm_kernels *kernels = step->model->kernels;
    int64_t width = step->hidden ? c->hidden_size : c->vocab_size, silent = step->n_tokens - step->n_outputs, t = 0;
    while (t < step->n_tokens - 1 && slm_step_is_finite(step, t) &&
           (t < silent || kernels->all_finite(step->output + (t - silent) * width, width))) {
        t++;
    }
    int64_t position = step->spans[0].first_position + t;
    return slm_fail(error, SLM_NOT_A_NUMBER, position, "the model gave NaN or infinity at position %lld", (long long)position);
}

static void step_body(void *step, slm_team *team) {
    slm_decoder_step(step, team);
}

slm_status slm_session_run(slm_session *session, const int32_t *tokens, int64_t n_tokens, slm_output which, float *output,
                           slm_choice *choice, const slm_call *call, slm_clock *clock, slm_error *error) {
    slm_model *model = session->model;
    slm_kv_cache *cache = &session->cache;
    int64_t start = session->length, chunk = call && call->prefill_chunk > 0 ? call->prefill_chunk : SLM_PREFILL_CHUNK;
    if (model->config.bidirectional) chunk = n_tokens; /* keys and values of all tokens come before the first attention */
    bool all = which == SLM_LOGITS_ALL || which == SLM_HIDDEN_ALL, hidden = is_hidden(which);
    int64_t width = hidden ? model->config.hidden_size : model->config.vocab_size;
    int threads = slm_threads_wanted(call ? call->threads : 0);
    slm_status status = check(session, tokens, n_tokens, which, error);
    if (!status) status = ensure_workspace(session, slm_min64(chunk, n_tokens), threads, error);
    for (int64_t at = 0; !status && at < n_tokens; at += chunk) {
        int64_t n = slm_min64(chunk, n_tokens - at);
        bool last = at + n == n_tokens;
        status = slm_kv_reserve(cache, start + at, start + at + n, error);
        if (status) break;
        slm_workspace *w = &session->workspace;
        int64_t n_outputs = all ? n : which != SLM_NO_OUTPUT && last;
        for (int64_t i = 0; i < n_outputs; i++) w->outputs[i] = n - n_outputs + i;
        w->spans[0] = (slm_kv_span){.pages = cache->pages, .n_tokens = n, .first_position = start + at};
        slm_step step = {.model = model,
                         .workspace = w,
                         .tokens = tokens + at,
                         .n_tokens = n,
                         .spans = w->spans,
                         .n_spans = 1,
                         .outputs = w->outputs,
                         .n_outputs = n_outputs,
                         .hidden = hidden,
                         .output = all ? output + at * width : output,
                         .choices = choice,
                         .finite = true};
        slm_threads_run(threads, clock, step_body, &step);
        if (clock->cancelled || (n_tokens > 1 && slm_clock_progress(clock, (uint64_t)(at + n), (uint64_t)n_tokens))) {
            status = slm_fail_cancelled(error);
        } else if (!atomic_load(&step.finite)) {
            status = fail_not_a_number(&step, error);
        } else {
            slm_kv_drop(cache, last ? start + n_tokens : start, start + at + n);
        }
    }
    if (status) {
        slm_kv_discard(cache, start);
    } else {
        session->length = start + n_tokens;
    }
    if (session->workspace.max_tokens > 1) slm_workspace_release(&session->workspace);
    return status;
}

slm_status slm_session_forward(slm_session *session, const int32_t *tokens, int64_t n_tokens, slm_output which, float *output,
                               const slm_call *call, slm_error *error) {
    slm_clock clock;
    slm_clock_start(&clock, call);
    return slm_session_run(session, tokens, n_tokens, which, output, NULL, call, &clock, error);
}
