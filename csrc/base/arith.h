/* SPDX-License-Identifier: Apache-2.0
 * arith.h: sizes that cannot wrap. */
#ifndef SLM_BASE_ARITH_H
#define SLM_BASE_ARITH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* false: the result does not fit, *out is not to be used. */
static inline bool slm_add_size(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
static inline bool slm_mul_size(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}

static inline int64_t slm_min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t slm_max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static inline int64_t slm_div_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
/* The least multiple of b that is not below a. */
static inline int64_t slm_round_up(int64_t a, int64_t b) {
    return slm_div_up(a, b) * b;
}

#endif
