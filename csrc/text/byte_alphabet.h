/* SPDX-License-Identifier: Apache-2.0
 * byte_alphabet.h: the alphabet of GPT-2, in which byte-level vocabularies are published. Printable Latin-1 bytes stand for
 * themselves, the other 68 are the code points from U+0100 on, in the order of the bytes. */
#ifndef SLM_TEXT_BYTE_ALPHABET_H
#define SLM_TEXT_BYTE_ALPHABET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Translates UTF-8 of the alphabet into the bytes meant; bytes: [size] is always room enough.
 * false: some character is not of the alphabet. */
bool slm_byte_alphabet_decode(const uint8_t *piece, size_t size, uint8_t *bytes, size_t *n_bytes);

#endif
