/* SPDX-License-Identifier: Apache-2.0
 * blas.c: the only file that knows BLIS. BLIS validates nothing and aborts on what it cannot do, so shapes are checked before; it
 * runs without threads inside slm's own. */
#include "blas.h"

#if defined(SLM_HAVE_BLIS)

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <blis.h>

static char version[32] = "none: packed f32 kernel";
static bool initialised;

/* BLIS chooses by CPU model and takes plain C kernels for models it does not know; its environment variable takes the
 * configuration by number. It is put back, so that child processes see what the user set. */
void slm_blas_init(const char *tier) {
    if (initialised) return;
    const char *name = "BLIS_ARCH_TYPE", *set = getenv(name);
    char *old = set ? strdup(set) : NULL, number[16];
    if (set && !old) return; /* no memory to put it back from: f32 then runs on our own kernel */
    int arch = !strncmp(tier, "avx512", 6) ? BLIS_ARCH_SKX : !strncmp(tier, "avx2", 4) ? BLIS_ARCH_HASWELL : -1;
    if (arch >= 0) {
        snprintf(number, sizeof number, "%d", arch);
        setenv(name, number, 1);
    }
    bli_init();
    bli_arch_query_id();
    if (arch >= 0) {
        if (old) {
            setenv(name, old, 1);
        } else {
            unsetenv(name);
        }
    }
    free(old);
    snprintf(version, sizeof version, "blis %.20s", bli_info_get_version_str());
    initialised = true;
}

bool slm_blas_available(void) {
    return initialised;
}
const char *slm_blas_version(void) {
    return version;
}
const char *slm_blas_arch(void) {
    return initialised ? bli_arch_string(bli_arch_query_id()) : "";
}

void slm_blas_linear(const float *w, int64_t rows, int64_t k, const float *x, int64_t ldx, int64_t n_tokens, float *y,
                     int64_t ldy) {
    rntm_t alone;
    bli_rntm_init(&alone);
    bli_rntm_set_num_threads_only(1, &alone);
    float one = 1, zero = 0;
    if (n_tokens == 1) { /* gemm would pack all of w for it */
        bli_sgemv_ex(BLIS_NO_TRANSPOSE, BLIS_NO_CONJUGATE, rows, k, &one, (float *)(uintptr_t)w, k, 1, (float *)(uintptr_t)x, 1,
                     &zero, y, 1, NULL, &alone);
        return;
    }
    /* y = x w^T with row-major strides: [n_tokens, rows] = [n_tokens, k] [k, rows]. */
    bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_TRANSPOSE, n_tokens, rows, k, &one, (float *)(uintptr_t)x, ldx, 1, (float *)(uintptr_t)w,
                 k, 1, &zero, y, ldy, 1, NULL, &alone);
}

#else

bool slm_blas_available(void) {
    return false;
}
void slm_blas_init(const char *tier) {
    (void)tier;
}
const char *slm_blas_version(void) {
    return "none: packed f32 kernel";
}
const char *slm_blas_arch(void) {
    return "";
}
void slm_blas_linear(const float *w, int64_t rows, int64_t k, const float *x, int64_t ldx, int64_t n_tokens, float *y,
                     int64_t ldy) {
    (void)w, (void)rows, (void)k, (void)x, (void)ldx, (void)n_tokens, (void)y, (void)ldy; /* no matrix has this form then */
}

#endif
