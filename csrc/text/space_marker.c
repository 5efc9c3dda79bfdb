/* SPDX-License-Identifier: Apache-2.0 */
#include "text/space_marker.h"

#include <string.h>

size_t slm_space_marker_decode(const uint8_t *text, size_t size, uint8_t *out) {
    size_t n = 0;
    for (size_t at = 0; at < size;) {
        if (text[at] == 0xE2 && size - at >= 3 && text[at + 1] == 0x96 && text[at + 2] == 0x81) {
            out[n++] = ' ';
            at += 3;
        } else {
            out[n++] = text[at++];
        }
    }
    return n;
}
