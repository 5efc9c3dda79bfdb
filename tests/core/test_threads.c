/* SPDX-License-Identifier: Apache-2.0
 * test_threads.c: the pool, its barriers and counters, regions inside regions, concurrent callers, fork, the floating-point
 * environment, and the allocator's hook. */
#include "base/threads.h"

#include <fenv.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cpu.h"
#include "check.h"

enum { THREADS = 3, ROUNDS = 200, TAKINGS = 3, ITEMS = 1000 };

typedef struct counting {
    long per_thread[SLM_MAX_THREADS]; /* plain: only barriers order them */
    atomic_long taken;
    int counts[THREADS + 1][ITEMS];
    bool consistent;
} counting;

static void count_rounds(void *arg, slm_team *team) {
    counting *c = arg;
    for (int round = 1; round <= TAKINGS; round++) { /* all lists, each thread its own first; before any barrier, too */
        for (int i = 0; i < team->count; i++) {
            int list = (team->index + i) % team->count;
            for (int64_t item; (item = slm_team_take(team, list)) < ITEMS;) {
                c->counts[list][item]++;
                atomic_fetch_add(&c->taken, 1);
            }
        }
        slm_team_barrier(team);
        if (atomic_load(&c->taken) != (long)round * team->count * ITEMS) c->consistent = false;
        slm_team_barrier(team);
    }
    for (int round = 0; round < ROUNDS; round++) {
        c->per_thread[team->index]++;
        slm_team_barrier(team);
        for (int i = 0; i < team->count; i++) {
            if (c->per_thread[i] != round + 1) c->consistent = false;
        }
        slm_team_barrier(team);
    }
}

static void test_team(int threads) {
    static counting c;
    memset(&c, 0, sizeof c);
    c.consistent = true;
    slm_threads_run(threads, NULL, count_rounds, &c);
    CHECK(c.consistent);
    for (int i = 0; i < threads * ITEMS; i++) CHECK(c.counts[i / ITEMS][i % ITEMS] == TAKINGS);
}

static void test_range(void) {
    for (int64_t n = 0; n < 40; n++) {
        int64_t next = 0;
        for (int i = 0; i < 7; i++) {
            slm_team team = {.index = i, .count = 7};
            int64_t begin, end;
            slm_team_range(&team, n, &begin, &end);
            CHECK(begin == next && end >= begin && end - begin <= n / 7 + 1);
            next = end;
        }
        CHECK(next == n);
    }
}

static void inner(void *arg, slm_team *team) {
    atomic_fetch_add((atomic_int *)arg, team->count);
}
static void outer(void *arg, slm_team *team) {
    if (team->index == 0) slm_threads_run(THREADS, NULL, inner, arg);
    slm_team_barrier(team);
}

static void *caller(void *unused) {
    (void)unused;
    for (int i = 0; i < 20; i++) {
        counting *c = slm_alloc_zero(1, sizeof *c);
        c->consistent = true;
        slm_threads_run(2 + i % 3, NULL, count_rounds, c);
        bool ok = c->consistent;
        slm_free(c);
        if (!ok) return NULL;
    }
    return &"ok"[0];
}

static void test_concurrent_callers(void) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, caller, NULL);
    for (int i = 0; i < 3; i++) {
        void *result;
        pthread_join(threads[i], &result);
        CHECK(result != NULL);
    }
}

static bool counts_well(void) {
    static counting c;
    memset(&c, 0, sizeof c);
    c.consistent = true;
    slm_threads_run(THREADS, NULL, count_rounds, &c);
    return c.consistent;
}

static void test_fork(void) {
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        _exit(counts_well() ? 0 : 1);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Subnormals count in every thread, whatever the caller's thread is set to. */
static void subnormal(void *arg, slm_team *team) {
    volatile float tiny = 1e-38f;
    if (tiny * 0.1f == 0 || fegetround() != FE_TONEAREST) atomic_store((atomic_int *)arg, 1);
    (void)team;
}

static int stop_after;
static int on_event(void *user, const slm_event *event) {
    (void)event;
    return ++*(int *)user > stop_after;
}
static void until_cancelled(void *arg, slm_team *team) {
    double start = slm_seconds();
    while (!slm_team_cancelled(team) && slm_seconds() - start < 10) {}
    slm_team_barrier(team);
    if (slm_seconds() - start < 1) atomic_fetch_add((atomic_int *)arg, 1);
}

static void test_cancel(void) {
    int events = 0;
    atomic_int stopped = 0;
    stop_after = 3;
    slm_call call = {.event = on_event, .user = &events};
    slm_clock clock;
    slm_clock_start(&clock, &call);
    slm_threads_run(THREADS, &clock, until_cancelled, &stopped);
    CHECK(atomic_load(&stopped) == THREADS && clock.cancelled && events == 4);
    CHECK(slm_clock_tick(&clock) && events == 4); /* asked no more */
}

/* One thread holds the pool; another, waiting for its turn, is asked and gives up; a third gets its turn afterwards. */
static void hold(void *arg, slm_team *team) {
    if (team->index == 0) {
        slm_team_take(team, 0);
        atomic_store((atomic_int *)arg, 1);
        usleep(300000);
    }
    slm_team_barrier(team);
}
static void *holder(void *arg) {
    slm_threads_run(2, NULL, hold, arg);
    return NULL;
}
static void never(void *arg, slm_team *team) {
    (void)team;
    atomic_fetch_add((atomic_int *)arg, 1);
}
static void test_waiting_can_be_cancelled(void) {
    atomic_int held = 0, ran = 0;
    pthread_t thread;
    pthread_create(&thread, NULL, holder, &held);
    while (!atomic_load(&held)) usleep(1000);
    int events = 0;
    stop_after = 2;
    slm_call call = {.event = on_event, .user = &events};
    slm_clock clock;
    slm_clock_start(&clock, &call);
    double start = slm_seconds();
    slm_threads_run(2, &clock, never, &ran);
    CHECK(slm_seconds() - start < 0.2 && clock.cancelled && events == 3 && atomic_load(&ran) == 0);
    slm_threads_run(2, NULL, never, &ran);
    CHECK(atomic_load(&ran) == 2);
    pthread_join(thread, NULL);
}

/* Another thread's region runs when the process forks: the child's lists are whole, none begun. */
static void test_fork_beside(void) {
    atomic_int held = 0;
    pthread_t thread;
    pthread_create(&thread, NULL, holder, &held);
    while (!atomic_load(&held)) usleep(1000);
    test_fork();
    pthread_join(thread, NULL);
}

/* A callback that forks: the child leaves the region as cancelled, and its pool works again. */
static int fork_once(void *user, const slm_event *event) {
    (void)event;
    if (*(pid_t *)user < 0) *(pid_t *)user = fork();
    return 0;
}
static void look_often(void *arg, slm_team *team) {
    double start = slm_seconds();
    while (slm_seconds() - start < 0.1 && !slm_team_cancelled(team)) {}
    slm_team_barrier(team);
    (void)arg;
}
static void test_fork_inside(void) {
    pid_t child = -1;
    slm_call call = {.event = fork_once, .user = &child};
    slm_clock clock;
    slm_clock_start(&clock, &call);
    slm_threads_run(2, &clock, look_often, NULL);
    if (child == 0) {
        alarm(20);
        _exit(clock.cancelled && counts_well() ? 0 : 1);
    }
    int status;
    CHECK(!clock.cancelled && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void test_alloc(void) {
    int64_t before = slm_alloc_outstanding();
    char *block = slm_alloc(100);
    CHECK(block && (uintptr_t)block % 64 == 0 && slm_alloc_outstanding() == before + 1);
    memcpy(block, "hello", 6);
    block = slm_realloc_array(block, 100, 7);
    CHECK(block && !strcmp(block, "hello"));
    slm_alloc_fail_at(1, 0);
    void *first = slm_alloc(1), *second = slm_alloc(1), *third = slm_alloc(1);
    CHECK(first && !second && third);
    slm_alloc_fail_at(0, 1);
    CHECK(!slm_alloc(1) && !slm_alloc_pages(1) && !slm_realloc_array(block, 1, 1));
    slm_alloc_fail_at(-1, 0);
    CHECK(!slm_alloc_array(SIZE_MAX / 2, 3) && !slm_alloc(SIZE_MAX - 10) && !slm_alloc_zero(SIZE_MAX, SIZE_MAX) &&
          !slm_alloc_pages(SIZE_MAX - 5));
    slm_free(block), slm_free(first), slm_free(third), slm_free(NULL);
    char *pages = slm_alloc_pages(5 << 20);
    CHECK(pages && (uintptr_t)pages % (2 << 20) == 0 && pages[0] == 0 && pages[(5 << 20) - 1] == 0);
    slm_free_pages(pages, 5 << 20);
    char *large = slm_alloc_zero(3, 1 << 20); /* pages of its own; it shrinks into malloc's and grows out of them */
    CHECK(large && (uintptr_t)large % 64 == 0 && large[0] == 0 && large[(3 << 20) - 1] == 0);
    memcpy(large, "large", 6);
    for (int i = 0; i < 2; i++) {
        large = slm_realloc_array(large, i ? 4 << 20 : 100, 1);
        CHECK(large && (uintptr_t)large % 64 == 0 && !strcmp(large, "large"));
    }
    for (size_t i = 0; i < 4 << 20; i++) large[i] = (char)(i % 251);
    large = slm_realloc_array(large, 9, 1 << 20);
    bool same = large != NULL;
    for (size_t i = 0; same && i < 4 << 20; i++) same = large[i] == (char)(i % 251);
    CHECK(same);
    memset(large, 1, 9 << 20);
    slm_free(large);
    CHECK(slm_alloc_outstanding() == before);
}

int main(void) {
    CHECK(slm_cpu_affinity() >= 1 && slm_cpu_physical_cores() >= 1 && slm_cpu_quota() >= 0);
    CHECK(slm_thread_count() >= 1 && slm_thread_count() <= slm_cpu_affinity());
    test_alloc();
    test_range();
    for (int threads = 1; threads <= THREADS; threads++) test_team(threads);
    atomic_int total = 0;
    slm_threads_run(THREADS, NULL, outer, &total);
    CHECK(atomic_load(&total) == 1);
    test_concurrent_callers();
    test_fork();
    test_team(THREADS); /* the parent's pool still works */
    usleep(50000);      /* workers are asleep now */
    test_team(THREADS);
    atomic_int flushed = 0;
    fesetround(FE_TOWARDZERO);
    slm_threads_run(THREADS, NULL, subnormal, &flushed);
    CHECK(atomic_load(&flushed) == 0 && fegetround() == FE_TOWARDZERO);
    fesetround(FE_TONEAREST);
    test_cancel();
    double speed = 0;
    slm_error error;
    CHECK(slm_measure_bandwidth(64 << 20, 2, NULL, &speed, &error) == SLM_OK && speed > 1e8);
    CHECK(slm_measure_bandwidth(10, 2, NULL, &speed, &error) == SLM_BAD_ARGUMENT);
    test_waiting_can_be_cancelled();
    test_fork_beside();
    test_fork_inside();
    return finish();
}
