/* SPDX-License-Identifier: Apache-2.0
 * charsmap.c: SentencePiece's precompiled_charsmap: a 32-bit little-endian size, a double-array trie of that many bytes, and the
 * texts that its values point to, each ended by a zero byte. (Kudo, Richardson 2018, arXiv:1808.06226, and its trie: Yata's
 * darts-clone, whose unit has the child's offset, a leaf flag and the label.)
 *
 * As in Hugging Face's tokenizers a whole grapheme cluster of less than 6 bytes is looked up first, and what is taken is the
 * shortest prefix of it that the trie has, for the whole cluster; else each of its characters by itself. */
#include <string.h>

#include "base/status.h"
#include "text/normalize.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

/* Of published maps no text is longer than 33 bytes; the limit bounds how much a text can grow. */
enum { CLUSTER_BELOW = 6, LONGEST_TEXT = 255, STEPS_PER_TICK = 1 << 14 };

static uint32_t read_u32(const uint8_t *bytes) {
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

const char *slm_charsmap_check(const uint8_t *charsmap, size_t size) {
    if (size < 4) return "expected at least 4 bytes";
    uint32_t trie = read_u32(charsmap);
    if (trie % 4 || trie < 4) return "expected a trie of whole units of 4 bytes";
    if (trie > size - 4) return "the trie is longer than the data";
    size_t length = 0;
    for (size_t i = 4 + (size_t)trie; i < size; i++) {
        length = charsmap[i] ? length + 1 : 0;
        if (length > LONGEST_TEXT) return "expected texts of at most 255 bytes";
    }
    return length ? "expected texts that end with a zero byte" : NULL;
}

typedef struct map {
    const uint8_t *units; /* [n_units] of 4 bytes */
    size_t n_units;
    const uint8_t *texts; /* [texts_size] */
    size_t texts_size;
} map;

static bool unit_at(const map *m, uint32_t index, uint32_t *unit) {
    if (index >= m->n_units) return false;
    *unit = read_u32(m->units + 4 * (size_t)index);
    return true;
}

static uint32_t offset_of(uint32_t unit) {
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* What the shortest prefix of key that is in the trie stands for; NULL: none is. */
static const uint8_t *find(const map *m, const uint8_t *key, size_t size, size_t *length) {
    uint32_t at = 0, unit;
    if (!unit_at(m, at, &unit)) return NULL;
    at ^= offset_of(unit);
    for (size_t i = 0; i < size && key[i]; i++) {
        at ^= key[i];
        if (!unit_at(m, at, &unit) || (unit & (1u << 31 | 0xFF)) != key[i]) return NULL;
        bool leaf = unit >> 8 & 1;
        at ^= offset_of(unit);
        if (!leaf) continue;
        if (!unit_at(m, at, &unit)) return NULL;
        uint32_t value = unit & ((1u << 31) - 1);
        if (value >= m->texts_size) return NULL;
        *length = strlen((const char *)m->texts + value);
        return m->texts + value;
    }
    return NULL;
}

/* Bytes of the extended grapheme cluster at `at`, as far as it matters here: a longer one than CLUSTER_BELOW may end too early.
 */
static size_t cluster(const slm_aligned *in, size_t at) {
    const uint8_t *text = in->bytes;
    size_t length, next = at;
    if (text[at] == '\r' && at + 1 < in->size && text[at + 1] == '\n') return 2;
    uint32_t flags;
    do {
        flags = slm_unicode_class(slm_utf8_read(text + next, in->size - next, &length));
        if (flags & SLM_UNICODE_BREAKS) return next > at ? next - at : length;
        next += length;
    } while (flags & SLM_UNICODE_PREPENDS && next < in->size);
    while (next < in->size && (text[next] >= 0x80) &&
           slm_unicode_class(slm_utf8_read(text + next, in->size - next, &length)) & SLM_UNICODE_EXTENDS)
        next += length;
    return next - at;
}

/* How the characters put so far stand to those of the text, as tokenizers counts it: each takes one of the text, the next that
 * none has taken, but those that are added to a mapping's length. What a mapping leaves over is taken by the last character put;
 * at the start of the text there is none, and then all that follows is that far behind. Only kept where origins are wanted. */
typedef struct trail {
    size_t taken; /* the byte of the text where the next character is taken */
    size_t last;  /* the byte of `out` where the last character begins */
    bool added;   /* that took none: its origin is the one before's, and the next's when the mapping behind it leaves one over */
} trail;

static slm_span take(const slm_aligned *in, trail *t) {
    slm_span origin = in->origins[t->taken];
    size_t length;
    slm_utf8_read(in->bytes + t->taken, in->size - t->taken, &length);
    t->taken += length;
    return origin;
}

/* Copies in [start, end), which no mapping has changed. */
static slm_status put_unchanged(const slm_aligned *in, size_t start, size_t end, slm_aligned *out, trail *t, slm_clock *clock,
                                slm_error *error) {
    slm_status status = slm_aligned_reserve(out, end - start, error);
    if (status || start == end) return status;
    t->added = false;
    if (!in->origins || t->taken == start) {
        slm_aligned_copy(out, in, start, end - start);
        t->taken = end;
        return SLM_OK;
    }
    size_t steps = 0, length;
    for (size_t at = start; at < end; at += length) {
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        slm_utf8_read(in->bytes + at, end - at, &length);
        slm_aligned_put(out, in->bytes + at, length, take(in, t));
    }
    return SLM_OK;
}

/* Puts the characters of `to` where those of in [at, at + size) were. */
static slm_status put_mapped(const slm_aligned *in, size_t at, size_t size, const uint8_t *to, size_t to_size, slm_aligned *out,
                             trail *t, slm_error *error) {
    slm_status status = slm_aligned_reserve(out, to_size, error);
    if (status) return status;
    if (!in->origins) {
        slm_aligned_put(out, to, to_size, (slm_span){0});
        return SLM_OK;
    }
    const size_t end = at + size;
    size_t length;
    for (size_t i = 0; i < to_size; i += length) {
        t->added = at == end;
        slm_span origin = t->added ? in->origins[t->taken - 1] : take(in, t);
        if (!t->added) {
            slm_utf8_read(in->bytes + at, end - at, &length);
            at += length;
        }
        slm_utf8_read(to + i, to_size - i, &length);
        t->last = out->size;
        slm_aligned_put(out, to + i, length, origin);
    }
    if (at == end || out->size == 0) return SLM_OK;
    for (size_t i = t->last; t->added && i < out->size; i++) out->origins[i] = in->origins[t->taken];
    t->added = false;
    for (; at < end; at += length) {
        slm_utf8_read(in->bytes + at, end - at, &length);
        take(in, t);
    }
    return SLM_OK;
}

slm_status slm_normalize_charsmap(const uint8_t *charsmap, size_t size, const slm_aligned *in, slm_aligned *out, slm_clock *clock,
                                  slm_error *error) {
    uint32_t trie = read_u32(charsmap);
    map m = {.units = charsmap + 4, .n_units = trie / 4, .texts = charsmap + 4 + trie, .texts_size = size - 4 - trie};
    trail t = {0};
    size_t n, length, copied = 0, steps = 0;
    slm_status status = slm_aligned_reserve(out, in->size, error);
    for (size_t at = 0; at < in->size && !status; at += n) {
        n = cluster(in, at);
        const size_t end = at + n;
        const uint8_t *to = n < CLUSTER_BELOW ? find(&m, in->bytes + at, n, &length) : NULL;
        for (size_t character = at; character < end && !status; character += n) {
            if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
            if (!to || character > at) {
                slm_utf8_read(in->bytes + character, in->size - character, &n);
                to = find(&m, in->bytes + character, n, &length);
                if (!to) continue;
            }
            status = put_unchanged(in, copied, character, out, &t, clock, error);
            if (!status) status = put_mapped(in, character, n, to, length, out, &t, error);
            copied = character + n;
        }
        n = end - at;
    }
    return status ? status : put_unchanged(in, copied, in->size, out, &t, clock, error);
}
