/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/layout.h"

#include <string.h>

#include "base/arith.h"
#include "base/half.h"

enum { ROWS = SLM_PANEL_ROWS, STEP = 4 * ROWS /* bytes of one step of a panel */ };

static slm_form form_of(slm_type type, bool blas) {
    switch (type) {
    case SLM_TYPE_F32: return blas ? SLM_FORM_BLAS : SLM_FORM_F32;
    case SLM_TYPE_F16: return SLM_FORM_F16;
    case SLM_TYPE_BF16: return SLM_FORM_BF16;
    default: return slm_type_of(type)->code_bits <= 4 ? SLM_FORM_U4 : SLM_FORM_U8;
    }
}

slm_status slm_matrix_describe(slm_matrix *matrix, slm_type type, int64_t rows, int64_t cols, bool blas, slm_error *error) {
    if (type <= SLM_TYPE_NONE || type >= SLM_TYPE_COUNT)
        return slm_fail(error, SLM_UNSUPPORTED, -1, "tensor type %d is unknown", (int)type);
    const slm_type_info *info = slm_type_of(type);
    if (rows < 1 || cols < 1 || cols % info->block) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1,
                        "a %s matrix has at least one row and whole blocks of %lld columns, not [%lld, %lld]", info->name,
                        (long long)info->block, (long long)rows, (long long)cols);
    }
    *matrix =
        (slm_matrix){.form = form_of(type, blas), .type = type, .rows = rows, .cols = cols, .n_panels = (rows - 1) / ROWS + 1};
    size_t row_bytes = 0, total = 0;
    bool fits = slm_mul_size((size_t)cols, 4, &row_bytes) && slm_mul_size(row_bytes, ROWS, &total) && total <= SIZE_MAX / 4;
    switch (matrix->form) {
    case SLM_FORM_U4:
    case SLM_FORM_U8:
        matrix->groups = cols / SLM_GROUP;
        matrix->steps = matrix->groups * (matrix->form == SLM_FORM_U4 ? 4 : 8);
        break;
    case SLM_FORM_F16:
    case SLM_FORM_BF16: matrix->steps = slm_div_up(cols, 2); break;
    case SLM_FORM_F32:
    case SLM_FORM_BLAS: matrix->steps = cols; break;
    }
    matrix->offset = info->offset;
    matrix->has_min = info->has_min;
    if (fits) {
        size_t scales = (size_t)matrix->groups * ROWS * sizeof(uint16_t);
        matrix->d_at = (size_t)matrix->steps * STEP;
        matrix->m_at = matrix->d_at + scales;
        matrix->panel_bytes = (matrix->m_at + (matrix->has_min ? scales : 0) + 63) / 64 * 64;
        fits = slm_mul_size(matrix->panel_bytes, (size_t)matrix->n_panels, &total) && total <= PTRDIFF_MAX;
    }
    if (!fits) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "a matrix of [%lld, %lld] does not fit into memory", (long long)rows,
                        (long long)cols);
    }
    return SLM_OK;
}

size_t slm_matrix_bytes(const slm_matrix *matrix) {
    return matrix->panel_bytes * (size_t)matrix->n_panels;
}

size_t slm_matrix_row_bytes(const slm_matrix *matrix) {
    const slm_type_info *info = slm_type_of(matrix->type);
    return (size_t)(matrix->cols / info->block * info->block_bytes);
}

/* One row of a file's blocks into row r of a panel. */
static void pack_blocks(const slm_matrix *matrix, uint8_t *panel, int r, const uint8_t *row) {
    const slm_type_info *info = slm_type_of(matrix->type);
    uint16_t *d = (uint16_t *)(panel + matrix->d_at), *m = (uint16_t *)(panel + matrix->m_at);
    for (int64_t g = 0; g < matrix->groups; g++, row += info->block_bytes) {
        slm_group group;
        info->split(row, &group);
        if (matrix->form == SLM_FORM_U4) {
            uint8_t *out = panel + g * 4 * STEP + 4 * r, nibbles[16];
            for (int i = 0; i < 16; i++) nibbles[i] = (uint8_t)(group.codes[i] | group.codes[i + 16] << 4);
            for (int s = 0; s < 4; s++) memcpy(out + s * STEP, nibbles + 4 * s, 4);
        } else {
            uint8_t *out = panel + g * 8 * STEP + 4 * r;
            for (int s = 0; s < 8; s++) memcpy(out + s * STEP, group.codes + 4 * s, 4);
        }
        d[g * ROWS + r] = group.d;
        if (matrix->has_min) m[g * ROWS + r] = group.m;
    }
}

static void pack_floats(const slm_matrix *matrix, uint8_t *panel, int r, const uint8_t *row) {
    size_t row_bytes = slm_matrix_row_bytes(matrix);
    int64_t whole = (int64_t)(row_bytes / 4);
    for (int64_t s = 0; s < whole; s++) memcpy(panel + s * STEP + 4 * r, row + 4 * s, 4);
    if (whole < matrix->steps) { /* an odd last element of 2 bytes, and its padding */
        memset(panel + whole * STEP + 4 * r, 0, 4);
        memcpy(panel + whole * STEP + 4 * r, row + 4 * whole, 2);
    }
}

void slm_matrix_pack(const slm_matrix *matrix, int64_t panel, int64_t n_panels, const uint8_t *file_rows, int64_t n_rows) {
    size_t row_bytes = slm_matrix_row_bytes(matrix);
    if (matrix->form == SLM_FORM_BLAS) {
        memcpy(matrix->data + (size_t)panel * matrix->panel_bytes, file_rows, row_bytes * (size_t)n_rows);
        return;
    }
    for (int64_t p = 0; p < n_panels; p++) {
        uint8_t *out = matrix->data + (size_t)(panel + p) * matrix->panel_bytes;
        int64_t rows_here = slm_min64(ROWS, n_rows - p * ROWS);
        if (rows_here < ROWS) memset(out, 0, matrix->panel_bytes);
        for (int r = 0; r < rows_here; r++, file_rows += row_bytes) {
            if (matrix->groups) {
                pack_blocks(matrix, out, r, file_rows);
            } else {
                pack_floats(matrix, out, r, file_rows);
            }
        }
    }
}

static void row_of_codes(const slm_matrix *matrix, const uint8_t *panel, int r, float *out) {
    const uint16_t *d = (const uint16_t *)(panel + matrix->d_at), *m = (const uint16_t *)(panel + matrix->m_at);
    for (int64_t g = 0; g < matrix->groups; g++, out += SLM_GROUP) {
        float scale = slm_f16_to_f32(d[g * ROWS + r]);
        float min = matrix->has_min ? slm_f16_to_f32(m[g * ROWS + r]) : 0;
        for (int i = 0; i < SLM_GROUP; i++) {
            int code;
            if (matrix->form == SLM_FORM_U4) {
                uint8_t byte = panel[(g * 4 + i % 16 / 4) * STEP + 4 * r + i % 4];
                code = i < 16 ? byte & 15 : byte >> 4;
            } else {
                code = panel[(g * 8 + i / 4) * STEP + 4 * r + i % 4];
            }
            float product = scale * (float)(code - matrix->offset);
            out[i] = matrix->has_min ? product + min : product;
        }
    }
}

void slm_matrix_row(const slm_matrix *matrix, int64_t row, float *out) {
    const uint8_t *panel = slm_matrix_panel(matrix, row / ROWS);
    int r = (int)(row % ROWS);
    switch (matrix->form) {
    case SLM_FORM_U4:
    case SLM_FORM_U8: row_of_codes(matrix, panel, r, out); break;
    case SLM_FORM_F16:
    case SLM_FORM_BF16:
        for (int64_t i = 0; i < matrix->cols; i++) {
            uint16_t half;
            memcpy(&half, panel + i / 2 * STEP + 4 * r + i % 2 * 2, 2);
            out[i] = matrix->form == SLM_FORM_F16 ? slm_f16_to_f32(half) : slm_bf16_to_f32(half);
        }
        break;
    case SLM_FORM_F32:
        for (int64_t i = 0; i < matrix->cols; i++) memcpy(out + i, panel + i * STEP + 4 * r, 4);
        break;
    case SLM_FORM_BLAS: memcpy(out, matrix->data + (size_t)row * (size_t)matrix->cols * 4, (size_t)matrix->cols * 4); break;
    }
}
