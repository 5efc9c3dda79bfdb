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

/* ---- codes and scales of the 16 rows of a panel ------------------------------------------------------------------------ */

/* What a plane of so many bits holds of step s, moved up to bit `to`. */
SLM_INLINE __m512i field(int bits, const uint8_t *plane, int s, int to) {
    int line = s & (bits - 1), up = to - (s - line);
    __m512i codes = _mm512_load_si512(plane + 64 * line);
    if (bits == 8) return codes;
    codes = up > 0 ? _mm512_slli_epi16(codes, (unsigned)up) : _mm512_srli_epi16(codes, (unsigned)-up);
    return _mm512_and_si512(codes, _mm512_set1_epi8((char)(((1 << bits) - 1) << to)));
}

/* The codes of step s, one a byte. */
SLM_INLINE __m512i step_codes(slm_coding c, const uint8_t *group, int s) {
    int low = slm_plane_bits(c.bits), rest = c.bits - low;
    __m512i codes = field(low, group, s, 0);
    if (rest) codes = _mm512_or_si512(codes, field(rest, group + 64 * low, s, low));
    if (c.table) codes = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)c.table)), codes);
    return codes;
}

/* d or m of group g. */
SLM_INLINE __m512 group_scales(slm_coding c, const uint8_t *f16, const uint8_t *s8, int64_t g) {
    int64_t upper = c.two_level ? g / (SLM_SUPERBLOCK / c.group) : g;
    __m512 scales = _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(f16 + 32 * upper)));
    if (!c.two_level) return scales;
    __m512i factors = _mm512_cvtepi8_epi32(_mm_load_si128((const __m128i *)(s8 + 16 * g)));
    return _mm512_mul_ps(scales, _mm512_cvtepi32_ps(factors));
}

/* ---- one column --------------------------------------------------------------------------------------------------------- */

/* One group of x: group h of those in 32 columns from line on, the at-th of all. */
SLM_INLINE __m512 add_group(slm_coding c, int group, int h, const slm_matrix *w, const uint8_t *panel, const uint8_t *line,
                            const slm_codes *x, int64_t at, int64_t own, int64_t first_group, __m512 acc) {
    const int8_t *codes = x->codes + (first_group + at - h) * group;
    __m512i dot = _mm512_set1_epi32(-c.offset * x->sums[first_group + at]);
    for (int s = h * group / 4; s < (h + 1) * group / 4; s++)
        dot = _mm512_dpbusd_epi32(dot, step_codes(c, line, s), broadcast4(codes + 4 * s));
    __m512 d = group_scales(c, panel + w->d_at, panel + w->scales_at, own);
    acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(d, _mm512_set1_ps(x->scales[first_group + at])), acc);
    if (!c.mins) return acc;
    __m512 m = group_scales(c, panel + w->m_at, panel + w->mins_at, own);
    return _mm512_fmadd_ps(m, _mm512_set1_ps(x->scaled_sums[first_group + at]), acc);
}

/* group: of x. */
SLM_INLINE void gemv(slm_coding c, int group, const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token,
                     float *y) {
    int64_t x_first = token * (w->cols / group), ahead_lines = c.bits + (c.mins ? 1 : 0);
    for (int64_t p = first; p < last; p++, y += 16) {
        const uint8_t *panel = slm_matrix_panel(w, p), *line = panel;
        const char *ahead = (const char *)panel + AHEAD;
        __m512 acc = _mm512_setzero_ps();
        for (int64_t g = 0; g < w->cols / SLM_GROUP; g++, line += 64 * c.bits) {
            for (int64_t i = 0; i < ahead_lines; i++) _mm_prefetch(ahead + 64 * i, _MM_HINT_T0);
            ahead += 64 * ahead_lines;
            if (group == 32) {
                acc = add_group(c, 32, 0, w, panel, line, x, g, g, x_first, acc);
            } else {
                acc = add_group(c, 16, 0, w, panel, line, x, 2 * g, c.group == 16 ? 2 * g : g, x_first, acc);
                acc = add_group(c, 16, 1, w, panel, line, x, 2 * g + 1, c.group == 16 ? 2 * g + 1 : g, x_first, acc);
            }
        }
        _mm512_storeu_ps(y, acc);
    }
}

/* One instance per type and group of x. */
#define CASE(TYPE, NAME, BLOCK, BYTES, ...)                                                                                      \
    case SLM_TYPE_##TYPE: {                                                                                                      \
        const slm_coding c = {__VA_ARGS__};                                                                                      \
        if (x->group == 16) gemv(c, 16, w, first, last, x, token, y);                                                            \
        if (x->group == 32 && c.group == 32) gemv(c, 32, w, first, last, x, token, y);                                           \
        break;                                                                                                                   \
    }

void slm_gemv_int8_avx512(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, float *y) {
    switch (w->type) {
        SLM_BLOCK_TYPES(CASE)
    default: break;
    }
}

/* ---- many columns -------------------------------------------------------------------------------------------------------- */

/* 16 rows x T tokens: T int32 and T f32 accumulators stay in registers. */
SLM_INLINE void tile(int T, bool mins, int group, const slm_strip *w, const slm_codes *x, int64_t token, float *y, int64_t ldy) {
    int64_t n_groups = w->k / group;
    const int8_t *codes = x->codes + token * x->k;
    const int32_t *sums = x->sums + token * n_groups;
    const float *scales = x->scales + token * n_groups, *scaled_sums = x->scaled_sums + token * n_groups;
    __m512 acc[12];
    for (int t = 0; t < T; t++) acc[t] = _mm512_setzero_ps();
    for (int64_t g = 0; g < n_groups; g++) {
        __m512i dot[12];
        for (int t = 0; t < T; t++) dot[t] = _mm512_set1_epi32(-w->offset * sums[t * n_groups + g]);
        for (int s = 0; s < group / 4; s++) {
            __m512i step = _mm512_load_si512(w->codes + (g * group / 4 + s) * 64);
            for (int t = 0; t < T; t++)
                dot[t] = _mm512_dpbusd_epi32(dot[t], step, broadcast4(codes + t * x->k + g * group + 4 * s));
        }
        __m512 d = _mm512_loadu_ps(w->d + g * 16);
        for (int t = 0; t < T; t++) {
            acc[t] =
                _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t]), _mm512_mul_ps(d, _mm512_set1_ps(scales[t * n_groups + g])), acc[t]);
        }
        if (mins) {
            __m512 m = _mm512_loadu_ps(w->m + g * 16);
            for (int t = 0; t < T; t++) acc[t] = _mm512_fmadd_ps(m, _mm512_set1_ps(scaled_sums[t * n_groups + g]), acc[t]);
        }
    }
    for (int t = 0; t < T; t++) _mm512_storeu_ps(y + t * ldy, acc[t]);
}

SLM_INLINE void gemm(bool mins, int group, const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y,
                     int64_t ldy) {
    int64_t t = first;
    for (; t + 12 <= last; t += 12) tile(12, mins, group, w, x, t, y + (t - first) * ldy, ldy);
    for (; t + 4 <= last; t += 4) tile(4, mins, group, w, x, t, y + (t - first) * ldy, ldy);
    for (; t < last; t++) tile(1, mins, group, w, x, t, y + (t - first) * ldy, ldy);
}

void slm_gemm_int8_avx512(const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy) {
    if (w->group == 32) {
        if (w->m) gemm(true, 32, w, x, first, last, y, ldy);
        if (!w->m) gemm(false, 32, w, x, first, last, y, ldy);
    } else {
        if (w->m) gemm(true, 16, w, x, first, last, y, ldy);
        if (!w->m) gemm(false, 16, w, x, first, last, y, ldy);
    }
}

SLM_TARGET_END
#endif
