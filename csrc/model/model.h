/* SPDX-License-Identifier: Apache-2.0
 * model.h: the packed weights of one model: immutable after loading, shared by sessions. */
#ifndef SLM_MODEL_MODEL_H
#define SLM_MODEL_MODEL_H

#include <stdatomic.h>

#include "kernels/kernels.h"
#include "model/kv_cache.h"

typedef struct slm_layer {
    float *input_layernorm;            /* [hidden_size, padded to 16 with zeros] */
    slm_matrix q_proj, k_proj, v_proj; /* [heads * head_dim, hidden_size] */
    slm_matrix o_proj;                 /* [hidden_size, num_attention_heads * head_dim] */
    float *post_attention_layernorm;   /* [hidden_size, padded] */
    slm_matrix gate_proj, up_proj;     /* [intermediate_size, hidden_size] */
    slm_matrix down_proj;              /* [hidden_size, intermediate_size] */
    int down_proj_group;
} slm_layer;

struct slm_model {
    atomic_int references;
    slm_config config;
    float *rope_inv_freq; /* [rotary_dim / 2] */
    const slm_kernels *kernels;
    int64_t context;
    slm_kv_shape kv_shape;
    slm_matrix embed_tokens; /* [vocab_size, hidden_size] */
    slm_matrix lm_head;      /* [vocab_size, hidden_size]; data may be embed_tokens' own */
    float *norm;             /* [hidden_size, padded] */
    slm_layer *layers;       /* [num_hidden_layers] */
    uint8_t *arena;          /* all matrices and vectors */
    size_t arena_bytes, token_bytes;
};

#endif
