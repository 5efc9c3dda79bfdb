/* SPDX-License-Identifier: Apache-2.0
 * test_slabs.c: blocks keep what is written to them, lie apart, are taken again, and go back to the system; from many threads. */
#include "base/slabs.h"

#include <string.h>

#include "base/alloc.h"
#include "base/threads.h"
#include "check.h"

enum { BLOCKS = 200, THREADS = 3, ROUNDS = 4000, HELD = 40 };

static void test_order(size_t size) {
    static unsigned char *blocks[BLOCKS];
    int64_t before = slm_alloc_outstanding();
    slm_slabs slabs;
    slm_slabs_init(&slabs, size);
    CHECK(slm_alloc_outstanding() == before);
    for (int i = 0; i < BLOCKS; i++) {
        CHECK((blocks[i] = slm_slabs_take(&slabs)) && (uintptr_t)blocks[i] % 64 == 0);
        memset(blocks[i], i, size);
    }
    int64_t most = slm_alloc_outstanding();
    CHECK(most > before);
    for (int i = 0; i < BLOCKS; i++) {
        bool whole = true;
        for (size_t j = 0; j < size; j++) whole = whole && blocks[i][j] == i;
        CHECK(whole);
    }
    for (int i = 1; i < BLOCKS; i += 2) slm_slabs_give(blocks[i]);
    for (int i = 1; i < BLOCKS; i += 2) { /* into the gaps: no new slab, and nothing of what lies between is touched */
        blocks[i] = slm_slabs_take(&slabs);
        memset(blocks[i], i, size);
    }
    CHECK(slm_alloc_outstanding() == most);
    for (int i = 0; i < BLOCKS; i++) CHECK(blocks[i][0] == i && blocks[i][size - 1] == i);
    slm_slabs_give(NULL);
    for (int i = 0; i < BLOCKS; i++) slm_slabs_give(blocks[(i * 77) % BLOCKS]);
    CHECK(slm_alloc_outstanding() <= before + 1); /* an empty one stays for the next text */
    slm_slabs_release(&slabs);
    CHECK(slm_alloc_outstanding() == before);
}

static void test_no_memory(void) {
    slm_slabs slabs;
    slm_slabs_init(&slabs, 1000);
    slm_alloc_fail_at(0, 0);
    CHECK(!slm_slabs_take(&slabs));
    void *block = slm_slabs_take(&slabs);
    CHECK(block);
    slm_slabs_give(block);
    slm_slabs_release(&slabs);
}

typedef struct sharing {
    slm_slabs slabs;
    bool ok[SLM_MAX_THREADS];
} sharing;

/* Each thread writes its name into what it holds, and gives it back in another order. */
static void share(void *arg, slm_team *team) {
    sharing *s = arg;
    size_t size = 100000;
    unsigned char *held[HELD] = {NULL}, name = (unsigned char)(team->index + 1);
    uint32_t state = (uint32_t)team->index;
    bool ok = true;
    for (int i = 0; i < ROUNDS; i++) {
        state = state * 1664525u + 1013904223u;
        unsigned char **block = &held[state >> 8 & 31];
        if (*block) {
            ok = ok && (*block)[0] == name && (*block)[size - 1] == name;
            slm_slabs_give(*block);
            *block = NULL;
        } else if ((*block = slm_slabs_take(&s->slabs))) {
            (*block)[0] = (*block)[size - 1] = name;
        } else {
            ok = false;
        }
    }
    for (int i = 0; i < HELD; i++) slm_slabs_give(held[i]);
    s->ok[team->index] = ok;
}

static void test_threads(void) {
    static sharing s;
    int64_t before = slm_alloc_outstanding();
    slm_slabs_init(&s.slabs, 100000);
    slm_threads_run(THREADS, NULL, share, &s);
    for (int i = 0; i < THREADS; i++) CHECK(s.ok[i]);
    slm_slabs_release(&s.slabs);
    CHECK(slm_alloc_outstanding() == before);
}

int main(void) {
    test_order(1);
    test_order(49216); /* a page of SmolLM2: 42 of them to 2 MB */
    test_order(131136);
    test_no_memory();
    test_threads();
    return finish();
}
