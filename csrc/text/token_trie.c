/* SPDX-License-Identifier: Apache-2.0 */
#include "text/token_trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "text/tokenizer.h"

typedef struct entry {
    const uint8_t *bytes;
    uint32_t size;
    int32_t id;
} entry;

static int by_bytes(const void *left, const void *right) {
    const entry *a = left, *b = right;
    int order = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);
    if (order) return order;
    if (a->size != b->size) return a->size > b->size ? 1 : -1;
    return (a->id > b->id) - (a->id < b->id);
}

/* Entries of all tokens that are text: how many. */
static uint32_t list_text(const slm_vocabulary *v, entry *entries) {
    uint32_t n = 0;
    for (int32_t id = 0; id < v->size; id++) {
        size_t size;
        const uint8_t *bytes = slm_vocabulary_bytes(v, id, &size);
        slm_token_kind kind = slm_vocabulary_kind(v, id);
        if (!size || slm_token_is_special(kind) || kind == SLM_TOKEN_UNUSED) continue;
        entries[n++] = (entry){.bytes = bytes, .size = (uint32_t)size, .id = id};
    }
    return n;
}

static uint32_t common(const entry *a, const entry *b) {
    uint32_t most = a->size < b->size ? a->size : b->size, n = 0;
    while (n < most && a->bytes[n] == b->bytes[n]) n++;
    return n;
}

/* entries: sorted. The trie's arrays are there. */
static void fill(slm_token_trie *trie, const entry *entries, uint32_t n) {
    uint32_t open[SLM_PIECE_MAX + 1], depth = 0, count = 0; /* open[d]: the node of depth d that the last token lies below */
    for (uint32_t i = 0; i < n; i++) {
        uint32_t shared = i ? common(&entries[i - 1], &entries[i]) : 0;
        for (; depth > shared; depth--) trie->nodes[open[depth]].skip = count;
        while (depth < entries[i].size) {
            uint8_t byte = entries[i].bytes[depth];
            open[++depth] = count;
            trie->nodes[count++] = (slm_token_node){.first = i, .depth = (uint16_t)depth, .byte = byte};
        }
        trie->ids[i] = entries[i].id;
    }
    for (; depth; depth--) trie->nodes[open[depth]].skip = count;
    trie->nodes[count] = (slm_token_node){.first = n};
    trie->count = count;
}

static slm_status create(const slm_vocabulary *v, slm_token_trie **out, slm_error *error) {
    slm_token_trie *trie = slm_alloc_zero(1, sizeof *trie);
    entry *entries = slm_alloc_array((size_t)v->size, sizeof *entries);
    uint32_t n = 0;
    size_t n_nodes = 1;
    if (entries) {
        n = list_text(v, entries);
        qsort(entries, n, sizeof *entries, by_bytes);
        for (uint32_t i = 0; i < n; i++) n_nodes += entries[i].size - (i ? common(&entries[i - 1], &entries[i]) : 0);
    }
    if (trie) {
        trie->nodes = slm_alloc_array(n_nodes, sizeof *trie->nodes);
        trie->ids = slm_alloc_array(n, sizeof *trie->ids);
    }
    bool ok = entries && trie && trie->nodes && trie->ids;
    if (ok) fill(trie, entries, n);
    slm_free(entries);
    if (ok) {
        *out = trie;
        return SLM_OK;
    }
    slm_token_trie_release(trie);
    return slm_fail_memory(error);
}

void slm_token_trie_release(slm_token_trie *trie) {
    if (!trie) return;
    slm_free(trie->nodes);
    slm_free(trie->ids);
    slm_free(trie);
}

slm_status slm_tokenizer_trie(slm_tokenizer *tokenizer, const slm_token_trie **out, slm_error *error) {
    slm_token_trie *trie = atomic_load_explicit(&tokenizer->trie, memory_order_acquire), *none = NULL;
    if (!trie) {
        slm_status status = create(&tokenizer->vocabulary, &trie, error);
        if (status) return status;
        if (!atomic_compare_exchange_strong(&tokenizer->trie, &none, trie)) { /* another thread was first */
            slm_token_trie_release(trie);
            trie = none;
        }
    }
    *out = trie;
    return SLM_OK;
}
