/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/stop.h"

#include <string.h>

bool slm_stop_find(const slm_strings *stops, const char *text, size_t size, size_t *show) {
    *show = size;
    for (size_t at = 0; at < size; at++) {
        for (size_t i = 0; i < stops->count; i++) {
            const char *stop = stops->bytes + stops->offsets[i];
            size_t stop_size = (size_t)(stops->offsets[i + 1] - stops->offsets[i]), left = size - at;
            if (memcmp(text + at, stop, stop_size < left ? stop_size : left)) continue;
            if (stop_size <= left) {
                *show = at;
                return true;
            }
            if (at < *show) *show = at;
        }
    }
    return false;
}
