/* SPDX-License-Identifier: Apache-2.0
 * int8.c: plain C, the reference of the other tiers. */
#include "kernels/scalar/int8.h"

#include <math.h>

#include "base/half.h"

/* The code of row r, element e of a group; codes: the group's bytes in a panel or a strip. */
static inline int code_at(bool packed, const uint8_t *codes, int r, int e) {
    if (!packed) return codes[e / 4 * 64 + 4 * r + e % 4];
    uint8_t byte = codes[e % 16 / 4 * 64 + 4 * r + e % 4];
    return e < 16 ? byte & 15 : byte >> 4;
}

static inline void add_group(bool packed, const uint8_t *codes, int offset, const float d[16], const float *m, const slm_codes *x,
                             int64_t token, int64_t g, float *y) {
    int halves = 32 / x->group;
    int64_t n_groups = x->k / x->group;
    for (int h = 0; h < halves; h++) {
        int64_t i = token * n_groups + g * halves + h;
        const int8_t *x_codes = x->codes + token * x->k + g * 32 + h * x->group;
        for (int r = 0; r < 16; r++) {
            int32_t dot = -offset * x->sums[i];
            for (int e = 0; e < x->group; e++) dot += code_at(packed, codes, r, h * x->group + e) * x_codes[e];
            y[r] = fmaf((float)dot, d[r] * x->scales[i], y[r]);
            if (m) y[r] = fmaf(m[r], x->scaled_sums[i], y[r]);
        }
    }
}

void slm_gemv_int8_scalar(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, float *y) {
    bool packed = w->form == SLM_FORM_U4;
    for (int64_t p = first; p < last; p++, y += 16) {
        const uint8_t *panel = slm_matrix_panel(w, p);
        const uint16_t *d16 = (const uint16_t *)(panel + w->d_at), *m16 = (const uint16_t *)(panel + w->m_at);
        for (int r = 0; r < 16; r++) y[r] = 0;
        for (int64_t g = 0; g < w->groups; g++) {
            float d[16], m[16];
            for (int r = 0; r < 16; r++) {
                d[r] = slm_f16_to_f32(d16[g * 16 + r]);
                m[r] = w->has_min ? slm_f16_to_f32(m16[g * 16 + r]) : 0;
            }
            add_group(packed, panel + g * (packed ? 256 : 512), w->offset, d, w->has_min ? m : NULL, x, token, g, y);
        }
    }
}

void slm_gemm_int8_scalar(const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy) {
    for (int64_t t = first; t < last; t++, y += ldy) {
        for (int r = 0; r < 16; r++) y[r] = 0;
        for (int64_t g = 0; g < w->groups; g++) {
            add_group(false, w->codes + g * 512, w->offset, w->d + g * 16, w->m ? w->m + g * 16 : NULL, x, t, g, y);
        }
    }
}
