/* SPDX-License-Identifier: Apache-2.0
 * adapter.c: a model that shares the weights of another one and adds what an adapter says to its linears. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "model/plan.h"

static const char *const names[SLM_TARGETS][2] = {
    [SLM_TARGET_EMBED_TOKENS] = {"lora_a of embed_tokens", "lora_b of embed_tokens"},
    [SLM_TARGET_LM_HEAD] = {"lora_a of lm_head", "lora_b of lm_head"},
    [SLM_TARGET_Q_PROJ] = {"lora_a of q_proj", "lora_b of q_proj"},
    [SLM_TARGET_K_PROJ] = {"lora_a of k_proj", "lora_b of k_proj"},
    [SLM_TARGET_V_PROJ] = {"lora_a of v_proj", "lora_b of v_proj"},
    [SLM_TARGET_O_PROJ] = {"lora_a of o_proj", "lora_b of o_proj"},
    [SLM_TARGET_GATE_PROJ] = {"lora_a of gate_proj", "lora_b of gate_proj"},
    [SLM_TARGET_UP_PROJ] = {"lora_a of up_proj", "lora_b of up_proj"},
    [SLM_TARGET_DOWN_PROJ] = {"lora_a of down_proj", "lora_b of down_proj"},
};

/* The linears that read the same input as the target, NULL behind the last one; the target is the first. */
enum { MOST_BESIDE = 3 };
static void beside(slm_model *m, const slm_lora *lora, slm_dense *linears[MOST_BESIDE + 1]) {
    slm_layer *l = &m->layers[lora->layer];
    memset(linears, 0, (MOST_BESIDE + 1) * sizeof *linears);
    switch (lora->target) {
    case SLM_TARGET_EMBED_TOKENS: break;
    case SLM_TARGET_LM_HEAD: linears[0] = &m->lm_head; break;
    case SLM_TARGET_Q_PROJ: linears[0] = &l->q_proj, linears[1] = &l->k_proj, linears[2] = &l->v_proj; break;
    case SLM_TARGET_K_PROJ: linears[0] = &l->k_proj, linears[1] = &l->q_proj, linears[2] = &l->v_proj; break;
    case SLM_TARGET_V_PROJ: linears[0] = &l->v_proj, linears[1] = &l->q_proj, linears[2] = &l->k_proj; break;
    case SLM_TARGET_O_PROJ: linears[0] = &l->o_proj; break;
    case SLM_TARGET_GATE_PROJ: linears[0] = &l->gate_proj, linears[1] = &l->up_proj; break;
    case SLM_TARGET_UP_PROJ: linears[0] = &l->up_proj, linears[1] = &l->gate_proj; break;
    case SLM_TARGET_DOWN_PROJ: linears[0] = &l->down_proj; break;
    }
}

/* Behind the products a x of all addends of these linears. */
static int64_t free_place(slm_dense *const *linears) {
    int64_t end = 0;
    for (; *linears; linears++) {
        for (const slm_addend *addend = (*linears)->addends; addend; addend = addend->next)
            end = slm_max64(end, addend->at + slm_round_up(addend->b.cols, 16));
    }
    return end;
}

/* As error.index has it: -1 for none. */
static int layer_of(const slm_lora *lora) {
    return lora->target >= SLM_TARGET_Q_PROJ ? (int)lora->layer : -1;
}

static slm_status check(const slm_model *m, const slm_lora *lora, slm_error *error) {
    int64_t n_layers = lora->target >= SLM_TARGET_Q_PROJ ? m->config.num_hidden_layers : 1;
    if ((unsigned)lora->target >= SLM_TARGETS || lora->layer < 0 || lora->layer >= n_layers) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "target %d of layer %lld: the model has none", (int)lora->target,
                        (long long)lora->layer);
    }
    const char *name = names[lora->target][0];
    int layer = layer_of(lora);
    const slm_tensor *tensors[] = {&lora->a, &lora->b};
    for (int i = 0; i < 2; i++) {
        slm_type type = tensors[i]->type;
        if (type != SLM_TYPE_F32 && type != SLM_TYPE_F16 && type != SLM_TYPE_BF16) {
            const char *found = (unsigned)type < SLM_TYPE_COUNT ? slm_type_name(type) : "an unknown type";
            return slm_fail(error, SLM_UNSUPPORTED, layer, "%s: expected F32, F16 or BF16, found %s", names[lora->target][i],
                            found);
        }
    }
    int64_t rank = lora->target == SLM_TARGET_EMBED_TOKENS ? lora->a.cols : lora->a.rows;
    if (rank < 1 || rank > SLM_MAX_RANK) {
        return slm_fail(error, SLM_BAD_ARGUMENT, layer, "%s: expected a rank of 1 to %d, found %lld", name, SLM_MAX_RANK,
                        (long long)rank);
    }
    if (!isfinite(lora->scale)) {
        return slm_fail(error, SLM_BAD_ARGUMENT, layer, "%s: expected a finite scale, found %g", name, (double)lora->scale);
    }
    return SLM_OK;
}

/* Plans the tensors of one addend and puts it in front of those that its target has. */
static slm_status plan_addend(slm_plan *plan, const slm_lora *lora, slm_addend *addend, slm_error *error) {
    slm_model *m = plan->model;
    slm_status status = check(m, lora, error);
    if (status) return status;
    bool embeds = lora->target == SLM_TARGET_EMBED_TOKENS;
    slm_dense *linears[MOST_BESIDE + 1];
    beside(m, lora, linears);
    const slm_matrix *w = embeds ? &m->embed_tokens : &linears[0]->w;
    int layer = layer_of(lora);
    if (!w->data) return slm_fail(error, SLM_BAD_ARGUMENT, layer, "%s: the model has none", names[lora->target][0]);
    slm_planned a = {.tensor = &lora->a, .name = names[lora->target][0], .layer = layer, .matrix = &addend->a, .checked = true};
    slm_planned b = {.tensor = &lora->b, .name = names[lora->target][1], .layer = layer, .matrix = &addend->b, .checked = true};
    int64_t rank = embeds ? lora->a.cols : lora->a.rows;
    status = slm_plan_tensor(plan, &a, embeds ? w->rows : rank, embeds ? rank : w->cols, false, error);
    if (!status) status = slm_plan_tensor(plan, &b, embeds ? w->cols : w->rows, rank, false, error);
    if (status || lora->scale == 0) return status;
    const slm_addend **first = embeds ? &m->embed_addends : &linears[0]->addends;
    addend->scale = lora->scale;
    addend->at = free_place(linears);
    addend->next = *first;
    *first = addend;
    m->low_ld = slm_max64(m->low_ld, addend->at + slm_round_up(rank, 16));
    return SLM_OK;
}

/* The same weights, retained, and layers of its own to hang addends on. */
static slm_status share(slm_model *base, int64_t n_addends, slm_model **out, slm_error *error) {
    size_t n_layers = (size_t)base->config.num_hidden_layers;
    slm_model *m = slm_alloc_zero(1, sizeof *m);
    if (!m) return slm_fail_memory(error);
    *out = m;
    atomic_store(&m->references, 1);
    m->base = slm_model_retain(base);
    m->config = base->config;
    m->rope_inv_freq = base->rope_inv_freq;
    m->kernels = base->kernels;
    m->context = base->context;
    m->precision = base->precision;
    m->kv_shape = base->kv_shape;
    slm_slabs_init(&m->kv_slabs, SLM_KV_HEADER + m->kv_shape.page_bytes);
    m->sliding_windows = base->sliding_windows;
    m->embed_tokens = base->embed_tokens;
    m->position_embeddings = base->position_embeddings;
    m->token_type_embedding = base->token_type_embedding;
    m->embedding_norm = base->embedding_norm;
    m->norm = base->norm;
    m->lm_head = base->lm_head;
    m->token_bytes = base->token_bytes;
    m->embed_addends = base->embed_addends;
    m->low_ld = base->low_ld;
    m->layers = slm_alloc_array(n_layers, sizeof *m->layers);
    m->addends = slm_alloc_zero((size_t)n_addends, sizeof *m->addends);
    if (!m->layers || !m->addends) return slm_fail_memory(error);
    memcpy(m->layers, base->layers, n_layers * sizeof *m->layers);
    return SLM_OK;
}

slm_status slm_model_adapt(slm_model *model, const slm_lora *loras, int64_t n_loras, const slm_call *call, slm_model **adapted,
                           slm_error *error) {
    if (n_loras < 1 || n_loras > INT32_MAX)
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "loras: expected 1 to %d, found %lld", INT32_MAX, (long long)n_loras);
    slm_plan plan = {0};
    slm_status status = share(model, n_loras, &plan.model, error);
    if (!status) {
        plan.tensors = slm_alloc_array((size_t)n_loras, 2 * sizeof *plan.tensors);
        if (!plan.tensors) status = slm_fail_memory(error);
    }
    for (int64_t i = 0; !status && i < n_loras; i++) status = plan_addend(&plan, &loras[i], &plan.model->addends[i], error);
    if (!status) status = slm_plan_load(&plan, call, error);
    if (!status) {
        for (const slm_addend *addend = plan.model->embed_addends; addend && addend != model->embed_addends;
             addend = addend->next)
            plan.model->token_bytes -= slm_matrix_bytes(&addend->a); /* only one row of it is read */
        *adapted = plan.model;
        plan.model = NULL;
    }
    slm_plan_release(&plan);
    return status;
}
