/* SPDX-License-Identifier: Apache-2.0
 * linear.h: y = x W^T + bias for all forms of W, and the gated product of two of them. In the default precision weights of whole
 * numbers take int8 activations, BF16 ones factors in bf16, the rest f32; in high precision all take f32. What adapters add is
 * f32 in both. */
#ifndef SLM_OPS_LINEAR_H
#define SLM_OPS_LINEAR_H

#include "base/threads.h"
#include "kernels/kernels.h"

typedef struct slm_input {
    int64_t n_tokens, k;
    int64_t ldx; /* k rounded up to 16 */
    slm_precision precision;
    float *x;        /* [n_tokens, ldx] */
    float *rounded;  /* [n_tokens, ldx], x as round_bf16 has it; filled where a matrix needs it */
    slm_codes codes; /* filled where a matrix needs them */
    float *low;      /* [n_tokens, low_ld] the products a x of addends, filled where there are any */
    int64_t low_ld;
} slm_input;

/* What an adapter adds to a product: b (scale * (a x)), of the f32 input, in f32. */
typedef struct slm_addend {
    slm_matrix a; /* [rank, k] floats; of an embedding [rows of the embedding, rank] */
    slm_matrix b; /* [rows, rank] floats */
    float scale;
    int64_t at;                    /* where a x begins in a row of slm_input.low */
    const struct slm_addend *next; /* of the same product; or NULL */
} slm_addend;

typedef struct slm_dense {
    slm_matrix w;              /* [rows, k]; w.data NULL: there is none */
    const float *bias;         /* [rows, padded to 16 with zeros], added to the product; or NULL */
    const slm_addend *addends; /* added after it; or NULL */
} slm_dense;

/* y = dense(x). With an activation: y = act(dense(x)), or act(gate(x)) * dense(x) where there is a gate. */
typedef struct slm_linear {
    const slm_dense *dense;
    const slm_dense *gate;     /* of the shape of dense; or NULL */
    const slm_activation *act; /* NULL: none */
    float *y;                  /* [n_tokens, ldy]; what is beyond rows stays as it is, or becomes 0 */
    int64_t ldy;               /* >= rows */
    int64_t unit;              /* rows that one thread runs together, of few tokens; 0: any */
    const slm_codes *codes;    /* with an activation, see slm_linear_takes_codes: what y would be goes here, quantized; or NULL */
} slm_linear;

enum { SLM_INPUT_LINEARS = 3 };

/* The linears of one input. */
typedef struct slm_linears {
    int n;
    slm_linear at[SLM_INPUT_LINEARS];
} slm_linears;

/* What one thread needs while it runs linears. */
typedef struct slm_linear_scratch {
    uint8_t *codes;  /* [SLM_STRIPS, 16 * k] of the widest matrix */
    float *d, *m;    /* [SLM_STRIPS, k / 16 * 16] */
    float *y, *gate; /* [slm_linear_scratch_size(n_tokens)] */
} slm_linear_scratch;

int64_t slm_linear_scratch_size(int64_t n_tokens);

/* Whether linears read nothing of an input but its codes, and it has many tokens: then the linear that gives the input can leave
 * them instead of floats (slm_linear.codes), and nothing is left to prepare. input->codes.group becomes what prepare makes it. */
bool slm_linear_takes_codes(slm_input *input, const slm_linears *linears);
/* Makes the forms of x that the matrices and addends need, of the tokens first .. last - 1. input->codes.group, 32 or 16, becomes
 * 16 where a matrix has scales for groups of 16. */
void slm_linear_prepare(const slm_kernels *kernels, slm_team *team, slm_input *input, const slm_linears *linears, int64_t first,
                        int64_t last);
/* All threads of the team call it once between two barriers, when input is prepared for all tokens; y is whole after the second.
 * Few tokens: a thread's share of the rows depends on nothing but the matrices and the team; of one linear alone it also takes
 * what is left of some other shares when its own is done. next: what is run after them, or NULL; of few tokens, the weights that
 * a thread will begin with are asked for while it ends its share and waits for others. */
void slm_linear_run(const slm_kernels *kernels, slm_team *team, const slm_input *input, const slm_linears *linears,
                    const slm_linears *next, const slm_linear_scratch *scratch);
/* Few tokens: the rows of linear i of several that this thread makes, *first .. *end - 1. */
void slm_linear_share(const slm_team *team, const slm_linears *linears, int i, int64_t *first, int64_t *end);

enum { SLM_BLAS_PANELS = 8 }; /* of one BLIS call: fixed, so that the work of a thread does not change a bit */

/* dense(x) for callers that share rows out themselves: y[t * ldy + r] for row 16 * first + r up to panel last - 1, with the same
 * bits. Of a matrix that BLIS runs, first is a multiple of SLM_BLAS_PANELS, and so is last unless it is the end. */
void slm_linear_panels(const slm_kernels *kernels, const slm_input *input, const slm_dense *dense, int64_t first, int64_t last,
                       float *y, int64_t ldy, const slm_linear_scratch *scratch);

/* x [padded to 16] += what the addends of an embedding give for its row. low: scratch, [the largest rank, padded to 16]. */
void slm_addends_embed(const slm_kernels *kernels, const slm_addend *addends, int64_t row, float *low, float *x);

#endif
