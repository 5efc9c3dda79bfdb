/* SPDX-License-Identifier: Apache-2.0
 * legacy.c: blocks of 32 with f16 scales, as GGUF files hold them. Of 4-bit codes byte i holds that of element i in its low
 * nibble and that of element i + 16 in its high one; fifth bits follow each other in 4 bytes of their own. */
#include <string.h>

#include "quant/types.h"

static void split_nibbles(const uint8_t *nibbles, uint8_t *codes) {
    for (int i = 0; i < 16; i++) {
        codes[i] = nibbles[i] & 15;
        codes[i + 16] = nibbles[i] >> 4;
    }
}

static void add_fifth_bits(const uint8_t *bits, uint8_t *codes) {
    for (int i = 0; i < 4; i++) { /* bit j of a byte to bit 4 of byte j */
        uint64_t word, each = 0x0101010101010101u * bits[i] & 0x8040201008040201;
        memcpy(&word, codes + 8 * i, 8);
        word |= ((each + 0x7f7f7f7f7f7f7f7f) & 0x8080808080808080) >> 3;
        memcpy(codes + 8 * i, &word, 8);
    }
}

/* d f16, then 32 signed codes: value = d * q. */
void slm_split_q8_0(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    parts->m = 0;
    for (int i = 0; i < 32; i++) parts->codes[i] = block[2 + i] ^ 0x80; /* q + 128 */
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
    split_nibbles(block + 6, parts->codes);
    add_fifth_bits(block + 2, parts->codes);
}

/* d f16, m f16, 4 bytes of fifth bits, then 16 bytes: value = d * code + m. */
void slm_split_q5_1(const uint8_t *block, slm_parts *parts) {
    memcpy(&parts->d, block, 2);
    memcpy(&parts->m, block + 2, 2);
    split_nibbles(block + 8, parts->codes);
    add_fifth_bits(block + 4, parts->codes);
}

/* As Q4_0, but value = d * table[code]. */
void slm_split_iq4_nl(const uint8_t *block, slm_parts *parts) {
    slm_split_q4_0(block, parts);
}
