/* SPDX-License-Identifier: Apache-2.0
 * int8.c: plain C, the reference of the other tiers. */
#include "kernels/scalar/int8.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

enum { ROWS = SLM_PANEL_ROWS };

/* rows: [16][32] codes of one group, from a U4 panel (packed) or from bytes. */
static void rows_of_group(bool packed, const uint8_t *codes, uint8_t rows[ROWS][SLM_GROUP]) {
    for (int r = 0; r < ROWS; r++) {
        for (int s = 0; s < (packed ? 4 : 8); s++) {
            uint32_t word;
            memcpy(&word, codes + s * 64 + 4 * r, 4);
            uint32_t low = packed ? word & 0x0f0f0f0f : word, high = word >> 4 & 0x0f0f0f0f;
            memcpy(&rows[r][4 * s], &low, 4);
            if (packed) memcpy(&rows[r][4 * s + 16], &high, 4);
        }
    }
}

static int32_t dot(const uint8_t *w, const int8_t *x, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += w[i] * x[i];
    return sum;
}

/* One more link of the chains of tokens first .. last - 1: y[(t - first) * ldy + r]. */
static void add_group(const uint8_t rows[ROWS][SLM_GROUP], int offset, const float d[ROWS], const float *m, const slm_codes *x,
                      int64_t g, int64_t first, int64_t last, float *y, int64_t ldy) {
    int halves = SLM_GROUP / x->group;
    for (int64_t t = first; t < last; t++, y += ldy) {
        for (int h = 0; h < halves; h++) {
            int64_t i = t * (x->k / x->group) + g * halves + h;
            const int8_t *codes = x->codes + t * x->k + g * SLM_GROUP + h * x->group;
            for (int r = 0; r < ROWS; r++) {
                const uint8_t *w = &rows[r][h * x->group];
                int32_t product = (x->group == 32 ? dot(w, codes, 32) : dot(w, codes, 16)) - offset * x->sums[i];
                y[r] = fmaf((float)product, d[r] * x->scales[i], y[r]);
                if (m) y[r] = fmaf(m[r], x->scaled_sums[i], y[r]);
            }
        }
    }
}

void slm_gemv_int8_scalar(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, float *y) {
    bool packed = w->form == SLM_FORM_U4;
    for (int64_t p = first; p < last; p++, y += ROWS) {
        const uint8_t *panel = slm_matrix_panel(w, p);
        const uint16_t *d16 = (const uint16_t *)(panel + w->d_at), *m16 = (const uint16_t *)(panel + w->m_at);
        memset(y, 0, ROWS * sizeof *y);
        for (int64_t g = 0; g < w->groups; g++) {
            uint8_t rows[ROWS][SLM_GROUP];
            float d[ROWS], m[ROWS];
            for (int r = 0; r < ROWS; r++) {
                d[r] = slm_f16_to_f32(d16[g * ROWS + r]);
                m[r] = w->has_min ? slm_f16_to_f32(m16[g * ROWS + r]) : 0;
            }
            rows_of_group(packed, panel + g * (packed ? 256 : 512), rows);
            add_group(rows, w->offset, d, w->has_min ? m : NULL, x, g, token, token + 1, y, 0);
        }
    }
}

void slm_gemm_int8_scalar(const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy) {
    for (int64_t t = first; t < last; t++) memset(y + (t - first) * ldy, 0, ROWS * sizeof *y);
    for (int64_t g = 0; g < w->groups; g++) {
        uint8_t rows[ROWS][SLM_GROUP];
        rows_of_group(false, w->codes + g * 512, rows);
        add_group(rows, w->offset, w->d + g * ROWS, w->m ? w->m + g * ROWS : NULL, x, g, first, last, y, ldy);
    }
}
