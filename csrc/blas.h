/* SPDX-License-Identifier: Apache-2.0
 * blas.h: f32 matrix products by BLIS, when slm was built with it. */
#ifndef SLM_BLAS_H
#define SLM_BLAS_H

#include <stdbool.h>
#include <stdint.h>

bool slm_blas_available(void);
/* Chooses BLIS's configuration for our tier of this name; later calls do nothing. Before any other use. */
void slm_blas_init(const char *tier);
const char *slm_blas_version(void); /* "blis 0.9.0", or "none: packed f32 kernel" */
const char *slm_blas_arch(void);    /* the configuration that runs: "skx", "haswell", ...; "" without BLIS */

/* y[t * ldy + r] = sum over i of w[r * k + i] * x[t * ldx + i]; w: [rows, k], x: [n_tokens, k]. All shapes positive, ldx >= k,
 * ldy >= rows. Runs on the calling thread alone and never fails. */
void slm_blas_linear(const float *w, int64_t rows, int64_t k, const float *x, int64_t ldx, int64_t n_tokens, float *y,
                     int64_t ldy);

#endif
