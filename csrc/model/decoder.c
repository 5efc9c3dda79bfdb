/* SPDX-License-Identifier: Apache-2.0
 * decoder.c: what a transformer is. Each function is one block of the architecture; each op in it works on the team's share and
 * ends where the next one needs all of its result: at a barrier. What differs between models are fields of the config, never
 * their names. Cancelled, an op skips its work, but all threads still meet at every barrier.
 *
 * The residual stream is split by tokens: a thread computes that of its own ones. A single token's is computed by every thread
 * for itself, and so are its queries, which takes less time than to wait for the one that has them; unless somebody visits it,
 * who is to find one. */
#include "model/decoder.h"

#include <string.h>

#include "base/half.h"
#include "ops/rope.h"

/* The op that just ran is complete on all threads. */
static void done(slm_team *team) {
    slm_team_barrier(team);
}

/* Tokens that take part in a block: row i of what it computes belongs to token at[i] of the step. */
typedef struct row_set {
    int64_t n;
    const int64_t *at; /* [n] ascending; NULL: 0 .. n - 1 */
    const slm_kv_span *spans;
    int64_t n_spans;
} row_set;

static int64_t token_at(const row_set *rows, int64_t i) {
    return rows->at ? rows->at[i] : i;
}

static bool is_single(const slm_step *step) {
    return step->n_tokens == 1 && !step->n_taps;
}

static const slm_stream *stream_of(const slm_step *step, const slm_team *team) {
    return &step->workspace->streams[is_single(step) ? team->index : 0];
}

/* Which of n rows this thread computes the stream of. */
static void own_rows(const slm_step *step, const slm_team *team, int64_t n, int64_t *begin, int64_t *end) {
    *begin = 0;
    *end = n;
    if (!is_single(step)) slm_team_range(team, n, begin, end);
}

/* The stream is complete, of all tokens. */
static void stream_done(const slm_step *step, slm_team *team) {
    if (!is_single(step)) done(team);
}

static slm_input input_of(const slm_step *step, const slm_team *team, int64_t n_tokens, float *x, int64_t k, int64_t ldx,
                          int group) {
    const slm_stream *stream = stream_of(step, team);
    slm_input input = {.n_tokens = n_tokens,
                       .k = k,
                       .ldx = ldx,
                       .precision = step->model->precision,
                       .x = x,
                       .rounded = stream->rounded,
                       .codes = stream->codes,
                       .low = stream->low,
                       .low_ld = step->model->low_ld};
    input.codes.k = k;
    input.codes.group = group;
    return input;
}

/* The forms of an input that its linears need. */
static void prepare(const slm_step *step, slm_team *team, slm_input *input, const slm_linears *linears) {
    int64_t begin, end;
    own_rows(step, team, input->n_tokens, &begin, &end);
    slm_linear_prepare(step->model->kernels, team, input, linears, begin, end);
    stream_done(step, team);
}

/* This thread's part of the linears of one input that is ready for them; next: the ones that follow, if it is known. */
static void run_part(const slm_step *step, slm_team *team, const slm_input *input, const slm_linears *linears,
                     const slm_linears *next) {
    slm_linear_run(step->model->kernels, team, input, linears, next, &step->workspace->linear[team->index]);
}

static void run(const slm_step *step, slm_team *team, const slm_input *input, const slm_linears *linears,
                const slm_linears *next) {
    run_part(step, team, input, linears, next);
    done(team);
}

static void project(const slm_step *step, slm_team *team, slm_input *input, slm_linears linears, const slm_linears *next) {
    prepare(step, team, input, &linears);
    run(step, team, input, &linears, next);
}

static slm_linears qkv_of(const slm_step *step, const slm_layer *layer) {
    const slm_workspace *w = step->workspace;
    int64_t head_dim = step->model->config.head_dim;
    return (slm_linears){3,
                         {{.dense = &layer->q_proj, .y = w->q, .ldy = w->q_ld},
                          {.dense = &layer->k_proj, .y = w->k, .ldy = w->kv_ld, .unit = head_dim},
                          {.dense = &layer->v_proj, .y = w->v, .ldy = w->kv_ld, .unit = head_dim}}};
}

/* What gives delta. */
static slm_linears output_of(const slm_step *step, const slm_dense *dense) {
    const slm_workspace *w = step->workspace;
    return (slm_linears){1, {{.dense = dense, .y = w->delta, .ldy = w->hidden_ld}}};
}

/* codes: where the product goes if it goes quantized. */
static slm_linears up_of(const slm_step *step, const slm_layer *layer, const slm_codes *codes) {
    const slm_workspace *w = step->workspace;
    return (slm_linears){1,
                         {{.dense = &layer->up_proj,
                           .gate = layer->gate_proj.w.data ? &layer->gate_proj : NULL,
                           .act = &step->model->config.hidden_act,
                           .y = w->product,
                           .ldy = w->inner_ld,
                           .codes = codes}}};
}

static slm_linears head_of(const slm_step *step) {
    return (slm_linears){1, {{.dense = &step->model->lm_head, .y = step->output, .ldy = step->model->config.vocab_size}}};
}

/* The span that a token is in. */
static const slm_kv_span *span_of(const slm_step *step, int64_t token) {
    const slm_kv_span *span = step->spans;
    while (token >= span->first_token + span->n_tokens) span++;
    return span;
}

static int64_t position_of(const slm_step *step, int64_t token) {
    const slm_kv_span *span = span_of(step, token);
    return span->first_position + token - span->first_token;
}

/* The angles of a token's position in the rope table of a layer. */
static float *angles(const slm_step *step, const slm_team *team, int64_t token, int64_t table) {
    const slm_config *c = &step->model->config;
    return stream_of(step, team)->rope + (token * c->n_rope_tables + table) * c->rotary_dim;
}

/* ---- visits: named activations, for those who asked for them ------------------------------------------------------------- */

/* One text's rows at a time. */
static void edit_rows(const slm_step *step, size_t tap, float *x) {
    int64_t ld = step->workspace->hidden_ld, hidden_size = step->model->config.hidden_size;
    for (int64_t i = 0; i < step->n_spans; i++) {
        const slm_kv_span *span = &step->spans[i];
        if (slm_clock_activation(step->clock, tap, x + span->first_token * ld, span->n_tokens, hidden_size, ld,
                                 span->first_position)) {
            return;
        }
    }
}

static void capture_rows(const slm_step *step, float *rows, const float *x) {
    int64_t hidden_size = step->model->config.hidden_size;
    for (int64_t t = 0; t < step->n_tokens; t++) {
        memcpy(rows + (step->first_token + t) * hidden_size, x + t * step->workspace->hidden_ld,
               (size_t)hidden_size * sizeof *rows);
    }
}

/* x: [n_tokens, hidden_ld], each row so far known to its own thread only. */
static void visit(const slm_step *step, slm_team *team, slm_site site, int64_t layer, float *x) {
    for (size_t i = 0; i < step->n_taps; i++) {
        const slm_tap *tap = &step->taps[i];
        if (tap->site != site || tap->layer != layer) continue;
        done(team);
        if (team->index == 0) tap->rows ? capture_rows(step, tap->rows, x) : edit_rows(step, i, x);
        done(team);
    }
}

/* The probabilities behind what attention is about to give. */
static void visit_weights(const slm_step *step, slm_team *team, int64_t layer, const slm_attention *attention) {
    for (size_t i = 0; i < step->n_taps; i++) {
        const slm_tap *tap = &step->taps[i];
        if (tap->site != SLM_SITE_ATTN_WEIGHTS || tap->layer != layer) continue;
        int64_t n_keys = step->spans->first_position - step->first_token + step->n_call_tokens;
        slm_attention_weights(step->model->kernels, team, attention, &step->workspace->attention[team->index],
                              tap->rows + step->first_token * n_keys, step->n_call_tokens * n_keys, n_keys);
    }
}

/* ---- blocks -------------------------------------------------------------------------------------------------------------- */

/* hidden = embed_tokens[token] and what is added to it, and the angles of the step's positions. */
static void embed(const slm_step *step, slm_team *team) {
    const slm_model *model = step->model;
    const slm_config *c = &model->config;
    const slm_stream *stream = stream_of(step, team);
    int64_t ld = step->workspace->hidden_ld;
    const slm_kernels *kernels = model->kernels;
    int64_t begin, end, half = c->rotary_dim / 2;
    own_rows(step, team, step->n_tokens, &begin, &end);
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        float *hidden = stream->hidden + t * ld, *normed = stream->normed + t * ld;
        int64_t position = position_of(step, t);
        slm_matrix_row(&model->embed_tokens, step->tokens[t], hidden);
        slm_addends_embed(kernels, model->embed_addends, step->tokens[t], stream->low + t * model->low_ld, hidden);
        if (c->embedding_scale > 0) kernels->scale(hidden, c->embedding_scale, ld);
        if (model->position_embeddings.data) {
            slm_matrix_row(&model->position_embeddings, position, normed);
            kernels->add(hidden, normed, ld);
        }
        if (model->token_type_embedding) kernels->add(hidden, model->token_type_embedding, ld);
        if (model->embedding_norm.weight) slm_norm_run(kernels, &model->embedding_norm, hidden, hidden);
        for (int64_t i = 0; i < c->n_rope_tables; i++)
            slm_rope_table(c->rope_inv_freq + i * half, half, position, c->rope_factor > 0 ? c->rope_factor : 1,
                           angles(step, team, t, i));
    }
}

/* normed = norm(hidden), what a block reads. */
static void block_input(const slm_step *step, slm_team *team, const row_set *rows, const slm_norm *norm) {
    const slm_stream *stream = stream_of(step, team);
    int64_t begin, end, ld = step->workspace->hidden_ld;
    own_rows(step, team, rows->n, &begin, &end);
    for (int64_t i = begin; i < end && !slm_team_cancelled(team); i++) {
        const float *hidden = stream->hidden + token_at(rows, i) * ld;
        float *normed = stream->normed + i * ld;
        if (norm->weight) {
            slm_norm_run(step->model->kernels, norm, hidden, normed);
        } else {
            memcpy(normed, hidden, (size_t)ld * sizeof *normed);
        }
    }
}

/* hidden += delta, what a block gives; the block's output norm is taken of delta or of the sum. */
static void block_output(const slm_step *step, slm_team *team, const row_set *rows, const slm_norm *norm) {
    const slm_config *c = &step->model->config;
    const slm_workspace *w = step->workspace;
    const slm_stream *stream = stream_of(step, team);
    const slm_kernels *kernels = step->model->kernels;
    int64_t begin, end;
    own_rows(step, team, rows->n, &begin, &end);
    for (int64_t i = begin; i < end && !slm_team_cancelled(team); i++) {
        float *hidden = stream->hidden + token_at(rows, i) * w->hidden_ld, *delta = w->delta + i * w->hidden_ld;
        if (is_single(step)) delta = memcpy(stream->delta, delta, (size_t)w->hidden_ld * sizeof *delta); /* others read it */
        if (norm->weight && !c->norm_after_residual) slm_norm_run(kernels, norm, delta, delta);
        if (c->residual_scale > 0) kernels->scale(delta, c->residual_scale, w->hidden_ld);
        kernels->add(hidden, delta, w->hidden_ld);
        if (norm->weight && c->norm_after_residual) slm_norm_run(kernels, norm, hidden, hidden);
    }
}

/* Queries and keys normalised, all heads of a token at once. */
static void normalize_all_heads(const slm_step *step, slm_team *team, const slm_layer *layer) {
    const slm_workspace *w = step->workspace;
    int64_t begin, end;
    slm_team_range(team, step->n_tokens, &begin, &end);
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        float *q = w->q + t * w->q_ld, *k = w->k + t * w->kv_ld;
        slm_norm_run(step->model->kernels, &layer->q_norm, q, q);
        slm_norm_run(step->model->kernels, &layer->k_norm, k, k);
    }
}

/* Heads first .. first + n_heads - 1 of one token, normalised and turned to its position. */
static void turn(const slm_step *step, const slm_team *team, const slm_layer *layer, const slm_norm *norm, int64_t token,
                 float *x, int64_t first, int64_t n_heads) {
    const slm_config *c = &step->model->config;
    if (norm->weight && norm->width == c->head_dim) slm_norm_heads(step->model->kernels, norm, x, first, n_heads);
    for (int64_t i = 0; layer->rope_table >= 0 && i < n_heads; i++)
        slm_rope(x + i * c->head_dim, angles(step, team, token, layer->rope_table), c->rotary_dim / 2, c->rope_style);
}

/* Key and value (NULL: none) of one head of a token enter the pages of a layer. */
static void enter_cache(const slm_step *step, int64_t layer, int64_t head, int64_t token, const float *k, const float *v) {
    const slm_kv_shape *shape = &step->model->kv_shape;
    int64_t position = position_of(step, token), page = position / SLM_PAGE_POSITIONS;
    slm_kv_page_write(step->model->kernels, shape, span_of(step, token)->pages[page * shape->n_layers + layer], head,
                      position % SLM_PAGE_POSITIONS, k, v);
}

bool slm_step_is_finite(const slm_step *step, int64_t token) {
    const slm_workspace *w = step->workspace;
    const slm_kernels *kernels = step->model->kernels;
    return kernels->all_finite(w->streams[0].hidden + token * w->hidden_ld, w->hidden_ld) &&
           kernels->all_finite(w->k + token * w->kv_ld, w->kv_ld) && kernels->all_finite(w->v + token * w->kv_ld, w->kv_ld);
}

/* In the last layer, which the other layers lead to: where output is not of all tokens, NaN would hide in the cache until a later
 * token sees it. Behind it, where somebody sees the rows of all tokens. */
static void check_silent(slm_step *step, slm_team *team) {
    int64_t begin, end;
    slm_team_range(team, step->n_outputs < step->n_tokens ? step->n_tokens : 0, &begin, &end);
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        if (!slm_step_is_finite(step, t)) atomic_store(&step->finite, false);
    }
}

/* The keys and values of a single token that this thread has made itself, whole heads: the keys turned to its position. */
static void cache_own_heads(const slm_step *step, slm_team *team, int64_t index, const slm_linears *qkv) {
    int64_t head_dim = step->model->config.head_dim, first, end;
    const slm_layer *layer = &step->model->layers[index];
    const slm_workspace *w = step->workspace;
    slm_linear_share(team, qkv, 1, &first, &end);
    for (int64_t i = first; i < end && !slm_team_cancelled(team); i += head_dim) {
        turn(step, team, layer, &layer->k_norm, 0, w->k + i, i / head_dim, 1);
        enter_cache(step, index, i / head_dim, 0, w->k + i, NULL);
    }
    slm_linear_share(team, qkv, 2, &first, &end);
    for (int64_t i = first; i < end && !slm_team_cancelled(team); i += head_dim)
        enter_cache(step, index, i / head_dim, 0, NULL, w->v + i);
}

/* Keys of all tokens are turned to their positions and enter the cache with their values. */
static void cache_keys(const slm_step *step, slm_team *team, int64_t index) {
    const slm_config *c = &step->model->config;
    const slm_layer *layer = &step->model->layers[index];
    const slm_workspace *w = step->workspace;
    int64_t begin, end;
    slm_team_range(team, step->n_tokens * c->num_key_value_heads, &begin, &end);
    for (int64_t i = begin; i < end && !slm_team_cancelled(team); i++) {
        int64_t t = i / c->num_key_value_heads, head = i % c->num_key_value_heads;
        float *k = w->k + t * w->kv_ld + head * c->head_dim;
        turn(step, team, layer, &layer->k_norm, t, k, head, 1);
        enter_cache(step, index, head, t, k, w->v + t * w->kv_ld + head * c->head_dim);
    }
}

/* query = that of one head of a token, turned to its position, scaled as scores are to be, rounded as keys are. */
static void turn_query(const slm_step *step, const slm_team *team, const slm_layer *layer, int64_t token, int64_t head,
                       float *query) {
    const slm_config *c = &step->model->config;
    const slm_workspace *w = step->workspace;
    memmove(query, w->q + token * w->q_ld + head * c->head_dim, (size_t)c->head_dim * sizeof *query);
    turn(step, team, layer, &layer->q_norm, token, query, head, 1);
    for (int64_t j = 0; j < c->head_dim; j++) {
        query[j] *= c->attention_scale;
        if (step->model->kv_shape.keys == SLM_KV_BF16) query[j] = slm_bf16_to_f32(slm_f32_to_bf16_factor(query[j]));
    }
}

/* The same of all heads of some tokens: queries [rows->n, q_ld]. */
static void turn_queries(const slm_step *step, slm_team *team, const row_set *rows, int64_t index, float *queries) {
    const slm_config *c = &step->model->config;
    int64_t begin, end, n_heads = c->num_attention_heads;
    slm_team_range(team, rows->n * n_heads, &begin, &end);
    for (int64_t i = begin; i < end && !slm_team_cancelled(team); i++) {
        int64_t row = i / n_heads, head = i % n_heads;
        turn_query(step, team, &step->model->layers[index], token_at(rows, row), head,
                   queries + row * step->workspace->q_ld + head * c->head_dim);
    }
}

/* Keys and values of all tokens enter the cache; delta = o_proj(softmax(q k^T) v) of some. */
static void attention_block(slm_step *step, slm_team *team, const row_set *rows, int64_t index) {
    const slm_model *model = step->model;
    const slm_layer *layer = &model->layers[index];
    const slm_workspace *w = step->workspace;
    int64_t head_dim = model->config.head_dim, n_heads = model->config.num_attention_heads;
    const slm_stream *stream = stream_of(step, team);
    bool heads_alone = !layer->q_norm.weight || layer->q_norm.width == head_dim;
    bool own = is_single(step) && heads_alone; /* a thread enters the heads it makes, and turns all queries for itself */

    slm_input input = input_of(step, team, step->n_tokens, stream->normed, model->config.hidden_size, w->hidden_ld, SLM_GROUP);
    slm_linears qkv = qkv_of(step, layer), o_proj = output_of(step, &layer->o_proj), up_proj = up_of(step, layer, NULL);
    prepare(step, team, &input, &qkv);
    run_part(step, team, &input, &qkv, &o_proj);
    if (own) cache_own_heads(step, team, index, &qkv);
    done(team);
    if (!heads_alone) {
        normalize_all_heads(step, team, layer);
        done(team);
    }
    float *queries = w->q, *attended = w->attended;
    if (own) {
        queries = stream->queries;
        for (int64_t head = 0; head < n_heads; head++) turn_query(step, team, layer, 0, head, queries + head * head_dim);
    } else {
        if (rows->at) queries = w->attended, attended = w->q; /* some tokens: their queries are gathered where there is room */
        cache_keys(step, team, index);
        turn_queries(step, team, rows, index, queries);
        done(team);
    }
    if (index == model->config.num_hidden_layers - 1) check_silent(step, team);
    if (!rows->n) return;
    slm_attention attention = {.shape = &model->kv_shape,
                               .layer = index,
                               .spans = rows->spans,
                               .n_spans = rows->n_spans,
                               .n_heads = n_heads,
                               .window = model->sliding_windows[index],
                               .bidirectional = model->config.bidirectional,
                               .soft_cap = model->config.attention_softcap,
                               .q = queries,
                               .ldq = w->q_ld,
                               .out = attended,
                               .ldo = w->q_ld,
                               .partials = &w->partials};
    visit_weights(step, team, index, &attention);
    slm_attention_run(model->kernels, team, &attention, &w->attention[team->index]);
    done(team);
    input = input_of(step, team, rows->n, attended, n_heads * head_dim, w->q_ld, SLM_GROUP);
    project(step, team, &input, o_proj, &up_proj);
}

/* delta = down_proj(act(gate_proj(normed)) * up_proj(normed)), or down_proj(act(up_proj(normed))). */
static void mlp_block(const slm_step *step, slm_team *team, const row_set *rows, int64_t index) {
    const slm_model *model = step->model;
    const slm_layer *layer = &model->layers[index];
    const slm_workspace *w = step->workspace;

    float *normed = stream_of(step, team)->normed;
    slm_input input = input_of(step, team, rows->n, normed, model->config.hidden_size, w->hidden_ld, SLM_GROUP);
    slm_input inner =
        input_of(step, team, rows->n, w->product, model->config.intermediate_size, w->inner_ld, layer->down_proj_group);
    slm_linears down_proj = output_of(step, &layer->down_proj);
    slm_linears next = index + 1 < model->config.num_hidden_layers ? qkv_of(step, layer + 1) : head_of(step);
    if (slm_linear_takes_codes(&inner, &down_proj)) {
        const slm_codes *room = &w->product_codes;
        inner.codes = (slm_codes){inner.k, inner.codes.group, room->codes, room->sums, room->scales, room->scaled_sums};
        project(step, team, &input, up_of(step, layer, &inner.codes), &down_proj);
        run(step, team, &inner, &down_proj, &next);
    } else {
        project(step, team, &input, up_of(step, layer, NULL), &down_proj);
        project(step, team, &inner, down_proj, &next);
    }
}

/* output = lm_head(normed), or the choices among its elements. */
static void output_logits(slm_step *step, slm_team *team) {
    const slm_model *model = step->model;
    const slm_workspace *w = step->workspace;
    int64_t vocab_size = model->config.vocab_size;
    float *normed = stream_of(step, team)->normed;
    slm_input input = input_of(step, team, step->n_outputs, normed, model->config.hidden_size, w->hidden_ld, SLM_GROUP);
    slm_linears linears = head_of(step);
    slm_head head = {
        .dense = &model->lm_head, .scale = model->config.logits_scale, .cap = model->config.logits_softcap, .limits = w->limits};
    if (step->choices) {
        prepare(step, team, &input, &linears);
        if (!slm_head_choose(model->kernels, team, &input, &head, step->choices, &w->linear[team->index]))
            atomic_store(&step->finite, false);
        return;
    }
    project(step, team, &input, linears, NULL);
    int64_t begin, end;
    slm_team_range(team, step->n_outputs * vocab_size, &begin, &end);
    if (!slm_head_finish(model->kernels, &head, step->output + begin, end - begin)) atomic_store(&step->finite, false);
}

/* output = normed. */
static void output_hidden(slm_step *step, slm_team *team) {
    const slm_workspace *w = step->workspace;
    int64_t begin, end, width = step->model->config.hidden_size;
    slm_team_range(team, step->n_outputs, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        memcpy(step->output + i * width, stream_of(step, team)->normed + i * w->hidden_ld, (size_t)width * sizeof(float));
    }
    if (!step->model->kernels->all_finite(step->output + begin * width, (end - begin) * width))
        atomic_store(&step->finite, false);
}

/* The rows of normed, which are of all tokens, become those of the ones whose output is wanted. */
static void keep_wanted(const slm_step *step, slm_team *team) {
    int64_t ld = step->workspace->hidden_ld;
    float *normed = stream_of(step, team)->normed;
    done(team);
    for (int64_t i = 0; team->index == 0 && i < step->n_outputs; i++)
        memmove(normed + i * ld, normed + step->outputs[i] * ld, (size_t)ld * sizeof *normed);
    done(team);
}

/* All spans of the tokens whose output is wanted, as rows of their own. */
static int64_t output_spans(const slm_step *step, slm_kv_span *spans) {
    int64_t n = 0;
    const slm_kv_span *last = NULL;
    for (int64_t i = 0; i < step->n_outputs; i++) {
        int64_t token = step->outputs[i];
        const slm_kv_span *span = span_of(step, token);
        if (span == last && token == step->outputs[i - 1] + 1) {
            spans[n - 1].n_tokens++;
        } else {
            spans[n++] =
                (slm_kv_span){.pages = span->pages, .first_token = i, .n_tokens = 1, .first_position = position_of(step, token)};
        }
        last = span;
    }
    return n;
}

void slm_decoder_step(slm_step *step, slm_team *team) {
    const slm_model *model = step->model;
    slm_workspace *w = step->workspace;
    int64_t n_layers = model->config.num_hidden_layers;
    row_set all = {.n = step->n_tokens, .spans = step->spans, .n_spans = step->n_spans};
    row_set wanted = {.n = step->n_outputs, .at = step->outputs, .spans = w->output_spans};
    /* Of the other tokens the last layer has to give keys and values, no more. */
    bool visited = step->n_taps, fewer = wanted.n < all.n && !model->config.bidirectional && !visited;
    if (fewer && team->index == 0) w->n_output_spans = output_spans(step, w->output_spans);
    embed(step, team);
    if (fewer) done(team);
    wanted.n_spans = w->n_output_spans;
    visit(step, team, SLM_SITE_EMBED, 0, w->streams->hidden);
    for (int64_t i = 0; i < n_layers; i++) {
        const slm_layer *layer = &model->layers[i];
        const row_set *rows = fewer && i == n_layers - 1 ? &wanted : &all;
        bool parallel = model->config.parallel_residual, shared = parallel && !layer->post_attention_layernorm.weight;
        block_input(step, team, &all, &layer->input_layernorm);
        visit(step, team, SLM_SITE_ATTN_IN, i, w->streams->normed);
        attention_block(step, team, rows, i);
        if (!rows->n) return;
        visit(step, team, SLM_SITE_ATTN_OUT, i, w->delta);
        if (parallel && !shared) block_input(step, team, rows, &layer->post_attention_layernorm);
        if (shared && (rows != &all || visited)) block_input(step, team, rows, &layer->input_layernorm);
        block_output(step, team, rows, &layer->attn_output_norm);
        if (!parallel) block_input(step, team, rows, &layer->post_attention_layernorm);
        visit(step, team, SLM_SITE_MLP_IN, i, w->streams->normed);
        mlp_block(step, team, rows, i);
        visit(step, team, SLM_SITE_MLP_OUT, i, w->delta);
        block_output(step, team, rows, &layer->mlp_output_norm);
        visit(step, team, SLM_SITE_OUT, i, w->streams->hidden);
    }
    if (!wanted.n && !visited) return;
    stream_done(step, team); /* rows go to other threads now */
    if (visited) {
        done(team);
        check_silent(step, team);
    }
    block_input(step, team, visited ? &all : &wanted, &model->norm);
    visit(step, team, SLM_SITE_FINAL_NORM, 0, w->streams->normed);
    if (visited) keep_wanted(step, team);
    if (wanted.n) step->hidden ? output_hidden(step, team) : output_logits(step, team);
}

void slm_decoder_unembed(slm_step *step, const float *rows, slm_team *team) {
    row_set all = {.n = step->n_tokens};
    int64_t begin, end, hidden_size = step->model->config.hidden_size;
    own_rows(step, team, all.n, &begin, &end);
    for (int64_t i = begin; i < end; i++) {
        float *hidden = stream_of(step, team)->hidden + i * step->workspace->hidden_ld;
        memcpy(hidden, rows + i * hidden_size, (size_t)hidden_size * sizeof *hidden);
    }
    block_input(step, team, &all, &step->model->norm);
    output_logits(step, team);
}
