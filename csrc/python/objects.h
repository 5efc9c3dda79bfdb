/* SPDX-License-Identifier: Apache-2.0
 * objects.h: the Python objects of the model side and how they hold each other. */
#ifndef SLM_PYTHON_OBJECTS_H
#define SLM_PYTHON_OBJECTS_H

#include "python/python.h"

enum { SLM_PY_MAX_THREADS = 256 };

/* All fields change only under the GIL. */

/* clang-format off: it takes the macro for a type */
typedef struct slm_py_model {
    PyObject_HEAD slm_model *model; /* NULL before __init__ */
} slm_py_model;

typedef struct slm_py_session {
    PyObject_HEAD slm_session *session; /* holds its model */
    int64_t length;                     /* positions held when no call runs: what may be read while one does */
    bool busy;                          /* a call runs without the GIL, or a generation has not ended */
} slm_py_session;
/* clang-format on */

/* Takes over the session, also on failure. */
PyObject *slm_py_wrap_session(slm_py_state *state, slm_session *session);
/* False with BusyError while a call or a generation runs on the session. */
bool slm_py_claim(const slm_py_state *state, const slm_py_session *session);

/* Methods: Session.generate, a Generation that occupies the session; Model.generate, a whole batch; Model.score; Model.adapt. */
PyObject *slm_py_session_generate(PyObject *session, PyObject *args, PyObject *kwargs);
PyObject *slm_py_model_generate(PyObject *model, PyObject *args, PyObject *kwargs);
PyObject *slm_py_model_score(PyObject *model, PyObject *args, PyObject *kwargs);
PyObject *slm_py_model_adapt(PyObject *model, PyObject *args, PyObject *kwargs);
PyObject *slm_py_model_restore(PyObject *model, PyObject *args); /* what Session.save gives -> Session */

/* Puts threads and prefill_chunk into a call; NULL objects keep the defaults. False with an exception. */
bool slm_py_call_options(PyObject *threads, PyObject *prefill_chunk, slm_call *call);

/* The index of value in names, which NULL ends; -1 with an exception that names the parameter. */
int slm_py_choice(const char *parameter, const char *const *names, const char *value);
/* A tensor as _core.pyi has it; of one in pieces the later ones go to *pieces, which moves behind them. pieces NULL: there may be
 * no later ones. False with an exception. */
bool slm_py_tensor(const slm_py_state *state, PyObject *value, const char *name, slm_tensor **pieces, slm_tensor *out);
slm_type slm_py_type(const char *name); /* SLM_TYPE_NONE: not known */

#endif
