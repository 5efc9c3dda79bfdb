/* SPDX-License-Identifier: Apache-2.0
 * added.h: finds added tokens in text, before anything else is cut. Of the tokens that begin first the longest wins, as in
 * Hugging Face's tokenizers. Control tokens exist only where the caller lets them: where they do not, their text is text. */
#ifndef SLM_TEXT_ADDED_H
#define SLM_TEXT_ADDED_H

#include "base/call.h"
#include "text/normalize.h"
#include "text/vocabulary.h"

typedef struct slm_added_token {
    const uint8_t *bytes; /* [size] what to look for */
    uint32_t size;
    int32_t id;
    bool special;
    uint8_t flags; /* slm_token_flag */
} slm_added_token;

typedef struct slm_added {
    slm_added_token *tokens; /* [count], sorted by bytes */
    size_t count;
    size_t first[257]; /* tokens that begin with byte b: first[b] to first[b + 1] - 1 */
    uint8_t *bytes;    /* what normalized tokens look for */
} slm_added;

/* The tokens with or without SLM_TOKEN_NORMALIZED among flags, [vocabulary size] or NULL; those with it are looked for as
 * normalizers make them. added: zeroed. The vocabulary must outlive it. */
slm_status slm_added_create(const slm_vocabulary *vocabulary, const uint8_t *flags, const slm_normalizers *normalizers,
                            bool normalized, slm_added *added, slm_error *error);
void slm_added_destroy(slm_added *added);

/* One walk over a text. Set the first six fields, the others to zero. */
typedef struct slm_added_search {
    const slm_added *added;
    const uint8_t *text; /* [size] */
    size_t size;
    size_t base;                       /* where text lies in that which the guards are of */
    const slm_encode_options *options; /* parse_special, guards */
    slm_clock *clock;
    size_t at;                     /* where to go on looking */
    size_t done;                   /* what is before this belongs to tokens found */
    size_t next_guard;             /* index of the first guard behind the position looked at */
    size_t steps;                  /* since the clock was last asked */
    size_t space_start, space_end; /* white space that was walked through already, up to its end */
} slm_added_search;

typedef struct slm_added_match {
    size_t start, end; /* with the white space that the token takes along; start may be less than the end of the last match */
    int32_t id;
} slm_added_match;

/* The next added token. false: there is none, or search->clock says cancelled. */
bool slm_added_next(slm_added_search *search, slm_added_match *match);

#endif
