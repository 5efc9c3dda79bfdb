/* SPDX-License-Identifier: Apache-2.0
 * bpe_long.c: merging a word of thousands or millions of bytes, one letter repeated included.
 *
 * The word is a list of nodes; a queue yields the pair of the lowest rank, the leftmost first. A plain heap of all pairs is
 * correct, but in a long word every pop walks through memory that no cache holds. Pairs of one rank are mostly found from left to
 * right, so they are kept as a list per rank, and the heap holds the heads of these lists; what comes out of order goes to the
 * heap itself. Then the heap is about as small as the number of distinct ranks waiting. */
#include "base/alloc.h"
#include "base/status.h"
#include "text/bpe_table.h"
#include "text/buffers.h"

/* Below this the heap alone is in cache and lists per rank would not pay for themselves. */
enum { BUCKETS_FROM = 4096, SMALLEST = 1024, STEPS_PER_TICK = 4096 };

#define NOBODY UINT32_MAX

typedef struct slm_bpe_node {
    int32_t id;
    uint32_t rank;           /* of the merge with the next node; SLM_NO_MERGE: none, or the node is unlinked */
    uint32_t previous, next; /* NOBODY at the ends */
} slm_bpe_node;

typedef struct slm_bpe_item {
    uint32_t position, next; /* the next item of the same list, NOBODY at its end */
} slm_bpe_item;

typedef struct slm_bpe_bucket {
    uint32_t head, tail; /* items in ascending order of position; head NOBODY: empty */
} slm_bpe_bucket;

/* Of a word of n bytes: n nodes, 2 * n items, 2 * n heap entries, one behind the other. There is one entry per pair at first; a
 * merge takes one and adds at most two. */
enum { BYTES_PER_NODE = sizeof(slm_bpe_node) + 2 * sizeof(slm_bpe_item) + 2 * sizeof(uint64_t) };

/* An entry is rank << 32 | position of the left node. It is stale when the node has got another rank since, and then ignored. */
typedef struct queue {
    uint64_t *heap; /* [n_heap], the smallest on top; of every list that is not empty it holds the head */
    size_t n_heap;
    slm_bpe_item *items;
    uint32_t n_items, free_item; /* items taken so far; list of those given back, NOBODY at its end */
    slm_bpe_bucket *buckets;     /* [n_merges], all empty before and after; NULL: everything is in the heap */
} queue;

static void heap_sink(uint64_t *heap, size_t count, size_t at) {
    uint64_t entry = heap[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && heap[child + 1] < heap[child]) child++;
        if (heap[child] >= entry) break;
        heap[at] = heap[child];
    }
    heap[at] = entry;
}

static void heap_push(queue *q, uint64_t entry) {
    size_t at = q->n_heap++;
    for (size_t parent; at && q->heap[parent = (at - 1) / 2] > entry; at = parent) q->heap[at] = q->heap[parent];
    q->heap[at] = entry;
}

static uint32_t take_item(queue *q) {
    uint32_t item = q->free_item;
    if (item == NOBODY) return q->n_items++;
    q->free_item = q->items[item].next;
    return item;
}

static void push(queue *q, uint32_t rank, uint32_t position) {
    uint64_t entry = (uint64_t)rank << 32 | position;
    slm_bpe_bucket *bucket = q->buckets ? &q->buckets[rank] : NULL;
    if (!bucket || (bucket->head != NOBODY && q->items[bucket->tail].position > position)) {
        heap_push(q, entry);
        return;
    }
    uint32_t item = take_item(q);
    q->items[item] = (slm_bpe_item){.position = position, .next = NOBODY};
    if (bucket->head == NOBODY) {
        bucket->head = item;
        heap_push(q, entry);
    } else {
        q->items[bucket->tail].next = item;
    }
    bucket->tail = item;
}

/* n_heap > 0. An entry that was pushed into the heap may equal the head of its list; which of the two is taken first makes no
 * difference. */
static uint64_t pop(queue *q) {
    uint64_t entry = q->heap[0];
    uint32_t rank = (uint32_t)(entry >> 32), position = (uint32_t)entry;
    slm_bpe_bucket *bucket = q->buckets ? &q->buckets[rank] : NULL;
    uint32_t head = bucket ? bucket->head : NOBODY;
    bool refill = false;
    if (head != NOBODY && q->items[head].position == position) {
        bucket->head = q->items[head].next;
        q->items[head].next = q->free_item;
        q->free_item = head;
        refill = bucket->head != NOBODY;
    }
    q->heap[0] = refill ? (uint64_t)rank << 32 | q->items[bucket->head].position : q->heap[--q->n_heap];
    heap_sink(q->heap, q->n_heap, 0);
    return entry;
}

static slm_status reserve(slm_bpe_scratch *scratch, size_t count, size_t n_merges, slm_error *error) {
    if (count > scratch->capacity) {
        /* Nothing in it is needed any more, so growing need not copy. */
        slm_free(scratch->nodes);
        size_t capacity = SMALLEST;
        while (capacity < count) capacity *= 2;
        scratch->nodes = slm_alloc_array(capacity, BYTES_PER_NODE);
        scratch->capacity = scratch->nodes ? capacity : 0;
    }
    if (count >= BUCKETS_FROM && !scratch->buckets) {
        scratch->buckets = slm_alloc_array(n_merges, sizeof *scratch->buckets);
        for (size_t i = 0; scratch->buckets && i < n_merges; i++) scratch->buckets[i].head = NOBODY;
    }
    return scratch->nodes && (count < BUCKETS_FROM || scratch->buckets) ? SLM_OK : slm_fail_memory(error);
}

void slm_bpe_scratch_free(slm_bpe_scratch *scratch) {
    slm_free(scratch->buckets);
    slm_free(scratch->nodes);
    *scratch = (slm_bpe_scratch){0};
}

/* Gives a node the rank of its merge with the next node and queues that. */
static void offer(const slm_bpe *bpe, slm_bpe_node *nodes, uint32_t at, queue *q) {
    slm_bpe_node *node = &nodes[at];
    node->rank = node->next == NOBODY ? SLM_NO_MERGE : slm_bpe_rank(bpe, node->id, nodes[node->next].id);
    if (node->rank != SLM_NO_MERGE) push(q, node->rank, at);
}

slm_status slm_bpe_merge_long(const slm_bpe *bpe, slm_bpe_scratch *scratch, int32_t *ids, size_t *count, slm_clock *clock,
                              slm_error *error) {
    slm_status status = reserve(scratch, *count, bpe->n_merges, error);
    if (status) return status;
    slm_bpe_node *nodes = scratch->nodes;
    slm_bpe_item *items = (slm_bpe_item *)(nodes + scratch->capacity);
    queue q = {.heap = (uint64_t *)(items + 2 * scratch->capacity),
               .items = items,
               .free_item = NOBODY,
               .buckets = *count >= BUCKETS_FROM ? scratch->buckets : NULL};
    size_t steps = 0;
    uint32_t last = (uint32_t)*count - 1;
    for (uint32_t i = 0; i <= last; i++) {
        nodes[i] =
            (slm_bpe_node){.id = ids[i], .rank = SLM_NO_MERGE, .previous = i ? i - 1 : NOBODY, .next = i < last ? i + 1 : NOBODY};
        if (i) offer(bpe, nodes, i - 1, &q);
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
    }
    while (q.n_heap) {
        uint64_t entry = pop(&q);
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        uint32_t rank = (uint32_t)(entry >> 32), at = (uint32_t)entry;
        slm_bpe_node *node = &nodes[at];
        if (node->rank != rank) continue;
        slm_bpe_node *gone = &nodes[node->next];
        node->id = bpe->results[rank];
        node->next = gone->next;
        gone->rank = SLM_NO_MERGE;
        if (node->next != NOBODY) nodes[node->next].previous = at;
        /* The left neighbour first: so the positions pushed in one pass over a rank ascend. */
        if (node->previous != NOBODY) offer(bpe, nodes, node->previous, &q);
        offer(bpe, nodes, at, &q);
    }
    *count = 0;
    for (uint32_t at = 0; at != NOBODY; at = nodes[at].next) {
        ids[(*count)++] = nodes[at].id;
        if (++steps % STEPS_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
    }
    return SLM_OK;
}
