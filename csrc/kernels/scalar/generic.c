/* SPDX-License-Identifier: Apache-2.0
 * generic.c: the kernels of kernels/generic.inc for this tier, and the tier's table. */
#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/scalar/int8.h"
#include "kernels/scalar/lanes.h"

#include "kernels/generic.inc"

#define TIER scalar
#include "kernels/table.inc"
