/* SPDX-License-Identifier: Apache-2.0 */
#include "base/threads.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "base/cpu.h"

/* A barrier of two spinning threads costs 60 to 90 ns, a parked one tens of microseconds. Spinning longer than that gains nothing
 * on a free machine, and where another process holds a core it keeps the CPU from the thread that is waited for (decode with a
 * busy neighbour on one of two cores: 20 us 67 tokens/s, 50 us 53, 200 us 42, 2 ms 30). */
static const double SPIN_SECONDS = 20e-6;
enum { CACHE_LINE = 128, SPINS_PER_CLOCK = 64 };

/* How much of a list is taken: items, and in the upper half the phase in which they were. What was taken in another phase of the
 * region counts no more, so no barrier sets lists back. */
typedef struct item_list {
    _Alignas(CACHE_LINE) atomic_ullong taken;
} item_list;

struct slm_team_shared {
    _Alignas(CACHE_LINE) atomic_uint arrived;
    _Alignas(CACHE_LINE) atomic_uint phase; /* counts completed barriers */
    _Alignas(CACHE_LINE) atomic_bool cancelled;
    int count;
    slm_clock *clock;
    item_list *lists; /* [count] */
};

typedef struct worker {
    _Alignas(CACHE_LINE) atomic_uint started; /* regions this worker was called to */
    int index;
} worker;

typedef struct turn {
    struct turn *next;
} turn;

static struct {
    pthread_mutex_t lock; /* guards what follows, and sleeping */
    pthread_cond_t wake;
    turn *first, *last; /* callers in the order they came; the first runs its region */
    int n_workers;
    atomic_int default_threads; /* asked of the system once; 0: not yet */
    bool fork_handler;
    atomic_int parked;
    worker workers[SLM_MAX_THREADS];
    item_list lists[SLM_MAX_THREADS];
    slm_region body; /* of the running region */
    void *arg;
    slm_team_shared shared;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static _Thread_local int region_depth;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* team: NULL, or whose bytes ahead are asked for meanwhile. */
static void wait_while(atomic_uint *word, unsigned value, slm_team *team) {
    double deadline = 0;
    for (unsigned spins = 1;; spins++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value) return;
        if (team && team->ahead < team->ahead_end) {
            __builtin_prefetch(team->ahead, 0, 2);
            team->ahead += 64;
        } else {
            relax();
        }
        if (spins % SPINS_PER_CLOCK) continue;
        double now = slm_seconds();
        if (!deadline) deadline = now + SPIN_SECONDS;
        if (now > deadline) break;
    }
    pthread_mutex_lock(&pool.lock);
    atomic_fetch_add(&pool.parked, 1);
    while (atomic_load(word) == value) pthread_cond_wait(&pool.wake, &pool.lock);
    atomic_fetch_sub(&pool.parked, 1);
    pthread_mutex_unlock(&pool.lock);
}

/* After a sequentially consistent exchange of a word: either the sleeper sees the new value, or we see the sleeper. A store would
 * do by the language's rules, but qemu gives aarch64's store-release and the load-acquire behind it no order. */
static void wake_sleepers(void) {
    if (!atomic_load(&pool.parked)) return;
    pthread_mutex_lock(&pool.lock);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

void slm_team_barrier(slm_team *team) {
    slm_team_shared *shared = team->shared;
    unsigned count = (unsigned)shared->count; /* once all have arrived, the next region may write it */
    unsigned phase = atomic_load_explicit(&shared->phase, memory_order_relaxed);
    if (count == 1) {
        atomic_store_explicit(&shared->phase, phase + 1, memory_order_relaxed);
    } else if (atomic_fetch_add_explicit(&shared->arrived, 1, memory_order_acq_rel) + 1 == count) {
        atomic_store_explicit(&shared->arrived, 0, memory_order_relaxed);
        atomic_exchange(&shared->phase, phase + 1);
        wake_sleepers();
    } else {
        wait_while(&shared->phase, phase, team);
    }
}

void slm_team_range(const slm_team *team, int64_t n, int64_t *begin, int64_t *end) {
    *begin = n * team->index / team->count;
    *end = n * (team->index + 1) / team->count;
}

int64_t slm_team_take(slm_team *team, int list) {
    atomic_ullong *word = &team->shared->lists[list].taken;
    uint64_t phase = atomic_load_explicit(&team->shared->phase, memory_order_relaxed), item;
    unsigned long long taken = atomic_load_explicit(word, memory_order_relaxed);
    do {
        item = taken >> 32 == phase ? taken & UINT32_MAX : 0;
    } while (!atomic_compare_exchange_weak_explicit(word, &taken, phase << 32 | (item + 1), memory_order_relaxed,
                                                    memory_order_relaxed));
    return (int64_t)item;
}

bool slm_team_cancelled(slm_team *team) {
    slm_team_shared *shared = team->shared;
    if (team->index == 0 && shared->clock && slm_clock_tick(shared->clock)) {
        atomic_store_explicit(&shared->cancelled, true, memory_order_relaxed);
    }
    return atomic_load_explicit(&shared->cancelled, memory_order_relaxed);
}

static void *worker_main(void *arg) {
    worker *self = arg;
    unsigned done = 0;
    for (;;) {
        wait_while(&self->started, done++, NULL);
        slm_team team = {.index = self->index, .count = pool.shared.count, .shared = &pool.shared};
        pool.body(pool.arg, &team);
        slm_team_barrier(&team);
    }
    return NULL;
}

/* The child of a fork has no workers, and locks in whatever state they were. Forked inside a region (by an event callback), it
 * leaves the region as a cancelled team of one. */
static void after_fork_in_child(void) {
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pool.first = pool.last = NULL;
    pool.n_workers = 0;
    atomic_store(&pool.default_threads, 0);
    atomic_store(&pool.parked, 0);
    memset(pool.workers, 0, sizeof pool.workers);
    atomic_store(&pool.shared.arrived, 0);
    pool.shared.count = 1;
    if (region_depth) {
        atomic_store(&pool.shared.cancelled, true);
        if (pool.shared.clock) pool.shared.clock->cancelled = true;
    }
}

/* Starts workers until there are `wanted`, or as many as the system gives: fewer only cost time. Pool lock held. */
static int ensure_workers(int wanted) {
    if (!pool.fork_handler) {
        pool.fork_handler = true;
        pthread_atfork(NULL, NULL, after_fork_in_child);
    }
    while (pool.n_workers < wanted) {
        worker *w = &pool.workers[pool.n_workers];
        w->index = pool.n_workers + 1;
        atomic_store(&w->started, 0);
        sigset_t all, old; /* signals belong to the caller's threads */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        pthread_t thread;
        int failed = pthread_create(&thread, NULL, worker_main, w);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (failed) break;
        pthread_detach(thread);
        pool.n_workers++;
    }
    return wanted < pool.n_workers ? wanted : pool.n_workers;
}

static void run_alone(slm_clock *clock, slm_region body, void *arg) {
    item_list whole = {0};
    slm_team_shared shared = {.count = 1, .clock = clock, .lists = &whole};
    slm_team team = {.index = 0, .count = 1, .shared = &shared};
    body(arg, &team);
}

/* Waits until all who came before are done, asking the caller every 5 ms whether to go on. Pool lock held. */
static bool take_turn(turn *mine, slm_clock *clock) {
    *(pool.last ? &pool.last->next : &pool.first) = mine;
    pool.last = mine;
    while (pool.first != mine) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 5000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&pool.wake, &pool.lock, &until);
        if (!clock || pool.first == mine) continue;
        pthread_mutex_unlock(&pool.lock);
        bool cancelled = slm_clock_tick(clock);
        pthread_mutex_lock(&pool.lock);
        if (!cancelled) continue;
        turn *before = pool.first;
        if (before == mine) return true; /* it came meanwhile: the region ends by itself */
        while (before->next != mine) before = before->next;
        before->next = mine->next;
        if (pool.last == mine) pool.last = before;
        return false;
    }
    return true;
}

static void end_turn(const turn *mine) {
    pthread_mutex_lock(&pool.lock);
    if (pool.first == mine) { /* not so in the child of a fork */
        pool.first = mine->next;
        if (!pool.first) pool.last = NULL;
    }
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

static void run_team(int threads, slm_clock *clock, slm_region body, void *arg) {
    turn mine = {0};
    pthread_mutex_lock(&pool.lock);
    bool ours = take_turn(&mine, clock);
    int n_workers = ours ? ensure_workers(threads - 1) : 0;
    pthread_mutex_unlock(&pool.lock);
    if (!ours) return;

    pool.body = body;
    pool.arg = arg;
    pool.shared.count = n_workers + 1;
    pool.shared.clock = clock;
    pool.shared.lists = pool.lists;
    for (int i = 0; i <= n_workers; i++) atomic_store_explicit(&pool.lists[i].taken, 0, memory_order_relaxed);
    atomic_store(&pool.shared.cancelled, false);
    for (int i = 0; i < n_workers; i++) atomic_fetch_add(&pool.workers[i].started, 1);
    wake_sleepers();
    slm_team team = {.index = 0, .count = n_workers + 1, .shared = &pool.shared};
    body(arg, &team);
    slm_team_barrier(&team); /* nobody reads the region's fields after this */
    end_turn(&mine);
}

int slm_threads_default(void) {
    int threads = atomic_load_explicit(&pool.default_threads, memory_order_relaxed);
    if (!threads) atomic_store(&pool.default_threads, threads = slm_thread_count());
    return threads;
}

int slm_threads_wanted(int threads) {
    if (threads <= 0) threads = slm_threads_default();
    return threads < SLM_MAX_THREADS ? threads : SLM_MAX_THREADS;
}

void slm_threads_run(int threads, slm_clock *clock, slm_region body, void *arg) {
    threads = slm_threads_wanted(threads);
    /* A process-wide library may have set flush-to-zero on the caller's thread; workers start with the default. */
    fenv_t environment;
    fegetenv(&environment);
    fesetenv(FE_DFL_ENV);
    if (region_depth++ || threads == 1) {
        run_alone(clock, body, arg);
    } else {
        run_team(threads, clock, body, arg);
    }
    region_depth--;
    fesetenv(&environment);
}
