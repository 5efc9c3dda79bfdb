/* SPDX-License-Identifier: Apache-2.0
 * status.h: how the core says that something failed. */
#ifndef SLM_BASE_STATUS_H
#define SLM_BASE_STATUS_H

#include "slm.h"

#if defined(__GNUC__)
#define SLM_PRINTF(string, first) __attribute__((format(printf, string, first)))
#else
#define SLM_PRINTF(string, first)
#endif

/* Fills *error and returns status. index: the element, tensor or position meant; -1 if none. */
slm_status slm_fail(slm_error *error, slm_status status, int64_t index, const char *format, ...) SLM_PRINTF(4, 5);
slm_status slm_fail_memory(slm_error *error);
slm_status slm_fail_cancelled(slm_error *error);

#endif
