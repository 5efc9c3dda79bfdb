/* SPDX-License-Identifier: Apache-2.0
 * random.h: a counter-based generator, so that the i-th draw of a sample depends on (seed, sample, i) and on nothing that ran
 * before. */
#ifndef SLM_GENERATE_RANDOM_H
#define SLM_GENERATE_RANDOM_H

#include <stdint.h>

/* Uniform in [0, 1), 53 bits: Philox 4x32 with 10 rounds (Salmon et al. 2011) of counter (index, sample) under key seed. */
double slm_random(uint64_t seed, uint64_t sample, uint64_t index);

#endif
