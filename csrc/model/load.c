/* SPDX-License-Identifier: Apache-2.0
 * load.c: from checked byte ranges to packed weights. The plan lists every tensor with its destination; all threads read and
 * pack. */
#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/threads.h"
#include "blas.h"
#include "model/model.h"

enum {
    READ_BYTES = 1 << 20, /* of the file at a time */
    TURN_ITEMS = 32,      /* pieces of one region: other callers get their turn in between */
};

typedef struct planned {
    const slm_tensor *tensor;
    const char *name;
    int layer;          /* -1: none */
    slm_matrix *matrix; /* where it goes, or */
    float **vector;
    slm_matrix shape; /* of the packed matrix; a vector is read as one row */
    size_t at;        /* in the arena */
    int64_t n_items;  /* pieces that threads take */
    int64_t panels_per_item;
} planned;

typedef struct loading {
    slm_model *model;
    planned *plan;
    int64_t n_planned, n_items;
    int64_t first_item; /* of this region */
    uint64_t total;
    atomic_ullong done;
    slm_clock *clock;
    size_t buffer_bytes;
    atomic_bool failed;
    slm_error *error; /* written by whoever sets failed */
} loading;

static slm_status plan_tensor(loading *l, const slm_tensor *tensor, int64_t rows, int64_t cols, const char *name, int layer,
                              slm_matrix *matrix, float **vector, slm_error *error) {
    planned *p = &l->plan[l->n_planned];
    *p = (planned){.tensor = tensor, .name = name, .layer = layer, .matrix = matrix, .vector = vector};
    if (tensor->rows != rows || tensor->cols != cols) {
        return slm_fail(error, SLM_BAD_ARGUMENT, layer, "%s: expected [%lld, %lld], found [%lld, %lld]", name, (long long)rows,
                        (long long)cols, (long long)tensor->rows, (long long)tensor->cols);
    }
    slm_status status = slm_matrix_describe(&p->shape, tensor->type, rows, cols, matrix && slm_blas_available(), error);
    if (status) return status;
    size_t bytes = matrix ? slm_matrix_bytes(&p->shape) : (size_t)slm_div_up(cols, 16) * 16 * sizeof(float);
    p->at = l->model->arena_bytes;
    if (!slm_add_size(l->model->arena_bytes, slm_div_up((int64_t)bytes, 64) * 64, &l->model->arena_bytes))
        return slm_fail_memory(error);
    size_t panel_file_bytes = slm_matrix_row_bytes(&p->shape) * SLM_PANEL_ROWS;
    p->panels_per_item = slm_max64(1, READ_BYTES / (int64_t)panel_file_bytes);
    p->n_items = slm_div_up(p->shape.n_panels, p->panels_per_item);
    size_t item_bytes = (size_t)p->panels_per_item * panel_file_bytes;
    if (item_bytes > l->buffer_bytes) l->buffer_bytes = item_bytes;
    l->n_items += p->n_items;
    l->total += slm_matrix_row_bytes(&p->shape) * (uint64_t)rows;
    l->n_planned++;
    return SLM_OK;
}

static slm_status plan_all(loading *l, const slm_weights *w, slm_error *error) {
    slm_model *m = l->model;
    const slm_config *c = &m->config;
    int64_t hidden = c->hidden_size, q = c->num_attention_heads * c->head_dim, kv = c->num_key_value_heads * c->head_dim;
    int64_t inner = c->intermediate_size;
    slm_status status =
        plan_tensor(l, &w->embed_tokens, c->vocab_size, hidden, "embed_tokens", -1, &m->embed_tokens, NULL, error);
    if (!status) status = plan_tensor(l, &w->norm, 1, hidden, "norm", -1, NULL, &m->norm, error);
    if (!status && w->lm_head.type != SLM_TYPE_NONE) {
        status = plan_tensor(l, &w->lm_head, c->vocab_size, hidden, "lm_head", -1, &m->lm_head, NULL, error);
    }
    for (int i = 0; !status && i < c->num_hidden_layers; i++) {
        const slm_layer_weights *from = &w->layers[i];
        slm_layer *to = &m->layers[i];
        const struct {
            const slm_tensor *tensor;
            int64_t rows, cols;
            const char *name;
            slm_matrix *matrix;
            float **vector;
        } tensors[] = {
            {&from->input_layernorm, 1, hidden, "input_layernorm", NULL, &to->input_layernorm},
            {&from->q_proj, q, hidden, "q_proj", &to->q_proj, NULL},
            {&from->k_proj, kv, hidden, "k_proj", &to->k_proj, NULL},
            {&from->v_proj, kv, hidden, "v_proj", &to->v_proj, NULL},
            {&from->o_proj, hidden, q, "o_proj", &to->o_proj, NULL},
            {&from->post_attention_layernorm, 1, hidden, "post_attention_layernorm", NULL, &to->post_attention_layernorm},
            {&from->gate_proj, inner, hidden, "gate_proj", &to->gate_proj, NULL},
            {&from->up_proj, inner, hidden, "up_proj", &to->up_proj, NULL},
            {&from->down_proj, hidden, inner, "down_proj", &to->down_proj, NULL},
        };
        for (size_t j = 0; !status && j < sizeof tensors / sizeof *tensors; j++) {
            status = plan_tensor(l, tensors[j].tensor, tensors[j].rows, tensors[j].cols, tensors[j].name, i, tensors[j].matrix,
                                 tensors[j].vector, error);
        }
        to->down_proj_group = (int)from->down_proj_group;
    }
    return status;
}

/* ---- reading --------------------------------------------------------------------------------------------------------- */

static void fail(loading *l, const planned *p, slm_status status, int os_error, const char *what) {
    bool expected = false;
    if (!atomic_compare_exchange_strong(&l->failed, &expected, true)) return;
    if (p->layer < 0) {
        slm_fail(l->error, status, -1, "%s: %s", p->name, what);
    } else {
        slm_fail(l->error, status, p->layer, "%s of layer %d: %s", p->name, p->layer, what);
    }
    l->error->os_error = os_error;
}

static bool read_fully(loading *l, const planned *p, uint8_t *buffer, size_t size, uint64_t offset) {
    while (size) {
        ssize_t n = pread(p->tensor->fd, buffer, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            fail(l, p, SLM_IO_ERROR, errno, "the file cannot be read");
            return false;
        }
        if (n == 0) {
            fail(l, p, SLM_BAD_DATA, 0, "the file ended before the tensor did; it was cut after it was opened");
            return false;
        }
        buffer += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return true;
}

/* A vector is packed as a one-row matrix in the scratch buffer and read back, so that every type is widened in one place. */
static bool load_vector(loading *l, const planned *p, uint8_t *buffer) {
    slm_matrix row = p->shape;
    row.data = slm_alloc(row.panel_bytes);
    if (!row.data) {
        fail(l, p, SLM_NO_MEMORY, 0, "out of memory");
        return false;
    }
    slm_matrix_pack(&row, 0, 1, buffer, 1);
    slm_matrix_row(&row, 0, (float *)(l->model->arena + p->at));
    slm_free(row.data);
    return true;
}

static bool load_item(loading *l, const planned *p, int64_t item, uint8_t *buffer) {
    int64_t panel = item * p->panels_per_item, n_panels = slm_min64(p->panels_per_item, p->shape.n_panels - panel);
    int64_t row = panel * SLM_PANEL_ROWS, n_rows = slm_min64(n_panels * SLM_PANEL_ROWS, p->shape.rows - row);
    size_t row_bytes = slm_matrix_row_bytes(&p->shape), size = row_bytes * (size_t)n_rows;
    if (!read_fully(l, p, buffer, size, p->tensor->offset + row_bytes * (uint64_t)row)) return false;
    if (p->vector) {
        if (!load_vector(l, p, buffer)) return false;
    } else {
        slm_matrix packed = p->shape;
        packed.data = l->model->arena + p->at;
        slm_matrix_pack(&packed, panel, n_panels, buffer, n_rows);
    }
    atomic_fetch_add(&l->done, size);
    return true;
}

static void load_region(void *arg, slm_team *team) {
    loading *l = arg;
    uint8_t *buffer = slm_alloc(l->buffer_bytes);
    if (!buffer) fail(l, &l->plan[0], SLM_NO_MEMORY, 0, "out of memory");
    int64_t end = slm_min64(l->first_item + TURN_ITEMS, l->n_items);
    for (int64_t item; buffer && (item = l->first_item + slm_team_take(team)) < end;) {
        if (team->index == 0) slm_clock_progress(l->clock, atomic_load(&l->done), l->total);
        if (slm_team_cancelled(team) || atomic_load(&l->failed)) break;
        const planned *p = l->plan;
        while (item >= p->n_items) item -= p++->n_items;
        if (!load_item(l, p, item, buffer)) break;
    }
    slm_free(buffer);
}

static slm_status load_all(loading *l, int threads, slm_error *error) {
    slm_model *m = l->model;
    m->arena = slm_alloc_pages(m->arena_bytes);
    if (!m->arena) return slm_fail_memory(error);
    for (; l->first_item < l->n_items && !atomic_load(&l->failed) && !l->clock->cancelled; l->first_item += TURN_ITEMS) {
        slm_threads_run(threads, l->clock, load_region, l);
    }
    if (atomic_load(&l->failed)) return error->status;
    if (l->clock->cancelled || slm_clock_progress(l->clock, l->total, l->total)) return slm_fail_cancelled(error);
    for (int64_t i = 0; i < l->n_planned; i++) {
        const planned *p = &l->plan[i];
        if (p->vector) {
            *p->vector = (float *)(m->arena + p->at);
        } else {
            *p->matrix = p->shape;
            p->matrix->data = m->arena + p->at;
            m->token_bytes += slm_matrix_bytes(&p->shape);
        }
    }
    return SLM_OK;
}

/* ---- checks ------------------------------------------------------------------------------------------------------------ */

static slm_status check(const slm_config *c, const slm_weights *w, int64_t context, slm_error *error) {
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
        {"context", context, 1, INT32_MAX},
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
    if (!(c->rms_norm_eps >= 0) || !isfinite(c->rms_norm_eps) || !isfinite(c->attention_scale)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "rms_norm_eps and attention_scale: expected finite numbers, found %g and %g",
                        (double)c->rms_norm_eps, (double)c->attention_scale);
    }
    if (c->hidden_act != SLM_ACTIVATION_SILU || (c->rope_style != SLM_ROPE_HALF && c->rope_style != SLM_ROPE_INTERLEAVED)) {
        return slm_fail(error, SLM_UNSUPPORTED, -1, "hidden_act %d or rope_style %d is unknown", (int)c->hidden_act,
                        (int)c->rope_style);
    }
    for (int64_t i = 0; i < c->rotary_dim / 2; i++) {
        if (!isfinite(c->rope_inv_freq[i])) {
            return slm_fail(error, SLM_BAD_ARGUMENT, i, "rope_inv_freq[%lld]: expected a finite number, found %g", (long long)i,
                            (double)c->rope_inv_freq[i]);
        }
    }
    for (int64_t i = 0; i < c->num_hidden_layers; i++) {
        if (w->layers[i].down_proj_group != 16 && w->layers[i].down_proj_group != 32) {
            return slm_fail(error, SLM_BAD_ARGUMENT, i, "down_proj_group: expected 16 or 32, found %lld",
                            (long long)w->layers[i].down_proj_group);
        }
    }
    return SLM_OK;
}

static bool all_f32(const slm_model *m) {
    for (int64_t i = 0; i < m->config.num_hidden_layers; i++) {
        const slm_layer *l = &m->layers[i];
        const slm_matrix *matrices[] = {&l->q_proj,    &l->k_proj,  &l->v_proj,   &l->o_proj,
                                        &l->gate_proj, &l->up_proj, &l->down_proj};
        for (size_t j = 0; j < sizeof matrices / sizeof *matrices; j++) {
            if (matrices[j]->type != SLM_TYPE_F32) return false;
        }
    }
    return m->lm_head.type == SLM_TYPE_F32;
}

slm_status slm_model_load(const slm_config *config, const slm_weights *weights, int64_t context, slm_kv_type kv,
                          const slm_call *call, slm_model **out, slm_error *error) {
    slm_clock clock;
    slm_clock_start(&clock, call);
    slm_status status = check(config, weights, context, error);
    if (status) return status;
    int64_t n_layers = config->num_hidden_layers, half = config->rotary_dim / 2;
    loading l = {.clock = &clock, .error = error};
    slm_model *m = slm_alloc_zero(1, sizeof *m);
    if (!m) return slm_fail_memory(error);
    atomic_store(&m->references, 1);
    m->config = *config;
    m->context = context;
    m->kernels = slm_kernels_active();
    m->layers = slm_alloc_zero((size_t)n_layers, sizeof *m->layers);
    m->rope_inv_freq = slm_alloc_array((size_t)half, sizeof *m->rope_inv_freq);
    l.plan = slm_alloc_array((size_t)(3 + 9 * n_layers), sizeof *l.plan);
    l.model = m;
    if (!m->kernels) {
        status = slm_fail(error, SLM_INTERNAL, -1, "slm_init has not been called");
    } else if (!m->layers || !m->rope_inv_freq || !l.plan) {
        status = slm_fail_memory(error);
    } else {
        if (half) memcpy(m->rope_inv_freq, config->rope_inv_freq, (size_t)half * sizeof *m->rope_inv_freq);
        m->config.rope_inv_freq = m->rope_inv_freq;
        status = plan_all(&l, weights, error);
        if (!status) status = load_all(&l, call ? call->threads : 0, error);
    }
    if (!status) {
        if (m->lm_head.data) {
            m->token_bytes -= slm_matrix_bytes(&m->embed_tokens); /* only one row of it is read */
        } else {
            m->lm_head = m->embed_tokens;
        }
        bool bf16 = kv == SLM_KV_BF16 || (kv == SLM_KV_AUTO && !all_f32(m));
        slm_kv_shape_init(&m->kv_shape, n_layers, config->num_key_value_heads, config->head_dim, bf16);
        *out = m;
        m = NULL;
    }
    slm_free(l.plan);
    slm_model_release(m);
    return status;
}

slm_model *slm_model_retain(slm_model *model) {
    atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
    return model;
}

void slm_model_release(slm_model *model) {
    if (!model || atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) != 1) return;
    slm_free_pages(model->arena, model->arena_bytes);
    slm_free(model->rope_inv_freq);
    slm_free(model->layers);
    slm_free(model);
}

void slm_model_describe(const slm_model *model, slm_model_stats *stats) {
    const slm_kv_shape *kv = &model->kv_shape;
    *stats = (slm_model_stats){.weight_bytes = model->arena_bytes,
                               .token_bytes = model->token_bytes,
                               .kv_bytes_per_token = kv->page_bytes * (size_t)kv->n_layers / SLM_PAGE_POSITIONS,
                               .context = model->context,
                               .vocab_size = model->config.vocab_size,
                               .kv = kv->bf16 ? SLM_KV_BF16 : SLM_KV_F32};
}
