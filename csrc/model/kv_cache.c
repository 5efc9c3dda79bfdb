/* SPDX-License-Identifier: Apache-2.0 */
#include "model/kv_cache.h"

#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/half.h"

enum { POSITIONS = SLM_PAGE_POSITIONS };

struct slm_page {
    atomic_int references;
    _Alignas(64) uint8_t data[];
};

void slm_kv_shape_init(slm_kv_shape *shape, int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, bool bf16) {
    size_t element = bf16 ? 2 : 4;
    int64_t width = slm_div_up(head_dim, 16) * 16;
    *shape = (slm_kv_shape){.n_layers = n_layers, .n_kv_heads = n_kv_heads, .head_dim = head_dim, .width = width, .bf16 = bf16};
    shape->panel_bytes = (size_t)head_dim * 16 * element;
    shape->k_bytes = shape->panel_bytes * (POSITIONS / 16);
    shape->head_bytes = shape->k_bytes + (size_t)width * POSITIONS * element;
    shape->page_bytes = shape->head_bytes * (size_t)n_kv_heads;
}

static void page_release(slm_page *page) {
    if (page && atomic_fetch_sub_explicit(&page->references, 1, memory_order_acq_rel) == 1) slm_free(page);
}

static slm_page *page_create(const slm_kv_shape *shape) {
    slm_page *page = slm_alloc_zero(1, sizeof *page + shape->page_bytes);
    if (page) atomic_store(&page->references, 1);
    return page;
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
        atomic_fetch_add_explicit(&fork->pages[i]->references, 1, memory_order_relaxed);
    }
    return SLM_OK;
}

static bool grow_table(slm_kv_cache *cache, int64_t n_pages) {
    if (n_pages <= cache->capacity) return true;
    int64_t capacity = slm_max64(n_pages, cache->capacity * 2);
    slm_page **pages = slm_realloc_array(cache->pages, (size_t)(capacity * cache->shape->n_layers), sizeof *pages);
    if (!pages) return false;
    cache->pages = pages;
    cache->capacity = capacity;
    return true;
}

/* The page at *slot becomes ours alone. */
static bool page_own(const slm_kv_shape *shape, slm_page **slot) {
    slm_page *shared = *slot;
    if (atomic_load_explicit(&shared->references, memory_order_acquire) == 1) return true;
    slm_page *copy = page_create(shape);
    if (!copy) return false;
    memcpy(copy->data, shared->data, shape->page_bytes);
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
        slm_page **row = cache->pages + cache->n_pages * n_layers;
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
        const slm_page *page = cache->pages[(cache->n_pages - 1) * shape->n_layers + layer];
        if (atomic_load(&page->references) > 1) continue; /* nothing was written to it */
        for (int64_t head = 0; head < shape->n_kv_heads; head++) {
            for (int64_t p = n_positions; p < end; p++) slm_kv_write(cache, layer, head, p, zeros, zeros);
        }
    }
}

void slm_kv_write(slm_kv_cache *cache, int64_t layer, int64_t head, int64_t position, const float *k, const float *v) {
    const slm_kv_shape *shape = cache->shape;
    int64_t p = position % POSITIONS;
    uint8_t *k_out = cache->pages[position / POSITIONS * shape->n_layers + layer]->data + (size_t)head * shape->head_bytes;
    uint8_t *v_out = k_out + shape->k_bytes;
    k_out += (size_t)(p / 16) * shape->panel_bytes;
    if (shape->bf16) {
        uint16_t *k16 = (uint16_t *)k_out + p % 16 * 2, *v16 = (uint16_t *)v_out + p / 2 * shape->width * 2 + p % 2;
        for (int64_t i = 0; i < shape->head_dim; i++) {
            k16[i / 2 * 32 + i % 2] = slm_f32_to_bf16(k[i]);
            v16[i * 2] = slm_f32_to_bf16(v[i]);
        }
    } else {
        float *k32 = (float *)k_out + p % 16;
        for (int64_t i = 0; i < shape->head_dim; i++) k32[i * 16] = k[i];
        memcpy((float *)v_out + p * shape->width, v, (size_t)shape->head_dim * sizeof *v);
    }
}

const uint8_t *slm_kv_read(const slm_kv_cache *cache, int64_t layer, int64_t head, int64_t page) {
    return cache->pages[page * cache->shape->n_layers + layer]->data + (size_t)head * cache->shape->head_bytes;
}
