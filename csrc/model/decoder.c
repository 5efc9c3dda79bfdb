/* SPDX-License-Identifier: Apache-2.0
 * decoder.c: what a transformer is. Each function is one block of the architecture; each op in it works on the team's share and
 * ends where the next one needs all of its result: at a barrier. What differs between models are fields of the config, never
 * their names. Cancelled, an op skips its work, but all threads still meet at every barrier. */
#include "model/decoder.h"

#include "base/half.h"
#include "ops/rope.h"

/* The op that just ran is complete on all threads. */
static void done(slm_team *team) {
    slm_team_barrier(team);
}

static slm_input input_of(const slm_step *step, float *x, int64_t k, int64_t ldx, int group) {
    const slm_workspace *w = step->workspace;
    slm_input input = {.n_tokens = step->n_tokens, .k = k, .ldx = ldx, .x = x, .rounded = w->rounded, .codes = w->codes};
    input.codes.k = k;
    input.codes.group = group;
    return input;
}

/* y_i = x W_i^T for all of `linears`. */
static void project(const slm_step *step, slm_team *team, slm_input *input, const slm_linear *linears, int n_linears) {
    const slm_kernels *kernels = step->model->kernels;
    slm_linear_prepare(kernels, team, input, linears, n_linears);
    done(team);
    slm_linear_run(kernels, team, input, linears, n_linears, &step->workspace->linear[team->index]);
    done(team);
}

/* hidden = embed_tokens[token], and the angles of the step's positions. */
static void embed(const slm_step *step, slm_team *team) {
    const slm_model *model = step->model;
    const slm_workspace *w = step->workspace;
    int64_t begin, end, half = model->config.rotary_dim / 2;
    slm_team_range(team, step->n_tokens, &begin, &end);
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        slm_matrix_row(&model->embed_tokens, step->tokens[t], w->hidden + t * w->hidden_ld);
        slm_rope_table(model->config.rope_inv_freq, half, step->first_position + t, w->rope + t * half * 2);
    }
}

/* hidden += delta (unless NULL); normed = norm(hidden). */
static void add_and_norm(const slm_step *step, slm_team *team, const float *delta, const float *weight) {
    const slm_config *config = &step->model->config;
    const slm_workspace *w = step->workspace;
    int64_t begin, end;
    slm_team_range(team, step->n_tokens, &begin, &end);
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        float *hidden = w->hidden + t * w->hidden_ld;
        if (delta) step->model->kernels->add(hidden, delta + t * w->hidden_ld, w->hidden_ld);
        step->model->kernels->rms_norm(hidden, weight, config->hidden_size, config->rms_norm_eps, w->normed + t * w->hidden_ld);
    }
}

/* Turns queries and keys to their positions; keys and values enter the cache, queries get its rounding and the scale of the
 * scores. */
static void rotate_and_cache(const slm_step *step, slm_team *team, int64_t layer) {
    const slm_config *c = &step->model->config;
    const slm_workspace *w = step->workspace;
    int64_t begin, end, half = c->rotary_dim / 2, group = c->num_attention_heads / c->num_key_value_heads;
    slm_team_range(team, step->n_tokens * c->num_key_value_heads, &begin, &end);
    for (int64_t i = begin; i < end && !slm_team_cancelled(team); i++) {
        int64_t t = i / c->num_key_value_heads, head = i % c->num_key_value_heads;
        const float *table = w->rope + t * half * 2;
        float *k = w->k + t * w->kv_ld + head * c->head_dim;
        slm_rope(k, table, half, c->rope_style);
        slm_kv_write(step->cache, layer, head, step->first_position + t, k, w->v + t * w->kv_ld + head * c->head_dim);
        float *q = w->q + t * w->q_ld + head * group * c->head_dim;
        for (int64_t j = 0; j < group; j++) slm_rope(q + j * c->head_dim, table, half, c->rope_style);
        for (int64_t j = 0; j < group * c->head_dim; j++) {
            q[j] *= c->attention_scale;
            if (step->model->kv_shape.bf16) q[j] = slm_bf16_round(q[j]);
        }
    }
}

/* delta = o_proj(softmax(q k^T) v) of normed. */
static void attention_block(const slm_step *step, slm_team *team, int64_t index) {
    const slm_model *model = step->model;
    const slm_layer *layer = &model->layers[index];
    const slm_workspace *w = step->workspace;
    int64_t head_dim = model->config.head_dim, n_heads = model->config.num_attention_heads;

    slm_input input = input_of(step, w->normed, model->config.hidden_size, w->hidden_ld, SLM_GROUP);
    project(step, team, &input,
            (slm_linear[]){{&layer->q_proj, w->q, w->q_ld}, {&layer->k_proj, w->k, w->kv_ld}, {&layer->v_proj, w->v, w->kv_ld}},
            3);
    rotate_and_cache(step, team, index);
    done(team);
    slm_attention attention = {.shape = &model->kv_shape,
                               .pages = step->cache->pages + index,
                               .n_heads = n_heads,
                               .first_position = step->first_position,
                               .n_tokens = step->n_tokens,
                               .q = w->q,
                               .ldq = w->q_ld,
                               .out = w->attended,
                               .ldo = w->q_ld};
    slm_attention_run(model->kernels, team, &attention, &w->attention[team->index]);
    done(team);
    input = input_of(step, w->attended, n_heads * head_dim, w->q_ld, SLM_GROUP);
    project(step, team, &input, &(slm_linear){&layer->o_proj, w->delta, w->hidden_ld}, 1);
}

/* delta = down_proj(act(gate_proj(normed)) * up_proj(normed)). */
static void mlp_block(const slm_step *step, slm_team *team, int64_t index) {
    const slm_model *model = step->model;
    const slm_layer *layer = &model->layers[index];
    const slm_workspace *w = step->workspace;

    slm_input input = input_of(step, w->normed, model->config.hidden_size, w->hidden_ld, SLM_GROUP);
    project(step, team, &input, (slm_linear[]){{&layer->gate_proj, w->gate, w->inner_ld}, {&layer->up_proj, w->up, w->inner_ld}},
            2);
    int64_t begin, end;
    slm_team_range(team, step->n_tokens, &begin, &end);
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        float *gate = w->gate + t * w->inner_ld;
        model->kernels->silu_multiply(gate, w->up + t * w->inner_ld, w->inner_ld, gate);
    }
    input = input_of(step, w->gate, model->config.intermediate_size, w->inner_ld, layer->down_proj_group);
    project(step, team, &input, &(slm_linear){&layer->down_proj, w->delta, w->hidden_ld}, 1);
}

/* logits = lm_head(normed) of the last n_logits tokens. */
static void output(slm_step *step, slm_team *team) {
    const slm_model *model = step->model;
    const slm_workspace *w = step->workspace;
    int64_t vocab_size = model->config.vocab_size, first = step->n_tokens - step->n_logits;
    slm_input input = input_of(step, w->normed + first * w->hidden_ld, model->config.hidden_size, w->hidden_ld, SLM_GROUP);
    input.n_tokens = step->n_logits;
    project(step, team, &input, &(slm_linear){&model->lm_head, step->logits, vocab_size}, 1);
    int64_t begin, end;
    slm_team_range(team, step->n_logits * vocab_size, &begin, &end);
    if (!model->kernels->all_finite(step->logits + begin, end - begin)) atomic_store(&step->finite, false);
}

/* Without logits NaN would hide in the cache until somebody asks for some. */
static void check_hidden(slm_step *step, slm_team *team) {
    const slm_workspace *w = step->workspace;
    int64_t begin, end;
    slm_team_range(team, step->n_tokens, &begin, &end);
    for (int64_t t = begin; t < end && !slm_team_cancelled(team); t++) {
        if (!step->model->kernels->all_finite(w->hidden + t * w->hidden_ld, w->hidden_ld)) atomic_store(&step->finite, false);
    }
}

void slm_decoder_step(slm_step *step, slm_team *team) {
    const slm_model *model = step->model;
    const float *delta = NULL;
    embed(step, team);
    for (int64_t i = 0; i < model->config.num_hidden_layers; i++) {
        add_and_norm(step, team, delta, model->layers[i].input_layernorm);
        attention_block(step, team, i);
        delta = step->workspace->delta;
        add_and_norm(step, team, delta, model->layers[i].post_attention_layernorm);
        mlp_block(step, team, i);
    }
    if (step->n_logits) {
        add_and_norm(step, team, delta, model->norm);
        done(team); /* the last tokens go to other threads now */
        output(step, team);
    } else {
        check_hidden(step, team);
    }
}
