/* SPDX-License-Identifier: Apache-2.0
 * int8.c: AVX-512 VNNI. One register holds 16 rows x 4 codes; vpdpbusd adds 4 products per row to 16 int32 sums, so 8 of them are
 * a group of 32. Weights are the unsigned side; their offset enters as the start value of the sums. */
#if defined(__x86_64__)
#include "kernels/avx512/int8.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/isa.h"

SLM_TARGET_BEGIN(SLM_AVX512)

/* How far ahead of the panel's stream to prefetch, in bytes. */
enum { AHEAD = 4096 };

SLM_INLINE __m512i broadcast4(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
}

/* acc + dot(steps s0 .. s1 of one group). u4: low holds steps 0..3, high steps 4..7. */
SLM_INLINE __m512i dot_steps(bool u4, const uint8_t *group, const int8_t *x, int s0, int s1, __m512i acc) {
    __m512i mask = _mm512_set1_epi8(15);
    for (int s = s0; s < s1; s++) {
        __m512i w;
        if (!u4) {
            w = _mm512_load_si512(group + 64 * s);
        } else if (s < 4) {
            w = _mm512_and_si512(_mm512_load_si512(group + 64 * s), mask);
        } else {
            w = _mm512_and_si512(_mm512_srli_epi16(_mm512_load_si512(group + 64 * (s - 4)), 4), mask);
        }
        acc = _mm512_dpbusd_epi32(acc, w, broadcast4(x + 4 * s));
    }
    return acc;
}

SLM_INLINE void gemv(bool u4, bool mins, int halves, const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x,
                     int64_t token, float *y) {
    int64_t n_groups = w->groups * halves;
    const int8_t *codes = x->codes + token * x->k;
    const int32_t *sums = x->sums + token * n_groups;
    const float *scales = x->scales + token * n_groups, *scaled_sums = x->scaled_sums + token * n_groups;
    int64_t code_bytes = u4 ? 256 : 512, ahead_lines = code_bytes / 64 + (mins ? 1 : 0);
    for (int64_t p = first; p < last; p++, y += 16) {
        const uint8_t *panel = slm_matrix_panel(w, p), *group = panel;
        const uint8_t *d = panel + w->d_at, *m = panel + w->m_at;
        const char *ahead = (const char *)panel + AHEAD;
        __m512 acc = _mm512_setzero_ps();
        for (int64_t g = 0; g < w->groups; g++, group += code_bytes) {
            for (int64_t i = 0; i < ahead_lines; i++) _mm_prefetch(ahead + 64 * i, _MM_HINT_T0);
            ahead += 64 * ahead_lines;
            __m512 scale = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(d + g * 32)));
            __m512 min = mins ? _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(m + g * 32))) : _mm512_setzero_ps();
            for (int h = 0; h < halves; h++) {
                int64_t i = g * halves + h;
                __m512i dot = _mm512_set1_epi32(-w->offset * sums[i]);
                dot = dot_steps(u4, group, codes + g * 32, h * 4, halves == 2 ? h * 4 + 4 : 8, dot);
                acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scale, _mm512_set1_ps(scales[i])), acc);
                if (mins) acc = _mm512_fmadd_ps(min, _mm512_set1_ps(scaled_sums[i]), acc);
            }
        }
        _mm512_storeu_ps(y, acc);
    }
}

void slm_gemv_int8_avx512(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, float *y) {
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

/* 16 rows x T tokens: T int32 and T f32 accumulators stay in registers. */
SLM_INLINE void tile(int T, bool mins, int halves, const slm_strip *w, const slm_codes *x, int64_t token, float *y, int64_t ldy) {
    int64_t n_groups = w->groups * halves;
    const int8_t *codes = x->codes + token * x->k;
    const int32_t *sums = x->sums + token * n_groups;
    const float *scales = x->scales + token * n_groups, *scaled_sums = x->scaled_sums + token * n_groups;
    __m512 acc[12];
    for (int t = 0; t < T; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t g = 0; g < w->groups; g++) {
        for (int h = 0; h < halves; h++) {
            int64_t i = g * halves + h;
            __m512i dot[12];
            for (int t = 0; t < T; t++) dot[t] = _mm512_set1_epi32(-w->offset * sums[t * n_groups + i]);
            for (int s = h * 4; s < (halves == 2 ? h * 4 + 4 : 8); s++) {
                __m512i step = _mm512_load_si512(w->codes + g * 512 + s * 64);
                for (int t = 0; t < T; t++)
                    dot[t] = _mm512_dpbusd_epi32(dot[t], step, broadcast4(codes + t * x->k + g * 32 + 4 * s));
            }
            __m512 d = _mm512_loadu_ps(w->d + g * 16);
            for (int t = 0; t < T; t++) {
                acc[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t]), _mm512_mul_ps(d, _mm512_set1_ps(scales[t * n_groups + i])),
                                         acc[t]);
            }
            if (mins) {
                __m512 m = _mm512_loadu_ps(w->m + g * 16);
                for (int t = 0; t < T; t++) acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(scaled_sums[t * n_groups + i]), acc[t]);
            }
        }
    }
    for (int t = 0; t < T; t++) _mm512_storeu_ps(y + t * ldy, acc[t]);
}

SLM_INLINE void gemm(bool mins, int halves, const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y,
                     int64_t ldy) {
    int64_t t = first;
    for (; t + 12 <= last; t += 12) tile(12, mins, halves, w, x, t, y + (t - first) * ldy, ldy);
    for (; t + 4 <= last; t += 4) tile(4, mins, halves, w, x, t, y + (t - first) * ldy, ldy);
    for (; t < last; t++) tile(1, mins, halves, w, x, t, y + (t - first) * ldy, ldy);
}

void slm_gemm_int8_avx512(const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy) {
    if (x->group == 32) {
        if (w->m) gemm(true, 1, w, x, first, last, y, ldy);
        if (!w->m) gemm(false, 1, w, x, first, last, y, ldy);
    } else {
        if (w->m) gemm(true, 2, w, x, first, last, y, ldy);
        if (!w->m) gemm(false, 2, w, x, first, last, y, ldy);
    }
}

SLM_TARGET_END
#endif
