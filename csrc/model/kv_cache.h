/* SPDX-License-Identifier: Apache-2.0
 * kv_cache.h: keys and values of a session, in reference-counted pages of 64 absolute positions, one page per layer.
 *
 * Page: [kv head][K | V].   K: 4 panels of 16 positions, bf16 [head_dim / 2][16][2] or f32 [head_dim][16].
 *                           V: bf16 [32 pairs of positions][width][2] or f32 [64][width], width = head_dim rounded up to 16.
 * Fork shares all pages; a page is copied before the first write to it while it is shared. */
#ifndef SLM_MODEL_KV_CACHE_H
#define SLM_MODEL_KV_CACHE_H

#include <stdatomic.h>

#include "base/status.h"

enum { SLM_PAGE_POSITIONS = 64, SLM_MAX_HEAD_DIM = 1024 };

typedef struct slm_page slm_page;

typedef struct slm_kv_shape {
    int64_t n_layers, n_kv_heads, head_dim;
    int64_t width;      /* head_dim rounded up to 16 */
    bool bf16;
    size_t panel_bytes; /* one K panel */
    size_t k_bytes;     /* K of one head in one page */
    size_t head_bytes;  /* K and V of one head in one page */
    size_t page_bytes;  /* of data */
} slm_kv_shape;

typedef struct slm_kv_cache {
    const slm_kv_shape *shape;
    int64_t n_pages, capacity;
    slm_page **pages; /* [capacity][n_layers] */
} slm_kv_cache;

/* head_dim is even, at most SLM_MAX_HEAD_DIM. */
void slm_kv_shape_init(slm_kv_shape *shape, int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, bool bf16);

void slm_kv_init(slm_kv_cache *cache, const slm_kv_shape *shape);
void slm_kv_release(slm_kv_cache *cache);
slm_status slm_kv_fork(const slm_kv_cache *cache, slm_kv_cache *fork, slm_error *error);
/* Makes positions from .. to - 1 writable; the first `from` positions are kept. */
slm_status slm_kv_reserve(slm_kv_cache *cache, int64_t from, int64_t to, slm_error *error);
/* Drops pages past the first n_positions. */
void slm_kv_truncate(slm_kv_cache *cache, int64_t n_positions);
/* As truncate, and zeroes what a failed step may have left behind in the last page: masked positions must stay finite. */
void slm_kv_discard(slm_kv_cache *cache, int64_t n_positions);

/* k, v: [head_dim] f32 of one head, rounded to bf16 where the cache is. Reserved positions only. */
void slm_kv_write(slm_kv_cache *cache, int64_t layer, int64_t head, int64_t position, const float *k, const float *v);
const uint8_t *slm_kv_read(const slm_kv_cache *cache, int64_t layer, int64_t head, int64_t page); /* K; V follows at k_bytes */

#endif
