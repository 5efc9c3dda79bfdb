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
    return (PyObject *)self;
}

static bool claim(const slm_py_state *state, slm_py_session *self) {
    if (self->busy) PyErr_SetString(state->BusyError, "the session is already running a call or a generation that has not ended");
    return !self->busy;
}

static PyObject *session_length(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(slm_session_length(((slm_py_session *)self)->session));
}

static PyObject *session_fork(PyObject *object, PyTypeObject *class, PyObject *const *args, Py_ssize_t n_args, PyObject *names) {
    (void)args, (void)n_args, (void)names;
    slm_py_session *self = (slm_py_session *)object;
    slm_py_state *state = slm_py_state_of(class);
    slm_session *fork = NULL;
    slm_error error;
    if (!claim(state, self)) return NULL;
    if (slm_session_fork(self->session, &fork, &error)) return slm_py_raise(state, &error);
    return slm_py_wrap_session(state, fork);
}

static PyObject *session_rewind(PyObject *object, PyTypeObject *class, PyObject *const *args, Py_ssize_t n_args,
                                PyObject *names) {
    slm_py_session *self = (slm_py_session *)object;
    slm_py_state *state = slm_py_state_of(class);
    slm_error error;
    int64_t n_tokens;
    if (n_args != 1 || (names && PyTuple_Size(names)))
        return PyErr_Format(PyExc_TypeError, "rewind: expected one argument, n_tokens");
    if (!slm_py_int(args[0], "n_tokens", 0, slm_session_length(self->session), &n_tokens) || !claim(state, self)) return NULL;
    if (slm_session_rewind(self->session, n_tokens, &error)) return slm_py_raise(state, &error);
    Py_RETURN_NONE;
}

static int which_logits(const char *name) {
    static const char *const names[] = {[SLM_LOGITS_NONE] = "none", [SLM_LOGITS_LAST] = "last", [SLM_LOGITS_ALL] = "all"};
    for (int i = 0; i < 3; i++) {
        if (!strcmp(names[i], name)) return i;
    }
    PyErr_Format(PyExc_ValueError, "logits: expected 'none', 'last' or 'all', found '%.32s'", name);
    return -1;
}

static PyObject *session_forward(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"tokens", "logits", "threads", "prefill_chunk", NULL};
    slm_py_session *self = (slm_py_session *)object;
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    PyObject *sequence, *array = NULL;
    const char *logits_name = "last";
    int threads = 0;
    long long prefill_chunk = 0, vocab_size;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|siL", names, &sequence, &logits_name, &threads, &prefill_chunk))
        return NULL;
    int which = which_logits(logits_name);
    if (which < 0 || !claim(state, self)) return NULL;
    int64_t n_tokens;
    int32_t *tokens = slm_py_tokens(sequence, "tokens", &n_tokens);
    if (!tokens) return NULL;
    float *logits = NULL;
    slm_error error;
    slm_model_stats stats;
    slm_model_describe(slm_session_model(self->session), &stats);
    vocab_size = stats.vocab_size;
    if (which != SLM_LOGITS_NONE) array = slm_py_new_array_f32(which == SLM_LOGITS_ALL ? n_tokens : 1, vocab_size, &logits);
    if (which == SLM_LOGITS_NONE || array) {
        slm_py_call call = {.call.threads = threads, .call.prefill_chunk = prefill_chunk};
        self->busy = true;
        slm_py_call_begin(&call);
        slm_status status = slm_session_forward(self->session, tokens, n_tokens, which, logits, &call.call, &error);
        bool ok = slm_py_call_end(&call) && !status;
        self->busy = false;
        if (!ok) {
            Py_CLEAR(array);
            if (status) slm_py_raise(state, &error);
        } else if (!array) {
            array = Py_NewRef(Py_None);
        }
    }
    slm_py_free(tokens);
    return array;
}

/* The stop strings as one block of bytes and offsets, both in `bytes` objects kept by the caller. */
static bool read_stop(PyObject *sequence, slm_strings *stop, PyObject **bytes, PyObject **offsets) {
    Py_ssize_t n = PySequence_Size(sequence);
    if (n < 0) return false;
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0), *list = PySequence_List(sequence);
    *bytes = empty && list ? PyObject_CallMethod(empty, "join", "O", list) : NULL;
    *offsets = *bytes ? PyBytes_FromStringAndSize(NULL, (n + 1) * (Py_ssize_t)sizeof(uint64_t)) : NULL;
    uint64_t *at = *offsets ? (uint64_t *)PyBytes_AsString(*offsets) : NULL;
    uint64_t total = 0;
    for (Py_ssize_t i = 0; at && i <= n; i++) {
        at[i] = total;
        if (i < n) total += (uint64_t)PyBytes_Size(PyList_GetItem(list, i));
    }
    Py_XDECREF(empty);
    Py_XDECREF(list);
    if (!at) return false;
    *stop = (slm_strings){.bytes = PyBytes_AsString(*bytes), .offsets = at, .count = (size_t)n};
    return true;
}

static PyObject *session_generate(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"tokenizer", "prompt", "max_tokens", "ignore_eos", "temperature", "top_k",
                            "top_p",     "seed",   "sample",     "stop",       "end_tokens",  NULL};
    slm_py_session *self = (slm_py_session *)object;
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    PyObject *tokenizer_object, *prompt_object, *stop_object, *end_object, *stop_bytes = NULL, *stop_offsets = NULL,
                                                                           *result = NULL;
    long long max_tokens;
    unsigned long long seed, sample;
    int ignore_eos, top_k;
    float temperature, top_p;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOLpfifKKOO", names, &tokenizer_object, &prompt_object, &max_tokens,
                                     &ignore_eos, &temperature, &top_k, &top_p, &seed, &sample, &stop_object, &end_object)) {
        return NULL;
    }
    slm_generate_options options = {.max_tokens = max_tokens,
                                    .ignore_eos = ignore_eos,
                                    .temperature = temperature,
                                    .top_k = top_k,
                                    .top_p = top_p,
                                    .seed = seed,
                                    .sample = sample};
    slm_tokenizer *tokenizer = NULL;
    int64_t n_prompt, n_end;
    int32_t *prompt = NULL, *end = NULL;
    slm_generation *generation = NULL;
    slm_error error;
    if (claim(state, self) && (tokenizer_object == Py_None || (tokenizer = slm_py_tokenizer(state, tokenizer_object))) &&
        (prompt = slm_py_tokens(prompt_object, "prompt", &n_prompt)) && (end = slm_py_tokens(end_object, "end_tokens", &n_end)) &&
        read_stop(stop_object, &options.stop, &stop_bytes, &stop_offsets)) {
        options.end_tokens = end;
        options.n_end_tokens = (size_t)n_end;
        if (slm_generation_create(self->session, tokenizer, prompt, n_prompt, &options, &generation, &error)) {
            slm_py_raise(state, &error);
        } else {
            result = slm_py_wrap_generation(state, generation, self);
        }
    }
    slm_py_free(prompt);
    slm_py_free(end);
    Py_XDECREF(stop_bytes);
    Py_XDECREF(stop_offsets);
    return result;
}

static void session_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    slm_session_release(((slm_py_session *)self)->session);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

#define METHOD(function)   (PyCFunction)(void (*)(void))(function), METH_METHOD | METH_FASTCALL | METH_KEYWORDS
#define KEYWORDS(function) (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS

static PyMethodDef methods[] = {
    {"fork", METHOD(session_fork), "fork()\n--\n\nA copy that shares all pages until one of them writes."},
    {"rewind", METHOD(session_rewind), "rewind(n_tokens)\n--\n\nKeep the first n_tokens positions."},
    {"forward", KEYWORDS(session_forward),
     "forward(tokens, logits='last', threads=0, prefill_chunk=0)\n--\n\nAppend tokens; their logits."},
    {"generate", KEYWORDS(session_generate),
     "generate(tokenizer, prompt, max_tokens, ignore_eos, temperature, top_k, top_p, seed, sample, stop, end_tokens)\n--\n\n"
     "A generation that occupies this session."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"length", session_length, NULL, "Positions held.", NULL},
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
