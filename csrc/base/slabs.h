/* SPDX-License-Identifier: Apache-2.0
 * slabs.h: blocks of one size that come and go, many to a slab of huge pages. Attention reads all pages of a long text for each
 * token; on 4 KB pages they are more than a CPU remembers the places of. Any thread may take and give. */
#ifndef SLM_BASE_SLABS_H
#define SLM_BASE_SLABS_H

#include <stdatomic.h>
#include <stddef.h>

typedef struct slm_slab slm_slab;

typedef struct slm_slabs {
    size_t block_bytes; /* with what precedes a block */
    size_t slab_bytes;
    slm_slab *open; /* those with room; one of them may be empty, the others go when their last block is given back */
    atomic_flag busy;
} slm_slabs;

void slm_slabs_init(slm_slabs *slabs, size_t block_size);
void slm_slabs_release(slm_slabs *slabs); /* all blocks have been given back */
/* A block, aligned to 64 bytes and not initialised; NULL: no memory. */
void *slm_slabs_take(slm_slabs *slabs);
void slm_slabs_give(void *block); /* NULL is fine */

#endif
