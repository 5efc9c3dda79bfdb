/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/kv_page.h"

#include <string.h>

#include "base/half.h"

static int64_t groups_of(int64_t n) {
    return (n + SLM_GROUP - 1) / SLM_GROUP;
}

/* Of n elements in each of so many positions, scales included. */
static size_t bytes_of(slm_kv_type type, int64_t n, int64_t positions) {
    int64_t bytes = type == SLM_KV_INT8 ? n + groups_of(n) * (int64_t)sizeof(float) : n * (type == SLM_KV_BF16 ? 2 : 4);
    return (size_t)(bytes * positions);
}

void slm_kv_shape_init(slm_kv_shape *shape, int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, slm_kv_type keys,
                       slm_kv_type values) {
    int64_t width = (head_dim + 15) / 16 * 16;
    *shape = (slm_kv_shape){
        .n_layers = n_layers, .n_kv_heads = n_kv_heads, .head_dim = head_dim, .width = width, .keys = keys, .values = values};
    shape->panel_bytes = bytes_of(keys, head_dim, 16);
    shape->k_bytes = shape->panel_bytes * (SLM_PAGE_POSITIONS / 16);
    shape->head_bytes = shape->k_bytes + bytes_of(values, width, SLM_PAGE_POSITIONS);
    shape->page_bytes = shape->head_bytes * (size_t)n_kv_heads;
}

/* Element i goes to codes[i * stride], the scale of group g to scales[g * scale_stride]. */
static void write_int8(const slm_kernels *kernels, const float *x, int64_t n, int8_t *codes, int64_t stride, float *scales,
                       int64_t scale_stride) {
    enum { GROUPS = SLM_MAX_HEAD_DIM / SLM_GROUP };
    _Alignas(64) float padded[SLM_MAX_HEAD_DIM];
    _Alignas(64) int8_t found[SLM_MAX_HEAD_DIM];
    float found_scales[GROUPS], scaled_sums[GROUPS];
    int32_t sums[GROUPS];
    slm_codes out = {.k = groups_of(n) * SLM_GROUP,
                     .group = SLM_GROUP,
                     .codes = found,
                     .sums = sums,
                     .scales = found_scales,
                     .scaled_sums = scaled_sums};
    memcpy(padded, x, (size_t)n * sizeof *x);
    memset(padded + n, 0, (size_t)(out.k - n) * sizeof *x);
    kernels->quantize(padded, 0, 0, 1, 0, out.k, &out);
    for (int64_t i = 0; i < n; i++) codes[i * stride] = found[i];
    for (int64_t g = 0; g < groups_of(n); g++) scales[g * scale_stride] = found_scales[g];
}

/* A loop of its own, which compilers turn into vectors: where the factors go, they lie apart. */
static void round_factors(const float *x, int64_t n, uint16_t *factors) {
    for (int64_t i = 0; i < n; i++) factors[i] = slm_f32_to_bf16_factor(x[i]);
}

/* position: in the panel */
static void write_key(const slm_kernels *kernels, const slm_kv_shape *shape, uint8_t *panel, int64_t position, const float *k) {
    int64_t n = shape->head_dim;
    if (shape->keys == SLM_KV_INT8) {
        float *scales = (float *)(void *)(panel + n * 16);
        write_int8(kernels, k, n, (int8_t *)panel + position, 16, scales + position, 16);
    } else if (shape->keys == SLM_KV_BF16) {
        uint16_t factors[SLM_MAX_HEAD_DIM];
        round_factors(k, n, factors);
        for (int64_t i = 0; i < n; i += 2) memcpy(panel + i * 32 + position * 4, factors + i, 2 * sizeof *factors);
    } else {
        float *k32 = (float *)(void *)panel + position;
        for (int64_t i = 0; i < n; i++) k32[i * 16] = k[i];
    }
}

static void write_value(const slm_kernels *kernels, const slm_kv_shape *shape, uint8_t *values, int64_t position,
                        const float *v) {
    int64_t n = shape->head_dim, width = shape->width;
    if (shape->values == SLM_KV_INT8) {
        float *scales = (float *)(void *)(values + SLM_PAGE_POSITIONS * width);
        write_int8(kernels, v, n, (int8_t *)values + position * width, 1, scales + position, SLM_PAGE_POSITIONS);
    } else if (shape->values == SLM_KV_BF16) {
        uint16_t *v16 = (uint16_t *)(void *)values + position / 2 * width * 2 + position % 2, factors[SLM_MAX_HEAD_DIM];
        round_factors(v, n, factors);
        for (int64_t i = 0; i < n; i++) v16[i * 2] = factors[i];
    } else {
        memcpy((float *)(void *)values + position * width, v, (size_t)n * sizeof *v);
    }
}

void slm_kv_page_write(const slm_kernels *kernels, const slm_kv_shape *shape, uint8_t *page, int64_t head, int64_t position,
                       const float *k, const float *v) {
    uint8_t *keys = page + (size_t)head * shape->head_bytes;
    if (k) write_key(kernels, shape, keys + (size_t)(position / 16) * shape->panel_bytes, position % 16, k);
    if (v) write_value(kernels, shape, keys + shape->k_bytes, position, v);
}
