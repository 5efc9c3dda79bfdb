/* SPDX-License-Identifier: Apache-2.0
 * test_text.c: tokenizers without Python. Ids of real vocabularies are compared with Hugging Face's library in
 * test_tokenizer_core.py; here are made-up vocabularies, hostile input, cancelling and failing allocations. */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "check.h"
#include "slm.h"
#include "text/bpe_table.h"

static uint32_t random_below(uint32_t limit) {
    return random_u32() % limit;
}

/* ---- lists of strings ------------------------------------------------------------------------------------------------- */

enum { MAX_STRINGS = 8192, MAX_BYTES = 1 << 17 };

typedef struct list {
    char bytes[MAX_BYTES];
    uint64_t offsets[MAX_STRINGS + 1];
    size_t count;
} list;

static void list_add(list *l, const char *string, size_t size) {
    CHECK(l->count < MAX_STRINGS && l->offsets[l->count] + size <= MAX_BYTES);
    memcpy(l->bytes + l->offsets[l->count], string, size);
    l->offsets[l->count + 1] = l->offsets[l->count] + size;
    l->count++;
}

static slm_strings list_strings(const list *l) {
    return (slm_strings){.bytes = l->bytes, .offsets = l->offsets, .count = l->count};
}

/* ---- a vocabulary: 256 bytes and what tests add ------------------------------------------------------------------------ */

typedef struct maker {
    list pieces, merges;
    uint8_t kinds[MAX_STRINGS];
    slm_tokenizer_spec spec;
} maker;

/* UTF-8 of a byte in GPT-2's alphabet, written down from its description: printable Latin-1 as it is, the rest from U+0100. */
static size_t alphabet(int byte, char *out) {
    int code_point = byte, shifted = 0;
    for (int b = 0; b <= byte; b++) {
        int printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        if (!printable) shifted++;
        if (b == byte && !printable) code_point = 0x100 + shifted - 1;
    }
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    out[0] = (char)(0xC0 | code_point >> 6);
    out[1] = (char)(0x80 | (code_point & 0x3F));
    return 2;
}

static const slm_split_step gpt2_words[] = {{.kind = SLM_SPLIT_GPT2_WORDS}};

static int32_t add_piece(maker *m, const char *piece, slm_token_kind kind) {
    m->kinds[m->pieces.count] = (uint8_t)kind;
    list_add(&m->pieces, piece, strlen(piece));
    return (int32_t)m->pieces.count - 1;
}

static void add_merge(maker *m, const char *merge) {
    list_add(&m->merges, merge, strlen(merge));
}

static maker *maker_new(void) {
    maker *m = calloc(1, sizeof *m);
    CHECK(m);
    for (int byte = 0; byte < 256; byte++) {
        char piece[3] = {0};
        alphabet(byte, piece);
        add_piece(m, piece, SLM_TOKEN_NORMAL);
    }
    m->spec.unk = -1;
    m->spec.splits = gpt2_words;
    m->spec.n_splits = 1;
    return m;
}

static slm_status create(maker *m, slm_tokenizer **tokenizer, slm_error *error) {
    m->spec.pieces = list_strings(&m->pieces);
    m->spec.merges = list_strings(&m->merges);
    m->spec.kinds = m->kinds;
    return slm_tokenizer_create(&m->spec, tokenizer, error);
}

static slm_tokenizer *made(maker *m) {
    slm_tokenizer *tokenizer = NULL;
    slm_error error;
    CHECK(create(m, &tokenizer, &error) == SLM_OK);
    return tokenizer;
}

/* ids: ended by -1. Encodes, compares, and decodes back. */
static void expect_ids(const slm_tokenizer *t, const char *text, const slm_encode_options *options, const int32_t *ids) {
    slm_tokens tokens = {0};
    slm_error error;
    CHECK(slm_tokenizer_encode(t, text, strlen(text), options, NULL, &tokens, &error) == SLM_OK);
    size_t count = 0;
    while (ids[count] >= 0) count++;
    CHECK(tokens.count == count);
    for (size_t i = 0; i < count; i++) CHECK(tokens.ids[i] == ids[i]);
    slm_text back = {0};
    CHECK(slm_tokenizer_decode(t, tokens.ids, tokens.count, false, NULL, &back, &error) == SLM_OK);
    if (!options->add_special_tokens) CHECK(back.size == strlen(text) && memcmp(back.bytes, text, back.size) == 0);
    slm_text_free(&back);
    slm_tokens_free(&tokens);
}

#define EXPECT(tokenizer, text, options, ...) expect_ids(tokenizer, text, options, (const int32_t[]){__VA_ARGS__, -1})

/* ---- UTF-8 --------------------------------------------------------------------------------------------------------------- */

#define R "\xEF\xBF\xBD"

/* The Unicode Standard 16.0, tables 3-8 to 3-11 (substitution of maximal subparts), then borders of the encoding. */
static const char *const utf8_cases[][2] = {
    {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", R R R R R R R R "A"},
    {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", R R R R R R R R "A"},
    {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", R R R R R "A" R R "B"},
    {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", R R R R "A"},
    {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64", "a" R R R "b" R "c" R R "d"},
    {"\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80", "\xC2\x80\xDF\xBF\xE0\xA0\x80\xEF\xBF\xBF\xF0\x90\x80\x80"},
    {"\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF", "\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF"},
    {"ab\xF0\x9F\xA6\x99"
     "c\xF0\x9F\xA6",
     "ab\xF0\x9F\xA6\x99"
     "c" R},
    {"\xE2\x82", R},
    {"\xF0\x9F\xF0\x9F\xA6\x99", R "\xF0\x9F\xA6\x99"},
};

static void test_utf8(void) {
    for (size_t c = 0; c < sizeof utf8_cases / sizeof *utf8_cases; c++) {
        const char *in = utf8_cases[c][0], *out = utf8_cases[c][1];
        size_t size = strlen(in);
        for (uint32_t cuts = 0; cuts < 1u << (size - 1); cuts++) { /* bit i: a cut behind byte i */
            slm_utf8_stream stream = {0};
            slm_text text = {0};
            slm_error error;
            size_t start = 0;
            for (size_t i = 0; i < size; i++) {
                bool last = i + 1 == size;
                if (!last && !(cuts >> i & 1)) continue;
                CHECK(slm_utf8_push(&stream, in + start, i + 1 - start, last, &text, &error) == SLM_OK);
                CHECK(stream.n_held <= 3);
                start = i + 1;
            }
            CHECK(text.size == strlen(out) && memcmp(text.bytes, out, text.size) == 0);
            slm_text_free(&text);
        }
    }
}

/* ---- splitting strings ----------------------------------------------------------------------------------------------------- */

static void test_split(void) {
    static const uint8_t data[] = {2, 0, 0, 0, 0, 0, 0, 0, 'a', 'b', 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 'x'};
    const size_t whole = sizeof data - 1;
    uint64_t offsets[4];
    char joined[8];
    size_t consumed;
    slm_error error;
    CHECK(slm_strings_split(data, sizeof data, 3, 2, offsets, joined, &consumed, &error) == SLM_OK);
    CHECK(consumed == whole && offsets[0] == 0 && offsets[1] == 2 && offsets[2] == 2 && offsets[3] == 3);
    CHECK(memcmp(joined, "ab\0", 3) == 0);
    CHECK(slm_strings_split(data, 0, 0, 0, offsets, joined, &consumed, &error) == SLM_OK && consumed == 0 && offsets[0] == 0);

    CHECK(slm_strings_split(data, sizeof data, 3, 1, offsets, joined, &consumed, &error) == SLM_BAD_DATA && error.index == 0);
    CHECK(slm_strings_split(data, sizeof data, 4, 2, offsets, joined, &consumed, &error) == SLM_BAD_DATA && error.index == 3);
    CHECK(slm_strings_split(data, sizeof data, SIZE_MAX, 2, offsets, joined, &consumed, &error) == SLM_BAD_DATA);
    for (size_t size = 0; size < whole; size++) {
        uint8_t *copy = malloc(size ? size : 1); /* of this very size, so that a sanitizer sees any read behind it */
        CHECK(copy);
        memcpy(copy, data, size);
        offsets[0] = 77;
        CHECK(slm_strings_split(copy, size, 3, 2, offsets, joined, &consumed, &error) == SLM_BAD_DATA);
        CHECK(error.index == (size < 10 ? 0 : size < 18 ? 1 : 2) && offsets[0] == 77);
        free(copy);
    }
    for (int bit = 2; bit < 64; bit++) {
        uint8_t hostile[sizeof data];
        memcpy(hostile, data, sizeof data);
        hostile[10 + bit / 8] |= (uint8_t)(1 << bit % 8);
        CHECK(slm_strings_split(hostile, sizeof hostile, 3, SIZE_MAX, offsets, joined, &consumed, &error) == SLM_BAD_DATA);
        CHECK(error.index >= 1);
    }
}

/* ---- encoding
 * ------------------------------------------------------------------------------------------------------------------ */

static void test_words(void) {
    maker *m = maker_new();
    int32_t ab = add_piece(m, "ab", SLM_TOKEN_NORMAL), space_ab = add_piece(m,
                                                                            "\xC4\xA0"
                                                                            "ab",
                                                                            SLM_TOKEN_NORMAL);
    add_merge(m, "a b");
    add_merge(m, "\xC4\xA0 ab");
    slm_encode_options plain = {0};
    slm_tokenizer *t = made(m);
    for (int again = 0; again < 2; again++) { /* the second time it is known that whole words are tokens */
        EXPECT(t, "ab ab", &plain, ab, space_ab);
        EXPECT(t, "ab  ab\n", &plain, ab, ' ', space_ab, '\n');
        EXPECT(t, "a12b", &plain, 'a', '1', '2', 'b');
        EXPECT(t, "xab'sab", &plain, 'x', ab, '\'', 's', ab);
        EXPECT(t,
               "\xFF\xC3"
               "ab",
               &plain, 0xFF, 0xC3, ab);
    }
    CHECK(slm_tokenizer_size(t) == 258 && slm_tokenizer_kind(t, ab) == SLM_TOKEN_NORMAL);
    CHECK(slm_tokenizer_find(t,
                             "\xC4\xA0"
                             "ab",
                             4) == space_ab &&
          slm_tokenizer_find(t, " ab", 3) == -1);
    CHECK(slm_tokenizer_retain(t) == t);
    slm_tokenizer_release(t);
    EXPECT(t, "ab", &plain, ab);
    slm_tokenizer_release(t);
    slm_tokenizer_release(NULL);

    m->spec.prefix = (const int32_t[]){1};
    m->spec.suffix = (const int32_t[]){2};
    m->spec.n_prefix = m->spec.n_suffix = 1;
    m->spec.n_splits = 0; /* the text is one word */
    t = made(m);
    slm_encode_options special = {.add_special_tokens = true};
    EXPECT(t, "ab ab", &special, 1, ab, space_ab, 2);
    EXPECT(t, "ab ab", &plain, ab, space_ab);
    slm_tokenizer_release(t);
    free(m);
}

static void test_missing_bytes(void) {
    maker *m = maker_new();
    int32_t ab = add_piece(m, "ab", SLM_TOKEN_NORMAL);
    add_merge(m, "a b");
    m->kinds['#'] = SLM_TOKEN_CONTROL; /* an added token is no byte */
    slm_tokenizer *t = made(m);
    slm_tokens tokens = {0};
    slm_error error;
    slm_encode_options options = {0};
    CHECK(slm_tokenizer_encode(t, "a b##", 5, &options, NULL, &tokens, &error) == SLM_OK);
    CHECK(tokens.count == 3 && tokens.dropped == 2);
    slm_tokens_free(&tokens);
    m->spec.n_splits = 0;
    slm_tokenizer_release(t);
    t = made(m);
    CHECK(slm_tokenizer_encode(t, "a#b", 3, &options, NULL, &tokens, &error) == SLM_OK);
    CHECK(tokens.count == 1 && tokens.ids[0] == ab && tokens.dropped == 1);
    slm_tokens_free(&tokens);
    slm_tokenizer_release(t);
    free(m);
}

/* The definition, without a queue: the lowest rank first, the leftmost of equals. results[left][right]: rank, id. */
typedef struct rule {
    uint32_t rank;
    int32_t id;
} rule;

static size_t merge_slowly(const rule *rules, size_t n_ids, int32_t *ids, size_t count) {
    for (;;) {
        size_t best = 0;
        uint32_t rank = UINT32_MAX;
        for (size_t i = 0; i + 1 < count; i++) {
            uint32_t r = rules[(size_t)ids[i] * n_ids + (size_t)ids[i + 1]].rank;
            if (r < rank) rank = r, best = i;
        }
        if (rank == UINT32_MAX) return count;
        ids[best] = rules[(size_t)ids[best] * n_ids + (size_t)ids[best + 1]].id;
        memmove(ids + best + 1, ids + best + 2, (count - best - 2) * sizeof *ids);
        count--;
    }
}

/* Vocabularies over three letters whose ranks are in no order at all, as no training would make them. */
static void test_merging_is_the_definition(void) {
    enum { TRIALS = 24, MERGES = 120, LONGEST = 4200 };
    for (int trial = 0; trial < TRIALS; trial++) {
        maker *m = maker_new();
        char letters[64][16] = {"a", "b", "c"};
        int32_t ids[64] = {'a', 'b', 'c'}, pairs[MERGES][3];
        size_t n = 3, n_merges = 0;
        while (n_merges < MERGES && n < 64) {
            uint32_t left = random_below((uint32_t)n), right = random_below((uint32_t)n), found = 0;
            char joined[32];
            snprintf(joined, sizeof joined, "%s%s", letters[left], letters[right]);
            if (strlen(joined) > 12) continue;
            while (found < n && strcmp(letters[found], joined)) found++;
            bool known = false;
            for (size_t i = 0; i < n_merges; i++) known |= pairs[i][0] == ids[left] && pairs[i][1] == ids[right];
            if (known) continue;
            if (found == n) {
                strcpy(letters[n], joined);
                ids[n++] = add_piece(m, joined, SLM_TOKEN_NORMAL);
            }
            pairs[n_merges][0] = ids[left], pairs[n_merges][1] = ids[right], pairs[n_merges++][2] = ids[found];
        }
        size_t n_ids = m->pieces.count;
        rule *rules = malloc(n_ids * n_ids * sizeof *rules);
        CHECK(rules);
        for (size_t i = 0; i < n_ids * n_ids; i++) rules[i] = (rule){UINT32_MAX, -1};
        for (size_t i = n_merges; i-- > 0;) { /* in random order */
            size_t chosen = random_below((uint32_t)i + 1);
            int32_t *p = pairs[chosen];
            char merge[64];
            snprintf(merge, sizeof merge, "%.*s %.*s", (int)(m->pieces.offsets[p[0] + 1] - m->pieces.offsets[p[0]]),
                     m->pieces.bytes + m->pieces.offsets[p[0]], (int)(m->pieces.offsets[p[1] + 1] - m->pieces.offsets[p[1]]),
                     m->pieces.bytes + m->pieces.offsets[p[1]]);
            rules[(size_t)p[0] * n_ids + (size_t)p[1]] = (rule){(uint32_t)m->merges.count, p[2]};
            add_merge(m, merge);
            memcpy(p, pairs[i], sizeof pairs[i]);
        }
        slm_tokenizer *t = made(m);
        for (int word = 0; word < 60; word++) {
            static char text[LONGEST];
            static int32_t expected[LONGEST];
            size_t size = 0, wanted = word < 6 ? LONGEST : 1 + random_below(word < 30 ? 12 : 200);
            size_t first = random_below((uint32_t)n), variety = 1 + random_below((uint32_t)(n - first < 3 ? n - first : 3));
            while (size < wanted) { /* of few pieces, so that equal pairs overlap */
                const char *piece = letters[first + random_below((uint32_t)variety)];
                for (size_t i = 0; piece[i] && size < wanted; i++, size++) expected[size] = text[size] = piece[i];
            }
            size_t count = merge_slowly(rules, n_ids, expected, size);
            slm_tokens tokens = {0};
            slm_error error;
            slm_encode_options options = {0};
            CHECK(slm_tokenizer_encode(t, text, size, &options, NULL, &tokens, &error) == SLM_OK);
            CHECK(tokens.count == count && memcmp(tokens.ids, expected, count * sizeof *expected) == 0);
            slm_tokens_free(&tokens);
        }
        slm_tokenizer_release(t);
        free(rules);
        free(m);
    }
}

/* ---- added tokens
 * ------------------------------------------------------------------------------------------------------------------ */

static void test_added_tokens(void) {
    maker *m = maker_new();
    int32_t control = add_piece(m, "<c>", SLM_TOKEN_CONTROL), longer = add_piece(m, "<c><d>", SLM_TOKEN_CONTROL);
    int32_t d = add_piece(m, "<d>", SLM_TOKEN_CONTROL), user = add_piece(m, "two  words", SLM_TOKEN_USER_DEFINED);
    int32_t inner = add_piece(m, "c>", SLM_TOKEN_USER_DEFINED);
    add_piece(m, "", SLM_TOKEN_USER_DEFINED);
    slm_tokenizer *t = made(m);
    slm_encode_options off = {0}, on = {.parse_special = true};
    EXPECT(t, "x<c><c>", &on, 'x', control, control);
    EXPECT(t, "<c><d><d>", &on, longer, d);
    EXPECT(t, "<c><d", &on, control, '<', 'd');
    EXPECT(t, "<<c>", &on, '<', control);
    EXPECT(t, "<c>", &off, '<', inner);
    EXPECT(t, "two  words", &off, user);
    EXPECT(t, "two  wordstwo  word", &off, user, 't', 'w', 'o', ' ', ' ', 'w', 'o', 'r', 'd');
    CHECK(slm_tokenizer_find(t, "two  words", 10) == user);

    const struct {
        uint64_t guards[4];
        size_t n;
        int32_t ids[8];
    } cases[] = {
        {{0}, 1, {longer, -1}},                       /* before the text: covers nothing */
        {{6}, 1, {longer, -1}},                       /* behind it */
        {{3}, 1, {control, d, -1}},                   /* the longer one would cover it */
        {{1}, 1, {'<', inner, d, -1}},                /* neither may begin here */
        {{2, 4}, 2, {'<', inner, '<', 'd', '>', -1}}, /* no control token is left */
        {{4, 4, 6}, 3, {control, '<', 'd', '>', -1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slm_encode_options guarded = {.parse_special = true, .guards = cases[i].guards, .n_guards = cases[i].n};
        expect_ids(t, "<c><d>", &guarded, cases[i].ids);
    }
    slm_tokens tokens = {0};
    slm_error error;
    const uint64_t descending[] = {4, 3}, outside[] = {7};
    slm_encode_options bad = {.guards = descending, .n_guards = 2};
    CHECK(slm_tokenizer_encode(t, "<c><d>", 6, &bad, NULL, &tokens, &error) == SLM_BAD_ARGUMENT && error.index == 1);
    bad = (slm_encode_options){.guards = outside, .n_guards = 1};
    CHECK(slm_tokenizer_encode(t, "<c><d>", 6, &bad, NULL, &tokens, &error) == SLM_BAD_ARGUMENT && error.index == 0);

    slm_text text = {0};
    const int32_t ids[] = {'x', control, user, 258 + 1000};
    CHECK(slm_tokenizer_decode(t, ids, 3, true, NULL, &text, &error) == SLM_OK);
    CHECK(text.size == 11 && memcmp(text.bytes, "xtwo  words", 11) == 0);
    CHECK(slm_tokenizer_decode(t, ids, 4, true, NULL, &text, &error) == SLM_BAD_ARGUMENT && error.index == 3 && text.size == 11);
    const int32_t negative = -1;
    CHECK(slm_tokenizer_decode(t, &negative, 1, true, NULL, &text, &error) == SLM_BAD_ARGUMENT && error.index == 0);
    slm_text_free(&text);
    slm_tokenizer_release(t);
    free(m);
}

/* ---- vocabularies that cannot be used
 * -------------------------------------------------------------------------------------------------- */

static void expect_bad(maker *m, int64_t index, const char *field) {
    slm_tokenizer *tokenizer = NULL;
    slm_error error;
    int64_t held = slm_alloc_outstanding();
    CHECK(create(m, &tokenizer, &error) == SLM_BAD_DATA);
    CHECK(error.index == index && strstr(error.message, field) && !tokenizer && slm_alloc_outstanding() == held);
    free(m);
}

static void test_bad_vocabularies(void) {
    maker *m = maker_new();
    m->pieces.count = 0;
    expect_bad(m, -1, "pieces");
    m = maker_new();
    add_piece(m, "x", SLM_TOKEN_NORMAL);
    expect_bad(m, 256, "pieces[256]: is the same as pieces[120]");
    m = maker_new();
    add_piece(m, "x", SLM_TOKEN_CONTROL); /* another spelling, the same text */
    expect_bad(m, 256, "pieces[256]: is the same as pieces[120]");
    m = maker_new();
    static char long_piece[4098];
    memset(long_piece, 'x', sizeof long_piece - 1);
    add_piece(m, long_piece, SLM_TOKEN_NORMAL);
    expect_bad(m, 256, "pieces[256]");
    m = maker_new();
    m->pieces.offsets[3] = 0; /* not ascending */
    expect_bad(m, 2, "pieces[2]");
    for (int kind = 0; kind < 256; kind += kind == 0 ? 7 : 62) {
        m = maker_new();
        m->kinds[7] = (uint8_t)kind;
        expect_bad(m, 7, "kinds[7]");
    }
    m = maker_new();
    m->spec.prefix = (const int32_t[]){0, 256};
    m->spec.n_prefix = 2;
    expect_bad(m, 1, "prefix[1]");
    m = maker_new();
    m->spec.suffix = (const int32_t[]){-1};
    m->spec.n_suffix = 1;
    expect_bad(m, 0, "suffix[0]");
    m = maker_new();
    m->spec.unk = 256;
    expect_bad(m, 256, "unk");
    static const char *const merges[] = {"ab", "", " ", "a ", " b", "a b ", "a  b", "a b c", "q\xC4\xA0 a", "a zz", "x y", "a C"};
    for (size_t i = 0; i < sizeof merges / sizeof *merges; i++) {
        m = maker_new();
        add_piece(m, "ab", SLM_TOKEN_NORMAL);
        add_piece(m, "aC", SLM_TOKEN_CONTROL);
        add_merge(m, "a b");
        add_merge(m, merges[i]);
        expect_bad(m, 1, "merges[1]");
    }
    m = maker_new();
    add_piece(m, "ab", SLM_TOKEN_NORMAL);
    add_merge(m, "a b");
    add_merge(m, "a b");
    expect_bad(m, 1, "merges[1]: is the same as merges[0]");
    m = maker_new();
    add_merge(m, long_piece);
    add_merge(m, long_piece);
    m->merges.count = 1;
    m->merges.offsets[1] *= 2;
    expect_bad(m, 0, "merges[0]");
}

/* Merges chosen so that all want the same slot of the table: refused instead of taking quadratic time. */
static void test_colliding_merges(void) {
    enum { PAIRS = 2400, MERGES = 1200, MASK = 4095 };
    maker *m = maker_new();
    int32_t ids[PAIRS], n_merges = 0;
    char names[PAIRS][3];
    for (int i = 0; i < PAIRS; i++) {
        snprintf(names[i], sizeof names[i], "%c%c", '0' + i / 49, '0' + i % 49);
        ids[i] = add_piece(m, names[i], SLM_TOKEN_NORMAL);
    }
    for (int i = 0; i < PAIRS && n_merges < MERGES; i++) {
        for (int j = 0; j < PAIRS && n_merges < MERGES; j++) {
            if (slm_merge_hash(ids[i], ids[j]) & MASK) continue;
            char joined[8], merge[8];
            snprintf(joined, sizeof joined, "%.2s%.2s", names[i], names[j]);
            snprintf(merge, sizeof merge, "%.2s %.2s", names[i], names[j]);
            add_piece(m, joined, SLM_TOKEN_NORMAL);
            add_merge(m, merge);
            n_merges++;
        }
    }
    CHECK(n_merges == MERGES);
    expect_bad(m, SLM_MERGE_LONGEST_PROBE, "colliding");
}

/* ---- cancelling, and running out of memory
 * ----------------------------------------------------------------------------------------------- */

static int stop(void *user, const slm_event *event) {
    (*(int *)user)++;
    return event->kind == SLM_EVENT_INTERRUPT;
}

static void test_cancelling(void) {
    enum { SIZE = 4 << 20 };
    maker *m = maker_new();
    add_piece(m, "aa", SLM_TOKEN_NORMAL);
    add_piece(m, "aaaa", SLM_TOKEN_NORMAL);
    add_merge(m, "a a");
    add_merge(m, "aa aa");
    char *text = malloc(SIZE);
    CHECK(text);
    for (int spaces = 0; spaces < 2; spaces++) { /* one long word, then many short ones */
        for (size_t i = 0; i < SIZE; i++) text[i] = spaces && i % 4 == 0 ? ' ' : 'a';
        slm_tokenizer *t = made(m);
        slm_tokens tokens = {0};
        slm_error error;
        slm_encode_options options = {0};
        int events = 0;
        slm_call call = {.event = stop, .user = &events};
        int64_t held = slm_alloc_outstanding();
        CHECK(slm_tokenizer_encode(t, text, SIZE, &options, &call, &tokens, &error) == SLM_CANCELLED);
        CHECK(events == 1 && tokens.count == 0);
        slm_tokens_free(&tokens);
        CHECK(slm_alloc_outstanding() == held);
        slm_tokenizer_release(t);
    }
    free(text);
    free(m);
}

/* Everything once: a tokenizer made, a long and a short word encoded, ids decoded, characters streamed. */
static slm_status all_operations(maker *m, const char *text, size_t size, slm_error *error) {
    slm_tokenizer *t = NULL;
    slm_tokens tokens = {0};
    slm_text bytes = {0}, characters = {0};
    slm_utf8_stream stream = {0};
    slm_encode_options options = {.add_special_tokens = true, .parse_special = true};
    slm_status status = create(m, &t, error);
    if (!status) status = slm_tokenizer_encode(t, text, size, &options, NULL, &tokens, error);
    if (!status) status = slm_tokenizer_decode(t, tokens.ids, tokens.count, false, NULL, &bytes, error);
    if (!status) status = slm_utf8_push(&stream, bytes.bytes, bytes.size, true, &characters, error);
    if (!status) CHECK(characters.size == size + 3 && memcmp(characters.bytes + 3, text, size) == 0); /* bos is <c> */
    slm_text_free(&characters);
    slm_text_free(&bytes);
    slm_tokens_free(&tokens);
    slm_tokenizer_release(t);
    return status;
}

static void test_no_memory(void) {
    enum { SIZE = 5000 };
    maker *m = maker_new();
    const int32_t control = add_piece(m, "<c>", SLM_TOKEN_CONTROL);
    m->spec.prefix = &control;
    m->spec.n_prefix = 1;
    add_piece(m, "aa", SLM_TOKEN_NORMAL);
    add_merge(m, "a a");
    static char text[SIZE];
    memset(text, 'a', sizeof text);
    memcpy(text + 60, " <c> ", 5);
    int64_t held = slm_alloc_outstanding();
    for (int persistent = 0; persistent < 2; persistent++) {
        slm_status status = SLM_NO_MEMORY;
        int64_t k = 0;
        for (; status == SLM_NO_MEMORY; k++) {
            slm_error error;
            slm_alloc_fail_at(k, persistent);
            status = all_operations(m, text, sizeof text, &error);
            slm_alloc_fail_at(-1, 0);
            CHECK(status == SLM_OK || (status == SLM_NO_MEMORY && error.status == SLM_NO_MEMORY));
            CHECK(slm_alloc_outstanding() == held);
        }
        CHECK(status == SLM_OK && k > 10);
    }
    free(m);
}

int main(void) {
    test_utf8();
    test_split();
    test_words();
    test_missing_bytes();
    test_merging_is_the_definition();
    test_added_tokens();
    test_bad_vocabularies();
    test_colliding_merges();
    test_cancelling();
    test_no_memory();
    CHECK(slm_alloc_outstanding() == 0);
    return finish();
}
