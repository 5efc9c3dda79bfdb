/* SPDX-License-Identifier: Apache-2.0
 * score.c: slm._core.Model.score: what the model thinks of given tokens. */
#include "base/alloc.h"
#include "python/objects.h"

/* Texts and room for what they get; whatever it returns, release_texts. */
static bool read_texts(PyObject *list, PyObject *counts, slm_scored *texts) {
    for (Py_ssize_t i = 0; i < PyList_Size(list); i++) {
        char name[32];
        slm_scored *t = &texts[i];
        PyOS_snprintf(name, sizeof name, "texts[%zd]", i);
        t->tokens = slm_py_tokens(PyList_GetItem(list, i), name, &t->n_tokens);
        PyOS_snprintf(name, sizeof name, "n_scored[%zd]", i);
        if (!t->tokens || !slm_py_int(PyList_GetItem(counts, i), name, 1, t->n_tokens - 1, &t->n_scored)) return false;
        t->logprobs = slm_alloc_array((size_t)t->n_scored, sizeof *t->logprobs);
        if (!t->logprobs) return PyErr_NoMemory() != NULL;
    }
    return true;
}

static void release_texts(slm_scored *texts, Py_ssize_t n) {
    for (Py_ssize_t i = 0; texts && i < n; i++) {
        slm_py_free((void *)(uintptr_t)texts[i].tokens);
        slm_free(texts[i].logprobs);
    }
    slm_free(texts);
}

static PyObject *scored_object(const slm_scored *text) {
    PyObject *logprobs = PyList_New((Py_ssize_t)text->n_scored);
    for (int64_t i = 0; logprobs && i < text->n_scored; i++) {
        PyObject *value = PyFloat_FromDouble(text->logprobs[i]);
        if (!value || PyList_SetItem(logprobs, (Py_ssize_t)i, value)) Py_CLEAR(logprobs);
    }
    return logprobs ? Py_BuildValue("(NO)", logprobs, text->greedy ? Py_True : Py_False) : NULL;
}

PyObject *slm_py_model_score(PyObject *object, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"texts", "n_scored", "threads", "prefill_chunk", "progress", NULL};
    slm_py_state *state = slm_py_state_of(Py_TYPE(object));
    slm_model *model = ((slm_py_model *)object)->model;
    PyObject *sequence, *numbers, *threads = NULL, *prefill_chunk = NULL, *progress = Py_None, *result = NULL;
    slm_py_call call = {.progress_kind = SLM_EVENT_ENDED};
    slm_error error;
    if (!model) return PyErr_Format(state->ClosedError, "the model was not initialised");
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO|OOO", names, &sequence, &numbers, &threads, &prefill_chunk, &progress) ||
        !slm_py_call_options(threads, prefill_chunk, &call.call)) {
        return NULL;
    }
    PyObject *list = PySequence_List(sequence), *counts = list ? PySequence_List(numbers) : NULL;
    Py_ssize_t n = counts ? PyList_Size(list) : 0;
    slm_scored *texts = counts ? slm_alloc_zero((size_t)n, sizeof *texts) : NULL;
    if (counts && !texts) {
        PyErr_NoMemory();
    } else if (counts && PyList_Size(counts) != n) {
        PyErr_Format(PyExc_ValueError, "n_scored: expected one for each of %zd texts, found %zd", n, PyList_Size(counts));
    } else if (counts && read_texts(list, counts, texts)) {
        call.progress = progress == Py_None ? NULL : progress;
        slm_py_call_begin(&call, state);
        slm_status status = slm_score(model, texts, (size_t)n, &call.call, &error);
        if (slm_py_call_end(&call) && !status) {
            result = PyList_New(n);
        } else if (status) {
            slm_py_raise(state, &error);
        }
    }
    for (Py_ssize_t i = 0; result && i < n; i++) {
        PyObject *item = scored_object(&texts[i]);
        if (!item || PyList_SetItem(result, i, item)) Py_CLEAR(result);
    }
    release_texts(texts, n);
    Py_XDECREF(list);
    Py_XDECREF(counts);
    return result;
}
