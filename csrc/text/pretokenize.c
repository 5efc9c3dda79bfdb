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
    END = 1 << 8, /* nothing follows */
};

typedef struct scanner {
    const uint8_t *text;
    size_t size;
    bool digits_end; /* a number is cut out before all other rules: for them the text ends in front of it */
} scanner;

/* Class of the character at `at` and its length in bytes. */
static inline unsigned character(const scanner *s, size_t at, size_t *length) {
    *length = 0;
    if (at == s->size) return END;
    unsigned class;
    if (s->text[at] < 0x80) {
        *length = 1;
        class = slm_unicode_flags[s->text[at]] & WORD_MASK;
    } else {
        class = slm_unicode_class(slm_utf8_read(s->text + at, s->size - at, length)) & WORD_MASK;
    }
    return class == NUMBER && s->digits_end ? END : class;
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

size_t slm_pretokenize_word(const slm_pretokenizer *rules, const uint8_t *text, size_t size) {
    scanner s = {.text = text, .size = size, .digits_end = rules->single_digits};
    size_t length;
    if (s.digits_end && character(&s, 0, &length) == END) return length;
    if (rules->gpt2_words) return gpt2_word(&s);
    if (!s.digits_end) return size;
    size_t at = 0;
    while (character(&s, at, &length) != END) at += length;
    return at;
}
