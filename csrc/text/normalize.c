/* SPDX-License-Identifier: Apache-2.0
 * normalize.c: the simple steps. Unicode's forms are in unicode_form.c, SentencePiece's map in charsmap.c. */
#include "text/normalize.h"

#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/status.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

enum { STEPS_PER_TICK = 1 << 16, LONGEST_LOWERCASE = 3 * 4 };

/* Steps from a file could make more and more of a text. No character of Unicode grows more than 11 times in NFKC, and 13 times
 * where its spaces then become U+2581. */
enum { GROWTH = 32, GROWTH_OF_SHORT = 1 << 16 };

void slm_normalize_put(slm_aligned *out, uint32_t c, slm_span origin) {
    uint8_t bytes[4];
    size_t n = 0;
    if (c < 0x80) {
        bytes[n++] = (uint8_t)c;
    } else {
        if (c < 0x800) {
            bytes[n++] = (uint8_t)(0xC0 | c >> 6);
        } else {
            if (c < 0x10000) {
                bytes[n++] = (uint8_t)(0xE0 | c >> 12);
            } else {
                bytes[n++] = (uint8_t)(0xF0 | c >> 18);
                bytes[n++] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
            }
            bytes[n++] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        }
        bytes[n++] = (uint8_t)(0x80 | (c & 0x3F));
    }
    slm_aligned_put(out, bytes, n, origin);
}

/* U+3400 to U+4DBF and so on: what the original BERT calls Chinese characters. */
static bool is_cjk(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) ||
           (c >= 0x2F800 && c <= 0x2FA1F);
}

static const uint32_t *mapped(const slm_unicode_mapping *m, uint32_t code_point, size_t *count) {
    int low = 0, high = m->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (m->from[middle] < code_point)
            low = middle + 1;
        else
            high = middle;
    }
    *count = (size_t)(m->starts[low + 1] - m->starts[low]);
    return m->to + m->starts[low];
}

/* One character, of which `flags` are known, through a step that looks at one character at a time. There is room. */
static void put_changed(slm_normalizer_kind kind, const slm_aligned *in, size_t at, size_t length, uint32_t c, uint32_t flags,
                        slm_aligned *out) {
    slm_span origin = slm_aligned_origin(in, at);
    switch (kind) {
    case SLM_NORMALIZER_LOWERCASE:
        if (flags & SLM_UNICODE_LOWERCASES) {
            size_t n;
            const uint32_t *to = mapped(&slm_unicode_lowercase, c, &n);
            for (size_t i = 0; i < n; i++) slm_normalize_put(out, to[i], origin);
            return;
        }
        break;
    case SLM_NORMALIZER_STRIP_MARKS:
        if (flags & SLM_UNICODE_ACCENT) return;
        break;
    case SLM_NORMALIZER_STRIP_NONSPACING:
        if (flags & SLM_UNICODE_BERT_MARK) return;
        break;
    case SLM_NORMALIZER_CLEAN:
        if (flags & SLM_UNICODE_BERT_CONTROL && !(c == SLM_UTF8_INVALID && length == 1)) return;
        if (flags & SLM_UNICODE_SPACE) {
            slm_aligned_put(out, " ", 1, origin);
            return;
        }
        break;
    default: /* SLM_NORMALIZER_SPACE_CJK */
        if (is_cjk(c)) {
            slm_aligned_put(out, " ", 1, origin);
            slm_aligned_copy(out, in, at, length);
            slm_aligned_put(out, " ", 1, origin);
            return;
        }
    }
    slm_aligned_copy(out, in, at, length);
}

/* Flags that a step acts upon; a character without them is copied. */
static uint32_t flags_of(slm_normalizer_kind kind) {
    switch (kind) {
    case SLM_NORMALIZER_LOWERCASE: return SLM_UNICODE_LOWERCASES;
    case SLM_NORMALIZER_STRIP_MARKS: return SLM_UNICODE_ACCENT;
    case SLM_NORMALIZER_STRIP_NONSPACING: return SLM_UNICODE_BERT_MARK;
    case SLM_NORMALIZER_CLEAN: return SLM_UNICODE_BERT_CONTROL | SLM_UNICODE_SPACE;
    default: return 0; /* SLM_NORMALIZER_SPACE_CJK asks for ranges, some of which are unassigned */
    }
}

static slm_status by_characters(slm_normalizer_kind kind, const slm_aligned *in, slm_aligned *out, slm_clock *clock,
                                slm_error *error) {
    const uint32_t wanted = flags_of(kind);
    size_t length, copied = 0;
    for (size_t at = 0, steps = 0; at < in->size; at += length) {
        uint32_t c = in->bytes[at], flags;
        length = 1;
        if (c >= 0x80) c = slm_utf8_read(in->bytes + at, in->size - at, &length);
        flags = slm_unicode_class(c);
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        bool acts = kind == SLM_NORMALIZER_SPACE_CJK ? is_cjk(c) : (flags & wanted) != 0;
        if (!acts || c == ' ') continue;
        slm_status status = slm_aligned_reserve(out, at - copied + LONGEST_LOWERCASE + 4, error);
        if (status) return status;
        slm_aligned_copy(out, in, copied, at - copied);
        put_changed(kind, in, at, length, c, flags, out);
        copied = at + length;
    }
    slm_status status = slm_aligned_reserve(out, in->size - copied, error);
    if (!status) slm_aligned_copy(out, in, copied, in->size - copied);
    return status;
}

/* Where b goes for what is [start, end) of in. */
static slm_status substitute(const slm_aligned *in, size_t *copied, size_t start, size_t end, const slm_normalizer *step,
                             slm_aligned *out, slm_error *error) {
    size_t room;
    if (!slm_add_size(start - *copied, step->b_size, &room)) return slm_fail_memory(error);
    slm_status status = slm_aligned_reserve(out, room, error);
    if (status) return status;
    slm_aligned_copy(out, in, *copied, start - *copied);
    if (step->b_size) slm_aligned_put(out, step->b, step->b_size, slm_aligned_origin(in, end - 1));
    *copied = end;
    return SLM_OK;
}

static slm_status replace(const slm_normalizer *step, const slm_aligned *in, slm_aligned *out, slm_clock *clock,
                          slm_error *error) {
    size_t copied = 0;
    for (size_t at = 0, steps = 0; in->size - at >= step->a_size && at < in->size;) {
        const uint8_t *found = memchr(in->bytes + at, step->a[0], in->size - at - step->a_size + 1);
        if (!found) break;
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        at = (size_t)(found - in->bytes);
        if (memcmp(found, step->a, step->a_size) != 0) {
            at++;
            continue;
        }
        slm_status status = substitute(in, &copied, at, at + step->a_size, step, out, error);
        if (status) return status;
        at = copied;
    }
    slm_status status = slm_aligned_reserve(out, in->size - copied, error);
    if (!status) slm_aligned_copy(out, in, copied, in->size - copied);
    return status;
}

static slm_status collapse(const slm_normalizer *step, const slm_aligned *in, slm_aligned *out, slm_clock *clock,
                           slm_error *error) {
    size_t copied = 0, steps = 0;
    for (size_t at = 0; at < in->size;) {
        size_t end = at;
        while (end < in->size && in->bytes[end] == ' ') {
            end++;
            if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        }
        if (end - at >= 2) {
            slm_status status = substitute(in, &copied, at, end, step, out, error);
            if (status) return status;
        }
        const uint8_t *next = end < in->size ? memchr(in->bytes + end, ' ', in->size - end) : NULL;
        at = next ? (size_t)(next - in->bytes) : in->size;
    }
    slm_status status = slm_aligned_reserve(out, in->size - copied, error);
    if (!status) slm_aligned_copy(out, in, copied, in->size - copied);
    return status;
}

static slm_status prepend(const slm_normalizer *step, const slm_aligned *in, slm_aligned *out, slm_error *error) {
    size_t room;
    if (!slm_add_size(in->size, step->b_size, &room)) return slm_fail_memory(error);
    slm_status status = slm_aligned_reserve(out, room, error);
    if (status) return status;
    if (in->size && step->b_size) slm_aligned_put(out, step->b, step->b_size, slm_aligned_origin(in, 0));
    slm_aligned_copy(out, in, 0, in->size);
    return SLM_OK;
}

static bool is_space_at(const slm_aligned *text, size_t at, size_t *length) {
    return slm_unicode_class(slm_utf8_read(text->bytes + at, text->size - at, length)) & SLM_UNICODE_SPACE;
}

static slm_status strip(slm_normalizer_kind kind, const slm_aligned *in, slm_aligned *out, slm_clock *clock, slm_error *error) {
    size_t start = 0, end = in->size, length, steps = 0;
    if (kind == SLM_NORMALIZER_STRIP_LEFT) {
        while (start < end && is_space_at(in, start, &length)) {
            start += length;
            if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        }
    } else {
        while (end > 0) {
            size_t last = end - 1;
            while (last > 0 && end - last < 4 && (in->bytes[last] & 0xC0) == 0x80) last--;
            if (!is_space_at(in, last, &length) || last + length != end) break;
            end = last;
            if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        }
    }
    slm_status status = slm_aligned_reserve(out, end - start, error);
    if (!status) slm_aligned_copy(out, in, start, end - start);
    return status;
}

static slm_status run_step(const slm_normalizer *step, const slm_aligned *in, slm_aligned *out, slm_clock *clock,
                           slm_error *error) {
    switch (step->kind) {
    case SLM_NORMALIZER_NFC: return slm_normalize_unicode((slm_unicode_form){.composed = true}, in, out, clock, error);
    case SLM_NORMALIZER_NFD: return slm_normalize_unicode((slm_unicode_form){0}, in, out, clock, error);
    case SLM_NORMALIZER_NFKC:
        return slm_normalize_unicode((slm_unicode_form){.compatible = true, .composed = true}, in, out, clock, error);
    case SLM_NORMALIZER_NFKD: return slm_normalize_unicode((slm_unicode_form){.compatible = true}, in, out, clock, error);
    case SLM_NORMALIZER_REPLACE: return replace(step, in, out, clock, error);
    case SLM_NORMALIZER_COLLAPSE: return collapse(step, in, out, clock, error);
    case SLM_NORMALIZER_PREPEND: return prepend(step, in, out, error);
    case SLM_NORMALIZER_STRIP_LEFT:
    case SLM_NORMALIZER_STRIP_RIGHT: return strip(step->kind, in, out, clock, error);
    case SLM_NORMALIZER_CHARSMAP: return slm_normalize_charsmap(step->a, step->a_size, in, out, clock, error);
    default: return by_characters(step->kind, in, out, clock, error);
    }
}

/* Nothing of ASCII decomposes, composes or is a mark. */
static bool leaves_ascii(slm_normalizer_kind kind) {
    switch (kind) {
    case SLM_NORMALIZER_NFC:
    case SLM_NORMALIZER_NFD:
    case SLM_NORMALIZER_NFKC:
    case SLM_NORMALIZER_NFKD:
    case SLM_NORMALIZER_STRIP_MARKS:
    case SLM_NORMALIZER_STRIP_NONSPACING:
    case SLM_NORMALIZER_SPACE_CJK: return true;
    default: return false;
    }
}

static bool is_ascii(const slm_aligned *text, slm_clock *clock) {
    for (size_t at = 0; at < text->size;) {
        size_t end = text->size - at < STEPS_PER_TICK ? text->size : at + STEPS_PER_TICK;
        uint8_t bits = 0;
        for (; at < end; at++) bits |= text->bytes[at];
        if (bits >= 0x80 || slm_clock_tick(clock)) return false;
    }
    return true;
}

slm_status slm_normalize(const slm_normalizers *normalizers, slm_aligned *text, slm_aligned *spare, slm_clock *clock,
                         slm_error *error) {
    bool known = false, ascii = false;
    size_t longest = (INT32_MAX - GROWTH_OF_SHORT) / GROWTH;
    text->limit = spare->limit = (text->size < longest ? text->size * GROWTH : INT32_MAX - GROWTH_OF_SHORT) + GROWTH_OF_SHORT;
    for (size_t i = 0; i < normalizers->count; i++) {
        if (slm_clock_tick(clock)) return slm_fail_cancelled(error);
        const slm_normalizer *step = &normalizers->steps[i];
        if (leaves_ascii(step->kind)) {
            if (!known) ascii = is_ascii(text, clock);
            if (clock->cancelled) return slm_fail_cancelled(error);
            known = true;
            if (ascii) continue;
        }
        spare->size = 0;
        slm_status status = run_step(step, text, spare, clock, error);
        if (status) return status;
        slm_aligned swap = *text;
        *text = *spare;
        *spare = swap;
        if (!leaves_ascii(step->kind)) known = false;
    }
    return SLM_OK;
}

slm_status slm_normalizers_create(const slm_normalizer *steps, size_t count, slm_normalizers *n, slm_error *error) {
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        const slm_normalizer *step = &steps[i];
        if ((unsigned)step->kind > SLM_NORMALIZER_CHARSMAP)
            return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "normalizers[%zu]: no such kind: %d", i, (int)step->kind);
        if (step->kind == SLM_NORMALIZER_REPLACE && step->a_size == 0)
            return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "normalizers[%zu]: expected something to replace, found nothing", i);
        const char *wrong = step->kind == SLM_NORMALIZER_CHARSMAP ? slm_charsmap_check(step->a, step->a_size) : NULL;
        if (wrong) return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "normalizers[%zu]: precompiled_charsmap: %s", i, wrong);
        if (!slm_add_size(total, step->a_size, &total) || !slm_add_size(total, step->b_size, &total))
            return slm_fail_memory(error);
    }
    n->steps = slm_alloc_array(count, sizeof *n->steps);
    n->operands = slm_alloc(total);
    if (!n->steps || !n->operands) return slm_fail_memory(error);
    uint8_t *next = n->operands;
    for (size_t i = 0; i < count; i++) {
        n->steps[i] = steps[i];
        if (steps[i].a_size) memcpy(next, steps[i].a, steps[i].a_size);
        n->steps[i].a = next;
        next += steps[i].a_size;
        if (steps[i].b_size) memcpy(next, steps[i].b, steps[i].b_size);
        n->steps[i].b = next;
        next += steps[i].b_size;
    }
    n->count = count;
    return SLM_OK;
}

void slm_normalizers_destroy(slm_normalizers *n) {
    slm_free(n->operands);
    slm_free(n->steps);
    *n = (slm_normalizers){0};
}
