/* SPDX-License-Identifier: Apache-2.0
 * lanes.h: sixteen f32 lanes on NEON: what kernels/generic.inc is written in. */
#include <arm_neon.h>

#include "kernels/isa.h"

typedef struct lanes {
    float32x4_t v[4];
} lanes;

#define EACH_QUAD(expression)                                                                                                    \
    lanes out;                                                                                                                   \
    _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++) out.v[i] = (expression);                                                 \
    return out

SLM_INLINE lanes lanes_set(float x) {
    EACH_QUAD(vdupq_n_f32(x));
}
SLM_INLINE lanes lanes_load(const float *p) {
    EACH_QUAD(vld1q_f32(p + 4 * i));
}
SLM_INLINE void lanes_store(float *p, lanes a) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, a.v[i]);
}
SLM_INLINE lanes lanes_add(lanes a, lanes b) {
    EACH_QUAD(vaddq_f32(a.v[i], b.v[i]));
}
SLM_INLINE lanes lanes_sub(lanes a, lanes b) {
    EACH_QUAD(vsubq_f32(a.v[i], b.v[i]));
}
SLM_INLINE lanes lanes_mul(lanes a, lanes b) {
    EACH_QUAD(vmulq_f32(a.v[i], b.v[i]));
}
SLM_INLINE lanes lanes_div(lanes a, lanes b) {
    EACH_QUAD(vdivq_f32(a.v[i], b.v[i]));
}
SLM_INLINE lanes lanes_fma(lanes a, lanes b, lanes c) {
    EACH_QUAD(vfmaq_f32(c.v[i], a.v[i], b.v[i]));
}
SLM_INLINE lanes lanes_abs(lanes a) {
    EACH_QUAD(vabsq_f32(a.v[i]));
}
SLM_INLINE float32x4_t max_quad(float32x4_t a, float32x4_t b) { /* fmax would keep a NaN of a */
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}
/* a where a > b, else b: b when either is NaN. */
SLM_INLINE lanes lanes_max(lanes a, lanes b) {
    EACH_QUAD(max_quad(a.v[i], b.v[i]));
}
SLM_INLINE lanes lanes_min(lanes a, lanes b) {
    EACH_QUAD(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), a.v[i], b.v[i]));
}
/* yes where a < b, else no. */
SLM_INLINE lanes lanes_less(lanes a, lanes b, lanes yes, lanes no) {
    EACH_QUAD(vbslq_f32(vcltq_f32(a.v[i], b.v[i]), yes.v[i], no.v[i]));
}
SLM_INLINE lanes lanes_round(lanes a) { /* to nearest even */
    EACH_QUAD(vrndnq_f32(a.v[i]));
}
/* 2^n for whole n, -126 .. 127. */
SLM_INLINE lanes lanes_pow2(lanes n) {
    EACH_QUAD(vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n.v[i]), vdupq_n_s32(127)), 23)));
}
SLM_INLINE float32x4_t widen_f16(uint16x4_t halves) {
    return vcvt_f32_f16(vreinterpret_f16_u16(halves));
}
SLM_INLINE lanes lanes_load_f16(const void *p) {
    const uint16_t *halves = p;
    EACH_QUAD(widen_f16(vld1_u16(halves + 4 * i)));
}
SLM_INLINE lanes lanes_from_i32(const int32x4_t a[4]) {
    EACH_QUAD(vcvtq_f32_s32(a[i]));
}
SLM_INLINE lanes lanes_from_bytes(int8x16_t bytes) {
    int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
    int32x4_t quads[4] = {vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
                          vmovl_s16(vget_high_s16(high))};
    return lanes_from_i32(quads);
}
SLM_INLINE lanes lanes_load_i8(const void *p) {
    return lanes_from_bytes(vld1q_s8(p));
}
/* Sixteen signed bytes, eight in each word from its low end up. */
SLM_INLINE lanes lanes_from_i8(uint64_t low, uint64_t high) {
    return lanes_from_bytes(vcombine_s8(vcreate_s8(low), vcreate_s8(high)));
}
SLM_INLINE lanes lanes_load_u8(const void *p) {
    uint8x16_t bytes = vld1q_u8(p);
    uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_u8(vget_high_u8(bytes));
    uint16x4_t quads[4] = {vget_low_u16(low), vget_high_u16(low), vget_low_u16(high), vget_high_u16(high)};
    EACH_QUAD(vcvtq_f32_u32(vmovl_u16(quads[i])));
}
SLM_INLINE int8x16_t broadcast4(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}
/* Of sixteen rows: start + sum of 16 * code * x over 32 columns, exact; their 4-bit codes are a plane. An int16 holds one of 4 of
 * the 32 products of a row in each step, 15 * 127 * 8 = 15,240 in all. */
SLM_INLINE lanes lanes_dot_high(const uint8_t *plane, const int8_t *x, int start) {
    int32x4_t dots[4];
    for (int i = 0; i < 4; i++) {
        int16x8_t first = vdupq_n_s16(0), last = first; /* rows 4 i and 4 i + 1, and the other two */
        for (int s = 0; s < 4; s++) {
            uint8x16_t line = vld1q_u8(plane + 64 * s + 16 * i);
            int8x16_t low = vreinterpretq_s8_u8(vandq_u8(line, vdupq_n_u8(15)));
            int8x16_t high = vreinterpretq_s8_u8(vshrq_n_u8(line, 4));
            int8x16_t four = broadcast4(x + 4 * s), other = broadcast4(x + 16 + 4 * s);
            first = vmlal_s8(vmlal_s8(first, vget_low_s8(low), vget_low_s8(four)), vget_low_s8(high), vget_low_s8(other));
            last = vmlal_s8(vmlal_s8(last, vget_high_s8(low), vget_high_s8(four)), vget_high_s8(high), vget_high_s8(other));
        }
        int32x4_t sums = vpaddq_s32(vpaddlq_s16(first), vpaddlq_s16(last));
        dots[i] = vaddq_s32(vdupq_n_s32(start), vshlq_n_s32(sums, 4));
    }
    return lanes_from_i32(dots);
}
/* 64 bytes below 16 become table[byte]. */
SLM_INLINE void lookup_64(const uint8_t *table, uint8_t *bytes) {
    uint8x16_t values = vld1q_u8(table);
    for (int i = 0; i < 64; i += 16) vst1q_u8(bytes + i, vqtbl1q_u8(values, vld1q_u8(bytes + i)));
}
/* Sixteen pairs of 16-bit elements: the first and the second of each. */
SLM_INLINE void lanes_load_f16_pairs(const void *p, lanes *first, lanes *second) {
    const uint16_t *halves = p;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        uint16x4x2_t pairs = vld2_u16(halves + 8 * i);
        first->v[i] = widen_f16(pairs.val[0]);
        second->v[i] = widen_f16(pairs.val[1]);
    }
}
SLM_INLINE void lanes_load_bf16_pairs(const void *p, lanes *first, lanes *second) {
    const uint32_t *pairs = p;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        uint32x4_t quad = vld1q_u32(pairs + 4 * i);
        first->v[i] = vreinterpretq_f32_u32(vshlq_n_u32(quad, 16));
        second->v[i] = vreinterpretq_f32_u32(vandq_u32(quad, vdupq_n_u32(0xffff0000)));
    }
}
/* Byte `byte` of each of sixteen groups of four. */
SLM_INLINE lanes lanes_load_bytes(const uint8_t *p, int byte) {
    int32x4_t down = vdupq_n_s32(-8 * byte);
    uint32x4_t mask = vdupq_n_u32(0xff);
    EACH_QUAD(vcvtq_f32_u32(vandq_u32(vshlq_u32(vreinterpretq_u32_u8(vld1q_u8(p + 16 * i)), down), mask)));
}
SLM_INLINE float32x4_t round_bf16_quad(float32x4_t a) {
    uint32x4_t bits = vreinterpretq_u32_f32(a), odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    bits = vaddq_u32(bits, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
    bits = vandq_u32(bits, vdupq_n_u32(0xffff0000));
    return vbslq_f32(vceqq_f32(a, a), vreinterpretq_f32_u32(bits), a);
}
/* Finite lanes to the nearest bf16 value, ties to even. */
SLM_INLINE lanes lanes_round_bf16(lanes a) {
    EACH_QUAD(round_bf16_quad(a.v[i]));
}
SLM_INLINE int16x8_t narrow(float32x4_t low, float32x4_t high) {
    return vcombine_s16(vqmovn_s32(vcvtq_s32_f32(low)), vqmovn_s32(vcvtq_s32_f32(high)));
}
/* Whole numbers -128 .. 127 to bytes. */
SLM_INLINE void lanes_store_i8(int8_t *p, lanes a) {
    vst1q_s8(p, vcombine_s8(vqmovn_s16(narrow(a.v[0], a.v[1])), vqmovn_s16(narrow(a.v[2], a.v[3]))));
}
/* The tree: lanes i and i + 8, then i + 4, i + 2, i + 1. */
SLM_INLINE float lanes_sum(lanes a) {
    float32x4_t b = vaddq_f32(vaddq_f32(a.v[0], a.v[2]), vaddq_f32(a.v[1], a.v[3]));
    float32x2_t c = vadd_f32(vget_low_f32(b), vget_high_f32(b));
    return vget_lane_f32(c, 0) + vget_lane_f32(c, 1);
}
SLM_INLINE float lanes_max_of(lanes a) {
    float32x4_t b = max_quad(max_quad(a.v[0], a.v[2]), max_quad(a.v[1], a.v[3]));
    float32x2_t c = vget_low_f32(b), d = vget_high_f32(b);
    c = vbsl_f32(vcgt_f32(c, d), c, d);
    float first = vget_lane_f32(c, 0), second = vget_lane_f32(c, 1);
    return first > second ? first : second;
}
/* The largest lane of each of four; NaN as lanes_max has it. */
SLM_INLINE void lanes_max_of_4(const lanes a[4], float *max) {
    for (int i = 0; i < 4; i++) max[i] = lanes_max_of(a[i]);
}
/* The sum of each of four whose sums are exact in any order. */
SLM_INLINE void lanes_sum_of_4(const lanes a[4], float *sum) {
    for (int i = 0; i < 4; i++) sum[i] = lanes_sum(a[i]);
}

enum { PRODUCT_CHAINS = 4 /* accumulators of product_tile that registers hold */ };
