/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.c: the public object. Text goes through three stages: added tokens are found, what lies between them is cut into
 * words, each word is merged. Vocabulary, added tokens, merging and decoding are the same for both forms of BPE. */
#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/status.h"
#include "text/added.h"
#include "text/bpe.h"
#include "text/buffers.h"
#include "text/pretokenize.h"
#include "text/space_marker.h"

enum { WORDS_PER_TICK = 1024 };

struct slm_tokenizer {
    atomic_llong references;
    slm_vocabulary vocabulary;
    slm_added added;
    slm_pretokenizer pretokenizer;
    slm_bpe bpe;
    slm_space_prefix space_prefix;
    int32_t *affixes; /* [n_prefix + n_suffix] what special tokens are put before a text, then what behind it */
    size_t n_prefix, n_suffix;
};

static slm_status copy_affixes(const slm_tokenizer_spec *spec, slm_tokenizer *t, slm_error *error) {
    size_t n;
    if (!slm_add_size(spec->n_prefix, spec->n_suffix, &n) || !(t->affixes = slm_alloc_array(n, sizeof *t->affixes)))
        return slm_fail_memory(error);
    t->n_prefix = spec->n_prefix;
    t->n_suffix = spec->n_suffix;
    for (size_t i = 0; i < n; i++) {
        bool before = i < spec->n_prefix;
        size_t index = before ? i : i - spec->n_prefix;
        t->affixes[i] = before ? spec->prefix[index] : spec->suffix[index];
        if (t->affixes[i] < 0 || t->affixes[i] >= t->vocabulary.size)
            return slm_fail(error, SLM_BAD_DATA, (int64_t)index, "%s[%zu]: expected an id from 0 to %d, found %d",
                            before ? "prefix" : "suffix", index, (int)t->vocabulary.size - 1, (int)t->affixes[i]);
    }
    return SLM_OK;
}

/* What is not written yet is refused by its name. */
static slm_status check_supported(const slm_tokenizer_spec *spec, slm_error *error) {
    const char *missing = spec->model == SLM_TOKENIZER_UNIGRAM     ? "unigram"
                          : spec->model == SLM_TOKENIZER_WORDPIECE ? "WordPiece"
                          : spec->n_normalizers                    ? "normalizers"
                                                                   : NULL;
    for (size_t id = 0; spec->flags && id < spec->pieces.count; id++)
        if (spec->flags[id]) missing = "added tokens with flags";
    if (spec->space_prefix != SLM_SPACE_PREFIX_NONE &&
        (spec->model != SLM_TOKENIZER_BPE || spec->space_prefix != SLM_SPACE_PREFIX_ALWAYS))
        missing = "this space prefix";
    return missing ? slm_fail(error, SLM_UNSUPPORTED, -1, "tokenizer: %s", missing) : SLM_OK;
}

static slm_status check_spec(const slm_tokenizer_spec *spec, slm_error *error) {
    if (spec->unk < -1 || spec->unk >= (int64_t)spec->pieces.count)
        return slm_fail(error, SLM_BAD_DATA, spec->unk, "unk: expected an id below %zu, or -1 for none, found %d",
                        spec->pieces.count, (int)spec->unk);
    return check_supported(spec, error);
}

slm_status slm_tokenizer_create(const slm_tokenizer_spec *spec, slm_tokenizer **tokenizer, slm_error *error) {
    slm_status status = check_spec(spec, error);
    if (status) return status;
    slm_tokenizer *t = slm_alloc_zero(1, sizeof *t);
    if (!t) return slm_fail_memory(error);
    atomic_init(&t->references, 1);
    t->pretokenizer = spec->pretokenizer;
    t->space_prefix = spec->space_prefix;
    slm_alphabet alphabet = spec->model == SLM_TOKENIZER_BYTE_BPE ? SLM_ALPHABET_BYTES : SLM_ALPHABET_CHARACTERS;
    status = slm_vocabulary_create(&spec->pieces, spec->kinds, alphabet, &t->vocabulary, error);
    if (!status) status = copy_affixes(spec, t, error);
    if (!status) status = slm_added_create(&t->vocabulary, &t->added, error);
    if (!status) status = slm_bpe_create(&t->vocabulary, spec, &t->bpe, error);
    if (status) {
        slm_tokenizer_release(t);
        return status;
    }
    *tokenizer = t;
    return SLM_OK;
}

slm_tokenizer *slm_tokenizer_retain(slm_tokenizer *tokenizer) {
    atomic_fetch_add_explicit(&tokenizer->references, 1, memory_order_relaxed);
    return tokenizer;
}

void slm_tokenizer_release(slm_tokenizer *t) {
    if (!t || atomic_fetch_sub_explicit(&t->references, 1, memory_order_acq_rel) > 1) return;
    slm_bpe_destroy(&t->bpe);
    slm_free(t->affixes);
    slm_added_destroy(&t->added);
    slm_vocabulary_destroy(&t->vocabulary);
    slm_free(t);
}

int64_t slm_tokenizer_size(const slm_tokenizer *tokenizer) {
    return tokenizer->vocabulary.size;
}

bool slm_tokenizer_strips_space(const slm_tokenizer *tokenizer) {
    return tokenizer->space_prefix != SLM_SPACE_PREFIX_NONE;
}

slm_token_kind slm_tokenizer_kind(const slm_tokenizer *tokenizer, int32_t id) {
    return slm_vocabulary_kind(&tokenizer->vocabulary, id);
}

int32_t slm_tokenizer_find(const slm_tokenizer *tokenizer, const char *piece, size_t size) {
    return slm_vocabulary_find_piece(&tokenizer->vocabulary, (const uint8_t *)piece, size);
}

/* One call of encode. */
typedef struct encoding {
    const slm_tokenizer *tokenizer;
    slm_bpe_scratch scratch;
    slm_clock clock;
    slm_tokens *tokens;
    slm_text spaced; /* by characters: a stretch of text with its prefix, and a space for every space marker */
    size_t words;
} encoding;

/* Up to where no merge by characters can reach across: a word with the spaces before it, or the whole text. */
static size_t spaced_word(const slm_bpe *bpe, const uint8_t *text, size_t size) {
    if (bpe->whole_text) return size;
    size_t at = 0;
    while (at < size && text[at] == ' ') at++;
    const uint8_t *end = at < size ? memchr(text + at, ' ', size - at) : NULL;
    return end ? (size_t)(end - text) : size;
}

static slm_status add_spaces(encoding *e, const uint8_t **text, size_t *size, slm_error *error) {
    e->spaced.size = 0;
    slm_status status = slm_text_reserve(&e->spaced, *size + 1, error);
    if (status) return status;
    uint8_t *out = (uint8_t *)e->spaced.bytes;
    if (e->tokenizer->space_prefix != SLM_SPACE_PREFIX_NONE) *out++ = ' ';
    out += slm_space_marker_decode(*text, *size, out);
    *text = (const uint8_t *)e->spaced.bytes;
    *size = (size_t)(out - *text);
    return SLM_OK;
}

static slm_status encode_words(encoding *e, const uint8_t *text, size_t size, slm_error *error) {
    const slm_bpe *bpe = &e->tokenizer->bpe;
    slm_status spaced = bpe->by_characters && size ? add_spaces(e, &text, &size, error) : SLM_OK;
    if (spaced) return spaced;
    while (size) {
        size_t n =
            bpe->by_characters ? spaced_word(bpe, text, size) : slm_pretokenize_word(&e->tokenizer->pretokenizer, text, size);
        slm_status status = slm_bpe_encode(bpe, text, n, &e->scratch, &e->clock, e->tokens, error);
        if (status) return status;
        text += n;
        size -= n;
        if (++e->words % WORDS_PER_TICK == 0 && slm_clock_tick(&e->clock)) return slm_fail_cancelled(error);
    }
    return SLM_OK;
}

static slm_status push(slm_tokens *tokens, const int32_t *ids, size_t count, slm_error *error) {
    slm_status status = slm_tokens_reserve(tokens, count, error);
    if (status || !count) return status;
    memcpy(tokens->ids + tokens->count, ids, count * sizeof *ids);
    tokens->count += count;
    return SLM_OK;
}

static slm_status encode_text(encoding *e, const uint8_t *text, size_t size, const slm_encode_options *options,
                              slm_error *error) {
    slm_added_search search = {.added = &e->tokenizer->added, .text = text, .size = size, .options = options, .clock = &e->clock};
    slm_status status = SLM_OK;
    size_t done = 0, start;
    int32_t id;
    while (!status && slm_added_next(&search, &start, &id)) {
        status = encode_words(e, text + done, start - done, error);
        if (!status) status = push(e->tokens, &id, 1, error);
        done = search.at;
    }
    if (!status && e->clock.cancelled) status = slm_fail_cancelled(error);
    return status ? status : encode_words(e, text + done, size - done, error);
}

static slm_status check_arguments(size_t size, const slm_encode_options *options, slm_error *error) {
    if (size > INT32_MAX) return slm_text_too_large(size, error);
    for (size_t i = 0; i < options->n_guards; i++) {
        if (options->guards[i] > size || (i && options->guards[i] < options->guards[i - 1]))
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i,
                            "guards[%zu]: expected ascending offsets from 0 to %zu, found %llu", i, size,
                            (unsigned long long)options->guards[i]);
    }
    return SLM_OK;
}

slm_status slm_tokenizer_encode(const slm_tokenizer *tokenizer, const char *text, size_t size, const slm_encode_options *options,
                                const slm_call *call, slm_tokens *tokens, slm_error *error) {
    slm_status status = check_arguments(size, options, error);
    if (status) return status;
    size_t count = tokens->count, dropped = tokens->dropped;
    encoding e = {.tokenizer = tokenizer, .tokens = tokens};
    slm_clock_start(&e.clock, call);
    if (options->add_special_tokens) status = push(tokens, tokenizer->affixes, tokenizer->n_prefix, error);
    if (!status) status = encode_text(&e, (const uint8_t *)text, size, options, error);
    if (!status && options->add_special_tokens)
        status = push(tokens, tokenizer->affixes + tokenizer->n_prefix, tokenizer->n_suffix, error);
    slm_bpe_scratch_free(&e.scratch);
    slm_text_free(&e.spaced);
    if (status) {
        tokens->count = count;
        tokens->dropped = dropped;
    }
    return status;
}

slm_status slm_tokenizer_decode(const slm_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                slm_text *text, slm_error *error) {
    const slm_vocabulary *v = &tokenizer->vocabulary;
    size_t total = 0, size;
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= v->size)
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i, "ids[%zu]: expected 0 to %d, found %d", i, (int)v->size - 1,
                            (int)ids[i]);
        slm_vocabulary_bytes(v, ids[i], &size);
        if (!slm_add_size(total, size, &total)) return slm_fail_memory(error);
    }
    slm_status status = slm_text_reserve(text, total, error);
    if (status) return status;
    for (size_t i = 0; i < count; i++) {
        if (skip_special && slm_vocabulary_kind(v, ids[i]) == SLM_TOKEN_CONTROL) continue;
        const uint8_t *bytes = slm_vocabulary_bytes(v, ids[i], &size);
        memcpy(text->bytes + text->size, bytes, size);
        text->size += size;
    }
    return SLM_OK;
}
