/* SPDX-License-Identifier: Apache-2.0
 * layout.h: how weights lie in memory: the one layout of all matrices that our own kernels run.
 *
 * A matrix [rows, cols] becomes panels of 16 rows, each one linear stream. Within a panel K advances in steps of 4 bytes a row,
 * [step][16 rows][4 bytes] (64 bytes: one 512-bit register), so that 16 outputs accumulate in 16 lanes:
 *
 * - u8: 4 codes a step; a group of 32 elements is 8 steps
 * - u4: 8 codes a step, 4 steps a group: low nibbles are elements 4s .. 4s + 3 of the group, high ones 4s + 16 .. 4s + 19
 * - f16, bf16: 2 elements a step
 * - f32: 1 element a step
 *
 * After the codes of a whole panel stand its scales: d [groups][16] f16, then, where the type has it, m [groups][16] f16.
 * Rows are padded to 16 with zeros, float columns to a whole step; a panel's bytes are a multiple of 64. */
#ifndef SLM_KERNELS_LAYOUT_H
#define SLM_KERNELS_LAYOUT_H

#include "base/status.h"
#include "quant/types.h"

enum { SLM_PANEL_ROWS = 16 };

typedef enum slm_form {
    SLM_FORM_U4,
    SLM_FORM_U8,
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
    int64_t groups; /* of 32 along cols; 0 for floats */
    int64_t steps;  /* of 4 bytes a row */
    int offset;     /* of the codes */
    bool has_min;
    size_t panel_bytes; /* SLM_FORM_BLAS: bytes of 16 rows */
    size_t d_at, m_at;  /* offsets of the scale planes in a panel */
    uint8_t *data;      /* [n_panels][panel_bytes]; SLM_FORM_BLAS: [rows][cols] f32 */
} slm_matrix;

/* Fills everything but data. blas: keep f32 row-major for BLIS. SLM_BAD_ARGUMENT: rows or cols < 1, cols not whole blocks, or
 * sizes that do not fit. */
slm_status slm_matrix_describe(slm_matrix *matrix, slm_type type, int64_t rows, int64_t cols, bool blas, slm_error *error);
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

#endif
