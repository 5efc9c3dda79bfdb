/* SPDX-License-Identifier: Apache-2.0
 * int8.c: AVX2. vpmaddubsw sums two products into an int16, which holds 8 steps of 4-bit codes (15 * 127 * 2 * 8 = 30,480); 8-bit
 * codes are taken as two nibbles for that reason, 16 * high + low. Exact, like every tier. */
#if defined(__x86_64__)
#include "kernels/avx2/int8.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/isa.h"

SLM_TARGET_BEGIN(SLM_AVX2)

SLM_INLINE __m256i broadcast4(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

typedef struct half_panel { /* 8 rows */
    __m256i low, high;      /* int16 sums of the low and the high nibbles' products, two a row */
} half_panel;

/* codes: the 32 bytes of 8 rows in one step, one code a byte. */
SLM_INLINE void add_step(bool u4, half_panel *sums, __m256i codes, __m256i x) {
    __m256i mask = _mm256_set1_epi8(15);
    if (u4) {
        sums->low = _mm256_add_epi16(sums->low, _mm256_maddubs_epi16(codes, x));
    } else {
        sums->low = _mm256_add_epi16(sums->low, _mm256_maddubs_epi16(_mm256_and_si256(codes, mask), x));
        __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
        sums->high = _mm256_add_epi16(sums->high, _mm256_maddubs_epi16(high, x));
    }
}

SLM_INLINE __m256 finish(bool u4, const half_panel *sums, int32_t start) {
    __m256i ones = _mm256_set1_epi16(1);
    __m256i dot = _mm256_add_epi32(_mm256_set1_epi32(start), _mm256_madd_epi16(sums->low, ones));
    if (!u4) dot = _mm256_add_epi32(dot, _mm256_slli_epi32(_mm256_madd_epi16(sums->high, ones), 4));
    return _mm256_cvtepi32_ps(dot);
}

/* 16 rows x T tokens. packed: codes are nibbles as in a U4 panel; scales come as f16 from d16 and m16, else as f32 from d and m.
 */
SLM_INLINE void tile(int T, bool u4, bool packed, bool mins, int halves, int64_t groups, int offset, const uint8_t *codes,
                     const uint8_t *d16, const uint8_t *m16, const float *d, const float *m, const slm_codes *x, int64_t token,
                     float *y, int64_t ldy) {
    int64_t n_groups = groups * halves;
    const int8_t *x_codes = x->codes + token * x->k;
    const int32_t *sums = x->sums + token * n_groups;
    const float *scales = x->scales + token * n_groups, *scaled_sums = x->scaled_sums + token * n_groups;
    __m256i mask = _mm256_set1_epi8(15);
    __m256 acc[3][2];
    for (int t = 0; t < T; t++) acc[t][0] = acc[t][1] = _mm256_setzero_ps();
    for (int64_t g = 0; g < groups; g++) {
        const uint8_t *group = codes + g * (packed ? 256 : 512);
        for (int h = 0; h < halves; h++) {
            half_panel dot[3][2];
            for (int t = 0; t < T; t++) {
                for (int i = 0; i < 2; i++) dot[t][i] = (half_panel){_mm256_setzero_si256(), _mm256_setzero_si256()};
            }
            for (int s = h * 4; s < (halves == 2 ? h * 4 + 4 : 8); s++) {
                for (int i = 0; i < 2; i++) {
                    __m256i w;
                    if (!packed) {
                        w = _mm256_load_si256((const __m256i *)(group + s * 64 + i * 32));
                    } else if (s < 4) {
                        w = _mm256_and_si256(_mm256_load_si256((const __m256i *)(group + s * 64 + i * 32)), mask);
                    } else {
                        w = _mm256_load_si256((const __m256i *)(group + (s - 4) * 64 + i * 32));
                        w = _mm256_and_si256(_mm256_srli_epi16(w, 4), mask);
                    }
                    for (int t = 0; t < T; t++) add_step(u4, &dot[t][i], w, broadcast4(x_codes + t * x->k + g * 32 + 4 * s));
                }
            }
            for (int i = 0; i < 2; i++) {
                int64_t row = g * 16 + i * 8;
                __m256 scale, min = _mm256_setzero_ps();
                if (d16) {
                    scale = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(d16 + 2 * row)));
                    if (mins) min = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(m16 + 2 * row)));
                } else {
                    scale = _mm256_loadu_ps(d + row);
                    if (mins) min = _mm256_loadu_ps(m + row);
                }
                for (int t = 0; t < T; t++) {
                    int64_t j = t * n_groups + g * halves + h;
                    __m256 product = finish(u4, &dot[t][i], -offset * sums[j]);
                    acc[t][i] = _mm256_fmadd_ps(product, _mm256_mul_ps(scale, _mm256_set1_ps(scales[j])), acc[t][i]);
                    if (mins) acc[t][i] = _mm256_fmadd_ps(min, _mm256_set1_ps(scaled_sums[j]), acc[t][i]);
                }
            }
        }
    }
    for (int t = 0; t < T; t++) {
        _mm256_storeu_ps(y + t * ldy, acc[t][0]);
        _mm256_storeu_ps(y + t * ldy + 8, acc[t][1]);
    }
}

SLM_INLINE void gemv(bool u4, bool mins, int halves, const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x,
                     int64_t token, float *y) {
    for (int64_t p = first; p < last; p++, y += 16) {
        const uint8_t *panel = slm_matrix_panel(w, p);
        tile(1, u4, u4, mins, halves, w->groups, w->offset, panel, panel + w->d_at, panel + w->m_at, NULL, NULL, x, token, y, 0);
    }
}

void slm_gemv_int8_avx2(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, float *y) {
    bool u4 = w->form == SLM_FORM_U4, mins = w->has_min;
    if (x->group == 32) {
        if (u4 && mins) gemv(true, true, 1, w, first, last, x, token, y);
        if (u4 && !mins) gemv(true, false, 1, w, first, last, x, token, y);
        if (!u4 && mins) gemv(false, true, 1, w, first, last, x, token, y);
        if (!u4 && !mins) gemv(false, false, 1, w, first, last, x, token, y);
    } else {
        if (u4 && mins) gemv(true, true, 2, w, first, last, x, token, y);
        if (u4 && !mins) gemv(true, false, 2, w, first, last, x, token, y);
        if (!u4 && mins) gemv(false, true, 2, w, first, last, x, token, y);
        if (!u4 && !mins) gemv(false, false, 2, w, first, last, x, token, y);
    }
}

SLM_INLINE void gemm(bool u4, bool mins, int halves, const slm_strip *w, const slm_codes *x, int64_t first, int64_t last,
                     float *y, int64_t ldy) {
    int64_t t = first;
    for (; t + 3 <= last; t += 3) {
        tile(3, u4, false, mins, halves, w->groups, w->offset, w->codes, NULL, NULL, w->d, w->m, x, t, y + (t - first) * ldy,
             ldy);
    }
    for (; t < last; t++) {
        tile(1, u4, false, mins, halves, w->groups, w->offset, w->codes, NULL, NULL, w->d, w->m, x, t, y + (t - first) * ldy,
             ldy);
    }
}

void slm_gemm_int8_avx2(const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy) {
    bool u4 = w->code_bits == 4, mins = w->m;
    if (x->group == 32) {
        if (u4 && mins) gemm(true, true, 1, w, x, first, last, y, ldy);
        if (u4 && !mins) gemm(true, false, 1, w, x, first, last, y, ldy);
        if (!u4 && mins) gemm(false, true, 1, w, x, first, last, y, ldy);
        if (!u4 && !mins) gemm(false, false, 1, w, x, first, last, y, ldy);
    } else {
        if (u4 && mins) gemm(true, true, 2, w, x, first, last, y, ldy);
        if (u4 && !mins) gemm(true, false, 2, w, x, first, last, y, ldy);
        if (!u4 && mins) gemm(false, true, 2, w, x, first, last, y, ldy);
        if (!u4 && !mins) gemm(false, false, 2, w, x, first, last, y, ldy);
    }
}

SLM_TARGET_END
#endif
