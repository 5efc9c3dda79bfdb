/* SPDX-License-Identifier: Apache-2.0 */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

slm_status slm_fail(slm_error *error, slm_status status, int64_t index, const char *format, ...) {
    memset(error, 0, sizeof *error);
    error->status = status;
    error->index = index;
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    return status;
}

slm_status slm_fail_memory(slm_error *error) {
    return slm_fail(error, SLM_NO_MEMORY, -1, "out of memory");
}

slm_status slm_fail_cancelled(slm_error *error) {
    return slm_fail(error, SLM_CANCELLED, -1, "cancelled");
}
