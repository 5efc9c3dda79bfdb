/* SPDX-License-Identifier: Apache-2.0
 * cpu.h: what this CPU can run and how much of it this process may use. */
#ifndef SLM_BASE_CPU_H
#define SLM_BASE_CPU_H

#include <stdbool.h>

/* Each means: the CPU has it and the operating system saves its registers. */
#if defined(__x86_64__)
bool slm_cpu_has_avx2(void);        /* with FMA and F16C */
bool slm_cpu_has_avx_vnni(void);    /* AVX2 and this, which AVX-512 does not imply */
bool slm_cpu_has_avx512_vnni(void); /* F, BW, DQ, VL, VNNI */
bool slm_cpu_has_avx512_bf16(void); /* and this */
#elif defined(__aarch64__)
bool slm_cpu_has_dotprod(void); /* sdot */
bool slm_cpu_has_i8mm(void);    /* and this: usmmla */
#endif

int slm_cpu_affinity(void);       /* logical CPUs this process may run on */
int slm_cpu_quota(void);          /* CPUs that the cgroup's quota allows, rounded down, at least 1; 0: no quota */
int slm_cpu_physical_cores(void); /* distinct cores among those of the affinity */

#endif
