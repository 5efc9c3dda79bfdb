/* SPDX-License-Identifier: Apache-2.0
 * constraint.c: slm._core.Automaton, a regular expression compiled, and slm._core.Constraint, an automaton over a vocabulary. */
#include "python/python.h"
#include "python/token_lists.h"

typedef struct automaton_object {
    PyObject_HEAD slm_automaton *automaton;
} automaton_object;

typedef struct constraint_object {
    PyObject_HEAD slm_constraint *constraint;
} constraint_object;

slm_constraint *slm_py_constraint(const slm_py_state *state, PyObject *object) {
    if (Py_TYPE(object) == state->Constraint) return ((constraint_object *)object)->constraint;
    PyErr_Format(PyExc_TypeError, "constraint: expected a Constraint, found %R", (PyObject *)Py_TYPE(object));
    return NULL;
}

static PyObject *allocate(PyTypeObject *type) {
    return ((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
}

static void free_object(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* ---- Automaton ------------------------------------------------------------------------------------------------------------ */

static PyObject *automaton_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"expressions", NULL};
    Py_buffer data;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "y*:Automaton", names, &data)) return NULL;
    slm_py_state *state = slm_py_state_of(type);
    slm_py_call call = {0};
    slm_automaton *automaton = NULL;
    slm_error error;
    PyObject *self = NULL;
    slm_py_call_begin(&call, state);
    slm_status status = slm_automaton_create(data.buf, (size_t)data.len / sizeof(slm_expression), &call.call, &automaton, &error);
    bool ok = slm_py_call_end(&call);
    if (ok && status) slm_py_raise(state, &error);
    if (ok && !status) self = allocate(type);
    if (self) {
        ((automaton_object *)self)->automaton = automaton;
    } else {
        slm_automaton_release(automaton);
    }
    PyBuffer_Release(&data);
    return self;
}

static void automaton_dealloc(PyObject *self) {
    slm_automaton_release(((automaton_object *)self)->automaton);
    free_object(self);
}

static PyObject *automaton_n_states(PyObject *self, void *unused) {
    (void)unused;
    return PyLong_FromLongLong(slm_automaton_size(((automaton_object *)self)->automaton));
}

static PyObject *automaton_matches(PyObject *self, PyObject *text) {
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(text, &bytes, &size)) return NULL;
    return PyBool_FromLong(slm_automaton_matches(((automaton_object *)self)->automaton, bytes, (size_t)size));
}

static PyMethodDef automaton_methods[] = {
    {"matches", automaton_matches, METH_O, "matches($self, text, /)\n--\n\nDoes all of a text, as bytes, match?"},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef automaton_getset[] = {
    {"n_states", automaton_n_states, NULL, "Number of states.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot automaton_slots[] = {
    {Py_tp_doc, "A regular expression over bytes, compiled. Immutable and shareable."},
    {Py_tp_new, automaton_new},
    {Py_tp_dealloc, automaton_dealloc},
    {Py_tp_methods, automaton_methods},
    {Py_tp_getset, automaton_getset},
    {0, NULL},
};

static PyType_Spec automaton_spec = {
    .name = "slm._core.Automaton",
    .basicsize = sizeof(automaton_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = automaton_slots,
};

/* ---- Constraint ------------------------------------------------------------------------------------------------------------ */

static PyObject *constraint_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"automaton", "tokenizer", NULL};
    slm_py_state *state = slm_py_state_of(type);
    PyObject *automaton, *object;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O:Constraint", names, state->Automaton, &automaton, &object)) return NULL;
    slm_tokenizer *tokenizer = slm_py_tokenizer(state, object);
    PyObject *self = tokenizer ? allocate(type) : NULL;
    slm_error error;
    if (self && slm_constraint_create(((automaton_object *)automaton)->automaton, tokenizer,
                                      &((constraint_object *)self)->constraint, &error)) {
        slm_py_raise(state, &error);
        Py_CLEAR(self);
    }
    return self;
}

static void constraint_dealloc(PyObject *self) {
    slm_constraint_release(((constraint_object *)self)->constraint);
    free_object(self);
}

static PyObject *constraint_allowed(PyObject *self, PyObject *text) {
    slm_py_state *state = slm_py_state_of(Py_TYPE(self));
    char *bytes;
    Py_ssize_t size;
    slm_tokens tokens = {0};
    slm_error error;
    if (PyBytes_AsStringAndSize(text, &bytes, &size)) return NULL;
    if (slm_constraint_follow(((constraint_object *)self)->constraint, bytes, (size_t)size, &tokens, &error))
        return slm_py_raise(state, &error);
    PyObject *list = slm_py_list_of_ids(state, &tokens);
    slm_tokens_free(&tokens);
    return list;
}

static PyMethodDef constraint_methods[] = {
    {"allowed", constraint_allowed, METH_O,
     "allowed($self, text, /)\n--\n\nThe tokens of text that may follow these bytes, in ascending order."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot constraint_slots[] = {
    {Py_tp_doc, "An automaton over a vocabulary. It keeps which tokens may come in each state that it has met. Shareable."},
    {Py_tp_new, constraint_new},
    {Py_tp_dealloc, constraint_dealloc},
    {Py_tp_methods, constraint_methods},
    {0, NULL},
};

static PyType_Spec constraint_spec = {
    .name = "slm._core.Constraint",
    .basicsize = sizeof(constraint_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = constraint_slots,
};

int slm_py_add_constraint(PyObject *module, slm_py_state *state) {
    state->Automaton = (PyTypeObject *)PyType_FromModuleAndSpec(module, &automaton_spec, NULL);
    if (!state->Automaton || PyModule_AddType(module, state->Automaton)) return -1;
    state->Constraint = (PyTypeObject *)PyType_FromModuleAndSpec(module, &constraint_spec, NULL);
    return state->Constraint ? PyModule_AddType(module, state->Constraint) : -1;
}
