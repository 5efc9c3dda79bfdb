/* SPDX-License-Identifier: Apache-2.0 */
#include "model/workspace.h"

#include "base/alloc.h"
#include "base/arith.h"

enum { SHARED_BLOCKS = 18, THREAD_BLOCKS = 20 };

/* Zeroed: padding must read as zero. Where the workspace is only measured, something that is not NULL. */
static void *take(slm_workspace *w, int64_t count, int64_t other, size_t size) {
    size_t n, total;
    if (!slm_mul_size((size_t)count, (size_t)other, &n) || !slm_mul_size(n, size, &total) ||
        !slm_add_size(w->bytes, total, &w->bytes)) {
        return NULL;
    }
    if (!w->blocks) return w;
    void *block = slm_alloc_zero(n, size);
    if (block) w->blocks[w->n_blocks++] = block;
    return block;
}

/* blocks: room for the addresses of all blocks; NULL: nothing but w->bytes is wanted. */
static slm_status lay_out(slm_workspace *w, const slm_model *model, int64_t max_tokens, int threads, void **blocks,
                          slm_error *error) {
    const slm_config *c = &model->config;
    int64_t q = c->num_attention_heads * c->head_dim, n = max_tokens;
    *w = (slm_workspace){.max_tokens = n,
                         .threads = threads,
                         .blocks = blocks,
                         .hidden_ld = slm_round_up(c->hidden_size, 16),
                         .q_ld = slm_round_up(q, 16),
                         .kv_ld = slm_round_up(c->num_key_value_heads * c->head_dim, 16),
                         .inner_ld = slm_round_up(c->intermediate_size, 16)};
    int64_t widest = slm_max64(w->hidden_ld, slm_max64(w->q_ld, w->inner_ld)), groups = slm_div_up(widest, 16);
    int64_t width = model->kv_shape.width, partials = SLM_ATTENTION_PARTIALS * c->num_attention_heads;
    slm_codes *codes = &w->product_codes;
    bool ok = (w->q = take(w, n, w->q_ld, sizeof(float))) && (w->k = take(w, n, w->kv_ld, sizeof(float))) &&
              (w->v = take(w, n, w->kv_ld, sizeof(float))) && (w->attended = take(w, n, w->q_ld, sizeof(float))) &&
              (w->product = take(w, n, w->inner_ld, sizeof(float))) && (codes->codes = take(w, n, w->inner_ld, 1)) &&
              (codes->sums = take(w, n, w->inner_ld / 16, sizeof(int32_t))) &&
              (codes->scales = take(w, n, w->inner_ld / 16, sizeof(float))) &&
              (codes->scaled_sums = take(w, n, w->inner_ld / 16, sizeof(float))) &&
              (w->delta = take(w, n, w->hidden_ld, sizeof(float))) && (w->tokens = take(w, n, 1, sizeof *w->tokens)) &&
              (w->spans = take(w, n, 1, sizeof *w->spans)) && (w->output_spans = take(w, n, 1, sizeof *w->output_spans)) &&
              (w->outputs = take(w, n, 1, sizeof *w->outputs)) && (w->partials.max = take(w, partials, 1, sizeof(float))) &&
              (w->partials.sum = take(w, partials, 1, sizeof(float))) &&
              (w->partials.out = take(w, partials, width, sizeof(float)));
    const slm_matrix *head = slm_model_head(model);
    if (head->screened) ok = ok && (w->limits = take(w, slm_head_limits(head->n_panels, threads), 1, sizeof(float)));
    w->streams = slm_alloc_zero((size_t)threads, sizeof *w->streams);
    w->linear = slm_alloc_zero((size_t)threads, sizeof *w->linear);
    w->attention = slm_alloc_zero((size_t)threads, sizeof *w->attention);
    ok = ok && w->streams && w->linear && w->attention;
    for (int i = 0; ok && i < threads; i++) {
        slm_linear_scratch *l = &w->linear[i];
        slm_attention_scratch *a = &w->attention[i];
        slm_stream *s = &w->streams[i];
        int64_t m = i ? 1 : n;
        ok = (s->hidden = take(w, m, w->hidden_ld, sizeof(float))) && (s->normed = take(w, m, w->hidden_ld, sizeof(float))) &&
             (s->delta = take(w, 1, w->hidden_ld, sizeof(float))) && (s->queries = take(w, 1, w->q_ld, sizeof(float))) &&
             (s->rope = take(w, m, slm_max64(1, c->rotary_dim * c->n_rope_tables), sizeof(float))) &&
             (s->rounded = take(w, m, widest, sizeof(float))) && (s->codes.codes = take(w, m, widest, 1)) &&
             (s->codes.sums = take(w, m, groups, sizeof(int32_t))) && (s->codes.scales = take(w, m, groups, sizeof(float))) &&
             (s->codes.scaled_sums = take(w, m, groups, sizeof(float))) && (s->low = take(w, m, model->low_ld, sizeof(float))) &&
             (l->codes = take(w, SLM_STRIPS * widest, 16, 1)) && (l->d = take(w, SLM_STRIPS * groups, 16, sizeof(float))) &&
             (l->m = take(w, SLM_STRIPS * groups, 16, sizeof(float))) &&
             (l->y = take(w, slm_linear_scratch_size(n), 1, sizeof(float))) &&
             (l->gate = take(w, slm_linear_scratch_size(n), 1, sizeof(float))) &&
             (a->q = take(w, SLM_ATTENTION_ROWS, width, sizeof(float))) &&
             (a->scores = take(w, SLM_ATTENTION_ROWS, SLM_SEGMENT_POSITIONS, sizeof(float))) &&
             (a->segment = take(w, SLM_ATTENTION_ROWS, width, sizeof(float))) &&
             (a->out = take(w, SLM_ATTENTION_ROWS, width, sizeof(float)));
    }
    if (ok) return SLM_OK;
    slm_workspace_release(w);
    return slm_fail_memory(error);
}

slm_status slm_workspace_create(slm_workspace *w, const slm_model *model, int64_t max_tokens, int threads, slm_error *error) {
    void **blocks = slm_alloc_array((size_t)(SHARED_BLOCKS + THREAD_BLOCKS * threads), sizeof *blocks);
    return blocks ? lay_out(w, model, max_tokens, threads, blocks, error) : slm_fail_memory(error);
}

slm_status slm_workspace_measure(const slm_model *model, int64_t max_tokens, int threads, size_t *bytes, slm_error *error) {
    slm_workspace w;
    slm_status status = lay_out(&w, model, max_tokens, threads, NULL, error);
    if (status) return status;
    *bytes = w.bytes;
    slm_workspace_release(&w);
    return SLM_OK;
}

void slm_workspace_release(slm_workspace *w) {
    for (int i = 0; i < w->n_blocks; i++) slm_free(w->blocks[i]);
    slm_free(w->blocks);
    slm_free(w->streams);
    slm_free(w->linear);
    slm_free(w->attention);
    *w = (slm_workspace){0};
}
