/* SPDX-License-Identifier: Apache-2.0
 * bpe.c: encoding one word. Loading is in bpe_load.c, merging long words in bpe_long.c. */
#include "text/bpe.h"

#include <string.h>

#include "base/status.h"
#include "text/bpe_table.h"
#include "text/buffers.h"
#include "text/utf8.h"

/* Up to here moving arrays costs less than a heap. */
enum { SHORT_WORD = 48, STEPS_PER_TICK = 1 << 15 };

enum { UNKNOWN, REACHABLE, UNREACHABLE }; /* slm_bpe.reachable */

/* ids: [count] in, merged in place; count <= SHORT_WORD. Returns how many are left. */
static size_t merge_short(const slm_bpe *bpe, int32_t *ids, size_t count) {
    uint32_t ranks[SHORT_WORD]; /* [count - 1] of (ids[i], ids[i + 1]) */
    for (size_t i = 0; i + 1 < count; i++) ranks[i] = slm_bpe_rank(bpe, ids[i], ids[i + 1]);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == SLM_NO_MERGE) break;
        ids[best] = bpe->results[ranks[best]];
        count--;
        memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
        if (best + 1 < count) {
            memmove(ranks + best, ranks + best + 1, (count - best - 1) * sizeof *ranks);
            ranks[best] = slm_bpe_rank(bpe, ids[best], ids[best + 1]);
        }
        if (best > 0) ranks[best - 1] = slm_bpe_rank(bpe, ids[best - 1], ids[best]);
    }
    return count;
}

/* Writes the byte tokens of the word to ids, [size], and returns how many there are. */
static size_t byte_tokens(const slm_bpe *bpe, const uint8_t *word, size_t size, int32_t *ids, slm_clock *clock) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) {
        if ((i + 1) % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) break;
        ids[count] = bpe->byte_ids[word[i]];
        count += ids[count] >= 0;
    }
    return count;
}

/* The token of the character of `length` bytes, or -1. */
static int32_t character_token(const slm_bpe *bpe, const uint8_t *text, size_t length) {
    return text[0] < 0x80 ? bpe->character_ids[text[0]] : slm_vocabulary_find(bpe->vocabulary, SLM_SPELLING_BYTES, text, length);
}

/* The tokens of the character at text[0], of `length` bytes: one, its byte tokens, or none. */
static size_t tokens_of_character(const slm_bpe *bpe, const uint8_t *text, size_t length, int32_t ids[4]) {
    ids[0] = character_token(bpe, text, length);
    if (ids[0] >= 0) return 1;
    for (size_t i = 0; i < length; i++)
        if ((ids[i] = bpe->byte_ids[text[i]]) < 0) return 0;
    return length;
}

static bool is_unknown(const slm_bpe *bpe, const uint8_t *text, size_t size) {
    int32_t ids[4];
    size_t length;
    slm_utf8_read(text, size, &length);
    return tokens_of_character(bpe, text, length, ids) == 0;
}

/* The same from characters. */
static size_t character_tokens(const slm_bpe *bpe, const uint8_t *word, size_t size, int32_t *ids, size_t *dropped,
                               slm_clock *clock) {
    size_t count = 0, length, steps = 0;
    bool unknown = false;
    for (size_t at = 0; at < size; at += length) {
        int32_t of_character[4];
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) break;
        length = 1;
        if (word[at] >= 0x80) slm_utf8_read(word + at, size - at, &length);
        size_t n = tokens_of_character(bpe, word + at, length, of_character);
        if (n == 0 && bpe->unk < 0) *dropped += length;
        if (n == 0 && bpe->unk >= 0 && !(unknown && bpe->fuse_unk)) ids[count++] = bpe->unk;
        for (size_t i = 0; i < n; i++) ids[count++] = of_character[i];
        unknown = n == 0;
    }
    return count;
}

/* A word that is a token whole needs no merging once it is known that merging would make that token, or need not. */
static bool known_whole(const slm_bpe *bpe, int32_t id) {
    if (id < 0) return false;
    return bpe->ignore_merges || atomic_load_explicit(&bpe->reachable[id], memory_order_relaxed) == REACHABLE;
}

/* Of which bytes of the word its tokens are made: each of as many as it stands for, unk of all characters that have no token. */
static void write_spans(const slm_bpe *bpe, const uint8_t *word, size_t size, slm_tokens *tokens, size_t first,
                        slm_clock *clock) {
    size_t at = 0, length, steps = 0;
    for (size_t i = first; i < tokens->count; i++) {
        size_t start = at;
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return;
        if (bpe->by_characters && tokens->ids[i] == bpe->unk) {
            do {
                slm_utf8_read(word + at, size - at, &length);
                at += length;
                if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return;
            } while (bpe->fuse_unk && at < size && is_unknown(bpe, word + at, size - at));
        } else {
            slm_vocabulary_bytes(bpe->vocabulary, tokens->ids[i], &length);
            at += length;
        }
        if (at > size) at = size;
        tokens->spans[i] = (slm_span){(uint32_t)start, (uint32_t)at};
    }
}

slm_status slm_bpe_encode(const slm_bpe *bpe, const uint8_t *word, size_t size, slm_bpe_scratch *scratch, slm_clock *clock,
                          slm_tokens *tokens, slm_error *error) {
    slm_status status = slm_tokens_reserve(tokens, size, error);
    if (status) return status;
    int32_t *ids = tokens->ids + tokens->count;
    int32_t whole = slm_vocabulary_find(bpe->vocabulary, SLM_SPELLING_BYTES, word, size);
    if (known_whole(bpe, whole)) {
        slm_tokens_put(tokens, whole, 0, size);
        return SLM_OK;
    }
    size_t dropped = 0, count;
    if (bpe->by_characters)
        count = character_tokens(bpe, word, size, ids, &dropped, clock);
    else
        dropped = size - (count = byte_tokens(bpe, word, size, ids, clock));
    if (clock->cancelled) return slm_fail_cancelled(error);
    if (count <= SHORT_WORD) {
        count = merge_short(bpe, ids, count);
    } else {
        status = slm_bpe_merge_long(bpe, scratch, ids, &count, clock, error);
        if (status) return status;
    }
    if (whole >= 0) {
        unsigned char answer = count == 1 && ids[0] == whole ? REACHABLE : UNREACHABLE;
        atomic_store_explicit(&bpe->reachable[whole], answer, memory_order_relaxed);
    }
    tokens->count += count;
    if (tokens->with_spans) write_spans(bpe, word, size, tokens, tokens->count - count, clock);
    if (clock->cancelled) {
        tokens->count -= count;
        return slm_fail_cancelled(error);
    }
    tokens->dropped += dropped;
    return SLM_OK;
}
