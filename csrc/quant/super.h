/* SPDX-License-Identifier: Apache-2.0
 * super.h: blocks of 256 with scales in two levels, as GGUF files hold them. Subtracted minimums become added ones by the sign of
 * their f16 factor. Where parts of codes share bytes, element 32 j + i of a run of bytes stands in byte i, field j. */
#ifndef SLM_QUANT_SUPER_H
#define SLM_QUANT_SUPER_H

#include <string.h>

#include "quant/types.h"

/* A field of so many bits in each of some bytes, from bit `shift` up. */
typedef struct fields {
    const uint8_t *bytes;
    int shift, bits;
} fields;

static inline uint64_t eight_fields(fields from, int i) {
    uint64_t word;
    memcpy(&word, from.bytes + i, 8);
    return word >> from.shift & 0x0101010101010101u * ((1u << from.bits) - 1);
}

/* The fields of 32 bytes as a plane, two words at a time. */
static inline __attribute__((always_inline)) void put_plane(fields from, uint8_t *plane) {
    uint64_t a = eight_fields(from, 0), b = eight_fields(from, 8), c = eight_fields(from, 16), d = eight_fields(from, 24);
    if (from.bits == 4) {
        uint64_t words[] = {a | c << 4, b | d << 4};
        memcpy(plane, words, 16);
    } else {
        uint64_t words = a | b << 2 | c << 4 | d << 6;
        if (from.bits == 1) words |= words >> 32 << 1; /* the odd steps */
        memcpy(plane, &words, (size_t)from.bits * 4);
    }
}

static inline void read_d_and_dmin(const uint8_t *bytes, slm_parts *parts) {
    memcpy(&parts->d, bytes, 2);
    memcpy(&parts->m, bytes + 2, 2);
    parts->m ^= 0x8000;
}

/* 16 bytes of a scale (low nibble) and a minimum, 64 bytes of codes, d f16, dmin f16: value = d * scale * code - dmin * min. */
static inline void slm_split_q2_k(const uint8_t *block, slm_parts *parts) {
    for (int i = 0; i < 16; i++) {
        parts->scales[i] = block[i] & 15;
        parts->mins[i] = (int8_t)(block[i] >> 4);
    }
    for (int j = 0; j < 8; j++) put_plane((fields){block + 16 + 32 * (j / 4), 2 * (j % 4), 2}, parts->planes + 8 * j);
    read_d_and_dmin(block + 80, parts);
}

/* 32 bytes of third bits, 64 of codes, 12 of scales, d f16: value = d * (scale - 32) * (code - 4). Of the scales bytes 0 .. 7
 * hold the low halves of 0 .. 7 and of 8 .. 15, bytes 8 .. 11 four pairs of high bits each. */
static inline void slm_split_q3_k(const uint8_t *block, slm_parts *parts) {
    const uint8_t *scales = block + 96;
    for (int i = 0; i < 16; i++) {
        int low = scales[i % 8] >> i / 8 * 4 & 15, high = scales[8 + i % 4] >> i / 4 * 2 & 3;
        parts->scales[i] = (int8_t)((low | high << 4) - 32);
    }
    for (int j = 0; j < 8; j++) {
        put_plane((fields){block + 32 + 32 * (j / 4), 2 * (j % 4), 2}, parts->planes + 12 * j);
        put_plane((fields){block, j, 1}, parts->planes + 12 * j + 8);
    }
    memcpy(&parts->d, block + 108, 2);
    parts->m = 0;
}

/* d f16, dmin f16, then 8 scales and 8 minimums of 6 bits in 12 bytes: the first four of each in the low bits of bytes 0 .. 7,
 * the others as nibbles of bytes 8 .. 11 with their high bits on top of bytes 0 .. 7. */
static inline void split_scales_and_mins(const uint8_t *block, slm_parts *parts) {
    read_d_and_dmin(block, parts);
    uint32_t packed[3], low6 = 0x3f3f3f3f, low4 = 0x0f0f0f0f, top2 = 0x30303030;
    memcpy(packed, block + 4, sizeof packed);
    uint32_t scales[] = {packed[0] & low6, (packed[2] & low4) | (packed[0] >> 2 & top2)};
    uint32_t mins[] = {packed[1] & low6, (packed[2] >> 4 & low4) | (packed[1] >> 2 & top2)};
    memcpy(parts->scales, scales, sizeof scales);
    memcpy(parts->mins, mins, sizeof mins);
}

/* 16 bytes of scales, 128 of codes: value = d * scale * code - dmin * min. */
static inline void slm_split_q4_k(const uint8_t *block, slm_parts *parts) {
    split_scales_and_mins(block, parts);
    for (int j = 0; j < 8; j++) put_plane((fields){block + 16 + 32 * (j / 2), 4 * (j % 2), 4}, parts->planes + 16 * j);
}

/* As Q4_K, with 32 bytes of fifth bits before the codes. */
static inline void slm_split_q5_k(const uint8_t *block, slm_parts *parts) {
    split_scales_and_mins(block, parts);
    for (int j = 0; j < 8; j++) {
        put_plane((fields){block + 48 + 32 * (j / 2), 4 * (j % 2), 4}, parts->planes + 20 * j);
        put_plane((fields){block + 16, j, 1}, parts->planes + 20 * j + 16);
    }
}

/* 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, d f16: value = d * scale * (code - 32). The nibbles of 128
 * elements fill 64 bytes: the low ones first. */
static inline void slm_split_q6_k(const uint8_t *block, slm_parts *parts) {
    for (int j = 0; j < 8; j++) {
        put_plane((fields){block + 64 * (j / 4) + 32 * (j % 2), 4 * (j / 2 % 2), 4}, parts->planes + 24 * j);
        put_plane((fields){block + 128 + 32 * (j / 4), 2 * (j % 4), 2}, parts->planes + 24 * j + 16);
    }
    memcpy(parts->scales, block + 192, 16);
    memcpy(&parts->d, block + 208, 2);
    parts->m = 0;
}

/* d f16, 8 pairs of high scale bits in 2 bytes, 8 low nibbles in 4, then 8 x 16 bytes of nibbles as in IQ4_NL: value = d * (scale
 * - 32) * table[code]. */
static inline void slm_split_iq4_xs(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    for (int i = 0; i < 8; i++) {
        int low = block[4 + i / 2] >> i % 2 * 4 & 15, high = block[2 + i / 4] >> i % 4 * 2 & 3;
        parts->scales[i] = (int8_t)((low | high << 4) - 32);
    }
    memcpy(parts->planes, block + 8, 128); /* nibbles of 32 elements are a plane as they are */
}

#endif
