/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.c: the public object: making it, asking it, decoding. Encoding is in encode.c. */
#include <string.h>

#include "base/alloc.h"
#include "base/arith.h"
#include "base/status.h"
#include "text/buffers.h"
#include "text/space_marker.h"
#include "text/tokenizer.h"

enum { TOKENS_PER_TICK = 1 << 16 };

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

/* Where pieces hold spaces, words are cut at spaces only. */
static slm_status copy_splits(const slm_tokenizer_spec *spec, slm_tokenizer *t, slm_error *error) {
    bool markers = spec->model == SLM_TOKENIZER_BPE || spec->model == SLM_TOKENIZER_UNIGRAM;
    if (spec->n_splits > SLM_MAX_SPLITS)
        return slm_fail(error, SLM_UNSUPPORTED, -1, "splits: expected at most %d, found %zu", SLM_MAX_SPLITS, spec->n_splits);
    for (size_t i = 0; i < spec->n_splits; i++) {
        slm_split_step split = spec->splits[i];
        if ((unsigned)split.kind > SLM_SPLIT_SPACE_WORDS || (unsigned)split.behavior > SLM_BEHAVIOR_CONTIGUOUS)
            return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "splits[%zu]: no such kind or behavior: %d, %d", i, (int)split.kind,
                            (int)split.behavior);
        bool spaces = split.kind == SLM_SPLIT_SPACE_WORDS && split.behavior == SLM_BEHAVIOR_ISOLATED;
        bool drop = split.kind == SLM_SPLIT_WHITE_SPACE && split.behavior == SLM_BEHAVIOR_REMOVED;
        if (markers ? t->space_words || !(spaces || (drop && i == 0)) : split.kind == SLM_SPLIT_SPACE_WORDS)
            return slm_fail(error, SLM_UNSUPPORTED, (int64_t)i, "splits[%zu]: it does not go with this model", i);
        t->space_words = t->space_words || spaces;
        t->drop_white_space = t->drop_white_space || (markers && drop);
        t->splits.steps[t->splits.count++] = split;
    }
    return SLM_OK;
}

static slm_status check_spec(const slm_tokenizer_spec *spec, slm_error *error) {
    if ((unsigned)spec->model > SLM_TOKENIZER_WORDPIECE)
        return slm_fail(error, SLM_BAD_DATA, -1, "model: no such kind: %d", (int)spec->model);
    if (spec->unk < -1 || spec->unk >= (int64_t)spec->pieces.count)
        return slm_fail(error, SLM_BAD_DATA, spec->unk, "unk: expected an id below %zu, or -1 for none, found %d",
                        spec->pieces.count, (int)spec->unk);
    return SLM_OK;
}

/* A space that encoding puts before a text is none that its author wrote. Only pieces with markers keep it apart. */
static bool strips_space(const slm_tokenizer *t) {
    if (t->vocabulary.alphabet != SLM_ALPHABET_CHARACTERS) return false;
    for (size_t i = 0; i < t->normalizers.count; i++) {
        const slm_normalizer *step = &t->normalizers.steps[i];
        uint8_t decoded[4];
        if (step->kind == SLM_NORMALIZER_PREPEND && step->b_size <= sizeof decoded &&
            slm_space_marker_decode(step->b, step->b_size, decoded) == 1 && decoded[0] == ' ')
            return true;
    }
    return t->space_prefix != SLM_SPACE_PREFIX_NONE;
}

slm_status slm_tokenizer_create(const slm_tokenizer_spec *spec, slm_tokenizer **tokenizer, slm_error *error) {
    slm_status status = check_spec(spec, error);
    if (status) return status;
    slm_tokenizer *t = slm_alloc_zero(1, sizeof *t);
    if (!t) return slm_fail_memory(error);
    atomic_init(&t->references, 1);
    atomic_init(&t->trie, NULL);
    t->model = spec->model;
    t->space_prefix = spec->space_prefix;
    status = copy_splits(spec, t, error);
    if (!status) status = slm_vocabulary_create(spec, &t->vocabulary, error);
    if (!status) status = copy_affixes(spec, t, error);
    if (!status) status = slm_normalizers_create(spec->normalizers, spec->n_normalizers, &t->normalizers, error);
    if (!status) status = slm_added_create(&t->vocabulary, spec->flags, &t->normalizers, false, &t->added, error);
    if (!status) status = slm_added_create(&t->vocabulary, spec->flags, &t->normalizers, true, &t->added_normalized, error);
    if (!status && spec->model <= SLM_TOKENIZER_BPE) status = slm_bpe_create(&t->vocabulary, spec, &t->bpe, error);
    if (!status && spec->model == SLM_TOKENIZER_UNIGRAM) status = slm_unigram_create(&t->vocabulary, spec, &t->unigram, error);
    if (!status && spec->model == SLM_TOKENIZER_WORDPIECE)
        status = slm_wordpiece_create(&t->vocabulary, spec, &t->wordpiece, error);
    t->strips_space = strips_space(t);
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
    slm_token_trie_release(atomic_load(&t->trie));
    slm_wordpiece_destroy(&t->wordpiece);
    slm_unigram_destroy(&t->unigram);
    slm_bpe_destroy(&t->bpe);
    slm_normalizers_destroy(&t->normalizers);
    slm_added_destroy(&t->added_normalized);
    slm_free(t->affixes);
    slm_added_destroy(&t->added);
    slm_vocabulary_destroy(&t->vocabulary);
    slm_free(t);
}

int64_t slm_tokenizer_size(const slm_tokenizer *tokenizer) {
    return tokenizer->vocabulary.size;
}

bool slm_tokenizer_strips_space(const slm_tokenizer *tokenizer) {
    return tokenizer->strips_space;
}

slm_token_kind slm_tokenizer_kind(const slm_tokenizer *tokenizer, int32_t id) {
    return slm_vocabulary_kind(&tokenizer->vocabulary, id);
}

int32_t slm_tokenizer_find(const slm_tokenizer *tokenizer, const char *piece, size_t size) {
    return slm_vocabulary_find_piece(&tokenizer->vocabulary, (const uint8_t *)piece, size);
}

/* Text of a WordPiece token that does not go on a word: a space comes before it, and the spaces that English does not write go.
 * (The clean-up of Hugging Face's decoder, which looks at one token at a time.) */
static size_t spaced_piece(const uint8_t *bytes, size_t size, uint8_t *out) {
    static const char *const joined[] = {".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"};
    bool join = false;
    for (size_t i = 0; i < sizeof joined / sizeof *joined; i++)
        join = join || (size >= strlen(joined[i]) && memcmp(bytes, joined[i], strlen(joined[i])) == 0);
    size_t n = 0;
    if (!join) out[n++] = ' ';
    memcpy(out + n, bytes, size);
    return n + size;
}

slm_status slm_tokenizer_decode(const slm_tokenizer *tokenizer, const int32_t *ids, size_t count, bool skip_special,
                                const slm_call *call, slm_text *text, slm_error *error) {
    const slm_vocabulary *v = &tokenizer->vocabulary;
    bool wordpiece = v->alphabet == SLM_ALPHABET_WORDPIECE, first = true;
    size_t total = 0, size, before = text->size;
    slm_clock clock;
    slm_clock_start(&clock, call);
    for (size_t i = 0; i < count; i++) {
        if ((i + 1) % TOKENS_PER_TICK == 0 && slm_clock_tick(&clock)) return slm_fail_cancelled(error);
        if (ids[i] < 0 || ids[i] >= v->size)
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i, "ids[%zu]: expected 0 to %d, found %d", i, (int)v->size - 1,
                            (int)ids[i]);
        slm_vocabulary_bytes(v, ids[i], &size);
        if (!slm_add_size(total, size + (wordpiece ? 1 + v->n_continuing : 0), &total)) return slm_fail_memory(error);
    }
    slm_status status = slm_text_reserve(text, total, error);
    if (status) return status;
    for (size_t i = 0; i < count; i++) {
        if ((i + 1) % TOKENS_PER_TICK == 0 && slm_clock_tick(&clock)) {
            text->size = before;
            return slm_fail_cancelled(error);
        }
        if (skip_special && slm_token_is_special(slm_vocabulary_kind(v, ids[i]))) continue;
        const uint8_t *bytes = slm_vocabulary_bytes(v, ids[i], &size);
        uint8_t *out = (uint8_t *)text->bytes + text->size;
        bool continuing = v->tokens[ids[i]].spelling == SLM_SPELLING_CONTINUING;
        if (continuing && first) { /* nothing is there to be continued: it is shown as published */
            memcpy(out, v->continuing, v->n_continuing);
            out += v->n_continuing;
            text->size += v->n_continuing;
        }
        if (wordpiece && !first && !continuing)
            size = spaced_piece(bytes, size, out);
        else
            memcpy(out, bytes, size);
        text->size += size;
        first = false;
    }
    return SLM_OK;
}
