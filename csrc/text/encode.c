/* SPDX-License-Identifier: Apache-2.0
 * encode.c: text goes through these stages: added tokens are found; what lies between them is normalized, and others are found in
 * that; the rest is cut into words, each of which a model turns into tokens. */
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "text/buffers.h"
#include "text/pretokenize.h"
#include "text/space_marker.h"
#include "text/tokenizer.h"
#include "text/utf8.h"
#include "text/word_cache.h"

enum { WORDS_PER_TICK = 1024, CHARACTERS_PER_TICK = 1 << 16, BYTES_PER_TICK = 1 << 20, CACHE_FROM = 2048 };

/* Before byte `at` of the caller's text are so many characters. */
typedef struct place {
    size_t at, characters;
} place;

/* One call. */
typedef struct encoding {
    const slm_tokenizer *tokenizer;
    const slm_encode_options *options;
    slm_bpe_scratch bpe;
    slm_unigram_scratch unigram;
    slm_clock clock;
    slm_tokens *tokens;
    slm_word_cache *cache; /* NULL: the text is short, or spans are wanted */
    slm_aligned text, spare, spaced;
    size_t words;
    const uint8_t *whole; /* the caller's text */
    size_t whole_size;
    place match, furthest; /* in the whole: the start of the last match, which ascends, and the furthest that was asked for */
} encoding;

/* Bytes with their origins; origins NULL: nobody asked. */
typedef struct view {
    const uint8_t *bytes;
    size_t size;
    const slm_span *origins;
} view;

static view part(view v, size_t start, size_t end) {
    return (view){
        .bytes = v.bytes ? v.bytes + start : NULL, .size = end - start, .origins = v.origins ? v.origins + start : NULL};
}

/* ---- origins ----------------------------------------------------------------------------------------------------------- */

/* How many characters come before byte `at` of the caller's text; at least the start of the last match. A match that lies in the
 * white space which the one before took along is counted from its start, not from that of the text. */
static uint32_t characters_before(encoding *e, size_t at) {
    place near = e->match, *from = at < e->furthest.at ? &near : &e->furthest;
    for (size_t length; from->at < at; from->at += length, from->characters++) {
        slm_utf8_read(e->whole + from->at, e->whole_size - from->at, &length);
        if (from->at + length > at) break;
        if (from->characters % CHARACTERS_PER_TICK == 0 && slm_clock_tick(&e->clock)) break;
    }
    return (uint32_t)from->characters;
}

/* Copies bytes [start, end) of the caller's text into e->text, with origins if they are wanted. */
static slm_status load(encoding *e, size_t start, size_t end, slm_error *error) {
    e->text.size = e->text.limit = 0;
    slm_status status = slm_aligned_reserve(&e->text, end - start, error);
    if (status) return status;
    if (!e->text.traced) {
        slm_aligned_put(&e->text, e->whole + start, end - start, (slm_span){0});
        return SLM_OK;
    }
    size_t length;
    uint32_t character = characters_before(e, start);
    for (size_t at = start; at < end; at += length, character++) {
        if (character % CHARACTERS_PER_TICK == 0 && slm_clock_tick(&e->clock)) return slm_fail_cancelled(error);
        slm_utf8_read(e->whole + at, end - at, &length);
        slm_aligned_put(&e->text, e->whole + at, length, (slm_span){character, character + 1});
    }
    return SLM_OK;
}

/* Turns the byte ranges of the tokens since `first` into characters of the caller's text. */
static slm_status trace(encoding *e, size_t first, view word, slm_error *error) {
    slm_tokens *tokens = e->tokens;
    for (size_t i = first; i < tokens->count; i++) {
        if ((i - first + 1) % CHARACTERS_PER_TICK == 0 && slm_clock_tick(&e->clock)) return slm_fail_cancelled(error);
        slm_span *span = &tokens->spans[i];
        if (span->start < span->end && span->end <= word.size)
            *span = (slm_span){word.origins[span->start].start, word.origins[span->end - 1].end};
        else
            *span = (slm_span){0};
    }
    return SLM_OK;
}

/* ---- words -------------------------------------------------------------------------------------------------------------- */

static slm_status run_model(encoding *e, const uint8_t *word, size_t size, slm_error *error) {
    const slm_tokenizer *t = e->tokenizer;
    switch (t->model) {
    case SLM_TOKENIZER_UNIGRAM: return slm_unigram_encode(&t->unigram, word, size, &e->unigram, &e->clock, e->tokens, error);
    case SLM_TOKENIZER_WORDPIECE: return slm_wordpiece_encode(&t->wordpiece, word, size, &e->clock, e->tokens, error);
    default: return slm_bpe_encode(&t->bpe, word, size, &e->bpe, &e->clock, e->tokens, error);
    }
}

static slm_status encode_word(encoding *e, view word, slm_error *error) {
    size_t first = e->tokens->count, dropped = e->tokens->dropped;
    if (++e->words % WORDS_PER_TICK == 0 && slm_clock_tick(&e->clock)) return slm_fail_cancelled(error);
    if (!e->cache || !slm_word_cache_fits(word.size)) {
        slm_status status = run_model(e, word.bytes, word.size, error);
        return !status && e->tokens->with_spans ? trace(e, first, word, error) : status;
    }
    slm_status status = slm_tokens_reserve(e->tokens, SLM_WORD_CACHE_IDS, error);
    if (status) return status;
    slm_word_cache_entry *entry = slm_word_cache_find(e->cache, word.bytes, word.size);
    if (slm_word_cache_holds(entry, word.bytes, word.size)) {
        memcpy(e->tokens->ids + first, entry->ids, sizeof entry->ids);
        e->tokens->count += entry->count;
        return SLM_OK;
    }
    status = run_model(e, word.bytes, word.size, error);
    if (!status && e->tokens->dropped == dropped)
        slm_word_cache_put(entry, word.bytes, word.size, e->tokens->ids + first, e->tokens->count - first);
    return status;
}

/* Where pieces hold spaces: up to where the first word of text goes, to the next space, or as far as a piece may reach. */
static size_t spaced_word_size(const slm_tokenizer *t, const uint8_t *text, size_t size) {
    size_t at = 1;
    if (!t->space_words) {
        if (t->model != SLM_TOKENIZER_BPE || t->bpe.whole_text) return size;
        for (at = 0; at < size && text[at] == ' '; at++) continue;
    }
    const uint8_t *end = at < size ? memchr(text + at, ' ', size - at) : NULL;
    return end ? (size_t)(end - text) : size;
}

/* text: as words are cut from it. */
static slm_status encode_words(encoding *e, view text, slm_error *error) {
    const slm_tokenizer *t = e->tokenizer;
    slm_status status = SLM_OK;
    size_t start = 0, end = 0;
    if (t->vocabulary.alphabet != SLM_ALPHABET_CHARACTERS) {
        slm_words words;
        slm_words_start(&words, &t->splits, text.bytes, text.size);
        while (!status && slm_words_next(&words, &start, &end)) status = encode_word(e, part(text, start, end), error);
        return status;
    }
    for (; start < text.size && !status; start = end) {
        end = start + spaced_word_size(t, text.bytes + start, text.size - start);
        status = encode_word(e, part(text, start, end), error);
    }
    return status;
}

/* text, not empty, with the space prefix and, where pieces hold spaces, a space for every marker. first: it begins the whole. */
static slm_status encode_spaced(encoding *e, view text, bool first, slm_error *error) {
    const slm_tokenizer *t = e->tokenizer;
    bool markers = t->vocabulary.alphabet == SLM_ALPHABET_CHARACTERS;
    if (!markers && t->space_prefix == SLM_SPACE_PREFIX_NONE) return encode_words(e, text, error);
    bool spaced = text.bytes[0] == ' ' || (markers && slm_space_marker_at(text.bytes, text.size));
    bool prefix = t->space_prefix == SLM_SPACE_PREFIX_ALWAYS || (t->space_prefix == SLM_SPACE_PREFIX_MISSING && !spaced) ||
                  (t->space_prefix == SLM_SPACE_PREFIX_FIRST && first && !spaced);
    if (!markers && !prefix) return encode_words(e, text, error);
    slm_aligned *out = &e->spaced;
    out->size = 0;
    slm_status status = slm_aligned_reserve(out, text.size + 1, error);
    if (status) return status;
    if (prefix) slm_aligned_put(out, " ", 1, text.origins ? text.origins[0] : (slm_span){0});
    if (!markers) {
        slm_aligned_copy(out, &(slm_aligned){.bytes = (uint8_t *)text.bytes, .origins = (slm_span *)text.origins}, 0, text.size);
    } else if (!text.origins) {
        for (size_t at = 0, end; at < text.size; at = end) {
            if (slm_clock_tick(&e->clock)) return slm_fail_cancelled(error);
            end = text.size - at < BYTES_PER_TICK ? text.size : at + BYTES_PER_TICK;
            for (int i = 1; i < SLM_SPACE_MARKER_SIZE && end < text.size; i++) end -= (text.bytes[end] & 0xC0) == 0x80;
            out->size += slm_space_marker_decode(text.bytes + at, end - at, out->bytes + out->size);
        }
    } else {
        for (size_t at = 0, steps = 0; at < text.size;) {
            if (++steps % CHARACTERS_PER_TICK == 0 && slm_clock_tick(&e->clock)) return slm_fail_cancelled(error);
            bool marker = slm_space_marker_at(text.bytes + at, text.size - at);
            slm_aligned_put(out, marker ? (const uint8_t *)" " : text.bytes + at, 1, text.origins[at]);
            at += marker ? SLM_SPACE_MARKER_SIZE : 1;
        }
    }
    return encode_words(e, (view){.bytes = out->bytes, .size = out->size, .origins = out->origins}, error);
}

/* Where white space is left out and pieces hold spaces, the prefix goes before each of what it separates. */
static slm_status encode_text(encoding *e, view text, bool first, slm_error *error) {
    const slm_tokenizer *t = e->tokenizer;
    if (!t->drop_white_space) return text.size ? encode_spaced(e, text, first, error) : SLM_OK;
    slm_status status = SLM_OK;
    for (size_t at = 0; at < text.size && !status;) {
        at += slm_pretokenize_white_space(text.bytes + at, text.size - at);
        size_t n = slm_pretokenize_until_white_space(text.bytes + at, text.size - at);
        if (n) status = encode_spaced(e, part(text, at, at + n), first && at == 0, error);
        at += n;
    }
    return status;
}

/* ---- added tokens ------------------------------------------------------------------------------------------------------- */

static slm_status put_added(encoding *e, int32_t id, slm_span span, slm_error *error) {
    slm_status status = slm_tokens_reserve(e->tokens, 1, error);
    if (!status) slm_tokens_put(e->tokens, id, span.start, span.end);
    return status;
}

static bool a_guard_is_inside(const slm_encode_options *options, size_t start, size_t end) {
    size_t low = 0, high = options->n_guards; /* the first guard behind start */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (options->guards[middle] <= start)
            low = middle + 1;
        else
            high = middle;
    }
    return low < options->n_guards && options->guards[low] < end;
}

/* Bytes [start, end) of the caller's text, in which there are no added tokens but normalized ones. */
static slm_status encode_stretch(encoding *e, size_t start, size_t end, slm_error *error) {
    if (start == end) return SLM_OK;
    const slm_tokenizer *t = e->tokenizer;
    view text = {.bytes = e->whole + start, .size = end - start};
    slm_encode_options options = *e->options;
    size_t base = start;
    if (t->normalizers.count || e->text.traced) {
        slm_status status = load(e, start, end, error);
        if (!status) status = slm_normalize(&t->normalizers, &e->text, &e->spare, &e->clock, error);
        if (status) return status;
        text = (view){.bytes = e->text.bytes, .size = e->text.size, .origins = e->text.origins};
    }
    if (t->normalizers.count) {
        /* Guards are of the text as it came. Where one lies in this stretch none of its text becomes a control token. */
        options.parse_special = options.parse_special && !a_guard_is_inside(&options, start, end);
        options.n_guards = 0;
        base = 0;
    }
    slm_added_search search = {.added = &t->added_normalized,
                               .text = text.bytes,
                               .size = text.size,
                               .base = base,
                               .options = &options,
                               .clock = &e->clock};
    slm_status status = SLM_OK;
    slm_added_match match;
    size_t done = 0;
    while (!status && slm_added_next(&search, &match)) {
        if (match.start > done) status = encode_text(e, part(text, done, match.start), start + done == 0, error);
        slm_span span = {0};
        if (text.origins) span = (slm_span){text.origins[match.start].start, text.origins[match.end - 1].end};
        if (!status) status = put_added(e, match.id, span, error);
        done = match.end;
    }
    if (!status && e->clock.cancelled) status = slm_fail_cancelled(error);
    return status ? status : encode_text(e, part(text, done, text.size), start + done == 0, error);
}

static slm_status encode_whole(encoding *e, slm_error *error) {
    slm_added_search search = {
        .added = &e->tokenizer->added, .text = e->whole, .size = e->whole_size, .options = e->options, .clock = &e->clock};
    slm_status status = SLM_OK;
    slm_added_match match;
    size_t done = 0;
    while (!status && slm_added_next(&search, &match)) {
        if (match.start > done) status = encode_stretch(e, done, match.start, error);
        slm_span span = {0};
        if (e->tokens->with_spans) {
            span.start = characters_before(e, match.start);
            e->match = (place){.at = match.start, .characters = span.start};
            span.end = characters_before(e, match.end);
        }
        if (!status) status = put_added(e, match.id, span, error);
        done = match.end;
    }
    if (!status && e->clock.cancelled) status = slm_fail_cancelled(error);
    return status ? status : encode_stretch(e, done, e->whole_size, error);
}

/* ---- the call ----------------------------------------------------------------------------------------------------------- */

static slm_status check_arguments(size_t size, const slm_encode_options *options, const slm_tokens *tokens, slm_error *error) {
    if (size > INT32_MAX) return slm_text_too_large(size, error);
    if (tokens->count && tokens->with_spans != options->spans)
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "spans: expected them for all tokens or for none");
    for (size_t i = 0; i < options->n_guards; i++) {
        if (options->guards[i] > size || (i && options->guards[i] < options->guards[i - 1]))
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i,
                            "guards[%zu]: expected ascending offsets from 0 to %zu, found %llu", i, size,
                            (unsigned long long)options->guards[i]);
    }
    return SLM_OK;
}

static slm_status put_affixes(encoding *e, const int32_t *ids, size_t count, slm_error *error) {
    slm_status status = slm_tokens_reserve(e->tokens, count, error);
    for (size_t i = 0; i < count && !status; i++) slm_tokens_put(e->tokens, ids[i], 0, 0);
    return status;
}

slm_status slm_tokenizer_encode(const slm_tokenizer *t, const char *text, size_t size, const slm_encode_options *options,
                                const slm_call *call, slm_tokens *tokens, slm_error *error) {
    slm_status status = check_arguments(size, options, tokens, error);
    if (status) return status;
    size_t count = tokens->count, dropped = tokens->dropped;
    tokens->with_spans = options->spans;
    encoding e = {.tokenizer = t, .options = options, .tokens = tokens, .whole = (const uint8_t *)text, .whole_size = size};
    e.text.traced = e.spare.traced = e.spaced.traced = options->spans;
    slm_clock_start(&e.clock, call);
    if (size >= CACHE_FROM && !options->spans) e.cache = slm_word_cache_new(); /* without one it only takes longer */
    if (options->add_special_tokens) status = put_affixes(&e, t->affixes, t->n_prefix, error);
    if (!status) status = encode_whole(&e, error);
    if (!status && options->add_special_tokens) status = put_affixes(&e, t->affixes + t->n_prefix, t->n_suffix, error);
    slm_free(e.cache);
    slm_bpe_scratch_free(&e.bpe);
    slm_unigram_scratch_free(&e.unigram);
    slm_aligned_free(&e.text);
    slm_aligned_free(&e.spare);
    slm_aligned_free(&e.spaced);
    if (status) {
        tokens->count = count;
        tokens->dropped = dropped;
    }
    return status;
}
