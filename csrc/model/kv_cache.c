/* SPDX-License-Identifier: Apache-2.0 */
#include "model/kv_cache.h"

#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"

enum { POSITIONS = SLM_PAGE_POSITIONS, HEADER = 64 /* before a page's bytes: its reference count, on a cache line of its own */ };

static atomic_int *references(uint8_t *page) {
    return (atomic_int *)(void *)(page - HEADER);
}

static void page_release(uint8_t *page) {
    if (atomic_fetch_sub_explicit(references(page), 1, memory_order_acq_rel) == 1) slm_free(page - HEADER);
}

static uint8_t *page_create(const slm_kv_shape *shape) {
    uint8_t *block = slm_alloc_zero(1, HEADER + shape->page_bytes);
    if (!block) return NULL;
    atomic_store(references(block + HEADER), 1);
    return block + HEADER;
}

void slm_kv_init(slm_kv_cache *cache, const slm_kv_shape *shape) {
    *cache = (slm_kv_cache){.shape = shape};
}

void slm_kv_release(slm_kv_cache *cache) {
    slm_kv_truncate(cache, 0);
    slm_free(cache->pages);
    cache->pages = NULL;
    cache->capacity = 0;
}

slm_status slm_kv_fork(const slm_kv_cache *cache, slm_kv_cache *fork, slm_error *error) {
    slm_kv_init(fork, cache->shape);
    if (!cache->n_pages) return SLM_OK;
    size_t n = (size_t)(cache->n_pages * cache->shape->n_layers);
    fork->pages = slm_alloc_array(n, sizeof *fork->pages);
    if (!fork->pages) return slm_fail_memory(error);
    fork->n_pages = fork->capacity = cache->n_pages;
    for (size_t i = 0; i < n; i++) {
        fork->pages[i] = cache->pages[i];
        atomic_fetch_add_explicit(references(fork->pages[i]), 1, memory_order_relaxed);
    }
    return SLM_OK;
}

static bool grow_table(slm_kv_cache *cache, int64_t n_pages) {
    if (n_pages <= cache->capacity) return true;
    int64_t capacity = slm_max64(n_pages, cache->capacity * 2);
    uint8_t **pages = slm_realloc_array(cache->pages, (size_t)(capacity * cache->shape->n_layers), sizeof *pages);
    if (!pages) return false;
    cache->pages = pages;
    cache->capacity = capacity;
    return true;
}

/* The page at *slot becomes ours alone. */
static bool page_own(const slm_kv_shape *shape, uint8_t **slot) {
    uint8_t *shared = *slot;
    if (atomic_load_explicit(references(shared), memory_order_acquire) == 1) return true;
    uint8_t *copy = page_create(shape);
    if (!copy) return false;
    memcpy(copy, shared, shape->page_bytes);
    page_release(shared);
    *slot = copy;
    return true;
}

slm_status slm_kv_reserve(slm_kv_cache *cache, int64_t from, int64_t to, slm_error *error) {
    int64_t n_layers = cache->shape->n_layers, n_pages = slm_div_up(to, POSITIONS);
    slm_kv_truncate(cache, from);
    for (int64_t i = from / POSITIONS * n_layers; i < cache->n_pages * n_layers; i++) {
        if (!page_own(cache->shape, &cache->pages[i])) return slm_fail_memory(error);
    }
    if (!grow_table(cache, n_pages)) return slm_fail_memory(error);
    for (; cache->n_pages < n_pages; cache->n_pages++) {
        uint8_t **row = cache->pages + cache->n_pages * n_layers;
        for (int64_t layer = 0; layer < n_layers; layer++) {
            row[layer] = page_create(cache->shape);
            if (row[layer]) continue;
            while (layer--) page_release(row[layer]);
            return slm_fail_memory(error);
        }
    }
    return SLM_OK;
}

void slm_kv_truncate(slm_kv_cache *cache, int64_t n_positions) {
    int64_t n_layers = cache->shape->n_layers, keep = slm_div_up(n_positions, POSITIONS);
    while (cache->n_pages > keep) {
        cache->n_pages--;
        for (int64_t layer = 0; layer < n_layers; layer++) page_release(cache->pages[cache->n_pages * n_layers + layer]);
    }
}

void slm_kv_discard(slm_kv_cache *cache, int64_t n_positions) {
    static const float zeros[SLM_MAX_HEAD_DIM];
    const slm_kv_shape *shape = cache->shape;
    slm_kv_truncate(cache, n_positions);
    int64_t end = cache->n_pages * POSITIONS;
    for (int64_t layer = 0; layer < shape->n_layers && n_positions < end; layer++) {
        if (atomic_load(references(cache->pages[(cache->n_pages - 1) * shape->n_layers + layer])) > 1)
            continue; /* not written to */
        for (int64_t head = 0; head < shape->n_kv_heads; head++) {
            for (int64_t p = n_positions; p < end; p++) slm_kv_write(cache, layer, head, p, zeros, zeros);
        }
    }
}

void slm_kv_write(slm_kv_cache *cache, int64_t layer, int64_t head, int64_t position, const float *k, const float *v) {
    uint8_t *page = cache->pages[position / POSITIONS * cache->shape->n_layers + layer];
    slm_kv_page_write(cache->shape, page, head, position % POSITIONS, k, v);
}
