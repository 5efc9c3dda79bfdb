/* SPDX-License-Identifier: Apache-2.0
 * load.c: from checked byte ranges to packed weights. The plan lists every tensor with its destination; all threads read and
 * pack. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/half.h"
#include "base/threads.h"
#include "model/plan.h"
#include "model/workspace.h"
#include "quant/encode.h"

enum {
    TURN_ITEMS = 32,      /* pieces of one region: other callers get their turn in between */
    LINE_ELEMENTS = 1024, /* of a transposed matrix at a time */
};

/* Of one thread. */
typedef struct buffers {
    uint8_t *rows;   /* of an item as in the file */
    float *row;      /* one of them in f32, to be encoded */
    uint8_t *blocks; /* what the rows become */
} buffers;

typedef struct loading {
    const slm_plan *plan;
    int64_t first_item; /* of this region */
    atomic_ullong done;
    slm_clock *clock;
    atomic_bool failed;
    slm_error *error; /* written by whoever sets failed */
} loading;

/* ---- reading --------------------------------------------------------------------------------------------------------- */

static void fail(loading *l, const slm_planned *p, slm_status status, int os_error, const char *what) {
    bool expected = false;
    if (!atomic_compare_exchange_strong(&l->failed, &expected, true)) return;
    if (p->layer < 0) {
        slm_fail(l->error, status, -1, "%s: %s", p->name, what);
    } else {
        slm_fail(l->error, status, p->layer, "%s of layer %d: %s", p->name, p->layer, what);
    }
    l->error->os_error = os_error;
}

static bool read_fully(loading *l, const slm_planned *p, int fd, uint8_t *buffer, size_t size, uint64_t offset) {
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
static bool read_transposed(loading *l, const slm_planned *p, const slm_tensor *piece, int64_t row, int64_t n, uint8_t *buffer) {
    size_t element = (size_t)slm_type_block_bytes(piece->type);
    uint8_t line[LINE_ELEMENTS * sizeof(float)];
    for (int64_t begin = 0; begin < n; begin += LINE_ELEMENTS) {
        int64_t count = slm_min64(LINE_ELEMENTS, n - begin);
        for (int64_t k = 0; k < piece->cols; k++) {
            uint64_t at = piece->offset + (uint64_t)(k * piece->transposed_ld + row + begin) * element;
            if (!read_fully(l, p, piece->fd, line, (size_t)count * element, at)) return false;
            for (int64_t i = 0; i < count; i++)
                memcpy(buffer + (size_t)(begin + i) * slm_planned_row_bytes(p) + (size_t)k * element, line + (size_t)i * element,
                       element);
        }
    }
    return true;
}

/* The elements of a vector, whichever pieces they lie in. */
static bool read_vector(loading *l, const slm_planned *p, uint8_t *buffer) {
    for (const slm_tensor *piece = p->tensor; piece; piece = piece->below) {
        size_t size = (size_t)(piece->cols / slm_type_block(piece->type) * slm_type_block_bytes(piece->type));
        if (!read_fully(l, p, piece->fd, buffer, size, piece->offset)) return false;
        buffer += size;
    }
    return true;
}

/* Rows row .. row + n - 1 of a matrix, whichever pieces they lie in. */
static bool read_rows(loading *l, const slm_planned *p, int64_t row, int64_t n, uint8_t *buffer) {
    for (const slm_tensor *piece = p->tensor; n; row -= piece->rows, piece = piece->below) {
        if (row >= piece->rows) continue;
        int64_t count = slm_min64(n, piece->rows - row);
        size_t size = slm_planned_row_bytes(p) * (size_t)count;
        bool ok = piece->transposed_ld
                      ? read_transposed(l, p, piece, row, count, buffer)
                      : read_fully(l, p, piece->fd, buffer, size, piece->offset + slm_planned_row_bytes(p) * (uint64_t)row);
        if (!ok) return false;
        buffer += size;
        row += count;
        n -= count;
    }
    return true;
}

/* Rows of vectors are packed as a matrix of their own and read back, so that every type is widened in one place. */
static bool load_vectors(loading *l, const slm_planned *p, int64_t first, int64_t n_rows, uint8_t *buffer) {
    bool one = p->shape.rows == 1;
    if (one ? !read_vector(l, p, buffer) : !read_rows(l, p, first, n_rows, buffer)) return false;
    slm_matrix rows = p->shape;
    rows.data = slm_alloc(slm_matrix_bytes(&rows));
    if (!rows.data) {
        fail(l, p, SLM_NO_MEMORY, 0, "out of memory");
        return false;
    }
    slm_matrix_pack(&rows, first / SLM_PANEL_ROWS, slm_div_up(n_rows, SLM_PANEL_ROWS), buffer, n_rows);
    for (int64_t r = first; r < first + n_rows; r++) {
        float *vector = (float *)(l->plan->model->arena + p->at) + r * slm_planned_stride(p);
        slm_matrix_row(&rows, r, vector);
        for (int64_t i = 0; p->added != 0 && i < rows.cols; i++) vector[i] += p->added;
    }
    slm_free(rows.data);
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
static bool encode_rows(loading *l, const slm_planned *p, int64_t n_rows, const buffers *b) {
    size_t blocks_bytes = slm_matrix_row_bytes(&p->shape);
    for (int64_t r = 0; r < n_rows; r++) {
        widen(p->tensor->type, b->rows + (size_t)r * slm_planned_row_bytes(p), p->shape.cols, b->row);
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

/* Are float rows free of NaN and infinity? */
static bool rows_are_finite(const loading *l, const slm_planned *p, int64_t n_rows, const buffers *b) {
    for (int64_t r = 0; r < n_rows; r++) {
        widen(p->tensor->type, b->rows + (size_t)r * slm_planned_row_bytes(p), p->shape.cols, b->row);
        if (!l->plan->model->kernels->all_finite(b->row, p->shape.cols)) return false;
    }
    return true;
}

static bool load_item(loading *l, const slm_planned *p, int64_t item, const buffers *b) {
    int64_t panel = item * p->panels_per_item, n_panels = slm_min64(p->panels_per_item, p->shape.n_panels - panel);
    int64_t row = panel * SLM_PANEL_ROWS, n_rows = slm_min64(n_panels * SLM_PANEL_ROWS, p->shape.rows - row);
    if (p->vector) {
        if (!load_vectors(l, p, row, n_rows, b->rows)) return false;
    } else {
        if (!read_rows(l, p, row, n_rows, b->rows)) return false;
        if (p->checked && !rows_are_finite(l, p, n_rows, b)) {
            fail(l, p, SLM_BAD_DATA, 0, "it holds NaN or infinity");
            return false;
        }
        if (slm_planned_is_encoded(p) && !encode_rows(l, p, n_rows, b)) return false;
        slm_matrix packed = p->shape;
        packed.data = l->plan->model->arena + p->at;
        slm_matrix_pack(&packed, panel, n_panels, slm_planned_is_encoded(p) ? b->blocks : b->rows, n_rows);
    }
    atomic_fetch_add(&l->done, slm_planned_row_bytes(p) * (size_t)n_rows);
    return true;
}

/* The bytes of one thread's buffers. */
static size_t buffer_layout(const slm_plan *plan, size_t *row_at, size_t *blocks_at) {
    *row_at = (plan->rows_bytes + 63) / 64 * 64;
    *blocks_at = *row_at + ((size_t)plan->widest * sizeof(float) + 63) / 64 * 64;
    return *blocks_at + plan->blocks_bytes;
}

static void load_region(void *arg, slm_team *team) {
    loading *l = arg;
    size_t row_at, blocks_at, size = buffer_layout(l->plan, &row_at, &blocks_at);
    uint8_t *memory = slm_alloc(size);
    if (!memory) {
        fail(l, &l->plan->tensors[0], SLM_NO_MEMORY, 0, "out of memory");
        return;
    }
    buffers b = {.rows = memory, .row = (float *)(memory + row_at), .blocks = memory + blocks_at};
    int64_t end = slm_min64(l->first_item + TURN_ITEMS, l->plan->n_items);
    for (int64_t item; (item = l->first_item + slm_team_take(team, 0)) < end;) {
        if (team->index == 0) slm_clock_progress(l->clock, atomic_load(&l->done), l->plan->file_bytes);
        if (slm_team_cancelled(team) || atomic_load(&l->failed)) break;
        const slm_planned *p = l->plan->tensors;
        while (item >= p->n_items) item -= p++->n_items;
        if (!load_item(l, p, item, &b)) break;
    }
    slm_free(memory);
}

slm_status slm_plan_load(const slm_plan *plan, const slm_call *call, slm_error *error) {
    slm_clock clock;
    slm_clock_start(&clock, call);
    loading l = {.plan = plan, .clock = &clock, .error = error};
    slm_model *m = plan->model;
    m->arena = slm_alloc_pages(m->arena_bytes);
    if (!m->arena) return slm_fail_memory(error);
    for (; l.first_item < plan->n_items && !atomic_load(&l.failed) && !clock.cancelled; l.first_item += TURN_ITEMS)
        slm_threads_run(call ? call->threads : 0, &clock, load_region, &l);
    if (atomic_load(&l.failed)) return error->status;
    if (clock.cancelled || slm_clock_progress(&clock, plan->file_bytes, plan->file_bytes)) return slm_fail_cancelled(error);
    for (int64_t i = 0; i < plan->n_tensors; i++) {
        const slm_planned *p = &plan->tensors[i];
        if (p->vector) {
            *p->vector = (const float *)(m->arena + p->at);
        } else {
            p->matrix->data = m->arena + p->at;
            m->token_bytes += slm_matrix_bytes(&p->shape);
        }
    }
    return SLM_OK;
}

slm_status slm_model_load(const slm_config *config, const slm_weights *weights, const slm_load_options *options,
                          const slm_call *call, slm_model **out, slm_error *error) {
    slm_plan plan;
    slm_status status = slm_plan_create(config, weights, options, &plan, error);
    if (status) return status;
    status = slm_plan_load(&plan, call, error);
    if (!status) {
        slm_model *m = plan.model;
        bool tied = !m->lm_head.w.data && !config->bidirectional;
        if (tied) m->lm_head.w = m->embed_tokens;
        if (!tied) m->token_bytes -= slm_matrix_bytes(&m->embed_tokens); /* only one row of it is read */
        if (m->position_embeddings.data) m->token_bytes -= slm_matrix_bytes(&m->position_embeddings);
        *out = m;
        plan.model = NULL;
    }
    slm_plan_release(&plan);
    return status;
}

slm_status slm_model_measure(const slm_config *config, const slm_weights *weights, const slm_load_options *options,
                             const slm_call *call, slm_memory *memory, slm_error *error) {
    slm_plan plan;
    size_t row_at, blocks_at;
    int threads = slm_threads_wanted(call ? call->threads : 0);
    slm_status status = slm_plan_create(config, weights, options, &plan, error);
    if (status) return status;
    const slm_model *m = plan.model;
    slm_memory found = {.weight_bytes = m->arena_bytes,
                        .load_bytes = (size_t)threads * buffer_layout(&plan, &row_at, &blocks_at),
                        .kv_bytes = slm_kv_most(&m->kv_shape, m->sliding_windows, m->context, SLM_PREFILL_CHUNK),
                        .kv = m->kv_shape.values};
    for (int64_t i = 0; i < plan.n_tensors; i++) {
        const slm_planned *p = &plan.tensors[i];
        if (slm_planned_is_encoded(p)) found.encoded[p->tensor->type] += p->shape.rows * p->shape.cols;
    }
    /* A bidirectional model runs all tokens at once and has no logits. */
    int64_t chunk = config->bidirectional ? m->context : slm_min64(m->context, SLM_PREFILL_CHUNK);
    status = slm_workspace_measure(m, chunk, threads, &found.workspace_bytes, error);
    if (!config->bidirectional) found.workspace_bytes += (size_t)config->vocab_size * sizeof(float);
    slm_plan_release(&plan);
    if (!status) *memory = found;
    return status;
}

slm_model *slm_model_retain(slm_model *model) {
    atomic_fetch_add_explicit(&model->references, 1, memory_order_relaxed);
    return model;
}

void slm_model_release(slm_model *model) {
    while (model && atomic_fetch_sub_explicit(&model->references, 1, memory_order_acq_rel) == 1) {
        slm_model *base = model->base;
        slm_slabs_release(&model->kv_slabs);
        slm_free_pages(model->arena, model->arena_bytes);
        slm_free(model->layers);
        slm_free(model->addends);
        if (!base) {
            slm_free(model->rope_inv_freq);
            slm_free(model->sliding_windows);
        }
        slm_free(model);
        model = base;
    }
}

void slm_model_describe(const slm_model *model, slm_model_stats *stats) {
    const slm_kv_shape *kv = &model->kv_shape;
    size_t kv_bytes = slm_kv_most(kv, model->sliding_windows, model->context, SLM_PREFILL_CHUNK);
    size_t weight_bytes = 0;
    for (const slm_model *m = model; m; m = m->base) weight_bytes += m->arena_bytes;
    *stats = (slm_model_stats){.weight_bytes = weight_bytes,
                               .token_bytes = model->token_bytes,
                               .kv_bytes = kv_bytes,
                               .context = model->context,
                               .vocab_size = model->config.vocab_size,
                               .hidden_size = model->config.hidden_size,
                               .num_hidden_layers = model->config.num_hidden_layers,
                               .num_attention_heads = model->config.num_attention_heads,
                               .bidirectional = model->config.bidirectional,
                               .kv = kv->values,
                               .precision = model->precision};
}
