/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/types.h"

/* -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113 */
const uint8_t slm_iq4[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

#define ROW(TYPE, NAME, BLOCK, BYTES, ...) [SLM_TYPE_##TYPE] = {#TYPE, BLOCK, BYTES, {__VA_ARGS__}},

static const slm_type_info types[SLM_TYPE_COUNT] = {[SLM_TYPE_NONE] = {.name = "none", .block = 1},
                                                    [SLM_TYPE_F32] = {.name = "F32", .block = 1, .block_bytes = 4},
                                                    [SLM_TYPE_F16] = {.name = "F16", .block = 1, .block_bytes = 2},
                                                    [SLM_TYPE_BF16] = {.name = "BF16", .block = 1, .block_bytes = 2},
                                                    SLM_BLOCK_TYPES(ROW)};

const slm_type_info *slm_type_of(slm_type type) {
    return &types[type];
}

const char *slm_type_name(slm_type type) {
    return types[type].name;
}
int64_t slm_type_block(slm_type type) {
    return types[type].block;
}
int64_t slm_type_block_bytes(slm_type type) {
    return types[type].block_bytes;
}
