/* SPDX-License-Identifier: Apache-2.0
 * int8.c: AVX2. vpmaddubsw sums two products into an int16, which holds 8 steps of 4-bit codes (15 * 127 * 2 * 8 = 30,480), 4 of
 * 5-bit and 2 of 6-bit ones before it is widened. 8-bit codes less 128 give their sign to x and their size, at most 128, to the
 * product: 128 * 127 * 2 = 32,512 is widened at once. Exact, like every tier. */
#if defined(__x86_64__)
#include "kernels/avx2/int8.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/isa.h"

SLM_TARGET_BEGIN(SLM_AVX2)

typedef struct weights {
    __m256i size;  /* unsigned */
    __m256i signs; /* 8 bits: codes less 128 */
} weights;

typedef struct sums {
    __m256i narrow; /* int16, two a row */
    __m256i wide;   /* int32: what has been widened; not of 4 bits */
} sums;

SLM_INLINE weights prepare(int bits, __m256i codes) {
    if (bits < 8) return (weights){codes, codes};
    __m256i less = _mm256_xor_si256(codes, _mm256_set1_epi8(-128));
    return (weights){_mm256_abs_epi8(less), less};
}

/* How many steps an int16 holds. */
SLM_INLINE int steps_held(int bits) {
    return bits == 8 ? 1 : bits == 6 ? 2 : bits == 5 ? 4 : 8;
}

/* add_step begins both, each in its step. */
SLM_INLINE void begin(sums *sum, __m256i offset) {
    (void)sum, (void)offset;
}

SLM_INLINE void add_step(int bits, int s, sums *sum, weights w, __m256i x) {
    int room = steps_held(bits);
    if (bits == 8) x = _mm256_sign_epi8(x, w.signs);
    __m256i products = _mm256_maddubs_epi16(w.size, x);
    sum->narrow = s % room ? _mm256_add_epi16(sum->narrow, products) : products;
    if (bits == 4 || (s + 1) % room) return;
    products = _mm256_madd_epi16(sum->narrow, _mm256_set1_epi16(1));
    sum->wide = s >= room ? _mm256_add_epi32(sum->wide, products) : products;
}

SLM_INLINE void pin(int bits, int s, sums *sum) {
    if (bits == 4 || (s + 1) % steps_held(bits)) {
        __asm__("" : "+x"(sum->narrow));
    } else {
        __asm__("" : "+x"(sum->wide));
    }
}

/* 8-bit codes have had their offset of 128. */
SLM_INLINE __m256 finish(int bits, const sums *sum, __m256i offset) {
    __m256i dot = bits == 4 ? _mm256_madd_epi16(sum->narrow, _mm256_set1_epi16(1)) : sum->wide;
    return _mm256_cvtepi32_ps(bits == 8 ? dot : _mm256_sub_epi32(dot, offset));
}

#include "kernels/avx2/int8.inc"

void slm_gemv_int8_avx2(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, int64_t n_tokens,
                        const uint8_t *then, float *y, int64_t ldy) {
    gemv_types(w, first, last, x, token, n_tokens, then, y, ldy);
}

void slm_gemm_int8_avx2(const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last, float *y,
                        int64_t ldy) {
    switch (w->code_bits) {
    case 4: gemm_bits(4, w, n_strips, x, first, last, y, ldy); break;
    case 5: gemm_bits(5, w, n_strips, x, first, last, y, ldy); break;
    case 6: gemm_bits(6, w, n_strips, x, first, last, y, ldy); break;
    case 8: gemm_bits(8, w, n_strips, x, first, last, y, ldy); break;
    }
}

SLM_TARGET_END
#endif
