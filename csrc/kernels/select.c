/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "blas.h"
#include "kernels/kernels.h"

static const slm_kernels *active;

const slm_kernels *slm_kernels_active(void) {
    return active;
}

static bool always(void) {
    return true;
}

/* Slowest first. */
static const struct {
    const slm_kernels *kernels;
    bool (*runs)(void);
} tiers[] = {
    {&slm_kernels_scalar, always},
#if defined(__x86_64__)
    {&slm_kernels_avx2, slm_cpu_has_avx2},
#if defined(SLM_AVX2_VNNI)
    {&slm_kernels_avx2_vnni, slm_cpu_has_avx_vnni},
#endif
    {&slm_kernels_avx512, slm_cpu_has_avx512_vnni},
    {&slm_kernels_avx512_bf16, slm_cpu_has_avx512_bf16},
#elif defined(__aarch64__)
    {&slm_kernels_neon, slm_cpu_has_dotprod},
    {&slm_kernels_neon_i8mm, slm_cpu_has_i8mm},
#endif
};

const slm_kernels *slm_kernels_tier(int i) {
    for (size_t t = 0; t < sizeof tiers / sizeof *tiers; t++) {
        if (tiers[t].runs() && i-- == 0) return tiers[t].kernels;
    }
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
    *info = (slm_cpu_info){
        .isa = active ? active->name : "",
        .blas = slm_blas_version(),
        .blas_arch = slm_blas_arch(),
        .threads = slm_thread_count(),
        .affinity = slm_cpu_affinity(),
        .quota = slm_cpu_quota(),
        .physical_cores = slm_cpu_physical_cores(),
    };
    const slm_kernels *tier;
    for (int i = 0; (tier = slm_kernels_tier(i)); i++) {
        size_t used = strlen(info->supported);
        snprintf(info->supported + used, sizeof info->supported - used, i ? " %s" : "%s", tier->name);
    }
}
