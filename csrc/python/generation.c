/* SPDX-License-Identifier: Apache-2.0
 * generation.c: slm._core.Generation: the token loop over one session, pulled chunk by chunk. */
#include "python/objects.h"

typedef struct slm_py_generation {
    PyObject_HEAD slm_generation *generation; /* NULL when closed */
    slm_py_session *session;                  /* strong; busy because of us while `occupies` */
    bool occupies, running;
} slm_py_generation;

PyObject *slm_py_wrap_generation(slm_py_state *state, slm_generation *generation, slm_py_session *session) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(state->Generation, Py_tp_alloc);
    slm_py_generation *self = (slm_py_generation *)allocate(state->Generation, 0);
    if (!self) {
        slm_generation_release(generation);
        return NULL;
    }
    self->generation = generation;
    self->session = (slm_py_session *)Py_NewRef((PyObject *)session);
    self->occupies = session->busy = true;
    return (PyObject *)self;
}

static void vacate(slm_py_generation *self) {
    if (self->occupies) self->session->busy = false;
    self->occupies = false;
}

static PyObject *generation_next(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"whole", "threads", "prefill_chunk", NULL};
    static const char *const finishes[] = {[SLM_FINISH_NONE] = NULL, [SLM_FINISH_STOP] = "stop", [SLM_FINISH_LENGTH] = "length"};
    slm_py_generation *self = (slm_py_generation *)object;
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    int whole;
    PyObject *threads = NULL, *prefill_chunk = NULL;
    slm_py_call call = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "p|OO", names, &whole, &threads, &prefill_chunk) ||
        !slm_py_call_options(threads, prefill_chunk, &call.call)) {
        return NULL;
    }
    if (self->running) return PyErr_Format(state->BusyError, "the generation is already running");
    if (!self->generation) return PyErr_Format(state->ClosedError, "the generation is closed");
    slm_chunk chunk;
    slm_error error;
    self->running = true;
    Py_INCREF(object); /* a signal handler may drop the last other reference */
    slm_py_call_begin(&call, state);
    slm_status status = slm_generation_next(self->generation, whole, &call.call, &chunk, &error);
    bool ok = slm_py_call_end(&call) && !status;
    self->running = false;
    self->session->length = slm_session_length(self->session->session);
    PyObject *result = NULL;
    if (!ok) {
        if (status) slm_py_raise(state, &error);
    } else {
        if (chunk.finish != SLM_FINISH_NONE) vacate(self);
        PyObject *tokens = PyList_New((Py_ssize_t)chunk.n_tokens);
        for (size_t i = 0; tokens && i < chunk.n_tokens; i++) {
            PyObject *id = PyLong_FromLong(chunk.tokens[i]);
            if (!id || PyList_SetItem(tokens, (Py_ssize_t)i, id)) Py_CLEAR(tokens);
        }
        PyObject *text =
            tokens ? PyUnicode_DecodeUTF8(chunk.text ? chunk.text : "", (Py_ssize_t)chunk.text_size, "strict") : NULL;
        if (text)
            result = Py_BuildValue("(OOzdd)", text, tokens, finishes[chunk.finish], chunk.prefill_seconds, chunk.decode_seconds);
        Py_XDECREF(text);
        Py_XDECREF(tokens);
    }
    Py_DECREF(object);
    return result;
}

static PyObject *generation_close(PyObject *object, PyObject *unused) {
    (void)unused;
    slm_py_generation *self = (slm_py_generation *)object;
    if (self->running) {
        return PyErr_Format(slm_py_state_of(Py_TYPE(object))->BusyError, "the generation is running in another thread");
    }
    vacate(self);
    slm_generation_release(self->generation);
    self->generation = NULL;
    Py_RETURN_NONE;
}

static void generation_dealloc(PyObject *object) {
    slm_py_generation *self = (slm_py_generation *)object;
    PyTypeObject *type = Py_TYPE(object);
    vacate(self);
    slm_generation_release(self->generation);
    Py_XDECREF((PyObject *)self->session);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"next", (PyCFunction)(void (*)(void))generation_next, METH_VARARGS | METH_KEYWORDS,
     "next(whole, threads=0, prefill_chunk=0)\n--\n\nText, token ids, finish reason, prefill and decode seconds so far."},
    {"close", generation_close, METH_NOARGS, "close()\n--\n\nStop here; the session is free again."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The token loop over one session, which it keeps alive and occupies until it ends or is closed."},
    {Py_tp_dealloc, generation_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "slm._core.Generation",
    .basicsize = sizeof(slm_py_generation),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int slm_py_add_generation(PyObject *module, slm_py_state *state) {
    state->Generation = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return state->Generation ? PyModule_AddType(module, state->Generation) : -1;
}
