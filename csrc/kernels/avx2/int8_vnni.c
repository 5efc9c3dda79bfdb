/* SPDX-License-Identifier: Apache-2.0
 * int8_vnni.c: AVX-VNNI, for CPUs that have it and not AVX-512. vpdpbusd adds 4 products per row to 8 int32 sums and never
 * saturates, so that codes of any bits are multiplied as they are, unsigned; their offset enters as the start value of the sums.
 * A tile takes 11 of the 16 registers: 8 sums, 2 of weights and one of x.
 *
 * No machine with AVX-VNNI was at hand. tests/test_core.py runs what the compiler makes of this file with vpdpbusd encoded as
 * AVX-512 VNNI has it for 256 bits: the same instruction in another encoding, and all others as they are. */
#include "kernels/isa.h"
#if defined(SLM_AVX2_VNNI)
#include "kernels/avx2/int8.h"

#include <immintrin.h>
#include <string.h>

SLM_TARGET_BEGIN(SLM_AVX2_VNNI)

typedef __m256i weights;
typedef __m256i sums;

SLM_INLINE weights prepare(int bits, __m256i codes) {
    (void)bits;
    return codes;
}

SLM_INLINE void begin(sums *sum, __m256i offset) {
    *sum = _mm256_sub_epi32(_mm256_setzero_si256(), offset);
}

SLM_INLINE void add_step(int bits, int s, sums *sum, weights w, __m256i x) {
    (void)bits, (void)s;
    *sum = _mm256_dpbusd_avx_epi32(*sum, w, x);
}

SLM_INLINE void pin(int bits, int s, sums *sum) {
    (void)bits, (void)s;
    __asm__("" : "+x"(*sum));
}

SLM_INLINE __m256 finish(int bits, const sums *sum, __m256i offset) {
    (void)bits, (void)offset;
    return _mm256_cvtepi32_ps(*sum);
}

#include "kernels/avx2/int8.inc"

void slm_gemv_int8_avx2_vnni(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token,
                             int64_t n_tokens, const uint8_t *then, float *y, int64_t ldy) {
    gemv_types(w, first, last, x, token, n_tokens, then, y, ldy);
}

/* The bits of codes make no difference here. */
void slm_gemm_int8_avx2_vnni(const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last, float *y,
                             int64_t ldy) {
    gemm_bits(8, w, n_strips, x, first, last, y, ldy);
}

SLM_TARGET_END
#endif
