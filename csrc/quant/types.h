/* SPDX-License-Identifier: Apache-2.0
 * types.h: the types of tensors in files: one table, and per block type how a block splits into codes and scales.
 *
 * A block type stands for value = d * (code - offset) + m over groups of 32 elements. */
#ifndef SLM_QUANT_TYPES_H
#define SLM_QUANT_TYPES_H

#include "slm.h"

enum { SLM_GROUP = 32 }; /* elements that share a scale */

typedef struct slm_group {
    uint8_t codes[SLM_GROUP];
    uint16_t d, m; /* f16; m stays 0 where the type has none */
} slm_group;

typedef struct slm_type_info {
    const char *name;
    int64_t block;                                         /* elements per block */
    int64_t block_bytes;                                   /* bytes per block */
    int code_bits;                                         /* 0: floating-point elements; else codes are 0 .. 2^code_bits - 1 */
    int offset;                                            /* of the codes */
    bool has_min;                                          /* m is used */
    void (*split)(const uint8_t *block, slm_group *group); /* NULL for floating-point elements */
} slm_type_info;

/* type: a valid type other than SLM_TYPE_NONE. */
const slm_type_info *slm_type_of(slm_type type);

void slm_split_q8_0(const uint8_t *block, slm_group *group);
void slm_split_q4_0(const uint8_t *block, slm_group *group);
void slm_split_q4_1(const uint8_t *block, slm_group *group);

#endif
