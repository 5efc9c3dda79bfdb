/* SPDX-License-Identifier: Apache-2.0 */
#include "base/alloc.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/arith.h"

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

static atomic_llong outstanding;
static atomic_llong fail_countdown = -1;
static atomic_int fail_persistent;

void slm_alloc_fail_at(int64_t k, int persistent) {
    atomic_store(&fail_persistent, persistent);
    atomic_store(&fail_countdown, k);
}

int64_t slm_alloc_outstanding(void) {
    return atomic_load(&outstanding);
}

static bool injected_failure(void) {
    if (atomic_load_explicit(&fail_countdown, memory_order_relaxed) < 0) return false;
    if (atomic_fetch_sub(&fail_countdown, 1) > 0) return false;
    atomic_store(&fail_countdown, atomic_load(&fail_persistent) ? 0 : -1);
    return true;
}

/* A block is preceded by its size, which says how it is freed and what of it moves when it grows. */
typedef struct header {
    size_t size;
    char padding[ALIGNMENT - sizeof(size_t)];
} header;

static bool mapped_size(size_t size, size_t *out) {
    if (!slm_add_size(size ? size : 1, HUGE_PAGE - 1, out)) return false;
    *out = *out / HUGE_PAGE * HUGE_PAGE;
    return true;
}

/* Only whole huge pages that are asked for: the tail would make up to 2 MB resident for nothing. */
static void use_huge_pages(void *start, size_t size) {
#ifdef MADV_HUGEPAGE
    if (size >= HUGE_PAGE) madvise(start, size / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#else
    (void)start, (void)size;
#endif
}

/* Whole pages, aligned to 2 MB, that read as zero; NULL: no memory. */
static char *map_pages(size_t size) {
    size_t kept, mapped;
    if (!mapped_size(size, &kept) || !slm_add_size(kept, HUGE_PAGE, &mapped)) return NULL;
    char *start = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)start % HUGE_PAGE) % HUGE_PAGE;
    if (before) munmap(start, before);
    if (mapped - before > kept) munmap(start + before + kept, mapped - before - kept);
    use_huge_pages(start + before, size);
    return start + before;
}

static void unmap_pages(void *start, size_t size) {
    size_t mapped;
    if (mapped_size(size, &mapped)) munmap(start, mapped);
}

static bool is_mapped(size_t total) {
    return total >= HUGE_PAGE;
}

/* zero: whether what malloc gives is cleared; pages are. */
static void *allocate(size_t size, bool zero) {
    size_t total;
    if (injected_failure() || !slm_add_size(size, sizeof(header), &total)) return NULL;
    header *block;
    if (is_mapped(total)) {
        block = (header *)map_pages(total);
    } else {
        size_t rounded = (total + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        block = aligned_alloc(ALIGNMENT, rounded);
        if (block && zero) memset(block, 0, rounded);
    }
    if (!block) return NULL;
    block->size = size;
    atomic_fetch_add_explicit(&outstanding, 1, memory_order_relaxed);
    return block + 1;
}

void *slm_alloc(size_t size) {
    return allocate(size, false);
}

void *slm_alloc_array(size_t count, size_t size) {
    size_t total;
    return slm_mul_size(count, size, &total) ? allocate(total, false) : NULL;
}

void *slm_alloc_zero(size_t count, size_t size) {
    size_t total;
    return slm_mul_size(count, size, &total) ? allocate(total, true) : NULL;
}

/* Puts the pages of a block in the place of the first ones of a larger, new block: hundreds of megabytes take no time. */
static bool move_pages(header *old, header *block) {
#ifdef MREMAP_FIXED
    size_t moved, size = block->size;
    if (!is_mapped(old->size + sizeof(header)) || size < old->size) return false;
    if (!mapped_size(old->size + sizeof(header), &moved)) return false;
    if (mremap(old, moved, moved, MREMAP_MAYMOVE | MREMAP_FIXED, block) == MAP_FAILED) return false;
    block->size = size;
    use_huge_pages(block, size + sizeof(header)); /* the last of the old ones were too few for a huge one */
    return true;
#else
    (void)old, (void)block;
    return false;
#endif
}

void *slm_realloc_array(void *old, size_t count, size_t size) {
    void *block = slm_alloc_array(count, size);
    if (!block || !old) return block;
    header *before = (header *)old - 1;
    if (move_pages(before, (header *)block - 1)) {
        atomic_fetch_sub_explicit(&outstanding, 1, memory_order_relaxed);
    } else {
        memcpy(block, old, before->size < count * size ? before->size : count * size);
        slm_free(old);
    }
    return block;
}

void slm_free(void *block) {
    if (!block) return;
    header *start = (header *)block - 1;
    if (is_mapped(start->size + sizeof(header)))
        unmap_pages(start, start->size + sizeof(header));
    else
        free(start);
    atomic_fetch_sub_explicit(&outstanding, 1, memory_order_relaxed);
}

void *slm_alloc_pages(size_t size) {
    char *start = injected_failure() ? NULL : map_pages(size);
    if (start) atomic_fetch_add_explicit(&outstanding, 1, memory_order_relaxed);
    return start;
}

void slm_free_pages(void *block, size_t size) {
    if (!block) return;
    unmap_pages(block, size);
    atomic_fetch_sub_explicit(&outstanding, 1, memory_order_relaxed);
}
