/* SPDX-License-Identifier: Apache-2.0
 * pretokenize.c: what each split has left is held, so that words come one by one and no text is looked at twice by a split. */
#include "text/pretokenize.h"

#include "text/splits.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

/* Bytes of the first match of those found. */
static size_t first_size(const slm_split_match *found, const uint8_t *text) {
    if (found->part == 0) return found->size;
    size_t at = 0, length;
    for (unsigned n = 0; n < found->part && at < found->size; n++, at += length)
        slm_utf8_read(text + at, found->size - at, &length);
    return at;
}

/* Takes the next piece, [*start, *end), from what is left for a split. False: nothing was left. */
static bool cut(const slm_split_rule *rule, const uint8_t *text, slm_words_level *left, size_t *start, size_t *end) {
    while (left->at < left->end) {
        size_t from = left->at, at = from;
        slm_split_match found = {.size = left->match, .part = left->part};
        while (found.size == 0 && at < left->end) {
            found = rule->scan(rule, text + at, left->end - at);
            at += found.gap;
        }
        bool match = at == from;
        size_t size = match ? first_size(&found, text + at) : 0; /* behind a gap the match comes next */
        left->at = at + size;
        left->match = found.size - size;
        left->part = found.part;
        *start = from;
        *end = left->at;
        if (rule->keep == SLM_SPLIT_KEEP_ALL || (rule->keep == SLM_SPLIT_KEEP_MATCHES) == match) return true;
    }
    return false;
}

void slm_words_start(slm_words *words, const slm_splits *splits, const uint8_t *text, size_t size) {
    words->splits = splits;
    words->text = text;
    words->depth = 0;
    words->levels[0] = (slm_words_level){.end = size};
}

bool slm_words_next(slm_words *words, size_t *start, size_t *end) {
    const slm_splits *splits = words->splits;
    int depth = words->depth;
    if (splits->count == 0) {
        *start = words->levels[0].at;
        *end = words->levels[0].at = words->levels[0].end;
        return *start < *end;
    }
    while (depth >= 0) {
        if (!cut(&slm_split_rules[splits->kinds[depth]], words->text, &words->levels[depth], start, end)) {
            depth--;
        } else if (depth == splits->count - 1) {
            words->depth = depth;
            return true;
        } else {
            words->levels[++depth] = (slm_words_level){.at = *start, .end = *end};
        }
    }
    return false;
}

static size_t run_of(const uint8_t *text, size_t size, bool space) {
    size_t at = 0, length;
    for (; at < size; at += length)
        if (((slm_unicode_class(slm_utf8_read(text + at, size - at, &length)) & SLM_UNICODE_SPACE) != 0) != space) break;
    return at;
}

size_t slm_pretokenize_white_space(const uint8_t *text, size_t size) {
    return run_of(text, size, true);
}

size_t slm_pretokenize_until_white_space(const uint8_t *text, size_t size) {
    return run_of(text, size, false);
}
