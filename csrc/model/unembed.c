/* SPDX-License-Identifier: Apache-2.0
 * unembed.c: what the final norm and the output layer make of rows of the residual stream. */
#include "base/arith.h"
#include "model/decoder.h"

typedef struct work {
    slm_step step;
    const float *rows;
} work;

static void body(void *arg, slm_team *team) {
    work *w = arg;
    slm_decoder_unembed(&w->step, w->rows, team);
}

static slm_status run(slm_model *model, slm_workspace *workspace, const float *rows, int64_t n_rows, float *logits, int threads,
                      const slm_call *call, slm_error *error) {
    slm_clock clock;
    slm_clock_start(&clock, call);
    for (int64_t first = 0, n; first < n_rows; first += n) {
        n = slm_min64(workspace->max_tokens, n_rows - first);
        work w = {.step = {.model = model,
                           .workspace = workspace,
                           .n_tokens = n,
                           .n_outputs = n,
                           .output = logits + first * model->config.vocab_size,
                           .finite = true},
                  .rows = rows + first * model->config.hidden_size};
        slm_threads_run(threads, &clock, body, &w);
        if (clock.cancelled) return slm_fail_cancelled(error);
        if (!atomic_load(&w.step.finite)) {
            return slm_fail(error, SLM_NOT_A_NUMBER, first, "rows %lld to %lld gave logits that are NaN or infinite",
                            (long long)first, (long long)(first + n - 1));
        }
    }
    return SLM_OK;
}

slm_status slm_model_unembed(slm_model *model, const float *rows, int64_t n_rows, float *logits, const slm_call *call,
                             slm_error *error) {
    slm_workspace workspace;
    int threads = slm_threads_wanted(call ? call->threads : 0);
    if (model->config.bidirectional)
        return slm_fail(error, SLM_UNSUPPORTED, -1, "the model embeds text, it does not generate: it has no logits");
    if (n_rows < 1) return SLM_OK;
    slm_status status = slm_workspace_create(&workspace, model, slm_min64(n_rows, SLM_PREFILL_CHUNK), threads, error);
    if (status) return status;
    status = run(model, &workspace, rows, n_rows, logits, threads, call, error);
    slm_workspace_release(&workspace);
    return status;
}
