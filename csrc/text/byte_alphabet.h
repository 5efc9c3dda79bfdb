/* SPDX-License-Identifier: Apache-2.0
 * byte_alphabet.h: the alphabet of GPT-2, in which byte-level vocabularies are published. Printable Latin-1 bytes stand for
 * themselves, the other 68 are the code points from U+0100 on, in the order of the bytes. */
#ifndef SLM_TEXT_BYTE_ALPHABET_H
#define SLM_TEXT_BYTE_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The byte that a code point stands for, or -1. */
static inline int slm_byte_alphabet_read(uint32_t code_point) {
    if ((code_point >= 0x21 && code_point <= 0x7E) || (code_point >= 0xA1 && code_point <= 0xFF && code_point != 0xAD))
        return (int)code_point;
    if (code_point >= 0x100 && code_point <= 0x120) return (int)(code_point - 0x100);        /* 0x00 to 0x20 */
    if (code_point >= 0x121 && code_point <= 0x142) return (int)(code_point - 0x121 + 0x7F); /* 0x7F to 0xA0 */
    return code_point == 0x143 ? 0xAD : -1;
}

/* Translates UTF-8 of the alphabet into the bytes meant; bytes: [size] is always room enough.
 * false: some character is not of the alphabet. */
bool slm_byte_alphabet_decode(const uint8_t *piece, size_t size, uint8_t *bytes, size_t *n_bytes);

#endif
