/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/norm.h"

#include <string.h>

#include "ops/kv_page.h"

void slm_norm_run(const slm_kernels *kernels, const slm_norm *norm, const float *x, float *y) {
    switch (norm->kind) {
    case SLM_NORM_RMS: kernels->rms_norm(x, norm->weight, norm->width, norm->eps, y); break;
    case SLM_NORM_LAYER: kernels->layer_norm(x, norm->weight, norm->bias, norm->width, norm->eps, y); break;
    }
}

void slm_norm_heads(const slm_kernels *kernels, const slm_norm *norm, float *x, int64_t first, int64_t n_heads) {
    float head[SLM_MAX_HEAD_DIM];
    int64_t padded = (norm->width + 15) / 16 * 16;
    for (int64_t i = first; i < first + n_heads; i++, x += norm->width) {
        slm_norm own = *norm;
        own.weight += i * norm->head_stride;
        if (own.bias) own.bias += i * norm->head_stride;
        memcpy(head, x, (size_t)norm->width * sizeof *x);
        memset(head + norm->width, 0, (size_t)(padded - norm->width) * sizeof *x);
        slm_norm_run(kernels, &own, head, head);
        memcpy(x, head, (size_t)norm->width * sizeof *x);
    }
}
