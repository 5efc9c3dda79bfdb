/* SPDX-License-Identifier: Apache-2.0
 * test_select.c: the kernel tier is the one asked for, or the fastest that runs here; it prints the choice and what there is. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kernels/kernels.h"

int main(void) {
    slm_error error;
    slm_cpu_info info;
    CHECK(slm_init("no such tier", &error) == SLM_BAD_ARGUMENT && !slm_kernels_active());
    slm_cpu(&info);
    CHECK(!*info.isa && strstr(error.message, info.supported));
    CHECK(slm_init(NULL, &error) == SLM_OK && slm_init("", &error) == SLM_OK);
    const slm_kernels *tier, *fastest = NULL;
    for (int i = 0; (tier = slm_kernels_tier(i)); i++) fastest = tier;
    CHECK(slm_kernels_active() == fastest);
    for (int i = 0; (tier = slm_kernels_tier(i)); i++) {
        CHECK(slm_init(tier->name, &error) == (tier == fastest ? SLM_OK : SLM_BAD_ARGUMENT));
        CHECK(strstr(info.supported, tier->name));
    }
    slm_cpu(&info);
    CHECK(!strcmp(info.isa, fastest->name));
    printf("%s of: %s\n", info.isa, info.supported);
    return finish();
}
