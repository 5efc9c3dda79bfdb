/* SPDX-License-Identifier: Apache-2.0
 * encode.h: f32 rows to blocks of 32, bit for bit as the public quantizers of these formats do (gguf-py's quants.py, which the
 * quantize functions of ggml define): codes are the nearest to the scale before it is rounded to f16. */
#ifndef SLM_QUANT_ENCODE_H
#define SLM_QUANT_ENCODE_H

#include "slm.h"

/* x: [n] f32, n a multiple of 32; blocks: [n / 32] blocks of a type that slm_type_encodes. False when a scale is not a finite
 * f16, because x holds NaN, infinity or numbers beyond the type's range; blocks are undefined then. */
bool slm_encode_row(slm_type type, const float *x, int64_t n, uint8_t *blocks);

#endif
