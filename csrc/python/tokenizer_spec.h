/* SPDX-License-Identifier: Apache-2.0
 * tokenizer_spec.h: what slm._core.Tokenizer is made of. */
#ifndef SLM_PYTHON_TOKENIZER_SPEC_H
#define SLM_PYTHON_TOKENIZER_SPEC_H

#include "python/python.h"

typedef struct slm_py_tokenizer_spec {
    slm_tokenizer_spec spec; /* borrows from the arguments, and from: */
    PyObject *keep_pieces, *keep_merges;
} slm_py_tokenizer_spec;

/* read: zeroed. False with an exception. Release it either way. */
bool slm_py_read_tokenizer_spec(PyObject *args, PyObject *kwargs, slm_py_tokenizer_spec *read);
void slm_py_release_tokenizer_spec(slm_py_tokenizer_spec *read);

#endif
