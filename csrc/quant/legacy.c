/* SPDX-License-Identifier: Apache-2.0
 * legacy.c: blocks of 32 with f16 scales, as GGUF files hold them. Of 4-bit codes byte i holds that of element i in its low
 * nibble and that of element i + 16 in its high one; fifth bits follow each other in 4 bytes of their own. */
#include <string.h>

#include "quant/types.h"

/* 8 codes of 4 bits from the low ends of bytes, and their fifth bits, the lowest first. */
static inline void join_codes(uint64_t nibbles, uint64_t fifth_bits, uint8_t *codes) {
    uint64_t each = 0x0101010101010101u * fifth_bits & 0x8040201008040201; /* bit j in byte j, then at its top, then at bit 4 */
    uint64_t word = (nibbles & 0x0f0f0f0f0f0f0f0f) | ((each + 0x7f7f7f7f7f7f7f7f) & 0x8080808080808080) >> 3;
    memcpy(codes, &word, 8);
}

static inline void split_codes(const uint8_t *nibbles, const uint8_t fifth_bits[4], uint8_t *codes) {
    for (int i = 0; i < 2; i++) {
        uint64_t word;
        memcpy(&word, nibbles + 8 * i, 8);
        join_codes(word, fifth_bits[i], codes + 8 * i);
        join_codes(word >> 4, fifth_bits[i + 2], codes + 16 + 8 * i);
    }
}

static void split_nibbles(const uint8_t *nibbles, uint8_t *codes) {
    split_codes(nibbles, (const uint8_t[4]){0}, codes);
}

/* d f16, then 32 signed codes: value = d * q. */
void slm_split_q8_0(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    uint64_t codes[4];
    memcpy(codes, block + 2, 32);
    for (int i = 0; i < 4; i++) codes[i] ^= 0x8080808080808080; /* q + 128 */
    memcpy(parts->codes, codes, 32);
}

/* d f16, then 16 bytes: value = d * (code - 8). */
void slm_split_q4_0(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    split_nibbles(block + 2, parts->codes);
}

/* d f16, m f16, then 16 bytes: value = d * code + m. */
void slm_split_q4_1(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    memcpy(&parts->m, block + 2, 2);
    split_nibbles(block + 4, parts->codes);
}

/* d f16, 4 bytes of fifth bits, then 16 bytes: value = d * (code - 16). */
void slm_split_q5_0(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    split_codes(block + 6, block + 2, parts->codes);
}

/* d f16, m f16, 4 bytes of fifth bits, then 16 bytes: value = d * code + m. */
void slm_split_q5_1(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    memcpy(&parts->m, block + 2, 2);
    split_codes(block + 8, block + 4, parts->codes);
}

/* As Q4_0, but value = d * table[code]. */
void slm_split_iq4_nl(const uint8_t *block, slm_parts *parts) {
    slm_split_q4_0(block, parts);
}
