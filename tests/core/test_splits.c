/* SPDX-License-Identifier: Apache-2.0
 * test_splits.c: words are pieces of the text, in order, whatever its bytes are; long runs take time in proportion. What each
 * split matches is compared with Hugging Face's tokenizers in tests/test_pretokenizers.py. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"
#include "text/pretokenize.h"

enum { N_SPLITS = SLM_SPLIT_SPACE_WORDS, N_BEHAVIORS = SLM_BEHAVIOR_CONTIGUOUS + 1, RUN = 4 << 20 };

static uint32_t state = 7;

static uint32_t below(uint32_t limit) {
    state = state * 1664525 + 1013904223;
    return (state >> 8) % limit;
}

static bool drops(const slm_splits *splits) {
    for (int i = 0; i < splits->count; i++)
        if (splits->steps[i].behavior == SLM_BEHAVIOR_REMOVED || splits->steps[i].behavior == SLM_BEHAVIOR_KEPT) return true;
    return false;
}

static void check_words(const slm_splits *splits, const uint8_t *text, size_t size) {
    slm_words words;
    size_t start, end, last = 0;
    slm_words_start(&words, splits, text, size);
    while (slm_words_next(&words, &start, &end)) {
        CHECK(start >= last && start < end && end <= size);
        CHECK(drops(splits) || start == last);
        last = end;
    }
    CHECK(drops(splits) || last == size);
    CHECK(!slm_words_next(&words, &start, &end));
}

/* Characters that scanners have cases for, whole and cut short, and any bytes. */
static size_t random_text(uint8_t *text, size_t size) {
    static const char *const parts[] = {" ",
                                        "  ",
                                        "\r\n",
                                        "\n",
                                        "\t",
                                        "a",
                                        "B",
                                        "'s",
                                        "'re",
                                        "1",
                                        "123",
                                        "\xC2\xB2",
                                        "\xCC\x81",
                                        "\xE3\x81\x82",
                                        "\xE4\xB8\x80",
                                        "\xE3\x80\x80",
                                        ".",
                                        "/",
                                        "$",
                                        "\xC3",
                                        "\xF0\x9F\xA6",
                                        "\x80",
                                        "\xFF",
                                        "\xE2\x80\xA6",
                                        "\xD9\xA3",
                                        "12345",
                                        "IMGIMGA",
                                        "Z",
                                        "<sentinel:1"};
    size_t n = 0;
    while (n + 12 < size) { /* none is longer */
        if (below(8) == 0) {
            text[n++] = (uint8_t)below(256);
            continue;
        }
        const char *part = parts[below(sizeof parts / sizeof *parts)];
        memcpy(text + n, part, strlen(part));
        n += strlen(part);
    }
    return n;
}

static void test_any_bytes(void) {
    for (int trial = 0; trial < 20000; trial++) {
        slm_splits splits = {.count = trial < 4 * N_SPLITS ? 1 : (int)below(SLM_MAX_SPLITS + 1)};
        for (int i = 0; i < splits.count; i++)
            splits.steps[i] = (slm_split_step){(slm_split)below(N_SPLITS), (slm_behavior)below(N_BEHAVIORS)};
        if (trial < 4 * N_SPLITS) splits.steps[0].kind = (slm_split)(trial % N_SPLITS);
        uint8_t buffer[120];
        size_t size = random_text(buffer, 8 + below(sizeof buffer - 8));
        uint8_t *text = malloc(size ? size : 1); /* of this very size, so that a sanitizer sees any read behind it */
        CHECK(text);
        memcpy(text, buffer, size);
        check_words(&splits, text, size);
        free(text);
    }
}

/* One character over and over, and one other at the end. Were the time quadratic this would take hours. */
static void test_long_runs(void) {
    static const char characters[] = "aA 1.\nI";
    uint8_t *text = malloc(RUN);
    CHECK(text);
    clock_t begin = clock();
    for (const char *c = characters; *c; c++) {
        memset(text, *c, RUN);
        text[RUN - 1] = 'x';
        for (int kind = 0; kind < N_SPLITS; kind++) {
            slm_splits splits = {.steps = {{(slm_split)kind, (slm_behavior)(kind % N_BEHAVIORS)}}, .count = 1};
            check_words(&splits, text, RUN);
        }
        slm_splits list = {.steps = {{SLM_SPLIT_NEWLINE, 0},
                                     {SLM_SPLIT_CASED_LETTERS, 0},
                                     {SLM_SPLIT_LISTED_SIGNS, 0},
                                     {SLM_SPLIT_WHITE_SPACE_AT_END, 0},
                                     {SLM_SPLIT_EAST_OF_ARABIC, 0},
                                     {SLM_SPLIT_NUMBER, 0}},
                           .count = 6};
        check_words(&list, text, RUN);
    }
    CHECK((clock() - begin) / CLOCKS_PER_SEC < 300);
    free(text);
}

int main(void) {
    test_any_bytes();
    test_long_runs();
    return finish();
}
