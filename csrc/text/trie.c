/* SPDX-License-Identifier: Apache-2.0 */
#include "text/trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"

/* After so many places that do not fit, children go to the end, where all fits: building is linear, whatever the strings. */
enum { TRIES = 64, BYTES = 256 };

static int by_bytes(const void *left, const void *right) {
    const slm_trie_key *a = left, *b = right;
    int order = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);
    if (order) return order;
    if (a->size != b->size) return a->size > b->size ? 1 : -1;
    return (a->value > b->value) - (a->value < b->value);
}

/* Keys [low, high) go through `node`, which is `depth` bytes deep. */
typedef struct range {
    uint32_t node, low, high, depth;
} range;

typedef struct builder {
    const slm_trie_key *keys;
    slm_trie *trie;
    size_t capacity;
    range *queue; /* ranges still to be given children */
    size_t n_queue, queue_capacity;
    uint32_t first_free; /* no node before it is free */
} builder;

static slm_status reserve_nodes(builder *b, size_t count, slm_error *error) {
    if (count > UINT32_MAX - BYTES) return slm_fail_memory(error);
    if (count > b->capacity) {
        size_t capacity = b->capacity + b->capacity / 2;
        if (capacity < count) capacity = count;
        slm_trie_node *grown = slm_realloc_array(b->trie->nodes, capacity, sizeof *grown);
        if (!grown) return slm_fail_memory(error);
        b->trie->nodes = grown;
        b->capacity = capacity;
    }
    for (; b->trie->count < count; b->trie->count++)
        b->trie->nodes[b->trie->count] = (slm_trie_node){.parent = SLM_TRIE_NONE, .value = -1};
    return SLM_OK;
}

static bool is_free(const builder *b, size_t node) {
    return node >= b->trie->count || b->trie->nodes[node].parent == SLM_TRIE_NONE;
}

/* Where children for these bytes fit, bytes ascending. */
static size_t find_base(builder *b, const uint8_t *bytes, size_t n) {
    while (b->first_free < b->trie->count && !is_free(b, b->first_free)) b->first_free++;
    size_t place = b->first_free;
    for (int tries = 0; tries < TRIES && place < b->trie->count; tries++) {
        while (!is_free(b, place)) place++;
        if (place > bytes[0]) {
            size_t base = place - bytes[0], i = 1;
            while (i < n && is_free(b, base + bytes[i])) i++;
            if (i == n) return base;
        }
        place++;
    }
    /* What was tried in vain is given up, so that the next search does not begin there again. */
    if (place > b->first_free) b->first_free = (uint32_t)(b->first_free + (place - b->first_free) / 2);
    size_t end = b->trie->count > bytes[0] ? b->trie->count : (size_t)bytes[0] + 1;
    return end - bytes[0];
}

static slm_status enqueue(builder *b, range r, slm_error *error) {
    if (b->n_queue == b->queue_capacity) {
        size_t capacity = b->queue_capacity ? 2 * b->queue_capacity : 1024;
        range *grown = slm_realloc_array(b->queue, capacity, sizeof *grown);
        if (!grown) return slm_fail_memory(error);
        b->queue = grown;
        b->queue_capacity = capacity;
    }
    b->queue[b->n_queue++] = r;
    return SLM_OK;
}

static slm_status add_children(builder *b, range r, slm_error *error) {
    while (r.low < r.high && b->keys[r.low].size == r.depth) b->trie->nodes[r.node].value = b->keys[r.low++].value;
    uint8_t bytes[BYTES];
    uint32_t starts[BYTES + 1];
    size_t n = 0;
    for (uint32_t k = r.low; k < r.high; k++) {
        uint8_t byte = b->keys[k].bytes[r.depth];
        if (n && bytes[n - 1] == byte) continue;
        starts[n] = k;
        bytes[n++] = byte;
    }
    if (!n) return SLM_OK;
    starts[n] = r.high;
    size_t base = find_base(b, bytes, n);
    slm_status status = reserve_nodes(b, base + bytes[n - 1] + 1, error);
    if (status) return status;
    b->trie->nodes[r.node].base = (uint32_t)base;
    for (size_t i = 0; i < n; i++) b->trie->nodes[base + bytes[i]].parent = r.node;
    for (size_t i = 0; i < n && !status; i++) {
        range child = {.node = (uint32_t)base + bytes[i], .low = starts[i], .high = starts[i + 1], .depth = r.depth + 1};
        status = enqueue(b, child, error);
    }
    return status;
}

slm_status slm_trie_create(slm_trie_key *keys, size_t count, slm_trie *trie, slm_error *error) {
    qsort(keys, count, sizeof *keys, by_bytes);
    builder b = {.keys = keys, .trie = trie, .first_free = 1};
    slm_status status = reserve_nodes(&b, BYTES, error);
    if (!status) {
        trie->nodes[0].parent = 0; /* taken; that no byte leads from the root to itself follows from base >= 1 */
        trie->nodes[0].base = 1;
        status = enqueue(&b, (range){.high = (uint32_t)count}, error);
    }
    while (b.n_queue && !status) status = add_children(&b, b.queue[--b.n_queue], error);
    slm_free(b.queue);
    return status;
}

void slm_trie_destroy(slm_trie *trie) {
    slm_free(trie->nodes);
    *trie = (slm_trie){0};
}
