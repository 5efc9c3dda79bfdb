/* SPDX-License-Identifier: Apache-2.0
 * norm.h: normalisation of one vector: RMS norm (Zhang and Sennrich 2019) or layer norm (Ba, Kiros and Hinton 2016). */
#ifndef SLM_OPS_NORM_H
#define SLM_OPS_NORM_H

#include "kernels/kernels.h"

typedef struct slm_norm {
    slm_norm_kind kind;
    float eps;
    int64_t width;
    const float *weight; /* [width, padded to 16 with zeros]; NULL: there is no norm */
    const float *bias;   /* the same; NULL: none */
    int64_t head_stride; /* 0: all heads share weight and bias; else floats from those of one head to the next one's */
} slm_norm;

/* y = norm(x); x and y: [width, padded to 16], the padding of x zeros; y may be x. */
void slm_norm_run(const slm_kernels *kernels, const slm_norm *norm, const float *x, float *y);
/* Heads first .. first + n_heads - 1, in x [n_heads, width], where they lie without padding, in place. width <=
 * SLM_MAX_HEAD_DIM. */
void slm_norm_heads(const slm_kernels *kernels, const slm_norm *norm, float *x, int64_t first, int64_t n_heads);

#endif
