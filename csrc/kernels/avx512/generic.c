/* SPDX-License-Identifier: Apache-2.0
 * generic.c: the kernels of kernels/generic.inc for these tiers, and the tiers' tables. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/avx512/bf16.h"
#include "kernels/avx512/int8.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"

SLM_TARGET_BEGIN(SLM_AVX512)
#include "kernels/avx512/lanes.h"

#include "kernels/generic.inc"
SLM_TARGET_END

#define TIER avx512
#include "kernels/table.inc"

#define TIER       avx512_bf16
#define INT8       avx512
#define BF16(name) slm_avx512_bf16_##name
#include "kernels/table.inc"
#endif
