/* SPDX-License-Identifier: Apache-2.0
 * half.h: f16 and bf16 to f32 and back, exact and round-to-nearest-even, in plain C. */
#ifndef SLM_BASE_HALF_H
#define SLM_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t slm_f32_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
static inline float slm_f32_from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float slm_f16_to_f32(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) return slm_f32_from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13); /* infinity, NaN */
    if (rest >= 0x0400) return slm_f32_from_bits(sign | (rest + (112 << 10)) << 13);
    /* Subnormal: rest * 2^-24 is exact in f32. */
    return slm_f32_from_bits(sign | slm_f32_bits((float)rest * 0x1p-24f));
}

/* Beyond the largest half it becomes infinity; NaN stays NaN. */
static inline uint16_t slm_f32_to_f16(float x) {
    uint32_t bits = slm_f32_bits(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    /* Subnormal: the addition rounds to a multiple of 2^-24, the last place of 0.5. */
    if (rest < 0x38800000) return (uint16_t)(sign | (slm_f32_bits(slm_f32_from_bits(rest) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (rest + 0xfff + (rest >> 13 & 1) - (112u << 23)) >> 13);
}

static inline float slm_bf16_to_f32(uint16_t b) {
    return slm_f32_from_bits((uint32_t)b << 16);
}
/* NaN stays NaN; the carry of rounding may reach infinity, as it should. */
static inline uint16_t slm_f32_to_bf16(float x) {
    uint32_t bits = slm_f32_bits(x);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    uint32_t quiet_nan = bits >> 16 | 0x40;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet_nan : rounded);
}

/* A factor of a sum of bf16 products: 0 below 2^-56, so that the last place of each product, and with it every sum, is a multiple
 * of 2^-126, the smallest normal f32. Instructions for such sums take what is smaller for 0; here nothing is. */
#define SLM_LEAST_FACTOR 0x1p-56f
static inline uint16_t slm_f32_to_bf16_factor(float x) {
    return x > -SLM_LEAST_FACTOR && x < SLM_LEAST_FACTOR ? 0 : slm_f32_to_bf16(x);
}

#endif
