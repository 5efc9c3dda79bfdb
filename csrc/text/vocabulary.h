/* SPDX-License-Identifier: Apache-2.0
 * vocabulary.h: the tokens of any kind of tokenizer: the bytes each stands for, what it is, and the way back from bytes to id.
 *
 * Published pieces come in three spellings. Added tokens, and pieces that are not of the vocabulary's alphabet, are PLAIN text;
 * all others are spelled in the alphabet: that of GPT-2's bytes, or characters with a marker for the space, or WordPiece's. There
 * byte tokens ("<0x0A>") and what is inside a word ("##ing") are others. Two can stand for the same bytes ("Ġx" and an added "
 * x"), so a look-up names the spelling.
 */
#ifndef SLM_TEXT_VOCABULARY_H
#define SLM_TEXT_VOCABULARY_H

#include "slm.h"

enum { SLM_PIECE_MAX = 4096 }; /* bytes of a published piece */

typedef enum slm_spelling {
    SLM_SPELLING_BYTES,
    SLM_SPELLING_PLAIN,
    SLM_SPELLING_BYTE,
    SLM_SPELLING_CONTINUING,
} slm_spelling;

typedef enum slm_alphabet { SLM_ALPHABET_BYTES, SLM_ALPHABET_CHARACTERS, SLM_ALPHABET_WORDPIECE } slm_alphabet;

typedef struct slm_vocabulary_slot {
    uint32_t hash;
    int32_t id; /* -1: empty */
} slm_vocabulary_slot;

/* All that is known of a token, side by side: a look-up reads one cache line of it. */
typedef struct slm_vocabulary_token {
    uint32_t offset; /* of its first byte */
    uint16_t size;   /* bytes */
    uint8_t kind;    /* slm_token_kind */
    uint8_t spelling;
} slm_vocabulary_token;

typedef struct slm_vocabulary {
    slm_alphabet alphabet;
    uint8_t *continuing; /* [n_continuing] WordPiece's prefix */
    size_t n_continuing;
    int32_t size;
    slm_vocabulary_token *tokens; /* [size] */
    uint8_t *bytes;               /* what the tokens decode to, one behind the other */
    size_t longest;               /* bytes of the longest token */
    slm_vocabulary_slot *slots;   /* [slot_mask + 1], at most half full, open addressing */
    size_t slot_mask;
    uint64_t *filter; /* [2^filter_bits bits] set for the hash of every token: what is none is mostly found out here, in cache */
    unsigned filter_bits;
} slm_vocabulary;

/* vocabulary: zeroed. Fails with SLM_BAD_DATA and the index of the piece that is too long, a duplicate or of no known kind. */
slm_status slm_vocabulary_create(const slm_tokenizer_spec *spec, slm_vocabulary *vocabulary, slm_error *error);
void slm_vocabulary_destroy(slm_vocabulary *vocabulary); /* zeroed or half made is fine */

/* Translates a piece from the alphabet into the bytes meant; bytes: [size]. false: some of it is not of the alphabet. */
bool slm_vocabulary_decode_piece(const slm_vocabulary *vocabulary, const uint8_t *piece, size_t size, uint8_t *bytes,
                                 size_t *n_bytes);
/* The id of these bytes in this spelling; -1: none. */
int32_t slm_vocabulary_find(const slm_vocabulary *vocabulary, slm_spelling spelling, const uint8_t *bytes, size_t size);
/* The id of a piece as it is published; -1: none. An added token comes before another piece of the same text. */
int32_t slm_vocabulary_find_piece(const slm_vocabulary *vocabulary, const uint8_t *piece, size_t size);

static inline const uint8_t *slm_vocabulary_bytes(const slm_vocabulary *vocabulary, int32_t id, size_t *size) {
    *size = vocabulary->tokens[id].size;
    return vocabulary->bytes + vocabulary->tokens[id].offset;
}

static inline slm_token_kind slm_vocabulary_kind(const slm_vocabulary *vocabulary, int32_t id) {
    return (slm_token_kind)vocabulary->tokens[id].kind;
}

/* Is it a token that steers the model, which text becomes only with parse_special? */
static inline bool slm_token_is_special(slm_token_kind kind) {
    return kind == SLM_TOKEN_CONTROL || kind == SLM_TOKEN_UNKNOWN;
}

static inline bool slm_token_is_added(slm_token_kind kind) {
    return slm_token_is_special(kind) || kind == SLM_TOKEN_USER_DEFINED;
}

#endif
