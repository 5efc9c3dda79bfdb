/* SPDX-License-Identifier: Apache-2.0
 * word_cache.h: the tokens of words met before in one call. Each word has one place; a new one takes it from an old one, so the
 * size is fixed, and what is found is exact because the word itself is kept. */
#ifndef SLM_TEXT_WORD_CACHE_H
#define SLM_TEXT_WORD_CACHE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/alloc.h"

enum { SLM_WORD_CACHE_ENTRIES = 1 << 13, SLM_WORD_CACHE_BYTES = 24, SLM_WORD_CACHE_IDS = 9 };

typedef struct slm_word_cache_entry {
    uint64_t word[SLM_WORD_CACHE_BYTES / 8]; /* the bytes, padded with zeros */
    uint8_t size;                            /* bytes of the word; 0: empty */
    uint8_t count;
    int32_t ids[SLM_WORD_CACHE_IDS]; /* [count] */
} slm_word_cache_entry;

typedef struct slm_word_cache {
    slm_word_cache_entry entries[SLM_WORD_CACHE_ENTRIES];
} slm_word_cache;

/* NULL when memory is short; slm_free frees it. */
static inline slm_word_cache *slm_word_cache_new(void) {
    return slm_alloc_zero(1, sizeof(slm_word_cache));
}

static inline bool slm_word_cache_fits(size_t size) {
    return size <= SLM_WORD_CACHE_BYTES;
}

static inline void slm_word_cache_key(const uint8_t *word, size_t size, uint64_t key[SLM_WORD_CACHE_BYTES / 8]) {
    memset(key, 0, SLM_WORD_CACHE_BYTES);
    memcpy(key, word, size);
}

/* The place of a word that fits. */
static inline slm_word_cache_entry *slm_word_cache_find(slm_word_cache *cache, const uint8_t *word, size_t size) {
    uint64_t key[SLM_WORD_CACHE_BYTES / 8];
    slm_word_cache_key(word, size, key);
    uint64_t hash = (key[0] ^ size) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ hash >> 29 ^ key[1]) * 0xD6E8FEB86659FD93u;
    hash = (hash ^ hash >> 31 ^ key[2]) * 0x9E3779B97F4A7C15u;
    return &cache->entries[hash >> 40 & (SLM_WORD_CACHE_ENTRIES - 1)];
}

static inline bool slm_word_cache_holds(const slm_word_cache_entry *entry, const uint8_t *word, size_t size) {
    return entry->size == size && memcmp(entry->word, word, size) == 0;
}

static inline void slm_word_cache_put(slm_word_cache_entry *entry, const uint8_t *word, size_t size, const int32_t *ids,
                                      size_t count) {
    if (count > SLM_WORD_CACHE_IDS) return;
    slm_word_cache_key(word, size, entry->word);
    memcpy(entry->ids, ids, count * sizeof *ids);
    entry->size = (uint8_t)size;
    entry->count = (uint8_t)count;
}

#endif
