/* SPDX-License-Identifier: Apache-2.0
 * threads.h: the one thread pool of the process, and the region that a forward step runs in.
 *
 * slm_threads_run calls `body` once on each thread of a team. Inside, work is split by slm_team_range (fixed shares) or
 * slm_team_take (first come, first served), and steps are separated by slm_team_barrier, which every thread of the team must
 * reach. Regions of concurrent callers take turns in the order they came. A region entered from inside a region (an event
 * callback that calls slm again) runs on its own thread alone: the results are the same bits for any team. */
#ifndef SLM_BASE_THREADS_H
#define SLM_BASE_THREADS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/call.h"

typedef struct slm_team_shared slm_team_shared;

typedef struct slm_team {
    int index, count; /* this thread, 0 is the caller's own; all */
    slm_team_shared *shared;
    const uint8_t *ahead, *ahead_end; /* what this thread will read from memory next: asked for while it waits for others */
} slm_team;

typedef void (*slm_region)(void *arg, slm_team *team);

enum { SLM_MAX_THREADS = 256 };

/* slm_thread_count, asked of the system once. */
int slm_threads_default(void);
/* How many threads a call takes that asks for so many: the default for 0 or fewer, at most SLM_MAX_THREADS. */
int slm_threads_wanted(int threads);

/* threads: 0 for the default, at most SLM_MAX_THREADS. clock: may be NULL; cancelled while waiting for a turn, the body does not
 * run. The floating-point environment inside is the default one. */
void slm_threads_run(int threads, slm_clock *clock, slm_region body, void *arg);

void slm_team_barrier(slm_team *team);
/* This thread's share [*begin, *end) of n items, the same for every call with the same n. */
void slm_team_range(const slm_team *team, int64_t n, int64_t *begin, int64_t *end);
/* The next item of a list not taken yet since the last barrier: 0, 1, 2 ... There are as many lists as threads, of less than 2^32
 * items each. */
int64_t slm_team_take(slm_team *team, int list);
/* True when the caller has asked to cancel: skip the work, keep the barriers. Thread 0 asks the caller here. */
bool slm_team_cancelled(slm_team *team);

#endif
