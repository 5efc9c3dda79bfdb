/* SPDX-License-Identifier: Apache-2.0
 * legacy.c: blocks of 32 with f16 scales, as GGUF files hold them. In 4-bit blocks byte i holds element i in its low nibble
 * and element i + 16 in its high one. */
#include <string.h>

#include "quant/types.h"

/* d f16, then 32 signed codes: value = d * q. */
void slm_split_q8_0(const uint8_t *block, slm_group *group) {
    memcpy(&group->d, block, 2);
    group->m = 0;
    for (int i = 0; i < 32; i++) group->codes[i] = block[2 + i] ^ 0x80; /* q + 128 */
}

static void split_nibbles(const uint8_t *nibbles, uint8_t *codes) {
    for (int i = 0; i < 16; i++) {
        codes[i] = nibbles[i] & 15;
        codes[i + 16] = nibbles[i] >> 4;
    }
}

/* d f16, then 16 bytes: value = d * (code - 8). */
void slm_split_q4_0(const uint8_t *block, slm_group *group) {
    memcpy(&group->d, block, 2);
    group->m = 0;
    split_nibbles(block + 2, group->codes);
}

/* d f16, m f16, then 16 bytes: value = d * code + m. */
void slm_split_q4_1(const uint8_t *block, slm_group *group) {
    memcpy(&group->d, block, 2);
    memcpy(&group->m, block + 2, 2);
    split_nibbles(block + 4, group->codes);
}
