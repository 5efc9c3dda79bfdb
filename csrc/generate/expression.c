/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/expression.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum {
    MOST_EXPRESSIONS = 1 << 20,
    MOST_NODES = 1 << 21,
    MOST_LISTS = 1 << 24,
    MOST_DEPTH = 4000, /* some 200 bytes of stack each */
};

static uint32_t fail(slm_node_pool *p, slm_status status) {
    if (!p->status && status == SLM_NO_MEMORY) slm_fail_memory(p->error);
    if (!p->status && status == SLM_TOO_LARGE)
        slm_fail(p->error, status, -1, "the constraint is too large: bound what it repeats");
    if (!p->status) p->status = status;
    return SLM_NOTHING;
}

/* Room for one more element of an array. */
static bool reserve(slm_node_pool *p, void **array, size_t count, size_t *capacity, size_t size, size_t most) {
    if (count < *capacity) return true;
    size_t larger = *capacity ? 2 * *capacity : 256;
    void *grown = count < most ? slm_realloc_array(*array, larger, size) : NULL;
    if (!grown) {
        fail(p, count < most ? SLM_NO_MEMORY : SLM_TOO_LARGE);
        return false;
    }
    *array = grown;
    *capacity = larger;
    return true;
}

static void push(slm_node_pool *p, uint32_t node) {
    if (reserve(p, (void **)&p->stack, p->n_stack, &p->stack_capacity, sizeof *p->stack, MOST_LISTS))
        p->stack[p->n_stack++] = node;
}

/* ---- nodes: each is there once -------------------------------------------------------------------------------------------- */

static uint32_t hash_of(const slm_node *n, const uint32_t *list) {
    uint64_t h = n->kind;
    const uint64_t words[] = {n->kind == SLM_EXPRESSION_ALTERNATION ? 0 : n->a, n->b, (uint32_t)n->most};
    for (size_t i = 0; i < 3; i++) h = (h ^ words[i]) * 0x9E3779B97F4A7C15u, h ^= h >> 32;
    for (size_t i = 0; n->kind == SLM_EXPRESSION_BYTES && i < 4; i++)
        h = (h ^ n->first.bits[i]) * 0x9E3779B97F4A7C15u, h ^= h >> 32;
    for (size_t i = 0; n->kind == SLM_EXPRESSION_ALTERNATION && i < n->b; i++)
        h = (h ^ list[i]) * 0x9E3779B97F4A7C15u, h ^= h >> 32;
    return (uint32_t)h;
}

static bool is_node(const slm_node_pool *p, const slm_node *a, const slm_node *b, const uint32_t *list) {
    if (a->hash != b->hash || a->kind != b->kind || a->b != b->b || a->most != b->most) return false;
    if (a->kind == SLM_EXPRESSION_ALTERNATION) return !memcmp(p->lists + a->a, list, a->b * sizeof *list);
    if (a->kind == SLM_EXPRESSION_BYTES) return !memcmp(&a->first, &b->first, sizeof a->first);
    return a->a == b->a;
}

static bool grow_slots(slm_node_pool *p) {
    size_t n = p->slots ? 2 * (p->slot_mask + 1) : 1024;
    uint32_t *slots = slm_alloc_zero(n, sizeof *slots);
    if (!slots) {
        fail(p, SLM_NO_MEMORY);
        return false;
    }
    for (uint32_t i = 1; i < p->n_nodes; i++) {
        size_t at = p->nodes[i].hash & (n - 1);
        while (slots[at]) at = (at + 1) & (n - 1);
        slots[at] = i;
    }
    slm_free(p->slots);
    p->slots = slots;
    p->slot_mask = n - 1;
    return true;
}

/* list: [node.b] of an alternation, which is copied. */
static uint32_t intern(slm_node_pool *p, slm_node node, const uint32_t *list) {
    if (p->status) return SLM_NOTHING;
    if ((!p->slots || 2 * (size_t)p->n_nodes > p->slot_mask) && !grow_slots(p)) return SLM_NOTHING;
    node.hash = hash_of(&node, list);
    size_t at = node.hash & p->slot_mask, capacity = p->capacity;
    for (; p->slots[at]; at = (at + 1) & p->slot_mask) {
        if (is_node(p, &p->nodes[p->slots[at]], &node, list)) return p->slots[at];
    }
    if (node.depth > MOST_DEPTH) return fail(p, SLM_TOO_LARGE);
    if (!reserve(p, (void **)&p->nodes, p->n_nodes, &capacity, sizeof *p->nodes, MOST_NODES)) return SLM_NOTHING;
    p->capacity = (uint32_t)capacity;
    if (node.kind == SLM_EXPRESSION_ALTERNATION) {
        node.a = (uint32_t)p->n_lists;
        for (uint32_t i = 0; i < node.b; i++) {
            if (!reserve(p, (void **)&p->lists, p->n_lists, &p->lists_capacity, sizeof *p->lists, MOST_LISTS)) return SLM_NOTHING;
            p->lists[p->n_lists++] = list[i];
        }
    }
    p->nodes[p->n_nodes] = node;
    return p->slots[at] = p->n_nodes++;
}

static void unite(slm_class_set *set, const slm_class_set *other) {
    for (int i = 0; i < 4; i++) set->bits[i] |= other->bits[i];
}

static uint16_t deeper(const slm_node *a, const slm_node *b) {
    return (uint16_t)(1 + (b && b->depth > a->depth ? b->depth : a->depth));
}

static uint32_t bytes(slm_node_pool *p, slm_class_set set) {
    bool none = !(set.bits[0] | set.bits[1] | set.bits[2] | set.bits[3]);
    return none ? SLM_NOTHING : intern(p, (slm_node){.kind = SLM_EXPRESSION_BYTES, .first = set, .depth = 1}, NULL);
}

static uint32_t concatenate(slm_node_pool *p, uint32_t a, uint32_t b) {
    if (a == SLM_NOTHING || b == SLM_NOTHING) return SLM_NOTHING;
    if (a == SLM_NOTHING_MORE) return b;
    if (b == SLM_NOTHING_MORE) return a;
    const slm_node *x = &p->nodes[a], *y = &p->nodes[b];
    slm_node node = {.kind = SLM_EXPRESSION_CONCATENATION, .a = a, .b = b, .first = x->first};
    node.nullable = x->nullable && y->nullable;
    node.depth = deeper(x, x->nullable ? y : NULL);
    if (x->nullable) unite(&node.first, &y->first);
    return intern(p, node, NULL);
}

static int by_number(const void *left, const void *right) {
    const uint32_t *a = left, *b = right;
    return (*a > *b) - (*a < *b);
}

/* Of the nodes on the stack from `from` on, which it takes off. */
static uint32_t alternate(slm_node_pool *p, size_t from) {
    slm_class_set all = {0};
    size_t end = p->n_stack, n = from;
    for (size_t i = from; i < end && !p->status; i++) { /* the nodes of alternations in their place; classes together */
        const slm_node *x = &p->nodes[p->stack[i]];
        if (x->kind == SLM_EXPRESSION_ALTERNATION) {
            for (uint32_t j = 0, count = x->b, at = x->a; j < count; j++) push(p, p->lists[at + j]);
        }
    }
    end = p->n_stack;
    for (size_t i = from; i < end && !p->status; i++) {
        const slm_node *x = &p->nodes[p->stack[i]];
        if (x->kind == SLM_EXPRESSION_BYTES) unite(&all, &x->first);
        bool alone = p->stack[i] != SLM_NOTHING && x->kind != SLM_EXPRESSION_BYTES && x->kind != SLM_EXPRESSION_ALTERNATION;
        if (alone) p->stack[n++] = p->stack[i];
    }
    p->n_stack = n;
    uint32_t one = bytes(p, all);
    if (one != SLM_NOTHING) push(p, one);
    if (p->status) {
        p->n_stack = from;
        return SLM_NOTHING;
    }
    uint32_t *list = p->stack + from;
    size_t count = p->n_stack - from, kept = 0;
    qsort(list, count, sizeof *list, by_number);
    slm_node node = {.kind = SLM_EXPRESSION_ALTERNATION};
    for (size_t i = 0; i < count; i++) {
        if (kept && list[kept - 1] == list[i]) continue;
        const slm_node *x = &p->nodes[list[i]];
        unite(&node.first, &x->first);
        node.nullable = node.nullable || x->nullable;
        if (x->depth >= node.depth) node.depth = deeper(x, NULL);
        list[kept++] = list[i];
    }
    p->n_stack = from;
    if (!kept) return SLM_NOTHING;
    if (kept == 1) return list[0];
    node.b = (uint32_t)kept;
    return intern(p, node, list);
}

static uint32_t either(slm_node_pool *p, uint32_t a, uint32_t b) {
    if (a == b || b == SLM_NOTHING) return a;
    if (a == SLM_NOTHING) return b;
    size_t from = p->n_stack;
    push(p, a);
    push(p, b);
    return alternate(p, from);
}

static uint32_t intersect(slm_node_pool *p, uint32_t a, uint32_t b) {
    if (a == SLM_NOTHING || b == SLM_NOTHING) return SLM_NOTHING;
    if (a == b) return a;
    const slm_node *x = &p->nodes[a], *y = &p->nodes[b];
    slm_node node = {.kind = SLM_EXPRESSION_INTERSECTION, .a = a < b ? a : b, .b = a < b ? b : a};
    for (int i = 0; i < 4; i++) node.first.bits[i] = x->first.bits[i] & y->first.bits[i];
    node.nullable = x->nullable && y->nullable;
    node.depth = deeper(x, y);
    return intern(p, node, NULL);
}

static uint32_t subtract(slm_node_pool *p, uint32_t a, uint32_t b) {
    if (a == SLM_NOTHING || a == b) return SLM_NOTHING;
    if (b == SLM_NOTHING) return a;
    const slm_node *x = &p->nodes[a], *y = &p->nodes[b];
    slm_node node = {.kind = SLM_EXPRESSION_DIFFERENCE, .a = a, .b = b, .first = x->first};
    node.nullable = x->nullable && !y->nullable;
    node.depth = deeper(x, y);
    return intern(p, node, NULL);
}

static uint32_t repeat(slm_node_pool *p, uint32_t a, uint32_t least, int32_t most) {
    if (most == 0 || a == SLM_NOTHING_MORE) return SLM_NOTHING_MORE;
    if (a == SLM_NOTHING) return least ? SLM_NOTHING : SLM_NOTHING_MORE;
    if (least == 1 && most == 1) return a;
    const slm_node *x = &p->nodes[a];
    if (x->nullable) least = 0; /* fewer can be made up for by empty ones */
    slm_node node = {.kind = SLM_EXPRESSION_REPETITION, .a = a, .b = least, .most = most, .first = x->first};
    node.nullable = least == 0;
    node.depth = deeper(x, NULL);
    return intern(p, node, NULL);
}

/* ---- derivatives ---------------------------------------------------------------------------------------------------------- */

uint32_t slm_node_derivative(slm_node_pool *p, uint32_t at, int class) {
    const slm_node node = p->nodes[at]; /* a copy: the nodes may move */
    if (p->status || !slm_class_set_has(&node.first, class)) return SLM_NOTHING;
    switch ((slm_expression_kind)node.kind) {
    case SLM_EXPRESSION_EMPTY: break;
    case SLM_EXPRESSION_BYTES: return SLM_NOTHING_MORE;
    case SLM_EXPRESSION_CONCATENATION: {
        uint32_t left = concatenate(p, slm_node_derivative(p, node.a, class), node.b);
        return p->nodes[node.a].nullable ? either(p, left, slm_node_derivative(p, node.b, class)) : left;
    }
    case SLM_EXPRESSION_ALTERNATION: {
        size_t from = p->n_stack;
        for (uint32_t i = 0; i < node.b; i++) {
            uint32_t one = p->lists[node.a + i];
            if (!slm_class_set_has(&p->nodes[one].first, class)) continue;
            uint32_t rest = slm_node_derivative(p, one, class);
            if (rest != SLM_NOTHING) push(p, rest);
        }
        return alternate(p, from);
    }
    case SLM_EXPRESSION_INTERSECTION:
        return intersect(p, slm_node_derivative(p, node.a, class), slm_node_derivative(p, node.b, class));
    case SLM_EXPRESSION_DIFFERENCE:
        return subtract(p, slm_node_derivative(p, node.a, class), slm_node_derivative(p, node.b, class));
    case SLM_EXPRESSION_REPETITION: {
        uint32_t rest = repeat(p, node.a, node.b ? node.b - 1 : 0, node.most < 0 ? node.most : node.most - 1);
        return concatenate(p, slm_node_derivative(p, node.a, class), rest);
    }
    }
    return SLM_NOTHING;
}

/* ---- the expressions of a constraint -------------------------------------------------------------------------------------- */

static slm_status check(const slm_expression *e, size_t n, slm_error *error) {
    if (!n || n > MOST_EXPRESSIONS) {
        return slm_fail(error, n ? SLM_TOO_LARGE : SLM_BAD_ARGUMENT, -1, "expressions: expected 1 to %d of them, found %zu",
                        MOST_EXPRESSIONS, n);
    }
    for (size_t i = 0; i < n; i++) {
        int32_t a = e[i].a, b = e[i].b, last = (int32_t)i - 1;
        bool ok = false;
        switch ((slm_expression_kind)e[i].kind) {
        case SLM_EXPRESSION_EMPTY: ok = true; break;
        case SLM_EXPRESSION_BYTES: ok = 0 <= a && a <= b && b < 256; break;
        case SLM_EXPRESSION_CONCATENATION:
        case SLM_EXPRESSION_ALTERNATION:
        case SLM_EXPRESSION_INTERSECTION:
        case SLM_EXPRESSION_DIFFERENCE: ok = 0 <= a && a <= last && 0 <= b && b <= last; break;
        case SLM_EXPRESSION_REPETITION: ok = 0 <= a && a <= last && b >= 0 && (e[i].most == -1 || e[i].most >= b); break;
        }
        if (!ok) {
            return slm_fail(error, SLM_BAD_ARGUMENT, (int64_t)i, "expressions[%zu]: no such kind or operands: %d of %d, %d", i,
                            (int)e[i].kind, (int)a, (int)b);
        }
    }
    return SLM_OK;
}

static void find_classes(slm_node_pool *p, const slm_expression *e, size_t n) {
    bool begins[257] = {false};
    for (size_t i = 0; i < n; i++) {
        if (e[i].kind == SLM_EXPRESSION_BYTES) begins[e[i].a] = begins[e[i].b + 1] = true;
    }
    for (int byte = 0, class = 0; byte < 256; byte++) {
        class += byte && begins[byte];
        p->class_of[byte] = (uint8_t) class;
        p->n_classes = class + 1;
    }
}

static slm_class_set classes_of(const slm_node_pool *p, int32_t low, int32_t high) {
    slm_class_set set = {0};
    for (int class = p->class_of[low]; class <= p->class_of[high]; class ++) set.bits[class / 64] |= (uint64_t)1 << class % 64;
    return set;
}

static uint32_t node_of(slm_node_pool *p, const slm_expression *e, const uint32_t *nodes) {
    switch ((slm_expression_kind)e->kind) {
    case SLM_EXPRESSION_EMPTY: return SLM_NOTHING_MORE;
    case SLM_EXPRESSION_BYTES: return bytes(p, classes_of(p, e->a, e->b));
    case SLM_EXPRESSION_CONCATENATION: return concatenate(p, nodes[e->a], nodes[e->b]);
    case SLM_EXPRESSION_ALTERNATION: return either(p, nodes[e->a], nodes[e->b]);
    case SLM_EXPRESSION_INTERSECTION: return intersect(p, nodes[e->a], nodes[e->b]);
    case SLM_EXPRESSION_DIFFERENCE: return subtract(p, nodes[e->a], nodes[e->b]);
    case SLM_EXPRESSION_REPETITION: return repeat(p, nodes[e->a], (uint32_t)e->b, e->most);
    }
    return SLM_NOTHING;
}

uint32_t slm_node_pool_create(slm_node_pool *p, const slm_expression *expressions, size_t n, slm_error *error) {
    p->error = error;
    p->status = check(expressions, n, error);
    if (p->status) return SLM_NOTHING;
    find_classes(p, expressions, n);
    uint32_t *nodes = slm_alloc_array(n, sizeof *nodes), last = SLM_NOTHING;
    size_t capacity = 0;
    if (!nodes) fail(p, SLM_NO_MEMORY);
    if (!p->status && reserve(p, (void **)&p->nodes, 0, &capacity, sizeof *p->nodes, MOST_NODES)) {
        p->capacity = (uint32_t)capacity;
        p->nodes[p->n_nodes++] = (slm_node){.kind = SLM_EXPRESSION_BYTES};
        intern(p, (slm_node){.kind = SLM_EXPRESSION_EMPTY, .nullable = true}, NULL);
    }
    for (size_t i = 0; i < n && !p->status; i++) last = nodes[i] = node_of(p, &expressions[i], nodes);
    slm_free(nodes);
    return p->status ? SLM_NOTHING : last;
}

void slm_node_pool_release(slm_node_pool *p) {
    slm_free(p->nodes);
    slm_free(p->lists);
    slm_free(p->slots);
    slm_free(p->stack);
    *p = (slm_node_pool){0};
}
