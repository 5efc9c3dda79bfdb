/* SPDX-License-Identifier: Apache-2.0
 * pretokenize.c: a rule is tried where a word begins, in the order of the alternatives of its regular expression. */
#include "text/pretokenize.h"

#include "text/unicode_tables.h"
#include "text/utf8.h"

/* What the rules ask of a character. A character has one of the first three, or none of them: OTHER. */
enum {
    OTHER = 0,
    LETTER = SLM_UNICODE_LETTER,
    NUMBER = SLM_UNICODE_NUMBER,
    SPACE = SLM_UNICODE_SPACE,
    WORD_MASK = LETTER | NUMBER | SPACE,
    END = 1 << 30, /* nothing follows */
};

typedef struct scanner {
    const uint8_t *text;
    size_t size;
    bool digits_end;        /* a number is cut out before all other rules: for them the text ends in front of it */
    bool marks_are_letters; /* see slm_pretokenizer */
    bool east_asian;        /* of symbol words: the text begins with an East Asian character */
} scanner;

/* All flags of the character at `at`, and its length in bytes. */
static inline unsigned flags_at(const scanner *s, size_t at, size_t *length) {
    *length = 0;
    if (at == s->size) return END;
    unsigned flags;
    if (s->text[at] < 0x80) {
        *length = 1;
        flags = slm_unicode_flags[s->text[at]];
    } else {
        flags = slm_unicode_class(slm_utf8_read(s->text + at, s->size - at, length));
        if (s->marks_are_letters && flags & SLM_UNICODE_MARK) flags |= LETTER;
    }
    return flags & NUMBER && s->digits_end ? END : flags;
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

static size_t gpt2_word(const scanner *s) {
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

/* Does U or L of slm_pretokenizer.cased_words hold the character? Letters without case and marks are in both. */
static bool is_upper(unsigned flags) {
    return flags & SLM_UNICODE_MARK || (flags & LETTER && !(flags & SLM_UNICODE_LOWER));
}

static bool is_lower(unsigned flags) {
    return flags & SLM_UNICODE_MARK || (flags & LETTER && !(flags & SLM_UNICODE_UPPER));
}

/* U*L+ at `at`: its end, or `at` if there is none. With U+L* instead when `upper_first`. The longest U* is tried first: when no L
 * follows it, the last character of it that is also an L ends the match. */
static size_t cased_letters(const scanner *s, size_t at, bool upper_first) {
    size_t start = at, last_both = at, length;
    unsigned flags;
    while (is_upper(flags = flags_at(s, at, &length))) {
        at += length;
        if (is_lower(flags)) last_both = at;
    }
    bool lower = is_lower(flags);
    if (!lower && !upper_first) return last_both;
    if (upper_first && at == start) return start;
    for (; is_lower(flags); flags = flags_at(s, at, &length)) at += length;
    return at;
}

/* A cased word, with the one character in front that it may take; 0: none begins here. */
static size_t cased_word(const scanner *s, const slm_pretokenizer *rules) {
    size_t length, end = 0;
    unsigned flags = flags_at(s, 0, &length);
    bool prefix = !(flags & (LETTER | NUMBER | END)) && !is_newline(s->text[0]);
    for (int upper_first = 0; upper_first < 2 && end == 0; upper_first++) {
        if (prefix && (end = cased_letters(s, length, upper_first)) == length) end = 0;
        if (end == 0) end = cased_letters(s, 0, upper_first);
    }
    return end && rules->contractions_at_end ? end + contraction_of_any_case(s, end) : end;
}

/* [^\r\n\p{L}\p{N}]?\p{L}+ ; 0: none begins here. */
static size_t letter_word(const scanner *s) {
    size_t length, next_length;
    unsigned class = character(s, 0, &length);
    if (class == LETTER) return skip_run(s, length, LETTER);
    if (class == NUMBER || is_newline(s->text[0]) || character(s, length, &next_length) != LETTER) return 0;
    return skip_run(s, length + next_length, LETTER);
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

static size_t line_word(const scanner *s, const slm_pretokenizer *rules) {
    size_t length = rules->contractions ? contraction_of_any_case(s, 0) : 0;
    if (length == 0) length = rules->cased_words ? cased_word(s, rules) : letter_word(s);
    if (length == 0) length = number_word(s, rules->number_length);
    if (length) return length;
    size_t at = s->text[0] == ' ', start = skip_run(s, at, OTHER);
    if (start == at) return white_space_by_lines(s);
    if (rules->bare_symbols) return start;
    for (at = start; at < s->size && (is_newline(s->text[at]) || (rules->slashes_at_end && s->text[at] == '/'));) at++;
    return at;
}

static bool is_east_asian(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
}

static bool is_ascii_letter(uint8_t byte) {
    return (byte | 0x20) >= 'a' && (byte | 0x20) <= 'z';
}

/* Flags of the character at `at`. Numbers and runs of East Asian characters are cut out before all else, so the text ends at a
 * number, and where such a run begins or ends. */
static unsigned symbol_flags(const scanner *s, size_t at, size_t *length) {
    *length = 0;
    if (at == s->size) return END;
    uint32_t c = slm_utf8_read(s->text + at, s->size - at, length);
    unsigned flags = slm_unicode_class(c);
    return flags & NUMBER || is_east_asian(c) != s->east_asian ? END : flags;
}

/* The end of the word of slm_pretokenizer.symbol_words that begins at `at`; `at`: none does. */
static size_t symbol_word(const scanner *s, size_t at) {
    enum { WORD_LETTER = SLM_UNICODE_LETTER | SLM_UNICODE_MARK, SIGN = SLM_UNICODE_PUNCTUATION | SLM_UNICODE_SYMBOL };
    size_t length, next_length, end;
    unsigned flags = symbol_flags(s, at, &length), next = symbol_flags(s, at + length, &next_length);
    if (flags & END) return at;
    if (s->text[at] < 0x80 && flags & SIGN && at + 1 < s->size && is_ascii_letter(s->text[at + 1])) {
        for (end = at + 1; end < s->size && is_ascii_letter(s->text[end]); end++) continue;
        return end;
    }
    bool prefix = !(flags & (LETTER | SIGN)) && !is_newline(s->text[at]) && !(next & END) && next & WORD_LETTER;
    if (prefix || flags & WORD_LETTER) {
        for (end = at + length; !((next = symbol_flags(s, end, &next_length)) & END) && next & WORD_LETTER;) end += next_length;
        return end;
    }
    end = s->text[at] == ' ' && !(next & END) && next & SIGN ? at + length : at;
    size_t signs = end;
    while (!((next = symbol_flags(s, end, &next_length)) & END) && next & SIGN) end += next_length;
    if (end > signs) {
        while (end < s->size && is_newline(s->text[end])) end++;
        return end;
    }
    if (!(flags & SPACE)) return at;
    size_t last = at, line_end = at;
    for (end = at; (next = symbol_flags(s, end, &next_length)) & SPACE && !(next & END); end += next_length) {
        last = end;
        if (is_newline(s->text[end])) line_end = end + 1;
    }
    if (line_end > at) return line_end;
    return next & END || last == at ? end : last;
}

static size_t first_of_symbol_words(scanner *s, unsigned number_length) {
    size_t at = 0, length;
    uint32_t first = slm_utf8_read(s->text, s->size, &length);
    if (slm_unicode_class(first) & NUMBER) return number_word(s, number_length);
    s->east_asian = is_east_asian(first);
    size_t end = symbol_word(s, 0);
    while (end == at) { /* what is between words */
        if (symbol_flags(s, at, &length) & END) return at;
        at += length;
        end = symbol_word(s, at);
        if (end > at) return at;
    }
    return end;
}

static size_t run_of(const uint8_t *text, size_t size, bool space) {
    size_t at = 0, length;
    for (; at < size; at += length)
        if (((slm_unicode_class(slm_utf8_read(text + at, size - at, &length)) & SPACE) != 0) != space) break;
    return at;
}

size_t slm_pretokenize_white_space(const uint8_t *text, size_t size) {
    return run_of(text, size, true);
}

size_t slm_pretokenize_until_white_space(const uint8_t *text, size_t size) {
    return run_of(text, size, false);
}

/* Each punctuation character is a word; so is what lies between them and white space. */
static size_t punctuated_word(const slm_pretokenizer *rules, const uint8_t *text, size_t size) {
    size_t at = 0, length;
    for (; at < size; at += length) {
        uint32_t flags = slm_unicode_class(slm_utf8_read(text + at, size - at, &length));
        if (flags & SLM_UNICODE_BERT_PUNCTUATION) return at ? at : length;
        if (rules->drop_white_space && flags & SPACE) return at;
    }
    return at;
}

size_t slm_pretokenize_word(const slm_pretokenizer *rules, const uint8_t *text, size_t size) {
    scanner s = {.text = text, .size = size, .digits_end = rules->single_digits, .marks_are_letters = rules->marks_are_letters};
    size_t length;
    if (rules->symbol_words) return first_of_symbol_words(&s, rules->number_length);
    if (rules->bert_punctuation) return punctuated_word(rules, text, size);
    if (s.digits_end && character(&s, 0, &length) == END) return length;
    if (rules->gpt2_words) return gpt2_word(&s);
    if (rules->line_words) return line_word(&s, rules);
    if (!s.digits_end) return size;
    size_t at = 0;
    while (character(&s, at, &length) != END) at += length;
    return at;
}
