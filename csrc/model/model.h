/* SPDX-License-Identifier: Apache-2.0
 * model.h: the packed weights of one model: immutable after loading, shared by sessions. */
#ifndef SLM_MODEL_MODEL_H
#define SLM_MODEL_MODEL_H

#include <stdatomic.h>

#include "kernels/kernels.h"
#include "model/kv_cache.h"
#include "ops/linear.h"
#include "ops/norm.h"

/* Shapes: slm_layer_weights in slm.h. */
typedef struct slm_layer {
    slm_norm input_layernorm, attn_output_norm, post_attention_layernorm, mlp_output_norm, q_norm, k_norm;
    slm_dense q_proj, k_proj, v_proj, o_proj;
    slm_dense gate_proj, up_proj, down_proj;
    int down_proj_group;
    int64_t rope_table;
} slm_layer;

struct slm_model {
    atomic_int references;
    slm_config config;
    float *rope_inv_freq; /* [n_rope_tables, rotary_dim / 2] */
    const slm_kernels *kernels;
    int64_t context;
    slm_precision precision;
    slm_kv_shape kv_shape;
    slm_slabs kv_slabs;                /* of the pages of all sessions */
    int64_t *sliding_windows;          /* [num_hidden_layers] */
    slm_matrix embed_tokens;           /* [vocab_size, hidden_size] */
    slm_matrix position_embeddings;    /* [max_position_embeddings, hidden_size]; data may be NULL */
    const float *token_type_embedding; /* [hidden_size, padded], or NULL */
    slm_norm embedding_norm, norm;
    slm_dense lm_head; /* [vocab_size, hidden_size]; data may be embed_tokens' own, NULL in a bidirectional model */
    slm_layer *layers; /* [num_hidden_layers] */
    uint8_t *arena;    /* all matrices and vectors, or those of the adapter alone */
    size_t arena_bytes, token_bytes;
    /* Of an adapted model: whose weights it shares, NULL of others; the adapter; and of all adapters that it has: */
    slm_model *base;
    slm_addend *addends;
    const slm_addend *embed_addends; /* of embed_tokens; or NULL */
    int64_t low_ld;                  /* floats of a token that products a x of one input take; 0 without adapters */
};

/* The matrix that gives logits, planned or loaded: embed_tokens where it is tied. */
static inline const slm_matrix *slm_model_head(const slm_model *model) {
    return model->lm_head.w.rows ? &model->lm_head.w : &model->embed_tokens;
}

#endif
