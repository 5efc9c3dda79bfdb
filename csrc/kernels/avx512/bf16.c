/* SPDX-License-Identifier: Apache-2.0
 * bf16.c: AVX-512 BF16. vdpbf16ps adds a pair of bf16 products to each of 16 f32 sums, the second first, with a rounding after
 * each: the fused chain of kernels.h, twice as fast. It takes subnormal numbers for 0; with factors of SLM_LEAST_FACTOR and more
 * there are none. */
#if defined(__x86_64__)
#include "kernels/avx512/bf16.h"

#include <immintrin.h>

#include "base/arith.h"
#include "kernels/isa.h"

SLM_TARGET_BEGIN(SLM_AVX512_BF16)

enum {
    MOST_ROWS = 4,
    MOST_LANES = 4,
    PAIRS = 64 /* of a row, made ready at one time */
};

/* The factors of up to PAIRS pairs of n elements, a pair a word, 0 behind the last element. */
SLM_INLINE void pack(const float *x, int64_t n, int32_t *pairs) {
    for (int64_t i = 0; i < n; i += 32) {
        __mmask16 low = (__mmask16)(n - i < 16 ? (1 << (n - i)) - 1 : 0xffff);
        __mmask16 high = (__mmask16)(n - i < 16 ? 0 : n - i < 32 ? (1 << (n - i - 16)) - 1 : 0xffff);
        __m512bh both = _mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps(high, x + i + 16), _mm512_maskz_loadu_ps(low, x + i));
        _mm512_storeu_si512(pairs + i / 2, (__m512i)both);
    }
}

/* A step of b for all rows: acc[r][p] += the products of a pair. */
SLM_INLINE void add_pair(int R, int P, const int32_t *a, int64_t lda, const __m512i *b, __m512 *acc) {
    for (int r = 0; r < R; r++) {
        __m512bh factor = (__m512bh)_mm512_set1_epi32(a[r * lda]);
        for (int p = 0; p < P; p++) acc[r * P + p] = _mm512_dpbf16_ps(acc[r * P + p], (__m512bh)b[p], factor);
    }
}

/* out[row][column] += sum over n elements of a[row] * b[column], from 0 if fresh: R rows by P times 16 columns. a: a pair a word.
 * The next pair of b is `step` bytes on, the next lanes of columns `next` bytes. */
SLM_INLINE void tile(int R, int P, bool fresh, const int32_t *a, int64_t lda, const uint8_t *b, int64_t step, int64_t next,
                     int64_t n, float *out, int64_t ldo) {
    __m512 acc[MOST_ROWS * MOST_LANES];
    __m512i pairs[MOST_LANES];
    for (int c = 0; c < R * P; c++) acc[c] = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(out + c / P * ldo + c % P * 16);
    for (int64_t i = 0; i < n / 2; i++, b += step) {
        for (int p = 0; p < P; p++) pairs[p] = _mm512_loadu_si512(b + p * next);
        add_pair(R, P, a + i, lda, pairs, acc);
    }
    if (n % 2) { /* the other half of the pair may hold anything */
        for (int p = 0; p < P; p++) pairs[p] = _mm512_and_si512(_mm512_loadu_si512(b + p * next), _mm512_set1_epi32(0xffff));
        add_pair(R, P, a + n / 2, lda, pairs, acc);
    }
    for (int c = 0; c < R * P; c++) _mm512_storeu_ps(out + c / P * ldo + c % P * 16, acc[c]);
}

SLM_INLINE void rows_of(int R, bool fresh, const float *a, int64_t lda, const uint8_t *b, int64_t step, int64_t next, int64_t n,
                        int64_t n_lanes, float *out, int64_t ldo) {
    int32_t pairs[MOST_ROWS][PAIRS];
    for (int64_t i = 0, m; i < n; i += m, b += m / 2 * step, fresh = false) {
        m = slm_min64(n - i, 2 * PAIRS);
        for (int r = 0; r < R; r++) pack(a + r * lda + i, m, pairs[r]);
        int64_t c = 0;
        for (; c + MOST_LANES <= n_lanes; c += MOST_LANES)
            tile(R, MOST_LANES, fresh, pairs[0], PAIRS, b + c * next, step, next, m, out + c * 16, ldo);
        for (; c < n_lanes; c++) tile(R, 1, fresh, pairs[0], PAIRS, b + c * next, step, next, m, out + c * 16, ldo);
    }
}

SLM_INLINE void product(bool fresh, const float *a, int64_t lda, int64_t rows, const void *b, int64_t step, int64_t next,
                        int64_t n, int64_t n_lanes, float *out, int64_t ldo) {
    for (; rows >= 4; rows -= 4, a += 4 * lda, out += 4 * ldo) rows_of(4, fresh, a, lda, b, step, next, n, n_lanes, out, ldo);
    switch (rows) {
    case 3: rows_of(3, fresh, a, lda, b, step, next, n, n_lanes, out, ldo); break;
    case 2: rows_of(2, fresh, a, lda, b, step, next, n, n_lanes, out, ldo); break;
    case 1: rows_of(1, fresh, a, lda, b, step, next, n, n_lanes, out, ldo); break;
    }
}

void slm_avx512_bf16_round_bf16(const float *x, int64_t n, float *rounded) {
    __m512 least = _mm512_set1_ps(SLM_LEAST_FACTOR);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 a = _mm512_loadu_ps(x + i);
        __mmask16 counts = _mm512_cmp_ps_mask(_mm512_abs_ps(a), least, _CMP_NLT_UQ); /* NaN does */
        _mm256_storeu_si256((__m256i *)(void *)(rounded + i / 2), (__m256i)_mm512_maskz_cvtneps_pbh(counts, a));
    }
}

/* One row: panel after panel, as memory has them. */
SLM_INLINE void linear_row(const slm_matrix *w, int64_t first, int64_t last, const int32_t *pairs, float *y) {
    for (int64_t p = first; p < last; p++, y += 16) tile(1, 1, true, pairs, 0, slm_matrix_panel(w, p), 64, 0, w->cols, y, 0);
}

SLM_INLINE void linear_rows(int R, const slm_matrix *w, int64_t first, int64_t last, const int32_t *pairs, int64_t lda, float *y,
                            int64_t ldy) {
    int64_t next = (int64_t)w->panel_bytes;
    for (; first + MOST_LANES <= last; first += MOST_LANES, y += 16 * MOST_LANES)
        tile(R, MOST_LANES, true, pairs, lda, slm_matrix_panel(w, first), 64, next, w->cols, y, ldy);
    for (; first < last; first++, y += 16) tile(R, 1, true, pairs, lda, slm_matrix_panel(w, first), 64, next, w->cols, y, ldy);
}

void slm_avx512_bf16_linear_bf16(const slm_matrix *w, int64_t first, int64_t last, const float *x, int64_t ldx, int64_t n_tokens,
                                 float *y, int64_t ldy) {
    const int32_t *pairs = (const int32_t *)(const void *)x;
    for (; n_tokens >= 4; n_tokens -= 4, pairs += 4 * ldx, y += 4 * ldy) linear_rows(4, w, first, last, pairs, ldx, y, ldy);
    switch (n_tokens) {
    case 3: linear_rows(3, w, first, last, pairs, ldx, y, ldy); break;
    case 2: linear_rows(2, w, first, last, pairs, ldx, y, ldy); break;
    case 1: linear_row(w, first, last, pairs, y); break;
    }
}

void slm_avx512_bf16_attention_scores(const float *q, int64_t ldq, int64_t rows, const void *k, slm_kv_type type,
                                      int64_t head_dim, int64_t n_panels, float *scores, int64_t ld) {
    if (type == SLM_KV_BF16) {
        product(true, q, ldq, rows, k, 64, head_dim * 32, head_dim, n_panels, scores, ld);
    } else {
        slm_kernels_avx512.attention_scores(q, ldq, rows, k, type, head_dim, n_panels, scores, ld);
    }
}

void slm_avx512_bf16_attention_values(const float *p, int64_t ldp, int64_t rows, const void *v, slm_kv_type type, int64_t n,
                                      int64_t width, float *out, int64_t ldo) {
    if (type == SLM_KV_BF16) {
        product(false, p, ldp, rows, v, width * 4, 64, n, width / 16, out, ldo);
    } else {
        slm_kernels_avx512.attention_values(p, ldp, rows, v, type, n, width, out, ldo);
    }
}

SLM_TARGET_END
#endif
