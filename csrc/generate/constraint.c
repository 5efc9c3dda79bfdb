/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/constraint.h"

#include <string.h>

#include "base/alloc.h"
#include "text/tokenizer.h"

/* Bytes of sets that are kept: thousands of states that allow nearly all of a vocabulary of 262,144. */
enum { MOST_SET_BYTES = 128 << 20 };

struct slm_token_set {
    int64_t count;
    bool listed;     /* ids, ascending; else a bit for each token, of which more than one in 32 is set */
    uint64_t data[]; /* as int32_t or as bits */
};

slm_status slm_constraint_check(const slm_tokenizer *tokenizer, slm_error *error) {
    if (tokenizer->vocabulary.alphabet != SLM_ALPHABET_WORDPIECE) return SLM_OK;
    return slm_fail(error, SLM_UNSUPPORTED, -1, "constraints: the spaces of a WordPiece vocabulary are not in its tokens");
}

slm_status slm_constraint_create(slm_automaton *automaton, slm_tokenizer *tokenizer, slm_constraint **out, slm_error *error) {
    if (slm_constraint_check(tokenizer, error)) return error->status;
    slm_constraint *c = slm_alloc_zero(1, sizeof *c);
    if (!c) return slm_fail_memory(error);
    atomic_init(&c->references, 1);
    atomic_init(&c->set_bytes, 0);
    c->automaton = slm_automaton_retain(automaton);
    c->tokenizer = slm_tokenizer_retain(tokenizer);
    c->sets = slm_alloc_array(automaton->n_states, sizeof *c->sets);
    for (uint32_t i = 0; c->sets && i < automaton->n_states; i++) atomic_init(&c->sets[i], NULL);
    slm_status status = c->sets ? slm_tokenizer_trie(tokenizer, &c->trie, error) : slm_fail_memory(error);
    if (status) {
        slm_constraint_release(c);
        return status;
    }
    *out = c;
    return SLM_OK;
}

slm_constraint *slm_constraint_retain(slm_constraint *c) {
    atomic_fetch_add_explicit(&c->references, 1, memory_order_relaxed);
    return c;
}

void slm_constraint_release(slm_constraint *c) {
    if (!c || atomic_fetch_sub_explicit(&c->references, 1, memory_order_acq_rel) > 1) return;
    for (uint32_t i = 0; c->sets && i < c->automaton->n_states; i++) slm_free(atomic_load(&c->sets[i]));
    slm_free(c->sets);
    slm_automaton_release(c->automaton);
    slm_tokenizer_release(c->tokenizer);
    slm_free(c);
}

/* ---- which tokens --------------------------------------------------------------------------------------------------------- */

/* Sets the bits of the tokens whose bytes the automaton takes from `state` on; how many. */
static int64_t walk(const slm_constraint *c, uint32_t state, uint64_t *bits) {
    const slm_automaton *a = c->automaton;
    const slm_token_node *nodes = c->trie->nodes;
    uint32_t states[SLM_PIECE_MAX + 1] = {state}; /* [depth] */
    int64_t count = 0;
    for (uint32_t i = 0; i < c->trie->count;) {
        uint32_t next = slm_automaton_next(a, states[nodes[i].depth - 1], nodes[i].byte);
        if (next == SLM_DEAD) {
            i = nodes[i].skip;
            continue;
        }
        states[nodes[i].depth] = next;
        uint32_t t = nodes[i].first, end = nodes[++i].first;
        count += end - t;
        for (; t < end; t++) bits[c->trie->ids[t] / 64] |= (uint64_t)1 << c->trie->ids[t] % 64;
    }
    return count;
}

int64_t slm_list_bits(const uint64_t *bits, int64_t n_words, int64_t most, int32_t *ids) {
    int64_t n = 0;
    for (int64_t i = 0; i < n_words && n <= most; i++) {
        for (uint64_t word = bits[i]; word; word &= word - 1) {
            if (n++ == most) break;
            ids[n - 1] = (int32_t)(64 * i + __builtin_ctzll(word));
        }
    }
    return n;
}

/* Keeps the set for the next time. */
static slm_status keep(slm_constraint *c, uint32_t state, const uint64_t *bits, int64_t n_words, int64_t count,
                       slm_error *error) {
    bool listed = count < n_words * 2;
    size_t n = listed ? (size_t)(count + 1) / 2 : (size_t)n_words, size = sizeof(slm_token_set) + n * sizeof(uint64_t);
    if (atomic_load(&c->set_bytes) + size > MOST_SET_BYTES) return SLM_OK;
    slm_token_set *set = slm_alloc(size), *none = NULL;
    if (!set) return slm_fail_memory(error);
    set->count = count;
    set->listed = listed;
    if (listed) {
        slm_list_bits(bits, n_words, count, (int32_t *)(void *)set->data);
    } else {
        memcpy(set->data, bits, (size_t)n_words * sizeof *bits);
    }
    if (atomic_compare_exchange_strong(&c->sets[state], &none, set)) {
        atomic_fetch_add(&c->set_bytes, size);
    } else {
        slm_free(set);
    }
    return SLM_OK;
}

slm_status slm_constraint_allowed(slm_constraint *c, uint32_t state, uint64_t *bits, slm_error *error) {
    int64_t n_words = slm_tokenizer_size(c->tokenizer) / 64 + 1;
    const slm_token_set *set = atomic_load_explicit(&c->sets[state], memory_order_acquire);
    if (!set) return keep(c, state, bits, n_words, walk(c, state, bits), error);
    if (!set->listed) memcpy(bits, set->data, (size_t)n_words * sizeof *bits);
    const int32_t *ids = (const int32_t *)(const void *)set->data;
    for (int64_t i = 0; set->listed && i < set->count; i++) bits[ids[i] / 64] |= (uint64_t)1 << ids[i] % 64;
    return SLM_OK;
}

slm_status slm_constraint_follow(slm_constraint *c, const char *text, size_t size, slm_tokens *tokens, slm_error *error) {
    uint32_t state = SLM_START;
    int64_t n_vocabulary = slm_tokenizer_size(c->tokenizer), n_words = n_vocabulary / 64 + 1;
    for (size_t i = 0; i < size && state; i++) state = slm_automaton_next(c->automaton, state, (uint8_t)text[i]);
    uint64_t *bits = slm_alloc_zero((size_t)n_words, sizeof *bits);
    int32_t *ids = slm_alloc_array((size_t)n_vocabulary, sizeof *ids);
    slm_status status = bits && ids ? slm_constraint_allowed(c, state, bits, error) : slm_fail_memory(error);
    size_t n = status ? 0 : (size_t)slm_list_bits(bits, n_words, n_vocabulary, ids);
    slm_free(bits);
    if (status) {
        slm_free(ids);
        return status;
    }
    *tokens = (slm_tokens){.ids = ids, .count = n, .capacity = n};
    return SLM_OK;
}

/* ---- one way to go on ----------------------------------------------------------------------------------------------------- */

/* The child of a node for this byte, among those from `i` on below `end`; `end`: there is none. */
static uint32_t find_child(const slm_token_trie *trie, uint32_t i, uint32_t end, uint8_t byte) {
    while (i < end && trie->nodes[i].byte != byte) i = trie->nodes[i].skip;
    return i;
}

int32_t slm_constraint_forced(const slm_constraint *c, uint32_t state) {
    const slm_token_trie *trie = c->trie;
    uint32_t first = 0, end = trie->count;
    int32_t longest = -1;
    int byte;
    while ((byte = c->automaton->forced[state]) >= 0) {
        uint32_t node = find_child(trie, first, end, (uint8_t)byte);
        if (node == end) return longest;
        if (trie->nodes[node].first < trie->nodes[node + 1].first) longest = trie->ids[trie->nodes[node].first];
        first = node + 1;
        end = trie->nodes[node].skip;
        state = slm_automaton_next(c->automaton, state, (uint8_t)byte);
    }
    /* A longer token may be what the model would write from here on, unless the text ends. */
    return byte == SLM_ENDS || first == end ? longest : -1;
}

uint32_t slm_constraint_advance(const slm_constraint *c, uint32_t state, int32_t token) {
    size_t size;
    const uint8_t *bytes = slm_vocabulary_bytes(&c->tokenizer->vocabulary, token, &size);
    for (size_t i = 0; i < size; i++) state = slm_automaton_next(c->automaton, state, bytes[i]);
    return state;
}
