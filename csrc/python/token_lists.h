/* SPDX-License-Identifier: Apache-2.0
 * token_lists.h: what the core found in a text, as Python lists. */
#ifndef SLM_PYTHON_TOKEN_LISTS_H
#define SLM_PYTHON_TOKEN_LISTS_H

#include "python/python.h"

/* [id], and [(start, end)] of tokens that have spans. NULL with an exception, that of a signal handler included. */
PyObject *slm_py_list_of_ids(const slm_py_state *state, const slm_tokens *tokens);
PyObject *slm_py_list_of_spans(const slm_py_state *state, const slm_tokens *tokens);

#endif
