/* SPDX-License-Identifier: Apache-2.0
 * session.c: slm._core.Session: one KV state. A second thread that comes while a call runs gets BusyError. */
#include <string.h>

#include "python/objects.h"

PyObject *slm_py_wrap_session(slm_py_state *state, slm_session *session) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(state->Session, Py_tp_alloc);
    slm_py_session *self = (slm_py_session *)allocate(state->Session, 0);
    if (!self) {
        slm_session_release(session);
        return NULL;
    }
    self->session = session;
    self->length = slm_session_length(session);
    return (PyObject *)self;
}

bool slm_py_claim(const slm_py_state *state, const slm_py_session *self) {
    if (self->busy) PyErr_SetString(state->BusyError, "the session is already running a call or a generation that has not ended");
    return !self->busy;
}

static PyObject *session_length(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(((slm_py_session *)self)->length);
}

static PyObject *session_kv_bytes(PyObject *object, void *unused) {
    (void)unused;
    slm_py_session *self = (slm_py_session *)object;
    return slm_py_claim(slm_py_state_of(Py_TYPE(object)), self) ? PyLong_FromSize_t(slm_session_kv_bytes(self->session)) : NULL;
}

static PyObject *session_rewind_limit(PyObject *object, void *unused) {
    (void)unused;
    slm_py_session *self = (slm_py_session *)object;
    return slm_py_claim(slm_py_state_of(Py_TYPE(object)), self) ? PyLong_FromLongLong(slm_session_rewind_limit(self->session))
                                                                : NULL;
}

static PyObject *session_fork(PyObject *object, PyObject *unused) {
    (void)unused;
    slm_py_session *self = (slm_py_session *)object;
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    slm_session *fork = NULL;
    slm_error error;
    if (!slm_py_claim(state, self)) return NULL;
    if (slm_session_fork(self->session, &fork, &error)) return slm_py_raise(state, &error);
    return slm_py_wrap_session(state, fork);
}

static PyObject *session_rewind(PyObject *object, PyObject *argument) {
    slm_py_session *self = (slm_py_session *)object;
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    slm_error error;
    int64_t n_tokens;
    if (!slm_py_int(argument, "n_tokens", 0, self->length, &n_tokens) || !slm_py_claim(state, self)) return NULL;
    if (slm_session_rewind(self->session, n_tokens, &error)) return slm_py_raise(state, &error);
    self->length = n_tokens;
    Py_RETURN_NONE;
}

static PyObject *session_save(PyObject *object, PyObject *unused) {
    (void)unused;
    slm_py_session *self = (slm_py_session *)object;
    slm_saved saved;
    if (!slm_py_claim(slm_py_state_of(Py_TYPE(object)), self)) return NULL;
    slm_session_save(self->session, &saved, NULL);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)saved.size);
    if (!bytes) return NULL;
    uint8_t *data = (uint8_t *)PyBytes_AsString(bytes);
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS;
    slm_session_save(self->session, &saved, data);
    Py_END_ALLOW_THREADS;
    self->busy = false;
    return Py_BuildValue("(NLL)", bytes, (long long)saved.length, (long long)saved.settled);
}

PyObject *slm_py_model_restore(PyObject *object, PyObject *args) {
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    slm_model *model = ((slm_py_model *)object)->model;
    Py_buffer bytes;
    long long length, settled;
    slm_session *session = NULL;
    slm_error error;
    if (!model) return PyErr_Format(state->ClosedError, "the model was not initialised");
    if (!PyArg_ParseTuple(args, "y*LL", &bytes, &length, &settled)) return NULL;
    slm_saved saved = {.length = length, .settled = settled, .size = (size_t)bytes.len};
    slm_status status;
    Py_BEGIN_ALLOW_THREADS;
    status = slm_session_restore(model, &saved, bytes.buf, &session, &error);
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&bytes);
    return status ? slm_py_raise(state, &error) : slm_py_wrap_session(state, session);
}

static int which_output(const char *name) {
    static const char *const names[] = {[SLM_NO_OUTPUT] = "none",
                                        [SLM_LOGITS_LAST] = "last",
                                        [SLM_LOGITS_ALL] = "all",
                                        [SLM_HIDDEN_LAST] = "hidden_last",
                                        [SLM_HIDDEN_ALL] = "hidden_all"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(names[i], name)) return (int)i;
    }
    PyErr_Format(PyExc_ValueError, "output: expected 'none', 'last', 'all', 'hidden_last' or 'hidden_all', found '%.32s'", name);
    return -1;
}

/* A new array for what a forward pass of n_tokens gives, and its data. */
static PyObject *output_array(const slm_session *session, int which, int64_t n_tokens, float **data) {
    slm_model_stats stats;
    slm_model_describe(slm_session_model(session), &stats);
    bool all = which == SLM_LOGITS_ALL || which == SLM_HIDDEN_ALL, hidden = which == SLM_HIDDEN_LAST || which == SLM_HIDDEN_ALL;
    return slm_py_new_array_f32(all ? n_tokens : 1, hidden ? stats.hidden_size : stats.vocab_size, data);
}

bool slm_py_call_options(PyObject *threads, PyObject *prefill_chunk, slm_call *call) {
    int64_t n_threads = 0;
    if ((threads && !slm_py_int(threads, "threads", 0, SLM_PY_MAX_THREADS, &n_threads)) ||
        (prefill_chunk && !slm_py_int(prefill_chunk, "prefill_chunk", 0, INT32_MAX, &call->prefill_chunk))) {
        return false;
    }
    call->threads = (int)n_threads;
    return true;
}

static PyObject *session_forward(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"tokens", "output", "threads", "prefill_chunk", "taps", NULL};
    slm_py_session *self = (slm_py_session *)object;
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    PyObject *sequence, *threads = NULL, *prefill_chunk = NULL, *taps = NULL, *array = NULL;
    const char *output_name = "last";
    slm_py_call call = {0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|sOOO", names, &sequence, &output_name, &threads, &prefill_chunk, &taps))
        return NULL;
    int which = which_output(output_name);
    int64_t n_tokens;
    int32_t *tokens = NULL;
    if (which < 0 || !slm_py_call_options(threads, prefill_chunk, &call.call) ||
        !(tokens = slm_py_tokens(sequence, "tokens", &n_tokens))) {
        return NULL;
    }
    float *output = NULL;
    slm_error error;
    if (which != SLM_NO_OUTPUT) array = output_array(self->session, which, n_tokens, &output);
    /* From here to busy = true nothing may run Python: another thread must not come between. */
    if ((which == SLM_NO_OUTPUT || array) &&
        slm_py_read_taps(taps, slm_session_model(self->session), n_tokens, self->length + n_tokens, &call) &&
        slm_py_claim(state, self)) {
        self->busy = true;
        slm_py_call_begin(&call, state);
        slm_status status = slm_session_forward(self->session, tokens, n_tokens, which, output, &call.call, &error);
        bool ok = slm_py_call_end(&call) && !status;
        self->busy = false;
        self->length = slm_session_length(self->session);
        if (!ok) {
            Py_CLEAR(array);
            if (status) slm_py_raise(state, &error);
        } else if (!array) {
            array = Py_NewRef(Py_None);
        }
    } else {
        Py_CLEAR(array);
    }
    slm_py_free_taps(&call);
    slm_py_free(tokens);
    return array;
}

static void session_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    slm_session_release(((slm_py_session *)self)->session);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

#define KEYWORDS(function) (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS

static PyMethodDef methods[] = {
    {"fork", session_fork, METH_NOARGS, "fork()\n--\n\nA copy that shares all pages until one of them writes."},
    {"rewind", session_rewind, METH_O, "rewind(n_tokens)\n--\n\nKeep the first n_tokens positions."},
    {"save", session_save, METH_NOARGS, "save()\n--\n\nKeys and values as bytes, and the two numbers that Model.restore takes."},
    {"forward", KEYWORDS(session_forward),
     "forward(tokens, output='last', threads=0, prefill_chunk=0, taps=())\n--\n\nAppend tokens; their logits or hidden states."},
    {"generate", KEYWORDS(slm_py_session_generate),
     "generate(tokenizer, prompt, max_tokens, ignore_eos, temperature, top_k, top_p, seed, sample, stop, end_tokens, "
     "draft='none', n_held=0)\n--\n\nA generation that occupies this session."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"length", session_length, NULL, "Positions held.", NULL},
    {"kv_bytes", session_kv_bytes, NULL, "Bytes of keys and values held, those shared with forks included.", NULL},
    {"rewind_limit", session_rewind_limit, NULL, "The least n_tokens > 0 that rewind() still takes.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "One KV state: a table of pages."},
    {Py_tp_dealloc, session_dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "slm._core.Session",
    .basicsize = sizeof(slm_py_session),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int slm_py_add_session(PyObject *module, slm_py_state *state) {
    state->Session = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return state->Session ? PyModule_AddType(module, state->Session) : -1;
}
