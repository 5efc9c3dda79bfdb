/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/layout.h"

#include <math.h>

#include "base/arith.h"
#include "quant/legacy.h"
#include "quant/super.h"

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
        size_t f16 = 0, factors = 0; /* how many factors */
        if (matrix->form == SLM_FORM_CODES) {
            f16 = (size_t)(cols / (c->factor_bits ? SLM_SUPERBLOCK : c->group)) * ROWS * sizeof(uint16_t);
            factors = c->factor_bits ? (size_t)(cols / c->group) * (c->mins ? 2 : 1) : 0;
        }
        matrix->m_at = f16;
        matrix->factors_at = matrix->m_at + (c->mins ? f16 : 0);
        matrix->tops_at = matrix->factors_at + (c->factor_bits == 8 ? factors : factors / 2) * ROWS;
        matrix->codes_at = (matrix->tops_at + (c->factor_bits == 6 ? factors / 2 * 8 : 0) + LINE - 1) / LINE * LINE;
        matrix->panel_bytes = matrix->codes_at + (size_t)matrix->lines * LINE;
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
    matrix->panel_bytes = matrix->codes_at + (size_t)matrix->lines * LINE;
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

/* Words of row r, one to a line. */
SLM_INLINE void put_words(const uint8_t *words, int n, int r, uint8_t *lines) {
    for (int w = 0; w < n; w++) memcpy(lines + w * LINE + 4 * r, words + 4 * w, 4);
}

/* The codes of row r in a group of a screened matrix. Returns the square of the norm that the residue is of. */
static int32_t put_halves(const uint8_t *codes, int r, uint8_t *high, uint8_t *low) {
    uint64_t mask = 0x0f0f0f0f0f0f0f0f, steps[4], halves[2][2];
    memcpy(steps, codes, sizeof steps);
    for (int i = 0; i < 2; i++) {
        halves[0][i] = (steps[i] & mask) | (steps[i + 2] & mask) << 4;
        halves[1][i] = (steps[i] >> 4 & mask) | (steps[i + 2] & ~mask);
    }
    put_words((const uint8_t *)halves[0], 4, r, low);
    put_words((const uint8_t *)halves[1], 4, r, high);
    int32_t squares = 0;
    for (int i = 0; i < SLM_GROUP; i++) {
        int16_t half = (int16_t)((codes[i] & 15) - 8);
        squares += half * half;
    }
    return squares;
}

/* squares: [ROWS], at most 2048, so that all is exact in f32, and the root less than one too small. */
static void put_residues(const int32_t *squares, uint8_t *residues) {
    for (int r = 0; r < ROWS; r++) {
        float square = (float)squares[r], least = (float)(int32_t)(sqrtf(square) * (float)SLM_RESIDUE_UNITS);
        least += 4 * least * least < 121 * square ? 1.0f : 0.0f; /* 121 / 4 is SLM_RESIDUE_UNITS squared */
        residues[r] = (uint8_t)(least > SLM_LEAST_RESIDUE ? least : SLM_LEAST_RESIDUE);
    }
}

/* A panel of a screened matrix, whose blocks are of Q8_0. */
static void pack_screened(const slm_matrix *matrix, int64_t panel, int64_t n_rows, const uint8_t *rows) {
    int64_t n_groups = matrix->cols / SLM_GROUP, block_bytes = slm_type_of(matrix->type)->block_bytes;
    uint8_t *start = (uint8_t *)(uintptr_t)slm_matrix_panel(matrix, panel), *high = start + matrix->codes_at;
    uint8_t *low = (uint8_t *)(uintptr_t)slm_matrix_low(matrix, panel);
    uint8_t *residues = (uint8_t *)(uintptr_t)slm_matrix_residues(matrix, panel);
    uint16_t *d = (uint16_t *)start;
    int32_t squares[ROWS] = {0};
    if (n_rows < ROWS) {
        memset(start, 0, matrix->panel_bytes);
        memset(low, 0, (size_t)(n_groups * 4 * LINE));
    }
    for (int64_t g = 0; g < n_groups; g++, high += 4 * LINE, low += 4 * LINE, residues += ROWS) {
        for (int r = 0; r < n_rows; r++) {
            slm_parts parts;
            slm_split_q8_0(rows + (r * n_groups + g) * block_bytes, &parts);
            squares[r] = put_halves(parts.planes, r, high, low);
            d[g * ROWS + r] = parts.d;
        }
        put_residues(squares, residues);
    }
}

/* The factors of row r in a block. */
SLM_INLINE void put_factors(const slm_coding c, int n_groups, const slm_parts *parts, int r, uint8_t *factors, uint8_t *tops) {
    int above = slm_factor_offset(c);
    if (c.factor_bits == 8) {
        for (int i = 0; i < n_groups; i++) factors[i * ROWS + r] = (uint8_t)parts->scales[i];
        return;
    }
    for (int i = 0; i < (c.mins ? n_groups : n_groups / 2); i++) {
        int first = parts->scales[c.mins ? i : 2 * i] + above,
            second = (c.mins ? parts->mins[i] : parts->scales[2 * i + 1]) + above;
        factors[i * ROWS + r] = (uint8_t)(first | second << c.factor_bits);
        if (c.factor_bits != 6) continue;
        uint8_t *top = &tops[i * 8 + r % 8], high = (uint8_t)(second >> 2);
        *top = r < 8 ? high : (uint8_t)(*top | high << 4); /* rows come in order: r - 8 was here */
    }
}

/* The first n_rows rows of a panel from a file's blocks: block after block, so that all rows write the same lines by turns.
 * split: takes one of `type` apart. */
SLM_INSTANCE void pack_blocks(const slm_matrix *matrix, uint8_t *panel, int64_t n_rows, const uint8_t *rows,
                              const slm_type_info type, void (*split)(const uint8_t *block, slm_parts *parts)) {
    const slm_coding c = type.coding;
    uint16_t *d = (uint16_t *)panel, *m = (uint16_t *)(panel + matrix->m_at);
    uint8_t *factors = panel + matrix->factors_at, *tops = panel + matrix->tops_at, *codes = panel + matrix->codes_at;
    int words = (int)(type.block / SLM_GROUP) * c.bits, n_groups = (int)(type.block / c.group); /* of a block */
    int bits = n_groups * c.factor_bits * (c.mins ? 2 : 1);                                     /* of its factors, in a row */
    int top_bytes = c.factor_bits == 6 ? bits / 12 * 8 : 0, factor_bytes = bits * ROWS / 8 - top_bytes;
    int64_t n_blocks = matrix->cols / type.block;
    for (int64_t b = 0; b < n_blocks; b++, codes += words * LINE, factors += factor_bytes, tops += top_bytes) {
        for (int r = 0; r < n_rows; r++) {
            slm_parts parts;
            split(rows + (r * n_blocks + b) * type.block_bytes, &parts);
            put_words(parts.planes, words, r, codes);
            d[b * ROWS + r] = parts.d;
            if (c.mins) m[b * ROWS + r] = parts.m;
            if (c.factor_bits) put_factors(c, n_groups, &parts, r, factors, tops);
        }
    }
}

/* One function for each type, in which all of it is known. */
static void pack_codes(const slm_matrix *matrix, uint8_t *panel, int64_t n_rows, const uint8_t *rows) {
#define PACK(TYPE, NAME, BLOCK, BYTES, ...)                                                                                      \
    case SLM_TYPE_##TYPE:                                                                                                        \
        pack_blocks(matrix, panel, n_rows, rows, (slm_type_info){#TYPE, BLOCK, BYTES, {__VA_ARGS__}}, slm_split_##NAME);         \
        break;
    switch (matrix->type) {
        SLM_BLOCK_TYPES(PACK)
    default: break;
    }
#undef PACK
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
            pack_codes(matrix, out, rows_here, file_rows);
        } else {
            pack_floats(matrix, out, rows_here, file_rows, row_bytes);
            if (matrix->form == SLM_FORM_BF16) drop_small(out, (int64_t)matrix->panel_bytes / 2);
        }
    }
}

/* The 4 codes of row r from column i on. */
static uint32_t codes_at(const slm_matrix *matrix, int64_t panel, int r, int64_t i) {
    const uint8_t *codes = slm_matrix_panel(matrix, panel) + matrix->codes_at;
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
