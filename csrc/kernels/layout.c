/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/layout.h"

#include "base/arith.h"

enum { ROWS = SLM_PANEL_ROWS, LINE = 4 * ROWS /* bytes of one step of a panel */ };

static slm_form form_of(slm_type type, bool blas) {
    switch (type) {
    case SLM_TYPE_F32: return blas ? SLM_FORM_BLAS : SLM_FORM_F32;
    case SLM_TYPE_F16: return SLM_FORM_F16;
    case SLM_TYPE_BF16: return SLM_FORM_BF16;
    default: return SLM_FORM_CODES;
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
    matrix->coding = info->coding;
    switch (matrix->form) {
    case SLM_FORM_CODES: matrix->lines = cols / SLM_GROUP * info->coding.bits; break;
    case SLM_FORM_F16:
    case SLM_FORM_BF16: matrix->lines = slm_div_up(cols, 2); break;
    case SLM_FORM_F32:
    case SLM_FORM_BLAS: matrix->lines = cols; break;
    }
    if (fits) {
        const slm_coding *c = &matrix->coding;
        size_t f16 = 0, s8 = 0;
        if (matrix->form == SLM_FORM_CODES) {
            f16 = (size_t)(cols / (c->two_level ? SLM_SUPERBLOCK : c->group)) * ROWS * sizeof(uint16_t);
            s8 = c->two_level ? (size_t)(cols / c->group) * ROWS : 0;
        }
        matrix->d_at = (size_t)matrix->lines * LINE;
        matrix->m_at = matrix->d_at + f16;
        matrix->scales_at = matrix->m_at + (c->mins ? f16 : 0);
        matrix->mins_at = matrix->scales_at + s8;
        matrix->panel_bytes = (matrix->mins_at + (c->mins ? s8 : 0) + 63) / 64 * 64;
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

/* Of row r in one group: `bits` bits of its codes, from bit `from` up, into one plane. */
SLM_INLINE void pack_plane(int bits, int from, const uint32_t steps[8], int r, uint8_t *plane) {
    uint32_t mask = 0x01010101u * (0xffu >> (8 - bits)), lines[8] = {0};
    for (int s = 0; s < 8; s += bits) {
        for (int l = 0; l < bits; l++) lines[l] |= (steps[s + l] >> from & mask) << s;
    }
    for (int l = 0; l < bits; l++) memcpy(plane + l * LINE + 4 * r, lines + l, 4);
}

/* The codes of row r in n groups. */
SLM_INLINE void pack_groups(int bits, const uint8_t *codes, int64_t n, int r, uint8_t *group) {
    int low = slm_plane_bits(bits), rest = bits - low;
    for (int64_t i = 0; i < n; i++, codes += SLM_GROUP, group += LINE * bits) {
        uint32_t steps[8];
        memcpy(steps, codes, sizeof steps);
        pack_plane(low, 0, steps, r, group);
        if (rest) pack_plane(rest, low, steps, r, group + LINE * low);
    }
}

static void pack_codes(int bits, const uint8_t *codes, int64_t n, int r, uint8_t *group) {
    switch (bits) {
    case 2: pack_groups(2, codes, n, r, group); break;
    case 3: pack_groups(3, codes, n, r, group); break;
    case 4: pack_groups(4, codes, n, r, group); break;
    case 5: pack_groups(5, codes, n, r, group); break;
    case 6: pack_groups(6, codes, n, r, group); break;
    case 8: pack_groups(8, codes, n, r, group); break;
    }
}

/* One row of a file's blocks into row r of a panel. */
static void pack_blocks(const slm_matrix *matrix, uint8_t *panel, int r, const uint8_t *row) {
    const slm_type_info *info = slm_type_of(matrix->type);
    const slm_coding *c = &matrix->coding;
    uint16_t *d = (uint16_t *)(panel + matrix->d_at), *m = (uint16_t *)(panel + matrix->m_at);
    uint8_t *scales = panel + matrix->scales_at, *mins = panel + matrix->mins_at, *codes = panel;
    int64_t factors = c->two_level ? info->block / c->group : 0; /* of a block */
    for (int64_t b = 0; b < matrix->cols / info->block; b++, row += info->block_bytes) {
        slm_parts parts;
        info->split(row, &parts);
        pack_codes(c->bits, parts.codes, info->block / SLM_GROUP, r, codes);
        codes += info->block / SLM_GROUP * LINE * c->bits;
        d[b * ROWS + r] = parts.d;
        if (c->mins) m[b * ROWS + r] = parts.m;
        for (int64_t i = 0; i < factors; i++) {
            scales[(b * factors + i) * ROWS + r] = (uint8_t)parts.scales[i];
            if (c->mins) mins[(b * factors + i) * ROWS + r] = (uint8_t)parts.mins[i];
        }
    }
}

static void pack_floats(const slm_matrix *matrix, uint8_t *panel, int r, const uint8_t *row) {
    size_t row_bytes = slm_matrix_row_bytes(matrix);
    int64_t whole = (int64_t)(row_bytes / 4);
    for (int64_t s = 0; s < whole; s++) memcpy(panel + s * LINE + 4 * r, row + 4 * s, 4);
    if (whole < matrix->lines) { /* an odd last element of 2 bytes, and its padding */
        memset(panel + whole * LINE + 4 * r, 0, 4);
        memcpy(panel + whole * LINE + 4 * r, row + 4 * whole, 2);
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
            if (matrix->form == SLM_FORM_CODES) {
                pack_blocks(matrix, out, r, file_rows);
            } else {
                pack_floats(matrix, out, r, file_rows);
            }
        }
    }
}

static void row_of_codes(const slm_matrix *matrix, const uint8_t *panel, int r, float *out) {
    const slm_coding *c = &matrix->coding;
    float d = 0, m = 0;
    for (int64_t i = 0; i < matrix->cols; i += 4) {
        if (i % c->group == 0) slm_row_scales(matrix, panel, i / c->group, r, &d, &m);
        uint32_t codes = slm_step_codes(c->bits, panel + i / SLM_GROUP * c->bits * LINE, (int)(i % SLM_GROUP / 4), r);
        for (int j = 0; j < 4; j++) {
            int code = codes >> 8 * j & 0xff;
            float product = d * (float)((c->table ? c->table[code] : code) - c->offset);
            out[i + j] = c->mins ? product + m : product;
        }
    }
}

void slm_matrix_row(const slm_matrix *matrix, int64_t row, float *out) {
    const uint8_t *panel = slm_matrix_panel(matrix, row / ROWS);
    int r = (int)(row % ROWS);
    switch (matrix->form) {
    case SLM_FORM_CODES: row_of_codes(matrix, panel, r, out); break;
    case SLM_FORM_F16:
    case SLM_FORM_BF16:
        for (int64_t i = 0; i < matrix->cols; i++) {
            uint16_t half;
            memcpy(&half, panel + i / 2 * LINE + 4 * r + i % 2 * 2, 2);
            out[i] = matrix->form == SLM_FORM_F16 ? slm_f16_to_f32(half) : slm_bf16_to_f32(half);
        }
        break;
    case SLM_FORM_F32:
        for (int64_t i = 0; i < matrix->cols; i++) memcpy(out + i, panel + i * LINE + 4 * r, 4);
        break;
    case SLM_FORM_BLAS: memcpy(out, matrix->data + (size_t)row * (size_t)matrix->cols * 4, (size_t)matrix->cols * 4); break;
    }
}
