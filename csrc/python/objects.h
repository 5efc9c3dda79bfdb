/* SPDX-License-Identifier: Apache-2.0
 * objects.h: the Python objects of the model side and how they hold each other. */
#ifndef SLM_PYTHON_OBJECTS_H
#define SLM_PYTHON_OBJECTS_H

#include "python/python.h"

/* All fields change only under the GIL. */

typedef struct slm_py_model {
    PyObject_HEAD slm_model *model; /* NULL before __init__ */
} slm_py_model;

typedef struct slm_py_session {
    PyObject_HEAD slm_session *session; /* holds its model */
    bool busy;                          /* a call runs without the GIL, or a generation has not ended */
} slm_py_session;

/* Takes over the session, also on failure. */
PyObject *slm_py_wrap_session(slm_py_state *state, slm_session *session);
/* Takes over the generation, also on failure; marks the session busy until the generation ends. */
PyObject *slm_py_wrap_generation(slm_py_state *state, slm_generation *generation, slm_py_session *session);

slm_type slm_py_type(const char *name); /* SLM_TYPE_NONE: not known */

#endif
