/* SPDX-License-Identifier: Apache-2.0 */
#include "text/space_marker.h"

#include <string.h>

size_t slm_space_marker_decode(const uint8_t *text, size_t size, uint8_t *out) {
    size_t n = 0;
    for (size_t at = 0; at < size;) {
        const uint8_t *found = memchr(text + at, 0xE2, size - at);
        size_t run = found ? (size_t)(found - text) - at : size - at;
        memmove(out + n, text + at, run);
        n += run;
        at += run;
        if (!found) break;
        bool marker = slm_space_marker_at(found, size - at);
        out[n++] = marker ? ' ' : *found;
        at += marker ? SLM_SPACE_MARKER_SIZE : 1;
    }
    return n;
}
