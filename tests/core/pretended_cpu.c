/* SPDX-License-Identifier: Apache-2.0
 * pretended_cpu.c: linked with --wrap for these functions, it tells kernels/select.c that the CPU has what CPU_HAS names. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PRETEND(FEATURE)                                                                                                         \
    bool __wrap_slm_cpu_has_##FEATURE(void);                                                                                     \
    bool __wrap_slm_cpu_has_##FEATURE(void) {                                                                                    \
        return strstr(getenv("CPU_HAS"), #FEATURE);                                                                              \
    }

PRETEND(avx2)
PRETEND(avx_vnni)
PRETEND(avx512_vnni)
PRETEND(avx512_bf16)
