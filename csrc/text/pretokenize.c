/* SPDX-License-Identifier: Apache-2.0
 * pretokenize.c: what each split has left is held, so that words come one by one and no text is looked at twice by a split. */
#include "text/pretokenize.h"

#include "text/splits.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

/* Finds the next match, if it is not known. */
static void look(const slm_split_rule *rule, const uint8_t *text, slm_words_level *left) {
    while (left->match == 0 && left->next < left->end) {
        slm_split_match found = rule->scan(rule, text + left->next, left->end - left->next);
        left->next += found.gap;
        left->match = found.size;
        left->part = found.part;
    }
}

/* Bytes of the match at the start of text, the first of those found. */
static size_t match_size(const slm_words_level *left, const uint8_t *text) {
    if (left->part == 0) return left->match;
    size_t at = 0, length;
    for (unsigned n = 0; n < left->part && at < left->match; n++, at += length)
        slm_utf8_read(text + at, left->match - at, &length);
    return at;
}

/* Steps behind what comes next: a match, or what lies in front of one. True: it was a match. */
static bool step_over(const slm_split_rule *rule, const uint8_t *text, slm_words_level *left) {
    look(rule, text, left);
    bool match = left->next == left->at;
    if (match) {
        size_t size = match_size(left, text + left->at);
        left->next += size;
        left->match -= size;
    }
    left->at = left->next;
    return match;
}

/* Does a match come next? */
static bool at_match(const slm_split_rule *rule, const uint8_t *text, slm_words_level *left) {
    look(rule, text, left);
    return left->at < left->end && left->next == left->at;
}

/* Takes the next piece, [*start, *end), from what is left for a split. False: nothing was left. */
static bool cut(const slm_split_step *step, const uint8_t *text, slm_words_level *left, size_t *start, size_t *end) {
    const slm_split_rule *rule = &slm_split_rules[step->kind];
    while (left->at < left->end) {
        *start = left->at;
        bool match = step_over(rule, text, left);
        switch (step->behavior) {
        case SLM_BEHAVIOR_ISOLATED: break;
        case SLM_BEHAVIOR_REMOVED:
            if (match) continue;
            break;
        case SLM_BEHAVIOR_KEPT:
            if (!match) continue;
            break;
        case SLM_BEHAVIOR_MERGED_WITH_PREVIOUS:
            if (!match && left->at < left->end) step_over(rule, text, left);
            break;
        case SLM_BEHAVIOR_MERGED_WITH_NEXT:
            if (match && left->at < left->end && !at_match(rule, text, left)) step_over(rule, text, left);
            break;
        case SLM_BEHAVIOR_CONTIGUOUS:
            while (match && at_match(rule, text, left)) step_over(rule, text, left);
            break;
        }
        *end = left->at;
        return true;
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
        if (!cut(&splits->steps[depth], words->text, &words->levels[depth], start, end)) {
            depth--;
        } else if (depth == splits->count - 1) {
            words->depth = depth;
            return true;
        } else {
            words->levels[++depth] = (slm_words_level){.at = *start, .next = *start, .end = *end};
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
