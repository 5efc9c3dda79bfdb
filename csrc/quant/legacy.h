/* SPDX-License-Identifier: Apache-2.0
 * legacy.h: blocks of 32 with f16 scales, as GGUF files hold them. Of 4-bit codes byte i holds that of element i in its low
 * nibble and that of element i + 16 in its high one; fifth bits follow each other in 4 bytes of their own. */
#ifndef SLM_QUANT_LEGACY_H
#define SLM_QUANT_LEGACY_H

#include <string.h>

#include "quant/types.h"

/* The 16 bytes of nibbles are a plane as they are. */
static inline void copy_nibbles(const uint8_t *nibbles, slm_parts *parts) {
    memcpy(parts->planes, nibbles, 16);
}

/* Where bit a of a bit's number is set and bit b is not, it changes places with the one where it is the other way round.
 * low: those bits; distance: 2^b - 2^a. */
static inline uint32_t swap_bits(uint32_t x, int distance, uint32_t low) {
    uint32_t change = (x ^ x >> distance) & low;
    return x ^ change ^ change << distance;
}

/* Bit 4 s + i becomes bit 8 i + s: first of each byte, then pairs of bits. */
static inline void put_fifth_bits(const uint8_t fifth_bits[4], slm_parts *parts) {
    uint32_t plane;
    memcpy(&plane, fifth_bits, 4);
    plane = swap_bits(plane, 2, 0x0c0c0c0c);
    plane = swap_bits(plane, 1, 0x22222222);
    plane = swap_bits(plane, 6, 0x00cc00cc);
    plane = swap_bits(plane, 12, 0x0000f0f0);
    memcpy(parts->planes + 16, &plane, 4);
}

/* d f16, then 32 signed codes: value = d * q. */
static inline void slm_split_q8_0(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    uint64_t codes[4];
    memcpy(codes, block + 2, 32);
    for (int i = 0; i < 4; i++) codes[i] ^= 0x8080808080808080; /* q + 128 */
    memcpy(parts->planes, codes, 32);
}

/* d f16, then 16 bytes: value = d * (code - 8). */
static inline void slm_split_q4_0(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    copy_nibbles(block + 2, parts);
}

/* d f16, m f16, then 16 bytes: value = d * code + m. */
static inline void slm_split_q4_1(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    memcpy(&parts->m, block + 2, 2);
    copy_nibbles(block + 4, parts);
}

/* d f16, 4 bytes of fifth bits, then 16 bytes: value = d * (code - 16). */
static inline void slm_split_q5_0(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    copy_nibbles(block + 6, parts);
    put_fifth_bits(block + 2, parts);
}

/* d f16, m f16, 4 bytes of fifth bits, then 16 bytes: value = d * code + m. */
static inline void slm_split_q5_1(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    memcpy(&parts->m, block + 2, 2);
    copy_nibbles(block + 8, parts);
    put_fifth_bits(block + 4, parts);
}

/* As Q4_0, but value = d * table[code]. */
static inline void slm_split_iq4_nl(const uint8_t *block, slm_parts *parts) {
    slm_split_q4_0(block, parts);
}

#endif
