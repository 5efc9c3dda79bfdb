/* SPDX-License-Identifier: Apache-2.0
 * strings.c: the one bounded helper for vocabularies. Nothing in data is believed before it has been compared with size. */
#include <string.h>

#include "base/status.h"
#include "slm.h"

enum { LENGTH_BYTES = 8 };

static uint64_t read_u64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

slm_status slm_strings_split(const uint8_t *data, size_t size, size_t count, size_t max_string, uint64_t *offsets, char *joined,
                             size_t *consumed, slm_error *error) {
    /* Two passes, so that outputs are untouched when a string is refused. */
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        if (size - at < LENGTH_BYTES)
            return slm_fail(error, SLM_BAD_DATA, (int64_t)i,
                            "string %zu of %zu: expected 8 bytes of length at byte %zu, found %zu", i, count, at, size - at);
        uint64_t length = read_u64(data + at);
        if (length > max_string)
            return slm_fail(error, SLM_BAD_DATA, (int64_t)i,
                            "string %zu of %zu: expected at most %zu bytes, found a length of %llu", i, count, max_string,
                            (unsigned long long)length);
        at += LENGTH_BYTES;
        if (length > size - at)
            return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "string %zu of %zu: expected %llu bytes at byte %zu, found %zu", i,
                            count, (unsigned long long)length, at, size - at);
        at += (size_t)length;
    }
    size_t total = 0;
    at = 0;
    for (size_t i = 0; i < count; i++) {
        size_t length = (size_t)read_u64(data + at);
        at += LENGTH_BYTES;
        if (length) memcpy(joined + total, data + at, length);
        offsets[i] = total;
        total += length;
        at += length;
    }
    offsets[count] = total;
    *consumed = at;
    return SLM_OK;
}
