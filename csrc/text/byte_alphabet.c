/* SPDX-License-Identifier: Apache-2.0 */
#include "text/byte_alphabet.h"

/* The byte that a code point stands for, or -1. */
static int byte_of(uint32_t code_point) {
    if ((code_point >= 0x21 && code_point <= 0x7E) || (code_point >= 0xA1 && code_point <= 0xFF && code_point != 0xAD))
        return (int)code_point;
    if (code_point >= 0x100 && code_point <= 0x120) return (int)(code_point - 0x100);        /* 0x00 to 0x20 */
    if (code_point >= 0x121 && code_point <= 0x142) return (int)(code_point - 0x121 + 0x7F); /* 0x7F to 0xA0 */
    return code_point == 0x143 ? 0xAD : -1;
}

/* No character of the alphabet takes more than two bytes. */
bool slm_byte_alphabet_decode(const uint8_t *piece, size_t size, uint8_t *bytes, size_t *n_bytes) {
    size_t n = 0;
    for (size_t at = 0; at < size;) {
        uint32_t code_point = piece[at++];
        if (code_point >= 0x80) {
            if (code_point < 0xC2 || code_point > 0xC5 || at == size || (piece[at] & 0xC0) != 0x80) return false;
            code_point = (code_point & 0x1F) << 6 | (piece[at++] & 0x3F);
        }
        int byte = byte_of(code_point);
        if (byte < 0) return false;
        bytes[n++] = (uint8_t)byte;
    }
    *n_bytes = n;
    return true;
}
