/* SPDX-License-Identifier: Apache-2.0
 * check.h: the test programs' tools. CHECK counts, says where it failed, and goes on; finish() prints the totals. */
#ifndef SLM_TESTS_CHECK_H
#define SLM_TESTS_CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static long checks_passed, checks_failed;

static inline bool check(bool ok, const char *what, const char *file, int line) {
    if (ok) {
        checks_passed++;
    } else if (checks_failed++ < 20) {
        printf("%s:%d: %s\n", file, line, what);
    }
    return ok;
}
#define CHECK(condition) check((condition), #condition, __FILE__, __LINE__)

static inline int finish(void) {
    printf("%ld passed, %ld failed\n", checks_passed, checks_failed);
    return checks_failed != 0;
}

/* A program's arguments name the types or tiers to test, where all of them would take too long: on an emulated CPU. */
static inline bool asked_for(const char *name, int argc, char **argv) {
    bool asked = argc == 1;
    for (int i = 1; i < argc; i++) asked = asked || !strcmp(argv[i], name);
    return asked;
}

/* A small generator, so that a failure comes back with the same data. */
static uint64_t random_state = 88172645463325252u;
static inline uint32_t random_u32(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 16);
}
static inline float random_float(void) { /* in [-1, 1) */
    return (float)(int32_t)random_u32() * 0x1p-31f;
}

#endif
