/* SPDX-License-Identifier: Apache-2.0
 * model.c: slm._core.Model: mappings of config and tensors to the core's structs, and the packed weights they become. */
#include <stddef.h>
#include <string.h>

#include "base/alloc.h"
#include "python/objects.h"

slm_type slm_py_type(const char *name) {
    for (int type = SLM_TYPE_NONE + 1; type < SLM_TYPE_COUNT; type++) {
        if (!strcmp(slm_type_name(type), name)) return type;
    }
    return SLM_TYPE_NONE;
}

/* ---- fields of mappings -----------------------------------------------------------------------------------------------------
 */

/* A new reference to mapping[name]; NULL with an exception. */
static PyObject *field(PyObject *mapping, const char *name) {
    PyObject *value = PyMapping_GetItemString(mapping, name);
    if (!value && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Format(PyExc_ValueError, "%s: missing", name);
    return value;
}

static bool int_field(PyObject *mapping, const char *name, int64_t *out) {
    PyObject *value = field(mapping, name);
    bool ok = value && slm_py_int(value, name, INT64_MIN, INT64_MAX, out);
    Py_XDECREF(value);
    return ok;
}

static bool float_field(PyObject *mapping, const char *name, float *out) {
    PyObject *value = field(mapping, name);
    double number;
    bool ok = value && slm_py_float(value, name, &number);
    if (ok) *out = (float)number;
    Py_XDECREF(value);
    return ok;
}

/* The index of mapping[name] in names. */
static bool enum_field(PyObject *mapping, const char *name, const char *const *names, int *out) {
    PyObject *value = field(mapping, name);
    if (!value) return false;
    const char *text = PyUnicode_Check(value) ? PyUnicode_AsUTF8AndSize(value, NULL) : NULL;
    for (int i = 0; text && names[i]; i++) {
        if (!strcmp(names[i], text)) {
            *out = i;
            Py_DECREF(value);
            return true;
        }
    }
    if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "%s: %R is not known", name, value);
    Py_DECREF(value);
    return false;
}

static bool tensor_field(const slm_py_state *state, PyObject *mapping, const char *name, bool optional, slm_tensor *out) {
    PyObject *value = field(mapping, name);
    if (!value) return false;
    bool ok = false;
    const char *type;
    long long offset, rows, cols;
    memset(out, 0, sizeof *out);
    if (value == Py_None && optional) {
        ok = true;
    } else if (!PyTuple_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s: expected (type, fd, offset, rows, cols), found %R", name, (PyObject *)Py_TYPE(value));
    } else if (PyArg_ParseTuple(value, "siLLL", &type, &out->fd, &offset, &rows, &cols)) {
        out->type = slm_py_type(type);
        out->offset = (uint64_t)offset;
        out->rows = rows;
        out->cols = cols;
        ok = out->type != SLM_TYPE_NONE && offset >= 0;
        if (offset < 0)
            PyErr_Format(PyExc_ValueError, "%s: expected an offset >= 0, found %lld", name, offset);
        else if (!ok)
            PyErr_Format(state->UnsupportedError, "%s: tensor type %s is not one that slm packs", name, type);
    }
    Py_DECREF(value);
    return ok;
}

/* keep: a new reference to what config borrows from. */
static bool read_config(PyObject *mapping, slm_config *config, PyObject **keep) {
    static const char *const activations[] = {[SLM_ACTIVATION_SILU] = "silu", NULL};
    static const char *const rope_styles[] = {[SLM_ROPE_HALF] = "half", [SLM_ROPE_INTERLEAVED] = "interleaved", NULL};
    const struct {
        const char *name;
        int64_t *out;
    } ints[] = {
        {"vocab_size", &config->vocab_size},
        {"hidden_size", &config->hidden_size},
        {"intermediate_size", &config->intermediate_size},
        {"num_hidden_layers", &config->num_hidden_layers},
        {"num_attention_heads", &config->num_attention_heads},
        {"num_key_value_heads", &config->num_key_value_heads},
        {"head_dim", &config->head_dim},
        {"max_position_embeddings", &config->max_position_embeddings},
        {"rotary_dim", &config->rotary_dim},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        if (!int_field(mapping, ints[i].name, ints[i].out)) return false;
    }
    int activation, rope_style;
    if (!float_field(mapping, "rms_norm_eps", &config->rms_norm_eps) ||
        !float_field(mapping, "attention_scale", &config->attention_scale) ||
        !enum_field(mapping, "hidden_act", activations, &activation) ||
        !enum_field(mapping, "rope_style", rope_styles, &rope_style)) {
        return false;
    }
    config->hidden_act = activation;
    config->rope_style = rope_style;
    int64_t half;
    PyObject *value = field(mapping, "rope_inv_freq");
    config->rope_inv_freq = value ? slm_py_floats(value, "rope_inv_freq", &half, keep) : NULL;
    Py_XDECREF(value);
    if (!config->rope_inv_freq) return false;
    if (half != config->rotary_dim / 2) {
        PyErr_Format(PyExc_ValueError, "rope_inv_freq: expected rotary_dim / 2 = %lld numbers, found %lld",
                     (long long)config->rotary_dim / 2, (long long)half);
        return false;
    }
    return true;
}

static bool read_layer(const slm_py_state *state, PyObject *mapping, slm_layer_weights *layer) {
    const struct {
        const char *name;
        slm_tensor *out;
    } tensors[] = {
        {"input_layernorm", &layer->input_layernorm},
        {"q_proj", &layer->q_proj},
        {"k_proj", &layer->k_proj},
        {"v_proj", &layer->v_proj},
        {"o_proj", &layer->o_proj},
        {"post_attention_layernorm", &layer->post_attention_layernorm},
        {"gate_proj", &layer->gate_proj},
        {"up_proj", &layer->up_proj},
        {"down_proj", &layer->down_proj},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        if (!tensor_field(state, mapping, tensors[i].name, false, tensors[i].out)) return false;
    }
    return int_field(mapping, "down_proj_group", &layer->down_proj_group);
}

/* weights->layers becomes a block to be freed with slm_free, also on failure. */
static bool read_weights(const slm_py_state *state, PyObject *mapping, int64_t n_layers, slm_weights *weights) {
    if (!tensor_field(state, mapping, "embed_tokens", false, &weights->embed_tokens) ||
        !tensor_field(state, mapping, "norm", false, &weights->norm) ||
        !tensor_field(state, mapping, "lm_head", true, &weights->lm_head)) {
        return false;
    }
    PyObject *list = field(mapping, "layers");
    if (!list) return false;
    Py_ssize_t found = PySequence_Size(list);
    bool ok = found >= 0 && found == n_layers;
    if (found >= 0 && !ok)
        PyErr_Format(PyExc_ValueError, "layers: expected num_hidden_layers = %lld, found %zd", (long long)n_layers, found);
    slm_layer_weights *layers = ok ? slm_alloc_zero((size_t)found, sizeof *layers) : NULL;
    if (ok && !layers) PyErr_NoMemory();
    weights->layers = layers;
    ok = ok && layers;
    for (Py_ssize_t i = 0; ok && i < found; i++) {
        PyObject *item = PySequence_GetItem(list, i);
        ok = item && read_layer(state, item, &layers[i]);
        Py_XDECREF(item);
    }
    Py_DECREF(list);
    return ok;
}

/* ---- the type
 * ------------------------------------------------------------------------------------------------------------------ */

static int model_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"config", "weights", "context", "kv", "threads", "progress", NULL};
    static const char *const kv_types[] = {[SLM_KV_AUTO] = "auto", [SLM_KV_F32] = "f32", [SLM_KV_BF16] = "bf16", NULL};
    slm_py_model *model = (slm_py_model *)self;
    slm_py_state *state = slm_py_state_of(Py_TYPE(self));
    PyObject *config_map, *weights_map, *progress = Py_None, *keep = NULL;
    long long context;
    const char *kv_name;
    PyObject *threads_object = NULL;
    int64_t threads = 0;
    int kv = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOLs|OO", names, &config_map, &weights_map, &context, &kv_name,
                                     &threads_object, &progress) ||
        (threads_object && !slm_py_int(threads_object, "threads", 0, SLM_PY_MAX_THREADS, &threads))) {
        return -1;
    }
    while (kv_types[kv] && strcmp(kv_types[kv], kv_name)) kv++;
    if (!kv_types[kv]) {
        PyErr_Format(PyExc_ValueError, "kv: expected 'auto', 'f32' or 'bf16', found '%.32s'", kv_name);
        return -1;
    }
    slm_config config = {0};
    slm_weights weights = {0};
    slm_error error;
    bool ok = read_config(config_map, &config, &keep) && read_weights(state, weights_map, config.num_hidden_layers, &weights);
    if (ok) {
        slm_model *loaded = NULL;
        slm_py_call call = {.call.threads = (int)threads, .progress = progress == Py_None ? NULL : progress};
        slm_py_call_begin(&call, state);
        slm_status status = slm_model_load(&config, &weights, context, kv, &call.call, &loaded, &error);
        ok = slm_py_call_end(&call) && !status;
        if (ok) {
            slm_model_release(model->model);
            model->model = loaded;
        } else {
            slm_model_release(loaded);
            if (status) slm_py_raise(state, &error);
        }
    }
    slm_free((void *)(uintptr_t)weights.layers);
    Py_XDECREF(keep);
    return ok ? 0 : -1;
}

static bool ready(const slm_py_state *state, const slm_py_model *model) {
    if (!model->model) PyErr_SetString(state->ClosedError, "the model holds no weights");
    return model->model != NULL;
}

static PyObject *model_stats(PyObject *self, PyObject *unused) {
    (void)unused;
    slm_py_model *model = (slm_py_model *)self;
    if (!ready(slm_py_state_of(Py_TYPE(self)), model)) return NULL;
    slm_model_stats stats;
    slm_model_describe(model->model, &stats);
    return Py_BuildValue("{s:n,s:n,s:n,s:L,s:L,s:s}", "weight_bytes", (Py_ssize_t)stats.weight_bytes, "token_bytes",
                         (Py_ssize_t)stats.token_bytes, "kv_bytes_per_token", (Py_ssize_t)stats.kv_bytes_per_token, "context",
                         (long long)stats.context, "vocab_size", (long long)stats.vocab_size, "kv",
                         stats.kv == SLM_KV_F32 ? "f32" : "bf16");
}

static PyObject *model_session(PyObject *self, PyObject *unused) {
    (void)unused;
    slm_py_model *model = (slm_py_model *)self;
    slm_py_state *state = slm_py_state_of(Py_TYPE(self));
    if (!ready(state, model)) return NULL;
    slm_session *session = NULL;
    slm_error error;
    if (slm_session_create(model->model, &session, &error)) return slm_py_raise(state, &error);
    return slm_py_wrap_session(state, session);
}

static void model_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    slm_model_release(((slm_py_model *)self)->model);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"stats", model_stats, METH_NOARGS, "stats()\n--\n\nBytes held and read, context, vocabulary size, KV type."},
    {"session", model_session, METH_NOARGS, "session()\n--\n\nA new, empty session."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Packed weights. Immutable; shared by any number of sessions and threads."},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, model_init},
    {Py_tp_dealloc, model_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "slm._core.Model",
    .basicsize = sizeof(slm_py_model),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

int slm_py_add_model(PyObject *module, slm_py_state *state) {
    state->Model = (PyTypeObject *)PyType_FromModuleAndSpec(module, &spec, NULL);
    return state->Model ? PyModule_AddType(module, state->Model) : -1;
}
