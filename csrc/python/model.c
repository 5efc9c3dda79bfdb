/* SPDX-License-Identifier: Apache-2.0
 * model.c: slm._core.Model: mappings of config and tensors to the core's structs, and the packed weights they become. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "python/objects.h"

slm_type slm_py_type(const char *name) {
    for (int type = SLM_TYPE_NONE + 1; type < SLM_TYPE_COUNT; type++) {
        if (!strcmp(slm_type_name(type), name)) return type;
    }
    return SLM_TYPE_NONE;
}

/* ---- fields of mappings --------------------------------------------------------------------------------------------------- */

/* A mapping whose fields are read one by one. n_read: how many were there, so that one nobody asked for is noticed. */
typedef struct fields {
    const slm_py_state *state;
    PyObject *mapping;
    Py_ssize_t n_read;
    slm_tensor **pieces; /* see slm_py_tensor */
} fields;

/* A new reference to mapping[name]; NULL without an exception where there is none. */
static PyObject *optional_field(fields *f, const char *name) {
    PyObject *value = PyMapping_GetItemString(f->mapping, name);
    if (value) f->n_read++;
    if (!value && PyErr_ExceptionMatches(PyExc_KeyError)) PyErr_Clear();
    return value;
}

/* A new reference to mapping[name]; NULL with an exception. */
static PyObject *field(fields *f, const char *name) {
    PyObject *value = optional_field(f, name);
    if (!value && !PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "%s: missing", name);
    return value;
}

static bool all_read(const fields *f, const char *what) {
    Py_ssize_t found = PyMapping_Size(f->mapping);
    if (found >= 0 && found != f->n_read)
        PyErr_Format(PyExc_ValueError, "%s: %zd of its %zd fields are not known", what, found - f->n_read, found);
    return found == f->n_read;
}

static bool int_field(fields *f, const char *name, int64_t *out) {
    PyObject *value = field(f, name);
    bool ok = value && slm_py_int(value, name, INT64_MIN, INT64_MAX, out);
    Py_XDECREF(value);
    return ok;
}

/* *out stays as it is where there is no such field. */
static bool optional_int_field(fields *f, const char *name, int64_t *out) {
    PyObject *value = optional_field(f, name);
    bool ok = value ? slm_py_int(value, name, INT64_MIN, INT64_MAX, out) : !PyErr_Occurred();
    Py_XDECREF(value);
    return ok;
}

static bool optional_float_field(fields *f, const char *name, float *out) {
    PyObject *value = optional_field(f, name);
    double number = 0;
    bool ok = value ? slm_py_float(value, name, &number) : !PyErr_Occurred();
    if (value && ok) *out = (float)number;
    Py_XDECREF(value);
    return ok;
}

static bool optional_bool_field(fields *f, const char *name, bool *out) {
    PyObject *value = optional_field(f, name);
    int truth = value ? PyObject_IsTrue(value) : 0;
    Py_XDECREF(value);
    *out = truth > 0;
    return truth >= 0 && !PyErr_Occurred();
}

/* The index of mapping[name] in names. */
static bool enum_field(fields *f, const char *name, const char *const *names, int *out) {
    PyObject *value = field(f, name);
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

/* (type, fd, offset, rows, cols), with a sixth element transposed_ld where the file holds it transposed. */
static bool read_piece(const slm_py_state *state, PyObject *tuple, const char *name, slm_tensor *out) {
    const char *type;
    long long offset, rows, cols, transposed_ld = 0;
    for (Py_ssize_t i = 1; i < PyTuple_Size(tuple); i++) { /* a number of another class could run Python, which changes lists */
        PyObject *item = PyTuple_GetItem(tuple, i);
        if (!PyLong_Check(item)) {
            PyErr_Format(PyExc_TypeError, "%s: expected int, found %R", name, (PyObject *)Py_TYPE(item));
            return false;
        }
    }
    if (!PyArg_ParseTuple(tuple, "siLLL|L", &type, &out->fd, &offset, &rows, &cols, &transposed_ld)) return false;
    out->type = slm_py_type(type);
    out->offset = (uint64_t)offset;
    out->rows = rows;
    out->cols = cols;
    out->transposed_ld = transposed_ld;
    if (offset < 0 || transposed_ld < 0) {
        PyErr_Format(PyExc_ValueError, "%s: expected an offset and a transposed_ld >= 0, found %lld and %lld", name, offset,
                     transposed_ld);
        return false;
    }
    if (out->type == SLM_TYPE_NONE) {
        PyErr_Format(state->UnsupportedError, "%s: tensor type %s is not one that slm packs", name, type);
        return false;
    }
    return true;
}

/* A sequence of pieces whose rows follow each other. */
static bool read_pieces(const slm_py_state *state, PyObject *list, const char *name, slm_tensor **pieces, slm_tensor *out) {
    Py_ssize_t n = PyList_Size(list);
    if (n < 1 || (n > 1 && !pieces)) {
        PyErr_Format(PyExc_ValueError, "%s: expected %s, found %zd pieces", name, pieces ? "at least one" : "one piece", n);
        return false;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        slm_tensor *piece = i ? (*pieces)++ : out;
        PyObject *item = PyList_GetItem(list, i);
        if (!PyTuple_Check(item)) {
            PyErr_Format(PyExc_TypeError, "%s: expected tuples, found %R", name, (PyObject *)Py_TYPE(item));
            return false;
        }
        if (!read_piece(state, item, name, piece)) return false;
        if (i) (i > 1 ? piece - 1 : out)->below = piece;
    }
    return true;
}

bool slm_py_tensor(const slm_py_state *state, PyObject *value, const char *name, slm_tensor **pieces, slm_tensor *out) {
    if (PyTuple_Check(value)) return read_piece(state, value, name, out);
    if (PyList_Check(value)) return read_pieces(state, value, name, pieces, out);
    PyErr_Format(PyExc_TypeError, "%s: expected (type, fd, offset, rows, cols) or a list of such, found %R", name,
                 (PyObject *)Py_TYPE(value));
    return false;
}

static bool tensor_field(fields *f, const char *name, bool optional, slm_tensor *out) {
    PyObject *value = optional ? optional_field(f, name) : field(f, name);
    if (!value) return optional && !PyErr_Occurred();
    bool ok = (value == Py_None && optional) || slm_py_tensor(f->state, value, name, f->pieces, out);
    Py_DECREF(value);
    return ok;
}

/* A matrix or norm, and <name>_bias. */
static bool affine_field(fields *f, const char *name, bool optional, slm_affine *out) {
    char bias[64];
    snprintf(bias, sizeof bias, "%s_bias", name);
    return tensor_field(f, name, optional, &out->weight) && tensor_field(f, bias, true, &out->bias);
}

/* keep: a new reference to what config borrows from. */
static bool read_config(const slm_py_state *state, PyObject *mapping, slm_config *config, PyObject **keep) {
    static const char *const activations[] = {[SLM_ACTIVATION_SILU] = "silu",
                                              [SLM_ACTIVATION_GELU] = "gelu",
                                              [SLM_ACTIVATION_GELU_TANH] = "gelu_tanh",
                                              [SLM_ACTIVATION_RELU2] = "relu2",
                                              NULL};
    static const char *const rope_styles[] = {[SLM_ROPE_HALF] = "half", [SLM_ROPE_INTERLEAVED] = "interleaved", NULL};
    static const char *const norm_kinds[] = {[SLM_NORM_RMS] = "rms", [SLM_NORM_LAYER] = "layer", NULL};
    fields f = {.state = state, .mapping = mapping};
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
    const struct {
        const char *name;
        float *out;
    } floats[] = {
        {"norm_eps", &config->norm_eps},
        {"norm_offset", &config->norm_offset},
        {"rope_factor", &config->rope_factor},
        {"attention_scale", &config->attention_scale},
        {"attention_softcap", &config->attention_softcap},
        {"logits_softcap", &config->logits_softcap},
        {"logits_scale", &config->logits_scale},
        {"embedding_scale", &config->embedding_scale},
        {"residual_scale", &config->residual_scale},
    };
    for (size_t i = 0; i < sizeof ints / sizeof *ints; i++) {
        if (!int_field(&f, ints[i].name, ints[i].out)) return false;
    }
    for (size_t i = 0; i < sizeof floats / sizeof *floats; i++) {
        if (!optional_float_field(&f, floats[i].name, floats[i].out)) return false;
    }
    int activation, rope_style, norm_kind;
    if (!enum_field(&f, "hidden_act", activations, &activation) || !enum_field(&f, "rope_style", rope_styles, &rope_style) ||
        !enum_field(&f, "norm_kind", norm_kinds, &norm_kind) ||
        !optional_bool_field(&f, "parallel_residual", &config->parallel_residual) ||
        !optional_bool_field(&f, "norm_after_residual", &config->norm_after_residual) ||
        !optional_bool_field(&f, "kv_f32", &config->kv_f32) ||
        !optional_bool_field(&f, "bidirectional", &config->bidirectional)) {
        return false;
    }
    config->hidden_act = activation;
    config->rope_style = rope_style;
    config->norm_kind = norm_kind;
    int64_t n_angles, half = config->rotary_dim / 2;
    PyObject *value = field(&f, "rope_inv_freq");
    config->rope_inv_freq = value ? slm_py_floats(value, "rope_inv_freq", &n_angles, keep) : NULL;
    Py_XDECREF(value);
    if (!config->rope_inv_freq) return false;
    if (half < 1 ? n_angles != 0 : n_angles % half) {
        PyErr_Format(PyExc_ValueError, "rope_inv_freq: expected a multiple of rotary_dim / 2 = %lld numbers, found %lld",
                     (long long)half, (long long)n_angles);
        return false;
    }
    config->n_rope_tables = half < 1 ? 0 : n_angles / half;
    return all_read(&f, "config");
}

static bool read_layer(fields *f, slm_layer_weights *layer) {
    const struct {
        const char *name;
        slm_affine *out;
        bool optional;
    } tensors[] = {
        {"input_layernorm", &layer->input_layernorm, true},
        {"q_proj", &layer->q_proj, false},
        {"k_proj", &layer->k_proj, false},
        {"v_proj", &layer->v_proj, false},
        {"q_norm", &layer->q_norm, true},
        {"k_norm", &layer->k_norm, true},
        {"o_proj", &layer->o_proj, false},
        {"attn_output_norm", &layer->attn_output_norm, true},
        {"post_attention_layernorm", &layer->post_attention_layernorm, true},
        {"gate_proj", &layer->gate_proj, true},
        {"up_proj", &layer->up_proj, false},
        {"down_proj", &layer->down_proj, false},
        {"mlp_output_norm", &layer->mlp_output_norm, true},
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        if (!affine_field(f, tensors[i].name, tensors[i].optional, tensors[i].out)) return false;
    }
    return int_field(f, "down_proj_group", &layer->down_proj_group) &&
           optional_int_field(f, "sliding_window", &layer->sliding_window) &&
           optional_int_field(f, "rope_table", &layer->rope_table) && all_read(f, "layers");
}

/* How many pieces all tensors of a mapping have beyond their first ones; -1 with an exception. */
static Py_ssize_t count_pieces(PyObject *mapping) {
    PyObject *values = PyMapping_Values(mapping);
    if (!values) return -1;
    Py_ssize_t count = 0;
    for (Py_ssize_t i = 0; i < PyList_Size(values); i++) {
        PyObject *value = PyList_GetItem(values, i);
        count += PyList_Check(value) ? PyList_Size(value) : 0;
    }
    Py_DECREF(values);
    return count;
}

/* One block holds all layers, and behind them the pieces of their tensors. */
static slm_layer_weights *alloc_layers(PyObject *list, Py_ssize_t n_layers, slm_tensor **pieces) {
    size_t n_pieces = 0, layers_bytes = (size_t)n_layers * sizeof(slm_layer_weights);
    for (Py_ssize_t i = 0; i < n_layers; i++) {
        PyObject *item = PySequence_GetItem(list, i);
        Py_ssize_t count = item ? count_pieces(item) : -1;
        Py_XDECREF(item);
        if (count < 0) return NULL;
        n_pieces += (size_t)count;
    }
    slm_layer_weights *layers = slm_alloc_zero(1, layers_bytes + n_pieces * sizeof(slm_tensor));
    if (!layers) return (slm_layer_weights *)PyErr_NoMemory();
    *pieces = (slm_tensor *)(layers + n_layers);
    return layers;
}

/* weights->layers becomes a block to be freed with slm_free, also on failure. */
static bool read_weights(const slm_py_state *state, PyObject *mapping, int64_t n_layers, slm_weights *weights) {
    fields f = {.state = state, .mapping = mapping};
    if (!tensor_field(&f, "embed_tokens", false, &weights->embed_tokens) ||
        !tensor_field(&f, "position_embeddings", true, &weights->position_embeddings) ||
        !tensor_field(&f, "token_type_embedding", true, &weights->token_type_embedding) ||
        !affine_field(&f, "embedding_norm", true, &weights->embedding_norm) || !affine_field(&f, "norm", true, &weights->norm) ||
        !affine_field(&f, "lm_head", true, &weights->lm_head)) {
        return false;
    }
    PyObject *list = field(&f, "layers");
    if (!list) return false;
    Py_ssize_t found = PySequence_Size(list);
    bool ok = found >= 0 && found == n_layers && all_read(&f, "weights");
    if (found >= 0 && found != n_layers)
        PyErr_Format(PyExc_ValueError, "layers: expected num_hidden_layers = %lld, found %zd", (long long)n_layers, found);
    slm_tensor *pieces = NULL;
    slm_layer_weights *layers = ok ? alloc_layers(list, found, &pieces) : NULL;
    weights->layers = layers;
    ok = ok && layers;
    for (Py_ssize_t i = 0; ok && i < found; i++) {
        PyObject *item = PySequence_GetItem(list, i);
        fields layer = {.state = state, .mapping = item, .pieces = &pieces};
        ok = item && read_layer(&layer, &layers[i]);
        Py_XDECREF(item);
    }
    Py_DECREF(list);
    return ok;
}

/* ---- the type ------------------------------------------------------------------------------------------------------------- */

static const char *const kv_types[] = {
    [SLM_KV_AUTO] = "auto", [SLM_KV_F32] = "f32", [SLM_KV_BF16] = "bf16", [SLM_KV_INT8] = "int8", NULL};
static const char *const precisions[] = {[SLM_PRECISION_DEFAULT] = "default", [SLM_PRECISION_HIGH] = "high", NULL};

int slm_py_choice(const char *parameter, const char *const *names, const char *value) {
    for (int i = 0; names[i]; i++) {
        if (!strcmp(names[i], value)) return i;
    }
    PyErr_Format(PyExc_ValueError, "%s: '%.32s' is not known", parameter, value);
    return -1;
}

/* The arguments of one load: all that slm_model_load needs. */
typedef struct request {
    slm_config config;
    slm_weights weights;
    slm_load_options options;
    slm_py_call call;
    PyObject *keep; /* what config borrows from */
} request;

static void request_release(request *r) {
    slm_free((void *)(uintptr_t)r->weights.layers);
    Py_XDECREF(r->keep);
}

/* *r must be released on failure too. */
static bool read_request(const slm_py_state *state, PyObject *args, PyObject *kwargs, request *r) {
    static char *names[] = {"config", "weights", "context", "kv", "precision", "quantize", "threads", "progress", NULL};
    PyObject *config, *weights, *context, *threads = NULL, *progress = Py_None;
    const char *kv_name = kv_types[SLM_KV_AUTO], *precision_name = precisions[SLM_PRECISION_DEFAULT], *quantize = NULL;
    int64_t n_threads = 0;
    *r = (request){0};
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO|$sszOO", names, &config, &weights, &context, &kv_name, &precision_name,
                                     &quantize, &threads, &progress) ||
        !slm_py_int(context, "context", INT64_MIN, INT64_MAX, &r->options.context) ||
        (threads && !slm_py_int(threads, "threads", 0, SLM_PY_MAX_THREADS, &n_threads))) {
        return false;
    }
    int kv = slm_py_choice("kv", kv_types, kv_name),
        precision = kv < 0 ? -1 : slm_py_choice("precision", precisions, precision_name);
    if (precision < 0) return false;
    r->options.kv = kv;
    r->options.precision = precision;
    r->options.screening = slm_py_screening();
    if (quantize) r->options.quantize = slm_py_type(quantize);
    if (quantize && r->options.quantize == SLM_TYPE_NONE) {
        PyErr_Format(PyExc_ValueError, "quantize: '%.32s' is not known", quantize);
        return false;
    }
    r->call = (slm_py_call){
        .call.threads = (int)n_threads, .progress = progress == Py_None ? NULL : progress, .progress_kind = SLM_EVENT_PROGRESS};
    return read_config(state, config, &r->config, &r->keep) &&
           read_weights(state, weights, r->config.num_hidden_layers, &r->weights);
}

static int model_init(PyObject *self, PyObject *args, PyObject *kwargs) {
    slm_py_model *model = (slm_py_model *)self;
    slm_py_state *state = slm_py_state_of(Py_TYPE(self));
    slm_error error;
    request r;
    bool ok = read_request(state, args, kwargs, &r);
    if (ok) {
        slm_model *loaded = NULL;
        slm_py_call_begin(&r.call, state);
        slm_status status = slm_model_load(&r.config, &r.weights, &r.options, &r.call.call, &loaded, &error);
        ok = slm_py_call_end(&r.call) && !status;
        if (ok) {
            slm_model_release(model->model);
            model->model = loaded;
        } else {
            slm_model_release(loaded);
            if (status) slm_py_raise(state, &error);
        }
    }
    request_release(&r);
    return ok ? 0 : -1;
}

/* Name of a type -> count, of those with any; NULL with an exception. */
static PyObject *counts_by_type(const int64_t *counts) {
    PyObject *result = PyDict_New();
    for (int i = 0; result && i < SLM_TYPE_COUNT; i++) {
        PyObject *count = counts[i] ? PyLong_FromLongLong(counts[i]) : NULL;
        if (counts[i] && (!count || PyDict_SetItemString(result, slm_type_name(i), count))) Py_CLEAR(result);
        Py_XDECREF(count);
    }
    return result;
}

static PyObject *model_measure(PyObject *type, PyObject *args, PyObject *kwargs) {
    slm_py_state *state = slm_py_state_of((PyTypeObject *)type);
    PyObject *result = NULL;
    slm_memory memory;
    slm_error error;
    request r;
    if (read_request(state, args, kwargs, &r)) {
        slm_status status = slm_model_measure(&r.config, &r.weights, &r.options, &r.call.call, &memory, &error);
        result = status ? slm_py_raise(state, &error)
                        : Py_BuildValue("{s:N,s:N,s:N,s:N,s:s,s:N}", "weight_bytes", PyLong_FromSize_t(memory.weight_bytes),
                                        "load_bytes", PyLong_FromSize_t(memory.load_bytes), "kv_bytes",
                                        PyLong_FromSize_t(memory.kv_bytes), "workspace_bytes",
                                        PyLong_FromSize_t(memory.workspace_bytes), "kv", kv_types[memory.kv], "encoded",
                                        counts_by_type(memory.encoded));
    }
    request_release(&r);
    return result;
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
    return Py_BuildValue("{s:n,s:n,s:n,s:L,s:L,s:L,s:L,s:L,s:s,s:s,s:O}", "weight_bytes", (Py_ssize_t)stats.weight_bytes,
                         "token_bytes", (Py_ssize_t)stats.token_bytes, "kv_bytes", (Py_ssize_t)stats.kv_bytes, "context",
                         (long long)stats.context, "vocab_size", (long long)stats.vocab_size, "hidden_size",
                         (long long)stats.hidden_size, "num_hidden_layers", (long long)stats.num_hidden_layers,
                         "num_attention_heads", (long long)stats.num_attention_heads, "kv", kv_types[stats.kv], "precision",
                         precisions[stats.precision], "bidirectional", stats.bidirectional ? Py_True : Py_False);
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

static PyObject *model_unembed(PyObject *self, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"hidden", "threads", NULL};
    slm_py_model *model = (slm_py_model *)self;
    slm_py_state *state = slm_py_state_of(Py_TYPE(self));
    PyObject *hidden, *threads = NULL, *keep = NULL, *array = NULL;
    slm_py_call call = {0};
    slm_error error;
    int64_t n_rows;
    float *logits;
    if (!ready(state, model) || !PyArg_ParseTupleAndKeywords(args, kwargs, "O|O", names, &hidden, &threads) ||
        !slm_py_call_options(threads, NULL, &call.call)) {
        return NULL;
    }
    /* Another thread may initialise this object anew while the call runs. */
    slm_model *held = slm_model_retain(model->model);
    slm_model_stats stats;
    slm_model_describe(held, &stats);
    const float *rows = slm_py_rows(hidden, "hidden", stats.hidden_size, &n_rows, &keep);
    if (rows) array = slm_py_new_array_f32(n_rows, stats.vocab_size, &logits);
    if (array) {
        slm_py_call_begin(&call, state);
        slm_status status = slm_model_unembed(held, rows, n_rows, logits, &call.call, &error);
        if (!slm_py_call_end(&call) || status) Py_CLEAR(array);
        if (status) slm_py_raise(state, &error);
    }
    slm_model_release(held);
    Py_XDECREF(keep);
    return array;
}

static void model_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    slm_model_release(((slm_py_model *)self)->model);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"measure", (PyCFunction)(void (*)(void))model_measure, METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     "measure(config, weights, context, *, kv='auto', precision='default', quantize=None, threads=0, progress=None)\n--\n\n"
     "The memory that a model made of the same arguments will take. Reads no weights."},
    {"stats", model_stats, METH_NOARGS, "stats()\n--\n\nBytes held and read, context, vocabulary size, KV type."},
    {"unembed", (PyCFunction)(void (*)(void))model_unembed, METH_VARARGS | METH_KEYWORDS,
     "unembed(hidden, threads=0)\n--\n\nThe logits of rows of the residual stream, by the final norm and lm_head."},
    {"adapt", (PyCFunction)(void (*)(void))slm_py_model_adapt, METH_VARARGS | METH_KEYWORDS,
     "adapt(loras, threads=0)\n--\n\nA model that shares these weights and adds low-rank addends."},
    {"session", model_session, METH_NOARGS, "session()\n--\n\nA new, empty session."},
    {"restore", slm_py_model_restore, METH_VARARGS,
     "restore(state, length, settled)\n--\n\nThe session that Session.save() gave these of."},
    {"generate", (PyCFunction)(void (*)(void))slm_py_model_generate, METH_VARARGS | METH_KEYWORDS,
     "generate(tokenizer, prompts, max_tokens, ignore_eos, temperature, top_k, top_p, seed, sample, stop, end_tokens, "
     "draft='none', threads=0)\n--\n\nWhat Generation.next(True) gives for each prompt; they run together."},
    {"score", (PyCFunction)(void (*)(void))slm_py_model_score, METH_VARARGS | METH_KEYWORDS,
     "score(texts, n_scored, threads=0, prefill_chunk=0)\n--\n\nLog-probabilities of the last n_scored[i] tokens of text i, and "
     "whether all of these are the likeliest."},
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
