/* SPDX-License-Identifier: Apache-2.0 */
#include "model/plan.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "blas.h"
#include "kernels/kernels.h"

enum {
    READ_BYTES = 1 << 20,       /* of the file at a time */
    SCREENED_ROWS = 100 * 1000, /* of an output layer, at least: 150,000 and more win, 50,000 did not */
    MODEL_TENSORS = 9,
    LAYER_TENSORS = 26 /* at most: 13 weights and as many biases */
};

/* ---- tensors --------------------------------------------------------------------------------------------------------- */

/* Pieces of a vector that lie in different places follow each other. */
static slm_status check_vector(const slm_planned *p, int64_t n, slm_error *error) {
    int64_t found = 0;
    for (const slm_tensor *piece = p->tensor; piece; piece = piece->below) {
        bool one_row = piece->rows == 1 && piece->cols >= 1 && !piece->transposed_ld;
        if (!one_row || piece->type != p->tensor->type || piece->cols % slm_type_block(piece->type) || found > n - piece->cols) {
            return slm_fail(error, SLM_BAD_ARGUMENT, p->layer, "%s: expected [1, %lld], found [%lld, %lld]", p->name,
                            (long long)n, (long long)piece->rows, (long long)piece->cols);
        }
        found += piece->cols;
    }
    if (found != n) {
        return slm_fail(error, SLM_BAD_ARGUMENT, p->layer, "%s: expected [1, %lld], found [1, %lld]", p->name, (long long)n,
                        (long long)found);
    }
    return SLM_OK;
}

/* Pieces of rows that lie in different places make up one tensor. */
static slm_status check_pieces(const slm_planned *p, int64_t rows, int64_t cols, slm_error *error) {
    if (p->vector && rows == 1) return check_vector(p, cols, error);
    int64_t found = 0;
    for (const slm_tensor *piece = p->tensor; piece; piece = piece->below) {
        if (found && piece->rows > rows - found)
            return slm_fail(error, SLM_BAD_ARGUMENT, p->layer, "%s: expected %lld rows, found more", p->name, (long long)rows);
        if (piece->rows < 1 || piece->cols != cols || piece->type != p->tensor->type || piece->rows > rows ||
            (piece->transposed_ld &&
             (slm_type_block(piece->type) != 1 || piece->transposed_ld < piece->rows || piece->transposed_ld > INT32_MAX))) {
            return slm_fail(error, SLM_BAD_ARGUMENT, p->layer, "%s: expected [%lld, %lld], found [%lld, %lld]", p->name,
                            (long long)rows, (long long)cols, (long long)piece->rows, (long long)piece->cols);
        }
        found += piece->rows;
    }
    if (found != rows) {
        return slm_fail(error, SLM_BAD_ARGUMENT, p->layer, "%s: expected %lld rows, found %lld", p->name, (long long)rows,
                        (long long)found);
    }
    return SLM_OK;
}

size_t slm_planned_row_bytes(const slm_planned *p) {
    return (size_t)(p->shape.cols / slm_type_block(p->tensor->type) * slm_type_block_bytes(p->tensor->type));
}

int64_t slm_planned_stride(const slm_planned *p) {
    return slm_round_up(p->shape.cols, 16);
}

bool slm_planned_is_encoded(const slm_planned *p) {
    return p->type != p->tensor->type;
}

static void plan_size(slm_plan *plan, slm_planned *p) {
    size_t panel_bytes = slm_planned_row_bytes(p) * SLM_PANEL_ROWS;
    p->panels_per_item = slm_max64(1, READ_BYTES / (int64_t)panel_bytes);
    p->n_items = slm_div_up(p->shape.n_panels, p->panels_per_item);
    size_t item_rows = (size_t)p->panels_per_item * SLM_PANEL_ROWS, blocks_bytes = item_rows * slm_matrix_row_bytes(&p->shape);
    if (item_rows * slm_planned_row_bytes(p) > plan->rows_bytes) plan->rows_bytes = item_rows * slm_planned_row_bytes(p);
    if (slm_planned_is_encoded(p) && blocks_bytes > plan->blocks_bytes) plan->blocks_bytes = blocks_bytes;
    if (slm_planned_is_encoded(p) || p->checked) plan->widest = slm_max64(plan->widest, p->shape.cols);
    plan->n_items += p->n_items;
    plan->file_bytes += slm_planned_row_bytes(p) * (uint64_t)p->shape.rows;
}

slm_status slm_plan_tensor(slm_plan *plan, const slm_planned *request, int64_t rows, int64_t cols, bool blas, slm_error *error) {
    slm_planned *p = &plan->tensors[plan->n_tensors];
    *p = *request;
    if ((unsigned)p->tensor->type >= SLM_TYPE_COUNT) {
        return slm_fail(error, SLM_UNSUPPORTED, p->layer, "%s: tensor type %d is unknown", p->name, (int)p->tensor->type);
    }
    if (p->type == SLM_TYPE_NONE) p->type = p->tensor->type;
    slm_status status = check_pieces(p, rows, cols, error);
    if (!status) status = slm_matrix_describe(&p->shape, p->type, rows, cols, blas, error);
    if (status) return status;
    if (p->screened) slm_matrix_screen(&p->shape);
    size_t bytes = p->matrix ? slm_matrix_bytes(&p->shape) : (size_t)(rows * slm_planned_stride(p)) * sizeof(float);
    p->at = plan->model->arena_bytes;
    if (!slm_add_size(plan->model->arena_bytes, slm_round_up((int64_t)bytes, 64), &plan->model->arena_bytes))
        return slm_fail_memory(error);
    if (p->matrix) *p->matrix = p->shape;
    plan_size(plan, p);
    plan->n_tensors++;
    return SLM_OK;
}

static slm_status plan_tensor(slm_plan *plan, slm_planned request, int64_t rows, int64_t cols, slm_error *error) {
    return slm_plan_tensor(plan, &request, rows, cols, request.matrix && slm_blas_available(), error);
}

static slm_status plan_vectors(slm_plan *plan, const slm_tensor *tensor, int64_t rows, int64_t n, const char *name, int layer,
                               float added, const float **vectors, slm_error *error) {
    if (tensor->type == SLM_TYPE_NONE) return SLM_OK;
    slm_planned p = {.tensor = tensor, .name = name, .layer = layer, .vector = vectors, .added = added};
    return plan_tensor(plan, p, rows, n, error);
}

static slm_status plan_vector(slm_plan *plan, const slm_tensor *tensor, int64_t n, const char *name, int layer,
                              const float **vector, slm_error *error) {
    return plan_vectors(plan, tensor, 1, n, name, layer, 0, vector, error);
}

/* Whether a weight is to be screened, if it is the output layer. */
static bool is_screened(const slm_plan *plan, bool is_head, int64_t rows) {
    return plan->screening && is_head && rows >= SCREENED_ROWS && plan->model->precision == SLM_PRECISION_DEFAULT;
}

/* What a linear or an embedding is packed as. */
static slm_type packed_type(const slm_plan *plan, const slm_tensor *tensor) {
    bool is_float = tensor->type == SLM_TYPE_F32 || tensor->type == SLM_TYPE_F16 || tensor->type == SLM_TYPE_BF16;
    bool encode = plan->quantize != SLM_TYPE_NONE && is_float && tensor->cols % slm_type_block(plan->quantize) == 0;
    return encode ? plan->quantize : tensor->type;
}

static slm_status plan_dense(slm_plan *plan, const slm_affine *from, int64_t rows, int64_t cols, const char *name, int layer,
                             bool optional, slm_dense *to, slm_error *error) {
    if (optional && from->weight.type == SLM_TYPE_NONE) return SLM_OK;
    slm_planned p = {.tensor = &from->weight,
                     .name = name,
                     .layer = layer,
                     .matrix = &to->w,
                     .screened = is_screened(plan, to == &plan->model->lm_head, rows),
                     .type = packed_type(plan, &from->weight)};
    slm_status status = plan_tensor(plan, p, rows, cols, error);
    if (!status) status = plan_vector(plan, &from->bias, rows, name, layer, &to->bias, error);
    return status;
}

static slm_status plan_norms(slm_plan *plan, const slm_affine *from, int64_t n_norms, int64_t width, const char *name, int layer,
                             slm_norm *to, slm_error *error) {
    const slm_config *c = &plan->model->config;
    *to = (slm_norm){.kind = c->norm_kind, .eps = c->norm_eps, .width = width};
    if (n_norms > 1) to->head_stride = slm_round_up(width, 16);
    slm_status status = plan_vectors(plan, &from->weight, n_norms, width, name, layer, c->norm_offset, &to->weight, error);
    if (!status) status = plan_vectors(plan, &from->bias, n_norms, width, name, layer, 0, &to->bias, error);
    return status;
}

static slm_status plan_norm(slm_plan *plan, const slm_affine *from, int64_t width, const char *name, int layer, slm_norm *to,
                            slm_error *error) {
    return plan_norms(plan, from, 1, width, name, layer, to, error);
}

/* A norm of queries or keys is as wide as one head, with one row of weights or as many as heads, or as all heads together. */
static slm_status plan_head_norm(slm_plan *plan, const slm_affine *from, int64_t n_heads, const char *name, int layer,
                                 slm_norm *to, slm_error *error) {
    int64_t head_dim = plan->model->config.head_dim;
    bool rows = from->weight.rows > 1 || from->weight.below, one = rows || from->weight.cols == head_dim;
    return plan_norms(plan, from, rows ? n_heads : 1, one ? head_dim : n_heads * head_dim, name, layer, to, error);
}

static slm_status plan_layer(slm_plan *plan, const slm_layer_weights *from, int i, slm_layer *to, slm_error *error) {
    const slm_config *c = &plan->model->config;
    int64_t hidden = c->hidden_size, q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
    int64_t inner = c->intermediate_size;
    const struct {
        const slm_affine *from;
        const char *name;
        slm_norm *to;
    } norms[] = {
        {&from->input_layernorm, "input_layernorm", &to->input_layernorm},
        {&from->attn_output_norm, "attn_output_norm", &to->attn_output_norm},
        {&from->post_attention_layernorm, "post_attention_layernorm", &to->post_attention_layernorm},
        {&from->mlp_output_norm, "mlp_output_norm", &to->mlp_output_norm},
    };
    const struct {
        const slm_affine *from;
        int64_t rows, cols;
        const char *name;
        slm_dense *to;
    } linears[] = {
        {&from->q_proj, q, hidden, "q_proj", &to->q_proj},
        {&from->k_proj, kv, hidden, "k_proj", &to->k_proj},
        {&from->v_proj, kv, hidden, "v_proj", &to->v_proj},
        {&from->o_proj, hidden, q, "o_proj", &to->o_proj},
        {&from->gate_proj, inner, hidden, "gate_proj", &to->gate_proj},
        {&from->up_proj, inner, hidden, "up_proj", &to->up_proj},
        {&from->down_proj, hidden, inner, "down_proj", &to->down_proj},
    };
    slm_status status = SLM_OK;
    for (size_t j = 0; !status && j < sizeof norms / sizeof *norms; j++)
        status = plan_norm(plan, norms[j].from, hidden, norms[j].name, i, norms[j].to, error);
    if (!status) status = plan_head_norm(plan, &from->q_norm, c->num_attention_heads, "q_norm", i, &to->q_norm, error);
    if (!status) status = plan_head_norm(plan, &from->k_norm, c->num_key_value_heads, "k_norm", i, &to->k_norm, error);
    for (size_t j = 0; !status && j < sizeof linears / sizeof *linears; j++) {
        status = plan_dense(plan, linears[j].from, linears[j].rows, linears[j].cols, linears[j].name, i,
                            linears[j].to == &to->gate_proj, linears[j].to, error);
    }
    to->down_proj_group = (int)from->down_proj_group;
    to->rope_table = from->rope_table;
    return status;
}

static slm_status plan_all(slm_plan *plan, const slm_weights *w, slm_error *error) {
    slm_model *m = plan->model;
    const slm_config *c = &m->config;
    int64_t hidden = c->hidden_size;
    slm_planned embedding = {.tensor = &w->embed_tokens,
                             .name = "embed_tokens",
                             .layer = -1,
                             .matrix = &m->embed_tokens,
                             .screened =
                                 is_screened(plan, w->lm_head.weight.type == SLM_TYPE_NONE && !c->bidirectional, c->vocab_size),
                             .type = packed_type(plan, &w->embed_tokens)};
    slm_planned positions = {
        .tensor = &w->position_embeddings, .name = "position_embeddings", .layer = -1, .matrix = &m->position_embeddings};
    slm_status status = plan_tensor(plan, embedding, c->vocab_size, hidden, error);
    if (!status && w->position_embeddings.type != SLM_TYPE_NONE)
        status = plan_tensor(plan, positions, c->max_position_embeddings, hidden, error);
    if (!status) {
        status = plan_vector(plan, &w->token_type_embedding, hidden, "token_type_embedding", -1, &m->token_type_embedding, error);
    }
    if (!status) status = plan_norm(plan, &w->embedding_norm, hidden, "embedding_norm", -1, &m->embedding_norm, error);
    if (!status) status = plan_norm(plan, &w->norm, hidden, "norm", -1, &m->norm, error);
    if (!status) status = plan_dense(plan, &w->lm_head, c->vocab_size, hidden, "lm_head", -1, true, &m->lm_head, error);
    for (int i = 0; !status && i < c->num_hidden_layers; i++) status = plan_layer(plan, &w->layers[i], i, &m->layers[i], error);
    return status;
}

/* ---- checks ------------------------------------------------------------------------------------------------------------ */

static slm_status check(const slm_config *c, const slm_weights *w, const slm_load_options *o, slm_error *error) {
    const struct {
        const char *name;
        int64_t value, least, most;
    } ranges[] = {
        {"vocab_size", c->vocab_size, 1, INT32_MAX},
        {"hidden_size", c->hidden_size, 1, 1 << 20},
        {"intermediate_size", c->intermediate_size, 1, 1 << 22},
        {"num_hidden_layers", c->num_hidden_layers, 1, 1024},
        {"num_attention_heads", c->num_attention_heads, 1, 1024},
        {"num_key_value_heads", c->num_key_value_heads, 1, c->num_attention_heads},
        {"head_dim", c->head_dim, 2, SLM_MAX_HEAD_DIM},
        {"max_position_embeddings", c->max_position_embeddings, 1, INT32_MAX},
        {"rotary_dim", c->rotary_dim, 0, c->head_dim},
        {"n_rope_tables", c->n_rope_tables, 0, 16},
        {"context", o->context, 1, INT32_MAX},
        {"kv", o->kv, SLM_KV_AUTO, SLM_KV_INT8},
        {"quantize", o->quantize, SLM_TYPE_NONE, SLM_TYPE_COUNT - 1},
        {"precision", o->precision, SLM_PRECISION_DEFAULT, SLM_PRECISION_HIGH},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        if (ranges[i].value < ranges[i].least || ranges[i].value > ranges[i].most) {
            return slm_fail(error, SLM_BAD_ARGUMENT, -1, "%s: expected %lld to %lld, found %lld", ranges[i].name,
                            (long long)ranges[i].least, (long long)ranges[i].most, (long long)ranges[i].value);
        }
    }
    if (c->num_attention_heads % c->num_key_value_heads) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1,
                        "num_attention_heads: expected a multiple of num_key_value_heads (%lld), found %lld",
                        (long long)c->num_key_value_heads, (long long)c->num_attention_heads);
    }
    if (c->head_dim % 2 || c->rotary_dim % 2) {
        return slm_fail(error, SLM_UNSUPPORTED, -1, "head_dim and rotary_dim: expected even numbers, found %lld and %lld",
                        (long long)c->head_dim, (long long)c->rotary_dim);
    }
    const struct {
        const char *name;
        float value;
    } floats[] = {
        {"norm_eps", c->norm_eps},
        {"norm_offset", c->norm_offset},
        {"rope_factor", c->rope_factor},
        {"attention_scale", c->attention_scale},
        {"attention_softcap", c->attention_softcap},
        {"logits_softcap", c->logits_softcap},
        {"logits_scale", c->logits_scale},
        {"embedding_scale", c->embedding_scale},
        {"residual_scale", c->residual_scale},
    };
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        if (!isfinite(floats[i].value) || floats[i].value < 0) {
            return slm_fail(error, SLM_BAD_ARGUMENT, -1, "%s: expected a finite number >= 0, found %g", floats[i].name,
                            (double)floats[i].value);
        }
    }
    if (c->hidden_act < SLM_ACTIVATION_SILU || c->hidden_act > SLM_ACTIVATION_RELU2 ||
        (c->rope_style != SLM_ROPE_HALF && c->rope_style != SLM_ROPE_INTERLEAVED)) {
        return slm_fail(error, SLM_UNSUPPORTED, -1, "hidden_act %d or rope_style %d is unknown", (int)c->hidden_act,
                        (int)c->rope_style);
    }
    for (int64_t i = 0; i < c->n_rope_tables * (c->rotary_dim / 2); i++) {
        if (!isfinite(c->rope_inv_freq[i])) {
            return slm_fail(error, SLM_BAD_ARGUMENT, i, "rope_inv_freq[%lld]: expected a finite number, found %g", (long long)i,
                            (double)c->rope_inv_freq[i]);
        }
    }
    for (int64_t i = 0; i < c->num_hidden_layers; i++) {
        const slm_layer_weights *layer = &w->layers[i];
        if (layer->down_proj_group != 16 && layer->down_proj_group != 32) {
            return slm_fail(error, SLM_BAD_ARGUMENT, i, "down_proj_group: expected 16 or 32, found %lld",
                            (long long)layer->down_proj_group);
        }
        if (c->bidirectional && layer->sliding_window)
            return slm_fail(error, SLM_UNSUPPORTED, i, "sliding_window: expected none in a bidirectional model");
        if (layer->sliding_window < 0 || layer->sliding_window > INT32_MAX || layer->rope_table < -1 ||
            layer->rope_table >= c->n_rope_tables) {
            return slm_fail(error, SLM_BAD_ARGUMENT, i,
                            "sliding_window: expected 0 to %d, found %lld; rope_table: expected -1 to %lld, found %lld",
                            INT32_MAX, (long long)layer->sliding_window, (long long)c->n_rope_tables - 1,
                            (long long)layer->rope_table);
        }
    }
    if (c->bidirectional && w->lm_head.weight.type != SLM_TYPE_NONE)
        return slm_fail(error, SLM_UNSUPPORTED, -1, "lm_head: expected none in a bidirectional model");
    if (o->quantize != SLM_TYPE_NONE && !slm_type_encodes(o->quantize)) {
        return slm_fail(error, SLM_UNSUPPORTED, -1, "quantize: slm does not make %s", slm_type_name(o->quantize));
    }
    if (w->position_embeddings.type != SLM_TYPE_NONE && o->context > c->max_position_embeddings) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "context: expected at most %lld, the learned positions, found %lld",
                        (long long)c->max_position_embeddings, (long long)o->context);
    }
    return SLM_OK;
}

/* ---- the model ------------------------------------------------------------------------------------------------------- */

static bool all_f32(const slm_model *m) {
    for (int64_t i = 0; i < m->config.num_hidden_layers; i++) {
        const slm_layer *l = &m->layers[i];
        const slm_dense *linears[] = {&l->q_proj, &l->k_proj, &l->v_proj, &l->o_proj, &l->gate_proj, &l->up_proj, &l->down_proj};
        for (size_t j = 0; j < sizeof linears / sizeof *linears; j++) {
            if (linears[j]->w.rows && linears[j]->w.type != SLM_TYPE_F32) return false;
        }
    }
    return m->config.bidirectional || slm_model_head(m)->type == SLM_TYPE_F32;
}

static slm_status model_create(const slm_config *config, const slm_weights *weights, const slm_load_options *options,
                               slm_model **out, slm_error *error) {
    int64_t n_layers = config->num_hidden_layers, n_angles = config->n_rope_tables * (config->rotary_dim / 2);
    slm_model *m = slm_alloc_zero(1, sizeof *m);
    if (!m) return slm_fail_memory(error);
    *out = m;
    atomic_store(&m->references, 1);
    m->config = *config;
    m->context = options->context;
    m->precision = options->precision;
    m->kernels = slm_kernels_active();
    if (!m->kernels) return slm_fail(error, SLM_INTERNAL, -1, "slm_init has not been called");
    m->layers = slm_alloc_zero((size_t)n_layers, sizeof *m->layers);
    m->sliding_windows = slm_alloc_array((size_t)n_layers, sizeof *m->sliding_windows);
    m->rope_inv_freq = slm_alloc_array((size_t)n_angles, sizeof *m->rope_inv_freq);
    if (!m->layers || !m->sliding_windows || !m->rope_inv_freq) return slm_fail_memory(error);
    if (n_angles) memcpy(m->rope_inv_freq, config->rope_inv_freq, (size_t)n_angles * sizeof *m->rope_inv_freq);
    m->config.rope_inv_freq = m->rope_inv_freq;
    for (int64_t i = 0; i < n_layers; i++) m->sliding_windows[i] = weights->layers[i].sliding_window;
    return SLM_OK;
}

slm_status slm_plan_create(const slm_config *config, const slm_weights *weights, const slm_load_options *options, slm_plan *plan,
                           slm_error *error) {
    slm_status status = check(config, weights, options, error);
    if (status) return status;
    *plan = (slm_plan){.quantize = options->quantize, .screening = options->screening};
    status = model_create(config, weights, options, &plan->model, error);
    if (!status) {
        int64_t most = MODEL_TENSORS + LAYER_TENSORS * config->num_hidden_layers;
        plan->tensors = slm_alloc_array((size_t)most, sizeof *plan->tensors);
        status = plan->tensors ? plan_all(plan, weights, error) : slm_fail_memory(error);
    }
    if (status) {
        slm_plan_release(plan);
        return status;
    }
    slm_model *m = plan->model;
    bool exact = options->precision == SLM_PRECISION_HIGH || config->kv_f32 || all_f32(m);
    slm_kv_type kv = options->kv != SLM_KV_AUTO ? options->kv : exact ? SLM_KV_F32 : SLM_KV_BF16;
    slm_kv_type keys = kv == SLM_KV_INT8 && config->kv_f32 ? SLM_KV_BF16 : kv;
    slm_kv_shape_init(&m->kv_shape, config->num_hidden_layers, config->num_key_value_heads, config->head_dim, keys, kv);
    slm_slabs_init(&m->kv_slabs, SLM_KV_HEADER + m->kv_shape.page_bytes);
    return SLM_OK;
}

void slm_plan_release(slm_plan *plan) {
    slm_free(plan->tensors);
    slm_model_release(plan->model);
    *plan = (slm_plan){0};
}
