/* SPDX-License-Identifier: Apache-2.0
 * space_marker.h: U+2581, which stands for a space in the pieces of vocabularies made by SentencePiece. */
#ifndef SLM_TEXT_SPACE_MARKER_H
#define SLM_TEXT_SPACE_MARKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SLM_SPACE_MARKER_SIZE = 3 };

static inline bool slm_space_marker_at(const uint8_t *text, size_t size) {
    return size >= SLM_SPACE_MARKER_SIZE && text[0] == 0xE2 && text[1] == 0x96 && text[2] == 0x81;
}

/* Copies text with a space for every marker; out: [size] is room enough and may be text. Returns how many bytes it wrote. */
size_t slm_space_marker_decode(const uint8_t *text, size_t size, uint8_t *out);

#endif
