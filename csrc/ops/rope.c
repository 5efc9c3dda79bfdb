/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/rope.h"

#include <math.h>

void slm_rope_table(const float *inv_freq, int64_t half, int64_t position, float factor, float *table) {
    for (int64_t i = 0; i < half; i++) {
        float angle = (float)position * inv_freq[i];
        table[2 * i] = cosf(angle) * factor;
        table[2 * i + 1] = sinf(angle) * factor;
    }
}

void slm_rope(float *x, const float *table, int64_t half, slm_rope_style style) {
    int64_t stride = style == SLM_ROPE_HALF ? 1 : 2, other = style == SLM_ROPE_HALF ? half : 1;
    for (int64_t i = 0; i < half; i++) {
        float *a = x + i * stride, *b = a + other, first = *a, second = *b;
        *a = first * table[2 * i] - second * table[2 * i + 1];
        *b = second * table[2 * i] + first * table[2 * i + 1];
    }
}
