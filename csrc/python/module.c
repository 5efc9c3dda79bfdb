/* SPDX-License-Identifier: Apache-2.0
 * module.c: the extension module slm._core: multi-phase init, per-module state, and the functions that belong to no type. */
#include <stdlib.h>

#include "base/alloc.h"
#include "kernels/layout.h"
#include "python/arrays.h"
#include "python/objects.h"

/* ---- functions ------------------------------------------------------------------------------------------------------------ */

static PyObject *words(const char *text) {
    PyObject *string = PyUnicode_FromString(text), *list = string ? PyUnicode_Split(string, NULL, -1) : NULL;
    Py_XDECREF(string);
    return list;
}

static PyObject *cpu_info(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    slm_cpu_info info;
    slm_cpu(&info);
    PyObject *supported = words(info.supported);
    if (!supported) return NULL;
    return Py_BuildValue("{s:s,s:N,s:s,s:s,s:i,s:i,s:i,s:i}", "isa", info.isa, "supported", supported, "blas", info.blas,
                         "blas_arch", info.blas_arch, "threads", info.threads, "affinity", info.affinity, "quota", info.quota,
                         "physical_cores", info.physical_cores);
}

static PyObject *measure_bandwidth(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"size", "sweeps", "threads", NULL};
    PyObject *size_object = NULL, *sweeps_object = NULL, *threads_object = NULL;
    int64_t size = 1 << 30, sweeps = 5, threads = 0;
    slm_py_state *state = PyModule_GetState(module);
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOO", names, &size_object, &sweeps_object, &threads_object) ||
        (size_object && !slm_py_int(size_object, "size", 1 << 20, PTRDIFF_MAX, &size)) ||
        (sweeps_object && !slm_py_int(sweeps_object, "sweeps", 1, 1000000, &sweeps)) ||
        (threads_object && !slm_py_int(threads_object, "threads", 0, SLM_PY_MAX_THREADS, &threads))) {
        return NULL;
    }
    double speed = 0;
    slm_error error;
    slm_py_call call = {.call.threads = (int)threads};
    slm_py_call_begin(&call, state);
    slm_status status = slm_measure_bandwidth((size_t)size, (int)sweeps, &call.call, &speed, &error);
    bool ok = slm_py_call_end(&call);
    if (status) return slm_py_raise(state, &error);
    return ok ? PyFloat_FromDouble(speed) : NULL;
}

static PyObject *types(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    PyObject *dict = PyDict_New();
    for (int type = SLM_TYPE_NONE + 1; dict && type < SLM_TYPE_COUNT; type++) {
        PyObject *value = Py_BuildValue("(LL)", (long long)slm_type_block(type), (long long)slm_type_block_bytes(type));
        if (!value || PyDict_SetItemString(dict, slm_type_name(type), value)) Py_CLEAR(dict);
        Py_XDECREF(value);
    }
    return dict;
}

static PyObject *encodes(PyObject *module, PyObject *unused) {
    (void)module, (void)unused;
    PyObject *list = PyList_New(0);
    for (int type = SLM_TYPE_NONE + 1; list && type < SLM_TYPE_COUNT; type++) {
        PyObject *name = slm_type_encodes(type) ? PyUnicode_FromString(slm_type_name(type)) : NULL;
        if (name ? PyList_Append(list, name) : PyErr_Occurred() != NULL) Py_CLEAR(list);
        Py_XDECREF(name);
    }
    return list;
}

static PyObject *unpack_matrix(slm_py_state *state, const char *name, const Py_buffer *data, Py_ssize_t rows, Py_ssize_t cols) {
    slm_matrix matrix;
    slm_error error;
    slm_type type = slm_py_type(name);
    if (type == SLM_TYPE_NONE) return PyErr_Format(state->UnsupportedError, "type: %s is not one that slm packs", name);
    if (slm_matrix_describe(&matrix, type, rows, cols, false, &error)) return slm_py_raise(state, &error);
    size_t expected = slm_matrix_row_bytes(&matrix) * (size_t)rows;
    if ((size_t)data->len != expected)
        return PyErr_Format(PyExc_ValueError, "data: expected %zu bytes, found %zd", expected, data->len);
    float *out;
    PyObject *array = slm_py_new_array_f32(rows, cols, &out);
    matrix.data = slm_alloc(slm_matrix_bytes(&matrix));
    if (!array || !matrix.data) {
        Py_XDECREF(array);
        slm_free(matrix.data);
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    }
    slm_matrix_pack(&matrix, 0, matrix.n_panels, data->buf, rows);
    for (Py_ssize_t row = 0; row < rows; row++) slm_matrix_row(&matrix, row, out + row * cols);
    slm_free(matrix.data);
    return array;
}

static PyObject *unpack(PyObject *module, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"type", "data", "rows", "cols", NULL};
    const char *name;
    Py_buffer data;
    Py_ssize_t rows, cols;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sy*nn", names, &name, &data, &rows, &cols)) return NULL;
    PyObject *array = unpack_matrix(PyModule_GetState(module), name, &data, rows, cols);
    PyBuffer_Release(&data);
    return array;
}

static PyMethodDef functions[] = {
    {"cpu_info", cpu_info, METH_NOARGS, "cpu_info()\n--\n\nThe kernel tier, BLIS configuration and thread counts in use."},
    {"measure_bandwidth", (PyCFunction)(void (*)(void))measure_bandwidth, METH_VARARGS | METH_KEYWORDS,
     "measure_bandwidth(size=1 << 30, sweeps=5, threads=0)\n--\n\nBytes per second of the best read-only sweep over `size` "
     "bytes."},
    {"types", types, METH_NOARGS, "types()\n--\n\nName -> (elements, bytes) of a block of each tensor type that the core packs."},
    {"encodes", encodes, METH_NOARGS, "encodes()\n--\n\nNames of the types that float matrices can become while they are read."},
    {"unpack", (PyCFunction)(void (*)(void))unpack, METH_VARARGS | METH_KEYWORDS,
     "unpack(type, data, rows, cols)\n--\n\nPack a matrix into the kernel layout and read it back as [rows, cols] f32, exactly."},
    {NULL, NULL, 0, NULL},
};

/* ---- init ----------------------------------------------------------------------------------------------------------------- */

static int import_errors(slm_py_state *state) {
    PyObject *errors = PyImport_ImportModule("slm.errors");
    if (!errors) return -1;
    const struct {
        const char *name;
        PyObject **class;
    } classes[] = {
        {"FormatError", &state->FormatError},     {"UnsupportedError", &state->UnsupportedError},
        {"LimitError", &state->LimitError},       {"ContextLengthError", &state->ContextLengthError},
        {"NumericsError", &state->NumericsError}, {"ClosedError", &state->ClosedError},
        {"BusyError", &state->BusyError},         {"InternalError", &state->InternalError},
    };
    int result = 0;
    for (size_t i = 0; !result && i < sizeof classes / sizeof *classes; i++) {
        *classes[i].class = PyObject_GetAttrString(errors, classes[i].name);
        if (!*classes[i].class) result = -1;
    }
    Py_DECREF(errors);
    return result;
}

static int add_interrupt(PyObject *module, slm_py_state *state) {
    PyObject *contextvars = PyImport_ImportModule("contextvars");
    PyObject *class = contextvars ? PyObject_GetAttrString(contextvars, "ContextVar") : NULL;
    PyObject *args = class ? Py_BuildValue("(s)", "interrupt") : NULL,
             *kwargs = args ? Py_BuildValue("{sO}", "default", Py_None) : NULL;
    if (kwargs) state->interrupt = PyObject_Call(class, args, kwargs);
    Py_XDECREF(kwargs);
    Py_XDECREF(args);
    Py_XDECREF(class);
    Py_XDECREF(contextvars);
    return state->interrupt ? PyModule_AddObjectRef(module, "interrupt", state->interrupt) : -1;
}

bool slm_py_screening(void) {
    const char *value = getenv("SLM_SCREENING");
    return !value || strcmp(value, "0") != 0;
}

static int module_exec(PyObject *module) {
    slm_py_state *state = PyModule_GetState(module);
    slm_error error;
    if (slm_py_import_numpy() || import_errors(state) || add_interrupt(module, state)) return -1;
    if (slm_init(getenv("SLM_ISA"), &error)) {
        slm_py_raise(state, &error);
        return -1;
    }
    if (slm_py_add_model(module, state) || slm_py_add_session(module, state) || slm_py_add_generation(module, state)) return -1;
    if (slm_py_add_tokenizer(module, state) || slm_py_add_constraint(module, state)) return -1;
    return slm_py_add_token_lists(module, state);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    slm_py_state *state = PyModule_GetState(module);
    Py_VISIT(state->FormatError);
    Py_VISIT(state->UnsupportedError);
    Py_VISIT(state->LimitError);
    Py_VISIT(state->ContextLengthError);
    Py_VISIT(state->NumericsError);
    Py_VISIT(state->ClosedError);
    Py_VISIT(state->BusyError);
    Py_VISIT(state->InternalError);
    Py_VISIT(state->interrupt);
    Py_VISIT(state->Model);
    Py_VISIT(state->Session);
    Py_VISIT(state->Generation);
    Py_VISIT(state->Tokenizer);
    Py_VISIT(state->TokenIterator);
    Py_VISIT(state->Automaton);
    Py_VISIT(state->Constraint);
    return 0;
}

static int module_clear(PyObject *module) {
    slm_py_state *state = PyModule_GetState(module);
    Py_CLEAR(state->FormatError);
    Py_CLEAR(state->UnsupportedError);
    Py_CLEAR(state->LimitError);
    Py_CLEAR(state->ContextLengthError);
    Py_CLEAR(state->NumericsError);
    Py_CLEAR(state->ClosedError);
    Py_CLEAR(state->BusyError);
    Py_CLEAR(state->InternalError);
    Py_CLEAR(state->interrupt);
    Py_CLEAR(state->Model);
    Py_CLEAR(state->Session);
    Py_CLEAR(state->Generation);
    Py_CLEAR(state->Tokenizer);
    Py_CLEAR(state->TokenIterator);
    Py_CLEAR(state->Automaton);
    Py_CLEAR(state->Constraint);
    return 0;
}

static void module_free(void *module) {
    module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "slm._core",
    .m_doc = "The C core of slm. The public API is the package slm.",
    .m_size = sizeof(slm_py_state),
    .m_methods = functions,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&definition);
}
