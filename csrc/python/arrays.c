/* SPDX-License-Identifier: Apache-2.0
 * arrays.c: NumPy arrays in and out; the only file that uses NumPy's C API. */
#include "python/arrays.h"

#include <math.h>
#include <numpy/arrayobject.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

int slm_py_import_numpy(void) {
    import_array1(-1);
    return 0;
}

PyObject *slm_py_new_array_f32(int64_t rows, int64_t cols, float **data) {
    npy_intp shape[2] = {(npy_intp)(rows < 0 ? cols : rows), (npy_intp)cols};
    PyObject *array = PyArray_ZEROS(rows < 0 ? 1 : 2, shape, NPY_FLOAT32, 0);
    if (array) *data = PyArray_DATA((PyArrayObject *)array);
    return array;
}

PyObject *slm_py_new_array_u64(int64_t count, uint64_t **data) {
    npy_intp shape = (npy_intp)count;
    PyObject *array = PyArray_ZEROS(1, &shape, NPY_UINT64, 0);
    if (array) *data = PyArray_DATA((PyArrayObject *)array);
    return array;
}

/* 0, or -1 with an exception: what one of them may return is nothing, or the array itself. */
static int call_processor(PyObject *processors, Py_ssize_t i, PyObject *tokens, PyObject *logits) {
    PyObject *result = PyObject_CallFunctionObjArgs(PyTuple_GetItem(processors, i), tokens, logits, NULL);
    if (!result) return -1;
    bool ok = result == Py_None || result == logits;
    if (!ok) {
        PyErr_Format(PyExc_TypeError, "processors[%zd] must change logits in place and return None, found %R", i,
                     (PyObject *)Py_TYPE(result));
    }
    Py_DECREF(result);
    return ok ? 0 : -1;
}

int slm_py_process_logits(PyObject *processors, const slm_event *event) {
    npy_intp n_tokens = (npy_intp)event->n_tokens, n_logits = (npy_intp)event->n_logits;
    size_t bytes = event->n_logits * sizeof(float);
    PyObject *tokens = PyArray_SimpleNew(1, &n_tokens, NPY_INT32), *logits = PyArray_SimpleNew(1, &n_logits, NPY_FLOAT32);
    int failed = tokens && logits ? 0 : -1;
    if (!failed) {
        memcpy(PyArray_DATA((PyArrayObject *)tokens), event->tokens, event->n_tokens * sizeof(int32_t));
        memcpy(PyArray_DATA((PyArrayObject *)logits), event->logits, bytes);
    }
    for (Py_ssize_t i = 0; !failed && i < PyTuple_Size(processors); i++) failed = call_processor(processors, i, tokens, logits);
    if (!failed && (size_t)PyArray_NBYTES((PyArrayObject *)logits) != bytes) {
        PyErr_SetString(PyExc_ValueError, "processors: the array of logits has another size");
        failed = -1;
    }
    if (!failed) memcpy(event->logits, PyArray_DATA((PyArrayObject *)logits), bytes);
    Py_XDECREF(tokens);
    Py_XDECREF(logits);
    return failed;
}

bool slm_py_is_array(PyObject *object) {
    return PyArray_Check(object);
}

float *slm_py_array_to_fill(PyObject *object, const char *name, int64_t n) {
    PyArrayObject *array = (PyArrayObject *)object;
    if (PyArray_TYPE(array) == NPY_FLOAT32 && PyArray_ISCARRAY(array) && PyArray_SIZE(array) == n) return PyArray_DATA(array);
    PyErr_Format(PyExc_ValueError, "%s: expected a contiguous, writable float32 array of %lld elements", name, (long long)n);
    return NULL;
}

/* Rows of that shape in f32, a new reference. */
static PyArrayObject *edited_rows(PyObject *object, const char *name, const npy_intp *shape) {
    PyArrayObject *array = (PyArrayObject *)object;
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "edit of %s must change its array in place and return None, or return an array, not %R",
                     name, (PyObject *)Py_TYPE(object));
    } else if (!PyArray_ISFLOAT(array)) {
        PyErr_Format(PyExc_TypeError, "edit of %s: expected an array of floats, found %R", name,
                     (PyObject *)PyArray_DESCR(array));
    } else if (PyArray_NDIM(array) != 2 || PyArray_DIM(array, 0) != shape[0] || PyArray_DIM(array, 1) != shape[1]) {
        PyObject *found = PyObject_GetAttrString(object, "shape");
        if (found) {
            PyErr_Format(PyExc_ValueError, "edit of %s: expected an array of shape (%zd, %zd), found %R", name,
                         (Py_ssize_t)shape[0], (Py_ssize_t)shape[1], found);
        }
        Py_XDECREF(found);
    } else {
        return (PyArrayObject *)PyArray_FROM_OTF(object, NPY_FLOAT32, NPY_ARRAY_IN_ARRAY | NPY_ARRAY_FORCECAST);
    }
    return NULL;
}

/* -1 with an exception: a row is not finite, and none has changed. */
static int take_rows(const float *rows, const char *name, const slm_event *event) {
    int64_t n = event->hidden_size;
    for (int64_t i = 0; i < event->n_rows * n; i++) {
        if (isfinite(rows[i])) continue;
        PyErr_Format(PyExc_ValueError, "edit of %s: element [%lld, %lld] has become NaN or infinite", name, (long long)(i / n),
                     (long long)(i % n));
        return -1;
    }
    for (int64_t i = 0; i < event->n_rows; i++) memcpy(event->rows + i * event->ld, rows + i * n, (size_t)n * sizeof *rows);
    return 0;
}

int slm_py_edit_rows(PyObject *function, const char *name, const slm_event *event) {
    npy_intp shape[2] = {(npy_intp)event->n_rows, (npy_intp)event->hidden_size};
    PyObject *rows = PyArray_SimpleNew(2, shape, NPY_FLOAT32), *positions = PyArray_SimpleNew(1, shape, NPY_INT64),
             *result = NULL;
    if (rows && positions) {
        float *to = PyArray_DATA((PyArrayObject *)rows);
        npy_int64 *position = PyArray_DATA((PyArrayObject *)positions);
        for (int64_t i = 0; i < event->n_rows; i++) {
            memcpy(to + i * shape[1], event->rows + i * event->ld, (size_t)shape[1] * sizeof *to);
            position[i] = event->first_position + i;
        }
        result = PyObject_CallFunctionObjArgs(function, rows, positions, NULL);
    }
    PyArrayObject *edited = result ? edited_rows(result == Py_None ? rows : result, name, shape) : NULL;
    int failed = edited ? take_rows(PyArray_DATA(edited), name, event) : -1;
    Py_XDECREF((PyObject *)edited);
    Py_XDECREF(result);
    Py_XDECREF(positions);
    Py_XDECREF(rows);
    return failed;
}

const float *slm_py_rows(PyObject *object, const char *name, int64_t cols, int64_t *rows, PyObject **keep) {
    PyArrayObject *array = (PyArrayObject *)PyArray_FROM_OTF(object, NPY_FLOAT32, NPY_ARRAY_IN_ARRAY);
    if (!array) return NULL;
    if (PyArray_NDIM(array) != 2 || PyArray_DIM(array, 1) != cols) {
        PyObject *found = PyObject_GetAttrString((PyObject *)array, "shape");
        if (found)
            PyErr_Format(PyExc_ValueError, "%s: expected an array [n, %lld], found one of shape %R", name, (long long)cols,
                         found);
        Py_XDECREF(found);
        Py_DECREF(array);
        return NULL;
    }
    *rows = PyArray_DIM(array, 0);
    *keep = (PyObject *)array;
    return PyArray_DATA(array);
}

int slm_py_ask_guide(PyObject *guide, const slm_event *event) {
    npy_intp n_tokens = (npy_intp)event->n_tokens;
    Py_ssize_t least = (Py_ssize_t)(event->n_allowed + 7) / 8, most = (Py_ssize_t)(event->n_allowed + 63) / 64 * 8, size = 0;
    PyObject *tokens = PyArray_SimpleNew(1, &n_tokens, NPY_INT32), *bits = NULL;
    char *bytes = NULL;
    if (tokens) {
        memcpy(PyArray_DATA((PyArrayObject *)tokens), event->tokens, event->n_tokens * sizeof(int32_t));
        bits = PyObject_CallFunction(guide, "KO", (unsigned long long)event->text, tokens);
    }
    bool ok = bits && !PyBytes_AsStringAndSize(bits, &bytes, &size);
    if (ok && (size < least || size > most)) {
        PyErr_Format(PyExc_ValueError, "guide: expected %zd bytes of bits, found %zd", least, size);
        ok = false;
    }
    if (ok) memcpy(event->allowed, bytes, (size_t)size); /* every machine that slm builds on is little-endian */
    Py_XDECREF(bits);
    Py_XDECREF(tokens);
    return ok ? 0 : -1;
}

const float *slm_py_floats(PyObject *object, const char *name, int64_t *count, PyObject **keep) {
    PyArrayObject *array = (PyArrayObject *)PyArray_FROM_OTF(object, NPY_FLOAT32, NPY_ARRAY_IN_ARRAY);
    if (!array) return NULL;
    if (PyArray_NDIM(array) != 1) {
        PyErr_Format(PyExc_ValueError, "%s: expected one dimension, found %d", name, PyArray_NDIM(array));
        Py_DECREF(array);
        return NULL;
    }
    *count = PyArray_DIM(array, 0);
    *keep = (PyObject *)array;
    return PyArray_DATA(array);
}

bool slm_py_strings(PyObject *object, const char *name, slm_strings *strings, PyObject **keep) {
    PyObject *bytes, *offsets;
    char *data;
    Py_ssize_t size;
    if (!PyTuple_Check(object) || PyTuple_Size(object) != 2) {
        PyErr_Format(PyExc_TypeError, "%s: expected (bytes, offsets), found %R", name, (PyObject *)Py_TYPE(object));
        return false;
    }
    bytes = PyTuple_GetItem(object, 0);
    if (PyBytes_AsStringAndSize(bytes, &data, &size)) return false;
    offsets = PyArray_FROM_OTF(PyTuple_GetItem(object, 1), NPY_UINT64, NPY_ARRAY_IN_ARRAY);
    if (!offsets) return false;
    PyArrayObject *array = (PyArrayObject *)offsets;
    npy_intp n = PyArray_NDIM(array) == 1 ? PyArray_DIM(array, 0) : 0;
    const uint64_t *at = PyArray_DATA(array);
    bool ascending = n >= 1 && at[n - 1] <= (uint64_t)size;
    for (npy_intp i = 0; ascending && i + 1 < n; i++) ascending = at[i] <= at[i + 1];
    *keep = ascending ? PyTuple_Pack(2, bytes, offsets) : NULL;
    Py_DECREF(offsets);
    if (!ascending) {
        PyErr_Format(PyExc_ValueError, "%s: expected ascending offsets [count + 1] inside the %zd bytes", name, size);
        return false;
    }
    *strings = (slm_strings){.bytes = data, .offsets = at, .count = (size_t)n - 1};
    return *keep != NULL;
}

static int32_t *tokens_of_array(PyArrayObject *object, const char *name, int64_t *count) {
    if (!PyArray_ISINTEGER(object) || PyArray_NDIM(object) != 1) {
        PyErr_Format(PyExc_TypeError, "%s: expected a one-dimensional array of integers", name);
        return NULL;
    }
    PyArrayObject *array =
        (PyArrayObject *)PyArray_FROM_OTF((PyObject *)object, NPY_INT64, NPY_ARRAY_IN_ARRAY | NPY_ARRAY_FORCECAST);
    if (!array) return NULL;
    npy_intp n = PyArray_DIM(array, 0);
    const npy_int64 *values = PyArray_DATA(array);
    int32_t *tokens = slm_alloc_array((size_t)n, sizeof *tokens);
    if (!tokens) PyErr_NoMemory();
    for (npy_intp i = 0; tokens && i < n; i++) {
        if (values[i] < 0 || values[i] > INT32_MAX) {
            PyErr_Format(PyExc_ValueError, "%s[%zd]: expected 0 to %d, found %lld", name, (Py_ssize_t)i, INT32_MAX,
                         (long long)values[i]);
            slm_free(tokens);
            tokens = NULL;
            break;
        }
        tokens[i] = (int32_t)values[i];
    }
    Py_DECREF(array);
    *count = n;
    return tokens;
}

static bool token_of(PyObject *item, const char *name, Py_ssize_t i, int64_t *value) {
    char label[96];
    int overflow;
    *value = PyLong_CheckExact(item) ? PyLong_AsLongLongAndOverflow(item, &overflow) : -1;
    if (*value >= 0 && *value <= INT32_MAX) return true;
    snprintf(label, sizeof label, "%.60s[%zd]", name, i);
    return slm_py_int(item, label, 0, INT32_MAX, value);
}

static int32_t *tokens_of_sequence(PyObject *object, const char *name, int64_t *count) {
    Py_ssize_t n = PyUnicode_Check(object) || PyBytes_Check(object) || !PySequence_Check(object) ? -1 : PySequence_Size(object);
    if (n < 0) {
        PyErr_Format(PyExc_TypeError, "%s: expected a sequence of token ids, found %R", name, (PyObject *)Py_TYPE(object));
        return NULL;
    }
    int32_t *tokens = slm_alloc_array((size_t)n, sizeof *tokens);
    if (!tokens) PyErr_NoMemory();
    for (Py_ssize_t i = 0; tokens && i < n; i++) {
        int64_t value = 0;
        PyObject *item = (i + 1) % SLM_PY_TOKENS_PER_LOOK || !PyErr_CheckSignals() ? PySequence_GetItem(object, i) : NULL;
        bool ok = item && token_of(item, name, i, &value);
        Py_XDECREF(item);
        if (!ok) {
            slm_free(tokens);
            return NULL;
        }
        tokens[i] = (int32_t)value;
    }
    *count = n;
    return tokens;
}

int32_t *slm_py_tokens(PyObject *object, const char *name, int64_t *count) {
    if (PyArray_Check(object)) return tokens_of_array((PyArrayObject *)object, name, count);
    return tokens_of_sequence(object, name, count);
}
