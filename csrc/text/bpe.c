/* SPDX-License-Identifier: Apache-2.0
 * bpe.c: encoding one word. Loading is in bpe_load.c, merging long words in bpe_long.c. */
#include "text/bpe.h"

#include <string.h>

#include "text/bpe_table.h"
#include "text/buffers.h"
#include "text/utf8.h"

/* Up to here moving arrays costs less than a heap. */
enum { SHORT_WORD = 48 };

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
static size_t byte_tokens(const slm_bpe *bpe, const uint8_t *word, size_t size, int32_t *ids) {
    size_t count = 0;
    for (size_t i = 0; i < size; i++) {
        ids[count] = bpe->byte_ids[word[i]];
        count += ids[count] >= 0;
    }
    return count;
}

/* The token of the character of `length` bytes, or -1. */
static int32_t character_token(const slm_bpe *bpe, const uint8_t *text, size_t length) {
    return text[0] < 0x80 ? bpe->character_ids[text[0]] : slm_vocabulary_find(bpe->vocabulary, SLM_SPELLING_BYTES, text, length);
}

/* The same from characters. */
static size_t character_tokens(const slm_bpe *bpe, const uint8_t *word, size_t size, int32_t *ids, size_t *dropped) {
    size_t count = 0, length;
    bool unknown = false;
    for (size_t at = 0; at < size; at += length) {
        bool was_unknown = unknown, bytes = true;
        length = 1;
        if (word[at] >= 0x80) slm_utf8_read(word + at, size - at, &length);
        int32_t id = character_token(bpe, word + at, length);
        unknown = false;
        if (id >= 0) {
            ids[count++] = id;
            continue;
        }
        for (size_t i = 0; i < length; i++) bytes = bytes && bpe->byte_ids[word[at + i]] >= 0;
        if (bytes) {
            for (size_t i = 0; i < length; i++) ids[count++] = bpe->byte_ids[word[at + i]];
        } else if (bpe->unk >= 0) {
            unknown = true;
            if (!was_unknown || !bpe->fuse_unk) ids[count++] = bpe->unk;
        } else {
            *dropped += length;
        }
    }
    return count;
}

/* A word that is a token whole needs no merging once it is known that merging would make that token, or need not. */
static bool known_whole(const slm_bpe *bpe, int32_t id) {
    if (id < 0) return false;
    return bpe->ignore_merges || atomic_load_explicit(&bpe->reachable[id], memory_order_relaxed) == REACHABLE;
}

slm_status slm_bpe_encode(const slm_bpe *bpe, const uint8_t *word, size_t size, slm_bpe_scratch *scratch, slm_clock *clock,
                          slm_tokens *tokens, slm_error *error) {
    slm_status status = slm_tokens_reserve(tokens, size, error);
    if (status) return status;
    int32_t *ids = tokens->ids + tokens->count;
    int32_t whole = slm_vocabulary_find(bpe->vocabulary, SLM_SPELLING_BYTES, word, size);
    if (known_whole(bpe, whole)) {
        ids[0] = whole;
        tokens->count++;
        return SLM_OK;
    }
    size_t dropped = 0, count;
    if (bpe->by_characters)
        count = character_tokens(bpe, word, size, ids, &dropped);
    else
        dropped = size - (count = byte_tokens(bpe, word, size, ids));
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
    tokens->dropped += dropped;
    return SLM_OK;
}
