/* SPDX-License-Identifier: Apache-2.0
 * types.h: the types of tensors in files: one table, and per block type how a block splits into codes and scales.
 *
 * A block type stands for value = d * (code - offset) + m, where d and m are shared by a group of 32 or 16 elements. Both come as
 * f16; or, in two levels, as f16 per 256 elements times a whole number per group, its factor: d = d16 * scale, m = m16 * min. f32
 * holds these products and d * (code - offset) exactly, so a value is rounded once, where m is added. */
#ifndef SLM_QUANT_TYPES_H
#define SLM_QUANT_TYPES_H

#include "slm.h"

enum {
    SLM_GROUP = 32,      /* the most elements that share a scale */
    SLM_MIN_GROUP = 16,  /* the fewest */
    SLM_SUPERBLOCK = 256 /* elements that share the upper level of two */
};

/* How the elements of a block type are coded. */
typedef struct slm_coding {
    int bits;             /* codes are 0 .. 2^bits - 1 */
    int group;            /* elements that share d and m: 32 or 16 */
    int offset;           /* of the codes, or of what the table makes of them: 128 with 8 bits or a table, 0 with mins */
    bool mins;            /* there are m */
    int factor_bits;      /* of the whole numbers that two levels have; 0: one level. Signed where there are no m */
    const uint8_t *table; /* [16] what 4-bit codes stand for; NULL: for themselves */
} slm_coding;

/* X(type, its name in function names, elements of a block, bytes of a block, the fields of its slm_coding) */
#define SLM_BLOCK_TYPES(X)                                                                                                       \
    X(Q8_0, q8_0, 32, 34, 8, 32, 128, false, 0, NULL)                                                                            \
    X(Q4_0, q4_0, 32, 18, 4, 32, 8, false, 0, NULL)                                                                              \
    X(Q4_1, q4_1, 32, 20, 4, 32, 0, true, 0, NULL)                                                                               \
    X(Q5_0, q5_0, 32, 22, 5, 32, 16, false, 0, NULL)                                                                             \
    X(Q5_1, q5_1, 32, 24, 5, 32, 0, true, 0, NULL)                                                                               \
    X(Q2_K, q2_k, 256, 84, 2, 16, 0, true, 4, NULL)                                                                              \
    X(Q3_K, q3_k, 256, 110, 3, 16, 4, false, 6, NULL)                                                                            \
    X(Q4_K, q4_k, 256, 144, 4, 32, 0, true, 6, NULL)                                                                             \
    X(Q5_K, q5_k, 256, 176, 5, 32, 0, true, 6, NULL)                                                                             \
    X(Q6_K, q6_k, 256, 210, 6, 16, 32, false, 8, NULL)                                                                           \
    X(IQ4_NL, iq4_nl, 32, 18, 4, 32, 128, false, 0, slm_iq4)                                                                     \
    X(IQ4_XS, iq4_xs, 256, 136, 4, 32, 128, false, 6, slm_iq4)

/* The 16 values of IQ4_NL and IQ4_XS, each + 128. */
extern const uint8_t slm_iq4[16];

/* A block taken apart. planes: for each group of 32 elements as many words of 32 bits as a code has bits, cut into planes by the
 * binary digits of that number, low bits first: 8; 4; 4 + 1; 4 + 2; 2; 2 + 1. A plane of p bits has p words, and byte i of its
 * word w holds the fields of the elements 4 w + i, 4 (w + p) + i, 4 (w + 2 p) + i ... from its low bits up. */
typedef struct slm_parts {
    uint8_t planes[SLM_SUPERBLOCK * 6 / 8];        /* blocks of more bits are of 32 elements */
    uint16_t d, m;                                 /* f16; m stays 0 where the type has none */
    int8_t scales[SLM_SUPERBLOCK / SLM_MIN_GROUP]; /* two levels: of the groups, else not set */
    int8_t mins[SLM_SUPERBLOCK / SLM_MIN_GROUP];   /* the same; not set where the type has none */
} slm_parts;

typedef struct slm_type_info {
    const char *name;
    int64_t block;       /* elements per block */
    int64_t block_bytes; /* bytes per block */
    slm_coding coding;   /* bits 0: floating-point elements */
} slm_type_info;

/* type: a valid type other than SLM_TYPE_NONE. */
const slm_type_info *slm_type_of(slm_type type);

#endif
