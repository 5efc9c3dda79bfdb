/* SPDX-License-Identifier: Apache-2.0
 * lanes.h: sixteen f32 lanes on AVX-512: what kernels/generic.inc is written in. */
#include <immintrin.h>

#include "kernels/isa.h"

typedef __m512 lanes;

SLM_INLINE lanes lanes_set(float x) {
    return _mm512_set1_ps(x);
}
SLM_INLINE lanes lanes_load(const float *p) {
    return _mm512_loadu_ps(p);
}
SLM_INLINE void lanes_store(float *p, lanes a) {
    _mm512_storeu_ps(p, a);
}
SLM_INLINE lanes lanes_add(lanes a, lanes b) {
    return _mm512_add_ps(a, b);
}
SLM_INLINE lanes lanes_sub(lanes a, lanes b) {
    return _mm512_sub_ps(a, b);
}
SLM_INLINE lanes lanes_mul(lanes a, lanes b) {
    return _mm512_mul_ps(a, b);
}
SLM_INLINE lanes lanes_div(lanes a, lanes b) {
    return _mm512_div_ps(a, b);
}
SLM_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return _mm512_fmadd_ps(a, b, c);
}
SLM_INLINE lanes lanes_abs(lanes a) {
    return _mm512_abs_ps(a);
}
/* a where a > b, else b: b when either is NaN. */
SLM_INLINE lanes lanes_max(lanes a, lanes b) {
    return _mm512_max_ps(a, b);
}
SLM_INLINE lanes lanes_min(lanes a, lanes b) {
    return _mm512_min_ps(a, b);
}
/* yes where a < b, else no. */
SLM_INLINE lanes lanes_less(lanes a, lanes b, lanes yes, lanes no) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}
SLM_INLINE lanes lanes_round(lanes a) { /* to nearest even */
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* 2^n for whole n, -126 .. 127. */
SLM_INLINE lanes lanes_pow2(lanes n) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)), 23));
}
SLM_INLINE lanes lanes_load_f16(const void *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
SLM_INLINE lanes lanes_load_i8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p)));
}
/* Sixteen signed bytes, eight in each word from its low end up. */
SLM_INLINE lanes lanes_from_i8(uint64_t low, uint64_t high) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_set_epi64x((int64_t)high, (int64_t)low)));
}
SLM_INLINE lanes lanes_load_u8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p)));
}
SLM_INLINE __m512i broadcast4(const int8_t *p) {
    int four;
    memcpy(&four, p, sizeof four);
    return _mm512_set1_epi32(four);
}
/* Of sixteen rows: start + sum of 16 * code * x over 32 columns, exact; their 4-bit codes are a plane. */
SLM_INLINE lanes lanes_dot_high(const uint8_t *plane, const int8_t *x, int start) {
    __m512i mask = _mm512_set1_epi8((char)0xf0), low = _mm512_set1_epi32(start), high = _mm512_setzero_si512();
    for (int s = 0; s < 4; s++) {
        __m512i line = _mm512_load_si512(plane + 64 * s);
        low = _mm512_dpbusd_epi32(low, _mm512_and_si512(_mm512_slli_epi16(line, 4), mask), broadcast4(x + 4 * s));
        high = _mm512_dpbusd_epi32(high, _mm512_and_si512(line, mask), broadcast4(x + 16 + 4 * s));
    }
    return _mm512_cvtepi32_ps(_mm512_add_epi32(low, high));
}
/* 64 bytes below 16 become table[byte]. */
SLM_INLINE void lookup_64(const uint8_t *table, uint8_t *bytes) {
    __m512i values = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)table));
    _mm512_storeu_si512(bytes, _mm512_shuffle_epi8(values, _mm512_loadu_si512(bytes)));
}
/* Sixteen pairs of 16-bit elements: the first and the second of each. */
SLM_INLINE void lanes_load_f16_pairs(const void *p, lanes *first, lanes *second) {
    __m512i pairs = _mm512_loadu_si512(p);
    *first = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs));
    *second = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16)));
}
SLM_INLINE void lanes_load_bf16_pairs(const void *p, lanes *first, lanes *second) {
    __m512i pairs = _mm512_loadu_si512(p);
    *first = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    *second = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000)));
}
/* Byte i of each of sixteen groups of four. */
SLM_INLINE lanes lanes_load_bytes(const uint8_t *p, int i) {
    __m512i bytes = _mm512_srli_epi32(_mm512_loadu_si512(p), (unsigned)(8 * i));
    return _mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(0xff)));
}
/* Finite lanes to the nearest bf16 value, ties to even. */
SLM_INLINE lanes lanes_round_bf16(lanes a) {
    __m512i bits = _mm512_castps_si512(a);
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    bits = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    bits = _mm512_and_si512(bits, _mm512_set1_epi32((int)0xffff0000));
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), _mm512_castsi512_ps(bits), a);
}
/* Whole numbers -128 .. 127 to bytes. */
SLM_INLINE void lanes_store_i8(int8_t *p, lanes a) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a)));
}
/* The tree: lanes i and i + 8, then i + 4, i + 2, i + 1. */
SLM_INLINE float lanes_sum(lanes a) {
    __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
SLM_INLINE float lanes_max_of(lanes a) {
    __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
/* Each of the four vectors a combined to one lane: pairs of lanes meet while the vectors are brought into one. */
#define EACH_OF_4(combine, out)                                                                                                  \
    __m512 b = _mm512_##combine##_ps(_mm512_unpacklo_ps(a[0], a[1]), _mm512_unpackhi_ps(a[0], a[1]));                            \
    __m512 c = _mm512_##combine##_ps(_mm512_unpacklo_ps(a[2], a[3]), _mm512_unpackhi_ps(a[2], a[3]));                            \
    __m512 d = _mm512_##combine##_ps(_mm512_shuffle_ps(b, c, 0x44), _mm512_shuffle_ps(b, c, 0xee));                              \
    __m256 e = _mm256_##combine##_ps(_mm512_castps512_ps256(d), _mm512_extractf32x8_ps(d, 1));                                   \
    _mm_storeu_ps(out, _mm_##combine##_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1)))

/* The largest lane of each of four; NaN as lanes_max has it. */
SLM_INLINE void lanes_max_of_4(const lanes a[4], float *out) {
    EACH_OF_4(max, out);
}
/* The sum of each of four whose sums are exact in any order. */
SLM_INLINE void lanes_sum_of_4(const lanes a[4], float *out) {
    EACH_OF_4(add, out);
}

enum { PRODUCT_CHAINS = 16 /* accumulators of product_tile that registers hold */ };
