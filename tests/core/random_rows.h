/* SPDX-License-Identifier: Apache-2.0
 * random_rows.h: random rows of a matrix of any type, as a file has them. */
#ifndef SLM_TESTS_RANDOM_ROWS_H
#define SLM_TESTS_RANDOM_ROWS_H

#include <math.h>
#include <string.h>

#include "base/half.h"
#include "check.h"
#include "kernels/layout.h"

static inline uint16_t random_f16(void) { /* finite, subnormals and negatives included */
    uint16_t half = (uint16_t)random_u32();
    return (half & 0x7c00) == 0x7c00 ? (uint16_t)(half & 0x83ff) : (uint16_t)((half & 0x83ff) | (random_u32() % 20) << 10);
}

/* Down to where bf16 factors end, and below. */
static inline float random_small(void) {
    return ldexpf(random_float(), -(int)(random_u32() % 4 ? random_u32() % 4 : random_u32() % 64));
}

/* Where a block has f16 fields; -1: none. */
static const int f16_fields[SLM_TYPE_COUNT][2] = {
    [SLM_TYPE_F32] = {-1, -1},   [SLM_TYPE_F16] = {0, -1},    [SLM_TYPE_BF16] = {-1, -1},  [SLM_TYPE_Q8_0] = {0, -1},
    [SLM_TYPE_Q4_0] = {0, -1},   [SLM_TYPE_Q4_1] = {0, 2},    [SLM_TYPE_Q5_0] = {0, -1},   [SLM_TYPE_Q5_1] = {0, 2},
    [SLM_TYPE_Q2_K] = {80, 82},  [SLM_TYPE_Q3_K] = {108, -1}, [SLM_TYPE_Q4_K] = {0, 2},    [SLM_TYPE_Q5_K] = {0, 2},
    [SLM_TYPE_Q6_K] = {208, -1}, [SLM_TYPE_IQ4_NL] = {0, -1}, [SLM_TYPE_IQ4_XS] = {0, -1},
};

/* All rows of a described matrix, slm_matrix_row_bytes each. largest: all bits of codes are set. */
static inline void random_rows(const slm_matrix *w, bool largest, uint8_t *rows) {
    const slm_type_info *info = slm_type_of(w->type);
    size_t row_bytes = slm_matrix_row_bytes(w);
    for (size_t i = 0; i < row_bytes * (size_t)w->rows; i++) rows[i] = largest ? 0xff : (uint8_t)random_u32();
    for (int64_t r = 0; r < w->rows; r++) {
        uint8_t *row = rows + (size_t)r * row_bytes;
        for (int64_t b = 0; b < w->cols / info->block; b++, row += info->block_bytes) {
            if (w->type == SLM_TYPE_F32) {
                float x = random_float();
                memcpy(row, &x, 4);
            } else if (w->type == SLM_TYPE_BF16) {
                uint16_t x = slm_f32_to_bf16(random_small());
                memcpy(row, &x, 2);
            }
            for (int i = 0; i < 2 && f16_fields[w->type][i] >= 0; i++) {
                uint16_t half = random_f16();
                memcpy(row + f16_fields[w->type][i], &half, 2);
            }
        }
    }
}

#endif
