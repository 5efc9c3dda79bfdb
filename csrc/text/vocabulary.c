/* SPDX-License-Identifier: Apache-2.0 */
#include "text/vocabulary.h"

#include <string.h>

#include "base/alloc.h"
#include "base/status.h"
#include "text/byte_alphabet.h"
#include "text/space_marker.h"

/* Longer runs of occupied slots do not occur by chance in a table at most half full: a file that makes one was made for it, and
 * would cost quadratic time. */
enum { LONGEST_PROBE = 1024 };

/* Bits of the filter for each token, and powers of two. */
enum { FILTER_BITS = 12, SMALLEST_FILTER = 6, LARGEST_FILTER = 24 };

static uint64_t mix(uint64_t a, uint64_t b) {
    a = (a ^ b) * 0x9E3779B97F4A7C15u;
    return a ^ a >> 32;
}

static uint64_t load(const uint8_t *bytes, size_t size) {
    uint64_t word = 0;
    memcpy(&word, bytes, size);
    return word;
}

/* Words are mostly shorter than 8 bytes: those are read with two overlapping loads of a fixed size. */
static uint32_t hash_bytes(slm_spelling spelling, const uint8_t *bytes, size_t size) {
    uint64_t hash = mix((uint64_t)spelling + 1, size);
    for (; size > 8; bytes += 8, size -= 8) hash = mix(hash, load(bytes, 8));
    if (size == 8)
        hash = mix(hash, load(bytes, 8));
    else if (size >= 4)
        hash = mix(hash, load(bytes, 4) << 32 | load(bytes + size - 4, 4));
    else if (size)
        hash = mix(hash, (uint64_t)bytes[0] << 16 | (uint64_t)bytes[size / 2] << 8 | bytes[size - 1]);
    return (uint32_t)mix(hash, 0);
}

static bool is_token(const slm_vocabulary *v, int32_t id, slm_spelling spelling, const uint8_t *bytes, size_t size) {
    const slm_vocabulary_token *token = &v->tokens[id];
    return token->size == size && token->spelling == spelling && memcmp(v->bytes + token->offset, bytes, size) == 0;
}

/* The slot that holds the token, or the empty one where it belongs; NULL: neither within LONGEST_PROBE. */
static slm_vocabulary_slot *probe(const slm_vocabulary *v, uint32_t hash, slm_spelling spelling, const uint8_t *bytes,
                                  size_t size) {
    for (size_t i = 0; i < LONGEST_PROBE; i++) {
        slm_vocabulary_slot *slot = &v->slots[(hash + i) & v->slot_mask];
        if (slot->id < 0 || (slot->hash == hash && is_token(v, slot->id, spelling, bytes, size))) return slot;
    }
    return NULL;
}

static uint32_t filter_bit(const slm_vocabulary *v, uint32_t hash) {
    return (hash * 0x9E3779B1u) >> (32 - v->filter_bits);
}

int32_t slm_vocabulary_find(const slm_vocabulary *v, slm_spelling spelling, const uint8_t *bytes, size_t size) {
    if (size > v->longest) return -1;
    uint32_t hash = hash_bytes(spelling, bytes, size), bit = filter_bit(v, hash);
    if (!(v->filter[bit / 64] >> bit % 64 & 1)) return -1;
    const slm_vocabulary_slot *slot = probe(v, hash, spelling, bytes, size);
    return slot ? slot->id : -1;
}

static int hex_digit(uint8_t c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "<0x0A>" names; -1: the piece is not written so. */
static int byte_named(const uint8_t *piece, size_t size) {
    if (size != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>') return -1;
    int high = hex_digit(piece[3]), low = hex_digit(piece[4]);
    return high < 0 || low < 0 ? -1 : 16 * high + low;
}

bool slm_vocabulary_decode_piece(const slm_vocabulary *v, const uint8_t *piece, size_t size, uint8_t *bytes, size_t *n_bytes) {
    if (v->alphabet == SLM_ALPHABET_BYTES) return slm_byte_alphabet_decode(piece, size, bytes, n_bytes);
    if (v->alphabet == SLM_ALPHABET_CHARACTERS) {
        *n_bytes = slm_space_marker_decode(piece, size, bytes);
        return true;
    }
    memcpy(bytes, piece, size);
    *n_bytes = size;
    return true;
}

static bool is_continuing(const slm_vocabulary *v, const uint8_t *piece, size_t size) {
    return v->alphabet == SLM_ALPHABET_WORDPIECE && v->n_continuing && size > v->n_continuing &&
           memcmp(piece, v->continuing, v->n_continuing) == 0;
}

int32_t slm_vocabulary_find_piece(const slm_vocabulary *v, const uint8_t *piece, size_t size) {
    uint8_t bytes[SLM_PIECE_MAX];
    if (size > SLM_PIECE_MAX) return -1;
    int32_t id = slm_vocabulary_find(v, SLM_SPELLING_PLAIN, piece, size);
    int named = v->alphabet == SLM_ALPHABET_CHARACTERS ? byte_named(piece, size) : -1;
    if (id < 0 && named >= 0) {
        bytes[0] = (uint8_t)named;
        return slm_vocabulary_find(v, SLM_SPELLING_BYTE, bytes, 1);
    }
    if (id < 0 && is_continuing(v, piece, size))
        return slm_vocabulary_find(v, SLM_SPELLING_CONTINUING, piece + v->n_continuing, size - v->n_continuing);
    if (id < 0 && slm_vocabulary_decode_piece(v, piece, size, bytes, &size))
        id = slm_vocabulary_find(v, SLM_SPELLING_BYTES, bytes, size);
    return id;
}

static slm_status allocate(const slm_strings *pieces, slm_vocabulary *v, slm_error *error) {
    if (pieces->count == 0 || pieces->count > INT32_MAX)
        return slm_fail(error, SLM_BAD_DATA, -1, "pieces: expected 1 to 2^31 - 1 of them, found %zu", pieces->count);
    uint64_t total = 0;
    for (size_t i = 0; i < pieces->count; i++) {
        uint64_t length = pieces->offsets[i + 1] - pieces->offsets[i];
        if (length > SLM_PIECE_MAX)
            return slm_fail(error, SLM_BAD_DATA, (int64_t)i, "pieces[%zu]: expected at most %d bytes, found %llu", i,
                            SLM_PIECE_MAX, (unsigned long long)length);
        total += length;
    }
    if (total > UINT32_MAX)
        return slm_fail(error, SLM_BAD_DATA, -1, "pieces: expected fewer than 2^32 bytes in all, found %llu",
                        (unsigned long long)total);
    size_t n_slots = 16;
    while (n_slots < 2 * pieces->count) n_slots *= 2;
    v->size = (int32_t)pieces->count;
    v->slot_mask = n_slots - 1;
    v->tokens = slm_alloc_array(pieces->count, sizeof *v->tokens);
    v->bytes = slm_alloc((size_t)total);
    v->slots = slm_alloc_array(n_slots, sizeof *v->slots);
    v->filter_bits = SMALLEST_FILTER;
    while (v->filter_bits < LARGEST_FILTER && (size_t)1 << v->filter_bits < FILTER_BITS * pieces->count) v->filter_bits++;
    v->filter = slm_alloc_zero(((size_t)1 << v->filter_bits) / 64, sizeof *v->filter);
    if (!v->tokens || !v->bytes || !v->slots || !v->filter) return slm_fail_memory(error);
    for (size_t i = 0; i < n_slots; i++) v->slots[i].id = -1;
    return SLM_OK;
}

static slm_status duplicate(int32_t id, int32_t other, slm_error *error) {
    return slm_fail(error, SLM_BAD_DATA, id, "pieces[%d]: is the same as pieces[%d]", (int)id, (int)other);
}

static slm_status insert(slm_vocabulary *v, int32_t id, slm_error *error) {
    size_t size;
    const uint8_t *bytes = slm_vocabulary_bytes(v, id, &size);
    slm_spelling spelling = (slm_spelling)v->tokens[id].spelling;
    uint32_t hash = hash_bytes(spelling, bytes, size);
    slm_vocabulary_slot *slot = probe(v, hash, spelling, bytes, size);
    if (!slot)
        return slm_fail(error, SLM_BAD_DATA, id, "pieces[%d]: is one of %d or more with colliding hashes", (int)id,
                        LONGEST_PROBE);
    if (slot->id >= 0) return duplicate(id, slot->id, error);
    *slot = (slm_vocabulary_slot){.hash = hash, .id = id};
    uint32_t bit = filter_bit(v, hash);
    v->filter[bit / 64] |= (uint64_t)1 << bit % 64;
    return SLM_OK;
}

/* The same published text in both spellings is a duplicate, though the two stand for different bytes. */
static slm_status check_spellings(const slm_vocabulary *v, slm_error *error) {
    for (int32_t id = 0; id < v->size; id++) {
        size_t size;
        const uint8_t *piece = slm_vocabulary_bytes(v, id, &size);
        uint8_t bytes[SLM_PIECE_MAX];
        if (v->tokens[id].spelling != SLM_SPELLING_PLAIN || !slm_byte_alphabet_decode(piece, size, bytes, &size)) continue;
        int32_t other = slm_vocabulary_find(v, SLM_SPELLING_BYTES, bytes, size);
        if (other >= 0) return duplicate(id > other ? id : other, id > other ? other : id, error);
    }
    return SLM_OK;
}

/* Writes the bytes of a token to `bytes`, [size], and says how it is spelled. */
static slm_status read_piece(const slm_vocabulary *v, int32_t id, slm_token_kind kind, const uint8_t *piece, size_t size,
                             uint8_t *bytes, slm_vocabulary_token *token, slm_error *error) {
    size_t n_bytes = size;
    if (v->alphabet == SLM_ALPHABET_CHARACTERS && kind == SLM_TOKEN_BYTE) {
        int named = byte_named(piece, size);
        if (named < 0)
            return slm_fail(error, SLM_BAD_DATA, id, "pieces[%d]: expected <0x00> to <0xFF>, as its kind says that it is a byte",
                            (int)id);
        bytes[0] = (uint8_t)named;
        n_bytes = 1;
        token->spelling = SLM_SPELLING_BYTE;
    } else if (is_continuing(v, piece, size) && !slm_token_is_added(kind)) {
        n_bytes = size - v->n_continuing;
        memcpy(bytes, piece + v->n_continuing, n_bytes);
        token->spelling = SLM_SPELLING_CONTINUING;
    } else if (slm_token_is_added(kind) || !slm_vocabulary_decode_piece(v, piece, size, bytes, &n_bytes)) {
        if (size) memcpy(bytes, piece, size);
        token->spelling = SLM_SPELLING_PLAIN;
    } else {
        token->spelling = SLM_SPELLING_BYTES;
    }
    token->size = (uint16_t)n_bytes;
    return SLM_OK;
}

static slm_alphabet alphabet_of(slm_tokenizer_model model) {
    if (model == SLM_TOKENIZER_BYTE_BPE) return SLM_ALPHABET_BYTES;
    return model == SLM_TOKENIZER_WORDPIECE ? SLM_ALPHABET_WORDPIECE : SLM_ALPHABET_CHARACTERS;
}

slm_status slm_vocabulary_create(const slm_tokenizer_spec *spec, slm_vocabulary *v, slm_error *error) {
    const slm_strings *pieces = &spec->pieces;
    const uint8_t *kinds = spec->kinds;
    v->alphabet = alphabet_of(spec->model);
    slm_status status = allocate(pieces, v, error);
    if (status) return status;
    v->continuing = slm_alloc(spec->continuing_size);
    if (!v->continuing) return slm_fail_memory(error);
    if (spec->continuing_size) memcpy(v->continuing, spec->continuing_prefix, spec->continuing_size);
    v->n_continuing = spec->continuing_size;
    uint32_t end = 0;
    for (int32_t id = 0; id < v->size; id++) {
        if (kinds[id] < SLM_TOKEN_NORMAL || kinds[id] > SLM_TOKEN_BYTE)
            return slm_fail(error, SLM_BAD_DATA, id, "kinds[%d]: expected %d to %d, found %d", (int)id, SLM_TOKEN_NORMAL,
                            SLM_TOKEN_BYTE, (int)kinds[id]);
        const uint8_t *piece = (const uint8_t *)pieces->bytes + pieces->offsets[id];
        size_t size = (size_t)(pieces->offsets[id + 1] - pieces->offsets[id]);
        slm_vocabulary_token *token = &v->tokens[id];
        *token = (slm_vocabulary_token){.offset = end, .kind = kinds[id]};
        status = read_piece(v, id, (slm_token_kind)kinds[id], piece, size, v->bytes + end, token, error);
        if (status) return status;
        end += token->size;
        if (token->size > v->longest) v->longest = token->size;
        status = insert(v, id, error);
        if (status) return status;
    }
    return v->alphabet == SLM_ALPHABET_BYTES ? check_spellings(v, error) : SLM_OK;
}

void slm_vocabulary_destroy(slm_vocabulary *v) {
    slm_free(v->continuing);
    slm_free(v->filter);
    slm_free(v->slots);
    slm_free(v->bytes);
    slm_free(v->tokens);
    *v = (slm_vocabulary){0};
}
