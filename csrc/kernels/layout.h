/* SPDX-License-Identifier: Apache-2.0
 * layout.h: how weights lie in memory: the one layout of all matrices that our own kernels run.
 *
 * A matrix [rows, cols] becomes panels of 16 rows, each one linear stream. Within a panel K advances in steps of 4 bytes a row,
 * [step][16 rows][4 bytes] (64 bytes, a line: one 512-bit register), so that 16 outputs accumulate in 16 lanes:
 *
 * - codes: 4 elements a step, 8 steps a group of 32. A group's codes of b bits fill b lines, in planes as quant/types.h has them
 *   of one row: step s of a plane of p bits is in its line s mod p, shifted by s - s mod p
 * - f16, bf16: 2 elements a step; of bf16 those below SLM_LEAST_FACTOR (base/half.h) are 0
 * - f32: 1 element a step
 *
 * Before the codes of a whole panel stand its scales, so that a stream brings them first: f16 d, then, where the type has it, f16
 * m; [groups][16 rows], or in two levels [cols / 256][16] and then factors. Rows are padded to 16 with zeros, float columns to a
 * whole step; codes begin at a multiple of 64 bytes, and so do panels.
 *
 * Factors are in the order of groups, a group's scale before its min. Those of 8 bits are s8 [factor][16 rows]. Others share
 * bytes in pairs, [pair][16 rows]: the first in the low bits, above it as many low bits of the second as there is room for. Of 6
 * bits that is 2; the other 4 lie behind all pairs, [pair][8]: row r in byte r mod 8, in the low half for r < 8, else in the high
 * one. 6 bits without m are signed, and stored plus 32.
 *
 * A screened matrix of 8-bit codes lies in three parts, so that slm_kernels.screen need not read all of it: panels that hold d
 * and the high 4 bits of the codes as a plane of their own; behind all panels their planes of the low 4 bits, [n_panels][groups]
 * [4 lines]; then residues, a byte for each [n_panels][groups][16 rows]: what the low bits can add to a product. */
#ifndef SLM_KERNELS_LAYOUT_H
#define SLM_KERNELS_LAYOUT_H

#include <string.h>

#include "base/half.h"
#include "base/status.h"
#include "kernels/isa.h"
#include "quant/types.h"

enum { SLM_PANEL_ROWS = 16 };

typedef enum slm_form {
    SLM_FORM_CODES, /* of a block type */
    SLM_FORM_F16,
    SLM_FORM_BF16,
    SLM_FORM_F32,
    SLM_FORM_COUNT,
    SLM_FORM_BLAS = SLM_FORM_COUNT, /* row-major f32, run by BLIS: no panels, no kernel of ours */
} slm_form;

typedef struct slm_matrix {
    slm_form form;
    slm_type type; /* of the file */
    int64_t rows, cols;
    int64_t n_panels;
    slm_coding coding;          /* SLM_FORM_CODES */
    int64_t lines;              /* of 64 bytes behind the scales of a panel */
    size_t panel_bytes;         /* SLM_FORM_BLAS: bytes of 16 rows */
    size_t m_at;                /* offset of m in a panel, which d begins */
    size_t factors_at, tops_at; /* of factors, and of what of 6 bits has no room there */
    size_t codes_at;            /* offset of the lines */
    bool screened;
    size_t low_at, residues_at; /* screened: offsets in data */
    uint8_t *data;              /* [n_panels][panel_bytes]; SLM_FORM_BLAS: [rows][cols] f32 */
} slm_matrix;

/* Fills everything but data. blas: keep f32 row-major for BLIS. SLM_BAD_ARGUMENT: rows or cols < 1, cols not whole blocks, or
 * sizes that do not fit. */
slm_status slm_matrix_describe(slm_matrix *matrix, slm_type type, int64_t rows, int64_t cols, bool blas, slm_error *error);
/* Makes a described matrix a screened one. False: its codes are not of 8 bits. */
bool slm_matrix_screen(slm_matrix *matrix);
size_t slm_matrix_bytes(const slm_matrix *matrix);
size_t slm_matrix_row_bytes(const slm_matrix *matrix); /* of a row in the file */

/* file_rows: n_rows consecutive rows as in the file, the first of them row 16 * panel. Packs panels panel .. panel + n_panels -
 * 1; n_rows is 16 * n_panels, or less when the last rows of the matrix are among them. */
void slm_matrix_pack(const slm_matrix *matrix, int64_t panel, int64_t n_panels, const uint8_t *file_rows, int64_t n_rows);

/* out: [cols] f32, exactly the values of the file. */
void slm_matrix_row(const slm_matrix *matrix, int64_t row, float *out);

static inline const uint8_t *slm_matrix_panel(const slm_matrix *matrix, int64_t panel) {
    return matrix->data + (size_t)panel * matrix->panel_bytes;
}

/* What a thread reads so many bytes after panel p: it reads the panels up to last - 1, then `then` (NULL: the next panel). */
static inline const uint8_t *slm_panels_ahead(const slm_matrix *matrix, int64_t p, int64_t last, int64_t bytes,
                                              const uint8_t *then) {
    int64_t behind = bytes - (last - p) * (int64_t)matrix->panel_bytes;
    return then && behind >= 0 ? then + behind : slm_matrix_panel(matrix, p) + bytes;
}

/* Bytes of 32 columns of a panel, scales included; of a screened matrix without the low plane, which has 256. */
SLM_INLINE int slm_panel_step(slm_coding c, bool screened) {
    int f16 = 2 * SLM_PANEL_ROWS * SLM_GROUP / (c.factor_bits ? SLM_SUPERBLOCK : c.group);
    int scales = f16 + SLM_PANEL_ROWS * SLM_GROUP / c.group * c.factor_bits / 8;
    return 64 * (screened ? 4 : c.bits) + (c.mins ? 2 : 1) * scales;
}

/* Screened: the low planes of a panel, [groups][4 lines]. */
static inline const uint8_t *slm_matrix_low(const slm_matrix *matrix, int64_t panel) {
    return matrix->data + matrix->low_at + (size_t)(panel * matrix->cols * SLM_PANEL_ROWS / 2);
}

/* With codes in halves the high one stands for code - 128 = 16 * high - 120, less than 8 away: the residue of a group is the
 * least byte that is no less than SLM_RESIDUE_UNITS times the Euclidean norm of (low - 8), and than SLM_LEAST_RESIDUE. */
#define SLM_RESIDUE_UNITS 5.5
enum { SLM_LEAST_RESIDUE = 32, SLM_HIGH_OFFSET = 120 };

/* Screened: of a panel, [groups][16 rows]. */
static inline const uint8_t *slm_matrix_residues(const slm_matrix *matrix, int64_t panel) {
    return matrix->data + matrix->residues_at + (size_t)(panel * matrix->cols / SLM_GROUP * SLM_PANEL_ROWS);
}

/* What is added to a factor before it is stored. */
SLM_INLINE int slm_factor_offset(slm_coding c) {
    return c.factor_bits == 6 && !c.mins ? 32 : 0;
}

/* The scale or the min of group g of coding.group columns, of rows 8 half .. 8 half + 7: a signed byte each, the first row's the
 * lowest. factors, tops: those of a panel; tops are read of 6 bits only. */
SLM_INLINE uint64_t slm_eight_factors(slm_coding c, const uint8_t *factors, const uint8_t *tops, int64_t g, bool min, int half) {
    const uint64_t each = 0x0101010101010101;
    int64_t factor = c.mins ? 2 * g + min : g;
    uint64_t bytes, top;
    memcpy(&bytes, factors + (c.factor_bits == 8 ? factor : factor / 2) * SLM_PANEL_ROWS + 8 * half, 8);
    if (c.factor_bits == 8) return bytes;
    if (c.factor_bits == 4) return bytes >> factor % 2 * 4 & 15 * each;
    if (factor % 2) {
        memcpy(&top, tops + factor / 2 * 8, 8);
        bytes = (bytes >> 6 & 3 * each) | ((half ? top >> 2 : top << 2) & 60 * each);
    } else {
        bytes &= 63 * each;
    }
    uint64_t above = (uint64_t)slm_factor_offset(c) * each;
    return above ? ((bytes | 128 * each) - above) ^ 128 * each : bytes; /* the high bits keep borrows within their bytes */
}

/* d and m (0 where the type has none) of row r of a panel in group `group` of coding.group columns. */
static inline void slm_row_scales(const slm_matrix *matrix, const uint8_t *panel, int64_t group, int r, float *d, float *m) {
    slm_coding c = matrix->coding;
    const uint8_t *factors = panel + matrix->factors_at, *tops = panel + matrix->tops_at;
    int64_t at = group * c.group / (c.factor_bits ? SLM_SUPERBLOCK : c.group) * SLM_PANEL_ROWS + r;
    *d = slm_f16_to_f32(((const uint16_t *)panel)[at]);
    *m = c.mins ? slm_f16_to_f32(((const uint16_t *)(panel + matrix->m_at))[at]) : 0;
    if (!c.factor_bits) return;
    *d *= (int8_t)(slm_eight_factors(c, factors, tops, group, false, r / 8) >> r % 8 * 8);
    if (c.mins) *m *= (int8_t)(slm_eight_factors(c, factors, tops, group, true, r / 8) >> r % 8 * 8);
}

/* The bits of the first plane of codes of so many bits, or of what is left after it. */
static inline int slm_plane_bits(int bits) {
    return bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
}

/* What a plane of so many bits holds of row r in step s: 4 fields, one a byte. */
SLM_INLINE uint32_t slm_plane_fields(int bits, const uint8_t *plane, int s, int r) {
    int line = s & (bits - 1);
    uint32_t word;
    memcpy(&word, plane + 64 * line + 4 * r, 4);
    return word >> (s - line) & 0x01010101u * (0xffu >> (8 - bits));
}

/* The 4 codes of row r in step s of a group, one a byte, before any table. */
SLM_INLINE uint32_t slm_step_codes(int bits, const uint8_t *group, int s, int r) {
    int low = slm_plane_bits(bits), rest = bits - low; /* no type has more than two planes */
    uint32_t codes = slm_plane_fields(low, group, s, r);
    return rest ? codes | slm_plane_fields(rest, group + 64 * low, s, r) << low : codes;
}

/* The same of a screened matrix, from the high and the low plane of the group. */
SLM_INLINE uint32_t slm_screened_codes(const uint8_t *high, const uint8_t *low, int s, int r) {
    return slm_plane_fields(4, low, s, r) | slm_plane_fields(4, high, s, r) << 4;
}

#endif
