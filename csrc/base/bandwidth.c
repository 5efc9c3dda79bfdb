/* SPDX-License-Identifier: Apache-2.0
 * bandwidth.c: how fast this machine's memory is read, by the pool that reads weights. */
#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "base/threads.h"

typedef struct sweep {
    const uint64_t *words;
    int64_t n;
    bool touch;     /* write first: pages must exist */
    uint64_t *sums; /* [SLM_MAX_THREADS]: kept, so that the reads are not optimised away */
} sweep;

static void sweep_region(void *arg, slm_team *team) {
    sweep *s = arg;
    int64_t begin, end;
    slm_team_range(team, s->n / 64, &begin, &end);
    const uint64_t *words = s->words + begin * 64;
    size_t n = (size_t)(end - begin) * 64;
    if (s->touch) {
        memset((void *)(uintptr_t)words, team->index + 1, n * sizeof *words);
        return;
    }
    uint64_t sum[64] = {0};
    for (size_t i = 0; i < n; i += 64) {
        for (int j = 0; j < 64; j++) sum[j] += words[i + (size_t)j];
    }
    for (int j = 1; j < 64; j++) sum[0] += sum[j];
    s->sums[team->index] = sum[0];
}

slm_status slm_measure_bandwidth(size_t bytes, int sweeps, const slm_call *call, double *bytes_per_second, slm_error *error) {
    if (bytes < 1 << 20 || sweeps < 1) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "size and sweeps: expected at least 1 MiB and 1, found %zu and %d", bytes,
                        sweeps);
    }
    uint64_t sums[SLM_MAX_THREADS];
    bytes = bytes / 512 * 512;
    void *block = slm_alloc_pages(bytes);
    if (!block) return slm_fail_memory(error);
    sweep s = {.words = block, .n = (int64_t)(bytes / sizeof(uint64_t)), .touch = true, .sums = sums};
    slm_clock clock;
    slm_clock_start(&clock, call);
    int threads = call ? call->threads : 0;
    slm_threads_run(threads, NULL, sweep_region, &s);
    s.touch = false;
    double best = 0;
    for (int i = 0; i < sweeps && !slm_clock_tick(&clock); i++) {
        double start = slm_seconds();
        slm_threads_run(threads, NULL, sweep_region, &s);
        double speed = (double)bytes / (slm_seconds() - start);
        if (speed > best) best = speed;
    }
    slm_free_pages(block, bytes);
    if (clock.cancelled) return slm_fail_cancelled(error);
    *bytes_per_second = best;
    return SLM_OK;
}
