/* SPDX-License-Identifier: Apache-2.0
 * int8.h: products of weights in codes of 2 to 8 bits with int8 activations on these tiers; contracts in kernels.h. */
#ifndef SLM_KERNELS_NEON_INT8_H
#define SLM_KERNELS_NEON_INT8_H

#include "kernels/kernels.h"

void slm_gemv_int8_neon(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, int64_t n_tokens,
                        const uint8_t *then, float *y, int64_t ldy);
void slm_gemm_int8_neon(const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy);

void slm_gemv_int8_neon_i8mm(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token,
                             int64_t n_tokens, const uint8_t *then, float *y, int64_t ldy);
void slm_gemm_int8_neon_i8mm(const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last, float *y,
                             int64_t ldy);

#endif
