/* SPDX-License-Identifier: Apache-2.0
 * tiny_tokenizer.h: a tokenizer for the vocabulary of tiny_model.h, and a constraint on its texts. */
#ifndef SLM_TESTS_TINY_TOKENIZER_H
#define SLM_TESTS_TINY_TOKENIZER_H

#include "generate/constraint.h"
#include "slm.h"
#include "tiny_model.h"

/* VOCAB tokens: an unknown one, all texts of up to two of the letters a to d and 48 of three, and one that ends texts. */
static inline slm_tokenizer *letters_tokenizer(slm_error *error) {
    enum { END = VOCAB - 1 };
    char bytes[4 * VOCAB] = "?";
    uint64_t offsets[VOCAB + 1] = {0, 1};
    uint8_t kinds[VOCAB] = {SLM_TOKEN_UNKNOWN};
    double scores[VOCAB] = {0};
    for (int id = 1, size = 1, number = 0; id < VOCAB; id++, number++) {
        if (number == 1 << 2 * size) number = 0, size++;
        for (int i = 0; i < size; i++) bytes[offsets[id] + (uint64_t)i] = (char)('a' + (number >> 2 * i) % 4);
        if (id == END) bytes[offsets[id]] = '.';
        offsets[id + 1] = offsets[id] + (uint64_t)(id == END ? 1 : size);
        kinds[id] = id == END ? SLM_TOKEN_CONTROL : SLM_TOKEN_NORMAL;
    }
    const slm_tokenizer_spec spec = {.model = SLM_TOKENIZER_UNIGRAM,
                                     .pieces = {.bytes = bytes, .offsets = offsets, .count = VOCAB},
                                     .kinds = kinds,
                                     .scores = scores};
    slm_tokenizer *tokenizer = NULL;
    slm_tokenizer_create(&spec, &tokenizer, error);
    return tokenizer;
}

/* a[a-d]{2,30}bcdab(d|(ca)*): many ways, one way, and an end or none. */
static const slm_expression expressions[] = {
    {SLM_EXPRESSION_BYTES, 'a', 'a', 0},     {SLM_EXPRESSION_BYTES, 'a', 'd', 0},     {SLM_EXPRESSION_REPETITION, 1, 2, 30},
    {SLM_EXPRESSION_CONCATENATION, 0, 2, 0}, {SLM_EXPRESSION_BYTES, 'b', 'b', 0},     {SLM_EXPRESSION_BYTES, 'c', 'c', 0},
    {SLM_EXPRESSION_BYTES, 'd', 'd', 0},     {SLM_EXPRESSION_CONCATENATION, 4, 5, 0}, {SLM_EXPRESSION_CONCATENATION, 7, 6, 0},
    {SLM_EXPRESSION_CONCATENATION, 0, 4, 0}, {SLM_EXPRESSION_CONCATENATION, 8, 9, 0}, {SLM_EXPRESSION_CONCATENATION, 5, 0, 0},
    {SLM_EXPRESSION_REPETITION, 11, 0, -1},  {SLM_EXPRESSION_ALTERNATION, 6, 12, 0},  {SLM_EXPRESSION_CONCATENATION, 10, 13, 0},
    {SLM_EXPRESSION_CONCATENATION, 3, 14, 0}};

static inline slm_status make_constraint(slm_tokenizer *tokenizer, slm_constraint **constraint, slm_error *error) {
    slm_automaton *automaton = NULL;
    slm_status status = slm_automaton_create(expressions, sizeof expressions / sizeof *expressions, NULL, &automaton, error);
    if (!status) status = slm_constraint_create(automaton, tokenizer, constraint, error);
    slm_automaton_release(automaton);
    return status;
}

#endif
