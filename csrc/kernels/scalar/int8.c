/* SPDX-License-Identifier: Apache-2.0
 * int8.c: plain C, the reference of the other tiers. */
#include "kernels/scalar/int8.h"

#include <math.h>
#include <string.h>

#include "kernels/isa.h"

enum { ROWS = SLM_PANEL_ROWS };

/* rows: [16][32] codes of one group of a panel or, with 8 bits, of a strip. */
SLM_INLINE void rows_of_bits(int bits, const uint8_t *group, uint8_t rows[ROWS][SLM_GROUP]) {
    for (int r = 0; r < ROWS; r++) {
        for (int s = 0; s < 8; s++) {
            uint32_t codes = slm_step_codes(bits, group, s, r);
            memcpy(&rows[r][4 * s], &codes, 4);
        }
    }
}

static void rows_of_screened(const uint8_t *high, const uint8_t *low, uint8_t rows[ROWS][SLM_GROUP]) {
    for (int r = 0; r < ROWS; r++) {
        for (int s = 0; s < 8; s++) {
            uint32_t codes = slm_screened_codes(high, low, s, r);
            memcpy(&rows[r][4 * s], &codes, 4);
        }
    }
}

static void rows_of_group(const slm_coding *c, const uint8_t *group, uint8_t rows[ROWS][SLM_GROUP]) {
    switch (c->bits) {
    case 2: rows_of_bits(2, group, rows); break;
    case 3: rows_of_bits(3, group, rows); break;
    case 4: rows_of_bits(4, group, rows); break;
    case 5: rows_of_bits(5, group, rows); break;
    case 6: rows_of_bits(6, group, rows); break;
    case 8: rows_of_bits(8, group, rows); break;
    }
    for (int r = 0; c->table && r < ROWS; r++) {
        for (int i = 0; i < SLM_GROUP; i++) rows[r][i] = c->table[rows[r][i]];
    }
}

static int32_t dot(const uint8_t *w, const int8_t *x, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += w[i] * x[i];
    return sum;
}

/* The links of 32 columns in the chains of tokens first .. last - 1: y[(t - first) * ldy + r]. g counts 32 columns. d, m (or
 * NULL): [32 / x->group][16]. */
static void add_group(const uint8_t rows[ROWS][SLM_GROUP], int offset, const float *d, const float *m, const slm_codes *x,
                      int64_t g, int64_t first, int64_t last, float *y, int64_t ldy) {
    int halves = SLM_GROUP / x->group;
    for (int64_t t = first; t < last; t++, y += ldy) {
        for (int h = 0; h < halves; h++) {
            int64_t i = t * (x->k / x->group) + g * halves + h;
            const int8_t *codes = x->codes + t * x->k + g * SLM_GROUP + h * x->group;
            for (int r = 0; r < ROWS; r++) {
                const uint8_t *w = &rows[r][h * x->group];
                int32_t product = (x->group == 32 ? dot(w, codes, 32) : dot(w, codes, 16)) - offset * x->sums[i];
                y[r] = fmaf((float)product, d[h * ROWS + r] * x->scales[i], y[r]);
                if (m) y[r] = fmaf(m[h * ROWS + r], x->scaled_sums[i], y[r]);
            }
        }
    }
}

void slm_gemv_int8_scalar(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, int64_t n_tokens,
                          const uint8_t *then, float *y, int64_t ldy) {
    (void)then;
    const slm_coding *c = &w->coding;
    for (int64_t p = first; p < last; p++, y += ROWS) {
        const uint8_t *panel = slm_matrix_panel(w, p), *lines = panel + w->codes_at;
        for (int64_t i = 0; i < n_tokens; i++) memset(y + i * ldy, 0, ROWS * sizeof *y);
        for (int64_t g = 0; g < w->cols / SLM_GROUP; g++) {
            uint8_t rows[ROWS][SLM_GROUP];
            float d[2 * ROWS], m[2 * ROWS];
            for (int i = 0; i < SLM_GROUP / x->group * ROWS; i++) {
                int64_t column = g * SLM_GROUP + i / ROWS * x->group;
                slm_row_scales(w, panel, column / c->group, i % ROWS, &d[i], &m[i]);
            }
            if (w->screened) {
                rows_of_screened(lines + g * 256, slm_matrix_low(w, p) + g * 256, rows);
            } else {
                rows_of_group(c, lines + g * 64 * c->bits, rows);
            }
            add_group(rows, c->offset, d, c->mins ? m : NULL, x, g, token, token + n_tokens, y, ldy);
        }
    }
}

static void multiply_strip(const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy) {
    for (int64_t t = first; t < last; t++) memset(y + (t - first) * ldy, 0, ROWS * sizeof *y);
    for (int64_t g = 0; g < w->k / SLM_GROUP; g++) {
        uint8_t rows[ROWS][SLM_GROUP];
        int64_t scales = g * SLM_GROUP / w->group * ROWS;
        rows_of_bits(8, w->codes + g * 512, rows);
        add_group(rows, w->offset, w->d + scales, w->m ? w->m + scales : NULL, x, g, first, last, y, ldy);
    }
}

void slm_gemm_int8_scalar(const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last, float *y,
                          int64_t ldy) {
    for (int i = 0; i < n_strips; i++) multiply_strip(&w[i], x, first, last, y + i * ROWS, ldy);
}
