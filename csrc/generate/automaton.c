/* SPDX-License-Identifier: Apache-2.0
 * automaton.c: the states are the derivatives of the expression, found breadth first. Then those from which no accepting state
 * can be reached are cut off: intersections and differences make such. */
#include "generate/automaton.h"

#include <string.h>

#include "base/alloc.h"
#include "base/call.h"
#include "generate/expression.h"

enum { MOST_STATES = 1 << 17, MOST_CELLS = 1 << 24, STATES_PER_TICK = 256 };

static slm_status fail_too_large(slm_error *error) {
    return slm_fail(error, SLM_TOO_LARGE, -1, "the constraint is too large: expected at most %d states; bound what it repeats",
                    MOST_STATES);
}

/* ---- states --------------------------------------------------------------------------------------------------------------- */

typedef struct builder {
    slm_automaton *automaton;
    slm_node_pool pool;
    uint32_t *nodes; /* [n_states] whose derivative each state is */
    size_t capacity;
} builder;

/* The state of a node, which joins the others if it is new. */
static uint32_t state_of(builder *b, uint32_t node, slm_error *error) {
    slm_automaton *a = b->automaton;
    if (node == SLM_NOTHING || b->pool.nodes[node].state) return b->pool.nodes[node].state;
    if (a->n_states == b->capacity) {
        size_t capacity = 2 * b->capacity;
        if (capacity > MOST_STATES || capacity * a->n_classes > MOST_CELLS) {
            b->pool.status = fail_too_large(error);
            return SLM_DEAD;
        }
        uint32_t *nodes = slm_realloc_array(b->nodes, capacity, sizeof *nodes);
        if (nodes) b->nodes = nodes;
        uint32_t *next = slm_realloc_array(a->next, capacity * a->n_classes, sizeof *next);
        if (next) a->next = next;
        if (!nodes || !next) {
            b->pool.status = slm_fail_memory(error);
            return SLM_DEAD;
        }
        b->capacity = capacity;
    }
    b->nodes[a->n_states] = node;
    return b->pool.nodes[node].state = a->n_states++;
}

static slm_status find_states(builder *b, uint32_t start, slm_clock *clock, slm_error *error) {
    slm_automaton *a = b->automaton;
    a->n_classes = (uint32_t)b->pool.n_classes;
    memcpy(a->class_of, b->pool.class_of, sizeof a->class_of);
    b->capacity = 64;
    b->nodes = slm_alloc_array(b->capacity, sizeof *b->nodes);
    a->next = slm_alloc_zero(b->capacity * a->n_classes, sizeof *a->next);
    if (!b->nodes || !a->next) return slm_fail_memory(error);
    a->n_states = SLM_START; /* the dead one is there */
    state_of(b, start, error);
    for (uint32_t s = SLM_START; s < a->n_states; s++) {
        if (s % STATES_PER_TICK == 0 && slm_clock_tick(clock)) return slm_fail_cancelled(error);
        for (uint32_t class = 0; class < a->n_classes; class ++) {
            uint32_t to = state_of(b, slm_node_derivative(&b->pool, b->nodes[s], (int)class), error);
            if (b->pool.status) return b->pool.status;
            a->next[(size_t)s * a->n_classes + class] = to;
        }
    }
    return SLM_OK;
}

/* ---- what leads nowhere --------------------------------------------------------------------------------------------------- */

/* Marks the states from which an accepting one is reached: backwards, along the edges by where they lead. */
static slm_status mark_live(const slm_automaton *a, bool *live, slm_error *error) {
    size_t n = a->n_states, n_cells = n * a->n_classes;
    uint32_t *starts = slm_alloc_zero(n + 1, sizeof *starts), *from = slm_alloc_array(n_cells, sizeof *from);
    uint32_t *queue = slm_alloc_array(n, sizeof *queue);
    slm_status status = starts && from && queue ? SLM_OK : slm_fail_memory(error);
    size_t end = 0;
    for (size_t i = 0; i < n_cells && !status; i++) starts[a->next[i] + 1]++;
    for (size_t s = 0; s < n && !status; s++) starts[s + 1] += starts[s];
    for (size_t i = n_cells; i-- > 0 && !status;) from[--starts[a->next[i] + 1]] = (uint32_t)(i / a->n_classes);
    /* now edges to s are from[starts[s + 1]] up to where those to s + 1 begin */
    for (uint32_t s = SLM_START; s < n && !status; s++) {
        live[s] = a->accepts[s];
        if (live[s]) queue[end++] = s;
    }
    for (size_t i = 0; i < end && !status; i++) {
        uint32_t s = queue[i];
        size_t last = s + 1 < n ? starts[s + 2] : n_cells;
        for (size_t e = starts[s + 1]; e < last; e++) {
            if (live[from[e]]) continue;
            live[from[e]] = true;
            queue[end++] = from[e];
        }
    }
    slm_free(starts);
    slm_free(from);
    slm_free(queue);
    return status;
}

/* The one byte of a class; SLM_BRANCHES: it has several. */
static int only_byte(const slm_automaton *a, uint32_t class) {
    int found = SLM_BRANCHES;
    for (int byte = 0; byte < 256; byte++) {
        if (a->class_of[byte] != class) continue;
        if (found >= 0) return SLM_BRANCHES;
        found = byte;
    }
    return found;
}

static int forced_byte(const slm_automaton *a, uint32_t state) {
    int found = SLM_ENDS;
    const uint32_t *next = a->next + (size_t)state * a->n_classes;
    for (uint32_t class = 0; class < a->n_classes; class ++) {
        if (next[class] == SLM_DEAD) continue;
        if (found != SLM_ENDS || a->accepts[state]) return SLM_BRANCHES;
        found = only_byte(a, class);
        if (found == SLM_BRANCHES) return SLM_BRANCHES;
    }
    return found;
}

static slm_status finish(builder *b, slm_error *error) {
    slm_automaton *a = b->automaton;
    size_t n = a->n_states;
    a->accepts = slm_alloc_zero(n, sizeof *a->accepts);
    a->forced = slm_alloc_array(n, sizeof *a->forced);
    bool *live = slm_alloc_zero(n, sizeof *live);
    slm_status status = a->accepts && a->forced && live ? SLM_OK : slm_fail_memory(error);
    for (size_t s = SLM_START; s < n && !status; s++) a->accepts[s] = b->pool.nodes[b->nodes[s]].nullable;
    if (!status) status = mark_live(a, live, error);
    for (size_t i = 0; i < n * a->n_classes && !status; i++) {
        if (!live[a->next[i]]) a->next[i] = SLM_DEAD;
    }
    if (!status && (n <= SLM_START || !live[SLM_START]))
        status = slm_fail(error, SLM_BAD_ARGUMENT, -1, "no text matches the constraint");
    for (uint32_t s = 0; s < n && !status; s++) a->forced[s] = (int16_t)forced_byte(a, s);
    slm_free(live);
    return status;
}

/* ---- the public object ---------------------------------------------------------------------------------------------------- */

slm_status slm_automaton_create(const slm_expression *expressions, size_t n, const slm_call *call, slm_automaton **out,
                                slm_error *error) {
    builder b = {.automaton = slm_alloc_zero(1, sizeof *b.automaton)};
    if (!b.automaton) return slm_fail_memory(error);
    atomic_init(&b.automaton->references, 1);
    slm_clock clock;
    slm_clock_start(&clock, call);
    uint32_t start = slm_node_pool_create(&b.pool, expressions, n, error);
    slm_status status = b.pool.status;
    if (!status) status = find_states(&b, start, &clock, error);
    if (!status) status = finish(&b, error);
    slm_node_pool_release(&b.pool);
    slm_free(b.nodes);
    if (status) {
        slm_automaton_release(b.automaton);
        return status;
    }
    *out = b.automaton;
    return SLM_OK;
}

slm_automaton *slm_automaton_retain(slm_automaton *a) {
    atomic_fetch_add_explicit(&a->references, 1, memory_order_relaxed);
    return a;
}

void slm_automaton_release(slm_automaton *a) {
    if (!a || atomic_fetch_sub_explicit(&a->references, 1, memory_order_acq_rel) > 1) return;
    slm_free(a->next);
    slm_free(a->accepts);
    slm_free(a->forced);
    slm_free(a);
}

int64_t slm_automaton_size(const slm_automaton *a) {
    return (int64_t)a->n_states - 1;
}

bool slm_automaton_matches(const slm_automaton *a, const char *text, size_t size) {
    uint32_t state = SLM_START;
    for (size_t i = 0; i < size && state; i++) state = slm_automaton_next(a, state, (uint8_t)text[i]);
    return a->accepts[state];
}
