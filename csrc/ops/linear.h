/* SPDX-License-Identifier: Apache-2.0
 * linear.h: y = x W^T + bias for all forms of W. In the default precision weights of whole numbers take int8 activations, BF16
 * ones bf16-rounded activations, the rest f32; in high precision all take f32. All threads of a team call each function; a
 * barrier stands between preparing an input and running linears on it, and between running them and reading y. */
#ifndef SLM_OPS_LINEAR_H
#define SLM_OPS_LINEAR_H

#include "base/threads.h"
#include "kernels/kernels.h"

typedef struct slm_input {
    int64_t n_tokens, k;
    int64_t ldx; /* k rounded up to 16 */
    slm_precision precision;
    float *x;        /* [n_tokens, ldx] */
    float *rounded;  /* [n_tokens, ldx], x in bf16; filled where a matrix needs it */
    slm_codes codes; /* filled where a matrix needs them */
} slm_input;

typedef struct slm_linear {
    const slm_matrix *w; /* [rows, k] */
    float *y;            /* [n_tokens, ldy] */
    int64_t ldy;         /* >= rows; with ldy >= rows rounded up to 16 the rest of the last panel is written as zeros */
    const float *bias;   /* [rows, padded to 16 with zeros], added to the product; or NULL */
} slm_linear;

/* What one thread needs while it runs linears. */
typedef struct slm_linear_scratch {
    uint8_t *codes; /* [16 * k] of the widest matrix */
    float *d, *m;   /* [k / 16 * 16] */
    float *tail;    /* [n_tokens, 16] */
} slm_linear_scratch;

/* Makes the forms of x that the matrices need, for the tokens of this thread's share. input->codes.group, 32 or 16, becomes 16
 * where a matrix has scales for groups of 16. */
void slm_linear_prepare(const slm_kernels *kernels, slm_team *team, slm_input *input, const slm_linear *linears, int n_linears);
void slm_linear_run(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linear *linears, int n_linears,
                    const slm_linear_scratch *scratch);

#endif
