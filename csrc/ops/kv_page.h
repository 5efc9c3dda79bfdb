/* SPDX-License-Identifier: Apache-2.0
 * kv_page.h: the bytes of one page of keys and values: 64 absolute positions of one layer, as attention reads them.
 *
 * Page: [kv head][K | V].   K: 4 panels of 16 positions, bf16 [head_dim / 2][16][2] or f32 [head_dim][16].
 *                           V: bf16 [32 pairs of positions][width][2] or f32 [64][width], width = head_dim rounded up to 16.
 * int8: codes [head_dim][16] and f32 scales [groups][16] in each K panel; V: codes [64][width], then f32 scales [groups][64].
 * A group is 32 elements of a head at one position; the last one may be less. x ~ scale * code, as in slm_kernels.quantize. */
#ifndef SLM_OPS_KV_PAGE_H
#define SLM_OPS_KV_PAGE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

enum { SLM_PAGE_POSITIONS = 64, SLM_MAX_HEAD_DIM = 1024 };

typedef struct slm_kv_shape {
    int64_t n_layers, n_kv_heads, head_dim;
    int64_t width;            /* head_dim rounded up to 16 */
    slm_kv_type keys, values; /* not SLM_KV_AUTO */
    size_t panel_bytes;       /* one K panel */
    size_t k_bytes;           /* K of one head in one page */
    size_t head_bytes;        /* K and V of one head in one page */
    size_t page_bytes;
} slm_kv_shape;

/* Tokens of one sequence among those of a step: token first_token + i stands at position first_position + i. */
typedef struct slm_kv_span {
    uint8_t *const *pages; /* of all layers: page i of layer j at pages[i * n_layers + j] */
    int64_t first_token, n_tokens;
    int64_t first_position;
} slm_kv_span;

/* head_dim is even, at most SLM_MAX_HEAD_DIM. */
void slm_kv_shape_init(slm_kv_shape *shape, int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, slm_kv_type keys,
                       slm_kv_type values);

/* k, v: [head_dim] f32 of one head at position 0 .. 63 of the page, which they enter; or NULL: what the page holds stays. */
void slm_kv_page_write(const slm_kernels *kernels, const slm_kv_shape *shape, uint8_t *page, int64_t head, int64_t position,
                       const float *k, const float *v);

#endif
