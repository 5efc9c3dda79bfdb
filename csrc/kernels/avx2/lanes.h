/* SPDX-License-Identifier: Apache-2.0
 * lanes.h: sixteen f32 lanes on AVX2: what kernels/generic.inc is written in. */
#include <immintrin.h>

#include "kernels/isa.h"

typedef struct lanes {
    __m256 low, high;
} lanes;

SLM_INLINE lanes lanes_set(float x) {
    return (lanes){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
SLM_INLINE lanes lanes_load(const float *p) {
    return (lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
SLM_INLINE void lanes_store(float *p, lanes a) {
    _mm256_storeu_ps(p, a.low);
    _mm256_storeu_ps(p + 8, a.high);
}
SLM_INLINE lanes lanes_add(lanes a, lanes b) {
    return (lanes){_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
SLM_INLINE lanes lanes_sub(lanes a, lanes b) {
    return (lanes){_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
}
SLM_INLINE lanes lanes_mul(lanes a, lanes b) {
    return (lanes){_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
SLM_INLINE lanes lanes_div(lanes a, lanes b) {
    return (lanes){_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
}
SLM_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    return (lanes){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
SLM_INLINE lanes lanes_abs(lanes a) {
    __m256 sign = _mm256_set1_ps(-0.0f);
    return (lanes){_mm256_andnot_ps(sign, a.low), _mm256_andnot_ps(sign, a.high)};
}
/* a where a > b, else b: b when either is NaN. */
SLM_INLINE lanes lanes_max(lanes a, lanes b) {
    return (lanes){_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
}
SLM_INLINE lanes lanes_min(lanes a, lanes b) {
    return (lanes){_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
}
/* yes where a < b, else no. */
SLM_INLINE lanes lanes_less(lanes a, lanes b, lanes yes, lanes no) {
    return (lanes){_mm256_blendv_ps(no.low, yes.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
                   _mm256_blendv_ps(no.high, yes.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}
SLM_INLINE lanes lanes_round(lanes a) { /* to nearest even */
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };
    return (lanes){_mm256_round_ps(a.low, NEAREST), _mm256_round_ps(a.high, NEAREST)};
}
SLM_INLINE __m256 pow2_half(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
/* 2^n for whole n, -126 .. 127. */
SLM_INLINE lanes lanes_pow2(lanes n) {
    return (lanes){pow2_half(n.low), pow2_half(n.high)};
}
SLM_INLINE lanes lanes_load_f16(const void *p) {
    const __m128i *halves = p;
    return (lanes){_mm256_cvtph_ps(_mm_loadu_si128(halves)), _mm256_cvtph_ps(_mm_loadu_si128(halves + 1))};
}
SLM_INLINE lanes lanes_load_i8(const void *p) {
    __m128i bytes = _mm_loadu_si128(p);
    return (lanes){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)),
                   _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8)))};
}
/* Sixteen signed bytes, eight in each word from its low end up. */
SLM_INLINE lanes lanes_from_i8(uint64_t low, uint64_t high) {
    return (lanes){_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128((int64_t)low))),
                   _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128((int64_t)high)))};
}
SLM_INLINE lanes lanes_load_u8(const void *p) {
    __m128i bytes = _mm_loadu_si128(p);
    return (lanes){_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)),
                   _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)))};
}
SLM_INLINE __m256i broadcast4(const int8_t *p) {
    int four;
    memcpy(&four, p, sizeof four);
    return _mm256_set1_epi32(four);
}
/* Eight rows of lanes_dot_high: an int16 holds two of all 32 products of a row, 15 * 127 * 2 * 8 = 30,480. */
SLM_INLINE __m256 dot_high_half(const uint8_t *plane, const int8_t *x, int start) {
    __m256i mask = _mm256_set1_epi8(15), sum = _mm256_setzero_si256();
    for (int s = 0; s < 4; s++) {
        __m256i line = _mm256_load_si256((const __m256i *)(const void *)(plane + 64 * s));
        __m256i low = _mm256_maddubs_epi16(_mm256_and_si256(line, mask), broadcast4(x + 4 * s));
        __m256i high = _mm256_maddubs_epi16(_mm256_and_si256(_mm256_srli_epi16(line, 4), mask), broadcast4(x + 16 + 4 * s));
        sum = _mm256_add_epi16(sum, _mm256_add_epi16(low, high));
    }
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(16)), _mm256_set1_epi32(start)));
}
/* Of sixteen rows: start + sum of 16 * code * x over 32 columns, exact; their 4-bit codes are a plane. */
SLM_INLINE lanes lanes_dot_high(const uint8_t *plane, const int8_t *x, int start) {
    return (lanes){dot_high_half(plane, x, start), dot_high_half(plane + 32, x, start)};
}
/* 64 bytes below 16 become table[byte]. */
SLM_INLINE void lookup_64(const uint8_t *table, uint8_t *bytes) {
    __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)table));
    for (int i = 0; i < 64; i += 32) {
        __m256i *p = (__m256i *)(bytes + i);
        _mm256_storeu_si256(p, _mm256_shuffle_epi8(values, _mm256_loadu_si256(p)));
    }
}
/* Eight u32 whose value fits 16 bits to eight u16. */
SLM_INLINE __m128i narrow(__m256i words) {
    __m256i packed = _mm256_packus_epi32(words, words);
    return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
}
/* Sixteen pairs of 16-bit elements: the first and the second of each. */
SLM_INLINE void lanes_load_f16_pairs(const void *p, lanes *first, lanes *second) {
    __m256i low = _mm256_loadu_si256(p), high = _mm256_loadu_si256((const __m256i *)p + 1), mask = _mm256_set1_epi32(0xffff);
    *first = (lanes){_mm256_cvtph_ps(narrow(_mm256_and_si256(low, mask))), _mm256_cvtph_ps(narrow(_mm256_and_si256(high, mask)))};
    *second = (lanes){_mm256_cvtph_ps(narrow(_mm256_srli_epi32(low, 16))), _mm256_cvtph_ps(narrow(_mm256_srli_epi32(high, 16)))};
}
SLM_INLINE void lanes_load_bf16_pairs(const void *p, lanes *first, lanes *second) {
    __m256i low = _mm256_loadu_si256(p), high = _mm256_loadu_si256((const __m256i *)p + 1);
    __m256i mask = _mm256_set1_epi32((int)0xffff0000);
    *first = (lanes){_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
    *second = (lanes){_mm256_castsi256_ps(_mm256_and_si256(low, mask)), _mm256_castsi256_ps(_mm256_and_si256(high, mask))};
}
SLM_INLINE __m256 bytes_half(const uint8_t *p, int i) {
    __m256i bytes = _mm256_srli_epi32(_mm256_loadu_si256((const __m256i *)p), 8 * i);
    return _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(0xff)));
}
/* Byte i of each of sixteen groups of four. */
SLM_INLINE lanes lanes_load_bytes(const uint8_t *p, int i) {
    return (lanes){bytes_half(p, i), bytes_half(p + 32, i)};
}
SLM_INLINE __m256 round_bf16_half(__m256 a) {
    __m256i bits = _mm256_castps_si256(a);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    bits = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    bits = _mm256_and_si256(bits, _mm256_set1_epi32((int)0xffff0000));
    return _mm256_blendv_ps(_mm256_castsi256_ps(bits), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
/* Finite lanes to the nearest bf16 value, ties to even. */
SLM_INLINE lanes lanes_round_bf16(lanes a) {
    return (lanes){round_bf16_half(a.low), round_bf16_half(a.high)};
}
/* Whole numbers -128 .. 127 to bytes. */
SLM_INLINE void lanes_store_i8(int8_t *p, lanes a) {
    __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(a.low), _mm256_cvtps_epi32(a.high));
    words = _mm256_permute4x64_epi64(words, 0xd8);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
/* The tree: lanes i and i + 8, then i + 4, i + 2, i + 1. */
SLM_INLINE float lanes_sum(lanes a) {
    __m256 b = _mm256_add_ps(a.low, a.high);
    __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_add_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_add_ss(c, _mm_movehdup_ps(c)));
}
SLM_INLINE float lanes_max_of(lanes a) {
    __m256 b = _mm256_max_ps(a.low, a.high);
    __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    c = _mm_max_ps(c, _mm_movehl_ps(c, c));
    return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}
/* Each of the four vectors a combined to one lane: pairs of lanes meet while the vectors are brought into one. */
#define EACH_OF_4(combine, out)                                                                                                  \
    __m256 b[4];                                                                                                                 \
    for (int i = 0; i < 4; i++) b[i] = _mm256_##combine##_ps(a[i].low, a[i].high);                                               \
    __m256 c = _mm256_##combine##_ps(_mm256_unpacklo_ps(b[0], b[1]), _mm256_unpackhi_ps(b[0], b[1]));                            \
    __m256 d = _mm256_##combine##_ps(_mm256_unpacklo_ps(b[2], b[3]), _mm256_unpackhi_ps(b[2], b[3]));                            \
    __m256 e = _mm256_##combine##_ps(_mm256_shuffle_ps(c, d, 0x44), _mm256_shuffle_ps(c, d, 0xee));                              \
    _mm_storeu_ps(out, _mm_##combine##_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1)))

/* The largest lane of each of four; NaN as lanes_max has it. */
SLM_INLINE void lanes_max_of_4(const lanes a[4], float *out) {
    EACH_OF_4(max, out);
}
/* The sum of each of four whose sums are exact in any order. */
SLM_INLINE void lanes_sum_of_4(const lanes a[4], float *out) {
    EACH_OF_4(add, out);
}

enum { PRODUCT_CHAINS = 4 /* accumulators of product_tile that registers hold */ };
