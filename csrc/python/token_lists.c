/* SPDX-License-Identifier: Apache-2.0
 * token_lists.c: lists of the ids or spans of many tokens. list() makes them of an iterator: it asks how many there will be and
 * writes each place once, without reading what was there, so that a new page costs one fault and not two; and signal handlers
 * run between two tokens. */
#include "python/token_lists.h"

enum { RECENT = 256 };

/* Nobody but list() has it, and not for longer than the tokens live. */
typedef struct token_iterator {
    PyObject_HEAD const slm_tokens *tokens;
    size_t next;
    bool spans;
    /* Ids that were met lately share one int: a long text makes millions of them, whose memory costs more than its tokens. */
    PyObject *recent[RECENT]; /* by the low bits of the id */
    int32_t recent_ids[RECENT];
} token_iterator;

static PyObject *id_object(token_iterator *iterator, int32_t id) {
    size_t place = (uint32_t)id % RECENT;
    PyObject *recent = iterator->recent[place];
    if (!recent || iterator->recent_ids[place] != id) {
        PyObject *made = PyLong_FromLong(id);
        if (!made) return NULL;
        iterator->recent[place] = made;
        iterator->recent_ids[place] = id;
        Py_XDECREF(recent);
        recent = made;
    }
    Py_INCREF(recent);
    return recent;
}

static PyObject *iterator_next(PyObject *self) {
    token_iterator *iterator = (token_iterator *)self;
    const slm_tokens *tokens = iterator->tokens;
    size_t i = iterator->next;
    if (i == tokens->count) return NULL;
    if ((i + 1) % SLM_PY_TOKENS_PER_LOOK == 0 && PyErr_CheckSignals()) return NULL;
    iterator->next++;
    if (iterator->spans) return Py_BuildValue("II", tokens->spans[i].start, tokens->spans[i].end);
    return id_object(iterator, tokens->ids[i]);
}

static PyObject *iterator_length_hint(PyObject *self, PyObject *unused) {
    const token_iterator *iterator = (const token_iterator *)self;
    (void)unused;
    return PyLong_FromSize_t(iterator->tokens->count - iterator->next);
}

static void iterator_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    for (int i = 0; i < RECENT; i++) Py_XDECREF(((token_iterator *)self)->recent[i]);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *list_of(const slm_py_state *state, const slm_tokens *tokens, bool spans) {
    allocfunc allocate = (allocfunc)PyType_GetSlot(state->TokenIterator, Py_tp_alloc);
    token_iterator *iterator = (token_iterator *)allocate(state->TokenIterator, 0);
    if (!iterator) return NULL;
    iterator->tokens = tokens;
    iterator->spans = spans;
    PyObject *list = PySequence_List((PyObject *)iterator);
    Py_DECREF(iterator);
    return list;
}

PyObject *slm_py_list_of_ids(const slm_py_state *state, const slm_tokens *tokens) {
    return list_of(state, tokens, false);
}

PyObject *slm_py_list_of_spans(const slm_py_state *state, const slm_tokens *tokens) {
    return list_of(state, tokens, true);
}

static PyMethodDef methods[] = {
    {"__length_hint__", iterator_length_hint, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_dealloc, iterator_dealloc},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, iterator_next},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "slm._core.TokenIterator",
    .basicsize = sizeof(token_iterator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = slots,
};

int slm_py_add_token_lists(PyObject *module, slm_py_state *state) {
    state->TokenIterator = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return state->TokenIterator ? 0 : -1;
}
