/* SPDX-License-Identifier: Apache-2.0 */
#include "model/kv_cache.h"

#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"

enum { POSITIONS = SLM_PAGE_POSITIONS };

static atomic_int *references(uint8_t *page) {
    return (atomic_int *)(void *)(page - SLM_KV_HEADER);
}

/* NULL is fine. */
static void page_release(uint8_t *page) {
    if (page && atomic_fetch_sub_explicit(references(page), 1, memory_order_acq_rel) == 1) slm_slabs_give(page - SLM_KV_HEADER);
}

static uint8_t *page_create(const slm_kv_cache *cache) {
    uint8_t *block = slm_slabs_take(cache->slabs);
    if (!block) return NULL;
    memset(block, 0, SLM_KV_HEADER + cache->shape->page_bytes);
    atomic_store(references(block + SLM_KV_HEADER), 1);
    return block + SLM_KV_HEADER;
}

void slm_kv_init(slm_kv_cache *cache, const slm_kv_shape *shape, slm_slabs *slabs, const int64_t *windows) {
    *cache = (slm_kv_cache){.shape = shape, .slabs = slabs, .windows = windows};
}

void slm_kv_release(slm_kv_cache *cache) {
    slm_kv_truncate(cache, 0);
    slm_free(cache->pages);
    cache->pages = NULL;
    cache->capacity = 0;
}

slm_status slm_kv_fork(const slm_kv_cache *cache, slm_kv_cache *fork, slm_error *error) {
    slm_kv_init(fork, cache->shape, cache->slabs, cache->windows);
    fork->settled = cache->settled;
    if (!cache->n_pages) return SLM_OK;
    size_t n = (size_t)(cache->n_pages * cache->shape->n_layers);
    fork->pages = slm_alloc_array(n, sizeof *fork->pages);
    if (!fork->pages) return slm_fail_memory(error);
    fork->n_pages = fork->capacity = cache->n_pages;
    for (size_t i = 0; i < n; i++) {
        fork->pages[i] = cache->pages[i];
        if (fork->pages[i]) atomic_fetch_add_explicit(references(fork->pages[i]), 1, memory_order_relaxed);
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
static bool page_own(const slm_kv_cache *cache, uint8_t **slot) {
    uint8_t *shared = *slot;
    if (atomic_load_explicit(references(shared), memory_order_acquire) == 1) return true;
    uint8_t *copy = page_create(cache);
    if (!copy) return false;
    memcpy(copy, shared, cache->shape->page_bytes);
    page_release(shared);
    *slot = copy;
    return true;
}

slm_status slm_kv_reserve(slm_kv_cache *cache, int64_t from, int64_t to, slm_error *error) {
    int64_t n_layers = cache->shape->n_layers, n_pages = slm_div_up(to, POSITIONS);
    slm_kv_truncate(cache, from);
    for (int64_t i = from / POSITIONS * n_layers; i < cache->n_pages * n_layers; i++) {
        if (!page_own(cache, &cache->pages[i])) return slm_fail_memory(error);
    }
    if (!grow_table(cache, n_pages)) return slm_fail_memory(error);
    for (; cache->n_pages < n_pages; cache->n_pages++) {
        uint8_t **row = cache->pages + cache->n_pages * n_layers;
        for (int64_t layer = 0; layer < n_layers; layer++) {
            row[layer] = page_create(cache);
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
    if (!n_positions) cache->settled = 0;
}

/* The first page that a layer of `window` > 0 needs when it holds `length` positions. */
static int64_t first_page(int64_t window, int64_t length) {
    return slm_max64(0, length - SLM_KV_REWIND - window + 1) / POSITIONS;
}

int64_t slm_kv_rewind_limit(const slm_kv_cache *cache) {
    int64_t limit = 0;
    for (int64_t layer = 0; layer < cache->shape->n_layers; layer++) {
        int64_t window = cache->windows[layer], first = window ? first_page(window, cache->settled) : 0;
        if (first) limit = slm_max64(limit, first * POSITIONS + window - 1);
    }
    return limit;
}

void slm_kv_drop(slm_kv_cache *cache, int64_t start, int64_t length) {
    int64_t n_layers = cache->shape->n_layers, start_pages = slm_div_up(start, POSITIONS);
    for (int64_t layer = 0; layer < n_layers; layer++) {
        int64_t window = cache->windows[layer];
        if (!window) continue;
        int64_t start_first = first_page(window, start), first = first_page(window, length);
        for (int64_t page = first_page(window, cache->settled); page < first; page++) {
            if (page >= start_first && page < start_pages) continue;
            uint8_t **slot = &cache->pages[page * n_layers + layer];
            page_release(*slot);
            *slot = NULL;
        }
    }
    cache->settled = slm_max64(cache->settled, start);
}

size_t slm_kv_held(const slm_kv_cache *cache) {
    size_t held = 0;
    for (int64_t i = 0; i < cache->n_pages * cache->shape->n_layers; i++) held += cache->pages[i] ? cache->shape->page_bytes : 0;
    return held;
}

/* What a page has from this position on becomes zeros. */
static void clear_page(const slm_kernels *kernels, const slm_kv_shape *shape, uint8_t *page, int64_t position) {
    static const float zeros[SLM_MAX_HEAD_DIM];
    for (int64_t head = 0; head < shape->n_kv_heads; head++) {
        for (int64_t p = position; p < POSITIONS; p++) slm_kv_page_write(kernels, shape, page, head, p, zeros, zeros);
    }
}

void slm_kv_copy(const slm_kernels *kernels, const slm_kv_cache *cache, int64_t n_positions, uint8_t *bytes) {
    const slm_kv_shape *shape = cache->shape;
    for (int64_t i = 0; i < cache->n_pages * shape->n_layers; i++) {
        if (!cache->pages[i]) continue;
        memcpy(bytes, cache->pages[i], shape->page_bytes);
        if (i / shape->n_layers == n_positions / POSITIONS) clear_page(kernels, shape, bytes, n_positions % POSITIONS);
        bytes += shape->page_bytes;
    }
}

slm_status slm_kv_paste(slm_kv_cache *cache, int64_t n_positions, int64_t settled, const uint8_t *bytes, size_t size,
                        slm_error *error) {
    int64_t n_layers = cache->shape->n_layers, n_pages = slm_div_up(n_positions, POSITIONS), n_kept = 0;
    for (int64_t layer = 0; layer < n_layers; layer++) {
        int64_t window = cache->windows[layer];
        n_kept += window ? slm_max64(0, n_pages - first_page(window, settled)) : n_pages;
    }
    cache->settled = settled;
    if (size % cache->shape->page_bytes || size / cache->shape->page_bytes != (size_t)n_kept ||
        (n_positions ? slm_kv_rewind_limit(cache) > n_positions : settled > 0)) {
        return slm_fail(error, SLM_BAD_DATA, -1, "a state of %lld positions, of %lld at most, does not have %zu bytes",
                        (long long)n_positions, (long long)settled, size);
    }
    if (!grow_table(cache, n_pages)) return slm_fail_memory(error);
    for (; cache->n_pages < n_pages; cache->n_pages++) {
        uint8_t **row = cache->pages + cache->n_pages * n_layers;
        for (int64_t layer = 0; layer < n_layers; layer++) {
            int64_t window = cache->windows[layer];
            row[layer] = NULL;
            if (window && cache->n_pages < first_page(window, settled)) continue;
            row[layer] = page_create(cache);
            if (!row[layer]) {
                while (layer--) page_release(row[layer]);
                return slm_fail_memory(error);
            }
            memcpy(row[layer], bytes, cache->shape->page_bytes);
            bytes += cache->shape->page_bytes;
        }
    }
    return SLM_OK;
}

/* Pages that n positions in a row touch at most. */
static int64_t most_pages(int64_t n) {
    return (n + POSITIONS - 2) / POSITIONS + 1;
}

size_t slm_kv_most(const slm_kv_shape *shape, const int64_t *windows, int64_t context, int64_t chunk) {
    int64_t all = slm_div_up(context, POSITIONS);
    size_t pages = 0, bytes;
    for (int64_t layer = 0; layer < shape->n_layers; layer++) {
        /* The chunk and the window before it, and the window to which the call goes back if it fails. */
        int64_t window = windows[layer], reach = SLM_KV_REWIND + window - 1;
        pages += (size_t)(window ? slm_min64(all, most_pages(reach + chunk) + most_pages(reach)) : all);
    }
    return slm_mul_size(pages, shape->page_bytes, &bytes) ? bytes : SIZE_MAX;
}

void slm_kv_discard(const slm_kernels *kernels, slm_kv_cache *cache, int64_t n_positions) {
    const slm_kv_shape *shape = cache->shape;
    slm_kv_truncate(cache, n_positions);
    for (int64_t layer = 0; layer < shape->n_layers && n_positions % POSITIONS; layer++) {
        uint8_t *page = cache->pages[(cache->n_pages - 1) * shape->n_layers + layer];
        if (atomic_load(references(page)) > 1) continue; /* not written to */
        clear_page(kernels, shape, page, n_positions % POSITIONS);
    }
}
