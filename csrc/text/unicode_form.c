/* SPDX-License-Identifier: Apache-2.0
 * unicode_form.c: NFC, NFD, NFKC and NFKD (Unicode Standard Annex 15): decompose, order marks by their class, compose. Text is
 * worked on in stretches that begin with a character of class 0 which composes with nothing before it; most are one character
 * that is copied. */
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "text/normalize.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

enum { STEPS_PER_TICK = 1 << 14, SMALLEST = 32 };
enum { S_BASE = 0xAC00, L_BASE = 0x1100, V_BASE = 0x1161, T_BASE = 0x11A7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28 };

/* change: how many characters of the original it takes the place of, less one; it is 1 for one that was added. */
typedef struct character {
    uint32_t code_point;
    int32_t change;
    uint8_t class;
} character;

typedef struct stretch {
    character *characters; /* [count] */
    size_t count, capacity;
    character *sorted; /* [n_sorted] to order marks in */
    size_t n_sorted;
} stretch;

static uint8_t class_of(uint32_t c) {
    int low = 0, high = slm_unicode_n_classes;
    if (!(slm_unicode_class(c) & SLM_UNICODE_COMBINES)) return 0;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (slm_unicode_classes[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < slm_unicode_n_classes && slm_unicode_classes[low].first <= c ? slm_unicode_classes[low].class : 0;
}

static const uint32_t *find_mapping(const slm_unicode_mapping *m, uint32_t c, size_t *count) {
    int low = 0, high = m->count;
    while (low < high) {
        int middle = low + (high - low) / 2;
        if (m->from[middle] < c)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == m->count || m->from[low] != c) return NULL;
    *count = (size_t)(m->starts[low + 1] - m->starts[low]);
    return m->to + m->starts[low];
}

/* The decomposition, 1 to 3 code points of a syllable in `hangul`; NULL: c stays. */
static const uint32_t *decompose(uint32_t c, bool compatible, uint32_t hangul[3], size_t *count) {
    if (!(slm_unicode_class(c) & SLM_UNICODE_DECOMPOSES)) return NULL;
    if (c >= S_BASE && c < S_BASE + L_COUNT * V_COUNT * T_COUNT) {
        uint32_t s = c - S_BASE;
        hangul[0] = L_BASE + s / (V_COUNT * T_COUNT);
        hangul[1] = V_BASE + s % (V_COUNT * T_COUNT) / T_COUNT;
        hangul[2] = T_BASE + s % T_COUNT;
        *count = hangul[2] == T_BASE ? 2 : 3;
        return hangul;
    }
    const uint32_t *to = compatible ? find_mapping(&slm_unicode_compatible, c, count) : NULL;
    return to ? to : find_mapping(&slm_unicode_canonical, c, count);
}

static uint32_t compose(uint32_t a, uint32_t b) {
    if (a >= L_BASE && a < L_BASE + L_COUNT && b >= V_BASE && b < V_BASE + V_COUNT)
        return S_BASE + ((a - L_BASE) * V_COUNT + b - V_BASE) * T_COUNT;
    if (a >= S_BASE && a < S_BASE + L_COUNT * V_COUNT * T_COUNT && (a - S_BASE) % T_COUNT == 0 && b > T_BASE &&
        b < T_BASE + T_COUNT)
        return a + b - T_BASE;
    int low = 0, high = slm_unicode_n_pairs;
    while (low < high) {
        int middle = low + (high - low) / 2;
        const slm_unicode_pair *p = &slm_unicode_pairs[middle];
        if (p->first < a || (p->first == a && p->second < b))
            low = middle + 1;
        else
            high = middle;
    }
    const slm_unicode_pair *p = &slm_unicode_pairs[low];
    return low < slm_unicode_n_pairs && p->first == a && p->second == b ? p->composed : 0;
}

static slm_status add(stretch *s, uint32_t c, int32_t change, slm_error *error) {
    if (s->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : SMALLEST;
        character *grown = slm_realloc_array(s->characters, capacity, sizeof *grown);
        if (!grown) return slm_fail_memory(error);
        s->characters = grown;
        s->capacity = capacity;
    }
    s->characters[s->count] = (character){.code_point = c, .change = change, .class = class_of(c)};
    s->count++;
    return SLM_OK;
}

/* By counting, so that a text of nothing but marks takes linear time. Marks of one class keep their order. */
static slm_status order_run(stretch *s, character *run, size_t count, slm_clock *clock, slm_error *error) {
    size_t places[256] = {0}, before = 0;
    if (count > s->n_sorted) {
        slm_free(s->sorted);
        s->sorted = slm_alloc_array(s->capacity, sizeof *s->sorted);
        s->n_sorted = s->sorted ? s->capacity : 0;
        if (!s->sorted) return slm_fail_memory(error);
    }
    for (size_t i = 0; i < count; i++) {
        if ((i + 1) % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        places[run[i].class]++;
    }
    for (int class = 0; class < 256; class ++) {
        size_t n = places[class];
        places[class] = before;
        before += n;
    }
    for (size_t i = 0; i < count; i++) {
        if ((i + 1) % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        s->sorted[places[run[i].class]++] = run[i];
    }
    for (size_t i = 0; i < count; i++) {
        if ((i + 1) % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        run[i] = s->sorted[i];
    }
    return SLM_OK;
}

static bool is_ordered(const character *run, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (run[i].class < run[i - 1].class) return false;
    return true;
}

/* Runs of marks, in the order of their classes. */
static slm_status order_marks(stretch *s, slm_clock *clock, slm_error *error) {
    for (size_t start = 0, steps = 0; start < s->count; start++) {
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        if (!s->characters[start].class) continue;
        size_t end = start;
        while (end < s->count && s->characters[end].class) {
            end++;
            if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        }
        if (!is_ordered(s->characters + start, end - start)) {
            slm_status status = order_run(s, s->characters + start, end - start, clock, error);
            if (status) return status;
        }
        start = end;
    }
    return SLM_OK;
}

static slm_status compose_all(stretch *s, slm_clock *clock, slm_error *error) {
    character *c = s->characters;
    size_t kept = 0, starter = 0;
    bool has_starter = false;
    int last_class = -1; /* of what was kept behind the starter; -1: nothing */
    for (size_t i = 0; i < s->count; i++) {
        if ((i + 1) % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        uint32_t composed = has_starter && last_class < (int)c[i].class ? compose(c[starter].code_point, c[i].code_point) : 0;
        if (composed) {
            c[starter].code_point = composed;
            c[starter].change += c[i].change - 1;
            continue;
        }
        if (c[i].class == 0) {
            has_starter = true;
            starter = kept;
            last_class = -1;
        } else {
            last_class = c[i].class;
        }
        c[kept++] = c[i];
    }
    s->count = kept;
    return SLM_OK;
}

/* Writes the stretch made of in [start, ..), whose characters are used up one by one. */
static slm_status put(const stretch *s, const slm_aligned *in, size_t start, slm_aligned *out, slm_clock *clock,
                      slm_error *error) {
    slm_status status = slm_aligned_reserve(out, 4 * s->count, error);
    size_t at = start, length, before = start;
    for (size_t i = 0; i < s->count && !status; i++) {
        const character *c = &s->characters[i];
        if ((i + 1) % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        if (c->change > 0) {
            slm_normalize_put(out, c->code_point, slm_aligned_origin(in, before));
            continue;
        }
        slm_normalize_put(out, c->code_point, slm_aligned_origin(in, at < in->size ? at : before));
        for (int32_t used = 0; used <= -c->change && at < in->size; used++) {
            before = at;
            slm_utf8_read(in->bytes + at, in->size - at, &length);
            at += length;
        }
    }
    return status;
}

/* Is a character that needs no work here followed by one that may combine with it? Then it does. */
static bool is_stable(const slm_aligned *in, size_t at, size_t *length) {
    uint32_t c = in->bytes[at], busy = SLM_UNICODE_DECOMPOSES | SLM_UNICODE_COMBINES;
    *length = 1;
    if (c >= 0x80) c = slm_utf8_read(in->bytes + at, in->size - at, length);
    if (slm_unicode_class(c) & busy) return false;
    size_t next = at + *length, unused;
    if (next == in->size || in->bytes[next] < 0x80) return true;
    return !(slm_unicode_class(slm_utf8_read(in->bytes + next, in->size - next, &unused)) & SLM_UNICODE_COMBINES);
}

/* Decomposes the stretch at `at` and says where the next begins. */
static slm_status read_stretch(const slm_aligned *in, size_t *at, bool compatible, stretch *s, slm_clock *clock,
                               slm_error *error) {
    slm_status status = SLM_OK;
    size_t length, steps = 0;
    s->count = 0;
    for (size_t start = *at; *at < in->size && !status; *at += length) {
        uint32_t c = slm_utf8_read(in->bytes + *at, in->size - *at, &length), hangul[3];
        if (*at > start && !(slm_unicode_class(c) & SLM_UNICODE_COMBINES)) break;
        if (c == SLM_UTF8_INVALID && length == 1) break;
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        size_t n = 0;
        const uint32_t *to = decompose(c, compatible, hangul, &n);
        if (!to) status = add(s, c, 0, error);
        for (size_t i = 0; i < n && !status; i++) status = add(s, to[i], i > 0, error);
    }
    return status;
}

slm_status slm_normalize_unicode(slm_unicode_form form, const slm_aligned *in, slm_aligned *out, slm_clock *clock,
                                 slm_error *error) {
    stretch s = {0};
    size_t copied = 0, length, steps = 0;
    slm_status status = slm_aligned_reserve(out, in->size, error);
    for (size_t at = 0; at < in->size && !status;) {
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) {
            status = slm_fail_cancelled(error);
            break;
        }
        if (is_stable(in, at, &length)) {
            at += length;
            continue;
        }
        size_t start = at;
        status = read_stretch(in, &at, form.compatible, &s, clock, error);
        if (at == start && !status) { /* a byte of no character is left as it is */
            at++;
            continue;
        }
        if (!status) status = slm_aligned_reserve(out, start - copied, error);
        if (status) break;
        slm_aligned_copy(out, in, copied, start - copied);
        status = order_marks(&s, clock, error);
        if (form.composed && !status) status = compose_all(&s, clock, error);
        if (!status) status = put(&s, in, start, out, clock, error);
        copied = at;
    }
    if (!status) status = slm_aligned_reserve(out, in->size - copied, error);
    if (!status) slm_aligned_copy(out, in, copied, in->size - copied);
    slm_free(s.sorted);
    slm_free(s.characters);
    return status;
}
