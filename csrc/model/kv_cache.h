/* SPDX-License-Identifier: Apache-2.0
 * kv_cache.h: keys and values of a session: a table of reference-counted pages of 64 absolute positions, one page per layer.
 * Fork shares all pages; a page is copied before the first write to it while it is shared. */
#ifndef SLM_MODEL_KV_CACHE_H
#define SLM_MODEL_KV_CACHE_H

#include "base/status.h"
#include "ops/kv_page.h"

typedef struct slm_kv_cache {
    const slm_kv_shape *shape;
    int64_t n_pages, capacity;
    uint8_t **pages; /* [capacity][n_layers]: the bytes of each page */
} slm_kv_cache;

void slm_kv_init(slm_kv_cache *cache, const slm_kv_shape *shape);
void slm_kv_release(slm_kv_cache *cache);
slm_status slm_kv_fork(const slm_kv_cache *cache, slm_kv_cache *fork, slm_error *error);
/* Makes positions from .. to - 1 writable; the first `from` positions are kept. */
slm_status slm_kv_reserve(slm_kv_cache *cache, int64_t from, int64_t to, slm_error *error);
/* Drops pages past the first n_positions. */
void slm_kv_truncate(slm_kv_cache *cache, int64_t n_positions);
/* As truncate, and zeroes what a failed step may have left behind in the last page: masked positions must stay finite. */
void slm_kv_discard(slm_kv_cache *cache, int64_t n_positions);

/* k, v: [head_dim] f32 of one head. Reserved positions only. */
void slm_kv_write(slm_kv_cache *cache, int64_t layer, int64_t head, int64_t position, const float *k, const float *v);

#endif
