/* SPDX-License-Identifier: Apache-2.0
 * adapter.c: Model.adapt: a model over the weights of another one. */
#include "base/alloc.h"
#include "python/objects.h"

static const char *const targets[] = {[SLM_TARGET_EMBED_TOKENS] = "embed_tokens",
                                      [SLM_TARGET_LM_HEAD] = "lm_head",
                                      [SLM_TARGET_Q_PROJ] = "q_proj",
                                      [SLM_TARGET_K_PROJ] = "k_proj",
                                      [SLM_TARGET_V_PROJ] = "v_proj",
                                      [SLM_TARGET_O_PROJ] = "o_proj",
                                      [SLM_TARGET_GATE_PROJ] = "gate_proj",
                                      [SLM_TARGET_UP_PROJ] = "up_proj",
                                      [SLM_TARGET_DOWN_PROJ] = "down_proj",
                                      NULL};

/* (target, layer, a, b, scale). Runs no Python, which could change the list or the pieces that were counted. */
static bool read_lora(const slm_py_state *state, PyObject *item, slm_tensor **pieces, slm_lora *lora) {
    const char *target;
    PyObject *layer, *a, *b, *scale;
    if (!PyTuple_Check(item)) {
        PyErr_Format(PyExc_TypeError, "loras: expected tuples, found %R", (PyObject *)Py_TYPE(item));
        return false;
    }
    if (!PyArg_ParseTuple(item, "sO!OOO!", &target, &PyLong_Type, &layer, &a, &b, &PyFloat_Type, &scale)) return false;
    int index = slm_py_choice("target", targets, target);
    if (index < 0 || !slm_py_tensor(state, a, "a", pieces, &lora->a) || !slm_py_tensor(state, b, "b", pieces, &lora->b))
        return false;
    lora->target = index;
    lora->layer = PyLong_AsLongLong(layer);
    lora->scale = (float)PyFloat_AsDouble(scale);
    return !PyErr_Occurred();
}

/* All of them in one block, and behind them the pieces of their tensors. */
static slm_lora *read_loras(const slm_py_state *state, PyObject *list, Py_ssize_t n) {
    size_t n_pieces = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *item = PyList_GetItem(list, i);
        for (Py_ssize_t j = 0; PyTuple_Check(item) && j < PyTuple_Size(item); j++) {
            PyObject *value = PyTuple_GetItem(item, j);
            n_pieces += PyList_Check(value) ? (size_t)PyList_Size(value) : 0;
        }
    }
    slm_lora *loras = slm_alloc_zero(1, (size_t)n * sizeof *loras + n_pieces * sizeof(slm_tensor));
    if (!loras) return (slm_lora *)PyErr_NoMemory();
    slm_tensor *pieces = (slm_tensor *)(loras + n);
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!read_lora(state, PyList_GetItem(list, i), &pieces, &loras[i])) {
            slm_free(loras);
            return NULL;
        }
    }
    return loras;
}

PyObject *slm_py_model_adapt(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"loras", "threads", NULL};
    slm_py_state *state = slm_py_state_of(Py_TYPE(self));
    slm_model *model = ((slm_py_model *)self)->model;
    PyObject *list, *threads = NULL;
    slm_py_call call = {0};
    slm_error error;
    if (!model) return PyErr_Format(state->ClosedError, "the model holds no weights");
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!|O", names, &PyList_Type, &list, &threads) ||
        !slm_py_call_options(threads, NULL, &call.call)) {
        return NULL;
    }
    Py_ssize_t n = PyList_Size(list);
    slm_lora *loras = read_loras(state, list, n);
    slm_py_model *adapted = loras ? (slm_py_model *)PyType_GenericAlloc(state->Model, 0) : NULL;
    if (adapted) {
        slm_model *held = slm_model_retain(model); /* another thread may initialise the object anew */
        slm_py_call_begin(&call, state);
        slm_status status = slm_model_adapt(held, loras, n, &call.call, &adapted->model, &error);
        bool ok = slm_py_call_end(&call) && !status;
        slm_model_release(held);
        if (status) slm_py_raise(state, &error);
        if (!ok) Py_CLEAR(adapted);
    }
    slm_free(loras);
    return (PyObject *)adapted;
}
