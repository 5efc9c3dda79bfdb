/* SPDX-License-Identifier: Apache-2.0
 * normalize.h: the steps of slm_normalizer, one after another. What text becomes, and which characters of the original each byte
 * counts as made of, is as Hugging Face's tokenizers have it. */
#ifndef SLM_TEXT_NORMALIZE_H
#define SLM_TEXT_NORMALIZE_H

#include "base/call.h"
#include "text/aligned.h"

/* Copies of the steps and their operands. Zero it first. */
typedef struct slm_normalizers {
    slm_normalizer *steps; /* [count], operands in `operands` */
    size_t count;
    uint8_t *operands;
} slm_normalizers;

/* SLM_BAD_DATA: error.index is the step. */
slm_status slm_normalizers_create(const slm_normalizer *steps, size_t count, slm_normalizers *normalizers, slm_error *error);
void slm_normalizers_destroy(slm_normalizers *normalizers);

/* Runs all steps on *text, fewer than 2^31 bytes; spare is a second buffer. Both are overwritten, and may have changed places.
 * SLM_BAD_ARGUMENT: it grows to more than 32 times its size and 64 KiB, or to 2^31 bytes. */
slm_status slm_normalize(const slm_normalizers *normalizers, slm_aligned *text, slm_aligned *spare, slm_clock *clock,
                         slm_error *error);

/* Appends UTF-8 of a code point; there must be room for 4 bytes. */
void slm_normalize_put(slm_aligned *out, uint32_t code_point, slm_span origin);

/* The steps that have files of their own: *in -> *out, which is empty. */
typedef struct slm_unicode_form {
    bool compatible, composed;
} slm_unicode_form;
slm_status slm_normalize_unicode(slm_unicode_form form, const slm_aligned *in, slm_aligned *out, slm_clock *clock,
                                 slm_error *error);
/* charsmap: [size] SentencePiece's precompiled_charsmap, checked by slm_charsmap_check. */
slm_status slm_normalize_charsmap(const uint8_t *charsmap, size_t size, const slm_aligned *in, slm_aligned *out, slm_clock *clock,
                                  slm_error *error);
/* NULL, or what is wrong. */
const char *slm_charsmap_check(const uint8_t *charsmap, size_t size);

#endif
