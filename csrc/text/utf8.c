/* SPDX-License-Identifier: Apache-2.0 */
#include "text/utf8.h"

#include <string.h>

#include "base/arith.h"
#include "text/buffers.h"

size_t slm_utf8_prefix(const uint8_t *bytes, size_t size) {
    size_t whole = slm_utf8_length(bytes[0]);
    if (whole < 2 || size < 2 || !slm_utf8_second(bytes[0], bytes[1])) return 1;
    size_t n = 2;
    while (n < whole && n < size && (bytes[n] & 0xC0) == 0x80) n++;
    return n;
}

uint32_t slm_utf8_read(const uint8_t *bytes, size_t size, size_t *length) {
    size_t whole = slm_utf8_length(bytes[0]);
    if (whole == 1 || whole == 0 || slm_utf8_prefix(bytes, size) < whole) {
        *length = 1;
        return whole == 1 ? bytes[0] : SLM_UTF8_INVALID;
    }
    uint32_t code_point = bytes[0] & (0x7Fu >> whole);
    for (size_t i = 1; i < whole; i++) code_point = code_point << 6 | (bytes[i] & 0x3F);
    *length = whole;
    return code_point;
}

static void append(slm_text *text, const void *bytes, size_t size) {
    memcpy(text->bytes + text->size, bytes, size);
    text->size += size;
}

static void append_replacement(slm_text *text) {
    append(text, "\xEF\xBF\xBD", 3);
}

slm_status slm_utf8_push(slm_utf8_stream *stream, const char *bytes, size_t size, bool finish, slm_text *text, slm_error *error) {
    /* Each byte can become a replacement of three: with that room nothing below can fail. */
    size_t room;
    if (!slm_mul_size(size, 3, &room) || !slm_add_size(room, 3 * sizeof stream->held, &room))
        return slm_text_too_large(size, error);
    slm_status status = slm_text_reserve(text, room, error);
    if (status) return status;

    const uint8_t *next = (const uint8_t *)bytes, *end = next + size;
    while (next < end) {
        if (!stream->n_held && *next < 0x80) {
            const uint8_t *start = next;
            while (next < end && *next < 0x80) next++;
            append(text, start, (size_t)(next - start));
            continue;
        }
        stream->held[stream->n_held++] = *next++;
        size_t prefix = slm_utf8_prefix(stream->held, stream->n_held), whole = slm_utf8_length(stream->held[0]);
        if (prefix < stream->n_held) {
            /* What was held cannot go on: it is one replacement, and the newest byte is looked at again. */
            append_replacement(text);
            stream->n_held = 0;
            next--;
        } else if (whole == 0) {
            append_replacement(text);
            stream->n_held = 0;
        } else if (prefix == whole) {
            append(text, stream->held, whole);
            stream->n_held = 0;
        }
    }
    if (finish && stream->n_held) {
        append_replacement(text);
        stream->n_held = 0;
    }
    return SLM_OK;
}
