/* SPDX-License-Identifier: Apache-2.0
 * rope.h: rotary position embedding (Su et al. 2021): pair i of a head turns by position * inv_freq[i]. */
#ifndef SLM_OPS_ROPE_H
#define SLM_OPS_ROPE_H

#include "slm.h"

/* table: [half, 2], cosine and sine of each pair's angle, times factor. The angle is a product of two f32, as published models
 * were trained with. */
void slm_rope_table(const float *inv_freq, int64_t half, int64_t position, float factor, float *table);
/* Turns the first 2 * half elements of x in place. */
void slm_rope(float *x, const float *table, int64_t half, slm_rope_style style);

#endif
