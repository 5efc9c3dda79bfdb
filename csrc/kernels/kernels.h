/* SPDX-License-Identifier: Apache-2.0
 * kernels.h: the contract of all arithmetic: one struct of function pointers per instruction set (a tier).
 *
 * A kernel works on one slice: no threads, no allocation, no failure. Vectors of activations are padded with zeros to a multiple
 * of 16 elements and aligned to 64 bytes. Sums run in an order that depends on nothing but the shapes, so every tier gives the
 * same bits: per output one chain of fused multiply-adds over K in ascending order, per reduction 16 lanes and then a fixed tree.
 */
#ifndef SLM_KERNELS_KERNELS_H
#define SLM_KERNELS_KERNELS_H

#include "kernels/layout.h"

/* int8 activations in groups: x ~ scale * codes. codes: [n_tokens][k]; the others [n_tokens][k / group]. */
typedef struct slm_codes {
    int64_t k;
    int group;     /* 32, or 16, as weights with groups of 16 need it */
    int8_t *codes; /* -127 .. 127 */
    int32_t *sums; /* of the codes of a group */
    float *scales;
    float *scaled_sums; /* scale * sum */
} slm_codes;

/* A panel made ready for many columns: one byte a code, a scale for each group of the activations. */
typedef struct slm_strip {
    int64_t k;
    int group;            /* of the activations */
    int offset;           /* 128 with 8 bits */
    int code_bits;        /* codes are below 2^code_bits: 4, 5, 6 or 8 */
    const uint8_t *codes; /* [k / 4 steps][16 rows][4] */
    const float *d;       /* [k / group][16] */
    const float *m;       /* [k / group][16], or NULL */
} slm_strip;

enum { SLM_STRIPS = 2 }; /* the most that gemm takes at once */

typedef struct slm_kernels {
    const char *name;

    /* x: rows of `width` f32, ldx apart, the columns column .. column + width - 1 of tokens first .. last - 1, whole groups of
     * out. scale = max |x| / 127, code = x * (127 / max |x|) to nearest even, 0 where max |x| <= 1e-30. NaN or infinity in a
     * group makes its scale NaN. */
    void (*quantize)(const float *x, int64_t ldx, int64_t first, int64_t last, int64_t column, int64_t width,
                     const slm_codes *out);

    /* Few tokens, codes straight from the panels: y[i * ldy + 16 * (p - first) + r] of token + i, 0 <= i < n_tokens, for the
     * panels first <= p < last of a matrix of codes whose group is no smaller than that of x. Per group of x:
     * y = fma(dot - offset * sum, d * scale, y), then with minimums y = fma(m, scaled_sum, y). then: what the thread will read
     * after them, or NULL; it is asked for as what comes next of the panels is. */
    void (*gemv)(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, int64_t token, int64_t n_tokens,
                 const uint8_t *then, float *y, int64_t ldy);
    /* A screened matrix and the first token of x, whose group is 32: for the panels first <= p < last the largest coarse
     * product of a row, coarse[p - first], and a limit that no row's y of gemv exceeds, most[p - first]. reach: [k / 32], from
     * which the limit follows (ops/head.c): y <= coarse product + spread, spread = sum of |d| * residue * reach, rounded up by
     * 2^-80. Infinity, where the spread of a row is not less than most_spread or NaN. */
    void (*screen)(const slm_matrix *w, int64_t first, int64_t last, const slm_codes *x, const float *reach, float most_spread,
                   float *coarse, float *most);
    /* group: of the activations. codes: [16 * k] bytes, d and m: [k / group * 16] f32, to be filled and pointed to by *strip. */
    void (*unpack)(const slm_matrix *w, int64_t panel, int group, uint8_t *codes, float *d, float *m, slm_strip *strip);
    /* y[(t - first) * ldy + r] for tokens first <= t < last and the rows r of 1 to SLM_STRIPS strips of the same
     * matrix, side by side: the same bits as gemv. */
    void (*gemm)(const slm_strip *w, int n_strips, const slm_codes *x, int64_t first, int64_t last, float *y, int64_t ldy);

    /* y[t * ldy + r] for tokens 0 <= t < n_tokens: y = fma(w[r][k], x[t * ldx + k], y) for k = 0, 1, ..., where w is what the
     * code stands for, widened to f32 as slm_matrix_row does: the bits of linear_float on a matrix of these f32 values. */
    void (*gemm_float)(const slm_strip *w, const float *x, int64_t ldx, int64_t n_tokens, float *y, int64_t ldy);

    /* y[t * ldy + 16 * (p - first) + r] for the panels first <= p < last of an F32, F16 or BF16 matrix: y = fma(w[r][k],
     * x[t * ldx + k], y) for k = 0, 1, ... from 0, or with `add` from what y holds. */
    void (*linear_float)(const slm_matrix *w, int64_t first, int64_t last, const float *x, int64_t ldx, int64_t n_tokens,
                         bool add, float *y, int64_t ldy);
    /* y[t * ldy + 16 * (p - first) + r] for the panels first <= p < last of a BF16 matrix, x being factors of sums of bf16
     * products (base/half.h: to nearest even, 0 below SLM_LEAST_FACTOR) that round_bf16 made, rows ldx floats apart: the same
     * chain, but of a pair of columns the second comes first. */
    void (*linear_bf16)(const slm_matrix *w, int64_t first, int64_t last, const float *x, int64_t ldx, int64_t n_tokens, float *y,
                        int64_t ldy);

    /* y = x / sqrt(mean(x^2) + eps) * weight over n elements; padding included. */
    void (*rms_norm)(const float *x, const float *weight, int64_t n, float eps, float *y);
    /* y = (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias over n elements; padding included. bias may be NULL. */
    void (*layer_norm)(const float *x, const float *weight, const float *bias, int64_t n, float eps, float *y);
    void (*add)(float *x, const float *y, int64_t n); /* x += y */
    /* y = act(gate) * up, or act(gate) where up is NULL: n_rows rows of n, those of y ldy apart. y may be up or gate with ldy =
     * n. */
    void (*activate)(slm_activation act, const float *gate, const float *up, int64_t n_rows, int64_t n, float *y, int64_t ldy);
    void (*soft_cap)(float *x, float cap, int64_t n); /* x = cap * tanh(x / cap); any n, any alignment */
    /* x as linear_bf16 of the same tier takes it, in n floats or half of their room. */
    void (*round_bf16)(const float *x, int64_t n, float *rounded);
    bool (*all_finite)(const float *x, int64_t n); /* any n, any alignment */
    float (*largest)(const float *x, int64_t n);   /* of n >= 1 finite elements; any n, any alignment */

    /* Attention over panels of 16 positions of K. BF16: k is [n_panels][head_dim / 2][16][2]; F32: [n_panels][head_dim][16].
     * scores[row * ld + position] = fma(q[row * ldq + i], k[i][position], score) from 0, i ascending, but of a pair of bf16 the
     * second first; q (and p below) are then factors, too. INT8: a panel is codes
     * [head_dim][16] and f32 scales [groups of 32][16]; the chain runs over the codes of a group, and then, groups ascending,
     * score = fma(chain, scale, score). */
    void (*attention_scores)(const float *q, int64_t ldq, int64_t rows, const void *k, slm_kv_type type, int64_t head_dim,
                             int64_t n_panels, float *scores, int64_t ld);
    /* s: [n] scores of one segment, of which first <= i < last count (at least one), n % 16 == 0. Becomes exp(s - max), 0 where
     * not counted, rounded to a bf16 factor on request; *max, and *sum of what s becomes. */
    void (*attention_softmax)(float *s, int64_t first, int64_t last, int64_t n, bool bf16, float *max, float *sum);
    /* out[row * ldo + i] = fma(p[row * ldp + t], v[t][i], out) for n positions ascending. BF16: v is [n / 2][width][2],
     * F32: [n][width]; width % 16 == 0. INT8: v is codes [64][width] and f32 scales [groups of 32][64], n <= 64, and
     * out = fma(code, p * scale, out). */
    void (*attention_values)(const float *p, int64_t ldp, int64_t rows, const void *v, slm_kv_type type, int64_t n, int64_t width,
                             float *out, int64_t ldo);
    /* The running (max, sum, out[n]) joined with one more segment's, whose positions come later. */
    void (*attention_merge)(float *max, float *sum, float *out, float segment_max, float segment_sum, const float *segment_out,
                            int64_t n);
    void (*scale)(float *x, float factor, int64_t n); /* x *= factor */
} slm_kernels;

extern const slm_kernels slm_kernels_scalar;
#if defined(__x86_64__)
extern const slm_kernels slm_kernels_avx2;
#if defined(SLM_AVX2_VNNI)
extern const slm_kernels slm_kernels_avx2_vnni;
#endif
extern const slm_kernels slm_kernels_avx512;
extern const slm_kernels slm_kernels_avx512_bf16;
#elif defined(__aarch64__)
extern const slm_kernels slm_kernels_neon;
extern const slm_kernels slm_kernels_neon_i8mm;
#endif

/* The tier in use: set once by slm_init. */
const slm_kernels *slm_kernels_active(void);
/* Tier i, slowest first, if this machine can run it; NULL past the last one. For choosing and for tests. */
const slm_kernels *slm_kernels_tier(int i);

#endif
