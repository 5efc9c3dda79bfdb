/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/cpu.h"
#include "blas.h"
#include "kernels/kernels.h"

static const slm_kernels *active;

const slm_kernels *slm_kernels_active(void) {
    return active;
}

const slm_kernels *slm_kernels_tier(int i) {
    if (i == 0) return &slm_kernels_scalar;
#if defined(__x86_64__)
    if (i == 1 && slm_cpu_has_avx2()) return &slm_kernels_avx2;
    if (i == 2 && slm_cpu_has_avx512_vnni()) return &slm_kernels_avx512;
#endif
    return NULL;
}

slm_status slm_init(const char *isa, slm_error *error) {
    const slm_kernels *chosen = NULL, *tier;
    if (isa && !*isa) isa = NULL; /* a variable set to nothing */
    for (int i = 0; (tier = slm_kernels_tier(i)); i++) {
        if (!isa || !strcmp(isa, tier->name)) chosen = tier;
    }
    if (!chosen) {
        slm_cpu_info info;
        slm_cpu(&info);
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "SLM_ISA: expected one of \"%s\", found \"%.32s\"", info.supported, isa);
    }
    if (active && active != chosen) {
        return slm_fail(error, SLM_BAD_ARGUMENT, -1, "the kernel tier is %s already and cannot become %s", active->name,
                        chosen->name);
    }
    active = chosen;
    slm_blas_init(chosen->name);
    return SLM_OK;
}

void slm_cpu(slm_cpu_info *info) {
    int tiers = 0;
    while (slm_kernels_tier(tiers)) tiers++;
    *info = (slm_cpu_info){
        .isa = active ? active->name : "",
        .supported = tiers == 3   ? "scalar avx2 avx512"
                     : tiers == 2 ? "scalar avx2"
                                  : "scalar",
        .blas = slm_blas_version(),
        .blas_arch = slm_blas_arch(),
        .threads = slm_thread_count(),
        .affinity = slm_cpu_affinity(),
        .quota = slm_cpu_quota(),
        .physical_cores = slm_cpu_physical_cores(),
    };
}
