/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/layout.h"

#include <math.h>

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

bool slm_matrix_screen(slm_matrix *matrix) {
    if (matrix->coding.bits != 8) return false;
    matrix->screened = true;
    matrix->lines /= 2;
    size_t scales = matrix->m_at - matrix->d_at;
    matrix->d_at = (size_t)matrix->lines * LINE;
    matrix->m_at = matrix->scales_at = matrix->mins_at = matrix->d_at + scales;
    matrix->panel_bytes = (matrix->m_at + 63) / 64 * 64;
    matrix->low_at = matrix->panel_bytes * (size_t)matrix->n_panels;
    matrix->residues_at = matrix->low_at + (size_t)(matrix->n_panels * matrix->lines) * LINE;
    return true;
}

size_t slm_matrix_bytes(const slm_matrix *matrix) {
    size_t panels = matrix->panel_bytes * (size_t)matrix->n_panels;
    return matrix->screened ? matrix->residues_at + (size_t)(matrix->n_panels * matrix->cols / SLM_GROUP) * ROWS : panels;
}

size_t slm_matrix_row_bytes(const slm_matrix *matrix) {
    const slm_type_info *info = slm_type_of(matrix->type);
    return (size_t)(matrix->cols / info->block * info->block_bytes);
}

/* Of 32 codes, two steps of a row to a word: `bits` bits of each, from bit `from` up, into one plane of row r. */
SLM_INLINE void pack_plane(int bits, int from, const uint64_t steps[4], int r, uint8_t *plane) {
    uint64_t mask = 0x0101010101010101u * (0xffu >> (8 - bits)), lines[4] = {0};
    int words = bits > 1 ? bits / 2 : 1;
    for (int s = 0; s < 4; s++) lines[s % words] |= (steps[s] >> from & mask) << (bits == 8 ? 0 : s / words * words * 2);
    if (bits == 1) lines[0] |= lines[0] >> 32 << 1; /* the odd steps */
    for (int l = 0; l < bits; l++) {
        uint32_t line = (uint32_t)(lines[l / 2] >> l % 2 * 32);
        memcpy(plane + l * LINE + 4 * r, &line, 4);
    }
}

/* Of one block of each row: the codes of n groups. */
SLM_INLINE void pack_groups(int bits, const slm_parts *parts, int64_t n_rows, int64_t n, uint8_t *group) {
    int low = slm_plane_bits(bits), rest = bits - low;
    for (int64_t i = 0; i < n; i++, group += LINE * bits) {
        for (int r = 0; r < n_rows; r++) {
            uint64_t steps[4];
            memcpy(steps, parts[r].codes + i * SLM_GROUP, sizeof steps);
            pack_plane(low, 0, steps, r, group);
            if (rest) pack_plane(rest, low, steps, r, group + LINE * low);
        }
    }
}

static void pack_codes(int bits, const slm_parts *parts, int64_t n_rows, int64_t n, uint8_t *group) {
    switch (bits) {
    case 2: pack_groups(2, parts, n_rows, n, group); break;
    case 3: pack_groups(3, parts, n_rows, n, group); break;
    case 4: pack_groups(4, parts, n_rows, n, group); break;
    case 5: pack_groups(5, parts, n_rows, n, group); break;
    case 6: pack_groups(6, parts, n_rows, n, group); break;
    case 8: pack_groups(8, parts, n_rows, n, group); break;
    }
}

/* Of the codes of a group, as layout.h has it. */
static uint8_t residue_of(const uint8_t *codes) {
    int squares = 0;
    for (int i = 0; i < SLM_GROUP; i++) squares += ((codes[i] & 15) - 8) * ((codes[i] & 15) - 8);
    int residue = (int)(sqrtf((float)squares) * (float)SLM_RESIDUE_UNITS);
    while (4 * residue * residue < 121 * squares) residue++; /* 121 / 4 is SLM_RESIDUE_UNITS squared; at most 249 */
    return (uint8_t)(residue > SLM_LEAST_RESIDUE ? residue : SLM_LEAST_RESIDUE);
}

/* A panel of a screened matrix. */
static void pack_screened(const slm_matrix *matrix, int64_t panel, int64_t n_rows, const uint8_t *rows) {
    const slm_type_info *info = slm_type_of(matrix->type);
    int64_t n_groups = matrix->cols / SLM_GROUP;
    uint8_t *high = (uint8_t *)(uintptr_t)slm_matrix_panel(matrix, panel);
    uint8_t *low = (uint8_t *)(uintptr_t)slm_matrix_low(matrix, panel);
    uint8_t *residues = (uint8_t *)(uintptr_t)slm_matrix_residues(matrix, panel);
    uint16_t *d = (uint16_t *)(high + matrix->d_at);
    for (int64_t g = 0; g < n_groups; g++, high += 4 * LINE, low += 4 * LINE, residues += ROWS) {
        for (int r = 0; r < ROWS; r++) {
            slm_parts parts = {0};
            uint64_t steps[4];
            if (r < n_rows) info->split(rows + (r * n_groups + g) * info->block_bytes, &parts);
            memcpy(steps, parts.codes, sizeof steps);
            pack_plane(4, 0, steps, r, low);
            pack_plane(4, 4, steps, r, high);
            residues[r] = residue_of(parts.codes);
            d[g * ROWS + r] = parts.d;
        }
    }
}

/* The first n_rows rows of a panel from a file's blocks: block after block, so that all rows write the same lines by turns. */
static void pack_blocks(const slm_matrix *matrix, uint8_t *panel, int64_t n_rows, const uint8_t *rows) {
    const slm_type_info *info = slm_type_of(matrix->type);
    const slm_coding *c = &matrix->coding;
    uint16_t *d = (uint16_t *)(panel + matrix->d_at), *m = (uint16_t *)(panel + matrix->m_at);
    uint8_t *scales = panel + matrix->scales_at, *mins = panel + matrix->mins_at, *codes = panel;
    int64_t n_blocks = matrix->cols / info->block, groups = info->block / SLM_GROUP;
    int64_t factors = c->two_level ? info->block / c->group : 0; /* of a block */
    slm_parts parts[ROWS];
    for (int64_t b = 0; b < n_blocks; b++, codes += groups * LINE * c->bits) {
        for (int r = 0; r < n_rows; r++) info->split(rows + (r * n_blocks + b) * info->block_bytes, &parts[r]);
        pack_codes(c->bits, parts, n_rows, groups, codes);
        for (int r = 0; r < n_rows; r++) d[b * ROWS + r] = parts[r].d;
        for (int r = 0; r < n_rows && c->mins; r++) m[b * ROWS + r] = parts[r].m;
        for (int64_t i = 0; i < factors; i++) {
            int64_t at = (b * factors + i) * ROWS;
            for (int r = 0; r < n_rows; r++) scales[at + r] = (uint8_t)parts[r].scales[i];
            for (int r = 0; r < n_rows && c->mins; r++) mins[at + r] = (uint8_t)parts[r].mins[i];
        }
    }
}

/* Elements that are too small for factors of bf16 products become 0. */
static void drop_small(uint8_t *panel, int64_t n) {
    uint16_t least = (uint16_t)(slm_f32_bits(SLM_LEAST_FACTOR) >> 16), *halves = (uint16_t *)(void *)panel;
    for (int64_t i = 0; i < n; i++) halves[i] = (halves[i] & 0x7fff) < least ? 0 : halves[i];
}

/* The same from floats: n_rows rows of row_bytes, 64 bytes of each by turns. */
static void pack_floats(const slm_matrix *matrix, uint8_t *panel, int64_t n_rows, const uint8_t *rows, size_t row_bytes) {
    int64_t whole = (int64_t)(row_bytes / 4);
    for (int64_t from = 0; from < whole; from += ROWS) {
        int64_t to = slm_min64(from + ROWS, whole);
        for (int r = 0; r < n_rows; r++) {
            for (int64_t s = from; s < to; s++) memcpy(panel + s * LINE + 4 * r, rows + (size_t)r * row_bytes + 4 * s, 4);
        }
    }
    if (whole < matrix->lines) { /* an odd last element of 2 bytes, and its padding */
        memset(panel + whole * LINE, 0, LINE);
        for (int r = 0; r < n_rows; r++) memcpy(panel + whole * LINE + 4 * r, rows + (size_t)r * row_bytes + 4 * whole, 2);
    }
}

void slm_matrix_pack(const slm_matrix *matrix, int64_t panel, int64_t n_panels, const uint8_t *file_rows, int64_t n_rows) {
    size_t row_bytes = slm_matrix_row_bytes(matrix);
    if (matrix->form == SLM_FORM_BLAS) {
        memcpy(matrix->data + (size_t)panel * matrix->panel_bytes, file_rows, row_bytes * (size_t)n_rows);
        return;
    }
    for (int64_t p = 0; p < n_panels; p++, file_rows += ROWS * row_bytes) {
        uint8_t *out = matrix->data + (size_t)(panel + p) * matrix->panel_bytes;
        int64_t rows_here = slm_min64(ROWS, n_rows - p * ROWS);
        if (matrix->screened) {
            pack_screened(matrix, panel + p, rows_here, file_rows);
            continue;
        }
        if (rows_here < ROWS) memset(out, 0, matrix->panel_bytes);
        if (matrix->form == SLM_FORM_CODES) {
            pack_blocks(matrix, out, rows_here, file_rows);
        } else {
            pack_floats(matrix, out, rows_here, file_rows, row_bytes);
            if (matrix->form == SLM_FORM_BF16) drop_small(out, (int64_t)matrix->panel_bytes / 2);
        }
    }
}

/* The 4 codes of row r from column i on. */
static uint32_t codes_at(const slm_matrix *matrix, int64_t panel, int r, int64_t i) {
    const uint8_t *codes = slm_matrix_panel(matrix, panel);
    int64_t g = i / SLM_GROUP;
    int bits = matrix->coding.bits, s = (int)(i % SLM_GROUP / 4);
    if (!matrix->screened) return slm_step_codes(bits, codes + g * bits * LINE, s, r);
    return slm_screened_codes(codes + g * 4 * LINE, slm_matrix_low(matrix, panel) + g * 4 * LINE, s, r);
}

static void row_of_codes(const slm_matrix *matrix, int64_t panel, int r, float *out) {
    const slm_coding *c = &matrix->coding;
    float d = 0, m = 0;
    for (int64_t i = 0; i < matrix->cols; i += 4) {
        if (i % c->group == 0) slm_row_scales(matrix, slm_matrix_panel(matrix, panel), i / c->group, r, &d, &m);
        uint32_t codes = codes_at(matrix, panel, r, i);
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
    case SLM_FORM_CODES: row_of_codes(matrix, row / ROWS, r, out); break;
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
