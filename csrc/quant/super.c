/* SPDX-License-Identifier: Apache-2.0
 * super.c: blocks of 256 with scales in two levels, as GGUF files hold them. Subtracted minimums become added ones by the sign of
 * their f16 factor. Where parts of codes share bytes, element 32 j + i of a run of bytes stands in byte i, field j. */
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

/* n codes, a multiple of 8: the low bits of each from one byte, those above them from another. */
static inline void join(fields low, fields high, int n, uint8_t *codes) {
    for (int i = 0; i < n; i += 8) {
        uint64_t word = eight_fields(low, i) | eight_fields(high, i) << low.bits;
        memcpy(codes + i, &word, 8);
    }
}

static inline void copy(fields from, int n, uint8_t *codes) {
    join(from, (fields){from.bytes, 0, 0}, n, codes);
}

static void read_d_and_dmin(const uint8_t *bytes, slm_parts *parts) {
    memcpy(&parts->d, bytes, 2);
    memcpy(&parts->m, bytes + 2, 2);
    parts->m ^= 0x8000;
}

/* 16 bytes of a scale (low nibble) and a minimum, 64 bytes of codes, d f16, dmin f16: value = d * scale * code - dmin * min. */
void slm_split_q2_k(const uint8_t *block, slm_parts *parts) {
    for (int i = 0; i < 16; i++) {
        parts->scales[i] = block[i] & 15;
        parts->mins[i] = (int8_t)(block[i] >> 4);
    }
    for (int j = 0; j < 8; j++) copy((fields){block + 16 + 32 * (j / 4), 2 * (j % 4), 2}, 32, parts->codes + 32 * j);
    read_d_and_dmin(block + 80, parts);
}

/* 32 bytes of third bits, 64 of codes, 12 of scales, d f16: value = d * (scale - 32) * (code - 4). Of the scales bytes 0 .. 7
 * hold the low halves of 0 .. 7 and of 8 .. 15, bytes 8 .. 11 four pairs of high bits each. */
void slm_split_q3_k(const uint8_t *block, slm_parts *parts) {
    const uint8_t *scales = block + 96;
    for (int i = 0; i < 16; i++) {
        int low = scales[i % 8] >> i / 8 * 4 & 15, high = scales[8 + i % 4] >> i / 4 * 2 & 3;
        parts->scales[i] = (int8_t)((low | high << 4) - 32);
    }
    for (int j = 0; j < 8; j++) {
        fields low = {block + 32 + 32 * (j / 4), 2 * (j % 4), 2}, high = {block, j, 1};
        join(low, high, 32, parts->codes + 32 * j);
    }
    memcpy(&parts->d, block + 108, 2);
    parts->m = 0;
}

/* d f16, dmin f16, then 8 scales and 8 minimums of 6 bits in 12 bytes: the first four of each in the low bits of bytes 0 .. 7,
 * the others as nibbles of bytes 8 .. 11 with their high bits on top of bytes 0 .. 7. */
static void split_scales_and_mins(const uint8_t *block, slm_parts *parts) {
    read_d_and_dmin(block, parts);
    const uint8_t *packed = block + 4;
    for (int i = 0; i < 4; i++) {
        parts->scales[i] = packed[i] & 63;
        parts->mins[i] = packed[i + 4] & 63;
        parts->scales[i + 4] = (int8_t)((packed[i + 8] & 15) | packed[i] >> 6 << 4);
        parts->mins[i + 4] = (int8_t)(packed[i + 8] >> 4 | packed[i + 4] >> 6 << 4);
    }
}

/* 16 bytes of scales, 128 of codes: value = d * scale * code - dmin * min. */
void slm_split_q4_k(const uint8_t *block, slm_parts *parts) {
    split_scales_and_mins(block, parts);
    for (int j = 0; j < 8; j++) copy((fields){block + 16 + 32 * (j / 2), 4 * (j % 2), 4}, 32, parts->codes + 32 * j);
}

/* As Q4_K, with 32 bytes of fifth bits before the codes. */
void slm_split_q5_k(const uint8_t *block, slm_parts *parts) {
    split_scales_and_mins(block, parts);
    for (int j = 0; j < 8; j++) {
        fields low = {block + 48 + 32 * (j / 2), 4 * (j % 2), 4}, high = {block + 16, j, 1};
        join(low, high, 32, parts->codes + 32 * j);
    }
}

/* 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, d f16: value = d * scale * (code - 32). The nibbles of 128
 * elements fill 64 bytes: the low ones first. */
void slm_split_q6_k(const uint8_t *block, slm_parts *parts) {
    for (int j = 0; j < 8; j++) {
        fields low = {block + 64 * (j / 4) + 32 * (j % 2), 4 * (j / 2 % 2), 4},
               high = {block + 128 + 32 * (j / 4), 2 * (j % 4), 2};
        join(low, high, 32, parts->codes + 32 * j);
    }
    memcpy(parts->scales, block + 192, 16);
    memcpy(&parts->d, block + 208, 2);
    parts->m = 0;
}

/* d f16, 8 pairs of high scale bits in 2 bytes, 8 low nibbles in 4, then 8 x 16 bytes of nibbles as in IQ4_NL: value = d * (scale
 * - 32) * table[code]. */
void slm_split_iq4_xs(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    for (int i = 0; i < 8; i++) {
        int low = block[4 + i / 2] >> i % 2 * 4 & 15, high = block[2 + i / 4] >> i % 4 * 2 & 3;
        parts->scales[i] = (int8_t)((low | high << 4) - 32);
        copy((fields){block + 8 + 16 * i, 0, 4}, 16, parts->codes + 32 * i);
        copy((fields){block + 8 + 16 * i, 4, 4}, 16, parts->codes + 32 * i + 16);
    }
}
