/* SPDX-License-Identifier: Apache-2.0
 * int8.c: AVX-512 VNNI. One register holds 16 rows x 4 codes; vpdpbusd adds 4 products per row to 16 int32 sums, so 8 of them are
 * a group of 32. Weights are the unsigned side; their offset enters as the start value of the sums. */
#if defined(__x86_64__)
#include "kernels/avx512/int8.h"

#include <immintrin.h>
#include <string.h>

#include "kernels/isa.h"

SLM_TARGET_BEGIN(SLM_AVX512)
#include "kernels/avx512/lanes.h"

/* How far ahead of the panels' stream to prefetch, in bytes. */
enum { AHEAD = 8192 };

/* ---- codes of the 16 rows of a panel ----------------------------------------------------------------------------------- */

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

/* ---- tiles ---------------------------------------------------------------------------------------------------------------- */

enum { MOST = 12 }; /* panels x tokens of a tile: as many int32 sums and f32 ones stay in registers */

/* Where group g of x finds its weights: a panel's own coding, or a strip with a byte a code and f32 scales. */
typedef struct source {
    bool strip, screened;
    slm_coding coding;                                   /* strip: only the mins and the offset count */
    const uint8_t *codes, *low, *d, *m, *factors, *tops; /* low: screened */
} source;

SLM_INLINE __m512i source_codes(const source *w, int group, int64_t g, int s) {
    if (w->strip) return _mm512_load_si512(w->codes + (g * group / 4 + s) * 64);
    int64_t of_32 = g * group / SLM_GROUP;
    if (w->screened) return _mm512_or_si512(field(4, w->low + of_32 * 256, s, 0), field(4, w->codes + of_32 * 256, s, 4));
    return step_codes(w->coding, w->codes + of_32 * 64 * w->coding.bits, s);
}

/* d or m of group g of x. */
SLM_INLINE lanes source_scales(const source *w, int group, bool min, int64_t g) {
    slm_coding c = w->coding;
    const uint8_t *base = min ? w->m : w->d;
    if (w->strip) return lanes_load((const float *)(const void *)base + 16 * g);
    int64_t own = g * group / c.group, upper = c.factor_bits ? own / (SLM_SUPERBLOCK / c.group) : own;
    lanes scales = lanes_load_f16(base + 32 * upper);
    if (!c.factor_bits) return scales;
    lanes factors = lanes_from_i8(slm_eight_factors(c, w->factors, w->tops, own, min, 0),
                                  slm_eight_factors(c, w->factors, w->tops, own, min, 1));
    return lanes_mul(scales, factors);
}

/* P panels x T tokens; h: which half of 32 columns group g of x is, when there are two. What is the same for all panels: w[0]. */
SLM_INLINE void add_group(int P, int T, const source *w, int group, int h, int64_t g, const slm_codes *x, int64_t token,
                          __m512 *acc) {
    int64_t n_groups = x->k / group, at = token * n_groups + g;
    const int8_t *codes = x->codes + token * x->k + g * group;
    const int32_t *sums = x->sums + at;
    const float *scales = x->scales + at, *scaled_sums = x->scaled_sums + at;
    SLM_HIDE(sums);
    SLM_HIDE(scales);
    SLM_HIDE(scaled_sums);
    SLM_HIDE(n_groups);
    __m512i dot[MOST];
    for (int t = 0; t < T; t++) {
        __m512i start = _mm512_set1_epi32(-w->coding.offset * sums[t * n_groups]);
        for (int p = 0; p < P; p++) dot[t * P + p] = start;
    }
#pragma GCC unroll 8 /* GCC would keep the loop, and copy the sums around in it */
    for (int s = 0; s < group / 4; s++) {
        __m512i step[SLM_STRIPS];
        for (int p = 0; p < P; p++) step[p] = source_codes(&w[p], group, g, w->strip ? s : h * group / 4 + s);
        for (int t = 0; t < T; t++) {
            __m512i four = broadcast4(codes + t * x->k + 4 * s);
            for (int p = 0; p < P; p++) dot[t * P + p] = _mm512_dpbusd_epi32(dot[t * P + p], step[p], four);
        }
    }
    __m512 d[SLM_STRIPS], m[SLM_STRIPS];
    for (int p = 0; p < P; p++) d[p] = source_scales(&w[p], group, false, g);
    for (int t = 0; t < T; t++) {
        __m512 scale = _mm512_set1_ps(scales[t * n_groups]);
        for (int p = 0; p < P; p++) {
            __m512 *sum = &acc[t * P + p];
            *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t * P + p]), _mm512_mul_ps(d[p], scale), *sum);
        }
    }
    if (!w->coding.mins) return;
    for (int p = 0; p < P; p++) m[p] = source_scales(&w[p], group, true, g);
    for (int t = 0; t < T; t++) {
        __m512 sum = _mm512_set1_ps(scaled_sums[t * n_groups]);
        for (int p = 0; p < P; p++) acc[t * P + p] = _mm512_fmadd_ps(m[p], sum, acc[t * P + p]);
    }
}

/* Into the second cache: from there the first one, which has little room, fetches a linear stream by itself. */
SLM_INLINE void prefetch(const uint8_t *from, int bytes) {
    for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char *)from + i, _MM_HINT_T1);
}

/* ahead: of weights that come from memory, what is to be asked for while a panel is read; or NULL. */
SLM_INSTANCE void tile(int P, int T, const source *w, int group, const slm_codes *x, int64_t token, const uint8_t *ahead,
                       float *y, int64_t ldy) {
    int step = ahead ? slm_panel_step(w->coding, w->screened) : 0;
    __m512 acc[MOST];
    for (int i = 0; i < P * T; i++) acc[i] = _mm512_setzero_ps();
    for (int64_t g = 0; g < x->k / group; g += SLM_GROUP / group) {
        if (ahead) prefetch(ahead + g * group / SLM_GROUP * step, step);
        if (ahead && w->screened) prefetch(w->low + AHEAD + g * group / SLM_GROUP * 256, 256);
        add_group(P, T, w, group, 0, g, x, token, acc);
        if (group == 16) add_group(P, T, w, group, 1, g + 1, x, token, acc);
    }
    for (int i = 0; i < P * T; i++) _mm512_storeu_ps(y + i / P * ldy + i % P * 16, acc[i]);
}

/* ---- from a panel: few tokens -------------------------------------------------------------------------------------------- */

/* group: of x. */
SLM_INLINE void gemv(slm_coding c, int group, bool screened, const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x,
                     int64_t token, int64_t n_tokens, const uint8_t *then, float *y, int64_t ldy) {
    for (int64_t p = first; p < last; p++, y += 16) {
        const uint8_t *panel = slm_matrix_panel(w, p), *ahead = slm_panels_ahead(w, p, last, AHEAD, then);
        source from = {.screened = screened,
                       .coding = c,
                       .codes = panel + w->codes_at,
                       .low = screened ? slm_matrix_low(w, p) : NULL,
                       .d = panel,
                       .m = panel + w->m_at,
                       .factors = panel + w->factors_at,
                       .tops = panel + w->tops_at};
        int64_t i = 0;
        for (; i + 8 <= n_tokens; i += 8) tile(1, 8, &from, group, x, token + i, i ? NULL : ahead, y + i * ldy, ldy);
        for (; i + 4 <= n_tokens; i += 4) tile(1, 4, &from, group, x, token + i, i ? NULL : ahead, y + i * ldy, ldy);
        for (; i + 2 <= n_tokens; i += 2) tile(1, 2, &from, group, x, token + i, i ? NULL : ahead, y + i * ldy, ldy);
        if (i < n_tokens) tile(1, 1, &from, group, x, token + i, i ? NULL : ahead, y + i * ldy, ldy);
    }
}

/* One instance per type and group of x. */
#define CASE(TYPE, NAME, BLOCK, BYTES, ...)                                                                                      \
    case SLM_TYPE_##TYPE: {                                                                                                      \
        const slm_coding c = {__VA_ARGS__};                                                                                      \
        if (x->group == 16) gemv(c, 16, false, w, first, last, x, token, n_tokens, then, y, ldy);                                \
        if (x->group == 32 && c.group == 32) gemv(c, 32, false, w, first, last, x, token, n_tokens, then, y, ldy);               \
        break;                                                                                                                   \
    }

void slm_gemv_int8_avx512(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, int64_t n_tokens,
                          const uint8_t *then, float *y, int64_t ldy) {
    if (w->screened) {
        const slm_coding c = {.bits = 8, .group = SLM_GROUP, .offset = 128};
        if (x->group == 16) gemv(c, 16, true, w, first, last, x, token, n_tokens, then, y, ldy);
        if (x->group == 32) gemv(c, 32, true, w, first, last, x, token, n_tokens, then, y, ldy);
        return;
    }
    switch (w->type) {
        SLM_BLOCK_TYPES(CASE)
    default: break;
    }
}

/* ---- from strips: many tokens -------------------------------------------------------------------------------------------- */

SLM_INLINE source strip_source(bool mins, const slm_strip *w) {
    return (source){.strip = true,
                    .coding = {.mins = mins, .offset = mins ? 0 : w->offset}, /* no type has both */
                    .codes = w->codes,
                    .d = (const uint8_t *)w->d,
                    .m = (const uint8_t *)w->m};
}

/* Two panels: a broadcast serves two products, which leaves the ports that load with less to do than those that multiply. */
SLM_INLINE void gemm(bool mins, int group, const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last,
                     float *y, int64_t ldy) {
    source from[SLM_STRIPS] = {strip_source(mins, w), strip_source(mins, w + n_strips - 1)};
    int64_t t = first;
    if (n_strips == 2) {
        for (; t + 6 <= last; t += 6) tile(2, 6, from, group, x, t, NULL, y + (t - first) * ldy, ldy);
        for (; t + 2 <= last; t += 2) tile(2, 2, from, group, x, t, NULL, y + (t - first) * ldy, ldy);
        if (t < last) tile(2, 1, from, group, x, t, NULL, y + (t - first) * ldy, ldy);
    } else {
        for (; t + 12 <= last; t += 12) tile(1, 12, from, group, x, t, NULL, y + (t - first) * ldy, ldy);
        for (; t + 4 <= last; t += 4) tile(1, 4, from, group, x, t, NULL, y + (t - first) * ldy, ldy);
        for (; t < last; t++) tile(1, 1, from, group, x, t, NULL, y + (t - first) * ldy, ldy);
    }
}

void slm_gemm_int8_avx512(const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last, float *y,
                          int64_t ldy) {
    if (w->group == 32) {
        if (w->m) gemm(true, 32, w, n_strips, x, first, last, y, ldy);
        if (!w->m) gemm(false, 32, w, n_strips, x, first, last, y, ldy);
    } else {
        if (w->m) gemm(true, 16, w, n_strips, x, first, last, y, ldy);
        if (!w->m) gemm(false, 16, w, n_strips, x, first, last, y, ldy);
    }
}

SLM_TARGET_END
#endif
