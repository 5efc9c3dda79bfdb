/* SPDX-License-Identifier: Apache-2.0 */
#include "quant/encode.h"

#include <math.h>
#include <string.h>

#include "base/half.h"

enum { BLOCK = 32 };

/* Where a block's parts go. bits: of a code, 4 or 5. */
static const struct recipe {
    int bits;
    bool mins;
} recipes[SLM_TYPE_COUNT] = {
    [SLM_TYPE_Q8_0] = {8, false}, [SLM_TYPE_Q5_1] = {5, true},  [SLM_TYPE_Q5_0] = {5, false},
    [SLM_TYPE_Q4_1] = {4, true},  [SLM_TYPE_Q4_0] = {4, false},
};

bool slm_type_encodes(slm_type type) {
    return recipes[type].bits > 0;
}

static uint8_t *put_f16(uint8_t *out, float x, bool *finite) {
    uint16_t half = slm_f32_to_f16(x);
    *finite = *finite && (half & 0x7c00) != 0x7c00;
    memcpy(out, &half, sizeof half);
    return out + sizeof half;
}

/* The code of a value in steps of a scale, half a step added before. NaN gives 0. */
static uint8_t code_of(float steps, int bits) {
    float most = (float)((1 << bits) - 1);
    return (uint8_t)(steps >= most ? most : steps > 0 ? steps : 0);
}

/* For 5 bits the fifth ones come first, in 4 bytes; then byte i holds element i in its low nibble and i + 16 in its high one. */
static void put_codes(uint8_t *out, const uint8_t *codes, int bits) {
    if (bits == 5) {
        uint32_t high = 0;
        for (int i = 0; i < BLOCK; i++) high |= (uint32_t)(codes[i] >> 4) << i;
        memcpy(out, &high, sizeof high);
        out += sizeof high;
    }
    for (int i = 0; i < BLOCK / 2; i++) out[i] = (uint8_t)((codes[i] & 15) | codes[i + BLOCK / 2] << 4);
}

static float inverse(float d) {
    return d == 0 ? 0 : 1 / d;
}

/* d from the element that is farthest from 0, the first of several, so that it becomes the code 0:
 * value = d * (code - 2^bits / 2). */
static bool encode_signed(const float *x, int bits, uint8_t *out) {
    float farthest = 0;
    bool finite = true;
    for (int i = 0; i < BLOCK; i++) {
        if (fabsf(x[i]) > fabsf(farthest)) farthest = x[i];
        finite = finite && isfinite(x[i]);
    }
    float middle = (float)(1 << (bits - 1)), d = farthest / -middle, id = inverse(d);
    uint8_t codes[BLOCK];
    for (int i = 0; i < BLOCK; i++) codes[i] = code_of(x[i] * id + (middle + 0.5f), bits);
    put_codes(put_f16(out, d, &finite), codes, bits);
    return finite;
}

/* value = d * code + m, m the least element. */
static bool encode_range(const float *x, int bits, uint8_t *out) {
    float least = x[0], most = x[0];
    bool finite = true;
    for (int i = 0; i < BLOCK; i++) {
        if (x[i] < least) least = x[i];
        if (x[i] > most) most = x[i];
        finite = finite && isfinite(x[i]);
    }
    float d = (most - least) / (float)((1 << bits) - 1), id = inverse(d);
    uint8_t codes[BLOCK];
    for (int i = 0; i < BLOCK; i++) codes[i] = code_of((x[i] - least) * id + 0.5f, bits);
    out = put_f16(out, d, &finite);
    put_codes(put_f16(out, least, &finite), codes, bits);
    return finite;
}

/* value = d * code, -127 <= code <= 127, halves away from zero. */
static bool encode_bytes(const float *x, uint8_t *out) {
    float farthest = 0;
    bool finite = true;
    for (int i = 0; i < BLOCK; i++) {
        farthest = fmaxf(farthest, fabsf(x[i]));
        finite = finite && isfinite(x[i]);
    }
    float d = farthest / 127, id = inverse(d);
    out = put_f16(out, d, &finite);
    for (int i = 0; i < BLOCK; i++) out[i] = (uint8_t)(int8_t)fminf(127, fmaxf(-127, roundf(x[i] * id)));
    return finite;
}

bool slm_encode_row(slm_type type, const float *x, int64_t n, uint8_t *blocks) {
    int bits = recipes[type].bits;
    bool finite = true;
    for (int64_t i = 0; i < n && finite; i += BLOCK, blocks += slm_type_block_bytes(type)) {
        finite = bits == 8            ? encode_bytes(x + i, blocks)
                 : recipes[type].mins ? encode_range(x + i, bits, blocks)
                                      : encode_signed(x + i, bits, blocks);
    }
    return finite;
}
