/* SPDX-License-Identifier: Apache-2.0
 * utf8.h: reading UTF-8 that may be broken. */
#ifndef SLM_TEXT_UTF8_H
#define SLM_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum { SLM_UTF8_INVALID = 0xFFFD };

/* How many bytes a character that begins with this byte has; 0: none begins so. */
static inline size_t slm_utf8_length(uint8_t lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xC2 || lead > 0xF4) return 0;
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* May `byte` be the second byte after `lead`? Refuses overlong forms, surrogates and what lies above U+10FFFF. */
static inline int slm_utf8_second(uint8_t lead, uint8_t byte) {
    uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    return byte >= low && byte <= high;
}

/* How many of the size >= 1 bytes are the beginning of one character: at least 1, and that character's length if it is whole. */
size_t slm_utf8_prefix(const uint8_t *bytes, size_t size);

/* The code point at bytes[0], size >= 1, and its length. A byte that begins no whole character is SLM_UTF8_INVALID of length 1.
 */
uint32_t slm_utf8_read(const uint8_t *bytes, size_t size, size_t *length);

#endif
