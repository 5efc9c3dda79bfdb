/* SPDX-License-Identifier: Apache-2.0
 * splits.c: scanners written by hand for the regular expressions of slm_split, whose alternatives are tried in their order; the
 * table at the end says which split is scanned how. */
#include "text/splits.h"

#include <string.h>

#include "text/unicode_tables.h"
#include "text/utf8.h"

/* What the scanners ask of a character. A character has one of the first three, or none of them: OTHER. */
enum {
    OTHER = 0,
    LETTER = SLM_UNICODE_LETTER,
    NUMBER = SLM_UNICODE_NUMBER,
    SPACE = SLM_UNICODE_SPACE,
    WORD_MASK = LETTER | NUMBER | SPACE,
    SIGN = SLM_UNICODE_PUNCTUATION | SLM_UNICODE_SYMBOL,
    END = 1 << 30, /* nothing follows */
};

/* What a scanner is called with. */
typedef struct scanner {
    const slm_split_rule *rule;
    const uint8_t *text;
    size_t size;
} scanner;

/* Flags of the character at `at`, and its length in bytes. */
static inline unsigned flags_at(const scanner *s, size_t at, size_t *length) {
    *length = 0;
    if (at == s->size) return END;
    if (s->text[at] < 0x80) {
        *length = 1;
        return slm_unicode_flags[s->text[at]];
    }
    unsigned flags = slm_unicode_class(slm_utf8_read(s->text + at, s->size - at, length));
    return s->rule->marks_are_letters && flags & SLM_UNICODE_MARK ? flags | LETTER : flags;
}

/* Class of the character at `at` and its length in bytes. */
static inline unsigned character(const scanner *s, size_t at, size_t *length) {
    return flags_at(s, at, length) & (WORD_MASK | END);
}

static size_t skip_run(const scanner *s, size_t at, unsigned class) {
    size_t length;
    while (character(s, at, &length) == class) at += length;
    return at;
}

/* The same of the characters that have any of these flags, none of which is END. */
static size_t skip_flagged(const scanner *s, size_t at, unsigned flags) {
    size_t length;
    while (flags_at(s, at, &length) & flags) at += length;
    return at;
}

/* ---- words that cover a text ------------------------------------------------------------------------------------------- */

/* 's|'t|'re|'ve|'m|'ll|'d: its length at the start of text, 0 if there is none. */
static size_t contraction(const scanner *s) {
    if (s->size < 2 || s->text[0] != '\'') return 0;
    switch (s->text[1]) {
    case 's':
    case 't':
    case 'm':
    case 'd': return 2;
    }
    if (s->size < 3) return 0;
    uint8_t a = s->text[1], b = s->text[2];
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ : the whole run in front of the end, else all but its last character, which may begin the next word. */
static size_t white_space(const scanner *s) {
    size_t at = 0, last = 0, length;
    unsigned class;
    while ((class = character(s, at, &length)) == SPACE) {
        last = at;
        at += length;
    }
    return class == END || last == 0 ? at : last;
}

static size_t gpt2_word_size(const scanner *s) {
    size_t length = contraction(s);
    if (length) return length;
    size_t start = 0;
    unsigned class = character(s, 0, &length);
    if (s->text[0] == ' ') {
        unsigned next = character(s, 1, &length);
        if (next != SPACE && next != END) {
            start = 1;
            class = next;
        }
    }
    return class == SPACE ? white_space(s) : skip_run(s, start + length, class);
}

static slm_split_match gpt2_word(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    return (slm_split_match){.size = gpt2_word_size(&(scanner){rule, text, size})};
}

static bool is_newline(uint8_t byte) {
    return byte == '\r' || byte == '\n';
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d) at `at`: its length, 0 if there is none. Regardless of case, U+017F is an s. */
static size_t contraction_of_any_case(const scanner *s, size_t at) {
    const uint8_t *text = s->text + at;
    size_t size = s->size - at;
    if (size < 2 || text[0] != '\'') return 0;
    uint8_t a = text[1] | 0x20;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if (size < 3) return 0;
    if (text[1] == 0xC5 && text[2] == 0xBF) return 3;
    uint8_t b = text[2] | 0x20;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* Does U or L of SLM_SPLIT_CASED_WORDS_1 hold the character? Letters without case and marks are in both. */
static bool is_upper(const scanner *s, unsigned flags) {
    if (s->rule->han_apart && flags & SLM_UNICODE_HAN) return false;
    return flags & SLM_UNICODE_MARK || (flags & LETTER && !(flags & SLM_UNICODE_LOWER));
}

static bool is_lower(const scanner *s, unsigned flags) {
    if (s->rule->han_apart && flags & SLM_UNICODE_HAN) return false;
    return flags & SLM_UNICODE_MARK || (flags & LETTER && !(flags & SLM_UNICODE_UPPER));
}

/* U*L+ at `at`: its end, or `at` if there is none. With U+L* instead when `upper_first`. The longest U* is tried first: when no L
 * follows it, the last character of it that is also an L ends the match. */
static size_t cased_letters(const scanner *s, size_t at, bool upper_first) {
    size_t start = at, last_both = at, length;
    unsigned flags;
    while (is_upper(s, flags = flags_at(s, at, &length))) {
        at += length;
        if (is_lower(s, flags)) last_both = at;
    }
    bool lower = is_lower(s, flags);
    if (!lower && !upper_first) return last_both;
    if (upper_first && at == start) return start;
    for (; is_lower(s, flags); flags = flags_at(s, at, &length)) at += length;
    return at;
}

/* A cased word, with the one character in front that it may take; 0: none begins here. */
static size_t cased_word(const scanner *s) {
    size_t length, end = 0;
    unsigned flags = flags_at(s, 0, &length);
    bool prefix = !(flags & (LETTER | NUMBER | END)) && !is_newline(s->text[0]);
    for (int upper_first = 0; upper_first < 2 && end == 0; upper_first++) {
        if (prefix && (end = cased_letters(s, length, upper_first)) == length) end = 0;
        if (end == 0) end = cased_letters(s, 0, upper_first);
    }
    return end && s->rule->contractions_at_end ? end + contraction_of_any_case(s, end) : end;
}

/* \p{L}+ , of phrases (?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+ : the end of one that begins in front of `at`. */
static size_t skip_letters(const scanner *s, size_t at) {
    size_t length;
    if (!s->rule->phrases) return skip_run(s, at, LETTER);
    for (;;) {
        at = skip_flagged(s, at, LETTER | SLM_UNICODE_MARK);
        size_t next = at + (at < s->size && s->text[at] == ' ');
        if (character(s, next, &length) != LETTER) return at;
        at = next + length;
    }
}

/* [^\r\n\p{L}\p{N}]? and letters; 0: none begins here. */
static size_t letter_word(const scanner *s) {
    size_t length, next_length;
    unsigned class = character(s, 0, &length);
    if (class == LETTER) return skip_letters(s, length);
    if (class == NUMBER || is_newline(s->text[0]) || character(s, length, &next_length) != LETTER) return 0;
    return skip_letters(s, length + next_length);
}

static size_t number_word(const scanner *s, unsigned longest) {
    size_t at = 0, length;
    for (unsigned n = 0; (longest == 0 || n < longest) && character(s, at, &length) == NUMBER; n++) at += length;
    return at;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ : to behind the last newline of the run, if there is one. */
static size_t white_space_by_lines(const scanner *s) {
    size_t at = 0, line_end = 0, length;
    while (character(s, at, &length) == SPACE) {
        at += length;
        if (is_newline(s->text[at - 1])) line_end = at;
    }
    return line_end ? line_end : white_space(s);
}

/* The same with \s{512}(?!\S)|\s{256}(?!\S)|...|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1} in the end. */
static slm_split_match white_space_in_blocks(const scanner *s) {
    enum { LONGEST = 512 };
    size_t at = 0, line_end = 0, block_end = 0, n = 0, length;
    unsigned class;
    while ((class = character(s, at, &length)) == SPACE) {
        if (n % LONGEST == 0) block_end = at; /* of the last whole one that something follows */
        at += length;
        n++;
        if (is_newline(s->text[at - 1])) line_end = at;
    }
    if (line_end) return (slm_split_match){.size = line_end};
    size_t limit = class == END ? n : n - 1; /* more are followed by \S */
    if (limit >= LONGEST) return (slm_split_match){.size = n == limit && n % LONGEST == 0 ? at : block_end, .part = LONGEST};
    size_t block = 1;
    while (2 * block <= limit) block *= 2;
    for (at = 0; block > 0; block--) {
        character(s, at, &length);
        at += length;
    }
    return (slm_split_match){.size = at};
}

/* 0: white space begins here. */
static size_t line_word_size(const scanner *s) {
    const slm_split_rule *rule = s->rule;
    size_t length;
    if (rule->han_apart) {
        size_t end = skip_flagged(s, 0, SLM_UNICODE_HAN);
        if (end) return end;
    }
    length = rule->contractions ? contraction_of_any_case(s, 0) : 0;
    if (length == 0) length = rule->cased_words ? cased_word(s) : letter_word(s);
    if (length == 0) length = number_word(s, rule->longest);
    if (length) return length;
    size_t at = s->text[0] == ' ', start = skip_run(s, at, OTHER);
    if (start == at) return 0;
    if (rule->bare_symbols) return start;
    if (rule->one_line_end) return start + (start < s->size && is_newline(s->text[start]));
    for (at = start; at < s->size && (is_newline(s->text[at]) || (rule->slashes_at_end && s->text[at] == '/'));) at++;
    return at;
}

static slm_split_match line_word(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    size_t length = line_word_size(s);
    if (length == 0 && rule->space_blocks) return white_space_in_blocks(s);
    return (slm_split_match){.size = length ? length : white_space_by_lines(s)};
}

static bool is_ascii_letter(uint8_t byte) {
    return (byte | 0x20) >= 'a' && (byte | 0x20) <= 'z';
}

static slm_split_match symbol_word(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    enum { WORD_LETTER = SLM_UNICODE_LETTER | SLM_UNICODE_MARK };
    size_t length, next_length;
    unsigned flags = flags_at(s, 0, &length), next = flags_at(s, length, &next_length);
    if (s->text[0] < 0x80 && flags & SIGN && s->size > 1 && is_ascii_letter(s->text[1])) {
        size_t end = 1;
        while (end < s->size && is_ascii_letter(s->text[end])) end++;
        return (slm_split_match){.size = end};
    }
    bool prefix = !(flags & (LETTER | SIGN)) && !is_newline(s->text[0]) && next & WORD_LETTER;
    if (prefix || flags & WORD_LETTER) return (slm_split_match){.size = skip_flagged(s, length, WORD_LETTER)};
    size_t start = s->text[0] == ' ' && next & SIGN, end = skip_flagged(s, start, SIGN);
    if (end > start) {
        while (!rule->bare_symbols && end < s->size && is_newline(s->text[end])) end++;
        return (slm_split_match){.size = end};
    }
    if (!(flags & SPACE)) return (slm_split_match){.gap = length};
    if (!rule->bare_symbols) return (slm_split_match){.size = white_space_by_lines(s)};
    return (slm_split_match){.size = is_newline(s->text[0]) ? 1 : white_space(s)};
}

/* [^\n]+|[\n]+ */
static slm_split_match line_or_newlines(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    (void)rule;
    size_t end = 1;
    if (text[0] != '\n') {
        const uint8_t *newline = memchr(text, '\n', size);
        return (slm_split_match){.size = newline ? (size_t)(newline - text) : size};
    }
    while (end < size && text[end] == '\n') end++;
    return (slm_split_match){.size = end};
}

/* ---- runs --------------------------------------------------------------------------------------------------------------- */

/* The range of the rule that holds the code point; NULL: there is none. */
static inline const slm_code_points *range_of(const slm_split_rule *rule, uint32_t c) {
    if (rule->n_ranges == 0 || c < rule->ranges[0].first) return NULL;
    int low = 0, high = rule->n_ranges; /* the first range that does not end before c */
    while (low < high) {
        int middle = (low + high) / 2;
        if (rule->ranges[middle].last < c)
            low = middle + 1;
        else
            high = middle;
    }
    return low < rule->n_ranges && rule->ranges[low].first <= c ? &rule->ranges[low] : NULL;
}

/* Is the character at `at` of the class of the rule? `at` is before the end. */
static inline bool is_member(const scanner *s, size_t at, size_t *length) {
    const slm_split_rule *rule = s->rule;
    uint32_t c = s->text[at];
    *length = 1;
    if (c >= 0x80 && !rule->bytes) c = slm_utf8_read(s->text + at, s->size - at, length);
    bool found = slm_unicode_class(c) & rule->flags || range_of(rule, c);
    return found != rule->complement;
}

/* Where the first character of the class is; the end: there is none. */
static size_t find_member(const scanner *s) {
    const slm_split_rule *rule = s->rule;
    bool by_flags = rule->n_ranges == 0 && !rule->complement;
    size_t at = 0, length;
    for (; at < s->size; at += length) {
        if (by_flags)
            while (at < s->size && s->text[at] < 0x80 && !(slm_unicode_flags[s->text[at]] & rule->flags)) at++;
        if (at == s->size || is_member(s, at, &length)) break;
    }
    return at;
}

/* Bytes of the white space that ends in front of `at`, one character; 0: another one is there. */
static size_t space_before(const scanner *s, size_t at) {
    size_t length;
    for (size_t n = 1; n <= at && n <= 3; n++)
        if (flags_at(s, at - n, &length) & SPACE && length == n) return n;
    return 0;
}

/* The next run of the characters of a class, with the white space before it that it may take. */
static slm_split_match run(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    size_t at = find_member(s), start = at, length;
    if (at < size && rule->after_white_space) start -= space_before(s, at);
    if (at < size && rule->after_space && at && text[at - 1] == ' ') start--;
    for (unsigned n = 0; at < size && (rule->longest == 0 || n < rule->longest) && is_member(s, at, &length); n++) at += length;
    return (slm_split_match){.gap = start, .size = at - start};
}

/* The next rule->longest characters of a class, of one byte each. */
static slm_split_match whole_run(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    size_t n = 0, at = 0, length;
    for (; at < s->size && n < s->rule->longest; at += length) n = is_member(s, at, &length) ? n + 1 : 0;
    bool whole = n == s->rule->longest;
    return whole ? (slm_split_match){.gap = at - n, .size = n} : (slm_split_match){.gap = size};
}

/* Which of the classes of the rule has the character at `at`; 0: none, or nothing is there. */
static unsigned class_at(const scanner *s, size_t at, size_t *length) {
    *length = 0;
    if (at == s->size) return 0;
    const slm_code_points *range = range_of(s->rule, slm_utf8_read(s->text + at, s->size - at, length));
    return range ? s->rule->classes[range - s->rule->ranges] : 0;
}

/* The next run of one of several classes. */
static slm_split_match class_run(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    size_t start = 0, length;
    unsigned class;
    while ((class = class_at(s, start, &length)) == 0 && start < size) start += length;
    size_t at = start + length;
    while (class && class_at(s, at, &length) == class) at += length;
    return (slm_split_match){.gap = start, .size = at - start};
}

/* The next run of a class, one byte a character, between what the rule says stands around it. */
static slm_split_match enclosed_run(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    size_t before = strlen(rule->before), behind = strlen(rule->behind), length;
    for (size_t start = 0; start + before + behind < size; start++) {
        const uint8_t *first = memchr(text + start, rule->before[0], size - start);
        if (!first) break;
        start = (size_t)(first - text);
        size_t at = start + before, n = 0;
        if (at >= size || memcmp(first, rule->before, before) != 0) continue;
        while (at < size && (rule->longest == 0 || n < rule->longest) && is_member(s, at, &length)) at++, n++;
        if (n && size - at >= behind && memcmp(text + at, rule->behind, behind) == 0)
            return (slm_split_match){.gap = start, .size = at + behind - start};
    }
    return (slm_split_match){.gap = size};
}

/* [\t\n]|    |  */
static slm_split_match indent(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    (void)rule;
    for (size_t at = 0; at < size; at++) {
        if (text[at] == '\t' || text[at] == '\n') return (slm_split_match){.gap = at, .size = 1};
        if (text[at] != ' ' || at + 1 == size || text[at + 1] != ' ') continue;
        return (slm_split_match){.gap = at, .size = size - at >= 4 && memcmp(text + at, "    ", 4) == 0 ? 4 : 2};
    }
    return (slm_split_match){.gap = size};
}

/* ---- digits, in threes from the right ------------------------------------------------------------------------------------ */

typedef struct digit_run {
    size_t start, groups, end; /* its groups of three begin behind the first none to two digits */
} digit_run;

/* The next one behind the run; false: there is none. */
static bool next_digits(const scanner *s, digit_run *run) {
    size_t at = run->end, length, n = 0;
    while (at < s->size && !(flags_at(s, at, &length) & SLM_UNICODE_DIGIT)) at += length;
    run->start = run->groups = run->end = at;
    for (; flags_at(s, run->end, &length) & SLM_UNICODE_DIGIT; n++) run->end += length;
    for (n %= 3; n > 0; n--, run->groups += length) flags_at(s, run->groups, &length);
    return run->end > run->start;
}

static slm_split_match digit_groups(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    size_t length;
    for (digit_run run = {0}; next_digits(s, &run);) {
        if (rule->bounded && flags_at(s, run.end, &length) & SLM_UNICODE_BOUNDED) continue;
        if (run.groups > run.start) return (slm_split_match){.gap = run.start, .size = run.groups - run.start};
        return (slm_split_match){.gap = run.start, .size = run.end - run.start, .part = 3};
    }
    return (slm_split_match){.gap = size};
}

/* The next run that has a group. */
static bool next_groups(const scanner *s, digit_run *run) {
    while (next_digits(s, run))
        if (run->groups < run->end) return true;
    return false;
}

/* A match reaches from where a group begins to where the next one does, or to the end. */
static slm_split_match before_groups(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    digit_run run = {0};
    if (!next_groups(s, &run)) return (slm_split_match){.gap = size};
    size_t start = run.groups, last = run.end;
    for (int n = 0; n < 3; n++) do
            last--;
        while (last > start && (text[last] & 0xC0) == 0x80);
    if (last > start) return (slm_split_match){.gap = start, .size = last - start, .part = 3};
    return (slm_split_match){.gap = start, .size = (next_groups(s, &run) ? run.groups : size) - start};
}

/* ---- others -------------------------------------------------------------------------------------------------------------- */

/* \w+|[^\w\s]+ */
static slm_split_match word_or_signs(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    size_t start = skip_flagged(s, 0, SPACE), at = start, length;
    unsigned first = flags_at(s, at, &length), flags = first;
    while (!(flags & (END | SPACE)) && !((flags ^ first) & SLM_UNICODE_WORD)) {
        at += length;
        flags = flags_at(s, at, &length);
    }
    return (slm_split_match){.gap = start, .size = at - start};
}

/* \s+$ where $ is also in front of a newline, as Oniguruma has it. */
static slm_split_match white_space_at_end(const slm_split_rule *rule, const uint8_t *text, size_t size) {
    const scanner *s = &(scanner){rule, text, size};
    size_t at = 0, length;
    while (at < s->size) {
        while (!(flags_at(s, at, &length) & (SPACE | END))) at += length;
        size_t start = at, newline = at;
        for (; flags_at(s, at, &length) & SPACE; at += length)
            if (s->text[at] == '\n') newline = at;
        if (at == size && at > start) return (slm_split_match){.gap = start, .size = at - start};
        if (newline > start) return (slm_split_match){.gap = start, .size = newline - start};
    }
    return (slm_split_match){.gap = size};
}

/* ---- the splits ---------------------------------------------------------------------------------------------------------- */

static const slm_code_points newline[] = {{'\n', '\n'}, {'\r', '\r'}};
static const slm_code_points digit[] = {{'0', '9'}};
/* Of the bytes, as ByteLevel writes them: 0-9 and what U+00B2, B3, B9, BC, BD and BE stand for. */
static const slm_code_points byte_digit[] = {{'0', '9'}, {0xB2, 0xB3}, {0xB9, 0xB9}, {0xBC, 0xBE}};
static const slm_code_points kana_or_han[] = {{0x3040, 0x30FF}, {0x4E00, 0x9FA5}};
static const slm_code_points east_of_arabic[] = {{0x800, 0x9FA5}, {0xAC00, 0xD7FF}};
enum { HANGUL = 1, SIGNS, BOPOMOFO, IDEOGRAPHS, THAI, LAO, KHMER, MYANMAR };
static const slm_code_points east_asian[] = {
    {0x2014, 0x2014}, {0x2018, 0x2019}, {0x201C, 0x201D}, {0x2026, 0x2026}, {0x3001, 0x303F}, {0x3040, 0x30FF}, {0x3105, 0x312F},
    {0x3131, 0x318E}, {0x4E00, 0x9FA5}, {0xAC00, 0xD7A3}, {0xFE30, 0xFE4F}, {0xFF01, 0xFF01}, {0xFF0C, 0xFF0C}, {0xFF1A, 0xFF1B}};
static const uint8_t east_asian_class[] = {SIGNS,  SIGNS,      SIGNS,  SIGNS, SIGNS, IDEOGRAPHS, BOPOMOFO,
                                           HANGUL, IDEOGRAPHS, HANGUL, SIGNS, SIGNS, SIGNS,      SIGNS};
static const slm_code_points unspaced_scripts[] = {
    {0xE00, 0xE7F},   {0xE80, 0xEFF},   {0x1000, 0x109F}, {0x1100, 0x11FF}, {0x1780, 0x17FF}, {0x2F00, 0x2FDF}, {0x3040, 0x30FF},
    {0x3400, 0x4DBF}, {0x4E00, 0x9FFF}, {0xA9E0, 0xA9FF}, {0xAA60, 0xAA7F}, {0xAC00, 0xD7AF}, {0xF900, 0xFAFF}, {0xFF65, 0xFF9F}};
static const uint8_t unspaced_scripts_class[] = {THAI,       LAO,        MYANMAR, HANGUL,  KHMER,  IDEOGRAPHS, IDEOGRAPHS,
                                                 IDEOGRAPHS, IDEOGRAPHS, MYANMAR, MYANMAR, HANGUL, IDEOGRAPHS, IDEOGRAPHS};
static const slm_code_points a_to_i[] = {{'A', 'I'}};
static const slm_code_points not_in_phrase[] = {{0x21, 0x21},   {0x28, 0x29},     {0x2C, 0x2C},     {0x2E, 0x2E},
                                                {0x3F, 0x3F},   {0x7C, 0x7C},     {0x60C, 0x60C},   {0x6D4, 0x6D4},
                                                {0x964, 0x964}, {0x2026, 0x2026}, {0x3001, 0x3002}, {0xFF0C, 0xFF0C}};
static const slm_code_points cased_letter[] = {
    {0x41, 0x5A},       {0x61, 0x7A},       {0xB5, 0xB5},       {0xC0, 0xD6},       {0xD8, 0xF6},       {0xF8, 0x1BA},
    {0x1BC, 0x1BF},     {0x1C4, 0x293},     {0x295, 0x2AF},     {0x370, 0x373},     {0x376, 0x377},     {0x37B, 0x37D},
    {0x37F, 0x37F},     {0x386, 0x386},     {0x388, 0x38A},     {0x38C, 0x38C},     {0x38E, 0x3A1},     {0x3A3, 0x3F5},
    {0x3F7, 0x481},     {0x48A, 0x52F},     {0x531, 0x556},     {0x10A0, 0x10C5},   {0x13A0, 0x13F5},   {0x13F8, 0x13FD},
    {0x1C90, 0x1CBA},   {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},   {0x1D6B, 0x1D77},   {0x1D79, 0x1D9A},   {0x1E00, 0x1F15},
    {0x1F18, 0x1F1D},   {0x1F20, 0x1F45},   {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},   {0x1F59, 0x1F59},   {0x1F5B, 0x1F5B},
    {0x1F5D, 0x1F5D},   {0x1F5F, 0x1F7D},   {0x1F80, 0x1FB4},   {0x1FB6, 0x1FBC},   {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},
    {0x1FC6, 0x1FCC},   {0x1FD0, 0x1FD3},   {0x1FD6, 0x1FDB},   {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},   {0x1FF6, 0x1FFC},
    {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210A, 0x2113},   {0x2115, 0x2115},   {0x2119, 0x211D},   {0x2124, 0x2124},
    {0x2126, 0x2126},   {0x2128, 0x2128},   {0x212A, 0x212D},   {0x212F, 0x2134},   {0x2139, 0x2139},   {0x213C, 0x213F},
    {0x2145, 0x2149},   {0x214E, 0x214E},   {0x2183, 0x2184},   {0x2C00, 0x2C7B},   {0x2C7E, 0x2CE4},   {0x2CEB, 0x2CEE},
    {0x2CF2, 0x2CF3},   {0xA640, 0xA66D},   {0xA680, 0xA69B},   {0xA722, 0xA76F},   {0xA771, 0xA787},   {0xA78B, 0xA78E},
    {0xAB70, 0xABBF},   {0xFB00, 0xFB06},   {0xFB13, 0xFB17},   {0xFF21, 0xFF3A},   {0xFF41, 0xFF5A},   {0x10400, 0x1044F},
    {0x104B0, 0x104D3}, {0x104D8, 0x104FB}, {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943}};
static const slm_code_points narrow_sign[] = {{0x21, 0x2F},     {0x3A, 0x7E},     {0x2018, 0x201F},
                                              {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E}};

#define RANGES(array) .ranges = array, .n_ranges = sizeof(array) / sizeof *(array)

const slm_split_rule slm_split_rules[] = {
    [SLM_SPLIT_GPT2_WORDS] = {.scan = gpt2_word},
    [SLM_SPLIT_LINE_WORDS] = {.scan = line_word, .contractions = true},
    [SLM_SPLIT_LINE_WORDS_1] = {.scan = line_word, .contractions = true, .longest = 1},
    [SLM_SPLIT_LINE_WORDS_3] = {.scan = line_word, .contractions = true, .longest = 3},
    [SLM_SPLIT_LINE_WORDS_MARKS] = {.scan = line_word, .contractions = true, .longest = 1, .marks_are_letters = true},
    [SLM_SPLIT_LINE_WORDS_BARE] = {.scan = line_word, .contractions = true, .longest = 1, .bare_symbols = true},
    [SLM_SPLIT_LINE_WORDS_PLAIN] = {.scan = line_word, .longest = 1},
    [SLM_SPLIT_LINE_WORDS_BLOCKS] = {.scan = line_word, .contractions = true, .longest = 3, .space_blocks = true},
    [SLM_SPLIT_LINE_PHRASES] = {.scan = line_word, .contractions = true, .longest = 1, .phrases = true, .one_line_end = true},
    [SLM_SPLIT_CASED_WORDS_1] = {.scan = line_word, .cased_words = true, .longest = 1, .slashes_at_end = true},
    [SLM_SPLIT_CASED_WORDS_3] =
        {.scan = line_word, .cased_words = true, .longest = 3, .slashes_at_end = true, .contractions_at_end = true},
    [SLM_SPLIT_CASED_WORDS_TAILED] =
        {.scan = line_word, .cased_words = true, .longest = 1, .slashes_at_end = true, .contractions_at_end = true},
    [SLM_SPLIT_HAN_OR_CASED_WORDS] =
        {.scan = line_word, .cased_words = true, .longest = 3, .contractions_at_end = true, .han_apart = true},
    [SLM_SPLIT_SYMBOL_WORDS] = {.scan = symbol_word},
    [SLM_SPLIT_SYMBOL_WORDS_BARE] = {.scan = symbol_word, .bare_symbols = true},
    [SLM_SPLIT_LINES] = {.scan = line_or_newlines},
    [SLM_SPLIT_PHRASES] = {.scan = run, .flags = SPACE, RANGES(not_in_phrase), .complement = true, .after_space = true},
    [SLM_SPLIT_LETTERS] = {.scan = run, .flags = LETTER, .after_white_space = true},
    [SLM_SPLIT_CASED_LETTERS] = {.scan = run, RANGES(cased_letter), .after_white_space = true},
    [SLM_SPLIT_SIGNS] = {.scan = run, .flags = SLM_UNICODE_PUNCTUATION, .after_white_space = true},
    [SLM_SPLIT_LISTED_SIGNS] = {.scan = run, RANGES(narrow_sign), .after_white_space = true},
    [SLM_SPLIT_KANA_OR_HAN] = {.scan = run, RANGES(kana_or_han)},
    [SLM_SPLIT_EAST_OF_ARABIC] = {.scan = run, RANGES(east_of_arabic)},
    [SLM_SPLIT_EAST_ASIAN] = {.scan = class_run, RANGES(east_asian), .classes = east_asian_class},
    [SLM_SPLIT_UNSPACED_SCRIPTS] = {.scan = class_run, RANGES(unspaced_scripts), .classes = unspaced_scripts_class},
    [SLM_SPLIT_NUMBER] = {.scan = run, .flags = NUMBER, .longest = 1},
    [SLM_SPLIT_NUMBERS_3] = {.scan = run, .flags = NUMBER, .longest = 3},
    [SLM_SPLIT_NUMBERS] = {.scan = run, .flags = NUMBER},
    [SLM_SPLIT_BYTE_DIGIT] = {.scan = run, RANGES(byte_digit), .bytes = true, .longest = 1},
    [SLM_SPLIT_BYTE_DIGITS] = {.scan = run, RANGES(byte_digit), .bytes = true},
    [SLM_SPLIT_THREE_DIGITS] = {.scan = whole_run, RANGES(digit), .bytes = true, .longest = 3},
    [SLM_SPLIT_DIGIT_GROUPS] = {.scan = digit_groups},
    [SLM_SPLIT_BOUNDED_GROUPS] = {.scan = digit_groups, .bounded = true},
    [SLM_SPLIT_BEFORE_GROUPS] = {.scan = before_groups},
    [SLM_SPLIT_NEWLINE] = {.scan = run, RANGES(newline), .longest = 1},
    [SLM_SPLIT_INDENTS] = {.scan = indent},
    [SLM_SPLIT_SENTINELS] = {.scan = enclosed_run, RANGES(digit), .bytes = true, .before = "<sentinel:", .behind = ">"},
    [SLM_SPLIT_IMAGE_CODES] =
        {.scan = enclosed_run, RANGES(a_to_i), .bytes = true, .longest = 4, .before = "IMGIMG", .behind = "Z"},
    [SLM_SPLIT_PUNCTUATION] = {.scan = run, .flags = SLM_UNICODE_BERT_PUNCTUATION, .longest = 1},
    [SLM_SPLIT_WHITE_SPACE] = {.scan = run, .flags = SPACE},
    [SLM_SPLIT_WORDS_AND_SIGNS] = {.scan = word_or_signs},
    [SLM_SPLIT_WHITE_SPACE_AT_END] = {.scan = white_space_at_end},
};
