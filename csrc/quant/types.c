/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/types.h"

static const slm_type_info types[SLM_TYPE_COUNT] = {
    [SLM_TYPE_NONE] = {"none", 1, 0, 0, 0, false, NULL},
    [SLM_TYPE_F32] = {"F32", 1, 4, 0, 0, false, NULL},
    [SLM_TYPE_F16] = {"F16", 1, 2, 0, 0, false, NULL},
    [SLM_TYPE_BF16] = {"BF16", 1, 2, 0, 0, false, NULL},
    [SLM_TYPE_Q8_0] = {"Q8_0", 32, 34, 8, 128, false, slm_split_q8_0},
    [SLM_TYPE_Q4_0] = {"Q4_0", 32, 18, 4, 8, false, slm_split_q4_0},
    [SLM_TYPE_Q4_1] = {"Q4_1", 32, 20, 4, 0, true, slm_split_q4_1},
};

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
