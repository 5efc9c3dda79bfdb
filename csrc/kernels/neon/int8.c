/* SPDX-License-Identifier: Apache-2.0
 * int8.c: NEON. sdot adds 4 products per row to 4 int32 sums, so 8 steps of 4 registers are a group of 32 for 16 rows. It takes
 * signed weights: codes below 64 as they are, while their offset enters as the start value of the sums; others less their offset
 * of 128. Where the CPU has i8mm, many tokens take usmmla: 8 products of each of 2 rows, unsigned, and 2 tokens. */
#if defined(__aarch64__)
#include "kernels/neon/int8.h"

/* clang before 16 declares the intrinsics of an extension only when a whole file is compiled for it. */
#if defined(__clang__) && !defined(__ARM_FEATURE_DOTPROD)
#define __ARM_FEATURE_DOTPROD 1
#endif
#if defined(__clang__) && !defined(__ARM_FEATURE_MATMUL_INT8)
#define __ARM_FEATURE_MATMUL_INT8 1
#endif
#include <arm_neon.h>

#include "kernels/isa.h"
#include "kernels/neon/lanes.h"

SLM_TARGET_BEGIN(SLM_DOTPROD)

/* ---- codes and scales of the 16 rows of a panel ------------------------------------------------------------------------ */

enum { TILE_TOKENS = 4 }; /* their int32 sums of 16 rows are half of the registers */

typedef struct sums {
    int32x4_t v[4]; /* of 16 rows */
} sums;

/* A panel's own coding, or a strip with a byte a code and f32 scales of a group of x each. */
typedef struct source {
    bool strip, screened;
    slm_coding coding;                                   /* strip: only the mins and the offset count */
    const uint8_t *codes, *low, *d, *m, *factors, *tops; /* low: screened */
} source;

/* What a plane of so many bits holds of step s for rows 4 i .. 4 i + 3, moved up to bit `to`. */
SLM_INLINE uint8x16_t field(int bits, const uint8_t *plane, int s, int i, int to) {
    int line = s & (bits - 1), up = to - (s - line);
    uint8x16_t codes = vld1q_u8(plane + 64 * line + 16 * i);
    if (bits == 8) return codes;
    codes = up > 0 ? codes << vdupq_n_u8((uint8_t)up) : codes >> vdupq_n_u8((uint8_t)-up);
    if (to == 0 && s - line + bits == 8) return codes;
    return vandq_u8(codes, vdupq_n_u8((uint8_t)(((1 << bits) - 1) << to)));
}

/* The codes of rows 4 i .. 4 i + 3 in step s of group g of x, the h-th of its 32 columns. */
SLM_INLINE uint8x16_t step_codes(const source *w, int group, int64_t g, int h, int s, int i) {
    if (w->strip) return vld1q_u8(w->codes + (g * group / 4 + s) * 64 + 16 * i);
    int bits = w->coding.bits, low = slm_plane_bits(bits), rest = bits - low;
    int64_t at = g * group / SLM_GROUP * 64; /* of a plane of 1 bit */
    s += h * group / 4;
    if (w->screened) return vorrq_u8(field(4, w->low + 4 * at, s, i, 0), field(4, w->codes + 4 * at, s, i, 4));
    const uint8_t *of_32 = w->codes + bits * at;
    uint8x16_t codes = field(low, of_32, s, i, 0);
    if (rest) codes = vorrq_u8(codes, field(rest, of_32 + 64 * low, s, i, low));
    return w->coding.table ? vqtbl1q_u8(vld1q_u8(w->coding.table), codes) : codes;
}

/* d or m of group g of x. */
SLM_INLINE lanes group_scales(const source *w, int group, bool min, int64_t g) {
    slm_coding c = w->coding;
    const uint8_t *base = min ? w->m : w->d;
    if (w->strip) return lanes_load((const float *)(const void *)base + 16 * g);
    g = g * group / c.group;
    if (!c.factor_bits) return lanes_load_f16(base + 32 * g);
    lanes factors =
        lanes_from_i8(slm_eight_factors(c, w->factors, w->tops, g, min, 0), slm_eight_factors(c, w->factors, w->tops, g, min, 1));
    return lanes_mul(lanes_load_f16(base + 32 * (g / (SLM_SUPERBLOCK / c.group))), factors);
}

/* ---- tiles of 16 rows x T tokens ------------------------------------------------------------------------------------------- */

/* The lane is an immediate. */
SLM_INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t w, int8x16_t x, int lane) {
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, w, x, 0);
    case 1: return vdotq_laneq_s32(sum, w, x, 1);
    case 2: return vdotq_laneq_s32(sum, w, x, 2);
    default: return vdotq_laneq_s32(sum, w, x, 3);
    }
}

/* dot - offset * sum of group g. There is no offset with minimums. */
SLM_INLINE void group_sums(int T, const source *w, int group, int h, int64_t g, const slm_codes *x, int64_t token, sums *dot) {
    int64_t n_groups = x->k / group, at = token * n_groups + g;
    const int8_t *codes = x->codes + token * x->k + g * group;
    bool wide = !w->coding.mins && w->coding.offset == 128;
    int offset = w->coding.mins || wide ? 0 : w->coding.offset;
    uint8x16_t flip = vdupq_n_u8(wide ? 128 : 0);
    for (int t = 0; t < T; t++) {
        for (int i = 0; i < 4; i++) dot[t].v[i] = vdupq_n_s32(-offset * x->sums[at + t * n_groups]);
    }
#pragma GCC unroll 8
    for (int s = 0; s < group / 4; s++) {
        int8x16_t step[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) step[i] = vreinterpretq_s8_u8(veorq_u8(step_codes(w, group, g, h, s, i), flip));
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            int8x16_t columns = vld1q_s8(codes + t * x->k + s / 4 * 16);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) dot[t].v[i] = dot_lane(dot[t].v[i], step[i], columns, s % 4);
        }
    }
}

/* The links of group g in the chains. */
SLM_INLINE void add_group(int T, const source *w, int group, int64_t g, const slm_codes *x, int64_t token, const sums *dot,
                          lanes *acc) {
    int64_t n_groups = x->k / group, at = token * n_groups + g;
    lanes d = group_scales(w, group, false, g), m = d;
    if (w->coding.mins) m = group_scales(w, group, true, g);
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        lanes scale = lanes_mul(d, lanes_set(x->scales[at + t * n_groups]));
        acc[t] = lanes_fma(lanes_from_i32(dot[t].v), scale, acc[t]);
        if (w->coding.mins) acc[t] = lanes_fma(m, lanes_set(x->scaled_sums[at + t * n_groups]), acc[t]);
    }
}

SLM_INLINE void tile(int T, const source *w, int group, const slm_codes *x, int64_t token, float *y, int64_t ldy) {
    lanes acc[TILE_TOKENS];
    sums dot[TILE_TOKENS];
    for (int t = 0; t < T; t++) acc[t] = lanes_set(0);
    for (int64_t g = 0; g < x->k / group; g += SLM_GROUP / group) {
        for (int h = 0; h < SLM_GROUP / group; h++) {
            group_sums(T, w, group, h, g + h, x, token, dot);
            add_group(T, w, group, g + h, x, token, dot, acc);
        }
    }
    for (int t = 0; t < T; t++) lanes_store(y + t * ldy, acc[t]);
}

SLM_INLINE void tiles(const source *w, int group, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy) {
    int64_t t = first;
    for (; t + 4 <= last; t += 4) tile(4, w, group, x, t, y + (t - first) * ldy, ldy);
    for (; t + 2 <= last; t += 2) tile(2, w, group, x, t, y + (t - first) * ldy, ldy);
    if (t < last) tile(1, w, group, x, t, y + (t - first) * ldy, ldy);
}

/* ---- from a panel: few tokens -------------------------------------------------------------------------------------------- */

/* group: of x. */
SLM_INLINE void gemv(slm_coding c, int group, bool screened, const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x,
                     int64_t token, int64_t n_tokens, float *y, int64_t ldy) {
    for (int64_t p = first; p < last; p++, y += 16) {
        const uint8_t *panel = slm_matrix_panel(w, p);
        source from = {.screened = screened,
                       .coding = c,
                       .codes = panel + w->codes_at,
                       .low = screened ? slm_matrix_low(w, p) : NULL,
                       .d = panel,
                       .m = panel + w->m_at,
                       .factors = panel + w->factors_at,
                       .tops = panel + w->tops_at};
        tiles(&from, group, x, token, token + n_tokens, y, ldy);
    }
}

/* One instance per type and group of x. */
#define CASE(TYPE, NAME, BLOCK, BYTES, ...)                                                                                      \
    case SLM_TYPE_##TYPE: {                                                                                                      \
        const slm_coding c = {__VA_ARGS__};                                                                                      \
        if (x->group == 16) gemv(c, 16, false, w, first, last, x, token, n_tokens, y, ldy);                                      \
        if (x->group == 32 && c.group == 32) gemv(c, 32, false, w, first, last, x, token, n_tokens, y, ldy);                     \
        break;                                                                                                                   \
    }

void slm_gemv_int8_neon(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, int64_t n_tokens,
                        const uint8_t *then, float *y, int64_t ldy) {
    (void)then;
    if (w->screened) {
        const slm_coding c = {.bits = 8, .group = SLM_GROUP, .offset = 128};
        if (x->group == 16) gemv(c, 16, true, w, first, last, x, token, n_tokens, y, ldy);
        if (x->group == 32) gemv(c, 32, true, w, first, last, x, token, n_tokens, y, ldy);
        return;
    }
    switch (w->type) {
        SLM_BLOCK_TYPES(CASE)
    default: break;
    }
}

/* ---- from a strip: many tokens ------------------------------------------------------------------------------------------- */

SLM_INLINE source strip_source(bool mins, const slm_strip *w) {
    return (source){.strip = true,
                    .coding = {.mins = mins, .offset = w->offset},
                    .codes = w->codes,
                    .d = (const uint8_t *)w->d,
                    .m = (const uint8_t *)w->m};
}

SLM_INLINE void gemm(bool mins, int group, const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y,
                     int64_t ldy) {
    source from = strip_source(mins, w);
    tiles(&from, group, x, first, last, y, ldy);
}

/* One instance for weights with minimums and without, and per group of x. */
#define GEMM(INSTANCE)                                                                                                           \
    do {                                                                                                                         \
        for (int i = 0; i < n_strips; i++, w++, y += 16) {                                                                       \
            if (w->group == 32) {                                                                                                \
                if (w->m) INSTANCE(true, 32, w, x, first, last, y, ldy);                                                         \
                if (!w->m) INSTANCE(false, 32, w, x, first, last, y, ldy);                                                       \
            } else {                                                                                                             \
                if (w->m) INSTANCE(true, 16, w, x, first, last, y, ldy);                                                         \
                if (!w->m) INSTANCE(false, 16, w, x, first, last, y, ldy);                                                       \
            }                                                                                                                    \
        }                                                                                                                        \
    } while (0)

void slm_gemm_int8_neon(const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last, float *y,
                        int64_t ldy) {
    GEMM(gemm);
}

SLM_TARGET_END

/* ---- i8mm ------------------------------------------------------------------------------------------------------------------ */

SLM_TARGET_BEGIN(SLM_I8MM)

/* group_sums of 4 tokens. Two steps give 8 columns; a product holds rows 2 j and 2 j + 1 of tokens 2 p and 2 p + 1. */
SLM_INLINE void group_sums_i8mm(const source *w, int group, int64_t g, const slm_codes *x, int64_t token, sums *dot) {
    int64_t n_groups = x->k / group, at = token * n_groups + g;
    const int8_t *codes = x->codes + token * x->k + g * group;
    int32x4_t product[2][8];
    for (int p = 0; p < 2; p++) {
        const int32_t *own = x->sums + at + 2 * p * n_groups;
        int32x4_t start = vzip1q_s32(vdupq_n_s32(-w->coding.offset * own[0]), vdupq_n_s32(-w->coding.offset * own[n_groups]));
        for (int j = 0; j < 8; j++) product[p][j] = start;
    }
#pragma GCC unroll 4
    for (int s = 0; s < group / 4; s += 2) {
        int8x16_t columns[2];
        for (int p = 0; p < 2; p++) {
            const int8_t *from = codes + 2 * p * x->k + 4 * s;
            columns[p] = vcombine_s8(vld1_s8(from), vld1_s8(from + x->k));
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            uint32x4_t first = vreinterpretq_u32_u8(step_codes(w, group, g, 0, s, i));
            uint32x4_t second = vreinterpretq_u32_u8(step_codes(w, group, g, 0, s + 1, i));
            uint8x16_t rows[2] = {vreinterpretq_u8_u32(vzip1q_u32(first, second)),
                                  vreinterpretq_u8_u32(vzip2q_u32(first, second))};
            for (int p = 0; p < 2; p++) {
                for (int j = 0; j < 2; j++) product[p][2 * i + j] = vusmmlaq_s32(product[p][2 * i + j], rows[j], columns[p]);
            }
        }
    }
    for (int p = 0; p < 2; p++) {
        for (int i = 0; i < 4; i++) {
            dot[2 * p].v[i] = vuzp1q_s32(product[p][2 * i], product[p][2 * i + 1]);
            dot[2 * p + 1].v[i] = vuzp2q_s32(product[p][2 * i], product[p][2 * i + 1]);
        }
    }
}

SLM_INLINE void gemm_i8mm(bool mins, int group, const slm_strip *w, const slm_codes *x, int64_t first, int64_t last, float *y,
                          int64_t ldy) {
    source from = strip_source(mins, w);
    for (int64_t token = first; token < last; token += 4, y += 4 * ldy) {
        lanes acc[4] = {lanes_set(0), lanes_set(0), lanes_set(0), lanes_set(0)};
        for (int64_t g = 0; g < x->k / group; g++) {
            sums dot[4];
            group_sums_i8mm(&from, group, g, x, token, dot);
            add_group(4, &from, group, g, x, token, dot, acc);
        }
        for (int t = 0; t < 4; t++) lanes_store(y + t * ldy, acc[t]);
    }
}

/* usmmla gives nothing to one token. */
void slm_gemv_int8_neon_i8mm(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token,
                             int64_t n_tokens, const uint8_t *then, float *y, int64_t ldy) {
    slm_gemv_int8_neon(w, first, last, x, token, n_tokens, then, y, ldy);
}

void slm_gemm_int8_neon_i8mm(const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last, float *y,
                             int64_t ldy) {
    int64_t whole = last - (last - first) % 4;
    slm_gemm_int8_neon(w, n_strips, x, whole, last, y + (whole - first) * ldy, ldy);
    last = whole;
    GEMM(gemm_i8mm);
}

SLM_TARGET_END
#endif
