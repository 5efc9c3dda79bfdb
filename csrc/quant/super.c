/* SPDX-License-Identifier: Apache-2.0
 * super.c: blocks of 256 with scales in two levels, as GGUF files hold them. Subtracted minimums become added ones by the sign of
 * their f16 factor. Where parts of codes share bytes, element 32 j + i of a run of bytes stands in byte i, field j. */
#include <string.h>

#include "quant/types.h"

/* Field `shift` of width `bits` of n bytes, added to n codes at bit `to`. */
static void add_field(const uint8_t *bytes, int shift, int bits, int to, int n, uint8_t *codes) {
    int mask = (1 << bits) - 1;
    for (int i = 0; i < n; i++) codes[i] |= (uint8_t)((bytes[i] >> shift & mask) << to);
}

/* Low and high nibbles of 4 x 32 bytes. */
static void add_nibbles(const uint8_t *bytes, uint8_t *codes) {
    for (int j = 0; j < 8; j++) add_field(bytes + 32 * (j / 2), 4 * (j % 2), 4, 0, 32, codes + 32 * j);
}

/* Four pairs of bits in each of 2 x 32 bytes. */
static void add_pairs(const uint8_t *bytes, int to, uint8_t *codes) {
    for (int j = 0; j < 8; j++) add_field(bytes + 32 * (j / 4), 2 * (j % 4), 2, to, 32, codes + 32 * j);
}

/* One bit in each of 32 bytes. */
static void add_bits(const uint8_t *bytes, int to, uint8_t *codes) {
    for (int j = 0; j < 8; j++) add_field(bytes, j, 1, to, 32, codes + 32 * j);
}

static void read_d_and_dmin(const uint8_t *bytes, slm_parts *parts) {
    memcpy(&parts->d, bytes, 2);
    memcpy(&parts->m, bytes + 2, 2);
    parts->m ^= 0x8000;
}

/* 16 bytes of a scale (low nibble) and a minimum, 64 bytes of codes, d f16, dmin f16: value = d * scale * code - dmin * min. */
void slm_split_q2_k(const uint8_t *block, slm_parts *parts) {
    memset(parts->codes, 0, sizeof parts->codes);
    for (int i = 0; i < 16; i++) {
        parts->scales[i] = block[i] & 15;
        parts->mins[i] = (int8_t)(block[i] >> 4);
    }
    add_pairs(block + 16, 0, parts->codes);
    read_d_and_dmin(block + 80, parts);
}

/* 32 bytes of third bits, 64 of codes, 12 of scales, d f16: value = d * (scale - 32) * (code - 4). Of the scales bytes 0 .. 7
 * hold the low halves of 0 .. 7 and of 8 .. 15, bytes 8 .. 11 four pairs of high bits each. */
void slm_split_q3_k(const uint8_t *block, slm_parts *parts) {
    memset(parts->codes, 0, sizeof parts->codes);
    const uint8_t *scales = block + 96;
    for (int i = 0; i < 16; i++) {
        int low = scales[i % 8] >> i / 8 * 4 & 15, high = scales[8 + i % 4] >> i / 4 * 2 & 3;
        parts->scales[i] = (int8_t)((low | high << 4) - 32);
    }
    add_pairs(block + 32, 0, parts->codes);
    add_bits(block, 2, parts->codes);
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
    memset(parts->codes, 0, sizeof parts->codes);
    split_scales_and_mins(block, parts);
    add_nibbles(block + 16, parts->codes);
}

/* As Q4_K, with 32 bytes of fifth bits before the codes. */
void slm_split_q5_k(const uint8_t *block, slm_parts *parts) {
    memset(parts->codes, 0, sizeof parts->codes);
    split_scales_and_mins(block, parts);
    add_nibbles(block + 48, parts->codes);
    add_bits(block + 16, 4, parts->codes);
}

/* 128 bytes of low nibbles, 64 of high pairs, 16 signed scales, d f16: value = d * scale * (code - 32). The nibbles of 128
 * elements fill 64 bytes: the low ones first. */
void slm_split_q6_k(const uint8_t *block, slm_parts *parts) {
    memset(parts->codes, 0, sizeof parts->codes);
    for (int j = 0; j < 4; j++) add_field(block + 64 * (j / 2), 4 * (j % 2), 4, 0, 64, parts->codes + 64 * j);
    add_pairs(block + 128, 4, parts->codes);
    memcpy(parts->scales, block + 192, 16);
    memcpy(&parts->d, block + 208, 2);
    parts->m = 0;
}

/* d f16, 8 pairs of high scale bits in 2 bytes, 8 low nibbles in 4, then 8 x 16 bytes of nibbles as in IQ4_NL: value = d * (scale
 * - 32) * table[code]. */
void slm_split_iq4_xs(const uint8_t *block, slm_parts *parts) {
    memset(parts->codes, 0, sizeof parts->codes);
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    for (int i = 0; i < 8; i++) {
        int low = block[4 + i / 2] >> i % 2 * 4 & 15, high = block[2 + i / 4] >> i % 4 * 2 & 3;
        parts->scales[i] = (int8_t)((low | high << 4) - 32);
        add_field(block + 8 + 16 * i, 0, 4, 0, 16, parts->codes + 32 * i);
        add_field(block + 8 + 16 * i, 4, 4, 0, 16, parts->codes + 32 * i + 16);
    }
}
