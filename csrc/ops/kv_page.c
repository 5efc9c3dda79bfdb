/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/kv_page.h"

#include <string.h>

#include "base/half.h"

void slm_kv_shape_init(slm_kv_shape *shape, int64_t n_layers, int64_t n_kv_heads, int64_t head_dim, slm_kv_type type) {
    size_t element = type == SLM_KV_BF16 ? 2 : 4;
    int64_t width = (head_dim + 15) / 16 * 16;
    *shape = (slm_kv_shape){.n_layers = n_layers, .n_kv_heads = n_kv_heads, .head_dim = head_dim, .width = width, .type = type};
    shape->panel_bytes = (size_t)head_dim * 16 * element;
    shape->k_bytes = shape->panel_bytes * (SLM_PAGE_POSITIONS / 16);
    shape->head_bytes = shape->k_bytes + (size_t)width * SLM_PAGE_POSITIONS * element;
    shape->page_bytes = shape->head_bytes * (size_t)n_kv_heads;
}

void slm_kv_page_write(const slm_kv_shape *shape, uint8_t *page, int64_t head, int64_t position, const float *k, const float *v) {
    uint8_t *k_out = page + (size_t)head * shape->head_bytes, *v_out = k_out + shape->k_bytes;
    k_out += (size_t)(position / 16) * shape->panel_bytes;
    if (shape->type == SLM_KV_BF16) {
        uint16_t *k16 = (uint16_t *)k_out + position % 16 * 2;
        uint16_t *v16 = (uint16_t *)v_out + position / 2 * shape->width * 2 + position % 2;
        for (int64_t i = 0; i < shape->head_dim; i++) {
            k16[i / 2 * 32 + i % 2] = slm_f32_to_bf16(k[i]);
            v16[i * 2] = slm_f32_to_bf16(v[i]);
        }
    } else {
        float *k32 = (float *)k_out + position % 16;
        for (int64_t i = 0; i < shape->head_dim; i++) k32[i * 16] = k[i];
        memcpy((float *)v_out + position * shape->width, v, (size_t)shape->head_dim * sizeof *v);
    }
}
