/* SPDX-License-Identifier: Apache-2.0
 * load.c: from checked byte ranges to packed weights. The plan lists every tensor with its destination; all threads read and
 * pack. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/half.h"
#include "base/threads.h"
#include "blas.h"
#include "model/model.h"
#include "quant/encode.h"

enum {
    READ_BYTES = 1 << 20, /* of the file at a time */
    TURN_ITEMS = 32,      /* pieces of one region: other callers get their turn in between */
    LINE_ELEMENTS = 1024, /* of a transposed matrix at a time */
    MODEL_TENSORS = 9,
    LAYER_TENSORS = 26 /* at most: 13 weights and as many biases */
};

typedef struct planned {
    const slm_tensor *tensor;
    const char *name;
    int layer;          /* -1: none */
    slm_matrix *matrix; /* where it goes, or */
    const float **vector;
    float added;      /* to each element of a vector */
    slm_type type;    /* that it is packed as */
    slm_matrix shape; /* of the packed matrix; a vector is read as one row */
    size_t at;        /* in the arena */
    int64_t n_items;  /* pieces that threads take */
    int64_t panels_per_item;
} planned;

/* Of one thread. */
typedef struct buffers {
    uint8_t *rows;   /* of an item as in the file */
    float *row;      /* one of them in f32, to be encoded */
    uint8_t *blocks; /* what the rows become */
} buffers;

typedef struct loading {
    slm_model *model;
    planned *plan;
    int64_t n_planned, n_items;
    int64_t first_item; /* of this region */
    uint64_t total;
    atomic_ullong done;
    slm_clock *clock;
    slm_type quantize;
    size_t rows_bytes, blocks_bytes; /* of the largest item: in the file, and encoded */
    int64_t widest;                  /* columns of what is encoded */
    atomic_bool failed;
    slm_error *error; /* written by whoever sets failed */
} loading;

/* Pieces of a vector that lie in different places follow each other. */
static slm_status check_vector(const planned *p, int64_t n, slm_error *error) {
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
static slm_status check_pieces(const planned *p, int64_t rows, int64_t cols, slm_error *error) {
    if (p->vector) return check_vector(p, cols, error);
    int64_t found = 0;
    for (const slm_tensor *piece = p->tensor; piece; piece = piece->below) {
        if (piece->rows < 1 || piece->cols != cols || piece->type != p->tensor->type || found > rows - piece->rows ||
            (piece->transposed_ld && (slm_type_block(piece->type) != 1 || piece->transposed_ld < piece->rows))) {
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

/* Bytes of a row in the file. */
static size_t row_bytes(const planned *p) {
    return (size_t)(p->shape.cols / slm_type_block(p->tensor->type) * slm_type_block_bytes(p->tensor->type));
}

static bool is_encoded(const planned *p) {
    return p->type != p->tensor->type;
}

static void plan_size(loading *l, planned *p) {
    size_t panel_bytes = row_bytes(p) * SLM_PANEL_ROWS;
    p->panels_per_item = slm_max64(1, READ_BYTES / (int64_t)panel_bytes);
    p->n_items = slm_div_up(p->shape.n_panels, p->panels_per_item);
    size_t item_rows = (size_t)p->panels_per_item * SLM_PANEL_ROWS, blocks_bytes = item_rows * slm_matrix_row_bytes(&p->shape);
    if (item_rows * row_bytes(p) > l->rows_bytes) l->rows_bytes = item_rows * row_bytes(p);
    if (is_encoded(p)) {
        if (blocks_bytes > l->blocks_bytes) l->blocks_bytes = blocks_bytes;
        l->widest = slm_max64(l->widest, p->shape.cols);
    }
    l->n_items += p->n_items;
    l->total += row_bytes(p) * (uint64_t)p->shape.rows;
}

/* Checks one tensor and gives it a place in the arena. */
static slm_status plan_tensor(loading *l, planned request, int64_t rows, int64_t cols, slm_error *error) {
    planned *p = &l->plan[l->n_planned];
    *p = request;
    if (p->type == SLM_TYPE_NONE) p->type = p->tensor->type;
    slm_status status = check_pieces(p, rows, cols, error);
    if (!status) {
        bool blas = p->matrix && slm_blas_available();
        status = slm_matrix_describe(&p->shape, p->type, rows, cols, blas, error);
    }
    if (status) return status;
    size_t bytes = p->matrix ? slm_matrix_bytes(&p->shape) : (size_t)slm_div_up(cols, 16) * 16 * sizeof(float);
    p->at = l->model->arena_bytes;
    if (!slm_add_size(l->model->arena_bytes, slm_div_up((int64_t)bytes, 64) * 64, &l->model->arena_bytes))
        return slm_fail_memory(error);
    plan_size(l, p);
    l->n_planned++;
    return SLM_OK;
}

static slm_status plan_vector(loading *l, const slm_tensor *tensor, int64_t n, const char *name, int layer, float added,
                              const float **vector, slm_error *error) {
    if (tensor->type == SLM_TYPE_NONE) return SLM_OK;
    planned p = {.tensor = tensor, .name = name, .layer = layer, .vector = vector, .added = added};
    return plan_tensor(l, p, 1, n, error);
}

/* What a linear or an embedding is packed as. */
static slm_type packed_type(const loading *l, const slm_tensor *tensor) {
    bool encode =
        l->quantize != SLM_TYPE_NONE && slm_type_block(tensor->type) == 1 && tensor->cols % slm_type_block(l->quantize) == 0;
    return encode ? l->quantize : tensor->type;
}

static slm_status plan_dense(loading *l, const slm_affine *from, int64_t rows, int64_t cols, const char *name, int layer,
                             bool optional, slm_dense *to, slm_error *error) {
    if (optional && from->weight.type == SLM_TYPE_NONE) return SLM_OK;
    planned p = {.tensor = &from->weight, .name = name, .layer = layer, .matrix = &to->w, .type = packed_type(l, &from->weight)};
    slm_status status = plan_tensor(l, p, rows, cols, error);
    if (!status) status = plan_vector(l, &from->bias, rows, name, layer, 0, &to->bias, error);
    return status;
}

static slm_status plan_norm(loading *l, const slm_affine *from, int64_t width, const char *name, int layer, slm_norm *to,
                            slm_error *error) {
    const slm_config *c = &l->model->config;
    *to = (slm_norm){.kind = c->norm_kind, .eps = c->norm_eps, .width = width};
    slm_status status = plan_vector(l, &from->weight, width, name, layer, c->norm_offset, &to->weight, error);
    if (!status) status = plan_vector(l, &from->bias, width, name, layer, 0, &to->bias, error);
    return status;
}

/* A norm of queries or keys is as wide as one head, or as all of them. */
static slm_status plan_head_norm(loading *l, const slm_affine *from, int64_t n_heads, const char *name, int layer, slm_norm *to,
                                 slm_error *error) {
    int64_t head_dim = l->model->config.head_dim;
    return plan_norm(l, from, from->weight.cols == head_dim ? head_dim : n_heads * head_dim, name, layer, to, error);
}

static slm_status plan_layer(loading *l, const slm_layer_weights *from, int i, slm_layer *to, slm_error *error) {
    const slm_config *c = &l->model->config;
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
        status = plan_norm(l, norms[j].from, hidden, norms[j].name, i, norms[j].to, error);
    if (!status) status = plan_head_norm(l, &from->q_norm, c->num_attention_heads, "q_norm", i, &to->q_norm, error);
    if (!status) status = plan_head_norm(l, &from->k_norm, c->num_key_value_heads, "k_norm", i, &to->k_norm, error);
    for (size_t j = 0; !status && j < sizeof linears / sizeof *linears; j++) {
        status = plan_dense(l, linears[j].from, linears[j].rows, linears[j].cols, linears[j].name, i,
                            linears[j].to == &to->gate_proj, linears[j].to, error);
    }
    to->down_proj_group = (int)from->down_proj_group;
    to->rope_table = from->rope_table;
    return status;
}

static slm_status plan_all(loading *l, const slm_weights *w, slm_error *error) {
    slm_model *m = l->model;
    const slm_config *c = &m->config;
    int64_t hidden = c->hidden_size;
    planned embedding = {.tensor = &w->embed_tokens,
                         .name = "embed_tokens",
                         .layer = -1,
                         .matrix = &m->embed_tokens,
                         .type = packed_type(l, &w->embed_tokens)};
    planned positions = {
        .tensor = &w->position_embeddings, .name = "position_embeddings", .layer = -1, .matrix = &m->position_embeddings};
    slm_status status = plan_tensor(l, embedding, c->vocab_size, hidden, error);
    if (!status && w->position_embeddings.type != SLM_TYPE_NONE)
        status = plan_tensor(l, positions, c->max_position_embeddings, hidden, error);
    if (!status) {
        status = plan_vector(l, &w->token_type_embedding, hidden, "token_type_embedding", -1, 0, &m->token_type_embedding, error);
    }
    if (!status) status = plan_norm(l, &w->embedding_norm, hidden, "embedding_norm", -1, &m->embedding_norm, error);
    if (!status) status = plan_norm(l, &w->norm, hidden, "norm", -1, &m->norm, error);
    if (!status) status = plan_dense(l, &w->lm_head, c->vocab_size, hidden, "lm_head", -1, true, &m->lm_head, error);
    for (int i = 0; !status && i < c->num_hidden_layers; i++) status = plan_layer(l, &w->layers[i], i, &m->layers[i], error);
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

static bool read_fully(loading *l, const planned *p, int fd, uint8_t *buffer, size_t size, uint64_t offset) {
    while (size) {
        ssize_t n = pread(fd, buffer, size, (off_t)offset);
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

/* Rows row .. row + n - 1 of a piece whose columns are rows in the file: each file row gives one element of every row. */
static bool read_transposed(loading *l, const planned *p, const slm_tensor *piece, int64_t row, int64_t n, uint8_t *buffer) {
    size_t element = (size_t)slm_type_block_bytes(piece->type);
    uint8_t line[LINE_ELEMENTS * sizeof(float)];
    for (int64_t begin = 0; begin < n; begin += LINE_ELEMENTS) {
        int64_t count = slm_min64(LINE_ELEMENTS, n - begin);
        for (int64_t k = 0; k < piece->cols; k++) {
            uint64_t at = piece->offset + (uint64_t)(k * piece->transposed_ld + row + begin) * element;
            if (!read_fully(l, p, piece->fd, line, (size_t)count * element, at)) return false;
            for (int64_t i = 0; i < count; i++)
                memcpy(buffer + (size_t)(begin + i) * row_bytes(p) + (size_t)k * element, line + (size_t)i * element, element);
        }
    }
    return true;
}

/* The elements of a vector, whichever pieces they lie in. */
static bool read_vector(loading *l, const planned *p, uint8_t *buffer) {
    for (const slm_tensor *piece = p->tensor; piece; piece = piece->below) {
        size_t size = (size_t)(piece->cols / slm_type_block(piece->type) * slm_type_block_bytes(piece->type));
        if (!read_fully(l, p, piece->fd, buffer, size, piece->offset)) return false;
        buffer += size;
    }
    return true;
}

/* Rows row .. row + n - 1 of a matrix, whichever pieces they lie in. */
static bool read_rows(loading *l, const planned *p, int64_t row, int64_t n, uint8_t *buffer) {
    for (const slm_tensor *piece = p->tensor; n; row -= piece->rows, piece = piece->below) {
        if (row >= piece->rows) continue;
        int64_t count = slm_min64(n, piece->rows - row);
        size_t size = row_bytes(p) * (size_t)count;
        bool ok = piece->transposed_ld ? read_transposed(l, p, piece, row, count, buffer)
                                       : read_fully(l, p, piece->fd, buffer, size, piece->offset + row_bytes(p) * (uint64_t)row);
        if (!ok) return false;
        buffer += size;
        row += count;
        n -= count;
    }
    return true;
}

/* A vector is packed as a one-row matrix in the scratch buffer and read back, so that every type is widened in one place. */
static bool load_vector(loading *l, const planned *p, uint8_t *buffer) {
    if (!read_vector(l, p, buffer)) return false;
    slm_matrix row = p->shape;
    row.data = slm_alloc(row.panel_bytes);
    if (!row.data) {
        fail(l, p, SLM_NO_MEMORY, 0, "out of memory");
        return false;
    }
    slm_matrix_pack(&row, 0, 1, buffer, 1);
    float *vector = (float *)(l->model->arena + p->at);
    slm_matrix_row(&row, 0, vector);
    for (int64_t i = 0; p->added != 0 && i < row.cols; i++) vector[i] += p->added;
    slm_free(row.data);
    return true;
}

static void widen(slm_type type, const uint8_t *in, int64_t n, float *out) {
    for (int64_t i = 0; i < n; i++) {
        uint16_t half = 0;
        if (type == SLM_TYPE_F32) {
            memcpy(out + i, in + 4 * i, 4);
        } else {
            memcpy(&half, in + 2 * i, 2);
            out[i] = type == SLM_TYPE_F16 ? slm_f16_to_f32(half) : slm_bf16_to_f32(half);
        }
    }
}

/* Float rows to blocks. */
static bool encode_rows(loading *l, const planned *p, int64_t n_rows, const buffers *b) {
    size_t blocks_bytes = slm_matrix_row_bytes(&p->shape);
    for (int64_t r = 0; r < n_rows; r++) {
        widen(p->tensor->type, b->rows + (size_t)r * row_bytes(p), p->shape.cols, b->row);
        if (!slm_encode_row(p->type, b->row, p->shape.cols, b->blocks + (size_t)r * blocks_bytes)) {
            char what[96];
            snprintf(what, sizeof what, "it cannot become %s: it holds NaN, infinity or numbers that are too large",
                     slm_type_name(p->type));
            fail(l, p, SLM_BAD_DATA, 0, what);
            return false;
        }
    }
    return true;
}

static bool load_item(loading *l, const planned *p, int64_t item, const buffers *b) {
    int64_t panel = item * p->panels_per_item, n_panels = slm_min64(p->panels_per_item, p->shape.n_panels - panel);
    int64_t row = panel * SLM_PANEL_ROWS, n_rows = slm_min64(n_panels * SLM_PANEL_ROWS, p->shape.rows - row);
    if (p->vector) {
        if (!load_vector(l, p, b->rows)) return false;
    } else {
        if (!read_rows(l, p, row, n_rows, b->rows)) return false;
        if (is_encoded(p) && !encode_rows(l, p, n_rows, b)) return false;
        slm_matrix packed = p->shape;
        packed.data = l->model->arena + p->at;
        slm_matrix_pack(&packed, panel, n_panels, is_encoded(p) ? b->blocks : b->rows, n_rows);
    }
    atomic_fetch_add(&l->done, row_bytes(p) * (size_t)n_rows);
    return true;
}

static void load_region(void *arg, slm_team *team) {
    loading *l = arg;
    size_t rows_bytes = (l->rows_bytes + 63) / 64 * 64, wide_bytes = ((size_t)l->widest * sizeof(float) + 63) / 64 * 64;
    uint8_t *memory = slm_alloc(rows_bytes + wide_bytes + l->blocks_bytes);
    buffers b = {.rows = memory, .row = (float *)(memory + rows_bytes), .blocks = memory + rows_bytes + wide_bytes};
    if (!memory) fail(l, &l->plan[0], SLM_NO_MEMORY, 0, "out of memory");
    int64_t end = slm_min64(l->first_item + TURN_ITEMS, l->n_items);
    for (int64_t item; memory && (item = l->first_item + slm_team_take(team)) < end;) {
        if (team->index == 0) slm_clock_progress(l->clock, atomic_load(&l->done), l->total);
        if (slm_team_cancelled(team) || atomic_load(&l->failed)) break;
        const planned *p = l->plan;
        while (item >= p->n_items) item -= p++->n_items;
        if (!load_item(l, p, item, &b)) break;
    }
    slm_free(memory);
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
            *p->vector = (const float *)(m->arena + p->at);
        } else {
            *p->matrix = p->shape;
            p->matrix->data = m->arena + p->at;
            m->token_bytes += slm_matrix_bytes(&p->shape);
        }
    }
    return SLM_OK;
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
        {"kv", o->kv, SLM_KV_AUTO, SLM_KV_BF16},
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
    if (w->position_embeddings.type != SLM_TYPE_NONE && o->context > c->max_position_embeddings) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "context: expected at most %lld, the learned positions, found %lld",
                        (long long)c->max_position_embeddings, (long long)o->context);
    }
    return SLM_OK;
}

static bool all_f32(const slm_model *m) {
    for (int64_t i = 0; i < m->config.num_hidden_layers; i++) {
        const slm_layer *l = &m->layers[i];
        const slm_dense *linears[] = {&l->q_proj, &l->k_proj, &l->v_proj, &l->o_proj, &l->gate_proj, &l->up_proj, &l->down_proj};
        for (size_t j = 0; j < sizeof linears / sizeof *linears; j++) {
            if (linears[j]->w.data && linears[j]->w.type != SLM_TYPE_F32) return false;
        }
    }
    return !m->lm_head.w.data || m->lm_head.w.type == SLM_TYPE_F32;
}

slm_status slm_model_load(const slm_config *config, const slm_weights *weights, const slm_load_options *options,
                          const slm_call *call, slm_model **out, slm_error *error) {
    slm_clock clock;
    slm_clock_start(&clock, call);
    slm_status status = check(config, weights, options, error);
    if (status) return status;
    if (options->quantize != SLM_TYPE_NONE && !slm_type_encodes(options->quantize)) {
        return slm_fail(error, SLM_UNSUPPORTED, -1, "quantize: slm does not make %s", slm_type_name(options->quantize));
    }
    int64_t n_layers = config->num_hidden_layers, n_angles = config->n_rope_tables * (config->rotary_dim / 2);
    loading l = {.clock = &clock, .quantize = options->quantize, .error = error};
    slm_model *m = slm_alloc_zero(1, sizeof *m);
    if (!m) return slm_fail_memory(error);
    atomic_store(&m->references, 1);
    m->config = *config;
    m->context = options->context;
    m->precision = options->precision;
    m->kernels = slm_kernels_active();
    m->layers = slm_alloc_zero((size_t)n_layers, sizeof *m->layers);
    m->sliding_windows = slm_alloc_array((size_t)n_layers, sizeof *m->sliding_windows);
    m->rope_inv_freq = slm_alloc_array((size_t)n_angles, sizeof *m->rope_inv_freq);
    l.plan = slm_alloc_array((size_t)(MODEL_TENSORS + LAYER_TENSORS * n_layers), sizeof *l.plan);
    l.model = m;
    if (!m->kernels) {
        status = slm_fail(error, SLM_INTERNAL, -1, "slm_init has not been called");
    } else if (!m->layers || !m->sliding_windows || !m->rope_inv_freq || !l.plan) {
        status = slm_fail_memory(error);
    } else {
        if (n_angles) memcpy(m->rope_inv_freq, config->rope_inv_freq, (size_t)n_angles * sizeof *m->rope_inv_freq);
        m->config.rope_inv_freq = m->rope_inv_freq;
        for (int64_t i = 0; i < n_layers; i++) m->sliding_windows[i] = weights->layers[i].sliding_window;
        status = plan_all(&l, weights, error);
        if (!status) status = load_all(&l, call ? call->threads : 0, error);
    }
    if (!status) {
        bool tied = !m->lm_head.w.data && !config->bidirectional;
        if (tied) m->lm_head.w = m->embed_tokens;
        if (!tied) m->token_bytes -= slm_matrix_bytes(&m->embed_tokens); /* only one row of it is read */
        if (m->position_embeddings.data) m->token_bytes -= slm_matrix_bytes(&m->position_embeddings);
        bool exact = options->precision == SLM_PRECISION_HIGH || config->kv_f32 || all_f32(m);
        bool bf16 = options->kv == SLM_KV_BF16 || (options->kv == SLM_KV_AUTO && !exact);
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
    slm_free(model->sliding_windows);
    slm_free(model);
}

size_t slm_kv_bytes(int64_t num_key_value_heads, int64_t head_dim, const int64_t *sliding_windows, int64_t n_layers,
                    int64_t context, slm_kv_type kv) {
    slm_kv_shape shape;
    slm_kv_shape_init(&shape, n_layers, num_key_value_heads, head_dim, kv != SLM_KV_F32);
    return slm_kv_most(&shape, sliding_windows, context, SLM_PREFILL_CHUNK);
}

void slm_model_describe(const slm_model *model, slm_model_stats *stats) {
    const slm_kv_shape *kv = &model->kv_shape;
    size_t kv_bytes = slm_kv_most(kv, model->sliding_windows, model->context, SLM_PREFILL_CHUNK);
    *stats = (slm_model_stats){.weight_bytes = model->arena_bytes,
                               .token_bytes = model->token_bytes,
                               .kv_bytes = kv_bytes,
                               .context = model->context,
                               .vocab_size = model->config.vocab_size,
                               .hidden_size = model->config.hidden_size,
                               .bidirectional = model->config.bidirectional,
                               .kv = kv->bf16 ? SLM_KV_BF16 : SLM_KV_F32,
                               .precision = model->precision};
}
