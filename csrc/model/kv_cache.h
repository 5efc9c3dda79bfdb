/* SPDX-License-Identifier: Apache-2.0
 * kv_cache.h: keys and values of a session: a table of reference-counted pages of 64 absolute positions, one page per layer.
 * Fork shares all pages; a page is copied before the first write to it while it is shared. A layer with a window drops the pages
 * that no query reaches any more, also none after a rewind by SLM_KV_REWIND positions. */
#ifndef SLM_MODEL_KV_CACHE_H
#define SLM_MODEL_KV_CACHE_H

#include "base/slabs.h"
#include "base/status.h"
#include "ops/kv_page.h"

enum {
    SLM_KV_REWIND = SLM_PAGE_POSITIONS,
    SLM_KV_HEADER = 64, /* before a page's bytes: its reference count, on a cache line of its own */
};

typedef struct slm_kv_cache {
    const slm_kv_shape *shape;
    slm_slabs *slabs;       /* of SLM_KV_HEADER + shape->page_bytes */
    const int64_t *windows; /* [n_layers]: a query sees so many positions, its own included; 0: all */
    int64_t n_pages, capacity;
    int64_t settled; /* the most positions for which windows have dropped pages */
    uint8_t **pages; /* [capacity][n_layers]: the bytes of each page; NULL: dropped */
} slm_kv_cache;

void slm_kv_init(slm_kv_cache *cache, const slm_kv_shape *shape, slm_slabs *slabs, const int64_t *windows);
void slm_kv_release(slm_kv_cache *cache);
slm_status slm_kv_fork(const slm_kv_cache *cache, slm_kv_cache *fork, slm_error *error);
/* Makes positions from .. to - 1 writable; the first `from` positions are kept. */
slm_status slm_kv_reserve(slm_kv_cache *cache, int64_t from, int64_t to, slm_error *error);
/* Drops pages past the first n_positions, which is 0 or at least slm_kv_rewind_limit(). */
void slm_kv_truncate(slm_kv_cache *cache, int64_t n_positions);
/* The least n_positions > 0 whose next query still finds its windows whole. */
int64_t slm_kv_rewind_limit(const slm_kv_cache *cache);
/* Drops what neither a session of `length` positions needs nor one that goes back to `start`, start <= length. */
void slm_kv_drop(slm_kv_cache *cache, int64_t start, int64_t length);
/* As truncate, and zeroes what a failed step may have left behind in the last page: masked positions must stay finite. */
void slm_kv_discard(const slm_kernels *kernels, slm_kv_cache *cache, int64_t n_positions);

/* Bytes of the pages in the table, also of those that are shared. */
size_t slm_kv_held(const slm_kv_cache *cache);
/* Copies these bytes, in the order of positions, then layers; zeros behind n_positions, whatever was there before. */
void slm_kv_copy(const slm_kernels *kernels, const slm_kv_cache *cache, int64_t n_positions, uint8_t *bytes);
/* Fills an empty cache for n_positions with a copy of `size` such bytes of another that had `settled` as much; SLM_BAD_DATA where
 * there is no such cache. */
slm_status slm_kv_paste(slm_kv_cache *cache, int64_t n_positions, int64_t settled, const uint8_t *bytes, size_t size,
                        slm_error *error);
/* The most of them in all layers, when `context` positions come in chunks of up to `chunk`; SIZE_MAX if it is more than that. */
size_t slm_kv_most(const slm_kv_shape *shape, const int64_t *windows, int64_t context, int64_t chunk);

#endif
