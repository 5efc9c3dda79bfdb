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

/* A block is preceded by its size, which realloc needs: the C library has no aligned realloc. */
typedef struct header {
    size_t size;
    char padding[ALIGNMENT - sizeof(size_t)];
} header;

/* Asks for huge pages in the whole ones among [block, block + size). */
static void use_huge_pages(char *block, size_t size) {
#ifdef MADV_HUGEPAGE
    size_t before = (HUGE_PAGE - (uintptr_t)block % HUGE_PAGE) % HUGE_PAGE;
    if (size >= before + HUGE_PAGE) madvise(block + before, (size - before) / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#else
    (void)block, (void)size;
#endif
}

void *slm_alloc(size_t size) {
    size_t total;
    if (injected_failure() || !slm_add_size(size, sizeof(header) + ALIGNMENT - 1, &total)) return NULL;
    header *block = aligned_alloc(ALIGNMENT, total / ALIGNMENT * ALIGNMENT);
    if (!block) return NULL;
    block->size = size;
    atomic_fetch_add_explicit(&outstanding, 1, memory_order_relaxed);
    return block + 1;
}

void *slm_alloc_array(size_t count, size_t size) {
    size_t total;
    return slm_mul_size(count, size, &total) ? slm_alloc(total) : NULL;
}

void *slm_alloc_zero(size_t count, size_t size) {
    void *block = slm_alloc_array(count, size);
    if (block) memset(block, 0, count * size);
    return block;
}

void *slm_realloc_array(void *old, size_t count, size_t size) {
    void *block = slm_alloc_array(count, size);
    if (block && old) {
        size_t old_size = ((header *)old - 1)->size;
        memcpy(block, old, old_size < count * size ? old_size : count * size);
        slm_free(old);
    }
    return block;
}

void slm_free(void *block) {
    if (!block) return;
    free((header *)block - 1);
    atomic_fetch_sub_explicit(&outstanding, 1, memory_order_relaxed);
}

static bool mapped_size(size_t size, size_t *out) {
    if (!slm_add_size(size ? size : 1, HUGE_PAGE - 1, out)) return false;
    *out = *out / HUGE_PAGE * HUGE_PAGE;
    return true;
}

void *slm_alloc_pages(size_t size) {
    size_t kept, mapped;
    if (injected_failure() || !mapped_size(size, &kept) || !slm_add_size(kept, HUGE_PAGE, &mapped)) return NULL;
    char *start = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)start % HUGE_PAGE) % HUGE_PAGE;
    if (before) munmap(start, before);
    if (mapped - before > kept) munmap(start + before + kept, mapped - before - kept);
    /* Only whole huge pages that are asked for: the tail would make up to 2 MB resident for nothing. */
    use_huge_pages(start + before, size);
    atomic_fetch_add_explicit(&outstanding, 1, memory_order_relaxed);
    return start + before;
}

void slm_free_pages(void *block, size_t size) {
    size_t mapped;
    if (!block || !mapped_size(size, &mapped)) return;
    munmap(block, mapped);
    atomic_fetch_sub_explicit(&outstanding, 1, memory_order_relaxed);
}
