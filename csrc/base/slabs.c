/* SPDX-License-Identifier: Apache-2.0 */
#include "base/slabs.h"

#include <stdbool.h>
#include <stdint.h>

#include "base/alloc.h"

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20, LEAST_BLOCKS = 32 /* of a slab: so less than 3 % of it is left over */ };

/* What precedes a block, on a cache line of its own. */
typedef struct place {
    slm_slab *slab;
    struct place *next; /* of those that were given back */
    char padding[ALIGNMENT - 2 * sizeof(void *)];
} place;

struct slm_slab {
    slm_slabs *owner;
    slm_slab *next, *before; /* in the owner's list, while there is room */
    place *given;
    size_t n_taken, n_begun, n_places; /* those begun have been taken at least once */
    char padding[ALIGNMENT - (4 * sizeof(void *) + 3 * sizeof(size_t)) % ALIGNMENT];
};

static void lock(slm_slabs *slabs) {
    while (atomic_flag_test_and_set_explicit(&slabs->busy, memory_order_acquire)) {}
}

static void unlock(slm_slabs *slabs) {
    atomic_flag_clear_explicit(&slabs->busy, memory_order_release);
}

static void enlist(slm_slab *slab) {
    slm_slabs *slabs = slab->owner;
    slab->before = NULL;
    slab->next = slabs->open;
    if (slab->next) slab->next->before = slab;
    slabs->open = slab;
}

static void unlist(slm_slab *slab) {
    *(slab->before ? &slab->before->next : &slab->owner->open) = slab->next;
    if (slab->next) slab->next->before = slab->before;
}

void slm_slabs_init(slm_slabs *slabs, size_t block_size) {
    size_t block_bytes = sizeof(place) + (block_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    size_t slab_bytes = sizeof(slm_slab) + LEAST_BLOCKS * block_bytes;
    *slabs = (slm_slabs){.block_bytes = block_bytes, .slab_bytes = (slab_bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE};
    atomic_flag_clear(&slabs->busy);
}

void slm_slabs_release(slm_slabs *slabs) {
    slm_free_pages(slabs->open, slabs->slab_bytes);
    slabs->open = NULL;
}

static slm_slab *create(slm_slabs *slabs) {
    slm_slab *slab = slm_alloc_pages(slabs->slab_bytes);
    if (!slab) return NULL;
    *slab = (slm_slab){.owner = slabs, .n_places = (slabs->slab_bytes - sizeof *slab) / slabs->block_bytes};
    return slab;
}

static place *take_place(slm_slab *slab) {
    place *p = slab->given;
    if (p) {
        slab->given = p->next;
    } else {
        p = (place *)(void *)((uint8_t *)(slab + 1) + slab->n_begun++ * slab->owner->block_bytes);
        p->slab = slab;
    }
    if (++slab->n_taken == slab->n_places) unlist(slab);
    return p;
}

void *slm_slabs_take(slm_slabs *slabs) {
    slm_slab *fresh = NULL;
    lock(slabs);
    if (!slabs->open) { /* the system is not asked for pages while others wait */
        unlock(slabs);
        if (!(fresh = create(slabs))) return NULL;
        lock(slabs);
        enlist(fresh);
    }
    place *p = take_place(slabs->open);
    unlock(slabs);
    return p + 1;
}

void slm_slabs_give(void *block) {
    if (!block) return;
    place *p = (place *)block - 1;
    slm_slab *slab = p->slab;
    slm_slabs *slabs = slab->owner;
    lock(slabs);
    if (slab->n_taken == slab->n_places) enlist(slab);
    p->next = slab->given;
    slab->given = p;
    bool goes = --slab->n_taken == 0 && (slab->next || slab->before); /* the next text would ask for the last one again */
    if (goes) unlist(slab);
    unlock(slabs);
    if (goes) slm_free_pages(slab, slabs->slab_bytes);
}
