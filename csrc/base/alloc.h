/* SPDX-License-Identifier: Apache-2.0
 * alloc.h: every byte the core holds comes from here, so that tests can make any allocation fail and count what is left.
 * Blocks are aligned to 64 bytes. NULL means out of memory; a size of 0 gives a valid block. Blocks of 2 MB and more are pages of
 * their own, huge where the system gives them: what is filled once and given back costs page faults above all. */
#ifndef SLM_BASE_ALLOC_H
#define SLM_BASE_ALLOC_H

#include <stddef.h>
#include <stdint.h>

void *slm_alloc(size_t size); /* not initialised */
void *slm_alloc_zero(size_t count, size_t size);
void *slm_alloc_array(size_t count, size_t size); /* not initialised; the product is checked */
/* NULL leaves old as it was. old may be NULL. */
void *slm_realloc_array(void *old, size_t count, size_t size);
void slm_free(void *block); /* NULL is fine */

/* For weights: whole pages, aligned to 2 MB and on huge pages where the system gives them. Reads as zero. */
void *slm_alloc_pages(size_t size);
void slm_free_pages(void *block, size_t size); /* NULL is fine */

/* For tests. The k-th allocation from now fails (k = 0: the next; persistent: and all after it); -1: none. */
void slm_alloc_fail_at(int64_t k, int persistent);
int64_t slm_alloc_outstanding(void); /* blocks now held */

#endif
