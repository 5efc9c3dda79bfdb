/* SPDX-License-Identifier: Apache-2.0
 * int8.c: AVX2. vpmaddubsw sums two products into an int16, which holds 8 steps of 4-bit codes (15 * 127 * 2 * 8 = 30,480), 4 of
 * 5-bit and 2 of 6-bit ones before it is widened; 8-bit codes are taken as two nibbles, 16 * high + low. Exact, like every tier.
 */
#if defined(__x86_64__)
#include "kernels/avx2/int8.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/isa.h"

SLM_TARGET_BEGIN(SLM_AVX2)

/* How far ahead of the panel's stream to prefetch, in bytes. */
enum { AHEAD = 8192 };

SLM_INLINE __m256i broadcast4(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}

/* ---- codes and scales of 8 rows of a panel ------------------------------------------------------------------------------- */

/* What a plane of so many bits holds of step s, moved up to bit `to`. */
SLM_INLINE __m256i field(int bits, const uint8_t *plane, int s, int to) {
    int line = s & (bits - 1), up = to - (s - line);
    __m256i codes = _mm256_load_si256((const __m256i *)(plane + 64 * line));
    if (bits == 8) return codes;
    codes = up > 0 ? _mm256_slli_epi16(codes, up) : _mm256_srli_epi16(codes, -up);
    return _mm256_and_si256(codes, _mm256_set1_epi8((char)(((1 << bits) - 1) << to)));
}

/* The codes of step s, one a byte. */
SLM_INLINE __m256i step_codes(slm_coding c, const uint8_t *group, int s) {
    int low = slm_plane_bits(c.bits), rest = c.bits - low;
    __m256i codes = field(low, group, s, 0);
    if (rest) codes = _mm256_or_si256(codes, field(rest, group + 64 * low, s, low));
    if (c.table) codes = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)c.table)), codes);
    return codes;
}

/* d or m of group g. */
SLM_INLINE __m256 group_scales(slm_coding c, const uint8_t *f16, const uint8_t *s8, int64_t g) {
    int64_t upper = c.two_level ? g / (SLM_SUPERBLOCK / c.group) : g;
    __m256 scales = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(f16 + 32 * upper)));
    if (!c.two_level) return scales;
    __m256i factors = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(s8 + 16 * g)));
    return _mm256_mul_ps(scales, _mm256_cvtepi32_ps(factors));
}

/* ---- dot products of 8 rows ------------------------------------------------------------------------------------------------ */

typedef struct sums {
    __m256i narrow; /* int16, two a row: of codes, or of the low nibbles of 8-bit ones */
    __m256i other;  /* 8 bits: the same of the high nibbles; 5 and 6: int32, what has been widened */
} sums;

/* Step s of a group whose codes have so many bits: 4, 5, 6 or 8. */
SLM_INLINE void add_step(int bits, int s, sums *sum, __m256i codes, __m256i x) {
    __m256i mask = _mm256_set1_epi8(15);
    if (bits == 8) {
        sum->narrow = _mm256_add_epi16(sum->narrow, _mm256_maddubs_epi16(_mm256_and_si256(codes, mask), x));
        __m256i high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
        sum->other = _mm256_add_epi16(sum->other, _mm256_maddubs_epi16(high, x));
        return;
    }
    sum->narrow = _mm256_add_epi16(sum->narrow, _mm256_maddubs_epi16(codes, x));
    if (bits > 4 && (s + 1) % (bits == 5 ? 4 : 2) == 0) {
        sum->other = _mm256_add_epi32(sum->other, _mm256_madd_epi16(sum->narrow, _mm256_set1_epi16(1)));
        sum->narrow = _mm256_setzero_si256();
    }
}

SLM_INLINE __m256 finish(int bits, const sums *sum, int32_t start) {
    __m256i ones = _mm256_set1_epi16(1), dot = _mm256_set1_epi32(start);
    if (bits == 5 || bits == 6) return _mm256_cvtepi32_ps(_mm256_add_epi32(dot, sum->other));
    dot = _mm256_add_epi32(dot, _mm256_madd_epi16(sum->narrow, ones));
    if (bits == 8) dot = _mm256_add_epi32(dot, _mm256_slli_epi32(_mm256_madd_epi16(sum->other, ones), 4));
    return _mm256_cvtepi32_ps(dot);
}

/* The bits that add_step is told for codes of a type. */
SLM_INLINE int dot_bits(slm_coding c) {
    return c.table ? 8 : c.bits < 4 ? 4 : c.bits;
}

/* ---- one column -------------------------------------------------------------------------------------------------------------
 */

/* One group of x: group h of those in 32 columns from line on, the at-th of all. */
SLM_INLINE void add_group(slm_coding c, int group, int h, const slm_matrix *w, const uint8_t *panel, const uint8_t *line,
                          const slm_codes *x, int64_t at, int64_t own, int64_t first_group, __m256 acc[2]) {
    const int8_t *codes = x->codes + (first_group + at - h) * group;
    __m256 scale = _mm256_set1_ps(x->scales[first_group + at]), scaled_sum = _mm256_set1_ps(x->scaled_sums[first_group + at]);
    for (int i = 0; i < 2; i++) {
        sums sum = {_mm256_setzero_si256(), _mm256_setzero_si256()};
        for (int s = h * group / 4; s < (h + 1) * group / 4; s++)
            add_step(dot_bits(c), s, &sum, step_codes(c, line + 32 * i, s), broadcast4(codes + 4 * s));
        __m256 dot = finish(dot_bits(c), &sum, -c.offset * x->sums[first_group + at]);
        __m256 d = group_scales(c, panel + w->d_at + 16 * i, panel + w->scales_at + 8 * i, own);
        acc[i] = _mm256_fmadd_ps(dot, _mm256_mul_ps(d, scale), acc[i]);
        if (!c.mins) continue;
        __m256 m = group_scales(c, panel + w->m_at + 16 * i, panel + w->mins_at + 8 * i, own);
        acc[i] = _mm256_fmadd_ps(m, scaled_sum, acc[i]);
    }
}

/* group: of x. */
SLM_INLINE void gemv(slm_coding c, int group, const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token,
                     float *y) {
    int64_t x_first = token * (w->cols / group), ahead_lines = c.bits + (c.mins ? 1 : 0);
    for (int64_t p = first; p < last; p++, y += 16) {
        const uint8_t *panel = slm_matrix_panel(w, p), *line = panel;
        const char *ahead = (const char *)panel + AHEAD;
        __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        for (int64_t g = 0; g < w->cols / SLM_GROUP; g++, line += 64 * c.bits) {
            for (int64_t i = 0; i < ahead_lines; i++) _mm_prefetch(ahead + 64 * i, _MM_HINT_T0);
            ahead += 64 * ahead_lines;
            if (group == 32) {
                add_group(c, 32, 0, w, panel, line, x, g, g, x_first, acc);
            } else {
                add_group(c, 16, 0, w, panel, line, x, 2 * g, c.group == 16 ? 2 * g : g, x_first, acc);
                add_group(c, 16, 1, w, panel, line, x, 2 * g + 1, c.group == 16 ? 2 * g + 1 : g, x_first, acc);
            }
        }
        _mm256_storeu_ps(y, acc[0]);
        _mm256_storeu_ps(y + 8, acc[1]);
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

void slm_gemv_int8_avx2(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, float *y) {
    switch (w->type) {
        SLM_BLOCK_TYPES(CASE)
    default: break;
    }
}

/* ---- many columns -----------------------------------------------------------------------------------------------------------
 */

enum { TILE_TOKENS = 4 };

/* Holds a sum in its register: gcc would add the products of a group in another order, for which there are too few. */
SLM_INLINE void pin(__m256i *sum) {
    __asm__("" : "+x"(*sum));
}

/* 16 rows x T tokens. */
SLM_INLINE void tile(int T, int bits, bool mins, int group, const slm_strip *w, const slm_codes *x, int64_t token, float *y,
                     int64_t ldy) {
    int64_t n_groups = w->k / group, k = x->k;
    int halves = bits == 8 ? 1 : 2; /* at a time, of the rows: 8 bits need two sums for each row and token */
    const int8_t *codes = x->codes + token * k;
    const uint8_t *w_codes = w->codes;
    const int32_t *x_sums = x->sums + token * n_groups;
    const float *scales = x->scales + token * n_groups, *scaled_sums = x->scaled_sums + token * n_groups;
    __m256 acc[TILE_TOKENS][2];
    for (int t = 0; t < T; t++) acc[t][0] = acc[t][1] = _mm256_setzero_ps();
    for (int64_t g = 0; g < n_groups; g++, codes += group, w_codes += group * 16) {
        for (int half = 0; half < 2; half += halves) {
            sums sum[TILE_TOKENS][2];
#pragma GCC unroll 8
            for (int s = 0; s < group / 4; s++) {
                __m256i step[2];
                for (int i = 0; i < halves; i++)
                    step[i] = _mm256_load_si256((const __m256i *)(w_codes + 64 * s + 32 * (half + i)));
#pragma GCC unroll 4
                for (int t = 0; t < T; t++) {
                    __m256i four = broadcast4(codes + t * k + 4 * s);
                    for (int i = 0; i < halves; i++) {
                        if (s == 0) sum[t][i] = (sums){_mm256_setzero_si256(), _mm256_setzero_si256()};
                        add_step(bits, s, &sum[t][i], step[i], four);
                        pin(&sum[t][i].narrow);
                        if (bits == 8) pin(&sum[t][i].other);
                    }
                }
            }
            for (int t = 0; t < T; t++) {
                int64_t at = t * n_groups + g;
                __m256 scale = _mm256_set1_ps(scales[at]), scaled_sum = _mm256_set1_ps(scaled_sums[at]);
                for (int i = 0; i < halves; i++) {
                    int64_t row = g * 16 + (half + i) * 8;
                    __m256 *y_rows = &acc[t][half + i], dot = finish(bits, &sum[t][i], -w->offset * x_sums[at]);
                    *y_rows = _mm256_fmadd_ps(dot, _mm256_mul_ps(_mm256_loadu_ps(w->d + row), scale), *y_rows);
                    if (mins) *y_rows = _mm256_fmadd_ps(_mm256_loadu_ps(w->m + row), scaled_sum, *y_rows);
                }
            }
        }
    }
    for (int t = 0; t < T; t++) {
        _mm256_storeu_ps(y + t * ldy, acc[t][0]);
        _mm256_storeu_ps(y + t * ldy + 8, acc[t][1]);
    }
}

SLM_INLINE void gemm_tiles(int bits, bool mins, int group, const slm_strip *w, const slm_codes *x, int64_t first, int64_t last,
                           float *y, int64_t ldy) {
    int64_t t = first;
    for (; t + TILE_TOKENS <= last; t += TILE_TOKENS, y += TILE_TOKENS * ldy)
        tile(TILE_TOKENS, bits, mins, group, w, x, t, y, ldy);
    for (; t + 2 <= last; t += 2, y += 2 * ldy) tile(2, bits, mins, group, w, x, t, y, ldy);
    if (t < last) tile(1, bits, mins, group, w, x, t, y, ldy);
}

SLM_INLINE void gemm(int bits, const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy) {
    if (w->group == 32) {
        if (w->m) gemm_tiles(bits, true, 32, w, x, first, last, y, ldy);
        if (!w->m) gemm_tiles(bits, false, 32, w, x, first, last, y, ldy);
    } else {
        if (w->m) gemm_tiles(bits, true, 16, w, x, first, last, y, ldy);
        if (!w->m) gemm_tiles(bits, false, 16, w, x, first, last, y, ldy);
    }
}

void slm_gemm_int8_avx2(const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy) {
    switch (w->code_bits) {
    case 4: gemm(4, w, x, first, last, y, ldy); break;
    case 5: gemm(5, w, x, first, last, y, ldy); break;
    case 6: gemm(6, w, x, first, last, y, ldy); break;
    case 8: gemm(8, w, x, first, last, y, ldy); break;
    }
}

SLM_TARGET_END
#endif
