/* SPDX-License-Identifier: Apache-2.0
 * generic.c: the kernels of kernels/generic.inc for this tier, and the tier's table. */
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/avx2/int8.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"

SLM_TARGET_BEGIN(SLM_AVX2)
#include "kernels/avx2/lanes.h"

#include "kernels/generic.inc"
SLM_TARGET_END

#define TIER avx2
#include "kernels/table.inc"
#if defined(SLM_AVX2_VNNI)
#define TIER avx2_vnni
#include "kernels/table.inc"
#endif
#endif
