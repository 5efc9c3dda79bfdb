/* SPDX-License-Identifier: Apache-2.0
 * taps.c: named activations of a call: arrays that get them, and functions that change them. */
#include <string.h>

#include "base/alloc.h"
#include "python/objects.h"

static const char *const sites[] = {
    [SLM_SITE_EMBED] = "embed",       [SLM_SITE_ATTN_IN] = "attn_in",      [SLM_SITE_ATTN_WEIGHTS] = "attn_weights",
    [SLM_SITE_ATTN_OUT] = "attn_out", [SLM_SITE_MLP_IN] = "mlp_in",        [SLM_SITE_MLP_OUT] = "mlp_out",
    [SLM_SITE_OUT] = "out",           [SLM_SITE_FINAL_NORM] = "final_norm"};

enum { N_SITES = sizeof sites / sizeof *sites, NAME_SIZE = 48 };

/* As users write it. */
static void name_of(const slm_tap *tap, char *name) {
    if (tap->site == SLM_SITE_EMBED || tap->site == SLM_SITE_FINAL_NORM) {
        PyOS_snprintf(name, NAME_SIZE, "%s", sites[tap->site]);
    } else {
        PyOS_snprintf(name, NAME_SIZE, "layer.%lld.%s", (long long)tap->layer, sites[tap->site]);
    }
}

/* (site, layer, array or function) */
static bool read_tap(PyObject *tuple, const slm_model_stats *model, int64_t n_tokens, int64_t n_keys, slm_tap *tap) {
    const char *site;
    PyObject *layer, *target;
    char name[NAME_SIZE];
    int which = 0;
    if (!PyArg_ParseTuple(tuple, "sO!O", &site, &PyLong_Type, &layer, &target)) return false; /* runs no Python */
    while (which < N_SITES && strcmp(site, sites[which])) which++;
    if (which == N_SITES) {
        PyErr_Format(PyExc_ValueError, "taps: the site '%.32s' is not known", site);
        return false;
    }
    *tap = (slm_tap){.site = which, .layer = PyLong_AsLongLong(layer)};
    if (PyErr_Occurred()) return false;
    bool of_layers = which != SLM_SITE_EMBED && which != SLM_SITE_FINAL_NORM;
    name_of(tap, name);
    if (of_layers && (tap->layer < 0 || tap->layer >= model->num_hidden_layers)) {
        PyErr_Format(PyExc_ValueError, "%s: there is no %s; the model has layers 0 to %lld",
                     PyCallable_Check(target) ? "edit" : "capture", name, (long long)model->num_hidden_layers - 1);
        return false;
    }
    if (PyCallable_Check(target)) return true;
    if (n_tokens < 0 || !slm_py_is_array(target)) {
        PyErr_Format(PyExc_TypeError, "%s: expected %s, found %R", name, n_tokens < 0 ? "a function" : "an array or a function",
                     (PyObject *)Py_TYPE(target));
        return false;
    }
    bool weights = which == SLM_SITE_ATTN_WEIGHTS;
    int64_t row = weights ? model->num_attention_heads * n_keys : model->hidden_size;
    return (tap->rows = slm_py_array_to_fill(target, name, n_tokens * row)) != NULL;
}

bool slm_py_read_taps(PyObject *taps, const slm_model *model, int64_t n_tokens, int64_t n_keys, slm_py_call *call) {
    if (!taps) return true;
    if (!PyTuple_Check(taps)) {
        PyErr_Format(PyExc_TypeError, "taps: expected a tuple, found %R", (PyObject *)Py_TYPE(taps));
        return false;
    }
    slm_model_stats stats;
    slm_model_describe(model, &stats);
    Py_ssize_t n = PyTuple_Size(taps);
    slm_tap *list = n ? slm_alloc_array((size_t)n, sizeof *list) : NULL;
    if (n && !list) return PyErr_NoMemory() != NULL;
    call->call.taps = list;
    call->call.n_taps = (size_t)n;
    call->taps = n ? taps : NULL;
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!read_tap(PyTuple_GetItem(taps, i), &stats, n_tokens, n_keys, &list[i])) return false;
    }
    return true;
}

void slm_py_free_taps(slm_py_call *call) {
    slm_free((void *)(uintptr_t)call->call.taps);
}

int slm_py_edit(const slm_py_call *call, const slm_event *event) {
    char name[NAME_SIZE];
    name_of(&call->call.taps[event->tap], name);
    return slm_py_edit_rows(PyTuple_GetItem(PyTuple_GetItem(call->taps, (Py_ssize_t)event->tap), 2), name, event);
}
