/* SPDX-License-Identifier: Apache-2.0
 * bf16.h: products of bf16, as kernels.h says. */
#ifndef SLM_KERNELS_AVX512_BF16_H
#define SLM_KERNELS_AVX512_BF16_H

#include "kernels/kernels.h"

void slm_avx512_bf16_round_bf16(const float *x, int64_t n, float *rounded);
void slm_avx512_bf16_linear_bf16(const slm_matrix *w, int64_t first, int64_t last, const float *x, int64_t ldx, int64_t n_tokens,
                                 float *y, int64_t ldy);
void slm_avx512_bf16_attention_scores(const float *q, int64_t ldq, int64_t rows, const void *k, slm_kv_type type,
                                      int64_t head_dim, int64_t n_panels, float *scores, int64_t ld);
void slm_avx512_bf16_attention_values(const float *p, int64_t ldp, int64_t rows, const void *v, slm_kv_type type, int64_t n,
                                      int64_t width, float *out, int64_t ldo);

#endif
