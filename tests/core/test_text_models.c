/* SPDX-License-Identifier: Apache-2.0
 * test_text_models.c: unigram, WordPiece, normalizers, added tokens, spans and batches on hostile input: vocabularies and
 * character maps of random bytes, broken UTF-8, failing allocations, cancelling. That ids are right is tested against Hugging
 * Face's library in test_tokenizer_kinds.py; here, that what is made stays inside its arrays and says the same each time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/threads.h"
#include "check.h"
#include "slm.h"
#include "text/normalize.h"

enum { MAX_PIECES = 512, MAX_BYTES = 1 << 15, TEXT = 3000 };

static uint32_t below(uint32_t limit) {
    return random_u32() % limit;
}

typedef struct maker {
    char bytes[MAX_BYTES];
    uint64_t offsets[MAX_PIECES + 1];
    uint8_t kinds[MAX_PIECES], flags[MAX_PIECES];
    double scores[MAX_PIECES];
    slm_normalizer steps[4];
    slm_split_step splits[2];
    slm_tokenizer_spec spec;
} maker;

static int32_t add(maker *m, const char *piece, size_t size, slm_token_kind kind, uint8_t flags, double score) {
    size_t id = m->spec.pieces.count++;
    CHECK(id < MAX_PIECES && m->offsets[id] + size <= MAX_BYTES);
    memcpy(m->bytes + m->offsets[id], piece, size);
    m->offsets[id + 1] = m->offsets[id] + size;
    m->kinds[id] = (uint8_t)kind;
    m->flags[id] = flags;
    m->scores[id] = score;
    return (int32_t)id;
}

static maker *maker_new(slm_tokenizer_model model) {
    maker *m = calloc(1, sizeof *m);
    CHECK(m);
    m->spec.model = model;
    m->spec.pieces.bytes = m->bytes;
    m->spec.pieces.offsets = m->offsets;
    m->spec.kinds = m->kinds;
    m->spec.flags = m->flags;
    m->spec.scores = m->scores;
    m->spec.normalizers = m->steps;
    m->spec.continuing_prefix = (const uint8_t *)"##";
    m->spec.continuing_size = 2;
    m->spec.max_word_length = 100;
    add(m, "<unk>", 5, SLM_TOKEN_UNKNOWN, 0, 0);
    return m;
}

static slm_tokenizer *made(maker *m) {
    slm_tokenizer *t = NULL;
    slm_error error = {0};
    if (!CHECK(slm_tokenizer_create(&m->spec, &t, &error) == SLM_OK)) {
        printf("%s\n", error.message);
        exit(1);
    }
    return t;
}

/* Characters of one to four bytes, marks, what is longer once normalized, spaces, broken bytes, NUL. */
static size_t put_something(char *text) {
    static const char *const parts[] = {"a",
                                        "b",
                                        "ab",
                                        " ",
                                        "  ",
                                        "\n",
                                        "\xC3\xA9",
                                        "e\xCC\x81",
                                        "\xCC\xA3\xCC\x81",
                                        "\xCD\x85",
                                        "\xC4\xB0",
                                        "\xEF\xB7\xBA",
                                        "\xEA\xB0\x81",
                                        "\xE1\x84\x80\xE1\x85\xA1",
                                        "\xE2\x80\x8D",
                                        "\xD8\x80",
                                        "\xE4\xB8\x80",
                                        "\xF0\x9F\xA6\x99",
                                        "\xF0\x9D\x85\x9E",
                                        "\xE2\x96\x81",
                                        "<c>",
                                        "<d>",
                                        "A",
                                        "\r\n"};
    uint32_t which = below(sizeof parts / sizeof *parts + 3);
    if (which >= sizeof parts / sizeof *parts) {
        *text = which % 3 ? (char)below(256) : 0;
        return 1;
    }
    memcpy(text, parts[which], strlen(parts[which]));
    return strlen(parts[which]);
}

static size_t random_text(char *text, size_t at_most) {
    size_t size = 0, wanted = below((uint32_t)at_most);
    while (size < wanted) size += put_something(text + size);
    return size;
}

static maker *random_maker(slm_tokenizer_model model) {
    maker *m = maker_new(model);
    for (int i = 0; i < 100; i++) {
        char piece[40] = "##";
        size_t from = model == SLM_TOKENIZER_WORDPIECE && below(2) ? 2 : 0, size = from + random_text(piece + from, 12);
        for (size_t k = 0; k < size && model == SLM_TOKENIZER_UNIGRAM; k++)
            if (piece[k] == ' ') piece[k] = '_'; /* the marker stands for it: one piece twice */
        static const double scores[] = {0, -1, -2.5, 1e308, -1e308, 5e-324, -0.0};
        int32_t id = -1;
        for (int32_t k = 0; k < (int32_t)m->spec.pieces.count; k++)
            if (m->offsets[k + 1] - m->offsets[k] == size && memcmp(m->bytes + m->offsets[k], piece, size) == 0) id = k;
        if (id < 0) add(m, piece, size, SLM_TOKEN_NORMAL, 0, scores[below(7)]);
    }
    add(m, "<c>", 3, SLM_TOKEN_CONTROL, (uint8_t)below(16), 0);
    add(m, "<d>", 3, SLM_TOKEN_USER_DEFINED, (uint8_t)below(16), 0);
    for (int byte = 0; byte < 256 && model == SLM_TOKENIZER_UNIGRAM; byte++) {
        char name[7];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        if (byte % 7) add(m, name, 6, SLM_TOKEN_BYTE, 0, -3);
    }
    m->spec.unk = model == SLM_TOKENIZER_WORDPIECE || below(2) ? 0 : -1;
    m->spec.byte_fallback = below(2);
    m->spec.fuse_unk = below(2);
    m->spec.space_prefix = (slm_space_prefix)below(4);
    m->spec.splits = m->splits;
    slm_split last = model == SLM_TOKENIZER_UNIGRAM ? SLM_SPLIT_SPACE_WORDS : SLM_SPLIT_PUNCTUATION;
    if (below(2)) m->splits[m->spec.n_splits++] = (slm_split_step){SLM_SPLIT_WHITE_SPACE, SLM_BEHAVIOR_REMOVED};
    if (below(2)) m->splits[m->spec.n_splits++] = (slm_split_step){.kind = last};
    return m;
}

/* With and without spans, alone and in a text before it: the same ids, and spans that lie in the text. */
static void check_encoding(const slm_tokenizer *t, const char *from, size_t size) {
    char *text = malloc(size ? size : 1); /* of this very size, so that a sanitizer sees any read behind it */
    CHECK(text);
    memcpy(text, from, size);
    const uint64_t guards[] = {size / 3, size / 2};
    slm_encode_options plain = {.parse_special = true, .guards = guards, .n_guards = below(3)}, spans = plain;
    spans.spans = true;
    slm_tokens a = {0}, b = {0};
    slm_error error;
    slm_status status = slm_tokenizer_encode(t, text, size, &plain, NULL, &a, &error);
    CHECK(slm_tokenizer_encode(t, text, size, &spans, NULL, &b, &error) == status);
    CHECK(status == SLM_OK || status == SLM_BAD_ARGUMENT);
    CHECK(a.count == b.count && a.dropped == b.dropped);
    for (size_t i = 0; i < a.count; i++) {
        CHECK(a.ids[i] == b.ids[i] && a.ids[i] >= 0 && a.ids[i] < slm_tokenizer_size(t));
        CHECK(b.spans[i].start <= b.spans[i].end && b.spans[i].end <= size);
    }
    slm_text back = {0};
    CHECK(slm_tokenizer_decode(t, a.ids, a.count, below(2), NULL, &back, &error) == SLM_OK);
    slm_text_free(&back);
    slm_tokens_free(&a);
    slm_tokens_free(&b);
    free(text);
}

static void add_random_steps(maker *m) {
    static const char *const strings[] = {"a", "b", "ab", " ", "\xE2\x96\x81", "", "\xCC\x81"};
    m->spec.n_normalizers = below(5);
    for (size_t i = 0; i < m->spec.n_normalizers; i++) {
        const char *a = strings[below(5)], *b = strings[below(7)];
        m->steps[i] = (slm_normalizer){.kind = (slm_normalizer_kind)below(SLM_NORMALIZER_CHARSMAP),
                                       .a = (const uint8_t *)a,
                                       .a_size = strlen(a),
                                       .b = (const uint8_t *)b,
                                       .b_size = strlen(b)};
    }
}

static void test_random_vocabularies(slm_tokenizer_model model) {
    static char text[TEXT + 16];
    for (int trial = 0; trial < 60; trial++) {
        maker *m = random_maker(model);
        add_random_steps(m);
        slm_tokenizer *t = made(m);
        for (int i = 0; i < 20; i++) check_encoding(t, text, random_text(text, i < 2 ? TEXT : 60));
        check_encoding(t, text, 0);
        slm_tokenizer_release(t);
        free(m);
    }
}

/* ---- normalizers -------------------------------------------------------------------------------------------------------- */

static void test_every_code_point(void) {
    for (int kind = 0; kind < SLM_NORMALIZER_CHARSMAP; kind++) {
        slm_normalizers n = {0};
        slm_normalizer step = {
            .kind = (slm_normalizer_kind)kind, .a = (const uint8_t *)"a", .b = (const uint8_t *)"bc", .a_size = 1, .b_size = 2};
        slm_error error;
        CHECK(slm_normalizers_create(&step, 1, &n, &error) == SLM_OK);
        slm_aligned text = {.traced = true}, spare = {.traced = true};
        slm_clock clock;
        slm_clock_start(&clock, NULL);
        for (uint32_t block = 0; block < 0x110000; block += 0x100) {
            text.size = text.limit = 0;
            CHECK(slm_aligned_reserve(&text, 0x100 * 8, &error) == SLM_OK);
            for (uint32_t c = block; c < block + 0x100; c++) {
                if (c >= 0xD800 && c < 0xE000) continue;
                slm_normalize_put(&text, c, (slm_span){c - block, c - block + 1});
                slm_normalize_put(&text, 0x300 + below(0x70), (slm_span){c - block, c - block + 1});
            }
            CHECK(slm_normalize(&n, &text, &spare, &clock, &error) == SLM_OK);
            for (size_t i = 0; i < text.size; i++) CHECK(text.origins[i].end <= 0x100);
        }
        slm_aligned_free(&text);
        slm_aligned_free(&spare);
        slm_normalizers_destroy(&n);
    }
}

/* Character maps of random units, of which some look like those of a real trie. */
static void test_random_charsmaps(void) {
    static char text[TEXT + 16];
    int accepted = 0;
    for (int trial = 0; trial < 400; trial++) {
        uint32_t units = 1 + below(300), n_texts = below(200);
        size_t size = 4 + 4 * (size_t)units + n_texts;
        uint8_t *map = malloc(size);
        CHECK(map);
        for (size_t i = 0; i < size; i++) map[i] = (uint8_t)random_u32();
        for (uint32_t i = 0; i < units && trial % 2; i++) { /* labels of what text is made of, small offsets */
            uint32_t unit = below(256) | below(2) << 8 | below(256) << 10;
            for (int k = 0; k < 4; k++) map[4 + 4 * i + (uint32_t)k] = (uint8_t)(unit >> 8 * k);
        }
        for (int k = 0; k < 4; k++) map[k] = (uint8_t)(4 * units >> 8 * k);
        if (n_texts && trial % 5) map[size - 1] = 0;
        maker *m = random_maker(SLM_TOKENIZER_UNIGRAM);
        m->steps[0] = (slm_normalizer){.kind = SLM_NORMALIZER_CHARSMAP, .a = map, .a_size = size};
        m->spec.n_normalizers = 1;
        slm_tokenizer *t = NULL;
        slm_error error;
        slm_status status = slm_tokenizer_create(&m->spec, &t, &error);
        CHECK(status == SLM_OK || (status == SLM_BAD_DATA && strstr(error.message, "precompiled_charsmap")));
        for (int i = 0; i < 8 && !status; i++) check_encoding(t, text, random_text(text, 400));
        accepted += !status;
        slm_tokenizer_release(t);
        free(m);
        free(map);
    }
    CHECK(accepted > 100);
}

/* Steps that make ten bytes of each, again and again. */
static void test_growth_is_bounded(void) {
    maker *m = random_maker(SLM_TOKENIZER_UNIGRAM);
    for (int i = 0; i < 4; i++)
        m->steps[i] = (slm_normalizer){.kind = SLM_NORMALIZER_REPLACE,
                                       .a = (const uint8_t *)"a",
                                       .a_size = 1,
                                       .b = (const uint8_t *)"aaaaaaaaaa",
                                       .b_size = 10};
    m->spec.n_normalizers = 4;
    slm_tokenizer *t = made(m);
    slm_tokens tokens = {0};
    slm_error error;
    slm_encode_options options = {0};
    static char text[100];
    memset(text, 'a', sizeof text);
    CHECK(slm_tokenizer_encode(t, text, 5, &options, NULL, &tokens, &error) == SLM_OK);
    size_t count = tokens.count;
    CHECK(slm_tokenizer_encode(t, text, sizeof text, &options, NULL, &tokens, &error) == SLM_BAD_ARGUMENT);
    CHECK(strstr(error.message, "normalizers") && tokens.count == count);
    slm_tokens_free(&tokens);
    slm_tokenizer_release(t);

    add(m, "aaa", 3, SLM_TOKEN_CONTROL, SLM_TOKEN_NORMALIZED, 0); /* 30,000 bytes once normalized */
    CHECK(slm_tokenizer_create(&m->spec, &t, &error) == SLM_BAD_DATA && error.index == (int64_t)m->spec.pieces.count - 1);
    free(m);
}

/* ---- vocabularies that cannot be used ---------------------------------------------------------------------------------------
 */

static void expect_bad(maker *m, int64_t index, const char *field) {
    slm_tokenizer *t = NULL;
    slm_error error;
    CHECK(slm_tokenizer_create(&m->spec, &t, &error) == SLM_BAD_DATA);
    CHECK(error.index == index && strstr(error.message, field) && !t && slm_alloc_outstanding() == 0);
    free(m);
}

static void test_bad_vocabularies(void) {
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        maker *m = maker_new(SLM_TOKENIZER_UNIGRAM);
        add(m, "a", 1, SLM_TOKEN_NORMAL, 0, bad[i]);
        expect_bad(m, 1, "scores[1]");
    }
    maker *m = maker_new(SLM_TOKENIZER_UNIGRAM);
    m->spec.scores = NULL;
    expect_bad(m, -1, "scores");
    m = maker_new(SLM_TOKENIZER_WORDPIECE);
    m->spec.unk = -1;
    expect_bad(m, -1, "unk");
    m = maker_new(SLM_TOKENIZER_WORDPIECE);
    m->spec.max_word_length = 0;
    expect_bad(m, -1, "max_word_length");
    m = maker_new((slm_tokenizer_model)4);
    expect_bad(m, -1, "model");
    m = maker_new(SLM_TOKENIZER_UNIGRAM);
    add(m, "<0x0G>", 6, SLM_TOKEN_BYTE, 0, 0);
    expect_bad(m, 1, "pieces[1]");
    m = maker_new(SLM_TOKENIZER_UNIGRAM);
    m->steps[0].kind = (slm_normalizer_kind)(SLM_NORMALIZER_CHARSMAP + 1);
    m->spec.n_normalizers = 1;
    expect_bad(m, 0, "normalizers[0]");
    m = maker_new(SLM_TOKENIZER_UNIGRAM);
    m->steps[0].kind = SLM_NORMALIZER_REPLACE;
    m->spec.n_normalizers = 1;
    expect_bad(m, 0, "normalizers[0]");
    static char longest[4097];
    memset(longest, 'x', sizeof longest);
    m = maker_new(SLM_TOKENIZER_UNIGRAM);
    add(m, longest, 4097, SLM_TOKEN_NORMAL, 0, 0);
    expect_bad(m, 1, "pieces[1]");

    for (int model = SLM_TOKENIZER_UNIGRAM; model <= SLM_TOKENIZER_WORDPIECE; model++) {
        m = maker_new((slm_tokenizer_model)model); /* a vocabulary of one, then with the longest piece there may be */
        slm_tokenizer *t = made(m);
        check_encoding(t, "abc", 3);
        slm_tokenizer_release(t);
        add(m, longest, 4096, SLM_TOKEN_NORMAL, 0, 0);
        m->spec.max_word_length = INT32_MAX;
        t = made(m);
        check_encoding(t, longest, sizeof longest);
        check_encoding(t, longest, 4095);
        slm_tokenizer_release(t);
        free(m);
    }
}

/* ---- batches, cancelling, and running out of memory
 * ---------------------------------------------------------------------------- */

static void test_batch(slm_tokenizer_model model) {
    enum { COUNT = 200 };
    maker *m = random_maker(model);
    m->steps[0].kind = SLM_NORMALIZER_NFKC;
    m->spec.n_normalizers = 1;
    slm_tokenizer *t = made(m);
    static char texts[COUNT][TEXT + 16];
    static slm_text_view views[COUNT];
    for (int i = 0; i < COUNT; i++) views[i] = (slm_text_view){texts[i], random_text(texts[i], i % 20 ? 100 : TEXT)};
    slm_encode_options options = {.parse_special = true, .spans = true};
    slm_call call = {.threads = 4};
    slm_tokens many[COUNT] = {0}, one = {0};
    slm_error error;
    CHECK(slm_tokenizer_encode_batch(t, views, COUNT, &options, &call, many, &error) == SLM_OK);
    for (int i = 0; i < COUNT; i++) {
        one.count = 0;
        CHECK(slm_tokenizer_encode(t, views[i].bytes, views[i].size, &options, NULL, &one, &error) == SLM_OK);
        CHECK(one.count == many[i].count);
        if (one.count) CHECK(memcmp(one.ids, many[i].ids, one.count * sizeof *one.ids) == 0);
        if (one.count) CHECK(memcmp(one.spans, many[i].spans, one.count * sizeof *one.spans) == 0);
        slm_tokens_free(&many[i]);
    }
    CHECK(slm_tokenizer_encode_batch(t, NULL, 0, &options, &call, NULL, &error) == SLM_OK);
    slm_tokens_free(&one);
    slm_tokenizer_release(t);
    free(m);
}

static int stop(void *user, const slm_event *event) {
    (*(int *)user)++;
    return event->kind == SLM_EVENT_INTERRUPT;
}

/* Long texts of one word, and of one stretch of marks that has to be ordered and composed. */
static void test_cancelling(void) {
    enum { SIZE = 4 << 20 };
    char *text = malloc(SIZE);
    CHECK(text);
    for (int trial = 0; trial < 6; trial++) {
        maker *m = maker_new(trial % 2 ? SLM_TOKENIZER_WORDPIECE : SLM_TOKENIZER_UNIGRAM);
        add(m, trial % 2 ? "##a" : "a", trial % 2 ? 3 : 1, SLM_TOKEN_NORMAL, 0, -1);
        add(m, "aa", 2, SLM_TOKEN_NORMAL, 0, -1);
        m->spec.max_word_length = INT32_MAX;
        m->steps[0].kind = trial / 2 == 1 ? SLM_NORMALIZER_NFKC : SLM_NORMALIZER_LOWERCASE;
        m->spec.n_normalizers = 1;
        for (size_t i = 0; i < SIZE; i++)
            text[i] = trial / 2 == 0 ? 'a' : i % 2 == 0 ? '\xCC' : (char)(trial / 2 == 1 && i % 4 == 1 ? 0xA3 : 0x81);
        slm_tokenizer *t = made(m);
        int64_t held = slm_alloc_outstanding();
        for (int batch = 0; batch < 2; batch++) {
            slm_tokens tokens[8] = {0};
            slm_text_view views[8];
            for (int i = 0; i < 8; i++) views[i] = (slm_text_view){text, SIZE};
            slm_error error;
            slm_encode_options options = {.spans = trial / 2 == 2};
            int events = 0;
            slm_call call = {.event = stop, .user = &events, .threads = 2};
            slm_status status = batch ? slm_tokenizer_encode_batch(t, views, 8, &options, &call, tokens, &error)
                                      : slm_tokenizer_encode(t, text, SIZE, &options, &call, tokens, &error);
            CHECK(status == SLM_CANCELLED && events == 1);
            for (int i = 0; i < 8; i++) slm_tokens_free(&tokens[i]);
            CHECK(slm_alloc_outstanding() == held);
        }
        slm_tokenizer_release(t);
        free(m);
    }
    free(text);
}

static slm_status all_operations(const maker *m, const char *text, size_t size, slm_error *error) {
    slm_tokenizer *t = NULL;
    slm_tokens tokens[2] = {0};
    slm_text bytes = {0};
    slm_encode_options options = {.parse_special = true, .spans = true};
    const slm_text_view views[] = {{text, size}, {text, size / 2}};
    slm_status status = slm_tokenizer_create(&m->spec, &t, error);
    if (!status) status = slm_tokenizer_encode_batch(t, views, 2, &options, NULL, tokens, error);
    if (!status) status = slm_tokenizer_decode(t, tokens[0].ids, tokens[0].count, false, NULL, &bytes, error);
    slm_text_free(&bytes);
    slm_tokens_free(&tokens[0]);
    slm_tokens_free(&tokens[1]);
    slm_tokenizer_release(t);
    return status;
}

static void test_no_memory(slm_tokenizer_model model) {
    static char text[TEXT + 16];
    size_t size = random_text(text, TEXT);
    maker *m = random_maker(model);
    m->flags[m->spec.pieces.count - 1] = SLM_TOKEN_NORMALIZED;
    const slm_normalizer_kind kinds[] = {SLM_NORMALIZER_NFKC, SLM_NORMALIZER_LOWERCASE, SLM_NORMALIZER_COLLAPSE};
    for (int i = 0; i < 3; i++) m->steps[i] = (slm_normalizer){.kind = kinds[i], .b = (const uint8_t *)"__", .b_size = 2};
    m->spec.n_normalizers = 3;
    for (int persistent = 0; persistent < 2; persistent++) {
        slm_status status = SLM_NO_MEMORY;
        int64_t k = 0;
        for (; status == SLM_NO_MEMORY; k++) {
            slm_error error = {0};
            slm_alloc_fail_at(k, persistent);
            status = all_operations(m, text, size, &error);
            slm_alloc_fail_at(-1, 0);
            CHECK(status == SLM_OK || (status == SLM_NO_MEMORY && error.status == SLM_NO_MEMORY));
            CHECK(slm_alloc_outstanding() == 0);
        }
        CHECK(status == SLM_OK && k > 20);
    }
    free(m);
}

int main(void) {
    for (int model = SLM_TOKENIZER_UNIGRAM; model <= SLM_TOKENIZER_WORDPIECE; model++) {
        test_no_memory((slm_tokenizer_model)model);
        test_random_vocabularies((slm_tokenizer_model)model);
    }
    test_every_code_point();
    test_random_charsmaps();
    test_growth_is_bounded();
    test_bad_vocabularies();
    test_cancelling();
    test_batch(SLM_TOKENIZER_UNIGRAM);
    test_batch(SLM_TOKENIZER_WORDPIECE);
    return finish();
}
