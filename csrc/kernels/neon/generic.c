/* SPDX-License-Identifier: Apache-2.0
 * generic.c: the kernels of kernels/generic.inc for these tiers, whose floats are the same, and the tiers' tables. */
#if defined(__aarch64__)
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/neon/int8.h"
#include "kernels/neon/lanes.h"

#include "kernels/generic.inc"

#define TIER neon
#include "kernels/table.inc"
#define TIER neon_i8mm
#include "kernels/table.inc"
#endif
