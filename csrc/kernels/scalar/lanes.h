/* SPDX-License-Identifier: Apache-2.0
 * lanes.h: sixteen f32 lanes in plain C: what kernels/generic.inc is written in. The reference for all other tiers. */
#include <math.h>

#include "base/half.h"
#include "kernels/isa.h"

typedef struct lanes {
    float v[16];
} lanes;

/* Calls: a copy of each loop in each place takes gcc five times as long to compile, and nobody waits for this tier. */
#define LANES static __attribute__((noinline, unused))

#define EACH_LANE(expression)                                                                                                    \
    lanes out;                                                                                                                   \
    for (int i = 0; i < 16; i++) out.v[i] = (expression);                                                                        \
    return out

LANES lanes lanes_set(float x) {
    EACH_LANE(x);
}
LANES lanes lanes_load(const float *p) {
    EACH_LANE(p[i]);
}
LANES void lanes_store(float *p, lanes a) {
    memcpy(p, a.v, sizeof a.v);
}
LANES lanes lanes_add(lanes a, lanes b) {
    EACH_LANE(a.v[i] + b.v[i]);
}
LANES lanes lanes_sub(lanes a, lanes b) {
    EACH_LANE(a.v[i] - b.v[i]);
}
LANES lanes lanes_mul(lanes a, lanes b) {
    EACH_LANE(a.v[i] * b.v[i]);
}
LANES lanes lanes_div(lanes a, lanes b) {
    EACH_LANE(a.v[i] / b.v[i]);
}
LANES lanes lanes_fma(lanes a, lanes b, lanes c) {
    EACH_LANE(fmaf(a.v[i], b.v[i], c.v[i]));
}
LANES lanes lanes_abs(lanes a) {
    EACH_LANE(fabsf(a.v[i]));
}
/* a where a > b, else b: b when either is NaN. */
LANES lanes lanes_max(lanes a, lanes b) {
    EACH_LANE(a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
LANES lanes lanes_min(lanes a, lanes b) {
    EACH_LANE(a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
/* yes where a < b, else no. */
LANES lanes lanes_less(lanes a, lanes b, lanes yes, lanes no) {
    EACH_LANE(a.v[i] < b.v[i] ? yes.v[i] : no.v[i]);
}
/* To nearest even, for |a| < 2^22: adding 1.5 * 2^23 leaves no bits below the point. Others (NaN, infinity) come out unusable,
 * not trapped. */
LANES lanes lanes_round(lanes a) {
    EACH_LANE((a.v[i] + 0x1.8p23f) - 0x1.8p23f);
}
/* 2^n for whole n, -126 .. 127. */
LANES lanes lanes_pow2(lanes n) {
    EACH_LANE(slm_f32_from_bits((uint32_t)((n.v[i] > -127 && n.v[i] < 128 ? (int)n.v[i] : 0) + 127) << 23));
}
LANES lanes lanes_load_f16(const void *p) {
    const uint16_t *halves = p;
    EACH_LANE(slm_f16_to_f32(halves[i]));
}
LANES lanes lanes_load_i8(const void *p) {
    const int8_t *bytes = p;
    EACH_LANE(bytes[i]);
}
/* Sixteen signed bytes, eight in each word from its low end up. */
LANES lanes lanes_from_i8(uint64_t low, uint64_t high) {
    EACH_LANE((int8_t)((i < 8 ? low : high) >> i % 8 * 8));
}
LANES lanes lanes_load_u8(const void *p) {
    const uint8_t *bytes = p;
    EACH_LANE(bytes[i]);
}
/* Of sixteen rows: start + sum of 16 * code * x over 32 columns, exact; their 4-bit codes are a plane. */
LANES lanes lanes_dot_high(const uint8_t *plane, const int8_t *x, int start) {
    int sums[16] = {0};
    for (int s = 0; s < 4; s++) {
        for (int i = 0; i < 64; i++) {
            int byte = plane[64 * s + i];
            sums[i / 4] += (byte & 15) * x[4 * s + i % 4] + (byte >> 4) * x[16 + 4 * s + i % 4];
        }
    }
    EACH_LANE((float)(start + 16 * sums[i]));
}
/* 64 bytes below 16 become table[byte]. */
LANES void lookup_64(const uint8_t *table, uint8_t *bytes) {
    for (int i = 0; i < 64; i++) bytes[i] = table[bytes[i]];
}
/* Sixteen pairs of 16-bit elements: the first and the second of each. */
LANES void lanes_load_f16_pairs(const void *p, lanes *first, lanes *second) {
    const uint16_t *halves = p;
    for (int i = 0; i < 16; i++) {
        first->v[i] = slm_f16_to_f32(halves[2 * i]);
        second->v[i] = slm_f16_to_f32(halves[2 * i + 1]);
    }
}
LANES void lanes_load_bf16_pairs(const void *p, lanes *first, lanes *second) {
    const uint16_t *halves = p;
    for (int i = 0; i < 16; i++) {
        first->v[i] = slm_bf16_to_f32(halves[2 * i]);
        second->v[i] = slm_bf16_to_f32(halves[2 * i + 1]);
    }
}
/* Byte `byte` of each of sixteen groups of four. */
LANES lanes lanes_load_bytes(const uint8_t *p, int byte) {
    EACH_LANE((float)p[4 * i + byte]);
}
/* To the nearest bf16 value, ties to even. */
LANES lanes lanes_round_bf16(lanes a) {
    EACH_LANE(slm_bf16_to_f32(slm_f32_to_bf16(a.v[i])));
}
/* Whole numbers -128 .. 127 to bytes; what is none (NaN) becomes -128. */
LANES void lanes_store_i8(int8_t *p, lanes a) {
    for (int i = 0; i < 16; i++) p[i] = (int8_t)(a.v[i] > -128 && a.v[i] < 128 ? (int)a.v[i] : -128);
}
/* The tree: lanes i and i + 8, then i + 4, i + 2, i + 1. */
LANES float lanes_sum(lanes a) {
    for (int step = 8; step; step /= 2) {
        for (int i = 0; i < step; i++) a.v[i] += a.v[i + step];
    }
    return a.v[0];
}
LANES float lanes_max_of(lanes a) {
    for (int step = 8; step; step /= 2) {
        for (int i = 0; i < step; i++) a.v[i] = a.v[i] > a.v[i + step] ? a.v[i] : a.v[i + step];
    }
    return a.v[0];
}
/* The largest lane of each of four; NaN as lanes_max has it. */
LANES void lanes_max_of_4(const lanes a[4], float *max) {
    for (int i = 0; i < 4; i++) max[i] = lanes_max_of(a[i]);
}
/* The sum of each of four whose sums are exact in any order. */
LANES void lanes_sum_of_4(const lanes a[4], float *sum) {
    for (int i = 0; i < 4; i++) sum[i] = lanes_sum(a[i]);
}

enum { PRODUCT_CHAINS = 4 /* accumulators of product_tile that registers hold */ };
